"""What `tune` and `diagnose --fix` share: images of their own, and files made and measured on them.

The tuning split is taken as stage ``samples`` takes its images, from the same source and in the
same seeded order, after what the gate and calibration have: none of their ids, none of their
pixels. So a search may look at it as often as it likes and the gate's samples stay unseen. Of a
source that is too small for that, calibration's images are taken, too.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import paths
from pipeline.contract.files import MODEL_FILE, load_contract
from pipeline.errors import InputError
from pipeline.evidence.reference import load_reference
from pipeline.evidence.samples import read_samples
from pipeline.files import atomic, read_json, sha256_file, write_json
from pipeline.images.samples import CALIBRATION_FILE, SAMPLES_FILE, SampleSet, load_pixels
from pipeline.metrics.measures import FloatComparison, NonFinite, against_float
from pipeline.params import Params, Recipe
from pipeline.runtimes import FloatArray
from pipeline.runtimes.parallel import Run, run_all
from pipeline.tuning.criteria import judged
from pipeline.verdict.criterion import Criterion

FOLDER = "tuning"  # below artifacts
DESCRIPTION_FILE = "tuning.json"
CALIBRATION_IMAGES = 128  # images of calibration that a search makes its files with (docs/adr/0032)
REWRITTEN, QUANTIZED = paths.REWRITTEN.name, paths.QUANTIZED.name
SHARED = {"rewrite": REWRITTEN, "quantize": QUANTIZED}  # stages that formats share


@dataclass(frozen=True)
class MeasuredFile:
    """What `parity` measures of one file, on images of the split."""

    size_bytes: int
    answers: FloatComparison | NonFinite


@dataclass(frozen=True)
class Split:
    """Images of the tuning split, and float's answers to them, for the run below ``artifacts``."""

    artifacts: Path
    folder: Path
    samples: SampleSet
    reference: FloatArray  # [n, outputs]
    threshold: float | None  # of the contract
    noise_floor: float
    float_bytes: int

    def judged(
        self, params: Params, key: str, path: Path, label: str, count: int | None = None
    ) -> tuple[MeasuredFile, list[Criterion]]:
        """Measure a file of format ``key`` on the first ``count`` images (None: on all).

        Returns:
            What `parity` measures of it, and the gate's criteria; ``label`` names the progress bar.
        """
        run = Run("file", path, count or len(self.samples))
        return self.judged_run(params, key, run, paths.size_bytes(path), label)

    def judged_run(
        self, params: Params, key: str, run: Run, size_bytes: int, label: str
    ) -> tuple[MeasuredFile, list[Criterion]]:
        """Return the same for a run of a file that was not made, with its expected size."""
        logits = run_all([run], self.folder / "samples", label)[run.key]
        count = len(logits)
        labels = None if self.samples.labels is None else self.samples.labels[:count]
        answers = against_float(
            self.reference[:count], logits, labels, self.noise_floor, self.threshold
        )
        criteria = judged(params.gate, key, answers, size_bytes, self.float_bytes)
        return MeasuredFile(size_bytes, answers), criteria

    @property
    def checkpoint(self) -> Path:
        """The folder of the float checkpoint."""
        return self.artifacts / "checkpoint"

    @property
    def calibration(self) -> Path:
        """A folder as `samples` writes it, with the first ``CALIBRATION_IMAGES`` of calibration."""
        return self.folder / "calibration"

    def ranking(self, run: Path, count: int, pattern: str = "*") -> list[dict[str, Any]]:
        """Return the layers as `diagnose` ranks them on ``count`` images.

        The rewritten and the quantized model are those below folder ``run``.
        """
        from pipeline.tuning.diagnose import JSON_FILE, diagnose

        with tempfile.TemporaryDirectory(dir=self.folder) as name:
            combined = Path(name)
            for source in (
                *(self.checkpoint, run / REWRITTEN, run / QUANTIZED),
                *(self.folder / "samples", self.folder / "reference"),
            ):
                (combined / source.name).symlink_to(source.absolute())
            diagnose(combined, combined / "diagnosis", min(count, len(self.samples)), pattern)
            layers: list[dict[str, Any]] = read_json(combined / "diagnosis" / JSON_FILE)["layers"]
            return layers


@contextmanager
def tuning_split(params: Params, artifacts: Path, count: int) -> Iterator[Split]:
    """Take ``count`` images below artifacts/tuning, or find them there; lock them meanwhile.

    Raises:
        InputError: the source has no other images, another search is running, or artifacts are
            missing.
    """
    from filelock import FileLock, Timeout

    folder = artifacts / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / "lock", timeout=0):
            _take(params, artifacts, folder, count)
            logits, reference = load_reference(folder / "reference")
            yield Split(
                artifacts,
                folder,
                SampleSet.load(folder / "samples"),
                logits,
                load_contract(artifacts / "checkpoint").threshold,
                reference.noise_floor.max_abs,
                (artifacts / "checkpoint" / MODEL_FILE).stat().st_size,
            )
    except Timeout:
        raise InputError(
            f"another edge-vit tune or diagnose --fix is running in {folder}; wait for it"
        ) from None


def _take(params: Params, artifacts: Path, folder: Path, count: int) -> None:
    from pipeline.stages.reference import reference
    from pipeline.stages.samples import samples

    description = {
        "how": "as stage samples takes images, after those of evaluation and calibration: "
        "no id and no pixels of theirs, but calibration's where these are too few",
        "source": str(params.samples.source),
        "asked": count,
        "calibrated": CALIBRATION_IMAGES,
        "apart_from_samples_sha256": read_samples(artifacts / "samples" / SAMPLES_FILE).sha256,
        "checkpoint_sha256": sha256_file(artifacts / "checkpoint" / MODEL_FILE),
    }
    recorded = folder / DESCRIPTION_FILE
    if recorded.is_file() and read_json(recorded) == description:
        return
    recorded.unlink(missing_ok=True)
    sampling = params.samples.model_copy(update={"limit": count, "calibration": 0})
    checkpoint = artifacts / "checkpoint"
    samples(sampling, load_contract(checkpoint), folder / "samples", artifacts / "samples")
    reference(params.reference, checkpoint, folder / "samples", folder / "reference")
    few = load_pixels(artifacts / "samples" / CALIBRATION_FILE)[:CALIBRATION_IMAGES]
    with atomic(folder / "calibration") as new:
        new.mkdir()
        np.save(new / CALIBRATION_FILE, few)
    write_json(recorded, description)


def make(
    params: Params, key: str, recipe: Recipe, checkpoint: Path, samples: Path, into: Path
) -> Path:
    """Make the file of format ``key`` below ``into``, by the stages; return its path.

    What ``recipe`` leaves open is as in ``params``; folder ``samples`` has the calibration images.
    A rewritten or quantized model that is there already is used as it is: formats with the same
    recipe share it.
    """
    from pipeline.stages import chain

    into.mkdir(parents=True, exist_ok=True)
    for name, source in (("checkpoint", checkpoint), ("samples", samples)):
        if not (into / name).exists():
            (into / name).symlink_to(source.absolute())
    ready = {stage for stage, name in SHARED.items() if (into / name).exists()}
    changed = {"rewrite": recipe.rewrite, "quantize": recipe.quantize, "formats": (key,)}
    chain.run(
        params.model_copy(update=changed),
        into,
        *(stage for stage in chain.stages_of([key]) if stage not in ready),
        script_apart=False,
    )
    return paths.delivered_file(into, key)
