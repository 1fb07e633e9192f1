"""Measurements bound to the bytes and the machine they were taken on."""
