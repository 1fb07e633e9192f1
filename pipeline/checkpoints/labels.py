"""Names of classes in the order of the outputs, from whatever people keep them in."""

from __future__ import annotations

import codecs
import csv
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unicodedata import category

from pipeline.checkpoints.zoo import IMAGENET
from pipeline.errors import InputError, ParamsError, shown
from pipeline.files import parse_json, read_bytes
from pipeline.images.imagenet import imagenet_labels

MAX_BYTES = 16 << 20
MAX_LABEL = 500  # characters
MAX_COLUMNS = 50
INVISIBLE = ("Cc", "Cs", "Zl", "Zp")  # Unicode's: control, half of a pair, line, paragraph
# What editors write before the text, and the encoding that it says. UTF-32's begins as UTF-16's.
MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
SEPARATORS = {".csv": ",;", ".tsv": "\t"}
NAME_COLUMNS = ("name", "names", "label", "labels", "class", "classes", "class_name", "label_name")
FORMS = (
    "one class name a line; a table (.csv, .tsv) of numbers and names; or JSON: a list of names, "
    '{"0": "cat"} or {"cat": 0}'
)


def read_labels(path: Path) -> tuple[str, ...]:
    """Read class names, in one of ``FORMS``; ``imagenet`` means ImageNet-1k's.

    Raises:
        ParamsError: the file is missing.
        InputError: it is none of these, or two classes have one name.
    """
    if str(path) == IMAGENET:
        return imagenet_labels()
    if not path.exists():
        raise ParamsError(f"params.yaml: model.labels: {path} is missing")
    text = _text(read_bytes(path, MAX_BYTES), str(path))
    suffix = path.suffix.lower()
    if suffix == ".json":
        try:
            return ordered(parse_json(text), str(path))
        except ValueError as error:
            raise InputError(f"{path} is not JSON ({error}); it may have {FORMS}") from None
    if suffix in SEPARATORS:
        return ordered(_column(text, SEPARATORS[suffix], str(path)), str(path))
    lines = text.splitlines()
    while lines and not lines[-1].strip():
        lines.pop()
    return ordered([line.strip() for line in lines], str(path))


def _text(content: bytes, source: str) -> str:
    mark, encoding = next(
        ((m, encoding) for m, encoding in MARKS if content.startswith(m)), (b"", "utf-8")
    )
    try:
        return content.removeprefix(mark).decode(encoding)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{source} is not {encoding.upper()} text ({error}); save it as UTF-8: {FORMS}"
        ) from None


def _column(text: str, separators: str, source: str) -> list[str] | dict[str, str]:
    """Return the names in a table, by their numbers where it has a column of these."""
    first = text.partition("\n")[0]
    separator = max(separators, key=first.count)
    try:
        table = csv.reader(text.splitlines(), delimiter=separator, strict=True)
        rows = [[cell.strip() for cell in row] for row in table if any(map(str.strip, row))]
    except csv.Error as error:
        raise InputError(f"{source} is not a table ({error}); it may have {FORMS}") from None
    if not rows or any(len(row) != len(rows[0]) for row in rows):
        raise InputError(f"{source} is not a table with as many cells in each row; {FORMS}")
    width = len(rows[0])
    if width > MAX_COLUMNS:
        raise _unclear(width, source)
    header = [cell.lower() for cell in rows[0]]
    named = [i for i in range(width) if header[i] in NAME_COLUMNS]
    numbers = [i for i in range(width) if all(_is_number(row[i]) for row in rows[1:])]
    has_header = bool(named) or any(not _is_number(rows[0][i]) for i in numbers)
    body = rows[1:] if has_header else rows
    names = [i for i in (named or range(width)) if i not in numbers or width == 1]
    if len(names) != 1 or len(numbers) > 1:
        raise _unclear(width, source)
    if not numbers or width == 1:
        return [row[names[0]] for row in body]
    return _by_key([(row[numbers[0]], row[names[0]]) for row in body], source)


def _unclear(width: int, source: str) -> InputError:
    return InputError(
        f"{source}: it is not clear which of {width} columns has the names; leave one column of "
        "names, and one of numbers if they are not in order"
    )


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 10


def _by_key(pairs: list[tuple[str, str]], source: str) -> dict[str, str]:
    twice = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
    if twice:
        raise InputError(f"{source}: the number {twice[0]} has two names")
    return dict(pairs)


def ordered(labels: Any, source: str) -> tuple[str, ...]:
    """Return labels in the order of the outputs, of a list, {number: name} or {name: number}.

    Raises:
        InputError: they are none of these, a number from 0 on has no name, or two are equal.
    """
    if isinstance(labels, Mapping):
        pairs = list(labels.items())
        if all(isinstance(value, int) for _, value in pairs):
            pairs = [(value, name) for name, value in pairs]
        try:
            by_number = {int(number): name for number, name in pairs}
        except (ValueError, TypeError):
            raise InputError(f"{source}: its labels are not {FORMS}") from None
        if len(by_number) != len(pairs) or by_number.keys() != set(range(len(pairs))):
            raise InputError(f"{source}: its labels do not have the numbers 0 to {len(pairs) - 1}")
        labels = [by_number[number] for number in range(len(pairs))]
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise InputError(f"{source}: its labels are not a list of names, nor numbers with names")
    check_names(tuple(labels) or ("",), source)
    twice = [label for label, count in Counter(labels).items() if count > 1]
    if twice:
        raise InputError(
            f"{source}: two classes are called {twice[0]!r}; each class needs a name of its own"
        )
    return tuple(labels)


def check_names(labels: tuple[str, ...], source: str) -> None:
    """Check that each class name is one line of text, which apps can show.

    Raises:
        InputError: one holds a control character or half a character, or is a whole text.
    """
    for label in labels:
        if not label.strip():
            raise InputError(f"{source}: a class name is empty; each class needs a name")
        if len(label) > MAX_LABEL or any(category(c) in INVISIBLE for c in label):
            raise InputError(
                f"{source}: the class name {shown(label)} is not one line of at most "
                f"{MAX_LABEL} characters"
            )
