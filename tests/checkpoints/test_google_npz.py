"""Google's checkpoints, written by the inverse of timm's reader, and hostile ones."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.checkpoints.google_npz import arrays_of, save
from pipeline.checkpoints import google_npz
from pipeline.errors import InputError
from pipeline.models.build import create
from pipeline.untrusted import npz


def random_model(architecture: str, size: int, classes: int = 5) -> Any:
    torch.manual_seed(0)
    model = create(architecture, num_classes=classes, image_size=size)
    with torch.no_grad():
        for value in model.parameters():
            value.normal_(0, 0.05)
    return model


@pytest.mark.parametrize(
    ("architecture", "size", "expected"),
    [
        ("vit_tiny_patch16_224", 224, "vit_tiny_patch16_224"),
        ("vit_small_patch32_224", 384, "vit_small_patch32_384"),
        ("vit_tiny_patch16_224", 160, "vit_tiny_patch16_224"),
        ("vit_tiny_r_s16_p8_224", 224, "vit_tiny_r_s16_p8_224"),
        pytest.param(
            *("vit_small_r26_s32_224", 224, "vit_small_r26_s32_224"), marks=pytest.mark.full
        ),
        pytest.param(
            *("vit_base_r50_s16_224", 384, "vit_base_r50_s16_384"), marks=pytest.mark.full
        ),
    ],
)
def test_a_file_says_by_itself_what_it_is(
    architecture: str, size: int, expected: str, tmp_path: Path
) -> None:
    model = random_model(architecture, size)
    save(model, tmp_path / "it.npz")
    state, info = google_npz.read(tmp_path / "it.npz", "it")
    assert (info.architecture, info.data["input_size"]) == (expected, (3, size, size))
    own = model.state_dict()
    assert state.keys() == own.keys()
    for key, value in own.items():
        assert torch.equal(state[key], value), key


def test_a_file_without_a_head_is_refused(tmp_path: Path) -> None:
    save(random_model("vit_tiny_patch16_224", 32), tmp_path / "it.npz", head=False)
    with pytest.raises(InputError, match="not a classifier: it has no head"):
        google_npz.read(tmp_path / "it.npz", "it")


def test_an_array_that_is_missing_is_named(tmp_path: Path) -> None:
    arrays = arrays_of(random_model("vit_tiny_patch16_224", 32))
    del arrays["Transformer/encoderblock_3/MlpBlock_3/Dense_0/bias"]
    np.savez(tmp_path / "it.npz", allow_pickle=False, **arrays)
    with pytest.raises(InputError, match="encoderblock_3/MlpBlock_3/Dense_0/bias"):
        google_npz.read(tmp_path / "it.npz", "it")


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"a": np.zeros(3)}, "not a vision transformer of Google's"),
        (
            {"embedding/kernel": np.zeros((16, 16, 3, 7)), "head/kernel": np.zeros((7, 2))},
            "no .*pos",
        ),
    ],
)
def test_other_arrays_are_refused(
    arrays: dict[str, np.ndarray], words: str, tmp_path: Path
) -> None:
    np.savez(tmp_path / "it.npz", allow_pickle=False, **arrays)
    with pytest.raises(InputError, match=words):
        google_npz.read(tmp_path / "it.npz", "it")


def archive(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return path


def npy(array: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def test_numbers_come_back_as_they_were(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        "c": rng.random((3, 4), np.float32),
        "fortran": np.asfortranarray(rng.random((3, 4))),
        "big": rng.random(4).astype(">f4"),
        "scalar": np.float32(3),
        "empty": np.zeros((0, 3)),
    }
    np.savez(tmp_path / "plain.npz", **arrays)
    np.savez_compressed(tmp_path / "packed.npz", **arrays)
    for name in ("plain", "packed"):
        found = npz.open_npz(tmp_path / f"{name}.npz", "it")
        assert found.keys() == arrays.keys()
        for key, value in arrays.items():
            assert np.array_equal(found[key], value)
            assert found[key].shape == np.shape(value)
            assert found[key].dtype.isnative


class Harm:
    def __reduce__(self) -> tuple[Any, ...]:
        return (open, ("harmed", "w"))


def giant() -> bytes:
    content = npy(np.zeros(3))
    digits = b"9999999999"
    longer = content.replace(b"(3,)", b"(" + digits + b",)")
    return longer.replace(b" " * (len(digits) - 1) + b"\n", b"\n", 1)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            npy(np.array([Harm()], object), allow_pickle=True),
            "Python objects, which could run code",
        ),
        (npy(np.zeros(2, [("a", "f4")])), "which PyTorch has no type for"),
        (npy(np.array(["text"])), "which PyTorch has no type for"),
        (giant(), "says 79999999992 bytes"),
        (npy(np.zeros(5))[:-8], "says 40 bytes, it has 32"),
        (b"\x93NUMPY\x09\x00", "version"),
        (b"no array", "damaged"),
        (npy(np.zeros(4_000_000)), "would unpack"),
    ],
)
def test_what_is_no_plain_array_is_refused(
    content: bytes, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = archive(tmp_path / "it.npz", a=content)
    with pytest.raises(InputError, match=words):
        npz.open_npz(path, "it")
    assert not (tmp_path / "harmed").exists()


def test_other_files_in_the_archive_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "it.npz", "w") as file:
        file.writestr("../evil.sh", b"x")
    with pytest.raises(InputError, match="not an array"):
        npz.open_npz(tmp_path / "it.npz", "it")


def damaged(whole: bytes, seed: int) -> bytes:
    """Change one to seven bytes, and cut every third file."""
    rng, content = np.random.default_rng(seed), bytearray(whole)
    for _ in range(rng.integers(1, 8)):
        content[rng.integers(len(content))] = rng.integers(256)
    return bytes(content[: rng.integers(1, len(content) + 1)] if seed % 3 == 0 else content)


def test_a_damaged_file_gives_arrays_or_one_clear_error(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, a=np.arange(40.0), b=np.ones((3, 3), np.float32))
    path, failed = tmp_path / "it.npz", {}
    for seed in range(300):
        path.write_bytes(damaged(buffer.getvalue(), seed))
        try:
            assert isinstance(npz.open_npz(path, "it"), dict)
        except InputError:
            pass
        except Exception as error:
            failed[seed] = error
    assert not failed
