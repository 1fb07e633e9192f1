"""``edge-vit tune``: search for the cheapest files that keep the gate's budgets.

Searches rewrites, schemes and the layers left in float (or dynamic) for the file of one format, by
Optuna's TPE sampler and, three of four trials, by Pareto local search. Objectives are instructions
on ARM64 (modelled: `tuning.cost_model`), size and SQNR. Each trial makes its file by the stages
themselves and measures it on images that neither the gate nor calibration has (see `tuning.split`);
a bad one is stopped after the first of them. Trials are kept in artifacts/tuning/trials.db: run it
again, and the search resumes. At the end the files of all formats are made by the cheapest recipes
and, if it is as cheap, by that of params.yaml. Of those whose files keep every budget, the one with
the highest SQNR is printed as lines for params.yaml; what is there already is replaced only by a
gain of at least 0.25 dB. Time and memory are left to the gate.
"""

from __future__ import annotations

import hashlib
import io
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import paths
from pipeline.contract.files import MODEL_FILE
from pipeline.errors import EdgeVitError, InputError
from pipeline.files import atomic, sha256_file
from pipeline.formats import FORMATS, quantized
from pipeline.images.samples import CALIBRATION_FILE
from pipeline.metrics.measures import FloatComparison
from pipeline.params import Params, Quantize, Recipe, Rewrite
from pipeline.progress import progress
from pipeline.quantization.auto import settle_params
from pipeline.report.table import columns
from pipeline.tuning.cost_model import from_efficient, instructions_m
from pipeline.tuning.criteria import describe, early_stop, over_budget, violation
from pipeline.tuning.pareto import (
    Result,
    as_cheap,
    by_cost,
    cost_ceiling,
    pareto_front,
    shortlist,
    violation_front,
)
from pipeline.tuning.space import Space
from pipeline.tuning.split import QUANTIZED, REWRITTEN, MeasuredFile, Split, make, tuning_split
from pipeline.verdict.criterion import Criterion

if TYPE_CHECKING:
    import optuna

    from pipeline.quantization.layer_sizes import Layer

DATABASE_FILE = "trials.db"
SAMPLES = 256
RANKED_ON = 8  # images
EARLY_STOP_ON = 32  # images
SLACK_DB = 3.0  # that the SQNR of few images may be below that of many
TRIALS, MINUTES = 200, 50.0
SAMPLER_EVERY = 4  # one trial of so many is the sampler's, the others are of the local search
STARTUP_TRIALS = 12  # before the sampler models what it saw
FINALISTS = 5  # recipes of which the other formats' files are made, too, until one fits
MIN_GAIN_DB = 0.25  # for which the recipe of params.yaml is replaced (docs/adr/0032)
COMPARE_MINUTES = 10.0  # in which other finalists that are as cheap are still begun
CONSTRAINT = "limits"
UNMEASURED = 1e6  # the violation of what could not be made or measured


@contextmanager
def _stage_bars_hidden() -> Iterator[None]:
    """Hide the stages' own bars, which would tear this one; errors say what matters of them."""
    with redirect_stderr(io.StringIO()):
        yield


