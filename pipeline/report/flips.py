"""The answers that changed: by class, and image by image."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.formats import FORMATS
from pipeline.images.preprocessing import Pixels
from pipeline.images.samples import SampleSet
from pipeline.metrics import distances
from pipeline.metrics.logits import Logits

CLASSES_MAX = 20
IMAGES_MAX = 24  # of each file
THUMBNAIL_PIXELS = 72  # so that 4 times 24 images stay below 2 MB, whatever they show

LOST, WON, NEITHER, UNLABELLED = "lost", "won", "wrong either way", "changed"

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Change:
    """One class in one file, in counts of samples."""

    right: int
    lost: int  # right in float, wrong here
    won: int

    @property
    def net(self) -> int:
        """Samples won less those lost."""
        return self.won - self.lost


@dataclass(frozen=True)
class ClassRow:
    """One class: its samples, how many float gets right, and what each file makes of them."""

    name: str
    count: int
    float_right: int
    changes: Mapping[str, Change]  # by the file's key


@dataclass(frozen=True)
class Flip:
    """A sample whose top-1 answer a file changed."""

    sample: str  # its id
    thumbnail: str  # data URI, PNG
    before: str
    after: str
    truth: str | None
    kind: str
    margin: float  # float's own lead, in logits
    within_noise: bool


@dataclass(frozen=True)
class Gallery:
    """The flips of one file: how many there are, and those that are shown."""

    key: str
    name: str
    total: int
    within_noise: int
    shown: tuple[Flip, ...]


def by_class(
    reference: Logits, candidates: Mapping[str, Logits], labels: Labels, classes: Sequence[str]
) -> list[ClassRow]:
    """Every class that has samples, those with the largest change in any file first."""
    right = reference.argmax(1) == labels
    rights = {key: logits.argmax(1) == labels for key, logits in candidates.items()}
    rows = []
    for number in np.unique(labels):
        mine = labels == number
        changes = {
            key: Change(
                right=int((mine & now).sum()),
                lost=int((mine & right & ~now).sum()),
                won=int((mine & ~right & now).sum()),
            )
            for key, now in rights.items()
        }
        rows.append(ClassRow(classes[number], int(mine.sum()), int((mine & right).sum()), changes))
    return sorted(rows, key=_least_change)


def gallery(
    key: str, reference: Logits, candidate: Logits, samples: SampleSet, noise_floor: float
) -> Gallery:
    """The samples whose answer changed, those where float was surest first."""
    before, after = reference.argmax(1), candidate.argmax(1)
    margins = distances.top1_margin(reference)
    changed = np.flatnonzero(before != after)
    within = margins <= 2 * noise_floor  # as distances.flips counts them
    order = changed[np.argsort(-margins[changed], kind="stable")]
    return Gallery(
        key=key,
        name=FORMATS[key].suffix,
        total=len(changed),
        within_noise=int(within[changed].sum()),
        shown=tuple(
            Flip(
                sample=samples.ids[i],
                thumbnail=_thumbnail(samples.images[i]),
                before=samples.classes[before[i]],
                after=samples.classes[after[i]],
                truth=None if samples.labels is None else samples.classes[samples.labels[i]],
                kind=_kind(samples.labels, i, before[i], after[i]),
                margin=float(margins[i]),
                within_noise=bool(within[i]),
            )
            for i in order[:IMAGES_MAX].tolist()
        ),
    )


def _least_change(row: ClassRow) -> tuple[int, int]:
    """Sort key: the largest net change first, and of equal ones the most answers that moved."""
    net = max((abs(c.net) for c in row.changes.values()), default=0)
    return -net, -sum(c.lost + c.won for c in row.changes.values())


def _kind(labels: Labels | None, sample: int, before: int, after: int) -> str:
    if labels is None:
        return UNLABELLED
    return {before: LOST, after: WON}.get(int(labels[sample]), NEITHER)


def _thumbnail(image: Pixels) -> str:
    from PIL import Image

    pixels = image[..., 0] if image.shape[-1] == 1 else image
    small = Image.fromarray(np.ascontiguousarray(pixels))
    small.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
