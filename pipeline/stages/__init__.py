"""A module for each stage of ``dvc.yaml``."""
