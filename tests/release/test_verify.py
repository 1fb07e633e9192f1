"""Whatever is done to a release, `verify` names the file, also where the sums were made to fit."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.contract.contract import DATA_KEY
from pipeline.evidence import logits
from pipeline.evidence.seal import seal
from pipeline.files import sha256_file
from pipeline.metrics.logits import logits_sha256
from pipeline.params import Params
from pipeline.release import read
from pipeline.release.manifest import SUMS_FILE, UNLISTED, format_sums
from pipeline.release.verification import examine, verify
from pipeline.stages.publish import publish
from tests.release.conftest import NOWHERE, copy, put

ROOT = Path(__file__).parents[2]
Edit = Callable[[dict[str, Any]], object]


def names(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def sum_up(folder: Path) -> None:
    """Make the list of hashes fit again, as somebody would who knows of it."""
    listed = [name for name in names(folder) if name not in UNLISTED]
    hashes = {name: sha256_file(folder / name) for name in listed}
    put(folder / SUMS_FILE, format_sums(hashes).encode())


def edit(path: Path, change: Edit, sealed: bool = False) -> None:
    content = json.loads(path.read_text())
    change(content)
    text = json.dumps(seal(content) if sealed else content, indent=2, sort_keys=True)
    put(path, f"{text}\n".encode())


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def test_what_was_published_is_whole_and_says_what_was_checked(published: Path) -> None:
    found = examine(published)
    assert found.problems == []
    assert len(found.facts) == 6


BLOCKED = """
import sys
names = "torch torchvision timm onnx onnxruntime executorch PIL safetensors dvc tqdm"
names += " huggingface_hub requests filelock jinja2 matplotlib google model_signing cryptography"
sys.modules.update(dict.fromkeys(names.split()))
from pipeline.cli import main
main(["verify", sys.argv[1]])
"""


def test_no_more_is_needed_than_the_base_dependencies(published: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", BLOCKED, published], cwd=ROOT, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    assert "whole, and everything in it agrees" in ran.stdout


def test_a_release_may_lie_anywhere_under_any_name(published: Path, tmp_path: Path) -> None:
    assert verify(copy(published, tmp_path / "downloaded here")) == []


@pytest.mark.parametrize(
    "tamper", [flipped, lambda content: content[: len(content) // 2]], ids=["flip", "cut"]
)
@pytest.mark.full
def test_every_file_changed_in_turn_is_named(
    release: Path, tamper: Callable[[bytes], bytes]
) -> None:
    for name in names(release):
        before = (release / name).read_bytes()
        put(release / name, tamper(before))
        assert any(name in problem for problem in verify(release)), name
        put(release / name, before)
    assert verify(release) == []


@pytest.mark.full
def test_every_file_removed_in_turn_is_named(release: Path, tmp_path: Path) -> None:
    for name in names(release):
        (release / name).rename(tmp_path / "aside")
        assert any(f"{name} is missing" in problem for problem in verify(release)), name
        (tmp_path / "aside").rename(release / name)
    assert verify(release) == []


@pytest.fixture(scope="session")
def another(healthy: Path, params: Params, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release of the same model from another run: other times, so another verdict."""
    artifacts = tmp_path_factory.mktemp("another") / "artifacts"
    shutil.copytree(healthy, artifacts)
    edit(
        artifacts / "latency" / "evidence.json",
        lambda e: e["machine"].update(python="9"),
        sealed=True,
    )
    return publish(params, artifacts, NOWHERE, artifacts.parent / "releases")


def test_every_file_swapped_with_another_release_is_named(release: Path, another: Path) -> None:
    """The list of hashes is made to fit: what the files say of each other does not."""
    ours = {name: sha256_file(release / name) for name in names(release)}
    theirs = {name: sha256_file(another / name) for name in names(another)}
    other = [name for name in ours if name in theirs and ours[name] != theirs[name]]
    assert {"evidence/latency.json", "verdict.json", "verdict.md", SUMS_FILE} <= {*other}
    for name in other:
        before = (release / name).read_bytes()
        put(release / name, (another / name).read_bytes())
        assert any(name in problem for problem in verify(release)), name
        put(release / name, before)
    assert verify(release) == []


