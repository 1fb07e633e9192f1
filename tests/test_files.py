from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from pipeline import files
from pipeline.errors import InputError
from pipeline.files import atomic, read_json, sole_file, write_json, write_text

ROOT = Path(__file__).parents[1]


def python(code: str) -> subprocess.Popen[str]:
    head = """
import os, resource, signal
from pathlib import Path
from pipeline.files import atomic, write_bytes
"""
    return subprocess.Popen(
        [sys.executable, "-c", head + textwrap.dedent(code)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def killed_while_writing(path: Path) -> None:
    """A writer that is killed in the middle of its block."""
    writer = python(f"""
        with atomic(Path({str(path)!r})) as new:
            new.write_text("half of")
            print("now", flush=True)
            signal.pause()
    """)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "now\n"
    writer.send_signal(signal.SIGKILL)
    assert writer.wait() == -signal.SIGKILL
    writer.communicate()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_block_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "old")

    def fail() -> None:
        with atomic(tmp_path / "file") as new:
            new.write_text("half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert names(tmp_path) == ["file"]
    assert (tmp_path / "file").read_text() == "old"


@pytest.mark.parametrize("folder", [False, True])
def test_a_block_that_makes_nothing_leaves_what_was_there(tmp_path: Path, folder: bool) -> None:
    old = tmp_path / "old"
    if folder:
        old.mkdir()
        (old / "inside").write_text("kept")
    else:
        old.write_text("kept")
    with pytest.raises(FileNotFoundError), atomic(old):
        pass
    assert names(tmp_path) == ["old"]
    assert (old / "inside" if folder else old).read_text() == "kept"


def test_a_folder_replaces_an_older_one_whole(tmp_path: Path) -> None:
    for generation in ("first", "second"):
        with atomic(tmp_path / "folder") as new:
            new.mkdir()
            (new / generation).write_text(generation)
    assert names(tmp_path) == ["folder"]
    assert names(tmp_path / "folder") == ["second"]


def test_a_folder_and_a_file_replace_each_other(tmp_path: Path) -> None:
    write_text(tmp_path / "x", "file")
    with atomic(tmp_path / "x") as new:
        new.mkdir()
    assert (tmp_path / "x").is_dir()
    write_text(tmp_path / "x", "file again")
    assert (tmp_path / "x").read_text() == "file again"


def test_a_killed_writer_leaves_no_half_file_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    killed_while_writing(path)
    assert not path.exists()
    assert len(names(tmp_path)) == 1  # its scratch
    write_text(path, "whole")
    assert names(tmp_path) == ["model.pt"]


def test_a_killed_writer_leaves_the_old_file(tmp_path: Path) -> None:
    write_text(tmp_path / "model.pt", "old")
    killed_while_writing(tmp_path / "model.pt")
    assert (tmp_path / "model.pt").read_text() == "old"


def test_a_folder_moved_aside_by_a_killed_run_is_put_back(tmp_path: Path) -> None:
    aside = tmp_path / ".release.abcdefgh" / files.OLD
    aside.mkdir(parents=True)
    (aside / "last").write_text("good")

    def fail() -> None:
        with atomic(tmp_path / "release"):
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert names(tmp_path) == ["release"]
    assert (tmp_path / "release" / "last").read_text() == "good"


def test_the_scratch_of_a_writer_that_lives_is_left_alone(tmp_path: Path) -> None:
    with atomic(tmp_path / "file") as slow:
        slow.write_text("slow")
        write_text(tmp_path / "file", "quick")
        assert slow.read_text() == "slow"
    assert (tmp_path / "file").read_text() == "slow"
    assert names(tmp_path) == ["file"]


def test_only_scratch_of_the_same_name_is_cleaned(tmp_path: Path) -> None:
    for name in (".other.abcdefgh", ".file.notes", ".file.pt.abcdefgh", "file.abcdefgh"):
        (tmp_path / name).mkdir()
    (tmp_path / ".file.abcdefgh").write_text("a file of the user's")
    before = names(tmp_path)
    write_text(tmp_path / "file", "")
    assert names(tmp_path) == sorted([*before, "file"])


def test_what_is_delivered_has_the_permissions_of_the_umask(tmp_path: Path) -> None:
    writer = python(f"""
        os.umask(0o027)
        with atomic(Path({str(tmp_path / "release")!r})) as new:
            new.mkdir(mode=0o700)
            (new / "private").touch(mode=0o600)
            (new / "tool").touch(mode=0o700)
    """)
    assert writer.communicate() == ("", "")
    release = tmp_path / "release"
    modes = [
        oct(p.stat().st_mode & 0o777) for p in (release, release / "private", release / "tool")
    ]
    assert modes == ["0o750", "0o640", "0o740"]


def test_nan_is_refused_and_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"b": 1, "a": 2})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": float("nan")})
    assert read_json(path) == {"a": 2, "b": 1}


def test_equal_values_are_equal_bytes(tmp_path: Path) -> None:
    write_json(tmp_path / "1", {"a": 1, "b": 2})
    write_json(tmp_path / "2", {"b": 2, "a": 1})
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe"])
def test_what_is_no_json_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.json is not JSON"):
        read_json(path)


def test_a_missing_file_says_how_to_make_it(tmp_path: Path) -> None:
    for read in (read_json, files.sha256_file):
        with pytest.raises(InputError, match="is missing; run `dvc repro`"):
            read(tmp_path / "none")


def test_one_file_is_expected_where_one_is_delivered(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found none"):
        sole_file(tmp_path, ".ptl")
    write_text(tmp_path / "a.ptl", "")
    assert sole_file(tmp_path, ".ptl") == tmp_path / "a.ptl"
    write_text(tmp_path / "b.ptl", "")
    with pytest.raises(InputError, match=r"found a\.ptl, b\.ptl"):
        sole_file(tmp_path, ".ptl")
    with pytest.raises(InputError, match="lite is missing; run `dvc repro`"):
        sole_file(tmp_path / "lite", ".ptl")


def test_a_full_disk_is_one_message_and_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    write_text(path, "old")
    writer = python(f"""
        from pipeline.errors import exit_on_error
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        with exit_on_error():
            write_bytes(Path({str(path)!r}), bytes(5000))
    """)
    out, err = writer.communicate()
    assert (writer.returncode, out) == (2, "")
    assert err.startswith("edge-vit: File too large")
    assert err.endswith("free some space and run the same command again\n")
    assert len(err.splitlines()) == 1
    assert names(tmp_path) == ["model.pt"]
    assert path.read_text() == "old"


def test_a_library_that_hides_a_full_disk_is_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = os.statvfs(tmp_path)
    assert usage.f_bavail > 0

    def fail() -> None:
        with atomic(tmp_path / "model.pt"):
            raise RuntimeError("enforce fail at inline_container.cc")

    with pytest.raises(RuntimeError, match="enforce"):
        fail()
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 0}))
    with pytest.raises(OSError, match="No space left on device"):
        fail()
