"""``edge-vit tune``: search for the cheapest files that keep the gate's budgets.

Searches rewrites, schemes and the layers left in float (or dynamic) for the file of one format, by
Optuna's TPE sampler and, three of four trials, by Pareto local search; for instructions on ARM64
(modelled: `tuning.cost_model`), size and nearness to float at once. Each trial makes its file by
the stages themselves and measures it on images that neither the gate nor calibration has (see
`tuning.split`); on the first of them a bad one is given up. Trials are kept in
artifacts/tuning/trials.db: run again, the search goes on. At the end the files of all formats are
made by the cheapest recipes and, if it is as cheap, by that of params.yaml. The first with which
all files keep their budgets, or one as cheap whose files are nearer to float, is given as lines for
params.yaml; what is there already gives way only to what is clearly nearer. Time and memory are
left to the gate.
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

from pipeline.contract.files import MODEL_FILE
from pipeline.errors import EdgeVitError, InputError
from pipeline.files import atomic, sha256_file
from pipeline.formats import FORMATS, quantized
from pipeline.images.samples import CALIBRATION_FILE
from pipeline.metrics.measures import FloatComparison
from pipeline.params import Params, Quantize, Recipe, Rewrite
from pipeline.progress import progress
from pipeline.report.table import columns
from pipeline.tuning import split as trials
from pipeline.tuning.cost_model import Layer, from_efficient, instructions_m
from pipeline.tuning.space import (
    Result,
    Space,
    as_cheap,
    by_cost,
    dearest,
    frontier,
    hopeless,
    last,
    over_budget,
    pareto,
    violation,
    words,
)
from pipeline.verdict.criterion import Criterion

if TYPE_CHECKING:
    import optuna

DATABASE_FILE = "trials.db"
SAMPLES = 256
RANKED_ON = 8  # images
FEW = 32  # images on which a bad trial is given up
SLACK_DB = 3.0  # that the SQNR of few images may be below that of many
TRIALS, MINUTES = 200, 50.0
SAMPLED = 4  # one trial of so many is the sampler's, the others are steps
STARTUP = 12  # trials of its own before the sampler trusts what it saw
CONFIRMED = 5  # recipes of which the other formats' files are made, too, until one fits
CLEARLY_DB = 0.25  # that another must be nearer than the recipe of params.yaml (docs/adr/0032)
COMPARING = 10.0  # minutes in which others that are as cheap are still begun
LIMITS = "limits"  # the constraint's name
NOTHING_KNOWN = 1e6  # the violation of what could not be made or measured


@contextmanager
def _bars_of_others_hidden() -> Iterator[None]:
    """The stages' own bars would tear this one; what they say of an error is in the error."""
    with redirect_stderr(io.StringIO()):
        yield


