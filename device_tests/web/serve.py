"""Serve the page for people: the int8 ONNX file of ``artifacts/`` or of a release's folder.

python -m device_tests.web.serve [--port N] [--folder artifacts]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from device_tests import cache
from device_tests.web.packages import install
from device_tests.web.server import Site, address, server
from pipeline import paths
from pipeline.errors import InputError, exit_on_error
from pipeline.evidence.golden import GOLDEN_FILE
from pipeline.files import sole_file
from pipeline.formats import FORMATS

PORT = 8000
MODEL_SUFFIX = ".int8.onnx"
TARGET = "web"


def find_model(folder: Path) -> tuple[Path, Path | None]:
    """The int8 ONNX file and the golden folder in ``artifacts/`` or in a release's folder.

    Raises:
        InputError: there is no such folder, or not exactly one such file.
    """
    if not folder.is_dir():
        raise InputError(
            f"{folder} is not a folder; run `make repro`, or give a release's folder with --folder"
        )
    stages = folder / FORMATS["int8_onnx"].folder
    model = sole_file(stages if stages.is_dir() else folder, MODEL_SUFFIX)
    golden = folder / paths.GOLDEN.name
    return model, golden if (golden / GOLDEN_FILE).is_file() else None


def main(arguments: list[str] | None = None) -> None:
    """Serve a release's folder with the browser page until it is interrupted."""
    parser = argparse.ArgumentParser(
        prog="python -m device_tests.web.serve",
        description="Serve the page that runs the int8 ONNX file in a browser.",
    )
    parser.add_argument("--port", type=int, default=PORT, help=f"default {PORT}")
    parser.add_argument(
        "--folder", type=Path, default=paths.ARTIFACTS, help="artifacts or a release's folder"
    )
    chosen = parser.parse_args(arguments)
    with exit_on_error():
        model, golden = find_model(chosen.folder)
        site = Site(install(cache.folder(TARGET)), model, golden)
        with server(site, chosen.port) as listening:
            print(f"{model.name}: open {address(listening)} (Ctrl+C ends it)", flush=True)
            try:
                listening.serve_forever()
            except KeyboardInterrupt:
                print()


if __name__ == "__main__":
    main()
