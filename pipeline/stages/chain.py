"""The stages outside DVC, for commands, tests and benchmarks: what each reads and writes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from pipeline import paths
from pipeline.formats import FORMATS, PLUGINS_STAGE
from pipeline.params import Params
from pipeline.process import end_with_parent


def stages_of(keys: Iterable[str] | None = None) -> tuple[str, ...]:
    """Return the stages that make the files of formats ``keys``, in the order in which they run.

    They start from checkpoint and samples. None is all formats.
    """
    chosen = FORMATS if keys is None else keys
    return tuple(dict.fromkeys(stage for key in chosen for stage in FORMATS[key].stages))


def run(params: Params, artifacts: Path, *stages: str, script_apart: bool = True) -> None:
    """Run stages in this process, in the order given, on the folder ``artifacts``.

    But for ``script`` if ``script_apart``: TorchScript gives a class another name where the process
    knows one of that name already, and the bytes of the file would depend on what ran before.
    Exporters use what stage ``hessians`` found if it is one of ``stages``, else collect it again.
    """
    from pipeline.contract.files import load_contract
    from pipeline.export.exporter import Sources, export_all
    from pipeline.stages.export_plugins import export_plugins
    from pipeline.stages.fetch import fetch
    from pipeline.stages.golden import golden
    from pipeline.stages.hessians import hessians
    from pipeline.stages.latency import latency
    from pipeline.stages.optimize import optimize
    from pipeline.stages.parity import parity
    from pipeline.stages.quantize import quantize
    from pipeline.stages.reference import reference
    from pipeline.stages.rewrite import rewrite
    from pipeline.stages.samples import samples
    from pipeline.stages.script import script

    def at(folder: Path) -> Path:
        return artifacts / folder.name

    checkpoint, images, rewritten = at(paths.CHECKPOINT), at(paths.SAMPLES), at(paths.REWRITTEN)
    quantized, scripted, optimized = at(paths.QUANTIZED), at(paths.SCRIPTED), at(paths.OPTIMIZED)
    sources = Sources(artifacts, collected="hessians" in stages)
    call_script = alone if script_apart else _here
    calls: dict[str, Callable[[], object]] = {
        "fetch": lambda: fetch(params, checkpoint),
        "samples": lambda: samples(params.samples, load_contract(checkpoint), images),
        "reference": lambda: reference(params.reference, checkpoint, images, at(paths.REFERENCE)),
        "rewrite": lambda: rewrite(params.rewrite, checkpoint, images, rewritten),
        "quantize": lambda: quantize(params.quantize, rewritten, images, quantized, params.formats),
        "script": lambda: call_script(script, quantized, scripted, params.formats),
        "optimize": lambda: optimize(scripted, optimized, params.formats),
        "hessians": lambda: hessians(
            params.quantize,
            params.export_onnx,
            rewritten,
            images,
            at(paths.HESSIANS),
            params.formats,
        ),
        PLUGINS_STAGE: lambda: export_plugins(params, sources),
        "golden": lambda: golden(params, artifacts, at(paths.GOLDEN)),
        "parity": lambda: parity(params.parity, artifacts, at(paths.PARITY)),
        "latency": lambda: latency(params.latency, artifacts, at(paths.LATENCY)),
    }
    for stage in stages:
        if stage in calls:
            calls[stage]()
        else:
            export_all(stage, params, sources)


def alone(function: Callable[..., object], *arguments: object) -> None:
    """Call a function in a process of its own, as DVC does; what it raises is raised here."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, initializer=end_with_parent) as process:
        process.submit(function, *arguments).result()


def _here(function: Callable[..., object], *arguments: object) -> None:
    function(*arguments)
