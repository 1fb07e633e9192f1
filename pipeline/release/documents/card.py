"""The model card: what was measured and what not, and how to load the files.

The metadata is that of Hugging Face's hub (https://huggingface.co/docs/hub/model-cards), written by
`huggingface_hub`'s own classes; the text is ``card.md.jinja``. Code in it has this release's names
and this contract's numbers, and the tests run it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any, get_args

from pipeline.contract.contract import Preprocessing
from pipeline.formats import NAMES
from pipeline.params import Target
from pipeline.release.documents import licences
from pipeline.release.documents.material import Material
from pipeline.release.documents.numbers import (
    ACCURACY,
    AGREEMENT,
    FLOAT,
    INSTRUCTIONS,
    P50,
    SIZE,
    Number,
    numbers,
)
from pipeline.report import device_matrix
from pipeline.report import text as report
from pipeline.verdict.criterion import FAIL, UNDECIDED, Criterion

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCardData

HUB = "hf:"  # before a repository's name, in the source of a checkpoint
CARD_FILE = "README.md"
TEMPLATE = "card.md.jinja"
LABELS_SHOWN = 20
LIBRARIES = ("onnx", "executorch", "pytorch")  # tags of the hub
RUNTIMES = {
    "ptl": "Android and iOS with PyTorch Lite",
    "int8_onnx": "ONNX Runtime, browsers",
    "onnx": "ONNX Runtime, browsers, in float",
    "pte": "ExecuTorch with XNNPACK",
}
BLOCK = re.compile(r"^(\d+)(?=[.)])|^(?=[-+=])")  # where a list or a rule would begin
MARKUP = re.compile(r"([\\`*_\[\]|~#$])")
DIGITS = 6  # of a number in the metadata


def card(material: Material) -> str:
    """Return the card as Markdown with its metadata; equal material gives equal text."""
    from huggingface_hub import ModelCard

    data = metadata(material)
    card = ModelCard(f"---\n{data.to_yaml()}\n---\n\n{_body(material)}")
    return str(card)


def metadata(material: Material) -> ModelCardData:
    """The card's front matter, with an evaluation result for each number that has an interval."""
    from huggingface_hub import ModelCardData

    checkpoint = material.contract.checkpoint
    more: dict[str, Any] = licences.of_hub(checkpoint.license)
    if checkpoint.source.startswith(HUB):
        base = checkpoint.source.removeprefix(HUB).partition("@")[0]
        more |= {"base_model": base, "base_model_relation": "quantized"}
    return ModelCardData(
        model_name=material.contract.name,
        pipeline_tag="image-classification",
        tags=[*LIBRARIES, "image-classification", "edge", "int8"],
        eval_results=_results(material) or None,
        **more,
    )


def _results(material: Material) -> list[EvalResult]:
    names = {file.key: file.name for file in material.files}
    return [
        _result(material, names[number.key], number)
        for number in numbers(material)
        if number.key in names and number.metric in (ACCURACY, AGREEMENT)
    ]


def _result(material: Material, name: str, number: Number) -> EvalResult:
    from huggingface_hub import EvalResult

    samples, interval = material.evidence.parity["samples"], number.interval
    assert interval is not None
    return EvalResult(
        task_type="image-classification",
        task_name="Image classification",
        dataset_type=slug(material.samples_name),
        dataset_name=f"{samples['count']} images of {material.samples_name}",
        dataset_args={"edge_vit_samples_sha256": samples["sha256"], "count": samples["count"]},
        metric_type=slug(number.metric),
        metric_name=f"{number.metric} of {name}",
        metric_value=round(number.value, DIGITS),
        metric_args={
            "interval": [round(interval.low, DIGITS), round(interval.high, DIGITS)],
            "confidence": material.params.gate.confidence,
            "method": "Wilson",
        },
    )


def _body(material: Material) -> str:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters |= {"plain": plain, "f32": _numbers}
    source = resources.files(__package__).joinpath(TEMPLATE).read_text(encoding="utf-8")
    return environment.from_string(source).render(_context(material))


