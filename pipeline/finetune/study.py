"""What distillation changes: the same student by several methods, over seeds, with intervals.

``python -m pipeline.finetune.study`` runs ``finetune/study.yaml`` and writes ``study.json`` beside
it. Finished runs are kept; an interrupted study resumes with the run it was at.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

from pydantic import Field

from pipeline.errors import exit_on_error
from pipeline.finetune.evaluate import Measured
from pipeline.finetune.params import (
    ARTIFACTS,
    METRICS_FILE,
    TEACHER,
    TRAIN,
    WEIGHTS_FILE,
    Data,
    Distillation,
    FinetuneParams,
    Model,
    Run,
    Teacher,
    Training,
    check,
)
from pipeline.schema import Section, load

STUDY_FILE = Path("finetune/study.yaml")
ANSWERS_FILE = "answers.json"


class Method(Section):
    """One way to train the student."""

    name: str = Field(pattern=r"^[a-z0-9_-]+$")  # of a folder, too
    architecture: str | None = Field(default=None, min_length=1)  # null: model's
    distillation: Distillation


class Study(Section):
    """The whole of ``finetune/study.yaml``: a student and its teacher, seeds and methods."""

    data: Data
    model: Model
    train: Training
    teacher: Teacher
    run: Run = Run()
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=2)]
    methods: Annotated[tuple[Method, ...], Field(min_length=2)]  # the others against the first

    def params(self, method: Method, seed: int) -> FinetuneParams:
        """Return the parameters of one run."""
        architecture = method.architecture or self.model.architecture
        return FinetuneParams(
            data=self.data,
            model=self.model.model_copy(update={"architecture": architecture}),
            train=self.train,
            teacher=self.teacher,
            distillation=method.distillation,
            run=self.run.model_copy(update={"seed": seed}),
        )


def run_study(study: Study, artifacts: Path, record: Path) -> None:
    """Train and measure every method with every seed; write the summary to ``record``.

    All runs learn from one teacher, made with the first seed.

    Raises:
        InputError: as :func:`pipeline.finetune.train.train`.
    """
    from pipeline.files import read_json, write_json
    from pipeline.finetune.teacher import make_teacher

    teacher_metrics = artifacts / TEACHER / METRICS_FILE
    if not teacher_metrics.is_file():
        make_teacher(study.params(study.methods[0], study.seeds[0]), artifacts)
    answers: dict[str, list[Measured]] = {method.name: [] for method in study.methods}
    for seed in study.seeds:
        for method in study.methods:
            measured = _run(study.params(method, seed), artifacts / f"{method.name}-{seed}")
            print(f"{method.name}, seed {seed}: {measured}")
            answers[method.name].append(measured)
    summary = summarize(answers, study.seeds)
    write_json(record, {"teacher": read_json(teacher_metrics), **summary})
    print(table(summary))


def _run(params: FinetuneParams, folder: Path) -> Measured:
    """Train and measure once, or take what an earlier call measured with the same parameters."""
    from pipeline.files import read_json, sha256_file, write_json
    from pipeline.finetune.evaluate import measure
    from pipeline.finetune.train import train

    kept, weights = folder / ANSWERS_FILE, folder / TRAIN / WEIGHTS_FILE
    _link_teacher(folder)
    teacher = sha256_file(folder / TEACHER / WEIGHTS_FILE)
    used = params.model_dump(mode="json", exclude={"run": {"threads", "checkpoint_seconds"}})
    made_from = {"params": used, "teacher": teacher}
    if kept.is_file() and (earlier := read_json(kept))["made_from"] == made_from:
        return Measured(**{key: _frozen(value) for key, value in earlier["answers"].items()})
    train(params, folder, folder)
    measured = measure(params, weights)
    write_json(kept, {"made_from": made_from, "answers": vars(measured)})
    return measured


def _link_teacher(folder: Path) -> None:
    """Let a run find the teacher that all share."""
    link = folder / TEACHER
    folder.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink():
        link.symlink_to(Path("..") / TEACHER, target_is_directory=True)


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def summarize(answers: Mapping[str, Sequence[Measured]], seeds: Sequence[int]) -> dict[str, Any]:
    """Top-1 of each method and run, and the gain over the first method, in percentage points.

    The gain of one seed has Tango's interval, of the images that were measured; the mean gain
    has Student's over seeds, which holds what training by another seed changes.
    """
    from pipeline.metrics.intervals import mean_interval

    first = next(iter(answers))
    methods = {}
    for name, runs in answers.items():
        top1 = [run.right / len(run.actual) for run in runs]
        entry: dict[str, Any] = {
            "top1": fmean(top1),
            "top1_interval": vars(mean_interval(top1)),
            "runs": [
                {"seed": seed, **run.metrics()} for seed, run in zip(seeds, runs, strict=True)
            ],
        }
        if name != first:
            gains = [gain(*pair) for pair in zip(answers[first], runs, strict=True)]
            values = [one["gain_pp"] for one in gains]
            entry["gain_pp"] = fmean(values)
            entry["gain_interval_pp"] = vars(mean_interval(values))
            entry["gains"] = gains
        methods[name] = entry
    return {"against": first, "seeds": list(seeds), "methods": methods}


def gain(base: Measured, other: Measured) -> dict[str, Any]:
    """How much more of the same images ``other`` has right, in percentage points (Tango)."""
    from pipeline.metrics.intervals import paired_drop

    rows = zip(base.actual, base.predicted, other.predicted, strict=True)
    right = Counter((one == actual, two == actual) for actual, one, two in rows)
    drop = paired_drop(
        both=right[True, True],
        only_float=right[True, False],
        only_edge=right[False, True],
        neither=right[False, False],
    )
    return {
        "gain_pp": -drop.drop_pp,
        "low": -drop.interval_pp.high,
        "high": -drop.interval_pp.low,
    }


def table(summary: Mapping[str, Any]) -> str:
    """The summary as a Markdown table."""
    against = summary["against"]
    lines = [
        f"| method | top-1 | gain over {against}, points | of each seed |",
        "|---|---|---|---|",
    ]
    for name, entry in summary["methods"].items():
        top1 = _with_interval(entry["top1"], entry["top1_interval"], "{:.2%}")
        cells = [name, top1, "", ""]
        if "gains" in entry:
            cells[2] = _with_interval(entry["gain_pp"], entry["gain_interval_pp"], "{:+.2f}")
            cells[3] = ", ".join(
                _with_interval(one["gain_pp"], one, "{:+.2f}") for one in entry["gains"]
            )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _with_interval(value: float, interval: Mapping[str, float], form: str) -> str:
    low, high = (form.format(interval[end]) for end in ("low", "high"))
    return f"{form.format(value)} ({low} to {high})"


def load_study(path: Path) -> Study:
    """Read a study's file; errors as :func:`pipeline.finetune.params.load_params`."""
    study = load(path, Study)
    for method in study.methods:
        check(study.params(method, study.seeds[0]), path)
    return study


def main() -> None:
    """Run ``finetune/study.yaml``, or the study that is named."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.finetune.study")
    parser.add_argument("study", type=Path, nargs="?", default=STUDY_FILE)
    path = parser.parse_args().study
    with exit_on_error():
        run_study(load_study(path), ARTIFACTS / path.stem, path.with_suffix(".json"))


if __name__ == "__main__":
    main()
