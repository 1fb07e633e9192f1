"""Stage ``samples``: the images that everything is measured on, and others to calibrate with.

They come from the embedded set or from a folder: one folder a class (named as the model's label or
its WordNet id), or flat and unlabelled. All candidates are put into one seeded order that takes
the classes in turn; the first ``limit`` readable ones are evaluated, the next ``calibration`` ones
with other pixels are for calibration. A source of fewer images is divided in that proportion.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from pipeline import paths
from pipeline.contract.contract import Contract
from pipeline.contract.files import load_contract
from pipeline.errors import InputError, ParamsError, exit_on_error
from pipeline.files import atomic, read_json, write_json
from pipeline.formats import FORMATS
from pipeline.images.preprocessing import Pixels, geometry
from pipeline.images.samples import (
    CALIBRATION_FILE,
    IMAGES_FILE,
    SAMPLES_FILE,
    SCHEMA,
    SampleSet,
    content_hash,
    load_pixels,
    samples_sha256,
)
from pipeline.images.sources import ImageSource, find_images
from pipeline.metrics import intervals
from pipeline.params import Gate, Samples, load_params
from pipeline.process import quiet
from pipeline.progress import progress

if TYPE_CHECKING:
    from PIL import Image

BESIDE = {
    "skipped": "{} file(s) are not images",
    "left_out": "{} hidden or unrelated file(s) and folder(s) were left out",
    "evaluation_duplicates": "{} image(s) have the pixels of an earlier one and were left out",
    "classes_without_images": "{} class(es) have no image",
}
READ_AHEAD = 64  # images decoded at a time, to bound memory


@dataclass
class _Taken:
    """What was taken from the stream of candidates so far, and what was not."""

    chosen: list[ImageSource] = field(default_factory=list)
    hashes: list[bytes] = field(default_factory=list)
    duplicates: list[str] = field(default_factory=list)  # not taken: pixels of an earlier one


def samples(params: Samples, contract: Contract, out: Path, apart_from: Path | None = None) -> None:
    """Write folder ``out``: ``images.npy``, ``calibration.npy`` and ``samples.json``.

    No image of folder ``apart_from``, of evaluation or calibration, is taken again: neither its
    id nor its pixels. Where fewer others than asked for are left, those of its calibration are
    taken after them.

    The arrays are uint8 [n, H, W, C], as :func:`pipeline.images.preprocessing.geometry` makes them.

    Raises:
        InputError: no usable image, too few to divide, a file that is not one (unless
            ``bad_images`` is skip), or classes that are not the model's.
    """
    found = find_images(params.source, contract)
    candidates = in_turn(found.images, params.seed)
    hashes: frozenset[bytes] = frozenset()
    if apart_from:
        candidates, hashes = _others(candidates, apart_from, params)
    if not candidates:
        raise InputError(f"params.yaml: samples.source: {params.source} holds no images")
    skipped: list[dict[str, str]] = []
    repeated: list[str] = []
    apply = geometry(contract.preprocessing)
    with atomic(out) as new, quiet():  # decoding is quiet, but not where threads share a process
        new.mkdir()
        if _is_short(candidates, params):
            # They are divided by what can be read and differs, so all are read once before.
            readable = _usable(_read_all(candidates, apply), params, skipped)
            candidates, repeated = _differing(readable)
            _refuse_none(candidates, skipped, params)
        limit, apart = divided(candidates, params)
        total = min(len(candidates), limit + apart)
        read = _read_all(candidates, apply)
        usable = _usable(read, params, skipped)
        with closing(read), progress(total=total, desc="samples", unit="image") as bar:
            evaluation = _take(
                usable,
                limit,
                new / IMAGES_FILE,
                contract,
                bar.update,
                apart_from=hashes,
            )
            calibration = _take(
                usable,
                apart,
                new / CALIBRATION_FILE,
                contract,
                bar.update,
                apart_from=hashes | frozenset(evaluation.hashes),
            )
        _refuse_none(evaluation.chosen, skipped, params)
        beside: dict[str, Sequence[object]] = {
            "skipped": skipped,
            "left_out": [
                {"file": left.path.as_posix(), "reason": left.reason} for left in found.left_out
            ],
            "evaluation_duplicates": repeated + evaluation.duplicates,
            "classes_without_images": _without_images(evaluation.chosen, contract),
        }
        write_json(new / SAMPLES_FILE, _about(params, contract, evaluation, calibration) | beside)
    _report(params, evaluation, calibration, beside)


def _is_short(candidates: Sequence[ImageSource], params: Samples) -> bool:
    return bool(params.calibration) and len(candidates) < params.limit + params.calibration


def _differing(
    usable: Iterable[tuple[ImageSource, Pixels]],
) -> tuple[list[ImageSource], list[str]]:
    """The candidates without those that have the pixels of an earlier one, and the ids of these."""
    first: dict[bytes, ImageSource] = {}
    repeated = []
    for candidate, pixels in usable:
        if first.setdefault(content_hash(pixels), candidate) is not candidate:
            repeated.append(candidate.id)
    return list(first.values()), repeated


def divided(candidates: Sequence[ImageSource], params: Samples) -> tuple[int, int]:
    """How many images to evaluate and to calibrate with: as asked for, or in that proportion.

    Raises:
        InputError: there is one image only.
    """
    if not _is_short(candidates, params):
        return params.limit, params.calibration
    count = len(candidates)
    if count < 2:
        raise InputError(
            f"params.yaml: samples.source: {params.source} has one image; at least two are needed, "
            "one to evaluate and one to calibrate with"
        )
    share = params.calibration / (params.limit + params.calibration)
    calibration = min(max(1, round(count * share)), count - 1)
    return count - calibration, calibration


def _refuse_none(
    read: Sequence[ImageSource], skipped: Sequence[Mapping[str, str]], params: Samples
) -> None:
    if not read:
        raise InputError(
            f"params.yaml: samples.source: none of the {len(skipped)} files in {params.source} "
            f"is an image; the first, {skipped[0]['file']}: {skipped[0]['reason']}"
        )


def _without_images(images: Sequence[ImageSource], contract: Contract) -> list[str]:
    """The model's classes of which labelled images have none."""
    there = {image.label for image in images}
    if None in there:
        return []
    return [label for index, label in enumerate(contract.labels) if index not in there]


