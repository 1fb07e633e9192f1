"""Classify pictures with a release: files, folders (with what is below them), or - for stdin.

With --json, prints one list of {"image": NAME, "predictions": [{"label": L, "score": S}, ...]},
best class first. A picture that cannot be used is named on stderr, the others are still
classified, and the exit status is 2.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tabulate import tabulate

from pipeline.errors import EdgeVitError, InputError, exit_on_error
from pipeline.images.sources import IMAGE_SUFFIXES
from pipeline.inference import select
from pipeline.inference.classify import TOP, Classifier, Prediction
from pipeline.progress import progress
from pipeline.untrusted.images import ImageError

STDIN = "-"
SUFFIXES = (*IMAGE_SUFFIXES, ".gif")  # looked for in folders; a file named is opened whatever its
MAX_BYTES = 200_000_000  # of one encoded picture

Answer = tuple[str, list[Prediction]]


def predict(
    names: Sequence[str], classifier: Classifier, top: int
) -> Iterator[Answer | InputError]:
    """Classify files by name, one after the other; what cannot be used comes as an error."""
    for name in names:
        try:
            yield name, classifier.classify(read_picture(name), top)
        except InputError as error:
            yield InputError(f"{name}: {error}")
        except OSError as error:
            yield InputError(f"{name}: {error.strerror or error}")


def find(arguments: Sequence[str]) -> tuple[list[str], list[InputError]]:
    """Return the names of all pictures asked for, those in folders sorted, and what is missing."""
    names: list[str] = []
    errors: list[InputError] = []
    for argument in arguments:
        path = Path(argument)
        if argument == STDIN or not path.is_dir():
            names.append(argument)
            continue
        inside = sorted(p for p in path.rglob("*") if _is_picture(p, path))
        names += map(str, inside)
        if not inside:
            errors.append(InputError(f"{path} holds no pictures ({' '.join(SUFFIXES)})"))
    return names, errors


def _is_picture(path: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return not hidden and path.suffix.lower() in SUFFIXES and path.is_file()


def read_picture(name: str) -> bytes:
    """Read a file, or stdin for ``-``, unless it is too large or no plain file.

    Raises:
        ImageError: it is.
        OSError: it cannot be read.
    """
    if name == STDIN:
        data = sys.stdin.buffer.read(MAX_BYTES + 1)
    else:
        path = Path(name)
        if path.exists() and not path.is_file():
            raise ImageError("format", "no plain file; pipe it in and give - as its name")
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ImageError("size", f"more than {MAX_BYTES / 1e6:.0f} MB, which no picture needs")
    return data


def show_all(arguments: argparse.Namespace, classifier: Classifier) -> bool:
    """Print the answers as they come; return whether every picture was answered."""
    from tqdm import tqdm

    names, errors = find(arguments.images)
    printed, whole = 0, not errors
    for error in errors:
        print(f"edge-vit: {error}", file=sys.stderr)
    bar = progress(names, desc="predict", unit="image", disable=len(names) < 2)
    if arguments.json:
        print("[", end="")
    with bar:
        for found in predict(names, classifier, arguments.top):
            if isinstance(found, InputError):
                whole = False
                tqdm.write(f"edge-vit: {found}", file=sys.stderr)
            else:
                tqdm.write(_text(found, printed, as_json=arguments.json), end="")
                sys.stdout.flush()
                printed += 1
            bar.update()
    if arguments.json:
        print("\n]" if printed else "]")
    return whole


def _text(answer: Answer, number: int, *, as_json: bool) -> str:
    name, predictions = answer
    if as_json:
        entry: dict[str, Any] = {"image": name, "predictions": [asdict(p) for p in predictions]}
        return (",\n" if number else "\n") + json.dumps(entry, ensure_ascii=False)
    rows = [[prediction.label, f"{prediction.score:.4f}"] for prediction in predictions]
    table = tabulate(rows, [name, "score"], colalign=("left", "right"), disable_numparse=True)
    return ("\n" if number else "") + table + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="edge-vit predict",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="file, folder, or - for stdin")
    select.add_options(parser)
    parser.add_argument(
        "--top", type=select.count, default=TOP, help="classes to show (%(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args(arguments)
    with exit_on_error():
        if list(given.images).count(STDIN) > 1:
            raise EdgeVitError("- stands for stdin and can be given once only")
        chosen = select.select_artifact(given.release, given.runtime)
        whole = show_all(given, Classifier(chosen.path))
    sys.exit(0 if whole else 2)


if __name__ == "__main__":
    main()
