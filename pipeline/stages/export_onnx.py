"""Stage ``export_onnx``: the float model and an int8 copy, as single ONNX files."""

from __future__ import annotations

from pipeline import paths
from pipeline.errors import exit_on_error
from pipeline.export.exporter import Sources, export_all
from pipeline.params import load_params


def main() -> None:
    with exit_on_error():
        print(export_all("export_onnx", load_params(), Sources(paths.ARTIFACTS)))


if __name__ == "__main__":
    main()