def _others(
    candidates: Sequence[ImageSource], folder: Path, params: Samples
) -> tuple[list[ImageSource], frozenset[bytes]]:
    """The candidates that a folder of samples was not made of, and the hashes of pixels to avoid.

    Where they are fewer than asked for, the folder's calibration images follow them.
    """
    about = read_json(folder / SAMPLES_FILE)
    evaluated, calibrating = frozenset(about["ids"]), frozenset(about["calibration_ids"])
    duplicates = frozenset(about["calibration_duplicates"])
    others = [c for c in candidates if c.id not in evaluated | calibrating | duplicates]
    if len(others) >= params.limit:
        return others, _hashes(folder, IMAGES_FILE) | _hashes(folder, CALIBRATION_FILE)
    borrowed = [c for c in candidates if c.id in calibrating]
    if not others and not borrowed:
        raise InputError(
            f"params.yaml: samples.source: {params.source} has no images beside the "
            f"{len(evaluated)} that the gate decides on; give {params.limit} more, or lower "
            "samples.limit"
        )
    print(
        f"samples: {params.source} has {len(others)} images beside those of {folder}, "
        f"{params.limit} are asked for: {len(borrowed)} of calibration are taken, too, on which "
        "int8 does a little better than on new ones",
        file=sys.stderr,
    )
    return others + borrowed, _hashes(folder, IMAGES_FILE)


def _hashes(folder: Path, name: str) -> frozenset[bytes]:
    return frozenset(map(content_hash, load_pixels(folder / name)))


def _about(
    params: Samples,
    contract: Contract,
    evaluation: _Taken,
    calibration: _Taken,
) -> dict[str, object]:
    ids = [candidate.id for candidate in evaluation.chosen]
    labels = [candidate.label for candidate in evaluation.chosen]
    return {
        "schema": SCHEMA,
        "source": str(params.source),
        "seed": params.seed,
        "asked": {"limit": params.limit, "calibration": params.calibration},
        "ids": ids,
        "labels": labels,
        "classes": list(contract.labels),
        "calibration_ids": [candidate.id for candidate in calibration.chosen],
        "calibration_duplicates": calibration.duplicates,
        "preprocessing": dataclasses.asdict(contract.preprocessing),
        "sha256": samples_sha256(evaluation.hashes, labels, ids),
    }


def _report(
    params: Samples,
    evaluation: _Taken,
    calibration: _Taken,
    beside: Mapping[str, Sequence[object]],
) -> None:
    found, apart = len(evaluation.chosen), len(calibration.chosen)
    for key, words in BESIDE.items():
        if count := len(beside[key]):
            print(f"samples: {words.format(count)}, see samples.json", file=sys.stderr)
    if found < params.limit or apart < params.calibration:
        print(
            f"samples: {params.source} has fewer images than asked for: {found} of {params.limit} "
            f"to evaluate, {apart} of {params.calibration} to calibrate with",
            file=sys.stderr,
        )


