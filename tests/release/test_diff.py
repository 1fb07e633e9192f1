"""Two releases beside each other: what is compared, and what is said not to be comparable."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.commands.diff import diff, main, text
from pipeline.errors import EdgeVitError, InputError, IntegrityError
from pipeline.evidence.devices import Cell, Cost, DeviceEvidence
from pipeline.evidence.logits import load_logits
from pipeline.evidence.machine import fingerprint
from pipeline.evidence.model import Machine, read_sealed, sealed_json
from pipeline.evidence.parity import ParityEvidence
from pipeline.evidence.read import EvidencePaths
from pipeline.evidence.seal import seal
from pipeline.files import read_json, write_json
from pipeline.metrics.intervals import paired_drop, wilson
from pipeline.metrics.logits import json_logits, logits_sha256
from pipeline.release.differences import Agreement
from pipeline.release.manifest import SUMS_FILE, format_sums
from pipeline.release.read import hashes
from tests.release.conftest import copy, put

Change = Callable[[dict[str, Any]], object]


@pytest.fixture
def second(published: Path, tmp_path: Path) -> Path:
    """A copy of the release, to change into a later one."""
    return copy(published, tmp_path / "later" / "later-1.0.0")


def listed(folder: Path) -> None:
    put(folder / SUMS_FILE, format_sums(hashes(folder)).encode())


def change(path: Path, by: Change) -> None:
    """Change sealed evidence and seal it anew."""
    content = read_json(path)
    by(content)
    path.unlink()
    write_json(path, seal(content))


def other_answers(folder: Path, flips: int) -> None:
    """Turn the first answers of the ``.ptl`` around, in the logits and in the evidence."""
    places = EvidencePaths.of_release(folder)
    logits = load_logits(places.logits, read_sealed(places.parity, ParityEvidence))
    turned = logits["ptl"].copy()
    turned[:flips] *= -1
    logits["ptl"] = turned
    places.logits.unlink()
    np.savez_compressed(places.logits, **logits)
    sha256 = logits_sha256(logits["ptl"])
    change(places.parity, lambda c: c["logits_sha256"].update(ptl=sha256))
    listed(folder)


def test_a_release_beside_itself(published: Path) -> None:
    found = diff(published, published)
    assert found.app_must_change == []
    assert found.contract == []
    samples = read_json(EvidencePaths.of_release(published).parity)["samples"]["count"]
    for key, agreement in found.agreement.items():
        assert isinstance(agreement, Agreement), key
        assert (agreement.count, agreement.same.value) == (samples, 1.0)
        assert agreement.same.interval == wilson(samples, samples)
    assert all(cost.note == "the same bytes" for cost in found.cost.values())


def test_changed_limits_are_shown(published: Path, second: Path) -> None:
    def loosen(content: dict[str, Any]) -> None:
        content["gate"]["budgets"]["ptl"]["sqnr_min_db"] = None
        content["gate"]["noise_multiple"] = 20.0

    path = second / "params.json"
    content = read_json(path)
    loosen(content)
    path.unlink()
    write_json(path, content)
    listed(second)
    found = diff(published, second)
    assert [(c.what, c.before, c.after) for c in found.limits] == [
        ("gate.budgets.ptl.sqnr_min_db", "30", "not asked for"),
        ("gate.noise_multiple", "10", "20"),
    ]
    assert diff(published, published).limits == []
    assert "gate.noise_multiple" in text(found)


def test_agreement_and_the_drop_are_of_the_same_samples(published: Path, second: Path) -> None:
    other_answers(second, 5)
    found = diff(published, second)
    places = EvidencePaths.of_release(published)
    before = load_logits(places.logits, read_sealed(places.parity, ParityEvidence))["ptl"]
    labels = np.array(read_json(places.samples)["labels"])
    right = before.argmax(1) == labels
    after = (np.concatenate([-before[:5], before[5:]])).argmax(1) == labels
    agreement = found.agreement["ptl"]
    assert isinstance(agreement, Agreement)
    assert agreement.on == "samples"
    assert agreement.same.value == (len(labels) - 5) / len(labels)
    counts = ((right & after), (right & ~after), (~right & after), (~right & ~after))
    assert found.accuracy["ptl"].drop == paired_drop(*(int(c.sum()) for c in counts))
    assert found.accuracy["onnx"].drop == paired_drop(int(right.sum()), 0, 0, int((~right).sum()))


def test_on_other_samples_golden_images_are_compared(published: Path, second: Path) -> None:
    places = EvidencePaths.of_release(second)
    change(places.parity, lambda c: c["samples"].update(sha256="f" * 64))

    def turn(golden: dict[str, Any]) -> None:
        rows = np.array(golden["artefacts"]["ptl"]["logits"], np.float32)
        rows[0] *= -1
        golden["artefacts"]["ptl"]["logits"] = json_logits(rows)
        golden["images"].pop()  # an image that only the first release has
        for answers in golden["artefacts"].values():
            answers["logits"].pop()

    change(places.golden / "golden.json", turn)
    listed(second)
    found = diff(published, second)
    count = len(read_json(places.golden / "golden.json")["images"])
    agreement = found.agreement["ptl"]
    assert isinstance(agreement, Agreement)
    assert (agreement.on, agreement.count) == ("golden images", count)
    assert agreement.same.value == (count - 1) / count
    assert found.accuracy["ptl"].drop is None
    assert found.accuracy["ptl"].before is not None


def test_without_an_image_in_common_nothing_is_said(published: Path, second: Path) -> None:
    places = EvidencePaths.of_release(second)
    change(places.parity, lambda c: c["samples"].update(sha256="f" * 64))
    change(
        places.golden / "golden.json",
        lambda c: [image.update(sha256="0" * 64) for image in c["images"]],
    )
    listed(second)
    assert diff(published, second).agreement["ptl"] == "not measured on the same images"


def test_classes_in_another_order_are_matched_by_name(published: Path, second: Path) -> None:
    contract = read_json(second / "contract.json")
    contract["labels"].reverse()
    put(second / "contract.json", json.dumps(contract).encode())
    places = EvidencePaths.of_release(second)
    change(places.parity, lambda c: c["samples"].update(sha256="f" * 64))
    change(
        places.golden / "golden.json",
        lambda c: [row.reverse() for a in c["artefacts"].values() for row in a["logits"]],
    )
    listed(second)
    found = diff(published, second)
    agreement = found.agreement["ptl"]
    assert isinstance(agreement, Agreement)
    assert agreement.same.value == 1
    assert any(line.startswith("labels: ship the new labels.txt") for line in found.app_must_change)
    contract["labels"][0] = "another"
    put(second / "contract.json", json.dumps(contract).encode())
    listed(second)
    assert diff(published, second).agreement["ptl"] == "other labels"


def timed(folder: Path, factor: float, **machine: object) -> None:
    """Give the ``.ptl`` of ``folder`` other bytes, and times that are a multiple of before's."""
    name = next(folder.glob("*.ptl"))

    def slower(latency: dict[str, Any]) -> None:
        measured = latency["artefacts"]["ptl"]
        measured["runs_ms"] = [factor * run for run in measured["runs_ms"]]
        latency["machine"].update(machine)

    put(name, name.read_bytes() + b"\0")
    change(EvidencePaths.of_release(folder).latency, slower)
    listed(folder)


