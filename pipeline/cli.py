"""The ``edge-vit`` command. Heavy libraries are imported by the commands that need them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from pipeline.core.errors import exit_on_error


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; exit status 0, 1 when the gate refuses, 2 on bad input."""
    parser = argparse.ArgumentParser(
        prog="edge-vit",
        description="Vision transformers for phones, boards and browsers, let out only with proof.",
        epilog="`dvc repro` makes everything; these commands decide on it and show it.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add(commands, "gate", "judge the evidence below artifacts/ and write artifacts/verdict/", gate)
    _add(commands, "summary", "show each file beside float, the verdict and the release", summary)
    chosen = parser.parse_args(arguments)
    with exit_on_error():
        chosen.run()


def gate() -> None:
    from pipeline import gate as stage

    stage.main()


def summary() -> None:
    from pipeline import summary as shown

    shown.main()


def _add(commands: argparse._SubParsersAction, name: str, words: str, run: object) -> None:  # type: ignore[type-arg]
    commands.add_parser(name, help=words, description=words).set_defaults(run=run)


if __name__ == "__main__":
    main()
