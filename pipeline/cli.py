"""The command ``edge-vit``. A command's module is imported when it is chosen: help is instant."""

from __future__ import annotations

import importlib
from typing import Any

import click

from pipeline.commands.common import SETTINGS
from pipeline.errors import exit_on_error

GROUPS = {
    "Set up": {
        "init": "Find what a checkpoint and images say; write it to params.yaml.",
    },
    "Decide": {
        "gate": "Judge the evidence of a run; say what passed and what did not.",
        "report": "Write the evidence and the verdict as one HTML page.",
        "baseline": "Record the float model on this machine's GPU as the reference.",
    },
    "Inspect and improve": {
        "diagnose": "Rank layers by quantization error; --fix makes a run pass.",
        "tune": "Search for the cheapest files that keep the gate's budgets.",
    },
    "Use": {
        "predict": "Classify images; --all compares every file on one image.",
        "serve": "Answer over HTTP, as the Hub's inference endpoints do.",
    },
    "Release": {
        "verify": "Check that a release is what was published, and judge it again.",
        "diff": "Compare two releases, and list what an app must change.",
        "rebuild": "Build a release again from its record, and compare each byte.",
        "sign": "Sign a release; --generate-key makes a key pair.",
        "release": "Upload a published folder's files, and tag its version.",
        "promote": "Give a version a stage (candidate or prod); --rollback undoes it.",
    },
}
COMMANDS = {name: words for group in GROUPS.values() for name, words in group.items()}
RENAMED = {
    "summary": "edge-vit gate",
    "compare": "edge-vit predict --all IMAGE",
    "repair": "edge-vit diagnose --fix",
    "keygen": "edge-vit sign --generate-key DIR",
    "rollback": "edge-vit promote NAME STAGE --rollback",
}


class Commands(click.Group):
    """The commands by group, each imported only when it is run."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; expected errors end in one message."""
        with exit_on_error():  # an import takes long enough to be interrupted
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands, in the order of their groups."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of a command; None if there is no such command."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"pipeline.commands.{cmd_name}").main
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; a renamed or misspelt one is answered with the right name."""
        if args[0] in RENAMED:
            raise click.UsageError(f"{args[0]!r} is now `{RENAMED[args[0]]}`", ctx)
        try:
            return super().resolve_command(ctx, args)
        except click.NoSuchCommand as error:
            raise click.NoSuchCommand(error.command_name, None, COMMANDS, ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands group by group."""
        width = max(map(len, COMMANDS))
        for title, commands in GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(f"{name:{width}}", words) for name, words in commands.items()])


@click.group(cls=Commands, context_settings=SETTINGS)
@click.version_option(package_name="edge-vit", message="%(package)s %(version)s")
def main() -> None:
    """Vision transformers on phones, boards and browsers, behind a statistical release gate.

    `make repro` makes everything; these commands decide on it, show it and release it. Exit status:
    0 done, 1 refused, 2 bad input.
    """


if __name__ == "__main__":
    main(prog_name="edge-vit")
