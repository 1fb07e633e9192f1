from __future__ import annotations

import gzip
import json
import struct
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torchvision.models._meta import _IMAGENET_CATEGORIES

from pipeline.contract.contract import Contract
from pipeline.errors import InputError, ParamsError
from pipeline.images.idx import FASHION_MNIST_CLASSES
from pipeline.images.imagenet import imagenet_labels
from pipeline.images.preprocessing import geometry
from pipeline.images.samples import (
    Beside,
    SampleSet,
    calibration_input,
    content_hash,
    load_pixels,
)
from pipeline.images.sources import ImageSource
from pipeline.params import Samples, load_params
from pipeline.stages.samples import in_turn, samples, shown_at_most
from tests.contract import builders
from tests.inference.images import png_bomb

ROOT = Path(__file__).parent.parent.parent
RNG = np.random.default_rng(0)
ANIMALS = ("cat", "dog", "guinea pig/cavy")


def contract(labels: tuple[str, ...] = ANIMALS) -> Contract:
    steps = builders.preprocessing(size=(32, 32), resize=35)
    return builders.contract(preprocessing=steps, labels=labels)


def draw(path: Path, seed: int | None = None) -> None:
    rng = RNG if seed is None else np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(path)


def folder_of(root: Path, counts: dict[str, int]) -> Path:
    for name, count in counts.items():
        for index in range(count):
            draw(root / name / f"{index:03}.png")
    return root


def take(root: Path, out: Path, labels: tuple[str, ...] = ANIMALS, **params: Any) -> SampleSet:
    samples(Samples(source=root, **{"calibration": 0} | params), contract(labels), out)
    return SampleSet.load(out)


def about(out: Path) -> Any:
    return json.loads((out / "samples.json").read_text())


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "artifacts" / "samples"


@pytest.fixture
def animals(tmp_path: Path) -> Path:
    return folder_of(tmp_path / "animals", {"cat": 10, "dog": 10, "guinea pig_cavy": 10})


def test_pixels_are_those_of_the_transform(animals: Path, out: Path) -> None:
    chosen = take(animals, out, limit=7)
    apply = geometry(contract().preprocessing)
    for image, name in zip(chosen.images, chosen.ids, strict=True):
        with Image.open(animals / name) as original:
            assert np.array_equal(image, apply(original))
    chosen.verify()


def test_labels_are_the_models_indices(animals: Path, out: Path) -> None:
    chosen = take(animals, out, limit=30)
    folders = {"cat": 0, "dog": 1, "guinea pig_cavy": 2}
    assert chosen.labels is not None
    assert chosen.labels.tolist() == [folders[name.split("/")[0]] for name in chosen.ids]
    assert chosen.classes == ANIMALS


def test_classes_are_balanced(animals: Path, out: Path) -> None:
    chosen = take(animals, out, limit=8)
    assert chosen.labels is not None
    assert sorted(Counter(chosen.labels.tolist()).values()) == [2, 3, 3]


def test_a_small_class_is_taken_whole_and_filled_from_others(tmp_path: Path, out: Path) -> None:
    root = folder_of(tmp_path / "images", {"cat": 2, "dog": 9, "guinea pig_cavy": 9})
    chosen = take(root, out, limit=12)
    assert chosen.labels is not None
    assert sorted(Counter(chosen.labels.tolist()).values()) == [2, 5, 5]


def test_equal_seeds_give_equal_files_and_other_seeds_others(animals: Path, tmp_path: Path) -> None:
    runs = [("a", 3), ("b", 3), ("c", 4)]
    for name, seed in runs:
        take(animals, tmp_path / name, limit=9, calibration=5, seed=seed)
    for file in ("images.npy", "calibration.npy", "samples.json"):
        first, again, other = ((tmp_path / name / file).read_bytes() for name, _ in runs)
        assert first == again
        assert first != other


def test_the_order_depends_on_ids_not_on_how_a_folder_is_listed() -> None:
    def nothing() -> Image.Image:
        raise AssertionError("opened")

    listed = [ImageSource(str(index), index % 3, nothing) for index in range(20)]
    assert in_turn(listed, 1) == in_turn(reversed(listed), 1)


