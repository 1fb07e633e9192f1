"""Classify images with a release: files, folders (with what is below them), or - for stdin.

An image that cannot be used is named on stderr, the others are still classified, and the exit
status is 2.

With --all, every file that a run made answers for one image, beside the float model, those between
quantization and delivery too. The files take turns in one process; the ratio of times has a 95%
interval. One image shows how a file answers, not how good it is: `edge-vit gate` has the numbers
for that.

    \b
    edge-vit predict cat.jpg photos/ --json
    edge-vit predict cat.jpg --all
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from pipeline import paths
from pipeline.commands.common import COUNT, command, json_option, release_options
from pipeline.errors import InputError
from pipeline.images.decode import SUFFIXES, ImageError, bounded, read_file
from pipeline.images.folders import listing
from pipeline.inference import compare, select
from pipeline.inference.classify import TOP, Classifier, Prediction
from pipeline.metrics import timing
from pipeline.progress import progress
from pipeline.report.table import columns

STDIN = "-"
Answer = tuple[str, list[Prediction]]


def predict(
    names: Sequence[str], classifier: Classifier, top: int
) -> Iterator[Answer | InputError]:
    """Classify files by name, one after the other; what cannot be used comes as an error."""
    for name in names:
        try:
            yield name, classifier.classify(read_image(name), top)
        except InputError as error:
            yield InputError(f"{name}: {error}")
        except OSError as error:
            yield InputError(f"{name}: {error.strerror or error}")


def find(arguments: Sequence[str]) -> tuple[list[str], list[InputError]]:
    """Return the names of all images asked for, those in folders sorted, and what is missing."""
    names: list[str] = []
    errors: list[InputError] = []
    for argument in arguments:
        path = Path(argument)
        if argument == STDIN or not path.is_dir():
            names.append(argument)
            continue
        inside = [path / p for p in listing(path).files if p.suffix.lower() in SUFFIXES]
        names += map(str, inside)
        if not inside:
            errors.append(InputError(f"{path} holds no images ({' '.join(SUFFIXES)})"))
    return names, errors


def read_image(name: str) -> bytes:
    """Read a file, or stdin for ``-``; errors as :func:`read_file`."""
    return bounded(sys.stdin.buffer) if name == STDIN else read_file(Path(name))


def show(images: Sequence[str], classifier: Classifier, top: int, *, as_json: bool) -> bool:
    """Print the answers as they come; return whether every image was answered."""
    from tqdm import tqdm

    names, errors = find(images)
    printed, whole = 0, not errors
    for error in errors:
        print(f"edge-vit: {error}", file=sys.stderr)
    bar = progress(names, desc="predict", unit="image", disable=len(names) < 2)
    if as_json:
        print("[", end="")
    with bar:
        for answer in predict(names, classifier, top):
            if isinstance(answer, InputError):
                whole = False
                tqdm.write(f"edge-vit: {answer}", file=sys.stderr)
            else:
                tqdm.write(_text(answer, printed, as_json=as_json), end="")
                sys.stdout.flush()
                printed += 1
            bar.update()
    if as_json:
        print("\n]" if printed else "]")
    return whole


def _text(answer: Answer, number: int, *, as_json: bool) -> str:
    name, predictions = answer
    if as_json:
        entry: dict[str, Any] = {"image": name, "predictions": [asdict(p) for p in predictions]}
        return (",\n" if number else "\n") + json.dumps(entry, ensure_ascii=False)
    rows = [(f"{prediction.score:.4f}", prediction.label) for prediction in predictions]
    return ("\n" if number else "") + columns(rows, ("score", name)) + "\n"


def show_every_file(image: str, runs: int, *, as_json: bool) -> None:
    """Print what each file of the run answers for one image.

    Raises:
        InputError: the float model is missing, or the image or a file cannot be used.
    """
    files, missing = compare.find_files(paths.ARTIFACTS)
    try:
        rows = compare.compare(files, read_image(image), runs)
    except ImageError as error:
        raise InputError(f"{image}: {error}") from None
    for words in missing:
        print(f"edge-vit: left out: {words}", file=sys.stderr)
    if as_json:
        print(json.dumps({name: asdict(row) for name, row in rows.items()}, indent=2))
    else:
        print(columns(compare.cells(rows), compare.HEADER))


@command("predict", __doc__)
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@release_options
@click.option("--top", type=COUNT, default=TOP, help="Classes to show.")
@click.option("--all", "every", is_flag=True, help="Compare every file of the run on one image.")
@click.option(
    "--runs",
    type=click.IntRange(min=timing.ROUNDS_MIN),
    default=compare.RUNS,
    help="With --all: timed inferences.",
)
@json_option
@click.pass_context
def main(
    ctx: click.Context,
    images: tuple[str, ...],
    release: Path | None,
    runtime: str,
    top: int,
    every: bool,
    runs: int,
    as_json: bool,
) -> None:
    """Print what a file answers to images."""
    chosen = {name for name in ctx.params if not _is_default(ctx, name)}
    if every:
        if len(images) != 1 or chosen & {"release", "runtime", "top"}:
            raise click.UsageError("--all takes one image, and no --release, --runtime or --top")
        show_every_file(images[0], runs, as_json=as_json)
        return
    if "runs" in chosen:
        raise click.UsageError("--runs goes with --all only")
    if images.count(STDIN) > 1:
        raise click.UsageError("- stands for stdin and can be given once only")
    file = select.select_artifact(release, runtime)
    sys.exit(0 if show(images, Classifier(file.path), top, as_json=as_json) else 2)


def _is_default(ctx: click.Context, name: str) -> bool:
    return ctx.get_parameter_source(name) is ParameterSource.DEFAULT


if __name__ == "__main__":
    main()
