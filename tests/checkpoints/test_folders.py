"""Folders of transformers and its Trainer, and torchvision's networks: the owner's logits."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models.vision_transformer import VisionTransformer

from pipeline.errors import InputError, IntegrityError, ParamsError
from pipeline.process import quiet
from tests.checkpoints.fetching import answers_as, fetched, trained
from tests.loopback import Site, hub_pages

transformers = pytest.importorskip("transformers")

TINY = {"hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 768, "image_size": 32}
SIZE = {"height": 32, "width": 32}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_VIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.chdir(tmp_path)
    Path("labels.txt").write_text("cat\ndog\ncow\n")


def saved(folder: str, **options: Any) -> nn.Module:
    """Write a random ViT as transformers does; return it."""
    torch.manual_seed(0)
    names = {0: "cat", 1: "dog", 2: "cow"}
    config = transformers.ViTConfig(**TINY, initializer_range=0.2, id2label=names)
    with quiet():
        model = transformers.ViTForImageClassification(config).eval()
        model.save_pretrained(folder, **options)
        transformers.ViTImageProcessor(size=SIZE).save_pretrained(folder)
    return model


def test_shards_with_an_index_are_one_checkpoint() -> None:
    model = saved("vit", max_shard_size="5MB")
    index = Path("vit/model.safetensors.index.json")
    assert index.is_file()
    assert len(list(Path("vit").glob("*.safetensors"))) > 2
    contract = fetched("vit")
    assert answers_as(model, contract)
    assert contract.checkpoint.source == index.name
    with pytest.raises(ParamsError, match=f"sha256: {contract.checkpoint.source_sha256}"):
        fetched("vit", sha256=None)
    shard = min(Path("vit").glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-4] + b"abcd")
    with pytest.raises(IntegrityError, match="now it is"):
        fetched("vit")


def test_shards_of_a_hub_are_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    model = saved("vit", max_shard_size="10MB")
    files = {path.name: path.read_bytes() for path in Path("vit").iterdir()}
    with Site(hub_pages("org/vit", files)) as site:
        monkeypatch.setenv("HF_ENDPOINT", site.address)
        assert answers_as(model, fetched("hf:org/vit"))


def test_a_shard_that_is_missing_is_named() -> None:
    saved("vit", max_shard_size="10MB")
    shard = min(Path("vit").glob("*.safetensors"))
    shard.unlink()
    words = f"{re.escape(str(shard))} is missing, which model.safetensors.index.json names"
    with pytest.raises(InputError, match=words):
        fetched("vit")


@pytest.mark.parametrize(
    ("index", "words"),
    [
        ({"weight_map": {"a": "../other/model.safetensors"}}, "no file beside it"),
        ({"weight_map": {"a": "/etc/passwd"}}, "no file beside it"),
        ({"weight_map": {"a": "model.bin"}}, "no file beside it"),
        ({"weight_map": {"a": 3}}, "no file beside it"),
        ({"weight_map": {}}, "not an index of weights"),
        ([1], "not an index of weights"),
    ],
)
def test_an_index_names_files_beside_it(index: Any, words: str) -> None:
    saved("vit", max_shard_size="10MB")
    Path("vit/model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match=words):
        fetched("vit")


def test_a_folder_of_the_trainer_is_read() -> None:
    """Beside what save_pretrained writes: its state, and pickles of it that are not opened."""
    model = saved("run/checkpoint-500")
    for name in ("training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth"):
        torch.save({"args": Path("x")}, f"run/checkpoint-500/{name}")
    Path("run/checkpoint-500/trainer_state.json").write_text("{}")
    shutil.copytree("run/checkpoint-500", "run/checkpoint-1000")
    assert answers_as(model, fetched("run/checkpoint-500"))
    words = "as a training run leaves it; give one of the folders in it: checkpoint-1000, checkpoi"
    with pytest.raises(ParamsError, match=words):
        fetched("run")
    for path in Path("run/checkpoint-500").iterdir():
        shutil.copy(path, "run")
    assert answers_as(model, fetched("run"))


# torchvision


def torchvisions(size: int = 32) -> nn.Module:
    """The class of `vit_b_16` and the others, in the size that timm calls tiny."""
    return trained(
        VisionTransformer(
            image_size=size,
            patch_size=16,
            num_layers=12,
            num_heads=3,
            hidden_dim=192,
            mlp_dim=768,
            num_classes=3,
        )
    )


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_network_of_torchvisions(wrapped: bool, capsys: pytest.CaptureFixture[str]) -> None:
    model = torchvisions()
    state = (nn.DataParallel(model) if wrapped else model).state_dict()
    torch.save({"model": state, "epoch": 3}, "model_89.pth")
    contract = fetched("model_89.pth", labels="labels.txt")
    assert answers_as(model, contract)
    assert contract.checkpoint.architecture == "vit_tiny_patch16_224"
    assert contract.preprocessing.size == (32, 32)
    assert contract.preprocessing.mean == (0.485, 0.456, 0.406)
    assert "a network of torchvision's: images are resized with bicubic" in capsys.readouterr().out


def test_the_names_of_torchvisions_older_layers() -> None:
    model = torchvisions()
    older = {".mlp.0.": ".mlp.linear_1.", ".mlp.3.": ".mlp.linear_2."}
    state = dict(model.state_dict())
    for new, old in older.items():
        state = {key.replace(new, old): value for key, value in state.items()}
    torch.save(state, "own.pth")
    assert answers_as(model, fetched("own.pth", labels="labels.txt"))


def test_torchvision_at_its_usual_size_is_fed_as_its_published_weights() -> None:
    torch.save(torchvisions(224).state_dict(), "own.pth")
    how = fetched("own.pth", labels="labels.txt").preprocessing
    assert (how.size, how.resize, how.interpolation) == ((224, 224), 256, "bilinear")


def test_a_size_that_timm_has_not_needs_its_architecture() -> None:
    model = VisionTransformer(32, 16, 2, 3, 192, 768, num_classes=3)
    torch.save(model.state_dict(), "own.pth")
    with pytest.raises(ParamsError, match=r"model\.architecture is missing"):
        fetched("own.pth", labels="labels.txt")
    own = {"architecture": "vit_tiny_patch16_224", "kwargs": {"depth": 2}}
    assert answers_as(model, fetched("own.pth", labels="labels.txt", **own))