def test_calibration_shares_neither_files_nor_pixels_with_evaluation(
    tmp_path: Path, out: Path
) -> None:
    root = tmp_path / "flat"
    for index in range(20):
        draw(root / f"{index:02}.png", seed=index % 10)  # each image twice
    chosen = take(root, out, limit=8, calibration=12)
    calibration = load_pixels(out / "calibration.npy")
    listed = about(out)
    assert len(calibration) == len(listed["calibration_ids"]) > 0
    assert not set(chosen.ids) & set(listed["calibration_ids"])
    evaluated = {content_hash(image) for image in chosen.images}
    assert not evaluated & {content_hash(image) for image in calibration}
    assert listed["calibration_duplicates"]


@pytest.mark.parametrize(
    ("count", "limit", "calibration", "shares"),
    [
        (30, 28, 5, (25, 5)),
        (30, 2000, 256, (27, 3)),  # 30 * 256 / 2256 is 3.4
        (5, 2000, 256, (4, 1)),  # 0.6, but one at least
        (2, 1, 9, (1, 1)),
        (30, 25, 5, (25, 5)),  # all that is asked for
    ],
)
def test_few_images_are_divided_as_they_were_asked_for(
    tmp_path: Path,
    out: Path,
    capsys: pytest.CaptureFixture[str],
    count: int,
    limit: int,
    calibration: int,
    shares: tuple[int, int],
) -> None:
    root = folder_of(tmp_path / "images", {"cat": count})
    assert len(take(root, out, limit=limit, calibration=calibration)) == shares[0]
    assert load_pixels(out / "calibration.npy").shape == (shares[1], 32, 32, 3)
    assert about(out)["asked"] == {"limit": limit, "calibration": calibration}
    words = f"{shares[0]} of {limit} to evaluate, {shares[1]} of {calibration} to calibrate with"
    assert (words in capsys.readouterr().err) == ((limit, calibration) != shares)


def test_few_images_are_divided_by_what_can_be_read(animals: Path, out: Path) -> None:
    for path in list((animals / "cat").iterdir())[:8]:
        path.write_bytes(b"no image")
    assert len(take(animals, out, limit=100, calibration=20, bad_images="skip")) == 18
    assert len(load_pixels(out / "calibration.npy")) == 4
    assert len(about(out)["skipped"]) == 8


def test_one_image_cannot_be_divided(tmp_path: Path, out: Path) -> None:
    root = folder_of(tmp_path / "images", {"cat": 1})
    with pytest.raises(InputError, match="one image; at least two are needed"):
        take(root, out, calibration=256)
    assert len(take(root, out, calibration=0)) == 1


@pytest.mark.parametrize(("asked", "remedy"), [(0, "raise samples.cal"), (9, "give more images")])
def test_missing_calibration_images_come_with_the_right_remedy(
    animals: Path, out: Path, asked: int, remedy: str
) -> None:
    take(animals, out, calibration=0)
    content = about(out) | {"asked": {"limit": 9, "calibration": asked}}
    (out / "samples.json").write_text(json.dumps(content))
    with pytest.raises(ParamsError, match=f"there are none; {remedy}"):
        calibration_input(out, contract().preprocessing)


def test_what_the_gate_cannot_show_with_so_few_images_is_said_at_once() -> None:
    gate = load_params(ROOT / "params.yaml").gate
    # Wilson's lower bound for n of n is n / (n + 1.96^2): 189 are 98.0%, 381 are 99.0%.
    assert shown_at_most(gate, 400) == []
    (line,) = shown_at_most(gate, 266)
    assert "at least 98.6% of all answers" in line
    assert "(.onnx 99%)" in line
    assert "about 381 images" in line
    (line,) = shown_at_most(gate, 100)
    assert ".ptl 98%" in line


def test_no_calibration_is_an_empty_array(animals: Path, out: Path) -> None:
    take(animals, out, limit=100)
    assert load_pixels(out / "calibration.npy").shape == (0, 32, 32, 3)


def test_images_without_class_folders_are_unlabelled(tmp_path: Path, out: Path) -> None:
    chosen = take(folder_of(tmp_path, {"flat": 4}) / "flat", out, limit=3)
    assert chosen.labels is None
    assert about(out)["labels"] == [None, None, None]


