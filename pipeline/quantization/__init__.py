"""Quantization: a module for each scheme, and what they share."""
