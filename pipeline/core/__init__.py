"""Values and decisions: no input or output beyond what is passed in, no torch."""
