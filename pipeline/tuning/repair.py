"""``edge-vit diagnose --fix``: the fewest layers to leave in float that make a refused run pass.

Takes the gate's criteria for artifacts/, ranks the layers as `diagnose` does, finds how many of the
first it takes until what failed passes, then takes out each that is not needed. Everything is
measured on images that neither the gate nor calibration has (see `tuning.split`) and judged by the
gate's own criteria. The files found are then made, with their cost in size, time and modelled
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
from pipeline.runtimes import FloatArray, load
from pipeline.runtimes.interleave import interleave
from pipeline.runtimes.parallel import Run
from pipeline.tuning import split as trial
from pipeline.tuning.cost_model import from_efficient, instructions_m
from pipeline.tuning.space import fewest, mendable, mended, words
from pipeline.verdict.criterion import FAIL, Criterion

SAMPLES = 512
RANKED_ON = 16  # images
WARMUP, ROUNDS = 3, 30  # of the present file and the new one, in turns


@dataclass
class Search:
    """Measures sets of layers in float of one file; keeps what it found of each set."""

    params: Params
    split: trial.Split
    key: str
    wanted: frozenset[str]  # criteria that failed at the gate
    bytes_more: dict[str, int]  # by layer, those best in float first
    found: dict[frozenset[str], list[Criterion]] = field(default_factory=dict)

    def fewest(self) -> list[str] | None:
        return fewest(list(self.bytes_more), lambda kept: mended(self.criteria(kept), self.wanted))

    def criteria(self, kept: tuple[str, ...]) -> list[Criterion]:
        layers = frozenset(kept)
        if layers not in self.found:
            self.found[layers] = self._measured(
                kept, f"{FORMATS[self.key].suffix}, {len(kept)} in float"
            )
        return self.found[layers]

    def _measured(self, kept: tuple[str, ...], said: str) -> list[Criterion]:
        if self.key == "ptl":
            # Restoring layers is what keep_float does, without making the file each time.
            run = Run(
                "restored",
                self.split.artifacts / trial.QUANTIZED / MODEL_FILE,
                len(self.split.samples),
                restored=kept,
                float_path=self.split.artifacts / trial.REWRITTEN / MODEL_FILE,
            )
            size = paths.size_bytes(self.present) + sum(self.bytes_more[name] for name in kept)
            return self.split.judged_run(self.params, self.key, run, size, said)[1]
        with tempfile.TemporaryDirectory() as folder:
            path = self.present if not kept else self.made(kept, Path(folder))
            return self.split.judged(self.params, self.key, path, said)[1]

    @property
    def present(self) -> Path:
        return paths.delivered_file(self.split.artifacts, self.key)

    def recipe(self, kept: Sequence[str]) -> Recipe:
        own = self.params.quantize
        keep = (*own.keep_float, *(name for name in kept if name not in own.keep_float))
        return Recipe(self.params.rewrite, own.model_copy(update={"keep_float": keep}))

    def made(self, kept: Sequence[str], into: Path) -> Path:
        split, samples = self.split, self.split.artifacts / "samples"
        recipe = self.recipe(kept)
        return trial.make(self.params, self.key, recipe, split.checkpoint, samples, into)


def repair(
    params: Params, artifacts: Path, criteria: Sequence[Criterion], count: int, pattern: str = "*"
) -> str:
    """Mend what failed of the gate's ``criteria``; return what to print.

    Layers are those that ``pattern`` names, ``count`` the images that are judged on.

    Raises:
        GateError: no set of layers mends it; says how near all of them in float come.
        InputError: artifacts are missing, or there are no images beside the gate's.
    """
    mends, others = mendable(criteria)
    lines = [f"not to be mended by keep_float: {words(c)}: {c.note}" for c in others]
    if not mends:
        raise GateError("\n  ".join(["nothing that failed is mended by layers in float", *lines]))
    with trial.splitted(params, artifacts, count) as split:
        ranked = split.ranking(artifacts, RANKED_ON, pattern)
        bytes_more = {layer["name"]: layer["bytes_more"] for layer in ranked}
        kept: list[str] = []
        searches = []
        for key in quantized():
            wanted = frozenset(c.name for c in mends if c.subject == FORMATS[key].suffix)
            if not wanted:
                continue
            search = Search(params, split, key, wanted, bytes_more)
            found = search.fewest()
            if found is None:
                raise GateError("\n  ".join([_hopeless(search), *lines]))
            if not found:
                lines.append(
                    f"{FORMATS[key].suffix} passes as it is on {len(split.samples)} other images: "
                    "it is near its limit; raise samples.limit for a surer verdict"
                )
            searches.append(search)
            kept += [name for name in found if name not in kept]
        if not kept:
            return "\n".join(lines)
        for search in searches:
            lines.append(_cost(search, kept))
    lines += ["for params.yaml:", searches[0].recipe(kept).lines()]
    lines.append("then `make verdict`: the gate decides on its own samples")
    return "\n".join(lines)


def _hopeless(search: Search) -> str:
    near = "; ".join(map(words, search.criteria(tuple(search.bytes_more))))
    return (
        f"no set of layers in float makes {FORMATS[search.key].suffix} pass on "
        f"{len(search.split.samples)} images; all {len(search.bytes_more)} in float come to: {near}"
        ". Where one is undecided, raise --samples; else try `edge-vit tune`"
    )


def _cost(search: Search, kept: Sequence[str]) -> str:
    """Make the file and say what it costs beside the present one."""
    with tempfile.TemporaryDirectory() as folder:
        path, name = search.made(kept, Path(folder)), FORMATS[search.key].suffix
        _, seen = search.split.judged(search.params, search.key, path, f"{name}, made")
        if any(c.outcome == FAIL for c in seen) or not mended(seen, search.wanted):
            raise GateError(
                f"the fewest layers in float that mend {name} are {', '.join(kept)}, and the file "
                f"made with them fails: {'; '.join(map(words, seen))}"
            )
        ratio = _times(search, path)
        more_mb = (paths.size_bytes(path) - paths.size_bytes(search.present)) / 1e6
    before, after = (_instructions_m(search, some) for some in ((), kept))
    return (
        f"{name} with {', '.join(kept)} in float: {more_mb:+.2f} MB; {ratio.median:.2f} "
        f"[{ratio.interval.low:.2f}, {ratio.interval.high:.2f}] of its time on this machine; "
        f"{before:.1f} to {after:.1f} M instructions on ARM64, modelled; on "
        f"{len(search.split.samples)} other images: {'; '.join(map(words, seen))}"
    )


def _times(search: Search, path: Path) -> timing.Ratio:
    """Time of file ``path`` beside the present one's, on images of the split, one thread."""
    samples = search.split.samples
    runtimes = {"new": load(path), "now": load(search.present)}
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
