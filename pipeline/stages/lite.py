"""Stage ``lite``: the ``.ptl`` that Android's and iOS's PyTorch Lite load, contract inside."""

from __future__ import annotations

from pipeline import paths
from pipeline.errors import exit_on_error
from pipeline.export.exporter import Sources, export_all
from pipeline.params import load_params


def main() -> None:
    with exit_on_error():
        print(export_all("lite", load_params(), Sources(paths.ARTIFACTS)))


if __name__ == "__main__":
    main()