@dataclass(frozen=True)
class Tuner:
    """Measures recipes for one format."""

    params: Params
    split: trials.Split
    space: Space
    layers: dict[bool, list[Layer]]  # in static_symmetric's form, or in the usual one

    def measure(self, trial: optuna.Trial) -> tuple[float, float, float]:
        """Make and measure what a trial suggests: instructions in millions, size of float, SQNR in
        dB."""
        import optuna

        lines = trial.user_attrs.get("recipe") or self.space.suggest(trial).lines()
        trial.set_user_attr("recipe", lines)
        done = (optuna.trial.TrialState.COMPLETE,)
        for earlier in trial.study.get_trials(deepcopy=False, states=done):
            if earlier.user_attrs["recipe"] == lines:
                for name in ("violation", "agreement", "criteria", "images"):
                    trial.set_user_attr(name, earlier.user_attrs[name])
                trial.set_constraint(LIMITS, earlier.user_attrs["violation"])
                return tuple(earlier.values)
        try:
            measured, criteria = self._of(Recipe.of(lines), f"trial {trial.number}")
            answers = measured.answers
            if not isinstance(answers, FloatComparison):
                raise InputError("answers with NaN or infinity")
        except EdgeVitError as error:
            trial.set_user_attr("reason", str(error))
            trial.set_constraint(LIMITS, NOTHING_KNOWN)
            raise optuna.TrialPruned from None
        cost = self.cost(Recipe.of(lines))
        beyond = violation(criteria) + over_budget(self.params.gate, self.space.key, cost)
        trial.set_constraint(LIMITS, beyond)
        trial.set_user_attr("violation", beyond)
        trial.set_user_attr("agreement", answers.top1_equal / answers.count)
        trial.set_user_attr("criteria", "; ".join(map(words, criteria)))
        trial.set_user_attr("images", answers.count)
        return cost, measured.size_bytes / self.split.float_bytes, answers.sqnr_db

    @property
    def own(self) -> Recipe:
        """That of params.yaml, which need not lie in the space."""
        return Recipe(self.params.rewrite, self.params.quantize)

    def cost(self, recipe: Recipe) -> float:
        key, quantize = self.space.key, recipe.quantize
        return instructions_m(key, quantize, self.layers[from_efficient(key, quantize)])

    def _of(self, recipe: Recipe, name: str) -> tuple[trials.MeasuredFile, list[Criterion]]:
        params, key = self.params, self.space.key
        with tempfile.TemporaryDirectory() as folder:
            path = trials.make(
                params, key, recipe, self.split.checkpoint, self.split.calibration, Path(folder)
            )
            few = self.split.judged(params, key, path, name, min(FEW, len(self.split.samples)))
            if len(self.split.samples) <= FEW or hopeless(few[1], SLACK_DB):
                return few
            return self.split.judged(params, key, path, name)

    def confirm(self, recipe: Recipe) -> tuple[float, float, list[str]]:
        """Make the files of all formats with all calibration images; return their violation, their
        mean SQNR in dB and what to say of each."""
        split, samples = self.split, self.split.artifacts / "samples"
        total, nearness, said = 0.0, [], []
        keys = [key for key in quantized() if key in self.params.formats]
        bar = progress(keys, desc="files of all formats", unit="file")
        with tempfile.TemporaryDirectory() as folder, _bars_of_others_hidden():
            for key in bar:
                try:
                    path = trials.make(
                        self.params, key, recipe, split.checkpoint, samples, Path(folder)
                    )
                    measured, criteria = split.judged(self.params, key, path, key)
                except EdgeVitError as error:
                    total += NOTHING_KNOWN
                    said.append(f"{key}: {error}")
                    continue
                total += violation(criteria)
                answers = measured.answers
                nearness.append(answers.sqnr_db if isinstance(answers, FloatComparison) else 0.0)
                said.append("; ".join(map(words, criteria)))
        return total, sum(nearness) / len(keys), said


def tune(
    params: Params,
    artifacts: Path,
    key: str,
    *,
    count: int = SAMPLES,
    most: int = TRIALS,
    minutes: float = MINUTES,
) -> str:
    """Search until there are ``most`` trials or ``minutes`` are over; return what to print.

    Raises:
        InputError: the format is off, optuna is not there, artifacts are missing, another search
            is at work, or there are no images beside the gate's.
    """
    if not minutes > 0:  # NaN, too
        raise InputError("--minutes must be above 0")

    if key not in params.formats:
        raise InputError(f"format {key} is off: it is not in formats of params.yaml")
    optuna = _optuna()
    with trials.splitted(params, artifacts, count) as split:
        study = _study(optuna, params, split, key)
        tuner = _tuner(params, split, key, study)
        _go_on(optuna, study, tuner)
        _search(optuna, study, tuner, most, minutes)
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


