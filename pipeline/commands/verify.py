"""Is this release what was published? Checks a folder without torch or any runtime.

Hashes, missing and added files, the contract inside each model file, golden answers, evidence, and
the verdict, decided again from the evidence. With --public-key the signature, too.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pipeline.errors import exit_on_error, shown
from pipeline.release import signatures
from pipeline.release.verification import examine


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="edge-vit verify", description=__doc__)
    parser.add_argument("release", type=Path, metavar="DIR", help="folder of a release")
    parser.add_argument(
        "--public-key",
        type=Path,
        metavar="PATH",
        help="of whoever signed it (PEM); an unsigned release is then refused",
    )
    given = parser.parse_args(arguments)
    with exit_on_error():
        found = examine(given.release, given.public_key)
        for fact in found.facts:
            print(f"  holds: {fact}")
        for problem in found.problems:
            print(f"  WRONG: {shown(problem, 2000)}")
        if given.public_key is None:
            print(f"  signature: {signatures.state(given.release)}")
        count = len(found.problems)
        words = f"{count} problem(s)" if count else "whole, and everything in it agrees"
        print(f"{given.release}: {words}")
    sys.exit(1 if found.problems else 0)


if __name__ == "__main__":
    main()
