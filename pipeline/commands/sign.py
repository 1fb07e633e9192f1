"""Sign a release with a private key, after verifying it: writes model.sig into its folder.

Needs the extra "sign". The signature covers every other file of the folder.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.errors import exit_on_error
from pipeline.release.signing import sign


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="edge-vit sign", description=__doc__)
    parser.add_argument("release", type=Path, metavar="DIR", help="folder of a release")
    parser.add_argument(
        "--key", type=Path, metavar="PATH", required=True, help="private key (edge-vit keygen)"
    )
    given = parser.parse_args(arguments)
    with exit_on_error():
        print(f"signed: {sign(given.release, given.key)}")


if __name__ == "__main__":
    main()