@dataclass(frozen=True)
class Tuner:
    """Measures recipes for one format."""

    params: Params
    split: Split
    space: Space
    layers: dict[bool, list[Layer]]  # in static_symmetric's form, or in the usual one

    def measure(self, trial: optuna.Trial) -> tuple[float, float, float]:
        """Make and measure what a trial suggests.

        Returns:
            Instructions in millions, size as a share of float's, SQNR in dB.

        Raises:
            optuna.TrialPruned: the file cannot be made, or answers with NaN.
        """
        import optuna

        lines = trial.user_attrs.get("recipe") or self._suggested(trial).lines()
        trial.set_user_attr("recipe", lines)
        complete = (optuna.trial.TrialState.COMPLETE,)
        for earlier in trial.study.get_trials(deepcopy=False, states=complete):
            if earlier.user_attrs["recipe"] == lines:
                for name in ("violation", "agreement", "criteria", "images"):
                    trial.set_user_attr(name, earlier.user_attrs[name])
                trial.set_constraint(CONSTRAINT, earlier.user_attrs["violation"])
                return tuple(earlier.values)
        try:
            measured, criteria = self._measured(Recipe.of(lines), f"trial {trial.number}")
            answers = measured.answers
            if not isinstance(answers, FloatComparison):
                raise InputError("answers with NaN or infinity")
        except EdgeVitError as error:
            trial.set_user_attr("reason", str(error))
            trial.set_constraint(CONSTRAINT, UNMEASURED)
            raise optuna.TrialPruned from None
        cost = self.cost(Recipe.of(lines))
        beyond = violation(criteria) + over_budget(self.params.gate, self.space.key, cost)
        trial.set_constraint(CONSTRAINT, beyond)
        trial.set_user_attr("violation", beyond)
        trial.set_user_attr("agreement", answers.top1_equal / answers.count)
        trial.set_user_attr("criteria", "; ".join(map(describe, criteria)))
        trial.set_user_attr("images", answers.count)
        return cost, measured.size_bytes / self.split.float_bytes, answers.sqnr_db

    @property
    def configured(self) -> Recipe:
        """The recipe of params.yaml, which need not lie in the space."""
        return Recipe(self.params.rewrite, self.params.quantize)

    def cost(self, recipe: Recipe) -> float:
        """Return the modelled cost of a recipe, in million instructions."""
        key, quantize = self.space.key, recipe.quantize
        return instructions_m(key, quantize, self.layers[from_efficient(key, quantize)])

    def _suggested(self, trial: optuna.Trial) -> Recipe:
        return self.space.recipe(self.space.assign(trial.suggest_categorical))

    def _measured(self, recipe: Recipe, label: str) -> tuple[MeasuredFile, list[Criterion]]:
        params, key, split = self.params, self.space.key, self.split
        with tempfile.TemporaryDirectory() as folder:
            path = make(params, key, recipe, split.checkpoint, split.calibration, Path(folder))
            count = min(EARLY_STOP_ON, len(split.samples))
            measured, criteria = split.judged(params, key, path, label, count)
            if count == len(split.samples) or early_stop(criteria, SLACK_DB):
                return measured, criteria
            return split.judged(params, key, path, label)

    def confirm(self, recipe: Recipe) -> tuple[float, float, list[str]]:
        """Make the files of all formats with all calibration images.

        Returns:
            Their violation, their mean SQNR in dB, and a line on each.
        """
        split, samples = self.split, self.split.artifacts / "samples"
        total, sqnrs, lines = 0.0, [], []
        keys = [key for key in quantized() if key in self.params.formats]
        bar = progress(keys, desc="files of all formats", unit="file")
        with tempfile.TemporaryDirectory() as folder, _stage_bars_hidden():
            for key in bar:
                try:
                    path = make(self.params, key, recipe, split.checkpoint, samples, Path(folder))
                    measured, criteria = split.judged(self.params, key, path, key)
                except EdgeVitError as error:
                    total += UNMEASURED
                    lines.append(f"{key}: {error}")
                    continue
                total += violation(criteria)
                answers = measured.answers
                sqnrs.append(answers.sqnr_db if isinstance(answers, FloatComparison) else 0.0)
                lines.append("; ".join(map(describe, criteria)))
        return total, sum(sqnrs) / len(keys), lines