@pytest.mark.parametrize("source", ["timm", "torchvision"])
def test_wordnet_ids_name_imagenet_classes(tmp_path: Path, out: Path, source: str) -> None:
    """Torchvision's labels are shortened and in part renamed."""
    labels = imagenet_labels() if source == "timm" else tuple(_IMAGENET_CATEGORIES)
    root = folder_of(tmp_path / "val", {"n01440764": 1, "n15075141": 1})
    chosen = take(root, out, labels, limit=2)
    assert chosen.labels is not None
    assert sorted(chosen.labels.tolist()) == [0, 999]


def test_wordnet_ids_name_no_class_of_imagenet_in_another_order(tmp_path: Path, out: Path) -> None:
    root = folder_of(tmp_path / "val", {"n01440764": 1})
    labels = (*_IMAGENET_CATEGORIES[1:], _IMAGENET_CATEGORIES[0])
    with pytest.raises(InputError, match="1 of 1 folders do not name one class"):
        take(root, out, labels, limit=1)


def test_an_accent_may_be_a_character_of_its_own(tmp_path: Path, out: Path) -> None:
    """What macOS unpacks is named so; files of labels may be, too."""
    root = folder_of(tmp_path / "images", {"cafe\u0301": 1, "the\u0301": 1, "ma\u00e9": 1})
    labels = take(root, out, ("caf\u00e9", "the\u0301", "mae\u0301"), limit=3).labels
    assert labels is not None
    assert sorted(labels.tolist()) == [0, 1, 2]


def test_a_word_that_is_two_imagenet_classes_is_refused(tmp_path: Path, out: Path) -> None:
    root = folder_of(tmp_path / "val", {"crane": 1})
    with pytest.raises(InputError, match=r"do not name one class of .*: crane\..*WordNet"):
        take(root, out, imagenet_labels(), limit=2)


def test_folders_that_are_no_classes_are_named(tmp_path: Path, out: Path) -> None:
    root = folder_of(tmp_path / "images", {"cat": 1, "unicorn": 1})
    with pytest.raises(InputError, match=r"1 of 2 folders.*unicorn.*one folder a class"):
        take(root, out)


