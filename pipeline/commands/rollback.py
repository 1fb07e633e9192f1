"""Give a stage back to the version that had it before, by one more tag; no tag is removed.

Without --yes it only says what it would do. Two rollbacks in a row go back two versions.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.errors import exit_on_error
from pipeline.registry.git import Git
from pipeline.registry.names import STAGES
from pipeline.registry.staged import earlier, move
from pipeline.registry.steps import alone
from pipeline.registry.tags import Registry


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="edge-vit rollback", description=__doc__)
    parser.add_argument("name", metavar="NAME", help="such as deit-tiny")
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--to", metavar="VERSION", help="an earlier one that had the stage")
    parser.add_argument("--yes", action="store_true", help="do it")
    parser.add_argument("--remote", help="DVC remote of the files (default: the release's own)")
    parser.add_argument("--git-remote", help="git remote of the tags (default: origin)")
    parser.add_argument("-m", "--message", help="what to say in the tag")
    given = parser.parse_args(arguments)
    with exit_on_error():
        git = Git.open(Path.cwd(), given.git_remote)
        known = git.local_tags()  # before others had their turn: a rollback is from there
        with alone(git.lock_file()):
            registry = Registry.read(git, given.name)
            move(
                git,
                registry,
                earlier(registry, known, given.stage, given.to),
                given.stage,
                "rollback",
                yes=given.yes,
                remote=given.remote,
                why=given.message,
            )


if __name__ == "__main__":
    main()