def tune(
    params: Params,
    artifacts: Path,
    key: str,
    *,
    count: int = SAMPLES,
    max_trials: int = TRIALS,
    minutes: float = MINUTES,
) -> str:
    """Search until there are ``max_trials`` trials or ``minutes`` are over; return what to print.

    Raises:
        InputError: the format is off, optuna is not installed, artifacts are missing, another
            search is running, or there are no images beside the gate's.
    """
    if not minutes > 0:  # NaN, too
        raise InputError("--minutes must be above 0")

    if key not in params.formats:
        raise InputError(f"format {key} is off: it is not in formats of params.yaml")
    optuna = _optuna()
    params = settle_params(params, artifacts / paths.CHECKPOINT.name)
    with tuning_split(params, artifacts, count) as split:
        study = _study(optuna, params, split, key)
        tuner = _tuner(params, split, key, study)
        _resume(optuna, study, tuner)
        _search(optuna, study, tuner, max_trials, minutes)
        return _report(study, tuner)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise InputError(
            "edge-vit tune needs Optuna; install it with: pip install -e '.[tune]'"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _study(optuna: Any, params: Params, split: Split, key: str) -> Any:
    """Return the study of this question; another model, other images or limits have their own."""
    question = [
        split.samples.sha256,
        sha256_file(split.checkpoint / MODEL_FILE),
        sha256_file(split.calibration / CALIBRATION_FILE),
        params.gate.model_dump(mode="json"),
        params.export_onnx.model_dump(mode="json"),
    ]
    digest = hashlib.sha256(json.dumps(question).encode()).hexdigest()[:12]
    return optuna.create_study(
        storage=f"sqlite:///{split.folder / DATABASE_FILE}",
        study_name=f"{key}-{digest}",
        directions=["minimize", "minimize", "maximize"],
        sampler=optuna.samplers.TPESampler(n_startup_trials=STARTUP_TRIALS),
        load_if_exists=True,
    )


def _tuner(params: Params, split: Split, key: str, study: Any) -> Tuner:
    """Rank the layers once for a study: of the plain model in the format's scheme."""
    from pipeline.models.equivalent import foldable_norms
    from pipeline.quantization.layer_names import weighted_layers
    from pipeline.quantization.load import load_model
    from pipeline.tuning.layer_sizes import layers

    checkpoint = split.checkpoint
    model, _ = load_model(checkpoint / MODEL_FILE)
    transformer = bool(foldable_norms(model))
    if "ranking" not in study.user_attrs:
        symmetric = FORMATS[key].takes_symmetric and transformer
        quantize = Quantize(scheme="static_symmetric") if symmetric else Quantize()
        ranking = _ranked(split, Recipe(Rewrite(), quantize))
        # What is a linear layer only in static_symmetric's form is none to the other files.
        usual = set(weighted_layers(model))
        study.set_user_attr("ranking", [name for name in ranking if name in usual])
    space = Space(
        key=key,
        transformer=transformer,
        ranking=tuple(study.user_attrs["ranking"]),
        fused_attention=params.quantize.fused_attention,
        rounding=params.quantize.rounding,
    )
    return Tuner(
        params,
        split,
        space,
        {efficient: layers(checkpoint, efficient=efficient) for efficient in (False, True)},
    )


def _ranked(split: Split, recipe: Recipe) -> list[str]:
    from pipeline.stages.quantize import quantize
    from pipeline.stages.rewrite import rewrite

    with tempfile.TemporaryDirectory() as name:
        rewritten, quantized = Path(name) / REWRITTEN, Path(name) / QUANTIZED
        rewrite(recipe.rewrite, split.checkpoint, split.calibration, rewritten)
        quantize(recipe.quantize, rewritten, split.calibration, quantized)
        return [layer["name"] for layer in split.ranking(Path(name), RANKED_ON)]


def _resume(optuna: Any, study: Any, tuner: Tuner) -> None:
    """Close what a killed run left open, and queue what must be tried first."""
    states = optuna.trial.TrialState
    for trial in study.get_trials(deepcopy=False, states=[states.RUNNING]):
        study.tell(trial.number, state=states.FAIL)
    kept = study.get_trials(states=[states.COMPLETE, states.PRUNED, states.WAITING])
    configured = tuner.configured.lines()
    if not any(trial.user_attrs.get("recipe") == configured for trial in kept):
        study.enqueue_trial({}, user_attrs={"recipe": configured})
    queued = [trial.system_attrs.get("fixed_params") for trial in kept]
    for values in tuner.space.starting_points():
        if values not in queued:
            study.enqueue_trial(values)


def _search(optuna: Any, study: Any, tuner: Tuner, max_trials: int, minutes: float) -> None:
    states = optuna.trial.TrialState
    done = study.get_trials(deepcopy=False, states=[states.COMPLETE, states.PRUNED])
    stream = sys.stderr
    with progress(total=max_trials, initial=len(done), desc="tune", unit="trial") as bar:

        def after_trial(_: Any, trial: Any) -> None:
            bar.update()
            outcome = trial.user_attrs.get("criteria") or trial.user_attrs.get("reason")
            bar.write(f"trial {trial.number}: {outcome}", file=stream)
            if trial.number % SAMPLER_EVERY:
                enqueue_neighbour(study, tuner.space, tuner.cost)

        if len(done) < max_trials:
            with _stage_bars_hidden():
                study.optimize(
                    tuner.measure,
                    n_trials=max_trials - len(done),
                    timeout=60 * minutes,
                    callbacks=[after_trial],
                )


def enqueue_neighbour(study: Any, space: Space, cost: Callable[[Recipe], float]) -> None:
    """Queue one move of Pareto local search, unless trials are waiting.

    The move (Paquete, Chiarandini and Stützle, 2004) goes to an untried recipe that differs in one
    parameter from the first result that has such a neighbour. First is the cheapest of the front of
    cost against violation; behind it come all feasible ones that are as cheap as the cheapest, so
    that the search does not end where one change alone is no gain. From a feasible result no move
    goes to what is more expensive by ``cost``, in million instructions.
    """
    import optuna

    trials = study.get_trials(deepcopy=False)
    if any(trial.state == optuna.trial.TrialState.WAITING for trial in trials):
        return
    tried = {trial.user_attrs["recipe"] for trial in trials if "recipe" in trial.user_attrs}
    measured = results(study)
    ordered = by_cost(measured)
    for result in (*violation_front(measured), *(r for r in ordered if as_cheap(r, ordered[0]))):
        ceiling = inf if result.violation else cost_ceiling(result)
        untried = [
            values
            for values in space.neighbours(result.recipe)
            if (other := space.recipe(values)).lines() not in tried and cost(other) <= ceiling
        ]
        if untried:
            study.enqueue_trial(random.Random(len(trials)).choice(untried))
            return


def results(study: Any) -> list[Result]:
    """Return the trials of a study that were measured, each recipe once."""
    import optuna

    by_recipe: dict[str, Result] = {}
    for trial in study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.COMPLETE]):
        cost, size, sqnr = trial.values
        result = Result(
            number=trial.number,
            instructions_m=cost,
            size_ratio=size,
            sqnr_db=sqnr,
            agreement=trial.user_attrs["agreement"],
            violation=trial.user_attrs["violation"],
            recipe=Recipe.of(trial.user_attrs["recipe"]),
        )
        by_recipe.setdefault(trial.user_attrs["recipe"], result)
    return list(by_recipe.values())


