"""``edge-vit diagnose --fix``: a small set of layers in float with which a refused run passes.

Takes the gate's criteria for artifacts/, ranks the layers as `diagnose` does, finds how many of the
first it takes until what failed passes, then takes out each that is not needed. Everything is
measured on images that neither the gate nor calibration has (see `tuning.split`) and judged by the
gate's own criteria. The files are then made, with their cost in size, time and modelled
instructions. Nothing in artifacts/ but artifacts/tuning is changed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline import paths
from pipeline.contract.files import MODEL_FILE
from pipeline.errors import GateError
from pipeline.formats import FORMATS, quantized
from pipeline.images.preprocessing import normalize
from pipeline.metrics import timing
from pipeline.params import Params, Recipe
from pipeline.quantization.auto import settle_params
from pipeline.runtimes import FloatArray, load
from pipeline.runtimes.interleave import interleave
from pipeline.runtimes.parallel import Run
from pipeline.tuning.cost_model import from_efficient, instructions_m
from pipeline.tuning.criteria import describe, fixable, is_fixed
from pipeline.tuning.ranking import minimal_passing_set
from pipeline.tuning.split import QUANTIZED, REWRITTEN, Split, make, tuning_split
from pipeline.verdict.criterion import FAIL, Criterion

SAMPLES = 512
RANKED_ON = 16  # images
WARMUP, ROUNDS = 3, 30  # of the current file and the new one, in turns


@dataclass
class Search:
    """Measures one file with sets of its layers in float; remembers each set's criteria."""

    params: Params
    split: Split
    key: str
    failed: frozenset[str]  # criteria that failed at the gate
    bytes_more: dict[str, int]  # by layer, those best in float first
    asked: int  # images; there may be fewer
    measured: dict[frozenset[str], list[Criterion]] = field(default_factory=dict)

    def layers(self) -> list[str] | None:
        """Return the layers to leave in float; None if not even all of them are enough."""
        return minimal_passing_set(
            list(self.bytes_more), lambda kept: is_fixed(self.criteria(kept), self.failed)
        )

    def criteria(self, kept: tuple[str, ...]) -> list[Criterion]:
        """Return the gate's criteria for the file with layers ``kept`` in float."""
        layers = frozenset(kept)
        if layers not in self.measured:
            self.measured[layers] = self._measure(
                kept, f"{FORMATS[self.key].suffix}, {len(kept)} in float"
            )
        return self.measured[layers]

    def _measure(self, kept: tuple[str, ...], label: str) -> list[Criterion]:
        if "quantize" in FORMATS[self.key].stages:
            # Restoring layers is what keep_float does, without making the file each time.
            run = Run(
                "restored",
                self.split.artifacts / QUANTIZED / MODEL_FILE,
                len(self.split.samples),
                restored=kept,
                float_path=self.split.artifacts / REWRITTEN / MODEL_FILE,
            )
            size = paths.size_bytes(self.current) + sum(self.bytes_more[name] for name in kept)
            return self.split.judged_run(self.params, self.key, run, size, label)[1]
        with tempfile.TemporaryDirectory() as folder:
            path = self.current if not kept else self.make(kept, Path(folder))
            return self.split.judged(self.params, self.key, path, label)[1]

    @property
    def current(self) -> Path:
        """The file as the run has it."""
        return paths.delivered_file(self.split.artifacts, self.key)

    def recipe(self, kept: Sequence[str]) -> Recipe:
        """Return the run's recipe with layers ``kept`` in float, too."""
        quantize = self.params.quantize
        keep = (*quantize.keep_float, *(name for name in kept if name not in quantize.keep_float))
        return Recipe(self.params.rewrite, quantize.model_copy(update={"keep_float": keep}))

    def make(self, kept: Sequence[str], into: Path) -> Path:
        """Make the file with layers ``kept`` in float below ``into``; return its path."""
        split, samples = self.split, self.split.artifacts / "samples"
        recipe = self.recipe(kept)
        return make(self.params, self.key, recipe, split.checkpoint, samples, into)


