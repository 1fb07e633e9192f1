"""Which layers lose most, and what leaving each in float gives back.

For each quantized layer: what restoring it alone gives back to the whole quantized model, in
answers, right answers and SQNR of the logits, for how many bytes. Of the model that stage
`quantize` makes for the .ptl also the SQNR of each layer's output when it is fed what float feeds
it, the error that it adds by itself; there a layer takes one pass over the samples. Of other
formats the file is made once for each layer, as its stage makes it. Needs a run's artifacts up to
the file and `reference`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import paths
from pipeline.contract.contract import Contract
from pipeline.contract.files import MODEL_FILE, load_contract
from pipeline.errors import InputError, IntegrityError
from pipeline.evidence.machine import fingerprint
from pipeline.evidence.reference import load_reference
from pipeline.evidence.seal import SCHEMA, seal
from pipeline.export.exporter import Sources, export
from pipeline.files import atomic, sha256_file, write_json, write_text
from pipeline.formats import FORMATS, made_by
from pipeline.images.preprocessing import normalize
from pipeline.images.samples import SampleSet
from pipeline.metrics import distances
from pipeline.metrics.logits import Logits, answers
from pipeline.metrics.measures import SQNR_LIMIT_DB
from pipeline.params import Params
from pipeline.progress import progress
from pipeline.quantization.auto import settle_params
from pipeline.report.table import table
from pipeline.runtimes import load
from pipeline.runtimes.parallel import Run, run_all
from pipeline.tuning.cost_model import FLOAT, from_efficient, kind
from pipeline.tuning.layer_sizes import layers as layers_of
from pipeline.tuning.ranking import Layer, broken, outliers, rank

JSON_FILE, CSV_FILE, MARKDOWN_FILE, PLOT_FILE = (
    f"layers.{ending}" for ending in ("json", "csv", "md", "svg")
)
SAMPLES = 64
SHOWN = 10
ALL = "all int8"
PROPOSED = "proposed"
HEADER = (
    *("layer", "own_sqnr_db", "regained", "lost", "right_gained", "logit_sqnr_gain_db"),
    *("bytes_more", "regained_per_mb"),
)


Layers = tuple[str, ...]


@dataclass(frozen=True)
class _Subject:
    """What is diagnosed: its layers, and how to run it with some of them in float."""

    file: Path
    own_sqnr_db: Mapping[str, float | None]  # by layer; None where it is not measured
    run: Callable[[Mapping[str, Layers]], dict[str, tuple[Logits, int]]]  # and bytes more, by key


def diagnose(artifacts: Path, out: Path, count: int = SAMPLES, pattern: str = "*") -> str:
    """Measure the layers that ``pattern`` names on ``count`` samples, write folder ``out``.

    The layers are those of the model that stage `quantize` made.

    Returns:
        What to print: the first layers and the line for params.yaml.

    Raises:
        InputError: artifacts are missing, or the pattern names no quantized layer.
        IntegrityError: quantized model, reference and samples do not belong together.
    """
    if paths.is_off(artifacts / "quantized"):
        users = ", ".join(made_by("quantize"))
        raise InputError(
            f"the layers are those that stage quantize made for {users}, which is off; add it to "
            "formats of params.yaml and run `dvc repro`, or name another file by --format"
        )
    samples = SampleSet.load(artifacts / "samples")
    contract = load_contract(artifacts / "quantized")
    reference = _reference(artifacts, samples, contract, "the quantized model")
    float_file = artifacts / "rewritten" / MODEL_FILE
    quantized_file = artifacts / "quantized" / MODEL_FILE
    count = min(count, len(samples))
    errors = _own_errors(float_file, quantized_file, samples, count, pattern)

    def run(sets: Mapping[str, Layers]) -> dict[str, tuple[Logits, int]]:
        runs = [
            Run(key, quantized_file, count, restored=kept, float_path=float_file)
            for key, kept in sets.items()
        ]
        logits = run_all(runs, artifacts / "samples", "diagnose")
        return {key: (logits[key], sum(errors[name][1] for name in sets[key])) for key in sets}

    own = {name: round(sqnr, 3) for name, (sqnr, _) in errors.items()}
    return _write(_Subject(quantized_file, own, run), artifacts, samples, reference[:count], out)


def diagnose_file(
    params: Params, artifacts: Path, out: Path, key: str, count: int = SAMPLES, pattern: str = "*"
) -> str:
    """Measure the layers of the file of format ``key``, as :func:`diagnose` does.

    Raises:
        InputError: as there, or nothing in a file of this format is quantized.
        IntegrityError: file, reference and samples do not belong together.
    """
    if "quantize" in FORMATS[key].stages:
        return diagnose(artifacts, out, count, pattern)
    suffix = FORMATS[key].suffix
    if not FORMATS[key].schemes:
        raise InputError(
            f"{suffix} is float: it has no quantized layers. What it loses comes from `rewrite`, "
            "whose methods can be set to null or false one by one, or from the export"
        )
    file = paths.delivered_file(artifacts, key)
    params = settle_params(params, artifacts / paths.CHECKPOINT.name)
    samples = SampleSet.load(artifacts / "samples")
    reference = _reference(artifacts, samples, load(file).contract, file.name)
    count = min(count, len(samples))
    efficient = from_efficient(key, params.quantize)
    names = [
        layer.name
        for layer in layers_of(artifacts / "rewritten", efficient=efficient)
        if kind(layer, key, params.quantize) != FLOAT and fnmatchcase(layer.name, pattern)
    ]
    if not names:
        raise InputError(f"{pattern!r} names no quantized layer of {file}")

    def run(sets: Mapping[str, Layers]) -> dict[str, tuple[Logits, int]]:
        found = {}
        for name, kept in progress(
            list(sets.items()), desc=f"{suffix}, layers in float", unit="file"
        ):
            with tempfile.TemporaryDirectory() as folder:
                path = _made(params, artifacts, key, kept, Path(folder)) if kept else file
                logits = run_all([Run(name, path, count)], artifacts / "samples", name)[name]
                found[name] = logits, paths.size_bytes(path) - paths.size_bytes(file)
        return found

    own: dict[str, float | None] = dict.fromkeys(names)
    return _write(_Subject(file, own, run), artifacts, samples, reference[:count], out)


def _made(params: Params, artifacts: Path, key: str, kept: Layers, into: Path) -> Path:
    """Make the file again with layers ``kept`` in float, too; return its path."""
    for name in ("samples", "rewritten", "hessians"):
        (into / name).symlink_to((artifacts / name).absolute())
    keep = (*params.quantize.keep_float, *kept)
    quantize = params.quantize.model_copy(update={"keep_float": keep})
    changed = params.model_copy(update={"quantize": quantize, "formats": (key,)})
    hessians = artifacts / "hessians"
    export(key, changed, Sources(into, collected=hessians.is_dir() and not paths.is_off(hessians)))
    return paths.delivered_file(into, key)


def _write(
    subject: _Subject, artifacts: Path, samples: SampleSet, reference: Logits, out: Path
) -> str:
    """Run the subject with each layer in float; rank them, write ``out``, return what to print."""
    count = len(reference)
    labels = None if samples.labels is None else samples.labels[:count]
    threshold = load_contract(artifacts / "checkpoint").threshold
    runs = subject.run({ALL: (), **{name: (name,) for name in subject.own_sqnr_db}})
    whole = runs[ALL][0]
    layers = rank(
        [
            Layer(
                name=name,
                sqnr_db=sqnr,
                bytes_more=runs[name][1],
                **_gains(reference, whole, runs[name][0], labels, threshold),
            )
            for name, sqnr in subject.own_sqnr_db.items()
        ]
    )
    worst = outliers(layers)
    kept = tuple(layer.name for layer in layers if layer.name in worst)
    joint = None
    if kept:
        together, bytes_more = subject.run({PROPOSED: kept})[PROPOSED]
        joint = _gains(reference, whole, together, labels, threshold) | {"bytes_more": bytes_more}
    content = seal(
        {
            "kind": "diagnosis",
            "schema": SCHEMA,
            "checkpoint_sha256": sha256_file(artifacts / "checkpoint" / MODEL_FILE),
            "rewritten_sha256": sha256_file(artifacts / "rewritten" / MODEL_FILE),
            "quantized_sha256": sha256_file(subject.file),
            "samples_sha256": samples.sha256,
            "count": count,
            "quantized": _state(reference, whole, labels, threshold),
            "layers": [asdict(layer) for layer in layers],
            "keep_float": list(kept),
            "together": joint,
            "machine": fingerprint(),
        }
    )
    text = _text(content, layers)
    with atomic(out) as new:
        new.mkdir()
        write_json(new / JSON_FILE, content)
        write_text(new / CSV_FILE, _csv(layers))
        write_text(new / MARKDOWN_FILE, f"{text}\n\n{_table(layers, 'github')}\n")
        _plot(layers, kept, new / PLOT_FILE)
    return f"{_table(layers[:SHOWN])}\n\n{text}"


def _reference(artifacts: Path, samples: SampleSet, contract: Contract, what: str) -> Logits:
    """Float's answers to the samples; ``contract`` is of ``what``, which is to belong to them."""
    samples.verify()
    logits, description = load_reference(artifacts / "reference")
    checkpoint = sha256_file(artifacts / "checkpoint" / MODEL_FILE)
    for subject, recorded, actual in (
        ("the reference", description.checkpoint_sha256, checkpoint),
        ("the reference", description.samples_sha256, samples.sha256),
        (what, contract.checkpoint.sha256, checkpoint),
    ):
        if recorded != actual:
            raise IntegrityError(
                f"{subject} belongs to {recorded[:12]}, there is {actual[:12]}; run `dvc repro`"
            )
    return logits


