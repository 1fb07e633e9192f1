"""Sign a release with a private key, after verifying it: writes model.sig into its folder.

The signature covers every other file of the folder. --generate-key makes a key pair first:
edge-vit.key, which nobody else may get, and edge-vit.pub. It refuses to write inside a git
repository, and to replace a key. Needs the extra "sign".
"""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.commands.common import PATH, command
from pipeline.release.signing import generate, sign


@command("sign", __doc__)
@click.argument("release", type=PATH, metavar="DIR", required=False)
@click.option("--key", type=PATH, metavar="PATH", help="Private key to sign with.")
@click.option(
    "--generate-key",
    "folder",
    type=PATH,
    metavar="DIR",
    help="Folder for a new key pair, such as ~/.config/edge-vit; nothing is signed.",
)
def main(release: Path | None, key: Path | None, folder: Path | None) -> None:
    """Sign a release, or make a key pair."""
    if folder is not None:
        if release or key:
            raise click.UsageError("--generate-key goes with no other argument")
        _generate(folder)
    elif release is None or key is None:
        raise click.UsageError("give the release's folder and --key, or --generate-key")
    else:
        print(f"signed: {sign(release, key)}")


def _generate(folder: Path) -> None:
    private, public, name = generate(folder)
    print(f"private key: {private}: keep a copy in a safe place, and give it to nobody")
    print(f"public key:  {public}: give it to whoever verifies, by another way than the files")
    print(f"key id:      {name}")


if __name__ == "__main__":
    main()
