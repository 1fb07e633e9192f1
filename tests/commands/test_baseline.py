"""A baseline is recorded on the CPU here; on a GPU only the clock is another."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.commands import baseline
from pipeline.commands.baseline import Options
from pipeline.errors import InputError, IntegrityError
from pipeline.evidence.baselines import Record, belongs, read_records
from pipeline.evidence.parity import RightAnswers
from pipeline.files import read_json, write_json
from pipeline.images.samples import content_hash, samples_sha256
from pipeline.models.build import create
from pipeline.quantization.dynamic import save
from tests.contract import builders

ROOT = Path(__file__).parents[2]
COUNT, SIZE = 40, 160
# What a GPU box need not have.
BLOCKED = ("pydantic", "yaml", "scipy", "tqdm", "dvc", "tabulate")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders ``checkpoint`` and ``samples`` of a tiny model."""
    folder = tmp_path_factory.mktemp("run")
    contract = builders.contract(
        preprocessing=builders.preprocessing(
            size=(SIZE, SIZE), resize=SIZE, crop_pct=1.0, mean=(0.5,) * 3, std=(0.5,) * 3
        ),
        labels=("a", "b", "c"),
        checkpoint=builders.checkpoint(architecture="test_vit"),
    )
    torch.manual_seed(0)
    model = create("test_vit", num_classes=3, image_size=SIZE)
    save(folder / "checkpoint", model, contract, fused_attention=True)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (COUNT, SIZE, SIZE, 3), np.uint8)
    ids, labels = [str(i) for i in range(COUNT)], [i % 3 for i in range(COUNT)]
    (folder / "samples").mkdir()
    np.save(folder / "samples" / "images.npy", images)
    about = {"schema": 1, "ids": ids, "labels": labels, "classes": ["a", "b", "c"]}
    digest = samples_sha256([content_hash(image) for image in images], labels, ids)
    write_json(folder / "samples" / "samples.json", about | {"sha256": digest})
    return folder


def options(run: Path, out: Path, **changes: object) -> Options:
    usual = Options("cpu", run / "checkpoint", run / "samples", out, runs=10, batches=(1, 4))
    return dataclasses.replace(usual, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def recorded(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("records") / "baselines"
    baseline.baseline(options(run, out))
    return out


@pytest.fixture
def records(recorded: Path, tmp_path: Path) -> Path:
    """A copy of the records, to spoil."""
    import shutil

    return Path(shutil.copytree(recorded, tmp_path / "baselines"))


def only(records: Path) -> Record:
    (record,) = read_records(records)
    return record


def reasons(record: Record, run: Path, **changes: object) -> str | None:
    from pipeline.contract.files import load_contract

    preprocessing = load_contract(run / "checkpoint").preprocessing
    given = {
        "checkpoint_sha256": record.content.checkpoint_sha256,
        "samples_sha256": record.content.samples_sha256,
        "preprocessing": preprocessing,
    } | changes
    return belongs(record, **given)  # type: ignore[arg-type]


def test_a_record_says_what_was_measured(recorded: Path, run: Path) -> None:
    record = only(recorded)
    content = record.content
    assert content.device.kind == "cpu"
    assert content.device.name == content.machine.processor
    assert (content.tf32, content.threads) == (False, 1)
    assert len(content.latency.runs_ms) == 10
    assert [row.batch for row in content.throughput] == [1, 4]
    assert record.logits.shape == (COUNT, 3)
    labels = np.arange(COUNT) % 3
    right = int((record.logits.argmax(1) == labels).sum())
    assert content.accuracy == RightAnswers(right=right, count=COUNT)
    assert 0 < content.noise_floor.max_abs < 1e-4
    assert reasons(record, run) is None
    assert not torch.backends.cuda.matmul.allow_tf32


def test_logits_are_those_of_the_float_model(recorded: Path, run: Path) -> None:
    from pipeline.images.preprocessing import normalize
    from pipeline.images.samples import SampleSet
    from pipeline.runtimes import load

    runtime = load(run / "checkpoint" / "model.safetensors")
    samples = SampleSet.load(run / "samples")
    expected = runtime.logits(normalize(samples.images, runtime.contract.preprocessing))
    assert np.abs(only(recorded).logits - expected).max() < 1e-4


def test_a_record_of_something_else_does_not_belong(recorded: Path, run: Path) -> None:
    record = only(recorded)
    assert "other weights: " in (reasons(record, run, checkpoint_sha256="f" * 64) or "")
    assert "other samples: " in (reasons(record, run, samples_sha256="f" * 64) or "")
    from pipeline.contract.files import load_contract

    own = load_contract(run / "checkpoint").preprocessing
    other = dataclasses.replace(own, mean=(0.4, 0.5, 0.5))
    reason = reasons(record, run, preprocessing=other) or ""
    assert "mean [0.5, 0.5, 0.5], this run with [0.4, 0.5, 0.5]" in reason


def test_a_record_is_replaced_only_if_asked(run: Path, records: Path) -> None:
    before = only(records).content.recorded
    with pytest.raises(InputError, match="exists; give --replace"):
        baseline.baseline(options(run, records))
    assert only(records).content.recorded == before
    baseline.baseline(options(run, records, replace=True, runs=11))
    assert len(only(records).content.latency.runs_ms) == 11


def spoil(records: Path, **changes: object) -> None:
    """Change a record and seal it again, as somebody who knows how would."""
    from pipeline.evidence.seal import seal

    path = next(records.glob("*/*/record.json"))
    write_json(path, seal(read_json(path) | changes))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tf32": True}, "tf32: expected False, found true"),
        (
            {"latency": {"runs_ms": [1.0, 0.0]}},
            "latency.runs_ms.1: expected greater than 0, found 0.0",
        ),
        ({"latency": {}}, "latency.runs_ms is missing"),
        ({"logits_count": 3}, "3 logits of 40 samples"),
        (
            {"noise_floor": {"max_abs": -1.0, "count": 1, "runs": {}}},
            "noise_floor.max_abs: expected greater than or equal to 0, found -1.0",
        ),
        ({"device": {"kind": "tpu", "name": "x"}}, "device.kind: expected 'cuda' or 'cpu'"),
        ({"preprocessing": None}, "preprocessing: expected an object"),
        ({"schema": 99}, "schema 99"),
    ],
)
def test_a_record_that_says_what_cannot_be_is_refused(
    records: Path, changes: dict[str, object], words: str
) -> None:
    spoil(records, **changes)
    with pytest.raises(IntegrityError, match=words):
        read_records(records)


