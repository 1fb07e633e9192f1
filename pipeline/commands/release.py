"""Release what was published: files to the DVC remote, then a tag to the git remote.

With --to hf:ORG/NAME it goes to that model repository of the Hugging Face Hub instead, in one
commit with a tag vVERSION; neither git nor a DVC remote is needed. Without --yes it only says what
it would do. Interrupted, the same command again goes on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline import paths
from pipeline.contract.files import load_contract
from pipeline.errors import InputError, exit_on_error
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


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="edge-vit release", description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", help="default: the one published last")
    parser.add_argument("--yes", action="store_true", help="do it")
    parser.add_argument("--key", type=Path, help="private key to sign the release with")
    parser.add_argument("--remote", help="DVC remote for the files (default: DVC's default)")
    parser.add_argument("--git-remote", help="git remote for the tag (default: origin)")
    parser.add_argument("-m", "--message", help="what to say in the tag")
    parser.add_argument("--to", metavar="hf:ORG/NAME", help="upload it to the hub instead")
    given = parser.parse_args(arguments)
    with exit_on_error():
        folder = given.folder or _newest()
        if given.to is not None:
            if given.key or given.remote or given.git_remote or given.message:
                raise InputError("--to goes with --yes only; `edge-vit sign` signs a release")
            upload(folder, given.to, given.yes)
            return
        git = Git.open(Path.cwd(), given.git_remote)
        name = load_params().release.artifact or registry_name(load_contract(folder).name)
        with alone(git.lock_file()), open_store(git.root, given.remote) as store:
            release = Releasing(git, store, name, folder, given.key, given.message)
            carry_out(f"release {release.tag}", release.steps(), given.yes)
            if release.exists:
                print(f"{release.tag} has been released before, with these bytes")


def upload(folder: Path, to: str, yes: bool) -> None:
    """Verify a release and put it on the hub; without ``yes`` only say what that would do.

    Raises:
        InputError: ``to`` is no address of a hub's repository.
        IntegrityError: the folder is not what was published; or as :func:`hub.upload`.
    """
    if not to.startswith(HUB):
        raise InputError(f"--to must be an address such as {HUB}ORG/NAME, got {to}")
    require_whole(folder)
    print(f"upload {folder}" + ("" if yes else ": a dry run, nothing is changed; --yes does this:"))
    for line in hub.upload(folder, to.removeprefix(HUB), do=yes):
        print(f"  {line}")


def _newest() -> Path:
    found = newest_release(paths.RELEASE)
    if found is None:
        raise InputError(f"{paths.RELEASE} has no release; run `dvc repro` to make one")
    return found.folder


if __name__ == "__main__":
    main()