def _own_errors(
    float_file: Path, quantized_file: Path, samples: SampleSet, count: int, pattern: str
) -> dict[str, tuple[float, int]]:
    """SQNR in dB of each int8 layer's output for float's input, and the bytes that float costs."""
    import torch

    from pipeline.models.hooks import Hook, forward_hooks
    from pipeline.process import one_thread, use_qnnpack
    from pipeline.quantization.load import layer_pairs

    use_qnnpack()
    both = layer_pairs(float_file, quantized_file)
    layers = {name: run for name, run in both.layers.items() if fnmatchcase(name, pattern)}
    if not layers:
        raise InputError(f"{pattern!r} names no quantized layer of {quantized_file}")
    power = {name: [0.0, 0.0] for name in layers}  # of the signal, of the error

    def recorder(name: str) -> Hook:
        def record(x: torch.Tensor, answer: torch.Tensor) -> None:
            error = layers[name](x).double() - answer.double()
            power[name][0] += float(answer.double().square().sum())
            power[name][1] += float(error.square().sum())

        return record

    # The float model may be a cached one, which nothing may be left on.
    with (
        one_thread(),
        forward_hooks(both.model, {name: recorder(name) for name in layers}),
        torch.inference_mode(),
    ):
        for number in progress(range(count), desc="each layer alone", unit="image"):
            image = normalize(samples.images[number : number + 1], both.contract.preprocessing)
            both.model(torch.from_numpy(image))
    return {name: (_decibels(*power[name]), _bytes_more(both.weights[name])) for name in layers}


