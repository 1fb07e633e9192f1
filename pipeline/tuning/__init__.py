"""Searches for cheaper or more accurate recipes: diagnose, repair, tune."""
