"""The blocks of docs/your-own-model.md, with small networks and few images in their place."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import transformers
import yaml
from PIL import Image

from pipeline.commands.init import main as init
from pipeline.contract.files import load_contract
from pipeline.params import PARAMS_FILE, load_params
from pipeline.paths import Recorded
from pipeline.stages import chain
from pipeline.stages.gate import gate
from pipeline.stages.publish import publish
from tests.checkpoints.test_folders import torchvisions
from tests.checkpoints.test_training import Lit, args_of_timm, save_as_timm

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "your-own-model.md").read_text()
TINY, SIZE = "test_vit", 64
CLASSES = ("bag", "cat", "cow")
STAGES = ("fetch", "samples", "reference", *chain.stages_of(), "golden", "parity", "latency")


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return timm.create_model(TINY, num_classes=3, img_size=SIZE)


def with_timm(path: Path) -> str:
    model = network()
    save_as_timm(model, path.parent, args_of_timm(model=TINY, img_size=SIZE))
    return TINY


def with_lightning(path: Path) -> str:
    about = {"hyper_parameters": {"model_name": TINY}, "pytorch-lightning_version": "2.5.0"}
    torch.save({"state_dict": Lit(network()).state_dict(), "epoch": 3, **about}, path)
    return TINY


def with_transformers(path: Path) -> str:
    config = transformers.ViTConfig(
        hidden_size=192,
        num_attention_heads=3,
        intermediate_size=768,
        image_size=SIZE,
        id2label=dict(enumerate(CLASSES)),
        label2id={name: number for number, name in enumerate(CLASSES)},
    )
    transformers.ViTForImageClassification(config).save_pretrained(path)
    transformers.ViTImageProcessor(size=SIZE).save_pretrained(path)
    return "vit_tiny_patch16_224"


def with_torchvision(path: Path) -> str:
    (block,) = re.findall(r"```python\n(.*?)```", section("torchvision"), re.S)
    small = block.replace("vit_b_16(num_classes=3)", "network()")
    assert small != block
    exec(small, {"network": torchvisions})
    assert path.is_file()
    return "vit_tiny_patch16_224"


def section(title: str) -> str:
    return PAGE.partition(f"### {title}\n")[2].partition("\n##")[0]


def lines(title: str) -> list[list[str]]:
    """The commands of a section's shell block."""
    (block,) = re.findall(r"```sh\n(.*?)```", section(title), re.S)
    return [shlex.split(line) for line in block.splitlines()]


@pytest.fixture(autouse=True)
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_VIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / PARAMS_FILE, ".")
    chance = np.random.default_rng(0)
    for name in CLASSES:
        Path("path/to/val", name).mkdir(parents=True)
        for number in range(20):
            pixels = chance.integers(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).resize((80, 70)).save(f"path/to/val/{name}/{number}.png")


@pytest.mark.full
@pytest.mark.parametrize(
    ("title", "save"),
    [
        ("timm", with_timm),
        ("Lightning", with_lightning),
        ("transformers", with_transformers),
        ("torchvision", with_torchvision),
    ],
)
def test_a_checkpoint_of_each_tool_needs_two_commands(
    title: str, save: Callable[[Path], str], capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = lines(title)
    checkpoint = Path(first[2])
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    architecture = save(checkpoint)
    assert first[:2] == ["edge-vit", "init"]
    init(first[2:], standalone_mode=False)
    said = capsys.readouterr().out
    assert f"network: {architecture}, 3 classes (bag to cow)" in said
    assert "images: 60, in 3 classes: 53 to evaluate and 7 to calibrate with" in said
    assert load_params().model.checkpoint == first[2]
    assert second == ["make", "repro"]
    if title == "timm":  # behind `fetch` all are the same
        repro()


def repro() -> None:
    """What `make repro` does, for one format with few runs; a small file is mostly overhead."""
    values = yaml.safe_load(Path(PARAMS_FILE).read_text())
    values["formats"] = ["int8_onnx"]
    values["latency"] |= {"warmup": 1, "runs": 10, "min_seconds": 0}
    values["golden"] = {"samples": 1, "photographs": "path/to/val/cat"}
    for budget in values["gate"]["budgets"].values():
        budget |= {"latency_ratio_max": None, "memory_ratio_max": None, "size_ratio_max": 1.2}
        budget |= {"top1_agreement_min": 0.8, "accuracy_drop_max_pp": 10}  # 53 images show no more
    Path(PARAMS_FILE).write_text(yaml.safe_dump(values))
    params, artifacts, recorded = load_params(), Path("artifacts"), Recorded()
    chain.run(params, artifacts, *STAGES)
    gate(params, artifacts, recorded, artifacts / "verdict")
    release = publish(params, artifacts, recorded, artifacts / "release")
    assert release.name == "model_best-0.1.0"
    assert load_contract(release).labels == CLASSES
