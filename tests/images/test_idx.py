import gzip
import struct

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.images.idx import read_images, read_labels


def idx(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


def test_images_and_labels_come_back_as_written(tmp_path):
    images = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
    labels = np.array([7, 0], np.uint8)
    (tmp_path / "images.gz").write_bytes(gzip.compress(idx(images)))
    (tmp_path / "labels").write_bytes(idx(labels))
    assert np.array_equal(read_images(tmp_path / "images.gz"), images)
    assert np.array_equal(read_labels(tmp_path / "labels"), labels)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.gz", gzip.compress(idx(np.zeros((2, 3, 4))), mtime=0)[:-12], "damaged"),
        ("a.gz", b"<html>not found</html>", "damaged"),
        ("a", idx(np.zeros((2, 3, 4)))[:-1], "promises 24 bytes"),
        ("a", idx(np.zeros(4)), "not an IDX file"),
        ("a", b"", "not an IDX file"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=words) as error:
        read_images(tmp_path / name)
    assert str(tmp_path / name) in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"labels\.gz is missing"):
        read_labels(tmp_path / "labels.gz")
