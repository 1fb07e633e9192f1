"""Distances, intervals and timing: pure functions of numbers."""