def test_model_files_swapped_with_each_other_are_named_though_the_sums_fit(release: Path) -> None:
    (plain,), (int8,) = release.glob("*-float-*.onnx"), release.glob("*.int8.onnx")
    one, other = plain.read_bytes(), int8.read_bytes()
    put(plain, other)
    put(int8, one)
    sum_up(release)
    problems = verify(release)
    assert f"{plain.name} carries the contract of format int8_onnx, expected onnx" in problems
    assert f"{int8.name} carries the contract of format onnx, expected int8_onnx" in problems
    assert any(".onnx: evidence - parity was measured on" in problem for problem in problems)


@pytest.mark.parametrize("name", ["note.txt", ".hidden", "golden/more.png", "evidence/x/y.json"])
def test_an_added_file_is_named(release: Path, name: str) -> None:
    (release / name).parent.mkdir(exist_ok=True)
    (release / name).write_text("more")
    assert f"{name} is in the folder, but not in {SUMS_FILE}" in verify(release)


def test_a_link_in_place_of_a_file_or_folder_is_named(release: Path, tmp_path: Path) -> None:
    (release / "labels.txt").rename(tmp_path / "labels.txt")
    (release / "labels.txt").symlink_to(tmp_path / "labels.txt")
    (release / "golden").rename(tmp_path / "golden")
    (release / "golden").symlink_to(tmp_path / "golden")
    (release / "loop").symlink_to(".")
    problems = verify(release)
    for name in ("labels.txt", "golden", "loop"):
        assert any(f"{name} is a symbolic link to" in problem for problem in problems), problems


def test_what_is_no_file_is_named_and_not_waited_for(release: Path) -> None:
    (release / "labels.txt").unlink()
    os.mkfifo(release / "labels.txt")
    (release / "empty").mkdir()
    problems = verify(release)
    assert "labels.txt is not a regular file" in problems
    assert "empty is an empty folder" in problems


@pytest.mark.parametrize(
    "name", ["two\nlines", "back\\slash", " space", "bell\a", os.fsdecode(b"\xff")]
)
def test_a_name_that_no_list_can_carry_is_refused_and_shown_in_one_line(
    release: Path, name: str
) -> None:
    (release / name).write_text("odd")
    (problem,) = verify(release)
    assert "in its name" in problem or "begins or ends with a space" in problem
    assert problem.isprintable()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t + t.splitlines()[0] + "\n", "is listed twice"),
        (lambda t: t.replace("  ", " *", 1), "is not 64 hex digits"),
        (lambda t: t[:-1], "ends in half a line"),
        (lambda t: t + "0" * 64 + "  ../outside\n", "is not a path below the release"),
        (lambda t: t + "0" * 64 + "  /etc/passwd\n", "is not a path below the release"),
        (lambda t: t + "0" * 64 + "  SHA256SUMS\n", "cannot be part of a manifest"),
        (lambda t: t + "0" * 64 + "  gone\n", "gone is missing"),
        (lambda t: "", "is in the folder, but not in"),
    ],
)
def test_a_list_that_can_be_read_in_two_ways_is_refused(
    release: Path, change: Callable[[str], str], words: str
) -> None:
    put(release / SUMS_FILE, change((release / SUMS_FILE).read_text()).encode())
    assert any(words in problem for problem in verify(release))


def ptl_with_contract(path: Path, change: Edit) -> None:
    with zipfile.ZipFile(path) as old:
        members = {name: old.read(name) for name in old.namelist()}
    (extra,) = [name for name in members if name.endswith("/extra/contract.json")]
    contract = json.loads(members[extra])
    change(contract)
    members[extra] = json.dumps(contract).encode()
    path.unlink()
    with zipfile.ZipFile(path, "w") as new:
        for name, content in members.items():
            new.writestr(name, content)


def onnx_with_contract(path: Path, change: Edit) -> None:
    import onnx

    model = onnx.load(path)
    (entry,) = model.metadata_props
    contract = json.loads(entry.value)
    change(contract)
    entry.value = json.dumps(contract)
    put(path, model.SerializeToString())