def shown_at_most(gate: Gate, count: int) -> list[str]:
    """What ``count`` images can show of agreement at most, if fewer than a budget asks for."""
    least = intervals.wilson(count, count, gate.confidence).low
    asked = {FORMATS[key].suffix: gate.budgets[key].top1_agreement_min for key in gate.budgets}
    beyond = {suffix: limit for suffix, limit in asked.items() if limit and limit > least}
    if not beyond:
        return []
    needed = intervals.samples_to_decide_proportion(1, 1, max(beyond.values()), gate.confidence)
    limits = ", ".join(f"{suffix} {100 * limit:g}%" for suffix, limit in beyond.items())
    return [
        f"if all {count} answers were float's, that would show that at least {100 * least:.1f}% "
        f"of all answers are, and the gate asks for more ({limits}): it can only end undecided. "
        f"Give about {needed} images to evaluate, or lower gate.budgets.*.top1_agreement_min"
    ]


def in_turn(candidates: Iterable[ImageSource], seed: int) -> list[ImageSource]:
    """Order candidates so that every beginning of the list is as balanced as can be.

    Within a class the order is random, the classes take turns, and each turn is shuffled; all of
    it follows from the ids and ``seed`` alone.
    """
    rng = np.random.default_rng(seed)
    classes: dict[int, list[ImageSource]] = defaultdict(list)
    for candidate in sorted(candidates, key=lambda c: c.id):
        classes[-1 if candidate.label is None else candidate.label].append(candidate)
    queues = [_shuffled(members, rng) for _, members in sorted(classes.items())]
    ordered: list[ImageSource] = []
    for turn in zip_longest(*queues):
        ordered += _shuffled([c for c in turn if c is not None], rng)
    return ordered


def _shuffled(members: Sequence[ImageSource], rng: np.random.Generator) -> list[ImageSource]:
    return [members[index] for index in rng.permutation(len(members))]


def _read_all(
    candidates: Sequence[ImageSource], apply: Callable[[Image.Image], Pixels]
) -> Generator[tuple[ImageSource, Pixels | Exception], None, None]:
    """Yield every candidate in order with its pixels or with what went wrong."""

    def read(candidate: ImageSource) -> Pixels | Exception:
        try:
            return apply(candidate.open())
        except Exception as error:  # Pillow's decoders raise anything on broken files
            return error

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(candidates), READ_AHEAD):
            batch = candidates[start : start + READ_AHEAD]
            yield from zip(batch, pool.map(read, batch), strict=True)


def _usable(
    read: Iterable[tuple[ImageSource, Pixels | Exception]],
    params: Samples,
    skipped: list[dict[str, str]],
) -> Iterator[tuple[ImageSource, Pixels]]:
    """Yield what could be read; stop at the rest, or note it in ``skipped``."""
    for candidate, pixels in read:
        if not isinstance(pixels, Exception):
            yield candidate, pixels
        elif params.bad_images == "stop":
            raise InputError(
                f"{params.source / candidate.id} cannot be read as an image ({pixels}); remove it, "
                "or set samples.bad_images: skip in params.yaml"
            )
        else:
            skipped.append({"file": candidate.id, "reason": str(pixels)})


def _take(
    usable: Iterator[tuple[ImageSource, Pixels]],
    count: int,
    path: Path,
    contract: Contract,
    progress: Callable[[int], object],
    apart_from: frozenset[bytes] = frozenset(),
) -> _Taken:
    """Write the next ``count`` images, but none with pixels of another or in ``apart_from``."""
    taken = _Taken()
    seen = set(apart_from)
    with path.open("wb") as file:
        _write_header(file, 0, contract)
        while len(taken.chosen) < count and (following := next(usable, None)):
            candidate, pixels = following
            digest = content_hash(pixels)
            if digest in seen:
                taken.duplicates.append(candidate.id)
                continue
            file.write(np.ascontiguousarray(pixels).data)
            seen.add(digest)
            taken.chosen.append(candidate)
            taken.hashes.append(digest)
            progress(1)
        file.seek(0)
        _write_header(file, len(taken.chosen), contract)
    return taken


def _write_header(file: BinaryIO, count: int, contract: Contract) -> None:
    """Write `.npy`'s header: numpy pads it so that a first axis may grow without moving data."""
    shape = (count, *contract.preprocessing.size, contract.preprocessing.channels)
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def main() -> None:
    with exit_on_error():
        params = load_params()
        if params.calibrated and not params.samples.calibration:
            raise ParamsError(
                "params.yaml: samples.calibration is 0, but rewrite, quantize or export_onnx need "
                "calibration images; raise it"
            )
        samples(params.samples, load_contract(paths.CHECKPOINT), paths.SAMPLES)
        for line in shown_at_most(params.gate, len(SampleSet.load(paths.SAMPLES))):
            print(f"samples: {line}", file=sys.stderr)
        print(f"samples: images to evaluate and to calibrate with in {paths.SAMPLES}")


if __name__ == "__main__":
    main()
