"""edge-vit: vision transformers for phones, boards and browsers, published only with proof.

The folders are in the order in which the bytes travel; ARCHITECTURE.md says what lives where and
which may import which.
"""
