"""A module for each kind of criterion."""