def test_an_edited_record_is_refused(records: Path) -> None:
    path = next(records.glob("*/*/record.json"))
    path.write_text(path.read_text().replace('"kind": "cpu"', '"kind": "cuda"'))
    with pytest.raises(IntegrityError, match="changed after it was measured"):
        read_records(records)


@pytest.mark.parametrize("content", [b"", b"not an array"])
def test_damaged_logits_are_refused(records: Path, content: bytes) -> None:
    next(records.glob("*/*/logits.npy")).write_bytes(content)
    with pytest.raises(IntegrityError, match="not a usable baseline"):
        read_records(records)


def test_other_logits_are_refused(records: Path) -> None:
    path = next(records.glob("*/*/logits.npy"))
    np.save(path, np.load(path) + np.float32(1))
    with pytest.raises(IntegrityError, match="logits are not the recorded ones"):
        read_records(records)


def test_no_folder_has_no_records(tmp_path: Path) -> None:
    assert read_records(tmp_path / "missing") == ()


def test_changed_samples_are_not_recorded(run: Path, tmp_path: Path) -> None:
    import shutil

    samples = Path(shutil.copytree(run / "samples", tmp_path / "samples"))
    images = np.load(samples / "images.npy")
    images[0, 0, 0, 0] ^= 1
    np.save(samples / "images.npy", images)
    with pytest.raises(IntegrityError, match="samples were changed"):
        baseline.baseline(options(run, tmp_path / "out", samples=samples))
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_none_is_recorded(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no GPU that PyTorch can use"):
        baseline.baseline(options(run, tmp_path, device="cuda"))


@pytest.mark.full
def test_a_box_with_nothing_but_torch_and_timm_can_record(run: Path, tmp_path: Path) -> None:
    refuse = f"""
import sys
from importlib.machinery import ModuleSpec
class Refuse:  # torch only looks whether some of these are there
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {BLOCKED!r}:
            return ModuleSpec(name, self, origin="/nowhere/__init__.py")
    def create_module(self, spec):
        raise ModuleNotFoundError(spec.name)
    def exec_module(self, module):
        raise AssertionError("never made")
sys.meta_path.insert(0, Refuse())
import pipeline.commands.baseline
from pipeline.quantization.load import load_model
pipeline.commands.baseline.main(sys.argv[1:])
"""
    given = ("--device", "cpu", "--runs", "3", "--batches", "1", "--out", str(tmp_path / "out"))
    given += ("--checkpoint", str(run / "checkpoint"), "--samples", str(run / "samples"))
    command = [sys.executable, "-c", refuse, *given]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert only(tmp_path / "out").content.logits_count == COUNT
