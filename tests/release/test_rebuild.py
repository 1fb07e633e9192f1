"""The same inputs give the same bytes elsewhere and later; and what is said where they do not."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.commands.rebuild import _samples, located, main
from pipeline.contract.files import load_contract
from pipeline.errors import InputError, IntegrityError
from pipeline.evidence.seal import seal
from pipeline.files import read_json, sha256_file
from pipeline.params import Params
from pipeline.release import build
from pipeline.release.build import BUILD_FILE
from pipeline.release.manifest import SUMS_FILE, format_sums
from pipeline.release.read import hashes
from pipeline.release.verification import require_whole
from tests.conftest import ROOT
from tests.release.conftest import put


def record(release: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change what a release records, and list it anew."""
    content = read_json(release / BUILD_FILE)
    change(content)
    put(release / BUILD_FILE, json.dumps(content).encode())
    put(release / SUMS_FILE, format_sums(hashes(release)).encode())


def measured_as(release: Path, path: Path, content: bytes) -> None:
    """Replace a file, in the evidence, too, as if other bytes had been measured."""
    golden = release / "golden" / "golden.json"
    renamed = {sha256_file(path): hashlib.sha256(content).hexdigest()}
    put(path, content)
    for evidence in (golden, *(release / "evidence").rglob("*.json")):
        text = evidence.read_text()
        for old, new in renamed.items():
            text = text.replace(old, new)
        made = json.loads(text)
        if "seal" in made:
            renamed[made["seal"]] = seal(made)["seal"]
            made = seal(made)
        put(evidence, json.dumps(made).encode())
    put(release / SUMS_FILE, format_sums(hashes(release)).encode())


def test_a_release_that_is_not_whole_is_not_made_again(
    release: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(release / "verdict.md", b"fine")
    put(release / SUMS_FILE, format_sums(hashes(release)).encode())
    with pytest.raises(SystemExit):
        main([str(release)])
    assert "verdict.md is not what the evidence gives" in capsys.readouterr().err


@pytest.mark.full
def test_a_release_is_made_again_byte_by_byte(release: Path, tmp_path: Path) -> None:
    """In a process with another hash seed, time zone, locale, umask, folder and thread count.

    One file of the release is another's, so that a difference is seen, too.
    """
    pte = next(release.glob("*.pte"))
    content = bytearray(pte.read_bytes())
    content[1000] ^= 1
    measured_as(release, pte, bytes(content))
    require_whole(release)
    scratch = tmp_path / "a folder of another name"
    scratch.mkdir()
    ran = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "rebuild", str(release)],
        cwd=ROOT,
        env=os.environ
        | {
            "PYTHONHASHSEED": "777",
            "TZ": "Asia/Tokyo",
            "LC_ALL": "C.UTF-8",
            "OMP_NUM_THREADS": "2",
            "TMPDIR": str(scratch),
            "PYTHONWARNINGS": "ignore",
        },
        umask=0o077,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 1, ran.stderr
    said = dict(line.split(maxsplit=1) for line in ran.stdout.splitlines() if "  " in line)
    differ = {name: words for name, words in said.items() if words.startswith("DIFFERS")}
    assert differ == {pte.name: "DIFFERS: first at byte 1000"}
    same = {name for name, words in said.items() if words == "identical"}
    endings = (".ptl", "-float-0.1.0.onnx", ".int8.onnx", ".pte.contract.json")
    assert all(any(name.endswith(ending) for name in same) for ending in endings)
    assert {"labels.txt", "contract.json"} <= same
    assert ran.stdout.splitlines()[-1] == f"{release}: 1 of 7 files differ"
    assert not list(scratch.glob("tmp*"))  # what is left are caches of torch


def test_no_delivered_file_names_a_folder_of_this_machine(published: Path) -> None:
    here = [str(ROOT), sys.prefix, str(Path.home()), str(published.parent), "site-packages"]
    for path in published.iterdir():
        if path.is_file():
            content = path.read_bytes()
            assert not [place for place in here if place.encode() in content], path


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda c: c["published_by"]["packages"].update(torch="2.11.0"),
            "torch: it was made with 2.11.0, here is 2.12.1",
        ),
        (
            lambda c: c["published_by"]["code"].update(sha256="0" * 64, commit="abc", dirty=False),
            "code: it was made by commit abc; `git checkout",
        ),
        (
            lambda c: c["published_by"]["machine"].update(system="Linux aarch64"),
            "machine: system was Linux aarch64, here it is",
        ),
        (lambda c: c.update(schema=9), "is not what edge-vit writes (schema: Input should be 1)"),
        (lambda c: c["params"]["quantize"].update(scheme="none"), "(params.quantize.scheme: "),
        (
            lambda c: c["params"]["model"].update(checkpoint="mine.safetensors"),
            "is not at hand: params.yaml: model.checkpoint: 'mine.safetensors' is neither",
        ),
        (
            lambda c: c["inputs"]["checkpoint"].update(source_sha256="0" * 64),
            "the release was made from 0000",
        ),
    ],
)
def test_what_is_missing_is_said_exactly(
    release: Path,
    change: Callable[[dict[str, Any]], object],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(ROOT)
    record(release, change)
    with pytest.raises(SystemExit) as left:
        main([str(release)])
    assert left.value.code == 2
    assert words in capsys.readouterr().err


def test_a_release_without_a_record_cannot_be_made_again(
    release: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (release / BUILD_FILE).unlink()
    put(release / SUMS_FILE, format_sums(hashes(release)).encode())
    with pytest.raises(SystemExit):
        main([str(release)])
    assert f"has no {BUILD_FILE}" in capsys.readouterr().err


def test_inputs_of_ones_own_are_given_the_names_that_they_had(
    published: Path, tmp_path: Path
) -> None:
    values = read_json(published / BUILD_FILE)["params"]
    values["model"] |= {"checkpoint": "mine.pth", "labels": "mine.txt"}
    own = tmp_path / "other.pth"
    own.write_bytes(b"weights")
    params = Params.model_validate(values)
    made = located(params, published, tmp_path, own, tmp_path / "images")
    assert Path(made.model.checkpoint).name == "mine.pth"
    assert Path(made.model.checkpoint).read_bytes() == b"weights"
    assert made.model.labels == published / "labels.txt"
    assert made.samples.source == tmp_path / "images"


def test_samples_are_those_that_the_release_was_made_with(
    healthy: Path, published: Path, params: Params, tmp_path: Path
) -> None:
    contract = load_contract(healthy / "checkpoint")
    recorded = build.read(published).inputs.samples
    _samples(params, recorded, contract, tmp_path / "same")
    for key, words in (("sha256", "the samples of"), ("calibration_sha256", "the calibration")):
        other = recorded.model_copy(update={key: "0" * 64})
        with pytest.raises(IntegrityError, match=f"{words}.*give the right ones with --samples"):
            _samples(params, other, contract, tmp_path / key)
    nowhere = located(params, published, tmp_path, None, tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"samples are not at hand: .*nowhere.* with --samples"):
        _samples(nowhere, recorded, contract, tmp_path / "none")
