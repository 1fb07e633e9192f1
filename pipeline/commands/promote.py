"""Give a version a stage: an annotated tag, once the DVC remote has shown every file.

Without --yes it only says what it would do. `prod` takes what the gate's release channel publishes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.errors import exit_on_error
from pipeline.registry.git import Git
from pipeline.registry.names import STAGES, parse_version
from pipeline.registry.staged import move
from pipeline.registry.steps import alone
from pipeline.registry.tags import Registry


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="edge-vit promote", description=__doc__)
    parser.add_argument("version", metavar="NAME@VERSION", help="such as deit-tiny@v1.2.0")
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--yes", action="store_true", help="do it")
    parser.add_argument(
        "--accept-undecided", metavar="REASON", help="why undecided criteria do not matter"
    )
    parser.add_argument("--remote", help="DVC remote of the files (default: the release's own)")
    parser.add_argument("--git-remote", help="git remote of the tags (default: origin)")
    parser.add_argument("-m", "--message", help="what to say in the tag")
    given = parser.parse_args(arguments)
    with exit_on_error():
        name, version = parse_version(given.version)
        git = Git.open(Path.cwd(), given.git_remote)
        with alone(git.lock_file()):
            move(
                git,
                Registry.read(git, name),
                version,
                given.stage,
                "promote",
                yes=given.yes,
                remote=given.remote,
                why=given.message,
                accepted=given.accept_undecided,
            )


if __name__ == "__main__":
    main()
