"""Signatures: whose release it is, where the sums only say that it is whole."""

from __future__ import annotations

import base64
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import cli
from pipeline.errors import InputError, IntegrityError
from pipeline.release import signatures
from pipeline.release.manifest import SIGNATURE_FILE, SUMS_FILE
from pipeline.release.signing import PRIVATE_FILE, PUBLIC_FILE, generate, sign
from pipeline.release.verification import verify
from tests.release.conftest import copy, put
from tests.release.test_verify import flipped, names, sum_up

ROOT = Path(__file__).parents[2]
Keys = tuple[Path, Path]


@pytest.fixture(scope="session")
def signed_once(published: Path, keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = copy(published, tmp_path_factory.mktemp("signed") / published.name)
    sign(folder, keys[0])
    return folder


@pytest.fixture
def signed(signed_once: Path, tmp_path: Path) -> Path:
    """A copy to tamper with."""
    return copy(signed_once, tmp_path / "signed" / signed_once.name)


def run(*arguments: object, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipeline.cli", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | env,
        capture_output=True,
        text=True,
    )


def test_a_signed_release_is_verified_with_its_public_key(signed: Path, keys: Keys) -> None:
    assert verify(signed, keys[1]) == []
    assert SIGNATURE_FILE not in (signed / SUMS_FILE).read_text()


def test_the_library_s_own_program_verifies_it_too(signed: Path, keys: Keys) -> None:
    ran = subprocess.run(
        [
            *(sys.executable, "-W", "ignore", "-m", "model_signing", "verify", "key", signed),
            *("--signature", signed / SIGNATURE_FILE, "--public_key", keys[1]),
            *("--ignore-paths", signed / SIGNATURE_FILE),
        ],
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr


def test_every_file_is_covered_though_the_sums_fit(signed: Path, keys: Keys) -> None:
    for name in ("verdict.md", SUMS_FILE, "golden/golden.json", "evidence/logits.npz"):
        before = {n: (signed / n).read_bytes() for n in (name, SUMS_FILE)}
        put(signed / name, flipped(before[name]))
        if name != SUMS_FILE:
            sum_up(signed)
        problems = [p for p in verify(signed, keys[1]) if SIGNATURE_FILE in p]
        assert len(problems) == 1
        assert f"Hash mismatch for '{name}'" in problems[0] or SUMS_FILE in problems[0]
        for n, content in before.items():
            put(signed / n, content)
    listed = json.loads((signed / SIGNATURE_FILE).read_text())["dsseEnvelope"]["payload"]
    resources = json.loads(base64.b64decode(listed))["predicate"]["resources"]
    assert {r["name"] for r in resources} == {*names(signed)} - {SIGNATURE_FILE}


def test_a_file_that_git_would_ignore_is_covered(signed: Path, keys: Keys) -> None:
    (signed / ".gitignore").write_text("*")
    sum_up(signed)
    (problem,) = [p for p in verify(signed, keys[1]) if SIGNATURE_FILE in p]
    assert ".gitignore" in problem


def test_without_a_key_it_is_said_that_nothing_was_checked(signed: Path, published: Path) -> None:
    ran = run("verify", signed)
    assert ran.returncode == 0, ran.stderr
    assert "names key" in ran.stdout
    assert "not checked: give its owner's public key with --public-key" in ran.stdout
    assert "signature: not signed" in run("verify", published).stdout


def test_an_unsigned_release_fails_where_a_signature_is_asked_for(
    published: Path, keys: Keys
) -> None:
    ran = run("verify", published, "--public-key", keys[1])
    assert ran.returncode == 1
    assert "model.sig is missing: the release is not signed" in ran.stdout


def test_another_key_is_named(signed: Path, other_keys: Keys) -> None:
    (problem,) = verify(signed, other_keys[1])
    assert "model.sig was made with another key" in problem


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"no json", b"\xff", b'{"verificationMaterial": 1}']
)
def test_what_is_no_signature_is_named(signed: Path, keys: Keys, content: bytes) -> None:
    put(signed / SIGNATURE_FILE, content)
    assert verify(signed, keys[1]) == [f"{SIGNATURE_FILE} is not a signature by a key pair"]
    assert signatures.state(signed).startswith("damaged: ")


def test_a_flipped_bit_anywhere_in_the_signature_is_noticed(signed: Path, keys: Keys) -> None:
    content = (signed / SIGNATURE_FILE).read_bytes()
    bundle = json.loads(content)
    (signature,) = bundle["dsseEnvelope"]["signatures"]
    for part, key in ((bundle["dsseEnvelope"], "payload"), (signature, "sig")):
        kept = part[key]
        part[key] = ("A" if kept[40] != "A" else "B").join((kept[:40], kept[41:]))
        put(signed / SIGNATURE_FILE, json.dumps(bundle).encode())
        assert any(SIGNATURE_FILE in problem for problem in verify(signed, keys[1])), key
        part[key] = kept
    put(signed / SIGNATURE_FILE, json.dumps(bundle).encode())
    assert verify(signed, keys[1]) == []


