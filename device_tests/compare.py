"""Hold the answers of a device of your own to the golden ones.

Use: python -m device_tests.compare GOLDEN FORMAT ANSWER.json

GOLDEN is the folder of a release or of ``artifacts/``, FORMAT one of ptl, onnx, int8_onnx and pte;
ANSWER.json has ``logits``, a list for each golden image in their order, at least the first 16 of
them, as `runner.py` and `lite_app` print it. Exit status 0: it agrees; 1: it does not.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import InputError, exit_on_error
from pipeline.evidence.devices import Cell
from pipeline.evidence.golden import Golden
from pipeline.files import read_json
from pipeline.formats import FORMATS
from pipeline.params import Gate, load_params
from pipeline.verdict.criteria import devices


def compare(golden: Golden, file_format: str, answer: Path, gate: Gate) -> tuple[bool, str]:
    """Return whether the answers agree, and the numbers in words.

    Raises:
        InputError: there are no such answers, or they cannot be compared.
    """
    content = read_json(answer)
    logits = content.get("logits") if isinstance(content, dict) else None
    if not logits:
        error = content.get("error") if isinstance(content, dict) else None
        raise InputError(f"{answer} holds no logits" + (f": {error}" if error else ""))
    cell = Cell(
        format=file_format, sha256="", runtime="", machine="", loads=True, runs=True, logits=logits
    )
    try:
        near = devices.agreement(golden.content, cell)
    except (TypeError, ValueError):
        near = None
    if near is None:
        images, classes = golden.logits(file_format).shape
        raise InputError(
            f"{answer}: logits must be {devices.IMAGES_MIN} to {images} lists of {classes} numbers"
        )
    agrees = devices.agrees(gate, golden.content, cell)
    limit = gate.budgets[file_format].device_sqnr_min_db if file_format in gate.budgets else None
    return agrees, (
        f"{'agrees' if agrees else 'DOES NOT AGREE'}: {near.sqnr_db:.1f} dB from the golden "
        f"answers of the {FORMATS[file_format].suffix} (limit {limit} dB), "
        f"{near.float_sqnr_db:.1f} dB from float, "
        f"top-1 as there on {near.top1_equal} of {near.count} images"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare the logits of a device with the golden ones and print the result."""
    parser = argparse.ArgumentParser(prog="python -m device_tests.compare", description=__doc__)
    parser.add_argument("golden", type=Path)
    parser.add_argument("format", choices=FORMATS)
    parser.add_argument("answer", type=Path)
    given = parser.parse_args(arguments)
    with exit_on_error():
        golden = Golden.load(given.golden)
        agrees, words = compare(golden, given.format, given.answer, load_params().gate)
        print(words)
    sys.exit(0 if agrees else 1)


if __name__ == "__main__":
    main()