def test_weights_beside_an_onnx_file_are_held_to_the_hash_inside_it(release: Path) -> None:
    import onnx

    (path,) = release.glob("*.int8.onnx")
    data = path.with_name(f"{path.name}.data")
    data.write_bytes(b"weights")
    sum_up(release)
    assert f"{data.name} is not part of {path.name}" in verify(release)
    model = onnx.load(path)
    model.metadata_props.add(key=DATA_KEY, value=sha256_file(data))
    put(path, model.SerializeToString())
    sum_up(release)
    assert not any(data.name in problem for problem in verify(release))
    data.write_bytes(b"others")
    sum_up(release)
    words = f"{data.name} does not have the SHA-256 that {path.name} says"
    assert words in verify(release)


def pte_with_contract(path: Path, change: Edit) -> None:
    edit(path.with_name(f"{path.name}.contract.json"), change)


@pytest.mark.parametrize(
    ("ending", "write"),
    [
        (".ptl", ptl_with_contract),
        ("float-0.1.0.onnx", onnx_with_contract),
        (".int8.onnx", onnx_with_contract),
        (".pte", pte_with_contract),
    ],
)
def test_another_contract_inside_a_file_is_named_though_the_sums_fit(
    release: Path, ending: str, write: Callable[[Path, Edit], None]
) -> None:
    (path,) = release.glob(f"*{ending}")
    write(path, lambda contract: contract["preprocessing"].update(mean=[0.5, 0.5, 0.5]))
    sum_up(release)
    words = f"{path.name} carries another contract than contract.json: preprocessing.mean is"
    assert any(words in problem for problem in verify(release))


def first(name: str, **values: object) -> Edit:
    return lambda content: content[name].update(values)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("contract.json", first("preprocessing", resize=7), ".ptl carries another contract"),
        ("contract.json", first("checkpoint", sha256="0" * 64), "refused for channel candidate"),
        ("contract.json", lambda c: c.update(version="9.9.9"), "does not have the name"),
        ("params.json", first("gate", confidence=0.9), "verdict.json: interval of .ptl"),
        ("params.json", first("gate", channel="release"), "verdict.json: channel is candidate"),
        ("params.json", lambda c: c.update(more=1), "params.json is not what edge-vit writes"),
        ("verdict.json", lambda c: c.update(passed=False), "verdict.json: passed is False"),
        ("verdict.json", lambda c: c["criteria"][3].update(outcome="pass?"), "outcome of"),
        ("verdict.json", lambda c: c["criteria"][3].update(note="fine"), "verdict.json: note of"),
        ("verdict.json", lambda c: c["criteria"].pop(), "the number of criteria"),
        ("verdict.json", lambda c: c.pop("criteria"), "cannot be checked: the verdict"),
        ("evidence/samples.json", lambda c: c["labels"].reverse(), "evidence/parity.json says"),
        ("evidence/samples.json", lambda c: c.update(sha256="0" * 64), "parity was measured on"),
        ("evidence/parity.json", first("noise_floor", max_abs=1.0), "parity.json was changed"),
        ("evidence/latency.json", lambda c: c.update(threads=2), "latency.json was changed"),
        ("evidence/devices/lite_app.json", lambda c: c.update(x=1), "lite_app.json was changed"),
        ("evidence/baselines/a-gpu/a-model/record.json", lambda c: c.update(x=1), "record.json"),
        ("golden/golden.json", lambda c: c.update(x=1), "golden/golden.json was changed"),
    ],
)  # fmt: skip
def test_an_edit_with_the_sums_made_fit_is_named(
    release: Path, name: str, change: Edit, words: str
) -> None:
    edit(release / name, change)
    sum_up(release)
    problems = verify(release)
    assert any(words in problem for problem in problems), problems


