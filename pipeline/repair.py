"""``edge-vit repair``: the fewest layers to leave in float that make a refused run pass.

Reads the gate's verdict on artifacts/, ranks layers as `diagnose` does, adds them in that order
until what failed passes, then takes out each that is not needed. Everything is measured on images
that neither the gate nor calibration has (see `pipeline.trial`) and judged by the gate's own
criteria. The file found is then made and timed beside the present one. Nothing in artifacts/ but
artifacts/tuning is changed.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import trial
from pipeline.core import timing
from pipeline.core.criterion import NAMES, Criterion
from pipeline.core.errors import GateError, exit_on_error
from pipeline.core.params import Format, Params, load_params
from pipeline.core.tuning import SCHEMES, Recipe, fewest, judged, mendable, mended, words
from pipeline.runtimes import FloatArray
from pipeline.runtimes.parallel import Run, run_all
from pipeline.support import paths
from pipeline.support.contracts import MODEL_FILE
from pipeline.support.files import read_json

SAMPLES = 256
RANKING_SAMPLES = 32


@dataclass
class Search:
    """Measures sets of layers in float of one file; keeps what it measured."""

    params: Params
    split: trial.Split
    key: Format
    wanted: frozenset[str]  # criteria that failed at the gate
    present: Path  # the file as it is
    bytes_more: dict[str, int]  # by layer

    def __post_init__(self) -> None:
        self.found: dict[tuple[str, ...], list[Criterion]] = {}

    def passes(self, kept: tuple[str, ...]) -> bool:
        key = tuple(sorted(kept))
        if key not in self.found:
            self.found[key] = self._criteria(key)
        return mended(self.found[key], self.wanted)

    def nearest(self) -> list[Criterion]:
        """The criteria of the largest set, which is the nearest that layers in float come."""
        return self.found[max(self.found, key=len)]

    def _criteria(self, kept: tuple[str, ...]) -> list[Criterion]:
        said = f"{NAMES[self.key]}, {len(kept)} in float"
        if self.key == "ptl":
            # Restoring layers is what keep_float does, without making the file each time.
            size = paths.size_bytes(self.present) + sum(self.bytes_more[name] for name in kept)
            measured = self.split.measured(self.present, self._restored(kept, said), size)
        else:
            with tempfile.TemporaryDirectory() as folder:
                path = self.made(kept, Path(folder))
                logits = self.split.run(path, len(self.split.samples), said)
                measured = self.split.measured(path, logits)
        return judged(self.params.gate, self.key, measured, self.split.float_bytes)

    def _restored(self, kept: tuple[str, ...], said: str) -> FloatArray:
        folder = self.split.folder
        run = Run(
            "restored",
            folder / "quantized" / MODEL_FILE,
            len(self.split.samples),
            restored=kept,
            float_path=folder / "rewritten" / MODEL_FILE,
        )
        return run_all([run], folder / "samples", said)[run.key]

    def recipe(self, kept: Sequence[str]) -> Recipe:
        own = self.params.quantize
        keep = (*own.keep_float, *(name for name in kept if name not in own.keep_float))
        return Recipe(self.params.rewrite, own.model_copy(update={"keep_float": keep}))

    def made(self, kept: Sequence[str], into: Path) -> Path:
        return trial.make(self.key, self.recipe(kept), self.split.folder.parent, into)


def repair(
    params: Params, artifacts: Path, failed: Sequence[Criterion], count: int, pattern: str = "*"
) -> str:
    """Mend the ``failed`` criteria; return what to print.

    Raises:
        GateError: no set of layers mends them; says how near all of them in float came.
        InputError: artifacts are missing, or there are no images beside the gate's.
    """
    from pipeline.diagnose import diagnose

    mends, others = mendable(failed)
    lines = [f"not to be mended by keep_float: {words(c)}: {c.note}" for c in others]
    if not mends:
        raise GateError("\n  ".join(["nothing that failed is mended by layers in float", *lines]))
    split = trial.split(params, artifacts, artifacts / "tuning", count)
    diagnose(split.folder, split.folder / "diagnosis", min(count, RANKING_SAMPLES), pattern)
    ranking = read_json(split.folder / "diagnosis" / "layers.json")["layers"]
    bytes_more = {layer["name"]: layer["bytes_more"] for layer in ranking}
    kept: list[str] = []
    searches = []
    for key in SCHEMES:
        wanted = frozenset(c.name for c in mends if c.subject == NAMES[key])
        if not wanted:
            continue
        present = paths.delivered_file(artifacts, key)
        search = Search(params, split, key, wanted, present, bytes_more)  # type: ignore[arg-type]
        found = fewest(list(bytes_more), search.passes)
        if found is None:
            raise GateError("\n  ".join([*lines, _hopeless(search)]))
        if not found:
            lines.append(
                f"{NAMES[key]} passes on {len(split.samples)} other images as it is: what the gate "
                "saw is near its limit; more samples (samples.limit) would tell"
            )
        searches.append(search)
        kept += [name for name in found if name not in kept]
    if not kept:
        return "\n".join(lines)
    lines += [_cost(search, kept) for search in searches]
    lines += ["for params.yaml:", searches[0].recipe(kept).lines()]
    lines.append("then `make judge`: the gate decides on its own samples")
    return "\n".join(lines)


def _hopeless(search: Search) -> str:
    near = "; ".join(words(c) for c in search.nearest())
    return (
        f"no set of layers in float makes {NAMES[search.key]} pass on "
        f"{len(search.split.samples)} images; all {len(search.bytes_more)} in float come to: {near}"
        ". Where one is undecided, raise --samples; else try `edge-vit tune`"
    )


def _cost(search: Search, kept: Sequence[str]) -> str:
    """Make the file and say what it costs beside the present one."""
    with tempfile.TemporaryDirectory() as folder:
        made = search.made(kept, Path(folder))
        count = len(search.split.samples)
        measured = search.split.measured(made, search.split.run(made, count, "the file"))
        files = {"new": made, "now": search.present}
        times = trial.rounds(files, search.split.samples, trial.ROUNDS, "cost")
        ratio = timing.bootstrap_ratio(times["new"], times["now"])
        more = (paths.size_bytes(made) - paths.size_bytes(search.present)) / 1e6
    seen = judged(search.params.gate, search.key, measured, search.split.float_bytes)
    numbers = "; ".join(words(c) for c in seen)
    return (
        f"{NAMES[search.key]} with {len(kept)} layers more in float: {more:+.2f} MB, "
        f"{ratio.median:.2f} [{ratio.interval.low:.2f}, {ratio.interval.high:.2f}] of its time on "
        f"this machine, on {count} other images: {numbers}"
    )


def main(arguments: list[str] | None = None) -> None:
    from pipeline.gate import judge, load_evidence

    parser = argparse.ArgumentParser(prog="edge-vit repair", description=__doc__)
    parser.add_argument("--samples", type=int, default=SAMPLES, help="images (default %(default)s)")
    options = parser.parse_args(arguments)
    if options.samples < 1:
        parser.error("--samples must be at least 1")
    with exit_on_error():
        params = load_params()
        evidence = load_evidence(paths.ARTIFACTS, paths.Recorded())
        verdict: Any = judge(params, paths.ARTIFACTS, evidence)
        failed = [c for c in verdict.criteria if c.outcome == "fail"]
        if not failed:
            print("nothing failed: there is nothing to repair")
            return
        print(repair(params, paths.ARTIFACTS, failed, options.samples))


if __name__ == "__main__":
    main()