def test_what_lies_beside_the_samples_is_counted_and_named(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = folder_of(tmp_path / "images", {"cat": 2, "dog": 1})
    (root / "dog" / "again.png").write_bytes((root / "cat" / "000.png").read_bytes())
    (root / "cat" / ".000.png").touch()
    (root / "README").touch()
    (root / "guinea pig_cavy").mkdir()
    taken = take(root, out, limit=10)
    assert taken.beside == Beside(
        left_out=2, duplicates=0, classes_without_images=("guinea pig/cavy",)
    )
    assert about(out)["left_out"] == [
        {"file": "README", "reason": "left by a system or tool"},
        {"file": "cat/.000.png", "reason": "hidden"},
    ]
    assert about(out)["evaluation_duplicates"] in (["dog/again.png"], ["cat/000.png"])
    assert len(taken) == 3
    said = capsys.readouterr().err
    for words in ("2 hidden or unrelated", "1 image(s) have the pixels", "1 class(es) have no"):
        assert words in said


def test_files_beside_class_folders_are_refused(animals: Path, out: Path) -> None:
    draw(animals / "stray.png")
    with pytest.raises(InputError, match=r"stray\.png"):
        take(animals, out)


def test_a_file_that_is_no_image_stops_and_is_named(animals: Path, out: Path) -> None:
    (animals / "cat" / "notes.txt").write_text("no image")
    with pytest.raises(InputError, match=r"notes\.txt cannot be read.*samples\.bad_images: skip"):
        take(animals, out)
    assert not out.exists()


def test_files_that_are_no_images_are_skipped_and_counted(
    animals: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (animals / "cat" / "notes.txt").write_text("no image")
    (animals / "dog" / "empty.jpg").touch()
    whole = (animals / "dog" / "000.png").read_bytes()
    (animals / "dog" / "cut.png").write_bytes(whole[: len(whole) // 2])
    assert len(take(animals, out, limit=100, bad_images="skip")) == 30
    skipped = {entry["file"]: entry["reason"] for entry in about(out)["skipped"]}
    assert skipped.keys() == {"cat/notes.txt", "dog/empty.jpg", "dog/cut.png"}
    assert all(skipped.values())
    assert "3 file(s) are not images" in capsys.readouterr().err


def test_a_skipped_file_is_replaced_by_the_next(animals: Path, out: Path) -> None:
    for path in list((animals / "cat").iterdir())[:5]:
        path.write_bytes(b"no image")
    assert len(take(animals, out, limit=20, bad_images="skip")) == 20


def test_an_image_that_is_a_bomb_is_refused(animals: Path, out: Path) -> None:
    (animals / "cat" / "bomb.png").write_bytes(png_bomb(12_000, 12_000))
    with pytest.raises(InputError, match=r"bomb\.png .*12000 x 12000 pixels, more than"):
        take(animals, out)


def test_only_broken_files_are_refused_even_if_they_may_be_skipped(
    tmp_path: Path, out: Path
) -> None:
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat" / "a.jpg").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"none of the 1 files .* a\.jpg"):
        take(tmp_path / "flat", out, bad_images="skip")
    assert not out.exists()


def test_no_samples_are_refused(tmp_path: Path, out: Path) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="holds no images"):
        take(tmp_path / "none", out)
    with pytest.raises(InputError, match=r"missing.*one folder a class"):
        take(tmp_path / "nowhere", out)


def test_a_failing_run_leaves_the_last_samples_untouched(animals: Path, out: Path) -> None:
    take(animals, out, limit=5)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    (animals / "cat" / "notes.txt").write_text("no image")
    with pytest.raises(InputError):
        take(animals, out, limit=100)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert [path.name for path in out.parent.iterdir()] == [out.name]


@pytest.fixture
def clothes(tmp_path: Path) -> Path:
    """A small set in the format of the embedded one."""
    folder = tmp_path / "fashion_mnist"
    folder.mkdir()
    images = RNG.integers(0, 256, (40, 28, 28), dtype=np.uint8)
    labels = np.arange(40, dtype=np.uint8) % 10
    for name, array in (("images-idx3", images), ("labels-idx1", labels)):
        header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
        (folder / f"t10k-{name}-ubyte.gz").write_bytes(gzip.compress(header + array.tobytes()))
    np.save(tmp_path / "expected.npy", images)
    return folder


def test_the_embedded_set_is_read_by_class_name(clothes: Path, out: Path) -> None:
    labels = tuple(reversed(FASHION_MNIST_CLASSES))  # a model with another order of classes
    chosen = take(clothes, out, labels, limit=20, calibration=10)
    numbers = [int(name.removeprefix("t10k-")) for name in chosen.ids]
    assert chosen.labels is not None
    assert chosen.labels.tolist() == [9 - number % 10 for number in numbers]
    assert set(Counter(chosen.labels.tolist()).values()) == {2}
    originals = np.load(clothes.parent / "expected.npy")
    apply = geometry(contract().preprocessing)
    for image, number in zip(chosen.images, numbers, strict=True):
        assert np.array_equal(image, apply(Image.fromarray(originals[number])))


def test_an_imagenet_model_on_the_embedded_set_is_told_which_folder_to_give(
    clothes: Path, out: Path
) -> None:
    with pytest.raises(InputError, match=r"T-shirt.*1000 other classes.*Set samples\.source to a"):
        take(clothes, out, imagenet_labels())


def test_a_search_in_a_small_source_borrows_from_calibration(
    animals: Path, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    take(animals, out, limit=20, calibration=8)
    for count, names in (
        (2, set(find_names(animals)) - {*about(out)["ids"], *about(out)["calibration_ids"]}),
        (10, set(find_names(animals)) - {*about(out)["ids"]}),
    ):
        capsys.readouterr()
        other = tmp_path / f"search-{count}"
        samples(Samples(source=animals, limit=count, calibration=0), contract(), other, out)
        assert set(about(other)["ids"]) == names
        said = "has 2 images beside those of"
        assert (said in capsys.readouterr().err) == (count == 10)


def find_names(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*.png")]
