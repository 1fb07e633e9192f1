"""What commands share: how one is declared, how its errors end, and options that several have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from pipeline import paths
from pipeline.errors import exit_on_error

F = TypeVar("F", bound=Callable[..., Any])

# Help is as wide as the terminal, and the same where a command runs as `python -m`.
SETTINGS: dict[str, Any] = {
    "help_option_names": ["-h", "--help"],
    "max_content_width": 10_000,
    "show_default": True,
}
PATH = click.Path(path_type=Path)
COUNT = click.IntRange(min=1)


class Command(click.Command):
    """A command whose expected errors end in one message and an exit status."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; expected errors end in one message."""
        with exit_on_error():
            return super().invoke(ctx)


def command(name: str, doc: str | None) -> Callable[[Callable[..., Any]], Command]:
    """Declare ``edge-vit NAME``, with a module's docstring as its help."""
    return click.command(name, cls=Command, help=doc, context_settings=SETTINGS)


def json_option(function: F) -> F:
    """``--json`` of commands that can print for a program."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)


def release_options(function: F) -> F:
    """``--release`` and ``--runtime``: which file answers; see :mod:`pipeline.inference.select`."""
    from pipeline.formats import FORMATS
    from pipeline.inference.select import FLOAT

    release = click.option(
        "--release",
        type=PATH,
        metavar="DIR",
        help=f"Folder of a release.  [default: the newest below {paths.RELEASE}]",
    )
    runtime = click.option(
        "--runtime",
        type=click.Choice([*(known.option for known in FORMATS.values()), FLOAT]),
        default=next(iter(FORMATS.values())).option,
        help="Runtime to use; float: PyTorch with the checkpoint's own weights.",
    )
    return release(runtime(function))


def registry_options(function: F) -> F:
    """Options of commands that write tags: nothing is changed without ``--yes``."""
    for option in (
        click.option("-m", "--message", help="Message of the tag."),
        click.option("--git-remote", help="Git remote of the tags.  [default: origin]"),
        click.option(
            "--remote", help="DVC remote of the files.  [default: the release's, or DVC's]"
        ),
        click.option("--yes", is_flag=True, help="Do it; without this nothing is changed."),
    ):
        function = option(function)
    return function
