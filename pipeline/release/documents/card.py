"""The model card: what was measured and what not, and how to load the files.

The metadata is that of Hugging Face's hub (https://huggingface.co/docs/hub/model-cards), written by
`huggingface_hub`'s own classes; the text is ``card.md.jinja``. Code in it has this release's names
and this contract's numbers, and the tests run it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any, get_args

from pipeline.contract.contract import Contract, Preprocessing
from pipeline.formats import FORMATS
from pipeline.params import Target
from pipeline.release.documents import licences
from pipeline.release.documents.material import Material
from pipeline.release.documents.numbers import ACCURACY, AGREEMENT, Number, numbers
from pipeline.report import comparison, device_matrix, tables
from pipeline.report import text as report

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCardData

HUB = "hf:"  # before a repository's name, in the source of a checkpoint
CARD_FILE = "README.md"
TEMPLATE = "card.md.jinja"
LABELS_SHOWN = 20
BLOCK = re.compile(r"^(\d+)(?=[.)])|^(?=[-+=])")  # where a list or a rule would begin
MARKUP = re.compile(r"([\\`*_\[\]|~#$])")
CODE = re.compile("(`[^`]+`)")
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
    libraries = dict.fromkeys(FORMATS[file.key].tag for file in material.files)
    return ModelCardData(
        model_name=material.contract.name,
        pipeline_tag="image-classification",
        tags=[*libraries, "image-classification", "edge", "int8"],
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

    samples, interval = material.evidence.parity.samples, number.interval
    assert interval is not None
    return EvalResult(
        task_type="image-classification",
        task_name="Image classification",
        dataset_type=slug(material.samples_name),
        dataset_name=f"{samples.count} images of {material.samples_name}",
        dataset_args={"edge_vit_samples_sha256": samples.sha256, "count": samples.count},
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
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    environment = Environment(
        loader=FunctionLoader(_template),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"plain": plain, "prose": prose, "f32": _numbers}
    return environment.get_template(TEMPLATE).render(_context(material))


def _template(name: str) -> str | None:
    path = resources.files(__package__).joinpath(name)
    return path.read_text(encoding="utf-8") if path.is_file() else None


def _loaded(material: Material) -> list[tuple[str, str]]:
    """The templates that show how to load a file, each with a file: an int8 one if there is one."""
    files = sorted(material.files, key=lambda file: bool(FORMATS[file.key].schemes))
    names = {FORMATS[file.key].loading: file.name for file in files}
    stems = dict.fromkeys(FORMATS[file.key].loading for file in material.files)
    return [(stem, names[stem]) for stem in stems if stem]


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
        "loaded": _loaded(material),
        "suffixes": {key: known.suffix for key, known in FORMATS.items()},
        "verdict": report.headline(verdict),
        "headline": comparison.headline(parity, evidence.latency),
        "table": comparison.files_table(parity, evidence.latency, gate.confidence, "github"),
        "matrix": device_matrix.lines(material.devices, gate, "github"),
        "sight": report.power_statement(parity, gate),
        "baselines": report.baselines(evidence),
        "undecided": tables.undecided(verdict),
        "failed": tables.failed(verdict),
        "relaxed": verdict.relaxed,
        "not_run": _not_run(material),
        "tried": list(material.tried),
        "labels": contract.labels[:LABELS_SHOWN],
        "labels_left": max(0, len(contract.labels) - LABELS_SHOWN),
        "licence": licences.shown(contract.checkpoint.license),
        "answer": _answer(contract),
        "image": material.golden_image or "photo.jpg",
        "runtimes": {key: known.used_by for key, known in FORMATS.items()},
        "border": _border(contract.preprocessing),
    }


def _answer(contract: Contract) -> dict[str, str]:
    """The number of the class that ``logits`` mean, in each language of the code to load a file."""
    if contract.threshold is None:
        cpp = "std::max_element(logits, logits + output.numel()) - logits"
        return {"python": "logits.argmax()", "cpp": cpp}
    limit = repr(math.log(contract.threshold / (1 - contract.threshold)))
    return {"python": f"int(logits[0, 0] > {limit})", "cpp": f"(logits[0] > {limit})"}


def _not_run(material: Material) -> list[str]:
    """The device targets without a result, but for the phone, which the card names apart."""
    return [t for t in get_args(Target) if t not in material.tried and t != "phone"]


def prose(text: str) -> str:
    """A sentence of edge-vit's as Markdown: as :func:`plain`, but what it marks as code is code."""
    parts = CODE.split(_line(text))
    return "".join(part if CODE.fullmatch(part) else _escaped(part) for part in parts)


def plain(text: object) -> str:
    """Text of somebody else's as Markdown that shows exactly it: one line, no markup, no HTML."""
    return _escaped(_line(text))


def _line(text: object) -> str:
    return "".join(c for c in " ".join(str(text).split()) if c.isprintable())


def _escaped(line: str) -> str:
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
