"""Upload a published folder to the DVC remote, then push its version's tag to the git remote.

FOLDER is by default the one that was published last. With --to hf:ORG/NAME it goes to that model
repository of the Hugging Face Hub instead, in one commit with a tag vVERSION; neither git nor a DVC
remote is needed. Without --yes it only says what it would do. Interrupted? Run it again; it
resumes.
"""

from __future__ import annotations

from pathlib import Path

import click

from pipeline import paths
from pipeline.commands.common import PATH, command, registry_options
from pipeline.contract.files import load_contract
from pipeline.errors import InputError
from pipeline.params import load_params
from pipeline.registry import hub
from pipeline.registry.git import Git
from pipeline.registry.names import registry_name
from pipeline.registry.released import Releasing
from pipeline.registry.steps import alone, carry_out
from pipeline.registry.store import open_store
from pipeline.release.read import newest_release
from pipeline.release.verification import require_whole

HUB = "hf:"


@command("release", __doc__)
@click.argument("folder", type=PATH, required=False)
@click.option("--key", type=PATH, metavar="PATH", help="Private key to sign the release with.")
@click.option("--to", metavar="hf:ORG/NAME", help="Upload it to the Hub instead.")
@registry_options
def main(
    folder: Path | None,
    key: Path | None,
    to: str | None,
    yes: bool,
    remote: str | None,
    git_remote: str | None,
    message: str | None,
) -> None:
    """Add a release to the registry or the hub."""
    folder = folder or _newest()
    if to is not None:
        if key or remote or git_remote or message:
            raise InputError("--to goes with --yes only; `edge-vit sign` signs a release")
        upload(folder, to, yes)
        return
    git = Git.open(Path.cwd(), git_remote)
    name = load_params().release.artifact or registry_name(load_contract(folder).name)
    with alone(git.lock_file()), open_store(git.root, remote) as store:
        release = Releasing(git, store, name, folder, key, message)
        carry_out(f"release {release.tag}", release.steps(), yes)
        if release.exists:
            print(f"{release.tag} has been released before, with these bytes")


def upload(folder: Path, to: str, yes: bool) -> None:
    """Verify a release and put it on the hub; without ``yes`` only say what that would do.

    Raises:
        InputError: ``to`` is not the address of a hub's repository.
        IntegrityError: the folder is not what was published; or as :func:`hub.upload`.
    """
    if not to.startswith(HUB):
        raise InputError(f"--to must be an address such as {HUB}ORG/NAME, got {to}")
    require_whole(folder)
    print(f"upload {folder}" + ("" if yes else ": a dry run, nothing is changed; --yes does this:"))
    for line in hub.upload(folder, to.removeprefix(HUB), do=yes):
        print(f"  {line}")


def _newest() -> Path:
    newest = newest_release(paths.RELEASE)
    if newest is None:
        raise InputError(f"{paths.RELEASE} has no release; run `dvc repro` to make one")
    return newest.folder


if __name__ == "__main__":
    main()