def _study(optuna: Any, params: Params, split: trials.Split, key: str) -> Any:
    """The study of exactly this question; another model, other images or limits have their own."""
    asked = [
        split.samples.sha256,
        sha256_file(split.checkpoint / MODEL_FILE),
        sha256_file(split.calibration / CALIBRATION_FILE),
        params.gate.model_dump(mode="json"),
        params.export_onnx.model_dump(mode="json"),
    ]
    digest = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:12]
    return optuna.create_study(
        storage=f"sqlite:///{split.folder / DATABASE_FILE}",
        study_name=f"{key}-{digest}",
        directions=["minimize", "minimize", "maximize"],
        sampler=optuna.samplers.TPESampler(n_startup_trials=STARTUP),
        load_if_exists=True,
    )


def _tuner(params: Params, split: trials.Split, key: str, study: Any) -> Tuner:
    """The ranking of layers is made once for a study: of the plain model in the format's scheme."""
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
        found = _ranked(split, Recipe(Rewrite(), quantize))
        # What is a linear layer only in static_symmetric's form is none to the other files.
        usual = set(weighted_layers(model))
        study.set_user_attr("ranking", [name for name in found if name in usual])
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


def _ranked(split: trials.Split, recipe: Recipe) -> list[str]:
    from pipeline.stages.quantize import quantize
    from pipeline.stages.rewrite import rewrite

    with tempfile.TemporaryDirectory() as name:
        rewritten, quantized = Path(name) / trials.REWRITTEN, Path(name) / trials.QUANTIZED
        rewrite(recipe.rewrite, split.checkpoint, split.calibration, rewritten)
        quantize(recipe.quantize, rewritten, split.calibration, quantized)
        return [layer["name"] for layer in split.ranking(Path(name), RANKED_ON)]


def _go_on(optuna: Any, study: Any, tuner: Tuner) -> None:
    """Close what a killed run left open, and put what must be tried first into the queue."""
    states = optuna.trial.TrialState
    for trial in study.get_trials(deepcopy=False, states=[states.RUNNING]):
        study.tell(trial.number, state=states.FAIL)
    kept = study.get_trials(states=[states.COMPLETE, states.PRUNED, states.WAITING])
    own = tuner.own.lines()
    if not any(trial.user_attrs.get("recipe") == own for trial in kept):
        study.enqueue_trial({}, user_attrs={"recipe": own})
    asked = [trial.system_attrs.get("fixed_params") for trial in kept]
    for fixed in tuner.space.first():
        if fixed not in asked:
            study.enqueue_trial(fixed)


def _search(optuna: Any, study: Any, tuner: Tuner, most: int, minutes: float) -> None:
    states = optuna.trial.TrialState
    done = study.get_trials(deepcopy=False, states=[states.COMPLETE, states.PRUNED])
    stream = sys.stderr
    with progress(total=most, initial=len(done), desc="tune", unit="trial") as bar:

        def note(_: Any, trial: Any) -> None:
            bar.update()
            said = trial.user_attrs.get("criteria") or trial.user_attrs.get("reason")
            bar.write(f"trial {trial.number}: {said}", file=stream)
            if trial.number % SAMPLED:
                step(study, tuner.space, tuner.cost)

        if len(done) < most:
            with _bars_of_others_hidden():
                study.optimize(
                    tuner.measure,
                    n_trials=most - len(done),
                    timeout=60 * minutes,
                    callbacks=[note],
                )


def step(study: Any, space: Space, cost: Callable[[Recipe], float]) -> None:
    """Unless trials are waiting, queue one that was not tried yet and differs in one choice from
    the first result that has such: a step of Pareto local search (Paquete, Chiarandini and Stützle,
    2004). First is the cheapest of the frontier; behind it come all that keep the limits and are as
    cheap, so that the search does not end where one change alone is no gain. From what keeps the
    limits no step goes to what is dearer by ``cost``."""
    import optuna

    trials = study.get_trials(deepcopy=False)
    if any(trial.state == optuna.trial.TrialState.WAITING for trial in trials):
        return
    tried = {trial.user_attrs["recipe"] for trial in trials if "recipe" in trial.user_attrs}
    found = results(study)
    fit = by_cost(found)
    for result in (*frontier(found), *(r for r in fit if as_cheap(r, fit[0]))):
        most = inf if result.violation else dearest(result)
        new = [
            values
            for values in space.neighbours(result.recipe)
            if (other := space.recipe(values)).lines() not in tried and cost(other) <= most
        ]
        if new:
            study.enqueue_trial(random.Random(len(trials)).choice(new))
            return


