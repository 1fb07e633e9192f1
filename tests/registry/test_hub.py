"""Uploads to a hub on loopback: what arrives, in which order, and what becomes of faults."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import snapshot_download
from huggingface_hub.utils import _http, disable_progress_bars, enable_progress_bars

from pipeline.commands.release import main as release_command
from pipeline.errors import EdgeVitError, InputError, IntegrityError, NetworkError
from pipeline.registry.hub import upload
from pipeline.release.manifest import SUMS_FILE, format_sums
from pipeline.release.read import hashes
from pipeline.release.verification import verify
from tests.contract.builders import contract
from tests.hub_server import TOKEN, Hub, Repository

REPO = "someone/deit-tiny"
# huggingface_hub hands LFS files to its transport in a way that this would rather have otherwise.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


def release(folder: Path, version: str = "1.2.0", text: str = "weights") -> Path:
    """A small release: an upload looks at sums, and at the contract's name and version."""
    made = folder / f"m-{version}"
    (made / "evidence").mkdir(parents=True)
    (made / f"m-{version}.ptl").write_bytes(text.encode() * 9000)
    (made / f"m-{version}.onnx").write_bytes(b"float " + text.encode() * 5000)
    (made / "contract.json").write_text(contract(version=version).to_json())
    (made / "README.md").write_text("---\nlibrary_name: edge-vit\n---\n# A model\n")
    (made / "evidence" / "parity.json").write_text(f'{{"of": "{text}"}}')
    (made / SUMS_FILE).write_text(format_sums(hashes(made)))
    return made


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    disable_progress_bars()
    monkeypatch.setattr(_http.time, "sleep", lambda seconds: None)
    with Hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield hub
    enable_progress_bars()


def download(hub: Hub, tmp_path: Path, revision: str) -> dict[str, bytes]:
    """All files but the hub's own, as its client brings them back."""
    folder = Path(
        snapshot_download(
            REPO, revision=revision, endpoint=hub.address, cache_dir=tmp_path / "cache"
        )
    )
    return {name: text for name, text in content(folder).items() if name != ".gitattributes"}


