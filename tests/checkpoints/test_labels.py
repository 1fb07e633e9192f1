from __future__ import annotations

import codecs
from pathlib import Path

import pytest

from pipeline.checkpoints.labels import ordered, read_labels
from pipeline.errors import InputError, ParamsError

NAMES = ("Top", "Hose, lang", "Käfer")
LINES = "\r\n".join(NAMES)


def utf8(text: str) -> bytes:
    return text.encode()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("labels.txt", utf8(LINES)),
        ("labels.txt", utf8(LINES + "\n\n")),
        ("labels", utf8(LINES)),
        ("mark.txt", LINES.encode("utf-8-sig")),
        ("utf16.txt", LINES.encode("utf-16")),
        ("utf16_be.txt", codecs.BOM_UTF16_BE + LINES.encode("utf-16-be")),
        ("utf32.txt", LINES.encode("utf-32")),
        ("list.json", utf8('["Top", "Hose, lang", "K\\u00e4fer"]')),
        ("mark.json", '["Top", "Hose, lang", "Käfer"]'.encode("utf-8-sig")),
        ("numbers.json", utf8('{"0": "Top", "2": "Käfer", "1": "Hose, lang"}')),
        ("names.json", utf8('{"Käfer": 2, "Top": 0, "Hose, lang": 1}')),
        ("column.csv", utf8('Top\n"Hose, lang"\nKäfer\n')),
        ("header.csv", utf8('name\nTop\n"Hose, lang"\nKäfer\n')),
        ("table.csv", utf8('0,Top\n2,Käfer\n1,"Hose, lang"\n')),
        ("headers.csv", utf8('label,id\nTop,0\nKäfer,2\n"Hose, lang",1\n')),
        ("excel.csv", "id;name\r\n2;Käfer\r\n0;Top\r\n1;Hose, lang\r\n".encode("utf-8-sig")),
        ("others.csv", utf8('id,name,colour\n0,Top,red\n1,"Hose, lang",blue\n2,Käfer,red\n')),
        ("table.tsv", utf8("0\tTop\n1\tHose, lang\n2\tKäfer\n")),
    ],
)
def test_labels_are_read_from_what_people_keep_them_in(
    tmp_path: Path, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    assert read_labels(tmp_path / name) == NAMES


def test_classes_that_are_called_by_numbers_are_names() -> None:
    assert ordered(["7", "0", "1"], "it") == ("7", "0", "1")


def test_numbers_in_one_column_are_names(tmp_path: Path) -> None:
    (tmp_path / "digits.csv").write_text("0\n1\n2\n")
    assert read_labels(tmp_path / "digits.csv") == ("0", "1", "2")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", b"\xff\xfeT\x00o", "is not UTF-16-LE text"),
        ("a.txt", b"\xe9", "is not UTF-8 text"),
        ("a.txt", b"cat\ndog\ncat\n", "two classes are called 'cat'"),
        ("a.json", b"{", "is not JSON"),
        ("a.json", b'{"0": "cat", "2": "dog"}', "do not have the numbers 0 to 1"),
        ("a.json", b'{"cat": 0, "dog": 0}', "do not have the numbers 0 to 1"),
        ("a.json", b'{"cat": "dog"}', "its labels are not one class name a line"),
        ("a.json", b"[1, 2]", "not a list of names"),
        ("a.json", b'"cat"', "not a list of names"),
        ("a.csv", b"0,cat\n1\n", "as many cells in each row"),
        ("a.csv", b"0,cat\n0,dog\n", "the number 0 has two names"),
        ("a.csv", b"cat,red\ndog,blue\n", "which of 2 columns has the names"),
        ("a.csv", b'"cat\n', "is not a table"),
        ("a.csv", b"", "is not a table"),
    ],
)
def test_what_is_no_list_of_labels_is_refused(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=words):
        read_labels(tmp_path / name)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"gone\.csv is missing"):
        read_labels(tmp_path / "gone.csv")