def results(study: Any) -> list[Result]:
    """The trials of a study that were measured, each recipe once."""
    import optuna

    found: dict[str, Result] = {}
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
        found.setdefault(trial.user_attrs["recipe"], result)
    return list(found.values())


def _report(study: Any, tuner: Tuner) -> str:
    found = results(study)
    front = by_cost(pareto(found))
    plot = tuner.split.folder / f"{tuner.space.key}.svg"
    _plot(found, front, plot)
    header = ("trial", "M instructions, ARM64, modelled", "size of float", "SQNR dB", "agreement")
    rows = [
        (r.number, f"{r.instructions_m:.1f}", f"{r.size_ratio:.3f}", f"{r.sqnr_db:.1f}",
         f"{r.agreement:.4f}")
        for r in front
    ]  # fmt: skip
    text = [f"{len(found)} recipes measured, {len(front)} that no other beats; {plot}"]
    if not front:
        text.append("none keeps every limit of gate.budgets")
        if nearest := min(found, key=lambda r: r.violation, default=None):
            text.append(f"the nearest: {study.trials[nearest.number].user_attrs['criteria']}")
        return "\n".join(text)
    table = columns(rows, header)
    return "\n".join([table, "", *text, *_last(found, tuner)])


def _last(found: list[Result], tuner: Tuner) -> list[str]:
    """Make all formats' files by the first recipes until one keeps every budget; compare those that
    are as cheap by how near all files are to float, as long as there is time."""
    text: list[str] = []
    best: tuple[float, Result, list[str]] | None = None
    started = time.monotonic()
    for result in last(found, tuner.own, CONFIRMED):
        late = time.monotonic() - started > 60 * COMPARING
        if best and (late or not as_cheap(result, best[1])):
            break
        beyond, nearness, said = tuner.confirm(result.recipe)
        if beyond:
            text += [f"trial {result.number} does not keep the limits of all formats:", *said]
            continue
        own = result.recipe == tuner.own
        whose = ", that of params.yaml" if own else ""
        text.append(
            f"trial {result.number}{whose}: {nearness:.2f} dB, the mean of all formats' files"
        )
        worth = nearness + (CLEARLY_DB if own else 0.0)
        if best is None or worth > best[0]:
            best = worth, result, said
    if best is None:
        text.append("no recipe keeps the limits of all formats; more trials, or other gate.budgets")
        return text
    return [*text, *_chosen(best[1], best[2], len(tuner.split.samples))]


def _chosen(result: Result, said: list[str], count: int) -> list[str]:
    return [
        f"the cheapest, trial {result.number}, on {count} images that the gate does not have:",
        *said,
        "for params.yaml:",
        result.recipe.lines(),
        "then `make verdict`: the gate decides on its own samples, and on time and memory",
    ]


def _plot(found: list[Result], front: list[Result], path: Path) -> None:
    """Cost against SQNR, size as colour: what keeps all limits as dots, the front numbered."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    with matplotlib.rc_context({"svg.hashsalt": "edge-vit", "font.size": 8}), atomic(path) as new:
        figure, axes = pyplot.subplots(figsize=(7, 4.5))
        sizes = [result.size_ratio for result in found] or [0.0]
        for fit, marker, label in ((True, "o", "keeps all limits"), (False, "x", "does not")):
            some = [r for r in found if (r.violation == 0) is fit]
            drawn = axes.scatter(
                [r.instructions_m for r in some],
                [r.sqnr_db for r in some],
                c=[r.size_ratio for r in some],
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
