from __future__ import annotations

from pathlib import Path

import pytest
import timm

from pipeline.checkpoints.zoo import ZOO_FILE, load_zoo
from pipeline.errors import ParamsError
from pipeline.files import sha256_file
from pipeline.images.imagenet import imagenet_labels, imagenet_wordnet_ids

ROOT = Path(__file__).parents[2]
ZOO = load_zoo()
EMBEDDED = "deit_tiny_patch16_224.fashion_mnist"
TRAINED_HERE = [name for name in ZOO.checkpoints if name.endswith(".fashion_mnist")]
DEITS = [name for name in ZOO.checkpoints if name not in TRAINED_HERE]


def test_the_default_checkpoint_comes_first() -> None:
    assert next(iter(ZOO.checkpoints)) == EMBEDDED


@pytest.mark.parametrize("name", TRAINED_HERE)
def test_an_embedded_checkpoint_has_the_recorded_hash(name: str) -> None:
    entry = ZOO.checkpoints[name]
    assert sha256_file(ROOT / entry.source) == entry.sha256


def test_all_eight_deits_are_there() -> None:
    assert len(DEITS) == 8


@pytest.mark.parametrize("name", DEITS)
def test_a_deit_says_what_timm_says_of_it(name: str) -> None:
    entry, cfg = ZOO.checkpoints[name], timm.models.get_pretrained_cfg(name)
    assert cfg is not None
    assert entry.architecture == name
    assert entry.source == cfg.url
    assert entry.source.endswith(f"{name}-{entry.sha256}.pth")
    assert entry.published is not None
    assert entry.published.crop_pct == cfg.crop_pct
    assert entry.published.interpolation == cfg.interpolation
    assert len(entry.label_names()) == cfg.num_classes


def test_imagenet_labels_are_in_the_models_order() -> None:
    assert len(imagenet_labels()) == len(imagenet_wordnet_ids()) == 1000
    assert imagenet_labels()[0] == "tench, Tinca tinca"
    assert imagenet_labels()[999].startswith("toilet tissue")
    assert imagenet_wordnet_ids()[0] == "n01440764"


def test_a_near_name_is_found() -> None:
    assert "deit_base_patch16_224" in ZOO.similar("deit_base_224")


def test_a_copy_is_known_by_its_file_name() -> None:
    assert ZOO.by_file_name("deit_tiny_patch16_224-a1311bcf.pth") == "deit_tiny_patch16_224"
    assert ZOO.by_file_name("other.pth") is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("crop_pct: 1.0", "crop_pct: 1.5"), r"crop_pct must be"),
        (("license: MIT", "licence: MIT"), r"licence is not a parameter"),
        (('sha256: "a1311bcf"', 'sha256: "xyz"'), r"deit_tiny_patch16_224\.sha256 must be"),
    ],
)
def test_a_mistake_in_the_zoo_is_named(tmp_path: Path, change: tuple[str, str], words: str) -> None:
    text = ZOO_FILE.read_text()
    assert change[0] in text
    (tmp_path / "zoo.yaml").write_text(text.replace(*change, 1))
    with pytest.raises(ParamsError, match=words):
        load_zoo(tmp_path / "zoo.yaml")
