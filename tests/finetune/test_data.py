from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.errors import InputError
from pipeline.finetune.data import Draw, View, batches, load_test, load_train
from pipeline.finetune.params import Augmentation, Data
from pipeline.images.idx import read_images
from tests.finetune.conftest import write_idx

PLAIN = View(28, "bicubic")


def test_idx_images_are_grey_as_stored(idx_root: Path) -> None:
    data = load_train(Data(root=idx_root))
    x = data.batch(Draw((3, 1), 0), PLAIN)
    stored = read_images(idx_root / "train-images-idx3-ubyte.gz")[[3, 1]]
    assert x.shape == (2, 3, 28, 28)
    torch.testing.assert_close(x, torch.from_numpy(stored / np.float32(255))[:, None].expand_as(x))
    assert np.array_equal(np.asarray(data.open(3)), stored[0])


def test_augmentation_is_a_flip_and_a_whole_shift(idx_root: Path) -> None:
    data = load_train(Data(root=idx_root))
    draw = Draw((0,) * 40, 7)
    shown = data.batch(draw, View(28, "bicubic", Augmentation(flip=0.5, shift=0.07)))[:, 0]
    original = data.batch(Draw((0,), 0), PLAIN)[0, 0]
    padded = torch.nn.functional.pad(original, (2, 2, 2, 2))
    shifted = [
        window.flip(1) if flip else window
        for window in (padded[t : t + 28, c : c + 28] for t in range(5) for c in range(5))
        for flip in (False, True)
    ]
    flipped = [min(range(50), key=lambda k: float((shifted[k] - x).abs().max())) for x in shown]
    assert all(
        float((shifted[k] - x).abs().max()) < 1e-6 for k, x in zip(flipped, shown, strict=True)
    )
    assert len(set(flipped)) > 10  # draws differ
    assert 5 < sum(k % 2 for k in flipped) < 35


def test_a_seed_decides_what_is_drawn(idx_root: Path, folder_root: Path) -> None:
    view = View(32, "bicubic", Augmentation())
    for root in (idx_root, folder_root):
        data = load_train(Data(root=root, workers=0))
        first, again, other = (data.batch(Draw((0, 1), seed), view) for seed in (1, 1, 2))
        assert torch.equal(first, again)
    assert not torch.equal(
        load_train(Data(root=idx_root)).batch(Draw((0, 1), 1), view),
        load_train(Data(root=idx_root)).batch(Draw((0, 1), 2), view),
    )
    assert first.shape == other.shape == (2, 3, 32, 32)


def test_class_folders_give_sorted_classes_and_their_colours(folder_root: Path) -> None:
    data = load_train(Data(root=folder_root, workers=0))
    assert data.classes == ("blue", "red")
    assert data.labels.tolist() == [0] * 6 + [1] * 6
    x = data.batch(Draw((0, 11), 0), View(16, "bicubic", Augmentation()))
    colours = torch.tensor([[20, 20, 220], [220, 20, 20]]) / 255
    torch.testing.assert_close(x.mean((2, 3)), colours, atol=1e-3, rtol=0)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_come_in_order(folder_root: Path, workers: int) -> None:
    data = load_train(Data(root=folder_root, workers=workers))
    draws = [Draw((i, 11 - i), i) for i in range(4)]
    found = list(batches(data, draws, View(16, "bicubic")))
    assert [y.tolist() for _, y in found] == [[0, 1]] * 4
    assert all(
        torch.equal(x, data.batch(d, View(16, "bicubic")))
        for (x, _), d in zip(found, draws, strict=True)
    )


def test_a_missing_data_set_says_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data\.root.*apt-get install dataset-fashion-mnist"):
        load_train(Data(root=tmp_path / "nowhere"))


def test_one_class_is_too_few(folder_root: Path) -> None:
    for file in (folder_root / "red").iterdir():
        file.unlink()
    with pytest.raises(InputError, match=r"1 folders with images.*at least 2"):
        load_train(Data(root=folder_root))


def test_a_file_that_is_no_image_is_named(folder_root: Path) -> None:
    (folder_root / "blue" / "0.png").write_text("not an image")
    data = load_train(Data(root=folder_root, workers=0))
    with pytest.raises(InputError, match=r"blue/0\.png is not an image"):
        data.batch(Draw((0,), 0), PLAIN)


def test_labels_that_do_not_match_the_images_are_refused(idx_root: Path) -> None:
    write_idx(idx_root / "train-labels-idx1-ubyte.gz", np.zeros(7, np.uint8))
    with pytest.raises(InputError, match="60 train images, 7 labels"):
        load_train(Data(root=idx_root))


def test_test_images_of_other_classes_are_refused(folder_root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    (folder_root / "red").rename(tmp_path / "kept")
    other.mkdir()
    for name in ("blue", "green"):
        (other / name).mkdir()
        (tmp_path / "kept" / f"{name == 'blue':d}.png").rename(other / name / "0.png")
    (tmp_path / "kept").rename(folder_root / "red")
    with pytest.raises(InputError, match=r"other classes .*green, red"):
        load_test(Data(root=folder_root, test=other))
