"""The comparison with peers, on small networks and a peer that needs nothing installed."""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.peers import __main__ as command
from benchmarks.peers import environment, inputs, latency, peers, stages
from benchmarks.peers.bench import KIND, bench
from benchmarks.peers.peers import PEERS, Peer, compared_files
from benchmarks.peers.table import table
from device_tests.target import Missing
from pipeline.contract.contract import Contract
from pipeline.errors import InputError, IntegrityError
from pipeline.evidence.seal import check_seal
from pipeline.files import sha256_file, write_json
from pipeline.images.preprocessing import normalize
from pipeline.images.samples import SampleSet, samples_sha256
from pipeline.metrics.logits import logits_sha256
from pipeline.metrics.measures import Flips
from tests.benchmarks.recipe import CLASSES, SIZE, write_model
from tests.contract import builders
from tests.verdict.builders import MACHINE

COUNT = 12
VARIANTS = ("sound", "broken", "nan", "classes", "nothing", "truncated")


def peer(*variants: str) -> Peer:
    labels = {variant: f"a {variant} one" for variant in variants}
    lock = Path(__file__).parent / "fake.lock"
    return Peer("fake", ".onnx", "onnx", labels, "tests.benchmarks.recipe", lock)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The artifacts that are read, of a network of 18 weights; nothing is installed."""
    monkeypatch.setenv("EDGE_VIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setattr(environment, "python", lambda lock: Path(sys.executable))
    monkeypatch.setattr(stages, "missing", lambda: Missing("no emulator in tests", ""))
    monkeypatch.setattr(inputs, "_export_onnx", lambda checkpoint, shape, path: write_model(path))
    artifacts = tmp_path / "artifacts"
    for name in ("checkpoint", "samples", "reference", "onnx"):
        (artifacts / name).mkdir(parents=True)
    usual = builders.contract().preprocessing
    contract = builders.contract(
        name="small",
        preprocessing=replace(
            usual, size=(SIZE, SIZE), resize=SIZE, crop_pct=1.0, mean=(0.5,) * 3, std=(0.2,) * 3
        ),
        labels=tuple(f"class {n}" for n in range(CLASSES)),
    )
    (artifacts / "checkpoint" / "contract.json").write_text(contract.to_json())
    checkpoint = artifacts / "checkpoint" / "model.safetensors"
    checkpoint.write_bytes(bytes(2000))
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (COUNT, SIZE, SIZE, 3), np.uint8)
    np.save(artifacts / "samples" / "images.npy", images)
    np.save(artifacts / "samples" / "calibration.npy", images[:4])
    write_model(artifacts / "onnx" / "small.onnx")
    logits = _logits(artifacts / "onnx" / "small.onnx", normalize(images, contract.preprocessing))
    np.save(artifacts / "reference" / "logits.npy", logits)
    ids, labels = [str(n) for n in range(COUNT)], logits.argmax(1).tolist()
    sha256 = samples_sha256([], labels, ids)
    write_json(
        artifacts / "samples" / "samples.json",
        {"schema": 1, "ids": ids, "labels": labels, "classes": [], "sha256": sha256},
    )
    about = {"samples_sha256": sha256, "checkpoint_sha256": sha256_file(checkpoint)}
    floor = {"max_abs": 1e-6, "count": COUNT, "runs": {"batch_8": 1e-6}}
    write_json(
        artifacts / "reference" / "reference.json",
        {"schema": 1, **about, "logits_sha256": logits_sha256(logits)}
        | {"noise_floor": floor, "machine": MACHINE},
    )
    return artifacts


def _logits(path: Path, inputs: Any) -> Any:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path))
    return np.concatenate([session.run(None, {"input": image[None]})[0] for image in inputs])


def test_each_failure_is_a_row_with_its_reason_and_the_others_go_on(small: Path) -> None:
    evidence = bench([peer(*VARIANTS)], small, rounds=4)
    entries = {entry["key"]: entry for entry in evidence["entries"]}
    errors = {key: entry["error"] or "" for key, entry in entries.items()}
    assert errors["ours/onnx"] == errors["fake/sound"] == ""
    assert errors["fake/broken"].startswith("export: ")
    assert errors["fake/broken"].endswith("ValueError: this operator is not known")
    assert errors["fake/nan"] == "answers: answers hold NaN or infinity"
    assert "(12, 7), float's are (12, 6)" in errors["fake/classes"]
    assert errors["fake/nothing"] == "export: the recipe left no .onnx file, or several"
    assert errors["fake/truncated"].startswith("answers: ")
    sound = entries["fake/sound"]
    assert sound["measured"]["top1_equal"] == COUNT
    assert sound["size_bytes"] == entries["ours/onnx"]["size_bytes"] + 1000
    assert len(sound["runs_ms"]) == len(entries["ours/onnx"]["runs_ms"]) == 4
    assert sound["instructions_error"] == "no emulator in tests"
    text = table(evidence)
    rows = [line for line in text.splitlines() if line.startswith("|")][2:]
    assert len(rows) == 1 + len(VARIANTS)
    assert rows[0].startswith("| **ours: .onnx**")
    assert "**failed**: ValueError: this operator is not known" in text
    assert "a nan one: **failed**: answers: answers hold NaN or infinity" in text


def test_a_second_run_makes_nothing_again_but_times(small: Path, tmp_path: Path) -> None:
    first = bench([peer("sound")], small, rounds=4)
    second = bench([peer("sound")], small, rounds=4)
    assert (tmp_path / "calls").read_text() == "sound\n"
    pairs = list(zip(first["entries"], second["entries"], strict=True))
    assert all(a["logits_sha256"] == b["logits_sha256"] for a, b in pairs)
    assert any(a["runs_ms"] != b["runs_ms"] for a, b in pairs)


def test_other_calibration_images_make_other_files(small: Path, tmp_path: Path) -> None:
    bench([peer("sound")], small, rounds=0)
    images = np.load(small / "samples" / "calibration.npy")
    np.save(small / "samples" / "calibration.npy", images + 1)
    bench([peer("sound")], small, rounds=0)
    assert (tmp_path / "calls").read_text() == "sound\n" * 2


def test_a_reference_of_another_checkpoint_is_refused(small: Path) -> None:
    (small / "checkpoint" / "model.safetensors").write_bytes(b"other")
    with pytest.raises(IntegrityError, match="dvc repro reference"):
        bench([peer("sound")], small, rounds=0)


def test_a_process_that_ends_while_it_is_timed_is_lost_alone(small: Path, tmp_path: Path) -> None:
    images = inputs.evaluation(small, tmp_path / "inputs")
    good, bad = small / "onnx" / "small.onnx", tmp_path / "bad.onnx"
    write_model(bad)
    lock = PEERS[0].lock
    with latency.server(lock, bad, images) as server:
        server.process.kill()
        with pytest.raises(InputError, match="the process that was timed ended"):
            server.ask("0")
    bad.write_bytes(b"no model")
    times, failed = latency.measure({"good": (lock, good), "bad": (lock, bad)}, images, 3)
    assert list(times) == ["good"]
    assert len(times["good"]) == 3
    assert "bad" in failed


def test_the_inputs_are_what_the_transform_gives(small: Path, tmp_path: Path) -> None:
    images = np.load(inputs.evaluation(small, tmp_path / "inputs"))
    samples = SampleSet.load(small / "samples")
    contract = Contract.from_json((small / "checkpoint" / "contract.json").read_text())
    assert np.array_equal(images, normalize(samples.images, contract.preprocessing))


def test_the_command_writes_sealed_evidence_and_the_table(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "PEERS", (peer("sound", "broken"),))
    monkeypatch.setitem(peers.BY_NAME, "fake", peer("sound"))
    command.main(["fake", "--artifacts", str(small), "--rounds", "4"])
    evidence = json.loads((small / "peers" / "evidence.json").read_text())
    check_seal(evidence, KIND, "evidence.json")
    assert (small / "peers" / "table.md").read_text().strip() in capsys.readouterr().out


def test_an_unknown_peer_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["tensorflow"])
    assert "no peer tensorflow; there are tutorial onnxruntime" in capsys.readouterr().err


def test_without_a_run_it_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        command.main(["--artifacts", str(tmp_path / "none")])
    assert capsys.readouterr().err.endswith(
        "none has no run to compare with; run `make verdict` first\n"
    )
    assert not (tmp_path / "none").exists()


def test_every_peer_has_its_recipe_its_lock_and_a_rival() -> None:
    files = compared_files(PEERS)
    ours = {entry.counterpart for entry in files if entry.peer is None}
    assert ours == {"ptl", "int8_onnx", "pte"}
    for tool in PEERS:
        recipes = importlib.import_module(tool.recipe).RECIPES
        assert recipes.keys() == tool.variants.keys()
        assert environment.versions(tool.lock)
        assert "--hash=sha256:" in tool.lock.read_text()
        assert "://" not in tool.lock.read_text()


def entry(key: str, counterpart: str, runs: list[float], **more: Any) -> dict[str, Any]:
    accuracy = {"both": 90, "only_float": 2, "only_edge": 1, "neither": 7}
    agreement = {"count": 100, "finite": True, "top1_equal": 97, "top5_equal": 95}
    distances = ("kl_mean", "kl_p99", "cosine_mean", "max_abs", "p999_abs")
    measured = {**agreement, "sqnr_db": 41.23, "accuracy": accuracy}
    measured |= {"flips": dict.fromkeys(Flips.model_fields, 0)} | dict.fromkeys(distances, 0.0)
    values = {
        "key": key,
        "label": "",
        "counterpart": counterpart,
        "runs_ms": runs,
        "size_bytes": 6_000_000,
    }
    nothing = {"instructions": [], "error": None, "instructions_error": None}
    return values | nothing | {"measured": measured} | more


def test_the_table_has_ratios_to_the_rival_and_to_float() -> None:
    entries = [
        entry("ours/ptl", "ptl", [10.0, 11.0, 10.0, 10.0], instructions=[330_000_000] * 2),
        entry("a/b", "ptl", [20.0, 22.0, 20.0, 20.0], label="A"),
    ]
    rows = table({"entries": entries, "float_size_bytes": 24_000_000}).splitlines()
    ours, other = ([cell.strip() for cell in row.split("|")[1:-1]] for row in rows[2:4])
    assert ours[:6] == ["**ours: .ptl**", "6.00", "0.250", "330.0", "10.0", "1"]
    assert other[:6] == ["A", "6.00", "0.250", "-", "20.0", "2.00 [2.00, 2.00]"]
    assert other[6].startswith("97.00 [91.5")
    assert other[7] == "41.2"
    assert other[9].startswith("+1.00 [")


def test_the_table_compares_nothing_with_a_rival_that_was_lost() -> None:
    entries = [
        entry("ours/ptl", "ptl", [], error="timing: ended", measured=None),
        entry("a/b", "ptl", [20.0] * 4, label="A", instructions_error="one\n\nlast | line\n"),
    ]
    text = table({"entries": entries, "float_size_bytes": 24_000_000})
    cells = [cell.strip() for cell in text.splitlines()[3].split("|")]
    assert cells[5:7] == ["20.0", "-"]
    assert "- A: not counted on ARM64: last / line" in text
    assert "- **ours: .ptl**: **failed**: timing: ended" in text