def _context(material: Material) -> dict[str, Any]:
    evidence, verdict, contract = material.evidence, material.verdict, material.contract
    parity, gate = evidence.parity, material.params.gate
    return {
        "m": material,
        "contract": contract,
        "prep": contract.preprocessing,
        "parity": parity,
        "latency": evidence.latency,
        "gate": gate,
        "names": {file.key: file.name for file in material.files},
        "suffixes": NAMES,
        "headline": report.headline(verdict),
        "key_numbers": _key_numbers(material),
        "table": report.files_table(parity, evidence.latency, gate.confidence, "github"),
        "matrix": device_matrix.lines(material.devices, gate, "github"),
        "sight": report.sight(parity, gate),
        "baselines": report.baselines(evidence),
        "undecided": _open(verdict.criteria, UNDECIDED),
        "failed": _open(verdict.criteria, FAIL),
        "not_run": [target for target in get_args(Target) if target not in material.tried],
        "tried": list(material.tried),
        "labels": contract.labels[:LABELS_SHOWN],
        "labels_left": max(0, len(contract.labels) - LABELS_SHOWN),
        "licence": licences.shown(contract.checkpoint.license),
        "image": material.golden_image or "photo.jpg",
        "onnx": next((f.name for f in map(material.file, ("int8_onnx", "onnx")) if f), None),
        "runtimes": RUNTIMES,
        "border": _border(contract.preprocessing),
    }


def _open(criteria: Sequence[Criterion], outcome: str) -> list[tuple[str, str, str]]:
    """Criteria that ended so: of what, which, why; those of one name and reason together."""
    found: dict[tuple[str, str], list[str]] = {}
    for c in criteria:
        if c.outcome == outcome:
            found.setdefault((c.name, c.note), []).append(c.subject)
    return [(", ".join(subjects), name, note) for (name, note), subjects in found.items()]


def _key_numbers(material: Material) -> list[str]:
    """The results in a few words: float first, then each file."""
    found = numbers(material)
    lines = []
    for key in (FLOAT, *(file.key for file in material.files)):
        file = material.file(key)
        parts = [words for number in found if number.key == key and (words := _words(number))]
        if parts:
            name = f"`{file.name}`" if file else "the float model that they were made from"
            lines.append(f"{name}: {', '.join(parts)}")
    return lines


def _words(number: Number) -> str | None:
    """A number as the first lines say it; None for what only the table has."""
    if number.metric == SIZE:
        return f"{number.value / 1e6:.2f} MB"
    if number.metric == P50:
        return f"{number.value:.1f} ms on {plain(number.where)}"
    if number.metric == INSTRUCTIONS:
        return f"{number.value / 1e6:.1f} million instructions on {plain(number.where)}"
    verb = {ACCURACY: "right", AGREEMENT: "answered as by float"}.get(number.metric)
    interval = number.interval
    if verb is None or interval is None:
        return None
    return f"{100 * number.value:.2f}% {interval.percent:.2f} {verb}"


def plain(text: object) -> str:
    """Text of somebody else's as Markdown that shows exactly it: one line, no markup, no HTML."""
    line = " ".join(str(text).split())
    line = "".join(c for c in line if c.isprintable())
    escaped = MARKUP.sub(r"\\\1", line.replace("&", "&amp;"))
    escaped = BLOCK.sub(r"\1\\", escaped)
    return escaped.replace("<", "&lt;").replace(">", "&gt;")


def slug(text: str) -> str:
    """Lower-case letters, digits and hyphens, as identifiers of the hub are."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "unnamed"


def _numbers(values: Sequence[float], suffix: str = "") -> str:
    return ", ".join(f"{value!r}{suffix}" for value in values)


def _border(preprocessing: Preprocessing) -> str:
    """The argument of Pillow's ``Image.new`` that says what lies beside a smaller image."""
    if preprocessing.crop_mode != "border":
        return ""
    return f", {tuple(round(255 * value) for value in preprocessing.mean)}"
