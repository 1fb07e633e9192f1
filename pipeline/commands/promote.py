"""Give a version a stage, by an annotated tag, once the DVC remote has shown every file.

`prod` takes what the gate's release channel publishes. With --rollback the stage goes back to the
version that had it before, by one more tag; no tag is removed, and two rollbacks in a row go back
two versions. Without --yes it only says what it would do.

    \b
    edge-vit promote deit-tiny@v1.2.0 prod
    edge-vit promote deit-tiny prod --rollback
"""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.commands.common import command, registry_options
from pipeline.registry.git import Git
from pipeline.registry.names import STAGES, parse_version
from pipeline.registry.staged import move, rollback_target
from pipeline.registry.steps import alone
from pipeline.registry.tags import Registry


@command("promote", __doc__)
@click.argument("name", metavar="NAME@VERSION")
@click.argument("stage", type=click.Choice(STAGES))
@click.option("--accept-undecided", metavar="REASON", help="Why undecided criteria do not matter.")
@click.option("--rollback", is_flag=True, help="Go back to an earlier version; give NAME alone.")
@click.option("--to", metavar="VERSION", help="With --rollback: a version that had the stage.")
@registry_options
def main(
    name: str,
    stage: str,
    accept_undecided: str | None,
    rollback: bool,
    to: str | None,
    yes: bool,
    remote: str | None,
    git_remote: str | None,
    message: str | None,
) -> None:
    """Give a stage of the registry to a version, or roll it back."""
    if rollback and accept_undecided:
        raise click.UsageError("--accept-undecided does not go with --rollback")
    if to and not rollback:
        raise click.UsageError("--to goes with --rollback only")
    if rollback and "@" in name:
        raise click.UsageError("--rollback takes the name alone; --to chooses the version")
    name, version = (name, None) if rollback else parse_version(name)
    git = Git.open(Path.cwd(), git_remote)
    before = git.local_tags()  # a rollback starts from there, whatever others do meanwhile
    with alone(git.lock_file()):
        registry = Registry.read(git, name)
        move(
            git,
            registry,
            version or rollback_target(registry, before, stage, to),
            stage,
            "rollback" if rollback else "promote",
            yes=yes,
            remote=remote,
            why=message,
            accepted=accept_undecided,
        )


if __name__ == "__main__":
    main()