def test_another_release_s_signature_does_not_hold(signed: Path, release: Path, keys: Keys) -> None:
    (release / "labels.txt").unlink()
    (release / "labels.txt").write_text("other\n")
    sum_up(release)
    os.link(signed / SIGNATURE_FILE, release / SIGNATURE_FILE)
    assert any("model.sig does not hold" in problem for problem in verify(release, keys[1]))


def test_signing_again_keeps_the_signature_and_another_key_is_refused(
    signed: Path, keys: Keys, other_keys: Keys
) -> None:
    before = (signed / SIGNATURE_FILE).read_bytes()
    assert sign(signed, keys[0]) == signed / SIGNATURE_FILE
    with pytest.raises(IntegrityError, match="is there already and was not made with key"):
        sign(signed, other_keys[0])
    assert (signed / SIGNATURE_FILE).read_bytes() == before
    assert os.listdir(signed.parent) == [signed.name]


def test_what_is_not_whole_is_not_signed(release: Path, keys: Keys) -> None:
    (release / "note.txt").write_text("more")
    with pytest.raises(IntegrityError, match=r"is not signed.*\n  note\.txt is in the folder"):
        sign(release, keys[0])
    assert not (release / SIGNATURE_FILE).exists()
    assert os.listdir(release.parent) == [release.name]


def test_a_release_given_as_the_current_folder_is_signed(
    release: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(release)
    sign(Path("."), keys[0])
    assert verify(Path("."), keys[1]) == []


def test_keys_are_for_their_owner_only_and_never_replaced(tmp_path: Path) -> None:
    private, public, name = generate(tmp_path / "new" / "keys")
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert stat.S_IMODE(private.parent.stat().st_mode) == 0o700
    assert signatures.key_id(signatures.read_public(public)) == name
    before = private.read_bytes()
    for left in (PRIVATE_FILE, PUBLIC_FILE):
        with pytest.raises(InputError, match=f"{left} exists; keys are never replaced"):
            generate(private.parent)
        (private.parent / left).rename(tmp_path / left)
    assert (tmp_path / PRIVATE_FILE).read_bytes() == before


@pytest.mark.parametrize("where", ["", "deep/inside", ".git/keys"])
def test_no_key_is_made_inside_a_repository(tmp_path: Path, where: str) -> None:
    subprocess.run(["git", "init", "-q", tmp_path / "repo"], check=True)
    (tmp_path / "link").symlink_to(tmp_path / "repo")
    for start in ("repo", "link"):
        with pytest.raises(InputError, match=r"in the git repository .*repo(/\.git)?, where"):
            generate(tmp_path / start / where)
    assert not list((tmp_path / "repo").rglob("*.key"))


@pytest.mark.parametrize("kind", [["--bare"], ["--separate-git-dir", "elsewhere"]])
def test_bare_repositories_and_work_trees_count_too(tmp_path: Path, kind: list[str]) -> None:
    subprocess.run(["git", "init", "-q", *kind, "repo"], check=True, cwd=tmp_path)
    with pytest.raises(InputError, match="lies in the git repository"):
        generate(tmp_path / "repo" / "keys")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "is missing; make a key pair with `edge-vit sign --generate-key"),
        ("no key", "is not a private key of an elliptic curve"),
        ("public", "is not a private key of an elliptic curve"),
    ],
)
def test_what_is_no_private_key_is_refused(
    release: Path, keys: Keys, tmp_path: Path, content: str | None, words: str
) -> None:
    path = tmp_path / "a.key"
    if content:
        path.write_text(keys[1].read_text() if content == "public" else content)
    with pytest.raises(InputError, match=words):
        sign(release, path)


def test_a_private_key_in_place_of_the_public_one_is_refused(signed: Path, keys: Keys) -> None:
    with pytest.raises(InputError, match="is a private key: keep it to yourself"):
        verify(signed, keys[0])


def test_without_the_extra_the_message_names_the_command_that_installs_it(
    published: Path,
    keys: Keys,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "model_signing", None)
    for command in (
        ("sign", "--generate-key", tmp_path / "keys"),
        ("sign", published, "--key", keys[0]),
        ("verify", published, "--public-key", keys[1]),
    ):
        with pytest.raises(SystemExit) as stopped:
            cli.main([*map(str, command)])
        assert stopped.value.code == 2
        words = capsys.readouterr().err
        assert "needs model_signing, which is not installed" in words
        assert "-m pip install -e '.[sign]'" in words
    with pytest.raises(SystemExit) as stopped:
        cli.main(["verify", str(published)])
    assert stopped.value.code == 0
    assert not (tmp_path / "keys").exists()


def test_what_model_signing_forgets_to_ask_for_is_named_too(tmp_path: Path) -> None:
    (tmp_path / "OpenSSL.py").write_text("raise ModuleNotFoundError('no', name='OpenSSL')")
    ran = run("sign", "--generate-key", tmp_path / "keys", PYTHONPATH=str(tmp_path))
    assert ran.returncode == 2
    assert "needs OpenSSL, which is not installed" in ran.stderr


def test_a_folder_that_is_none_is_bad_input(tmp_path: Path) -> None:
    ran = run("verify", tmp_path / "gone")
    assert ran.returncode == 2
    assert "is not a folder; give the folder of a release" in ran.stderr