def content(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_a_release_arrives_whole_in_one_commit_under_its_tag(hub: Hub, tmp_path: Path) -> None:
    made = release(tmp_path)
    lines = upload(made, REPO, do=True)
    assert lines == [
        f"create hf:{REPO}, private",
        f"commit 6 files, 0.1 MB, to main of hf:{REPO}",
        "tag it v1.2.0",
    ]
    found = hub.repositories[REPO]
    assert found.private
    assert len(found.commits) == 2  # the hub's own, and ours
    assert found.tags == {"v1.2.0": found.branch}
    assert len(hub.put) == 2  # by Git LFS
    assert download(hub, tmp_path, "v1.2.0") == content(made)


def test_a_dry_run_says_the_same_and_writes_nothing(hub: Hub, tmp_path: Path) -> None:
    made = release(tmp_path)
    planned = upload(made, REPO, do=False)
    assert not hub.posted
    assert not hub.repositories
    assert upload(made, REPO, do=True) == planned


def test_the_same_release_again_is_nothing_to_do(hub: Hub, tmp_path: Path) -> None:
    made = release(tmp_path)
    upload(made, REPO, do=True)
    posts = len(hub.posted)
    assert upload(made, REPO, do=True) == [f"hf:{REPO} has m-1.2.0 already, as v1.2.0"]
    assert len(hub.posted) == posts


def test_a_tag_is_never_given_other_bytes(hub: Hub, tmp_path: Path) -> None:
    upload(release(tmp_path / "a"), REPO, do=True)
    before = dict(hub.repositories[REPO].tags)
    for do in (False, True):
        with pytest.raises(IntegrityError, match=r"tag v1\.2\.0 with other files: SHA256SUMS, evi"):
            upload(release(tmp_path / f"b{do}", text="others"), REPO, do=do)
    assert hub.repositories[REPO].tags == before
    assert hub.repositories[REPO].branch == before["v1.2.0"]


def test_the_next_version_replaces_the_files_and_the_old_tag_stays(
    hub: Hub, tmp_path: Path
) -> None:
    first, second = release(tmp_path), release(tmp_path, "1.3.0", "better")
    upload(first, REPO, do=True)
    assert "remove m-1.2.0.ptl of an earlier release from main" in upload(second, REPO, do=True)
    assert download(hub, tmp_path, "main") == content(second)
    assert download(hub, tmp_path, "v1.2.0") == content(first)


def test_what_arrived_before_a_cut_is_not_sent_again(hub: Hub, tmp_path: Path) -> None:
    made = release(tmp_path)
    hub.cuts = 1
    upload(made, REPO, do=True)  # the client itself tries again
    assert download(hub, tmp_path, "v1.2.0") == content(made)


def test_after_a_lasting_cut_the_same_command_goes_on(hub: Hub, tmp_path: Path) -> None:
    made = release(tmp_path)
    hub.cuts = 11  # of two files, each tried six times
    with pytest.raises(NetworkError, match="run the same command again; it resumes"):
        upload(made, REPO, do=True)
    found = hub.repositories[REPO]
    assert not found.tags
    assert len(found.commits) == 1
    arrived = len(hub.put)
    upload(made, REPO, do=True)
    assert arrived == 1
    assert len(hub.put) == 2
    assert download(hub, tmp_path, "v1.2.0") == content(made)


def test_a_large_file_that_was_damaged_on_the_way_is_refused(hub: Hub, tmp_path: Path) -> None:
    hub.damages = True
    with pytest.raises(
        NetworkError, match="SHA-256 of the content is not the one that was announced"
    ):
        upload(release(tmp_path), REPO, do=True)
    assert not hub.large
    assert not hub.repositories[REPO].tags


def test_a_hub_that_keeps_something_else_gets_no_tag(hub: Hub, tmp_path: Path) -> None:
    hub.forgets = "evidence/parity.json"
    with pytest.raises(IntegrityError, match=r"did not keep what was sent: evidence/parity\.json"):
        upload(release(tmp_path), REPO, do=True)
    assert not hub.repositories[REPO].tags


def test_killed_between_commit_and_tag_the_tag_follows(hub: Hub, tmp_path: Path) -> None:
    made = release(tmp_path)

    def stop(_: object) -> None:
        raise ConnectionAbortedError

    hub.before["tag"] = stop
    hub.server.handle_error = lambda *_: None  # type: ignore[method-assign]
    with pytest.raises(NetworkError):
        upload(made, REPO, do=True)
    found = hub.repositories[REPO]
    assert len(found.commits) == 2
    assert not found.tags
    upload(made, REPO, do=True)
    assert len(found.commits) == 2
    assert found.tags == {"v1.2.0": found.branch}


def test_somebody_elses_commit_meanwhile_is_not_overwritten(hub: Hub, tmp_path: Path) -> None:
    made = release(tmp_path)
    theirs = {"theirs.txt": ("regular", b"theirs")}
    hub.before["commit"] = lambda found: found.commit(theirs, "theirs")
    with pytest.raises(NetworkError, match=r"it was changed meanwhile .* run the same command"):
        upload(made, REPO, do=True)
    assert not hub.repositories[REPO].tags
    with pytest.raises(InputError, match=r"not part of a release \(theirs\.txt\)"):
        upload(made, REPO, do=True)


@pytest.mark.parametrize("same", [True, False])
def test_two_uploads_at_once(hub: Hub, tmp_path: Path, same: bool) -> None:
    def tagged_by_another(found: Repository) -> None:
        found.tags["v1.2.0"] = found.branch if same else min(found.commits, key=len)
        if not same:
            found.tags["v1.2.0"] = next(iter(found.commits))

    hub.before["tag"] = tagged_by_another
    if same:
        upload(release(tmp_path), REPO, do=True)
    else:
        with pytest.raises(IntegrityError, match=r"got a tag v1\.2\.0 meanwhile"):
            upload(release(tmp_path), REPO, do=True)


def test_without_a_token_it_says_how_to_get_one(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    with pytest.raises(NetworkError, match=r"refuses \(401\); run `hf auth login`, or set HF_TOK"):
        upload(release(tmp_path), REPO, do=True)
    assert not hub.repositories


def test_a_release_that_was_changed_is_not_sent(hub: Hub, tmp_path: Path) -> None:
    made = release(tmp_path)
    (made / "m-1.2.0.ptl").write_bytes(b"other")
    with pytest.raises(IntegrityError, match=r"m-1\.2\.0\.ptl has SHA-256"):
        upload(made, REPO, do=True)
    assert not hub.posted


@pytest.mark.parametrize(
    ("repo", "offline", "kind", "words"),
    [
        ("no hub id", "0", InputError, "is not a hub id, such as hf:ORG/NAME"),
        (REPO, "1", NetworkError, "while offline mode is on"),
    ],
)
def test_what_cannot_be_uploaded(
    hub: Hub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    repo: str,
    offline: str,
    kind: type[EdgeVitError],
    words: str,
) -> None:
    monkeypatch.setenv("EDGE_VIT_OFFLINE", offline)
    with pytest.raises(kind, match=words):
        upload(release(tmp_path), repo, do=True)


def test_no_hub_at_all(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(NetworkError, match=f"hf:{REPO}: .*refused"):
        upload(release(tmp_path), REPO, do=True)


@pytest.mark.full
def test_the_command_verifies_and_uploads_a_real_release(
    hub: Hub, published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = ["--to", f"hf:{REPO}"]
    release_command([str(published), *to], standalone_mode=False)
    planned = capsys.readouterr().out.splitlines()
    assert planned[0].endswith("a dry run, nothing is changed; --yes does this:")
    assert not hub.repositories
    release_command([str(published), *to, "--yes"], standalone_mode=False)
    assert capsys.readouterr().out.splitlines()[1:] == planned[1:]
    assert download(hub, tmp_path, "v0.1.0") == content(published)
    # `hf download REPO --revision v0.1.0 --exclude .gitattributes --local-dir fetched`
    fetched = tmp_path / "fetched"
    snapshot_download(
        REPO,
        revision="v0.1.0",
        endpoint=hub.address,
        local_dir=fetched,
        ignore_patterns=[".gitattributes"],
    )
    shutil.rmtree(fetched / ".cache")
    assert verify(fetched) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--to", "someone/m"], "--to must be an address such as hf:ORG/NAME, got someone/m"),
        (["--to", f"hf:{REPO}", "--key", "k"], "--to goes with --yes only"),
        (["--to", f"hf:{REPO}"], "is not what was published"),
    ],
)
def test_the_command_refuses(
    hub: Hub,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
) -> None:
    with pytest.raises(SystemExit) as left:  # it has no evidence
        release_command([str(release(tmp_path)), *arguments])
    assert left.value.code == 2
    assert words in capsys.readouterr().err
