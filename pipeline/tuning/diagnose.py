"""Which layers lose most, and what leaving each in float gives back.

For each quantized layer two numbers. The SQNR of its output when it is fed what float feeds it: the
error that it adds by itself. And what restoring it alone gives back to the whole quantized model:
answers, right answers, SQNR of the logits, for how many bytes. Needs a run's artifacts up to
`quantize` and `reference`; takes one quantized pass over the samples for each layer.
"""

from __future__ import annotations

from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import paths
from pipeline.contract.files import MODEL_FILE, load_contract
from pipeline.errors import InputError, IntegrityError
from pipeline.evidence.logits import Logits
from pipeline.evidence.machine import fingerprint
from pipeline.evidence.reference import read_reference
from pipeline.evidence.seal import SCHEMA, seal
from pipeline.files import atomic, sha256_file, write_json, write_text
from pipeline.formats import made_by
from pipeline.images.preprocessing import normalize
from pipeline.images.samples import SampleSet
from pipeline.metrics import distances
from pipeline.metrics.measures import SQNR_LIMIT_DB
from pipeline.progress import progress
from pipeline.report.table import table
from pipeline.runtimes.parallel import Run, run_all
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


def diagnose(artifacts: Path, out: Path, count: int = SAMPLES, pattern: str = "*") -> str:
    """Measure the layers that ``pattern`` names on ``count`` samples, write folder ``out``.

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
            "formats of params.yaml and run `dvc repro`"
        )
    samples = SampleSet.load(artifacts / "samples")
    reference = _reference(artifacts, samples)
    float_file = artifacts / "rewritten" / MODEL_FILE
    quantized_file = artifacts / "quantized" / MODEL_FILE
    count = min(count, len(samples))
    errors = _own_errors(float_file, quantized_file, samples, count, pattern)

    def run(key: str, restored: tuple[str, ...]) -> Run:
        return Run(key, quantized_file, count, restored=restored, float_path=float_file)

    runs = [run(ALL, ()), *(run(name, (name,)) for name in errors)]
    logits = run_all(runs, artifacts / "samples", "diagnose")
    labels = None if samples.labels is None else samples.labels[:count]
    layers = rank(
        [
            Layer(
                name=name,
                sqnr_db=round(sqnr, 3),
                bytes_more=bytes_more,
                **_gains(reference[:count], logits[ALL], logits[name], labels),
            )
            for name, (sqnr, bytes_more) in errors.items()
        ]
    )
    worst = outliers(layers)
    kept = tuple(layer.name for layer in layers if layer.name in worst)
    joint = None
    if kept:
        together = run_all([run(PROPOSED, kept)], artifacts / "samples", PROPOSED)[PROPOSED]
        joint = _gains(reference[:count], logits[ALL], together, labels)
        joint["bytes_more"] = sum(layer.bytes_more for layer in layers if layer.name in kept)
    content = seal(
        {
            "kind": "diagnosis",
            "schema": SCHEMA,
            "checkpoint_sha256": sha256_file(artifacts / "checkpoint" / MODEL_FILE),
            "rewritten_sha256": sha256_file(float_file),
            "quantized_sha256": sha256_file(quantized_file),
            "samples_sha256": samples.sha256,
            "count": count,
            "quantized": _state(reference[:count], logits[ALL], labels),
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


def _reference(artifacts: Path, samples: SampleSet) -> Logits:
    description = read_reference(artifacts / "reference")
    checkpoint = sha256_file(artifacts / "checkpoint" / MODEL_FILE)
    quantized = load_contract(artifacts / "quantized").checkpoint.sha256
    for what, recorded, actual in (
        ("the reference", description.checkpoint_sha256, checkpoint),
        ("the reference", description.samples_sha256, samples.sha256),
        ("the quantized model", quantized, checkpoint),
    ):
        if recorded != actual:
            raise IntegrityError(
                f"{what} belongs to {recorded[:12]}, there is {actual[:12]}; run `dvc repro`"
            )
    logits: Logits = np.load(artifacts / "reference" / "logits.npy")
    return logits


def _own_errors(
    float_file: Path, quantized_file: Path, samples: SampleSet, count: int, pattern: str
) -> dict[str, tuple[float, int]]:
    """SQNR in dB of each int8 layer's output for float's input, and the bytes that float costs."""
    import torch

    from pipeline.models.hooks import Hook, forward_hooks
    from pipeline.process import use_qnnpack
    from pipeline.quantization.load import layer_pairs

    use_qnnpack()
    torch.set_num_threads(1)
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


def _state(reference: Logits, logits: Logits, labels: Any) -> dict[str, Any]:
    right = None if labels is None else int((logits.argmax(1) == labels).sum())
    return {
        "agree": int((logits.argmax(1) == reference.argmax(1)).sum()),
        "right": right,
        "logit_sqnr_db": round(float(distances.sqnr_db(reference, logits)), 3),
    }


def _gains(reference: Logits, before: Logits, after: Logits, labels: Any) -> dict[str, Any]:
    """What changes from the quantized model to one with some layers in float."""
    if not np.isfinite(after).all():
        raise InputError("the quantized model answers with NaN or infinity; look at the weights")
    truth = reference.argmax(1)
    agreed, agrees = before.argmax(1) == truth, after.argmax(1) == truth
    old, new = _state(reference, before, labels), _state(reference, after, labels)
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
            *(layer.name, layer.sqnr_db, layer.regained, layer.lost),
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
        right.barh(names, [layer.sqnr_db for layer in layers][::-1], color="#8a8a8a")
        right.set_xlabel("SQNR of the layer's own output, dB")
        for axes in (left, right):
            axes.grid(axis="x", alpha=0.3)
            axes.margins(y=0.01)
        figure.tight_layout()
        figure.savefig(path, metadata={"Date": None})
        pyplot.close(figure)
