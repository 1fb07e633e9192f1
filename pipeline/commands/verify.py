"""Is this release what was published? Checks a folder without torch or any runtime.

Checks hashes, missing and added files, the contract inside each model file, golden answers,
evidence, and the verdict, which is decided again from the evidence. With --public-key the
signature, too.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from pipeline.commands.common import PATH, command
from pipeline.errors import shown
from pipeline.release import signatures
from pipeline.release.verification import examine


@command("verify", __doc__)
@click.argument("release", type=PATH, metavar="DIR")
@click.option(
    "--public-key",
    type=PATH,
    metavar="PATH",
    help="Public key (PEM) of whoever signed it; an unsigned release is then refused.",
)
def main(release: Path, public_key: Path | None) -> None:
    """Check a release; exit with 1 or 2 if it is not what was published."""
    result = examine(release, public_key)
    for fact in result.facts:
        print(f"  holds: {fact}")
    for problem in result.problems:
        print(f"  WRONG: {shown(problem, 2000)}")
    if public_key is None:
        print(f"  signature: {signatures.state(release)}")
    count = len(result.problems)
    words = f"{count} problem(s)" if count else "whole, and everything in it agrees"
    print(f"{release}: {words}")
    sys.exit(1 if count else 0)


if __name__ == "__main__":
    main()
