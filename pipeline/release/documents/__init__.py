"""The documents of a release: card, ML-BOM, attestations, licence notices."""
