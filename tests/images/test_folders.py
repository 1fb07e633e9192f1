from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.commands.predict import find
from pipeline.errors import InputError
from pipeline.finetune.data import load_train
from pipeline.finetune.params import Data
from pipeline.images.folders import listing
from pipeline.images.preprocessing import Preprocessing
from pipeline.images.sources import find_images, image_files
from tests.images.cases import CASES
from tests.stages.test_samples import contract

PIXELS = CASES["PNG"].data
IMAGES = ["cat/1.png", "cat/2.png", "dog/1.png", "dog/deep/2.PNG"]
JUNK = [
    "cat/.1.png",
    "cat/.ipynb_checkpoints/1-checkpoint.png",
    "cat/@eaDir/1.png/thumb.jpg",
    "cat/Thumbs.db",
    "dog/desktop.ini",
    "__MACOSX/cat/._1.png",
    ".git/HEAD",
    "README.md",
    "LICENSE",
    "labels.csv",
    "annotations.json",
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in IMAGES + JUNK:
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PIXELS)
    return tmp_path / "root"


def preprocessing() -> Preprocessing:
    return contract().preprocessing


def ids_of_samples(folder: Path) -> list[str]:
    return sorted(image.id for image in find_images(folder, contract()).images)


def found_by_predict(folder: Path) -> list[str]:
    names, errors = find([str(folder)])
    assert not errors
    return [Path(name).relative_to(folder).as_posix() for name in names]


def trained_on(folder: Path) -> list[str]:
    files = load_train(Data(root=folder, workers=0)).files  # type: ignore[attr-defined]
    return [path.relative_to(folder).as_posix() for path in files]


@pytest.mark.parametrize("found", [ids_of_samples, found_by_predict, trained_on])
def test_hidden_files_and_junk_are_no_images_for_any_command(
    folder: Path, found: Callable[[Path], list[str]]
) -> None:
    assert found(folder) == IMAGES


def test_what_is_left_out_is_named_with_its_reason(folder: Path) -> None:
    left = {item.path.as_posix(): item.reason for item in listing(folder).left_out}
    hidden = {".git", "cat/.1.png", "cat/.ipynb_checkpoints"}
    assert {name for name, reason in left.items() if reason == "hidden"} == hidden
    assert left.keys() - hidden == {
        "__MACOSX",
        "cat/@eaDir",
        *("cat/Thumbs.db", "dog/desktop.ini"),
        *("README.md", "LICENSE", "labels.csv", "annotations.json"),
    }


def test_a_linked_folder_is_read_and_none_is_read_twice(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "3.png").write_bytes(PIXELS)
    (folder / "cat" / "more").symlink_to(tmp_path / "elsewhere")
    (folder / "dog" / "again").symlink_to(tmp_path / "elsewhere")
    (folder / "cat" / "a dog").symlink_to(folder / "dog")
    (folder / "dog" / "loop").symlink_to(folder)
    listed = listing(folder)
    assert [path.as_posix() for path in listed.files] == sorted([*IMAGES, "cat/more/3.png"])
    twice = [i.path.as_posix() for i in listed.left_out if "is read elsewhere" in i.reason]
    assert twice == ["cat/a dog", "dog/again", "dog/loop"]


def test_a_link_to_a_file_is_a_file(folder: Path) -> None:
    (folder / "dog" / "linked.png").symlink_to(folder / "cat" / "1.png")
    assert "dog/linked.png" in ids_of_samples(folder)


def test_photographs_lie_right_in_their_folder(folder: Path) -> None:
    for name in ("a.png", ".b.png", "notes.txt"):
        (folder / name).write_bytes(PIXELS)
    assert [image.id for image in image_files(folder, preprocessing())] == ["a.png"]


@pytest.mark.parametrize(
    ("parts", "best"),
    [(("train", "val"), "val"), (("Train", "test"), "test"), (("train",), "train")],
)
def test_the_root_of_a_data_set_is_told_which_part_to_give(
    folder: Path, tmp_path: Path, parts: tuple[str, ...], best: str
) -> None:
    root = tmp_path / "data"
    for part in parts:
        shutil.copytree(folder, root / part)
    wanted = rf"holds .*{parts[0]}/.*parts of a data set.*did you mean {root / best}\?"
    with pytest.raises(InputError, match=wanted):
        find_images(root, contract())
    with pytest.raises(InputError, match=wanted):
        load_train(Data(root=root))


def test_a_class_may_be_called_train(folder: Path) -> None:
    (folder / "cat").rename(folder / "train")
    found = find_images(folder, contract(("train", "dog"))).images
    assert {image.label for image in found} == {0, 1}
