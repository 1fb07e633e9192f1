"""Make a key pair to sign releases with: edge-vit.key, which nobody else may get, and edge-vit.pub.

Needs the extra "sign". Refuses to write inside a git repository, and to replace a key.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.errors import exit_on_error
from pipeline.release.signing import generate


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="edge-vit keygen", description=__doc__)
    parser.add_argument(
        "folder", type=Path, metavar="DIR", help="where the keys go, such as ~/.config/edge-vit"
    )
    folder = parser.parse_args(arguments).folder
    with exit_on_error():
        private, public, name = generate(folder)
        print(f"private key: {private}: keep a copy in a safe place, and give it to nobody")
        print(f"public key:  {public}: give it to whoever verifies, by another way than the files")
        print(f"key id:      {name}")


if __name__ == "__main__":
    main()
