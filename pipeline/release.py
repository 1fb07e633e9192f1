"""Release what was published: files to the DVC remote, then a tag to the git remote.

Without --yes it only says what it would do. Interrupted, the same command again goes on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.core.errors import InputError, exit_on_error
from pipeline.core.params import load_params
from pipeline.registry.git import Git
from pipeline.registry.names import registry_name
from pipeline.registry.released import Releasing
from pipeline.registry.steps import alone, carry_out
from pipeline.registry.store import open_store
from pipeline.support import paths
from pipeline.support.contracts import load_contract
from pipeline.support.releases import newest_release


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="edge-vit release", description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", help="default: the one published last")
    parser.add_argument("--yes", action="store_true", help="do it")
    parser.add_argument("--key", type=Path, help="private key to sign the release with")
    parser.add_argument("--remote", help="DVC remote for the files (default: DVC's default)")
    parser.add_argument("--git-remote", help="git remote for the tag (default: origin)")
    parser.add_argument("-m", "--message", help="what to say in the tag")
    given = parser.parse_args(arguments)
    with exit_on_error():
        folder = given.folder or _newest()
        git = Git.open(Path.cwd(), given.git_remote)
        name = load_params().release.artifact or registry_name(load_contract(folder).name)
        with alone(git.lock_file()), open_store(git.root, given.remote) as store:
            release = Releasing(git, store, name, folder, given.key, given.message)
            carry_out(f"release {release.tag}", release.steps(), given.yes)
            if release.exists:
                print(f"{release.tag} has been released before, with these bytes")


def _newest() -> Path:
    found = newest_release(paths.RELEASE)
    if found is None:
        raise InputError(f"{paths.RELEASE} has no release; run `dvc repro` to make one")
    return found.folder


if __name__ == "__main__":
    main()
