from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.finetune import data
from pipeline.images import cifar
from pipeline.images.cifar import CIFAR10, CIFAR100, Layout, is_cifar, read

TEN = [f"kind {n}" for n in range(10)]
COARSE = [f"super {n}" for n in range(20)]
FINE = [f"fine {n}" for n in range(100)]


def record(labels: tuple[int, ...], seed: int) -> tuple[bytes, np.ndarray]:
    """A record in the published layout, and its image [32, 32, 3]."""
    image = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), np.uint8)
    planes = b"".join(image[:, :, channel].tobytes() for channel in range(3))
    return bytes(labels) + planes, image


def made(layout: Layout) -> tuple[dict[str, bytes], dict[str, np.ndarray]]:
    """The files of a small data set of two images a file, and the images of each file."""
    names = [TEN] if layout is CIFAR10 else [COARSE, FINE]
    files = {
        name: "\n".join([*lines, ""]).encode()
        for name, lines in zip(layout.names, names, strict=True)
    }
    images = {}
    for number, name in enumerate([*layout.parts["train"], *layout.parts["test"]]):
        labels = [(n,) if layout is CIFAR10 else (n, 90 + n) for n in (number, 9)]
        records = [record(label, 10 * number + n) for n, label in enumerate(labels)]
        files[name] = b"".join(content for content, _ in records)
        images[name] = np.stack([image for _, image in records])
    return files, images


def folder_of(files: dict[str, bytes], folder: Path) -> Path:
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def archive_of(files: dict[str, bytes], path: Path) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"cifar/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "archive"])
@pytest.mark.parametrize("layout", [CIFAR10, CIFAR100], ids=["10", "100"])
def test_both_data_sets_are_read_as_published(layout: Layout, packed: bool, tmp_path: Path) -> None:
    files, images = made(layout)
    pack = archive_of if packed else folder_of
    source = pack(files, tmp_path / "cifar.tar.gz")
    assert is_cifar(source)
    train, test = read(source, "train"), read(source, "test")
    of_train = layout.parts["train"]
    assert np.array_equal(train.images, np.concatenate([images[name] for name in of_train]))
    assert np.array_equal(test.images, images[layout.parts["test"][0]])
    first = 0 if layout is CIFAR10 else 90
    expected = [label for n in range(len(of_train)) for label in (first + n, first + 9)]
    assert train.labels.tolist() == expected
    assert train.classes == tuple(TEN if layout is CIFAR10 else FINE)


def test_fine_tuning_takes_them(tmp_path: Path) -> None:
    from pipeline.finetune.params import Data

    source = archive_of(made(CIFAR100)[0], tmp_path / "cifar.tar.gz")
    found, test = (load(Data(root=source)) for load in (data.load_train, data.load_test))
    assert test is not None
    assert found.classes == test.classes == tuple(FINE)


@pytest.mark.parametrize("cut", [1, 3073])
def test_a_damaged_file_is_named(cut: int, tmp_path: Path) -> None:
    files, _ = made(CIFAR10)
    files["data_batch_3.bin"] = files["data_batch_3.bin"][: -cut if cut == 1 else -2 * cut]
    with pytest.raises(InputError, match=r"data_batch_3\.bin is damaged.*fetch it again"):
        read(folder_of(files, tmp_path / "c"), "train")


def test_a_label_out_of_range_is_refused(tmp_path: Path) -> None:
    files, _ = made(CIFAR10)
    files["test_batch.bin"] = bytes([10]) + files["test_batch.bin"][1:]
    with pytest.raises(InputError, match="image 0 has label 10, there are 10 classes"):
        read(folder_of(files, tmp_path / "c"), "test")


@pytest.mark.parametrize("name", ["data_batch_5.bin", "batches.meta.txt"])
def test_a_missing_file_is_named(name: str, tmp_path: Path) -> None:
    files, _ = made(CIFAR10)
    del files[name]
    with pytest.raises(InputError, match=f"{name} of CIFAR-10 is missing"):
        read(archive_of(files, tmp_path / "c.tar.gz"), "train")


@pytest.mark.parametrize(
    "names", [TEN[:9], [*TEN, "more"], [*TEN[:9], TEN[0]], []], ids=["few", "many", "twice", "none"]
)
def test_names_must_be_those_of_the_classes(names: list[str], tmp_path: Path) -> None:
    files, _ = made(CIFAR10)
    files["batches.meta.txt"] = "\n".join(names).encode()
    with pytest.raises(InputError, match="expected 10"):
        read(folder_of(files, tmp_path / "c"), "test")


def test_the_python_version_is_not_opened(tmp_path: Path) -> None:
    files = dict.fromkeys(("batches.meta", "data_batch_1"), b"cos\nsystem\n(S'false'\ntR.")
    source = folder_of(files, tmp_path / "c")
    assert is_cifar(source)
    with pytest.raises(InputError, match=r"Python or MATLAB version.*cifar-10-binary\.tar\.gz"):
        read(source, "train")


def test_another_folder_is_not_cifar(tmp_path: Path) -> None:
    assert not is_cifar(folder_of({"a.png": b""}, tmp_path / "c"))


def test_an_archive_that_unpacks_without_end_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cifar, "MAX_BYTES", 1 << 20)
    path = archive_of({"train.bin": bytes(2 << 20)}, tmp_path / "c.tar.gz")
    with pytest.raises(InputError, match="unpacks to more than all of CIFAR"):
        read(path, "train")


@pytest.mark.parametrize(
    "content",
    [b"", b"no gzip", gzip.compress(b"no tar"), gzip.compress(bytes(range(256)) * 8)],
    ids=["empty", "no gzip", "no tar", "noise"],
)
def test_what_is_no_archive_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "c.tar.gz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"c\.tar\.gz"):
        read(path, "train")


def test_a_cut_archive_is_refused(tmp_path: Path) -> None:
    path = archive_of(made(CIFAR100)[0], tmp_path / "c.tar.gz")
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(InputError, match="damaged"):
        read(path, "train")


def test_links_and_files_that_are_there_twice_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        link = tarfile.TarInfo("train.bin")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with pytest.raises(InputError, match="holds no CIFAR files"):
        read(path, "train")
    with tarfile.open(path, "w:gz") as archive:
        for _ in range(2):
            archive.addfile(tarfile.TarInfo("train.bin"))
    with pytest.raises(InputError, match=r"train\.bin is there twice"):
        read(path, "train")
