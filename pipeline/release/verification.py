"""Is a release what was published? Everything that can be known without the runtimes.

The list of hashes shows accidents. Then the files are held to each other by the judge of runs
(:mod:`pipeline.release.judge`), and the verdict is decided again. Only the signature shows a change
of all of them at once. Every problem is reported, not only the first. Releases are untrusted, so
sizes are bounded and nothing is unpickled.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.contract.files import CONTRACT_FILE, load_contract
from pipeline.errors import EdgeVitError, InputError, IntegrityError, shown
from pipeline.evidence.read import EvidencePaths, read_evidence
from pipeline.files import read_bytes, read_json
from pipeline.formats import FORMATS, ordered
from pipeline.release import signatures
from pipeline.release.folder import (
    LABELS_FILE,
    TEXT_FILE,
    VERDICT_FILE,
    edge_vit_version,
    labels_text,
)
from pipeline.release.judge import Subject, checks, decided, guarded
from pipeline.release.manifest import SUMS_FILE
from pipeline.release.read import PARAMS_FILE, JudgedBy, check_sums, judged_by, model_files
from pipeline.report import text as report
from pipeline.verdict.decide import Verdict

TOLERANCE = 1e-9  # relative, between numbers that two machines computed from the same evidence


@dataclass(frozen=True)
class Examined:
    """The result of examining a release."""

    problems: list[str]  # each names its file; empty: it is what was published
    facts: list[str]  # what was checked and holds


def verify(folder: Path, public_key: Path | None = None) -> list[str]:
    """Return every problem of the release in ``folder``; empty: it is what was published.

    With ``public_key`` an unsigned release is a problem, too.

    Raises:
        InputError: ``folder`` is not a folder, or the key cannot be used.
    """
    return examine(folder, public_key).problems


def require_whole(folder: Path) -> None:
    """Stop where `verify` finds a problem.

    Raises:
        InputError: ``folder`` is not a folder.
        IntegrityError: lists every problem.
    """
    if problems := verify(folder):
        listed = "\n  ".join(problems)
        raise IntegrityError(f"{folder} is not what was published:\n  {listed}")


def examine(folder: Path, public_key: Path | None = None) -> Examined:
    """As `verify`, together with the checks that passed."""
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give the folder of a release")
    examined = Examined([], [])
    checked = check_sums(folder)
    claims: dict[str, Iterable[str]] = {
        f"every file is as listed in {SUMS_FILE}, none is missing or added": checked.problems,
        f"{LABELS_FILE} and the model files are those of {CONTRACT_FILE}": _files(folder),
        **_checks(folder, checked.sha256),
        f"the verdict of {VERDICT_FILE} follows from the evidence, and is a pass": _verdict(
            folder, checked.sha256
        ),
    }
    for claim, check in claims.items():
        problems = list(_stopped(claim, check, folder))
        examined.problems.extend(problems)
        examined.facts.extend([] if problems else [claim])
    examined.problems.extend(
        _other_version(folder, len(examined.facts) < len(claims) - bool(checked.problems))
    )
    if public_key is not None:
        problems = signatures.check(folder, public_key)
        examined.problems.extend(problems)
        examined.facts.extend([] if problems else [f"signed by {public_key}"])
    return Examined(list(dict.fromkeys(examined.problems)), examined.facts)


def _checks(folder: Path, sha256: Mapping[str, str]) -> dict[str, Iterator[str]]:
    """What the judge asks of a run, too."""
    try:
        return checks(_subject(folder, sha256, judged_by(folder)))
    except EdgeVitError:
        return {}  # reported where the labels are


def _stopped(claim: str, problems: Iterable[str], folder: Path) -> Iterator[str]:
    """The problems that a check finds, and the one that ends it."""
    try:
        for problem in guarded(claim, problems):
            yield _below(problem.split("; run `")[0], folder)
    except EdgeVitError as error:
        # After the semicolon stands what to run where releases are made.
        yield _below(str(error).split("; ")[0], folder)


def _other_version(folder: Path, wrong: bool) -> Iterator[str]:
    """What to do where another edge-vit may be the cause."""
    try:
        made = judged_by(folder).edge_vit
    except EdgeVitError:
        return
    if wrong and made != edge_vit_version():
        yield (
            f"{PARAMS_FILE}: edge-vit {shown(made)} made this release, and this is "
            f"{edge_vit_version()}, which may decide or word it differently; use that version"
        )


def _below(text: str, folder: Path) -> str:
    return text.replace(f"{folder}/", "")


def _subject(folder: Path, sha256: Mapping[str, str], by: JudgedBy) -> Subject:
    files = {key: found[0] for key, found in model_files(folder).items()}
    return Subject(
        places=EvidencePaths.of_release(folder),
        files=files,
        sha256={key: sha256.get(path.name, "") for key, path in files.items()},
        gate=by.gate,
        device=by.baseline.device,
    )


def _files(folder: Path) -> Iterator[str]:
    """The labels, and one file of each format that was judged."""
    contract = load_contract(folder)
    if read_bytes(folder / LABELS_FILE) != labels_text(contract).encode():
        yield f"{LABELS_FILE} has other labels than {CONTRACT_FILE}"
    present, budgets = model_files(folder), judged_by(folder).gate.budgets
    for key in ordered([*budgets, *present]):
        files = present.get(key, [])
        if key not in budgets:
            yield f"{files[0].name} is of format {key}, which {PARAMS_FILE} has no budget for"
        elif len(files) != 1:
            names = ", ".join(path.name for path in files) or "none"
            yield f"one *{FORMATS[key].suffix} is expected, found {names}"


def _verdict(folder: Path, sha256: Mapping[str, str]) -> Iterator[str]:
    by = judged_by(folder)
    subject = _subject(folder, sha256, by)
    evidence = read_evidence(subject.places)
    verdict = decided(subject, evidence)
    yield from _differences(read_json(folder / VERDICT_FILE), verdict)
    if not verdict.passed:
        yield f"{report.headline(verdict)}: {'; '.join(report.refusals(verdict))}"
    text = report.markdown(verdict, evidence, by.gate)
    if read_bytes(folder / TEXT_FILE) != text.encode():
        yield f"{TEXT_FILE} is not what the evidence gives"


def _differences(recorded: Any, verdict: Verdict) -> Iterator[str]:
    again = json.loads(json.dumps(verdict.to_dict()))
    criteria, decided = recorded.pop("criteria"), again.pop("criteria")
    for key in sorted(recorded.keys() | again.keys()):
        if not _same(recorded.get(key), again.get(key)):
            yield _other(key, recorded.get(key), again.get(key))
    if len(criteria) != len(decided):
        yield _other("the number of criteria", len(criteria), len(decided))
    for one, other in zip(criteria, decided, strict=False):
        for key in sorted(one.keys() | other.keys()):
            if not _same(one.get(key), other.get(key)):
                of = f"{key} of {other['subject']}: {other['name']}"
                yield _other(of, one.get(key), other.get(key))


def _other(what: str, recorded: object, again: object) -> str:
    return f"{VERDICT_FILE}: {what} is {shown(recorded)}, deciding again gives {shown(again)}"


def _same(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal, numbers up to what two machines may compute otherwise."""
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=TOLERANCE)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[k], other[k]) for k in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return type(one) is type(other) and bool(one == other)
