"""Benchmarks: stages, serving, checkpoints, and other toolchains."""
