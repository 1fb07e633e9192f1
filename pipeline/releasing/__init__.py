"""Releases: what is in one, what is recorded of it, and where it goes."""
