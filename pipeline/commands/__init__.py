"""A module for each command of ``edge-vit``."""
