"""The zoo: checkpoints that are known by name, in ``pipeline/checkpoints/zoo.yaml``."""

from __future__ import annotations

import difflib
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import Field

from pipeline.images.imagenet import imagenet_labels
from pipeline.schema import Fraction, Positive, Section, load

ZOO_FILE = Path(__file__).with_name("zoo.yaml")
IMAGENET = "imagenet"

Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$")]
Percent = Annotated[float, Field(ge=0, le=100)]
Pixels = Annotated[int, Field(ge=1, le=4096)]
Interpolation = Literal["nearest", "bilinear", "bicubic", "box", "hamming", "lanczos"]


class DataConfig(Section):
    """How images are prepared, in timm's terms; None leaves it to timm's own configuration."""

    input_size: tuple[Literal[1, 3], Pixels, Pixels] | None = None  # channels, height, width
    crop_pct: Annotated[float, Field(gt=0, le=1)] | None = None  # input size / resized size
    crop_mode: Literal["center", "squash", "border"] | None = None
    interpolation: Interpolation | None = None
    # Of RGB, or one for all channels; of values in 0..1.
    mean: tuple[Fraction, Fraction, Fraction] | tuple[Fraction] | None = None
    std: tuple[Positive, Positive, Positive] | tuple[Positive] | None = None

    def to_timm(self) -> dict[str, Any]:
        """Return what is not None, as `timm.data.resolve_data_config` takes it."""
        return self.model_dump(include=set(DataConfig.model_fields), exclude_none=True)


class Published(Section):
    """Accuracy that somebody published, in percent, and how the images were prepared for it."""

    dataset: str
    top1: Percent
    top5: Percent | None = None
    crop_pct: Fraction
    interpolation: Interpolation


class Entry(DataConfig):
    """One checkpoint of the zoo."""

    architecture: str
    source: str  # a path from the repository's root, or an https address
    sha256: Hash
    license: str
    labels: Literal["imagenet"] | tuple[str, ...]
    published: Published | None = None

    def label_names(self) -> tuple[str, ...]:
        """Return the class names in the order of the outputs."""
        return self.labels if isinstance(self.labels, tuple) else imagenet_labels()


class Zoo(Section):
    """All checkpoints by name."""

    checkpoints: dict[str, Entry]

    def similar(self, name: str) -> list[str]:
        """Return up to three names that look like ``name``."""
        return difflib.get_close_matches(name, self.checkpoints, n=3, cutoff=0.5)

    def by_file_name(self, file_name: str) -> str | None:
        """Return the entry whose original file is called so: a copy downloaded by hand."""
        for name, entry in self.checkpoints.items():
            if PurePosixPath(entry.source).name == file_name:
                return name
        return None

    def entry_of(self, sha256: str) -> Entry | None:
        """Return the entry of the checkpoint with this SHA-256, whatever its name."""
        return next((e for e in self.checkpoints.values() if sha256.startswith(e.sha256)), None)


def load_zoo(path: Path = ZOO_FILE) -> Zoo:
    """Read the zoo.

    Raises:
        ParamsError: a key is missing, misspelt or out of range; the message names it.
    """
    return load(path, Zoo)