def test_times_apart_are_compared_on_one_machine_only(
    published: Path, second: Path, tmp_path: Path
) -> None:
    elsewhere = copy(published, tmp_path / "elsewhere" / "later-1.0.0")
    timed(second, 2)
    timed(elsewhere, 2, processor="another")
    cost = diff(published, second).cost["ptl"]
    assert cost.time_ratio == pytest.approx(2)
    assert (cost.time_interval, cost.note) == (None, "timed apart")
    cost = diff(published, elsewhere).cost["ptl"]
    assert (cost.time_ratio, cost.note) == (None, "timed on other machines")


@pytest.mark.parametrize("backwards", [False, True])
def test_times_that_took_turns_have_an_interval(
    published: Path, second: Path, backwards: bool
) -> None:
    timed(second, 1)
    sha256 = hashes(published)[next(published.glob("*.ptl")).name]

    def beside(latency: dict[str, Any]) -> None:
        timing = dict(latency["artefacts"]["ptl"])
        del timing["own_memory_mb"], timing["peak_memory_mb"]
        runs = [run / 2 for run in timing["runs_ms"]]
        latency["previous"] = {
            "release": "m",
            "artefacts": {"ptl": timing | {"sha256": sha256, "runs_ms": runs}},
        }

    change(EvidencePaths.of_release(second).latency, beside)
    listed(second)
    both = (second, published) if backwards else (published, second)
    cost = diff(*both).cost["ptl"]
    assert cost.note == "took turns"
    assert cost.time_ratio == pytest.approx(0.5 if backwards else 2)
    assert cost.time_interval is not None


