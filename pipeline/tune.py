"""``edge-vit tune``: search for the cheapest file that keeps the gate's budgets.

Searches rewrites, schemes and the layers left in float for one format, by Optuna's TPE sampler, for
size, time and nearness to float at once. The defaults, the tutorials' recipe and what `diagnose`
proposes are tried first. Each trial makes its file in a temporary folder by the stages themselves
and measures it on images that neither the gate nor calibration has (see `pipeline.trial`); on the
first of them a bad one is given up. Trials are kept in artifacts/tuning/trials.db: run again, the
search goes on. Time is measured as a ratio to float on this machine; for instructions on ARM64 run
`make device-test` on the winner.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

from tabulate import tabulate

from pipeline import trial as trials
from pipeline.core import timing
from pipeline.core.errors import EdgeVitError, InputError, exit_on_error
from pipeline.core.params import Format, Params, load_params
from pipeline.core.tuning import (
    SCHEMES,
    Recipe,
    Result,
    Space,
    cheapest,
    hopeless,
    judged,
    pareto,
    timed,
    violation,
    words,
)
from pipeline.support import paths
from pipeline.support.contracts import MODEL_FILE
from pipeline.support.files import atomic, read_json
from pipeline.support.machine import fingerprint

if TYPE_CHECKING:
    import optuna

DATABASE_FILE = "trials.db"
SAMPLES = 256
FEW = 32  # images on which a bad trial is given up
SLACK_DB = 3.0  # that the SQNR of few images may be below that of many
RANKING_SAMPLES = 32
TRIALS, MINUTES = 200, 60.0
OWN = "params.yaml"


@dataclass(frozen=True)
class Tuner:
    """Measures recipes for one format."""

    params: Params
    artifacts: Path
    split: trials.Split
    space: Space
    rounds: int = trials.ROUNDS

    def measure(self, trial: optuna.Trial) -> tuple[float, float, float]:
        """Make and measure what a trial suggests; size and time of float, SQNR in dB."""
        import optuna

        recipe = self.recipe(trial)
        trial.set_user_attr("recipe", recipe.lines())
        for earlier in trial.study.get_trials(states=[optuna.trial.TrialState.COMPLETE]):
            if earlier.user_attrs["recipe"] == recipe.lines():
                for name in ("violation", "agreement", "criteria"):
                    trial.set_user_attr(name, earlier.user_attrs[name])
                return cast(tuple[float, float, float], tuple(earlier.values))
        with tempfile.TemporaryDirectory() as folder:
            try:
                path = trials.make(self.space.key, recipe, self.artifacts, Path(folder))
            except EdgeVitError as error:
                trial.set_user_attr("reason", str(error))
                raise optuna.TrialPruned from None
            return self._of(trial, path)

    def recipe(self, trial: optuna.Trial) -> Recipe:
        if trial.user_attrs.get("from") == OWN:  # need not lie in the space
            return Recipe(self.params.rewrite, self.params.quantize)
        return self.space.suggest(trial)

    def _of(self, trial: optuna.Trial, path: Path) -> tuple[float, float, float]:
        import optuna

        gate, key, name = self.params.gate, self.space.key, f"trial {trial.number}"
        count = len(self.split.samples)
        if count > FEW:
            few = self.split.measured(path, self.split.run(path, FEW, f"{name}, few"))
            seen = judged(gate, key, few, self.split.float_bytes)
            if hopeless(seen, SLACK_DB):
                trial.set_user_attr("reason", "; ".join(map(words, seen)))
                raise optuna.TrialPruned
        measured = self.split.measured(path, self.split.run(path, count, name))
        if not measured["finite"]:
            trial.set_user_attr("reason", "answers with NaN or infinity")
            raise optuna.TrialPruned
        files = {key: path, trials.FLOAT: self.artifacts / "checkpoint" / MODEL_FILE}
        runs = trials.rounds(files, self.split.samples, self.rounds, f"{name}, time")
        criteria = judged(gate, key, measured, self.split.float_bytes)
        criteria += timed(gate, key, runs, fingerprint()["processor"])
        trial.set_user_attr("violation", violation(criteria))
        trial.set_user_attr("agreement", measured["top1_equal"] / measured["count"])
        trial.set_user_attr("criteria", "; ".join(map(words, criteria)))
        ratio = timing.bootstrap_ratio(runs[key], runs[trials.FLOAT]).median
        return measured["size_bytes"] / self.split.float_bytes, ratio, measured["sqnr_db"]


def tune(
    params: Params,
    artifacts: Path,
    key: Format,
    *,
    count: int = SAMPLES,
    most: int = TRIALS,
    minutes: float = MINUTES,
    rounds: int = trials.ROUNDS,
) -> str:
    """Search until there are ``most`` trials or ``minutes`` are over; return what to print.

    Raises:
        InputError: optuna is not there, artifacts are missing, another search is at work, or
            there are no images beside the gate's.
    """
    optuna = _optuna()
    folder = artifacts / "tuning"
    split = trials.split(params, artifacts, folder, count)
    with _alone(folder):
        space, proposed = _space(params, key, split)
        tuner = Tuner(params, artifacts, split, space, rounds)
        study = _study(optuna, folder / DATABASE_FILE, tuner)
        _go_on(optuna, study, space.first(proposed))
        _search(optuna, study, tuner, most, minutes)
        return _report(study, params, key, folder)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise InputError(
            "edge-vit tune needs Optuna; install it with: pip install -e '.[tune]'"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    from filelock import FileLock, Timeout

    try:
        with FileLock(folder / "lock", timeout=0):
            yield
    except Timeout:
        raise InputError(f"another edge-vit tune is at work in {folder}; wait for it") from None


def _space(params: Params, key: Format, split: trials.Split) -> tuple[Space, int]:
    """The space, and how many layers of the ranking `diagnose` proposes to leave in float."""
    from pipeline.diagnose import diagnose
    from pipeline.support.quantized import load_model
    from pipeline.support.rewrites import joins

    ranking = split.folder / "diagnosis" / "layers.json"
    if not ranking.is_file() or read_json(ranking)["samples_sha256"] != split.samples.sha256:
        count = min(RANKING_SAMPLES, len(split.samples))
        diagnose(split.folder, split.folder / "diagnosis", count)
    found = read_json(ranking)
    model, _ = load_model(split.folder / "checkpoint" / MODEL_FILE)
    return Space(
        key=key,
        transformer=bool(joins(model)),
        ranking=tuple(layer["name"] for layer in found["layers"]),
        fused_attention=params.quantize.fused_attention,
    ), len(found["keep_float"])


def _study(optuna: Any, database: Path, tuner: Tuner) -> Any:
    """The study of exactly this question; another model, other images or limits have their own."""
    params, split = tuner.params, tuner.split
    asked = [
        tuner.space.key,
        split.samples.sha256,
        read_json(split.folder / trials.ABOUT_FILE)["checkpoint_sha256"],
        params.gate.model_dump(mode="json"),
        Recipe(params.rewrite, params.quantize).lines(),
        tuner.space.ranking,
    ]
    digest = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:12]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(
            n_startup_trials=20, constraints_func=lambda t: (t.user_attrs.get("violation", 1.0),)
        )
    return optuna.create_study(
        storage=f"sqlite:///{database}",
        study_name=f"{tuner.space.key}-{digest}",
        directions=["minimize", "minimize", "maximize"],
        sampler=sampler,
        load_if_exists=True,
    )


def _go_on(optuna: Any, study: Any, first: list[dict[str, Any]]) -> None:
    """Close what a killed run left open, and put what must be tried first into the queue."""
    states = optuna.trial.TrialState
    for trial in study.get_trials(deepcopy=False, states=[states.RUNNING]):
        study.tell(trial.number, state=states.FAIL)
    kept = study.get_trials(states=[states.COMPLETE, states.PRUNED, states.WAITING])
    if not any(trial.user_attrs.get("from") == OWN for trial in kept):
        study.enqueue_trial({}, user_attrs={"from": OWN})
    done = [trial.system_attrs.get("fixed_params") for trial in kept]
    for fixed in first:
        if fixed not in done:
            study.enqueue_trial(fixed)


def _search(optuna: Any, study: Any, tuner: Tuner, most: int, minutes: float) -> None:
    from tqdm import tqdm

    states = optuna.trial.TrialState
    done = study.get_trials(states=[states.COMPLETE, states.PRUNED])
    with tqdm(total=most, initial=len(done), desc="tune", unit="trial") as bar:

        def note(_: Any, trial: Any) -> None:
            bar.update()
            bar.write(f"trial {trial.number}: {trial.user_attrs.get('criteria') or _why(trial)}")

        if len(done) < most:
            study.optimize(
                tuner.measure,
                n_trials=most - len(done),
                timeout=60 * minutes,
                callbacks=[note],
            )


def _why(trial: Any) -> str:
    return f"given up: {trial.user_attrs.get('reason', 'interrupted')}"


def results(study: Any) -> list[Result]:
    """The trials of a study that were measured to their end, each recipe once."""
    import optuna

    found = {}
    for trial in study.get_trials(states=[optuna.trial.TrialState.COMPLETE]):
        size, latency, sqnr = trial.values
        found.setdefault(
            trial.user_attrs["recipe"],
            Result(
                number=trial.number,
                size_ratio=size,
                latency_ratio=latency,
                sqnr_db=sqnr,
                agreement=trial.user_attrs["agreement"],
                violation=trial.user_attrs["violation"],
            ),
        )
    return [replace(result, recipe=recipe) for recipe, result in found.items()]


def _report(study: Any, params: Params, key: Format, folder: Path) -> str:
    found = results(study)
    front, best = pareto(found), cheapest(found, params.gate.latency_noise)
    plot = folder / f"{key}.svg"
    _plot(found, front, best, plot)
    header = ("trial", "size of float", "time of float", "SQNR dB", "agreement")
    rows = [
        (r.number, f"{r.size_ratio:.3f}", f"{r.latency_ratio:.2f}", f"{r.sqnr_db:.1f}", r.agreement)
        for r in front
    ]
    text = [f"{len(study.trials)} trials, {len(found)} measured to their end; {plot}"]
    if best is None:
        nearest = min(found, key=lambda r: r.violation, default=None)
        text.append("none keeps every limit of gate.budgets")
        if nearest is not None:
            text.append(f"the nearest: {study.trials[nearest.number].user_attrs['criteria']}")
        return "\n".join(text)
    return "\n".join(
        [
            tabulate(rows, header),
            "",
            *text,
            f"the cheapest, trial {best.number}, on images that the gate does not have:",
            study.trials[best.number].user_attrs["criteria"],
            "for params.yaml:",
            str(best.recipe),
            "then `make judge`: the gate decides on its own samples; instructions on ARM64: "
            "`make device-test TARGETS=arm64`",
        ]
    )


def _plot(found: list[Result], front: list[Result], best: Result | None, path: Path) -> None:
    """Time against SQNR, size as colour; what keeps all limits is filled, the choice ringed."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    with matplotlib.rc_context({"svg.hashsalt": "edge-vit", "font.size": 8}), atomic(path) as new:
        figure, axes = pyplot.subplots(figsize=(7, 4.5))
        for fit, marker, label in ((True, "o", "keeps all limits"), (False, "x", "does not")):
            some = [r for r in found if (r.violation == 0) is fit]
            if some:
                drawn = axes.scatter(
                    [r.latency_ratio for r in some],
                    [r.sqnr_db for r in some],
                    c=[r.size_ratio for r in some],
                    marker=marker,
                    label=label,
                    vmin=min(r.size_ratio for r in found),
                    vmax=max(r.size_ratio for r in found) + 1e-9,
                )
        for result in front:
            axes.annotate(str(result.number), (result.latency_ratio, result.sqnr_db))
        if best:
            ring = {"s": 140, "facecolors": "none", "edgecolors": "#c0392b"}
            axes.scatter([best.latency_ratio], [best.sqnr_db], label="chosen", **ring)
        axes.set_xlabel("time of float, this machine")
        axes.set_ylabel("SQNR, dB")
        if found:
            figure.colorbar(drawn, label="size of float")
            axes.legend()
        figure.tight_layout()
        figure.savefig(new, format="svg", metadata={"Date": None})
        pyplot.close(figure)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="edge-vit tune", description=__doc__)
    parser.add_argument("--format", choices=tuple(SCHEMES), default="ptl")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="(default %(default)s)")
    parser.add_argument("--trials", type=int, default=TRIALS, help="in all (default %(default)s)")
    parser.add_argument("--samples", type=int, default=SAMPLES, help="images (default %(default)s)")
    given = parser.parse_args(arguments)
    if given.samples < 1 or given.trials < 1 or not given.minutes > 0:
        parser.error("--samples, --trials and --minutes must be above 0")
    assert given.format in get_args(Format)
    with exit_on_error():
        print(
            tune(
                load_params(),
                paths.ARTIFACTS,
                given.format,
                count=given.samples,
                most=given.trials,
                minutes=given.minutes,
            )
        )


if __name__ == "__main__":
    main()