@pytest.mark.parametrize("name", ["labels.txt", "verdict.md", "golden/inputs.f32"])
def test_a_changed_text_or_tensor_is_named_though_the_sums_fit(release: Path, name: str) -> None:
    put(release / name, flipped((release / name).read_bytes()))
    sum_up(release)
    assert any(name in problem for problem in verify(release))


def test_a_model_file_changed_with_the_sums_made_fit_is_not_what_was_measured(
    release: Path,
) -> None:
    for path in sorted(release.glob("*-0.1.0.*")):
        if path.suffix == ".json":
            continue
        before = path.read_bytes()
        put(path, flipped(before))
        sum_up(release)
        words = f"{path.name[path.name.index('-0.1.0.') + 6 :]}: evidence - parity was measured on"
        assert any(words in problem for problem in verify(release)), path.name
        put(path, before)


def test_numbers_that_do_not_follow_from_the_logits_are_named_though_all_is_sealed(
    release: Path,
) -> None:
    edit(
        release / "evidence" / "parity.json",
        lambda e: e["artefacts"]["ptl"].update(sqnr_db=99.0),
        sealed=True,
    )
    sum_up(release)
    assert any("says sqnr_db = 99.0 of ptl, computed again it is" in p for p in verify(release))


def test_other_logits_are_named_though_the_sums_fit(release: Path) -> None:
    path = release / "evidence" / "logits.npz"
    with np.load(path) as archive:
        rows = dict(archive)
    rows["ptl"] = rows["reference"]
    path.unlink()
    np.savez_compressed(path, allow_pickle=False, **rows)
    sum_up(release)
    assert "the logits of ptl are not the measured ones" in verify(release)


def test_all_problems_are_reported_not_only_the_first(release: Path) -> None:
    (release / "note.txt").write_text("more")
    put(release / "labels.txt", b"other\n")
    edit(release / "evidence" / "latency.json", lambda e: e.update(threads=2))
    (release / "verdict.md").unlink()
    problems = "\n".join(verify(release))
    for name in ("note.txt", "labels.txt", "latency.json", "verdict.md"):
        assert name in problems


def test_a_release_that_claims_much_takes_little_memory(
    release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A zip bomb in place of the logits, a contract that never ends, too many files."""
    path = release / "evidence" / "logits.npz"
    path.unlink()
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("reference.npy", "w", force_zip64=True) as file,
    ):
        for _ in range(9):
            file.write(bytes(1 << 20))
    sum_up(release)
    monkeypatch.setattr(logits, "MAX_BYTES", 8 << 20)
    assert any("would unpack" in problem for problem in verify(release))
    monkeypatch.setattr(read, "MAX_FILES", 5)
    assert "there are more than 5 files" in verify(release)


def test_another_edge_vit_s_words_are_told_from_an_edit(release: Path) -> None:
    edit(release / "params.json", lambda c: c.update(edge_vit="0.0.1"))
    sum_up(release)
    assert verify(release) == []
    edit(release / "verdict.json", lambda c: c["criteria"][0].update(note="in other words"))
    sum_up(release)
    problems = verify(release)
    assert len(problems) == 2
    assert "edge-vit 0.0.1 made this release" in problems[1]


def test_times_without_end_are_not_resampled(release: Path) -> None:
    def lengthen(evidence: dict[str, Any]) -> None:
        for found in evidence["artefacts"].values():
            found["runs_ms"] = [1] * 60_000

    edit(release / "evidence" / "latency.json", lengthen, sealed=True)
    sum_up(release)
    assert "evidence/latency.json has 60000 rounds, more than 30000" in verify(release)


def test_logits_that_are_something_else_are_named(release: Path) -> None:
    parity = json.loads((release / "evidence" / "parity.json").read_text())
    odd = np.zeros((2, 3), np.float64)
    path = release / "evidence" / "logits.npz"
    path.unlink()
    np.savez(path, allow_pickle=False, **dict.fromkeys(parity["logits_sha256"], odd))
    edit(
        release / "evidence" / "parity.json",
        lambda e: e["logits_sha256"].update(reference=logits_sha256(odd)),
        sealed=True,
    )
    sum_up(release)
    assert any("the logits of reference are not" in problem for problem in verify(release))
