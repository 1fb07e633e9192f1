"""How many threads PyTorch computes with, where that decides bytes."""

from __future__ import annotations
