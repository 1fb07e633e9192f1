"""``make checkpoints``: run every row to its verdict and print the README's table.

Results are kept in ``artifacts/checkpoints/``; rows that are there are not run again. Words on the
command line choose the rows whose names or sources hold one of them.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tabulate import tabulate

from benchmarks.checkpoints.rows import ROWS, Row, run
from pipeline.files import read_json, write_json
from pipeline.formats import quantized

KEPT = Path("artifacts/checkpoints")


def main(words: Sequence[str] = ()) -> int:
    """Run the chosen rows and print the table; return the exit status."""
    chosen = [row for row in ROWS if not words or any(word in row.slug for word in words)]
    if not chosen:
        rows = "\n  ".join(row.slug for row in ROWS)
        print(f"no row has {' or '.join(words)} in its name; there are:\n  {rows}", file=sys.stderr)
        return 2
    results = {row: _result(row) for row in chosen}
    print(tabulate([_line(*item) for item in results.items()], _header(), tablefmt="github"))
    failed = [row for row, result in results.items() if result["failed"]]
    for row in failed:
        print(f"{row.name}, {row.how}: {'; '.join(results[row]['failed'])}", file=sys.stderr)
    for row, result in results.items():
        for sentence in result.get("impossible", {}).values():
            print(f"{row.name}, {row.how}: {sentence}", file=sys.stderr)
    return 1 if any(not row.family for row in failed) else 0


def _result(row: Row) -> dict[str, Any]:
    path = KEPT / f"{row.slug}.json"
    if not path.is_file():
        with tempfile.TemporaryDirectory(prefix="edge-vit-") as folder:
            write_json(path, asdict(run(row, Path(folder))))
    return dict(read_json(path))


def _header() -> list[str]:
    return ["checkpoint", "named by", "float MB", ".ptl", ".int8.onnx", ".pte", "gate"]


def _line(row: Row, result: dict[str, Any]) -> list[str]:
    cells = [
        f"{file['size_ratio']:.3f}, {file['agreement']:.0%}, {file['sqnr_db']:.0f} dB, "
        f"{file['time_ratio']:.2f}"
        if (file := result["files"].get(key))
        else "none"
        for key in quantized()
    ]
    verdict = "fail" if result["failed"] or not result["files"] else "no fail"
    return [row.name, row.how, f"{result['float_mb']:.1f}", *cells, verdict]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