def test_size_has_the_weights_beside_the_file(published: Path, second: Path) -> None:
    name = next(second.glob("*-float-*.onnx")).name
    (second / f"{name}.data").write_bytes(b"weights")
    listed(second)
    before, after = diff(published, second).cost["onnx"].size_bytes
    assert before is not None
    assert after == before + len(b"weights")


def test_instructions_are_those_of_these_bytes(published: Path, second: Path) -> None:
    def counted(folder: Path, count: int, sha256: str) -> None:
        devices = EvidencePaths.of_release(folder).recorded.devices
        cell = Cell(
            format="ptl",
            sha256=sha256,
            runtime="a test",
            machine="a test",
            loads=True,
            runs=True,
            cost=Cost(instructions=(count,)),
        )
        evidence = DeviceEvidence(
            target="arm64",
            golden="0" * 64,
            formats=("ptl",),
            cells=(cell,),
            checks=(),
            claims={},
            previous=None,
            machine=Machine(**fingerprint()),
        )
        write_json(devices / "arm64.json", sealed_json(evidence))
        listed(folder)

    third = copy(published, second.parent / "third-1.0.0")
    sha256 = hashes(published)[next(published.glob("*.ptl")).name]
    counted(second, 660_000_000, sha256)
    counted(third, 670_000_000, "f" * 64)
    assert diff(second, third).cost["ptl"].instructions_m == (660.0, None)


def test_the_command_prints_tables_or_json(
    published: Path, second: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other_answers(second, 5)
    main([str(published), str(second)], standalone_mode=False)
    out = capsys.readouterr().out
    assert "What an app must change:\n  - nothing" in out
    assert ".int8.onnx" in out
    assert "of 96 samples" in out
    main([str(published), str(second), "--json"], standalone_mode=False)
    said = json.loads(capsys.readouterr().out)
    assert said["agreement"]["ptl"]["count"] == 96
    assert said["cost"]["ptl"]["size_bytes"][0] > 0


@pytest.mark.parametrize(
    ("damage", "kind", "words"),
    [
        (lambda f: put(f / "labels.txt", b"x"), IntegrityError, "labels.txt has SHA-256"),
        (lambda f: (f / "evidence" / "parity.json").unlink(), IntegrityError, "is missing"),
        (
            lambda f: ((f / "evidence" / "samples.json").unlink(), listed(f)),
            InputError,
            "samples.json is missing",
        ),
        (
            lambda f: (
                change(f / "evidence" / "samples.json", lambda c: c.pop("labels")),
                listed(f),
            ),
            IntegrityError,
            "samples.json: labels is missing; run `dvc repro --force samples`",
        ),
        (
            lambda f: (
                change(f / "evidence" / "samples.json", lambda c: c["labels"].pop()),
                listed(f),
            ),
            IntegrityError,
            "samples.json: 95 labels of 96 images",
        ),
        (
            lambda f: (
                change(f / "evidence" / "latency.json", lambda c: c.pop("artefacts")),
                listed(f),
            ),
            IntegrityError,
            "latency.json: artefacts is missing",
        ),
    ],
)
def test_bad_input_is_one_line(
    published: Path,
    second: Path,
    damage: Callable[[Path], object],
    kind: type[EdgeVitError],
    words: str,
) -> None:
    timed(second, 2)
    damage(second)
    with pytest.raises(kind, match=words):
        diff(published, second)