def _decibels(signal: float, error: float) -> float:
    if error <= 0:
        return SQNR_LIMIT_DB
    return float(np.clip(10 * np.log10(max(signal, 1e-300) / error), -SQNR_LIMIT_DB, SQNR_LIMIT_DB))


def _bytes_more(weight: Any) -> int:
    """Float32 weights less int8 ones and their scales (float32 in the file that is delivered)."""
    import torch

    scales = weight.shape[0] if weight.qscheme() == torch.per_channel_affine else 1
    return int(4 * weight.numel() - weight.numel() - 4 * scales)


def _state(
    reference: Logits, logits: Logits, labels: Any, threshold: float | None
) -> dict[str, Any]:
    answered = answers(logits, threshold)
    right = None if labels is None else int((answered == labels).sum())
    return {
        "agree": int((answered == answers(reference, threshold)).sum()),
        "right": right,
        "logit_sqnr_db": round(float(distances.sqnr_db(reference, logits)), 3),
    }


def _gains(
    reference: Logits, before: Logits, after: Logits, labels: Any, threshold: float | None
) -> dict[str, Any]:
    """What changes from the quantized model to one with some layers in float."""
    if not np.isfinite(after).all():
        raise InputError("the quantized model answers with NaN or infinity; look at the weights")
    truth = answers(reference, threshold)
    agreed, agrees = (answers(logits, threshold) == truth for logits in (before, after))
    old, new = (_state(reference, logits, labels, threshold) for logits in (before, after))
    return {
        "regained": int((~agreed & agrees).sum()),
        "lost": int((agreed & ~agrees).sum()),
        "right_gained": None if labels is None else new["right"] - old["right"],
        "logit_sqnr_gain_db": round(new["logit_sqnr_db"] - old["logit_sqnr_db"], 3),
    }