def _report(study: Any, tuner: Tuner) -> str:
    measured = results(study)
    front = by_cost(pareto_front(measured))
    plot = tuner.split.folder / f"{tuner.space.key}.svg"
    _plot(measured, front, plot)
    header = ("trial", "M instructions, ARM64, modelled", "size of float", "SQNR dB", "agreement")
    rows = [
        (r.number, f"{r.instructions_m:.1f}", f"{r.size_ratio:.3f}", f"{r.sqnr_db:.1f}",
         f"{r.agreement:.4f}")
        for r in front
    ]  # fmt: skip
    text = [f"{len(measured)} recipes measured, {len(front)} on the Pareto front; {plot}"]
    if not front:
        text.append("none keeps every limit of gate.budgets")
        if closest := min(measured, key=lambda r: r.violation, default=None):
            text.append(f"the closest: {study.trials[closest.number].user_attrs['criteria']}")
        return "\n".join(text)
    table = columns(rows, header)
    return "\n".join([table, "", *text, *_recommended(measured, tuner)])


def _recommended(measured: list[Result], tuner: Tuner) -> list[str]:
    """Make all formats' files by the first recipes until one keeps every budget.

    Those that are as cheap are compared by the mean SQNR of their files, while there is time.
    """
    text: list[str] = []
    best: tuple[float, Result, list[str]] | None = None
    started = time.monotonic()
    for result in shortlist(measured, tuner.configured, FINALISTS):
        late = time.monotonic() - started > 60 * COMPARE_MINUTES
        if best and (late or not as_cheap(result, best[1])):
            break
        beyond, sqnr_db, lines = tuner.confirm(result.recipe)
        if beyond:
            text += [f"trial {result.number} does not keep the limits of all formats:", *lines]
            continue
        is_configured = result.recipe == tuner.configured
        whose = ", that of params.yaml" if is_configured else ""
        text.append(
            f"trial {result.number}{whose}: {sqnr_db:.2f} dB, the mean of all formats' files"
        )
        score = sqnr_db + (MIN_GAIN_DB if is_configured else 0.0)
        if best is None or score > best[0]:
            best = score, result, lines
    if best is None:
        text.append("no recipe keeps the limits of all formats; more trials, or other gate.budgets")
        return text
    _, result, lines = best
    count = len(tuner.split.samples)
    return [
        *text,
        f"the cheapest, trial {result.number}, on {count} images that the gate does not have:",
        *lines,
        "for params.yaml:",
        result.recipe.lines(),
        "then `make verdict`: the gate decides on its own samples, and on time and memory",
    ]


def _plot(measured: list[Result], front: list[Result], path: Path) -> None:
    """Cost against SQNR, size as colour: what keeps all limits as dots, the front numbered."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    with matplotlib.rc_context({"svg.hashsalt": "edge-vit", "font.size": 8}), atomic(path) as new:
        figure, axes = pyplot.subplots(figsize=(7, 4.5))
        sizes = [result.size_ratio for result in measured] or [0.0]
        for keeps, marker, label in ((True, "o", "keeps all limits"), (False, "x", "does not")):
            shown = [r for r in measured if (r.violation == 0) is keeps]
            drawn = axes.scatter(
                [r.instructions_m for r in shown],
                [r.sqnr_db for r in shown],
                c=[r.size_ratio for r in shown],
                marker=marker,
                label=label,
                vmin=min(sizes),
                vmax=max(sizes) + 1e-9,
            )
        for result in front:
            axes.annotate(
                str(result.number),
                (result.instructions_m, result.sqnr_db),
                xytext=(5, -3),  # beside its dot
                textcoords="offset points",
            )
        axes.set_xlabel("million instructions on ARM64, modelled")
        axes.set_ylabel("SQNR, dB")
        figure.colorbar(drawn, label="size of float")
        axes.legend()
        figure.tight_layout()
        figure.savefig(new, format="svg", metadata={"Date": None})
        pyplot.close(figure)
