"""The formats that are delivered."""

from __future__ import annotations

from typing import Literal

Format = Literal["ptl", "onnx", "int8_onnx", "pte"]  # of what is delivered


FORMATS: tuple[Format, ...] = ("ptl", "onnx", "int8_onnx", "pte")


NAMES: dict[str, str] = {"ptl": ".ptl", "onnx": ".onnx", "int8_onnx": ".int8.onnx", "pte": ".pte"}