def _rows(layers: list[Layer]) -> list[tuple[object, ...]]:
    """The layers' numbers, in the order of :data:`HEADER`."""
    return [
        (
            layer.name,
            "" if layer.sqnr_db is None else layer.sqnr_db,
            *(layer.regained, layer.lost),
            "" if layer.right_gained is None else layer.right_gained,
            *(layer.logit_sqnr_gain_db, layer.bytes_more),
            round(1e6 * (layer.regained - layer.lost) / max(1, layer.bytes_more), 3),
        )
        for layer in layers
    ]


def _csv(layers: list[Layer]) -> str:
    return "".join(",".join(map(str, row)) + "\n" for row in (HEADER, *_rows(layers)))


def _table(layers: list[Layer], style: str = "simple") -> str:
    return table(_rows(layers), [name.replace("_", " ") for name in HEADER], style)


def _text(content: dict[str, Any], layers: list[Layer]) -> str:
    count, whole, kept = content["count"], content["quantized"], content["keep_float"]
    lines = [
        f"quantized: {whole['agree']} of {count} answers are float's, SQNR of the logits "
        f"{whole['logit_sqnr_db']:.1f} dB"
    ]
    by_name = {layer.name: layer for layer in layers}
    lines += [
        f"{name} errs far more than the other layers ({by_name[name].sqnr_db:.1f} dB): look at its "
        "int8 weights and scale"
        for name in sorted(broken(layers))
    ]
    if not kept:
        best = layers[0]
        lines.append(
            f"no restored layer stands out: the best, {best.name}, gives back "
            f"{best.logit_sqnr_gain_db:+.2f} dB alone; keep_float would buy nothing"
        )
        return "\n".join(lines)
    joint = content["together"]
    lines += [
        f"these in float together: {joint['regained']} answers regained, {joint['lost']} lost, "
        f"{joint['logit_sqnr_gain_db']:+.1f} dB, {joint['bytes_more'] / 1e6:.2f} MB more",
        "for params.yaml, below quantize:",
        f"  keep_float: [{', '.join(kept)}]",
    ]
    return "\n".join(lines)


def _plot(layers: list[Layer], kept: tuple[str, ...], path: Path) -> None:
    """Bars: what each layer's restoration gives back, and the error that it adds itself."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    names = [layer.name for layer in layers][::-1]
    with matplotlib.rc_context({"svg.hashsalt": "edge-vit", "font.size": 8}):
        size = (9, 1 + 0.18 * len(layers))
        figure, (left, right) = pyplot.subplots(1, 2, sharey=True, figsize=size)
        colours = ["#c0392b" if layer.name in kept else "#4878a8" for layer in layers][::-1]
        left.barh(names, [layer.logit_sqnr_gain_db for layer in layers][::-1], color=colours)
        left.set_xlabel("logits' SQNR regained, dB (red: stands out)")
        right.barh(names, [layer.sqnr_db or 0 for layer in layers][::-1], color="#8a8a8a")
        right.set_visible(any(layer.sqnr_db is not None for layer in layers))
        right.set_xlabel("SQNR of the layer's own output, dB")
        for axes in (left, right):
            axes.grid(axis="x", alpha=0.3)
            axes.margins(y=0.01)
        figure.tight_layout()
        figure.savefig(path, metadata={"Date": None})
        pyplot.close(figure)