def repair(
    params: Params, artifacts: Path, criteria: Sequence[Criterion], count: int, pattern: str = "*"
) -> str:
    """Find layers in float that fix what failed of the gate's ``criteria``; return what to print.

    Layers are those that ``pattern`` names, ``count`` the images that are judged on.

    Raises:
        GateError: no set of layers fixes it; gives the criteria with all of them in float.
        InputError: artifacts are missing, or there are no images beside the gate's.
    """
    candidates, others = fixable(criteria)
    lines = [f"keep_float cannot fix {describe(c)}: {c.note}" for c in others]
    if not candidates:
        raise GateError("\n  ".join(["layers in float fix nothing of what failed", *lines]))
    params = settle_params(params, artifacts / paths.CHECKPOINT.name)
    with tuning_split(params, artifacts, count) as split:
        ranked = split.ranking(artifacts, RANKED_ON, pattern)
        bytes_more = {layer["name"]: layer["bytes_more"] for layer in ranked}
        kept: list[str] = []
        searches = []
        for key in quantized():
            failed = frozenset(c.name for c in candidates if c.subject == FORMATS[key].suffix)
            if not failed:
                continue
            search = Search(params, split, key, failed, bytes_more, count)
            layers = search.layers()
            if layers is None:
                raise GateError("\n  ".join([_not_enough(search), *lines]))
            if not layers:
                lines.append(
                    f"{FORMATS[key].suffix} passes as it is on {len(split.samples)} other images: "
                    "it is near its limit; raise samples.limit for a surer verdict"
                )
            searches.append(search)
            kept += [name for name in layers if name not in kept]
        if not kept:
            return "\n".join(lines)
        for search in searches:
            lines.append(_cost(search, kept))
    lines += ["for params.yaml:", searches[0].recipe(kept).lines()]
    lines.append("then `make verdict`: the gate decides on its own samples")
    return "\n".join(lines)


def _more(search: Search) -> str:
    """What to say of how many images it takes, where they were too few."""
    count, asked = len(search.split.samples), search.asked
    if count < asked:
        return f"give {asked - count} more images in samples.source"
    return "raise --samples"


def _not_enough(search: Search) -> str:
    criteria = "; ".join(map(describe, search.criteria(tuple(search.bytes_more))))
    return (
        f"no set of layers in float makes {FORMATS[search.key].suffix} pass on "
        f"{len(search.split.samples)} images; with all {len(search.bytes_more)} in float: "
        f"{criteria}. Where one is undecided, {_more(search)}; else try `edge-vit tune`"
    )


def _cost(search: Search, kept: Sequence[str]) -> str:
    """Make the file and say what it costs beside the current one."""
    with tempfile.TemporaryDirectory() as folder:
        path, name = search.make(kept, Path(folder)), FORMATS[search.key].suffix
        _, criteria = search.split.judged(search.params, search.key, path, f"{name}, made")
        if any(c.outcome == FAIL for c in criteria) or not is_fixed(criteria, search.failed):
            raise GateError(
                f"layers {', '.join(kept)} in float fix {name}, but the file made with them fails: "
                f"{'; '.join(map(describe, criteria))}"
            )
        ratio = _times(search, path)
        more_mb = (paths.size_bytes(path) - paths.size_bytes(search.current)) / 1e6
    before, after = (_instructions_m(search, some) for some in ((), kept))
    return (
        f"{name} with {', '.join(kept)} in float: {more_mb:+.2f} MB; {ratio.median:.2f} "
        f"[{ratio.interval.low:.2f}, {ratio.interval.high:.2f}] of its time on this machine; "
        f"{before:.1f} to {after:.1f} M instructions on ARM64, modelled; on "
        f"{len(search.split.samples)} other images: {'; '.join(map(describe, criteria))}"
    )


def _times(search: Search, path: Path) -> timing.Ratio:
    """Time of file ``path`` beside the current one's, on images of the split, one thread."""
    samples = search.split.samples
    runtimes = {"new": load(path), "now": load(search.current)}
    preprocessing = runtimes["now"].contract.preprocessing

    def image(number: int) -> FloatArray:
        chosen = number % len(samples)
        return normalize(samples.images[chosen : chosen + 1], preprocessing)

    times = interleave(
        runtimes, image, warmup=WARMUP, runs=ROUNDS, min_seconds=0, name=f"{path.suffix}, time"
    )
    return timing.bootstrap_ratio(times["new"], times["now"])


def _instructions_m(search: Search, kept: Sequence[str]) -> float:
    from pipeline.tuning.layer_sizes import layers

    quantize = search.recipe(kept).quantize
    efficient = from_efficient(search.key, quantize)
    return instructions_m(
        search.key, quantize, layers(search.split.checkpoint, efficient=efficient)
    )
