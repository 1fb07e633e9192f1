"""Parity evidence: how far each file's answers are from the float model's (stage ``parity``)."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from pipeline.checkpoints.zoo import Published
from pipeline.evidence.model import Machine, NoiseFloor, NotNegative, SealedEvidence, Sha256
from pipeline.metrics.measures import Compared, FloatComparison, NonFinite, StepComparison
from pipeline.schema import Count, Section


class Samples(Section):
    """The evaluation images."""

    sha256: Sha256  # of pixels, labels and ids
    count: Count
    labelled: bool
    classes: Count
    skipped: Annotated[int, Field(ge=0)] = 0  # files that are no images
    left_out: Annotated[int, Field(ge=0)] = 0  # hidden, or left by systems and tools
    duplicates: Annotated[int, Field(ge=0)] = 0  # with the pixels of an earlier sample
    classes_without_images: tuple[str, ...] = ()
    # Of each image's hash and its label: what a release, which has no ids, is held to. None: by an
    # earlier edge-vit.
    content_sha256: Sha256 | None = None

    @model_serializer(mode="wrap")
    def _without_what_there_is_none_of(
        self, serialize: SerializerFunctionWrapHandler
    ) -> dict[str, Any]:
        optional = {name for name, field in Samples.model_fields.items() if not field.is_required()}
        return {k: v for k, v in serialize(self).items() if v or k not in optional}


class RightAnswers(Section):
    """How many samples were classified as their label says."""

    right: Annotated[int, Field(ge=0)]
    count: Count


class DeliveredFile(Section):
    """The file that was measured."""

    file: str
    sha256: Sha256
    size_bytes: Count  # with its weights beside it
    beside: dict[str, Sha256] | None = None  # what it needs, by name; None: by an earlier edge-vit

    @model_serializer(mode="wrap")
    def _as_it_was_written(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {k: v for k, v in serialize(self).items() if v is not None or k != "beside"}


class MeasuredFile(DeliveredFile, FloatComparison):
    """A file whose logits are all finite, compared with the float reference."""


class NonFiniteFile(DeliveredFile, NonFinite):
    """A file whose logits hold NaN or infinity: nothing else was measured of it."""


class Step(Section):
    """A step that should change no answer; ``before`` and ``after`` are keys of logits."""

    before: str
    after: str
    before_sha256: Sha256 | None = None  # of the file before; None where that is the float model
    after_sha256: Sha256
    noise: Compared | None = None  # what may differ; None: the float model's noise floor

    @model_serializer(mode="wrap")
    def _without_none(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in serialize(self).items() if value is not None}


class MeasuredStep(Step, StepComparison):
    """A step whose logits are all finite."""


class NonFiniteStep(Step, NonFinite):
    """A step before or after which logits hold NaN or infinity."""


class Weights(Section):
    """The int8 weights against the float ones they were made from."""

    layers: Annotated[int, Field(ge=0)]  # compared
    worst_layer: str | None
    worst_error_steps: NotNegative  # in quantization steps; rounding gives at most 0.5
    changed_floats: tuple[str, ...]  # arrays that quantization should have left alone


class ParityEvidence(SealedEvidence):
    """What stage ``parity`` measured, bound to files, checkpoint, samples and machine."""

    kind: ClassVar[str] = "parity"
    remedy: ClassVar[str] = "dvc repro --force parity"

    checkpoint_sha256: Sha256
    samples: Samples
    noise_floor: NoiseFloor
    published: Published | None
    reference_accuracy: RightAnswers | None  # of the float model; None without labels
    artefacts: dict[str, Annotated[MeasuredFile | NonFiniteFile, Field(discriminator="finite")]]
    float_size_bytes: Count
    steps: dict[str, Annotated[MeasuredStep | NonFiniteStep, Field(discriminator="finite")]]
    weights: Weights | None  # None where no chosen format has stage quantize
    logits_sha256: dict[str, Sha256]  # by key: "reference", a format or a step
    machine: Machine

    @model_validator(mode="after")
    def _same_samples(self) -> ParityEvidence:
        """All counts are of the same samples, so that numbers can be compared."""
        count = self.samples.count
        if self.reference_accuracy and self.reference_accuracy.count != count:
            raise ValueError(f"float was measured on {self.reference_accuracy.count} samples")
        if self.reference_accuracy and self.reference_accuracy.right > count:
            raise ValueError(f"float is right on more than the {count} samples")
        for key, file in self.artefacts.items():
            accuracy = file.accuracy if isinstance(file, MeasuredFile) else None
            counts = {file.count, count, *([accuracy.count] if accuracy else [])}
            if len(counts) > 1:
                raise ValueError(f"{key} was measured on {sorted(counts)} samples at once")
        return self

    def measured(self, key: str) -> MeasuredFile | None:
        """The numbers of format ``key``; None where it has none."""
        file = self.artefacts.get(key)
        return file if isinstance(file, MeasuredFile) else None
