"""Versions and stages of released models: GTO's annotated git tags, and files on a DVC remote."""
