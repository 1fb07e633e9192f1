"""Is a release what was published? Everything that can be known without the runtimes.

The list of hashes shows accidents. Then the files are compared with each other: the contract inside
each file, the golden answers, the evidence with the logits it rests on, and the verdict, which is
decided again. Only the signature shows a change of all of them at once. Every problem is reported,
not only the first. Releases are untrusted, so sizes are bounded and nothing is unpickled.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.contract.contract import DATA_KEY, Contract
from pipeline.contract.files import CONTRACT_FILE, load_contract, read_contract
from pipeline.contract.onnx_metadata import metadata
from pipeline.errors import EdgeVitError, InputError, IntegrityError, shown
from pipeline.evidence.golden import GOLDEN_FILE, Golden
from pipeline.evidence.latency import LatencyEvidence
from pipeline.evidence.model import SealedEvidence, read_sealed
from pipeline.evidence.parity import ParityEvidence
from pipeline.evidence.read import Evidence, EvidencePaths, measure_again, read_evidence
from pipeline.evidence.samples import read_samples
from pipeline.files import read_bytes, read_json, sha256_file
from pipeline.formats import FORMATS, ordered
from pipeline.params import Baseline, Gate
from pipeline.paths import data_file
from pipeline.release import signatures
from pipeline.release.folder import (
    LABELS_FILE,
    PARAMS_FILE,
    TEXT_FILE,
    VERDICT_FILE,
    edge_vit_version,
    labels_text,
)
from pipeline.release.manifest import SUMS_FILE
from pipeline.release.read import check_sums, model_files
from pipeline.report import text as report
from pipeline.schema import Section
from pipeline.verdict.criteria.files import Files
from pipeline.verdict.decide import Verdict, decide

MAX_ROUNDS = 30_000  # of timing: the bootstrap of a ratio takes 32 kB for each
TOLERANCE = 1e-9  # relative, between numbers that two machines computed from the same evidence
# What damaged content raises in code that expects edge-vit's.
DAMAGE = (
    KeyError,
    TypeError,
    ValueError,
    AttributeError,
    ArithmeticError,
    IndexError,
    OSError,
    RecursionError,
    MemoryError,
)


class JudgedBy(Section):
    """``params.json``: what the gate judged by."""

    edge_vit: str
    gate: Gate
    baseline: Baseline


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
    checks = {
        f"every file is as listed in {SUMS_FILE}, none is missing or added": checked.problems,
        f"each model file carries the contract of {CONTRACT_FILE}": _contracts(folder),
        "the golden images, tensors and answers are the sealed ones": _golden(folder),
        "the evidence is sealed, and its numbers follow from its logits": _evidence(folder),
        f"the verdict of {VERDICT_FILE} follows from the evidence, and is a pass": _verdict(
            folder, checked.sha256
        ),
    }
    for claim, check in checks.items():
        problems = list(_guarded(claim, check, folder))
        examined.problems.extend(problems)
        examined.facts.extend([] if problems else [claim])
    if public_key is not None:
        problems = signatures.check(folder, public_key)
        examined.problems.extend(problems)
        examined.facts.extend([] if problems else [f"signed by {public_key}"])
    return Examined(list(dict.fromkeys(examined.problems)), examined.facts)


def _guarded(claim: str, problems: Iterable[str], folder: Path) -> Iterator[str]:
    """The problems that a check finds, and the one that ends it."""
    try:
        yield from (_below(problem, folder) for problem in problems)
    except EdgeVitError as error:
        # After the semicolon stands what to run where releases are made.
        yield _below(str(error).split("; ")[0], folder)
    except DAMAGE as error:
        # edge-vit did not write this; the hashes or the seals say which file it is.
        yield f"cannot be checked: {claim} ({shown(repr(error), 200)})"


def _below(text: str, folder: Path) -> str:
    return text.replace(f"{folder}/", "")


def _contracts(folder: Path) -> Iterator[str]:
    contract = load_contract(folder)
    if read_bytes(folder / LABELS_FILE) != labels_text(contract).encode():
        yield f"{LABELS_FILE} has other labels than {CONTRACT_FILE}"
    present = model_files(folder)
    for key, files in present.items():
        for path in files:
            yield from _guarded(path.name, _contract(path, key, contract), folder)
    budgets = _judged_by(folder).gate.budgets
    for key in ordered([*budgets, *present]):
        files = present.get(key, [])
        if key not in budgets:
            yield f"{files[0].name} is of format {key}, which {PARAMS_FILE} has no budget for"
        elif len(files) != 1:
            names = ", ".join(path.name for path in files) or "none"
            yield f"one *{FORMATS[key].suffix} is expected, found {names}"


def _contract(path: Path, key: str, contract: Contract) -> Iterator[str]:
    inside = read_contract(path)
    wanted = contract.to_dict()
    for name, value in dataclasses.replace(inside, artefact=None).to_dict().items():
        if value != wanted[name]:
            yield (
                f"{path.name} carries another contract than {CONTRACT_FILE}: {name} is "
                f"{shown(value)}, expected {shown(wanted[name])}"
            )
    if inside.artefact is None or inside.artefact.format != key:
        made = inside.artefact and inside.artefact.format
        yield f"{path.name} carries the contract of format {shown(made)}, expected {key}"
    yield from _weights_beside(path)
    if not (path.name.startswith(f"{contract.name}-") and f"-{contract.version}." in path.name):
        yield f"{path.name} does not have the name and version of {CONTRACT_FILE}"


def _weights_beside(path: Path) -> Iterator[str]:
    """Compare the weights beside a large ONNX file with the hash inside it."""
    data = data_file(path)
    wanted = metadata(path, DATA_KEY, 64) if path.suffix == ".onnx" else None
    if wanted is None and data.is_file():
        yield f"{data.name} is not part of {path.name}"
    elif wanted is not None and sha256_file(data) != wanted.decode():
        yield f"{data.name} does not have the SHA-256 that {path.name} says"


def _golden(folder: Path) -> Iterator[str]:
    golden = Golden.load(folder / "golden")
    listed = {*golden.images, golden.inputs_file, golden.folder / GOLDEN_FILE}
    for path in sorted(golden.folder.rglob("*")):
        if path.is_file() and path not in listed:
            yield f"{path} is not part of the golden set"


def _evidence(folder: Path) -> Iterator[str]:
    evidence_paths = EvidencePaths.of_release(folder)
    sealed: dict[Path, type[SealedEvidence]] = {
        evidence_paths.parity: ParityEvidence,
        evidence_paths.latency: LatencyEvidence,
    }
    for path, model in sealed.items():
        yield from _guarded(str(path), _sealed(path, model), folder)
    yield from measure_again(evidence_paths, read_sealed(evidence_paths.parity, ParityEvidence))


def _sealed(path: Path, model: type[SealedEvidence]) -> Iterator[str]:
    read_sealed(path, model)
    yield from ()


def _verdict(folder: Path, sha256: Mapping[str, str]) -> Iterator[str]:
    evidence, judged_by, verdict = _decide_again(folder, sha256)
    problems = list(_differences(read_json(folder / VERDICT_FILE), verdict))
    if not verdict.passed:
        problems.append(f"{report.headline(verdict)}: {'; '.join(report.refusals(verdict))}")
    text = report.markdown(verdict, evidence, judged_by.gate)
    if read_bytes(folder / TEXT_FILE) != text.encode():
        problems.append(f"{TEXT_FILE} is not what the evidence gives")
    yield from problems
    if problems and judged_by.edge_vit != edge_vit_version():
        yield (
            f"{PARAMS_FILE}: edge-vit {shown(judged_by.edge_vit)} made this release, and this is "
            f"{edge_vit_version()}, which may decide or word it differently; use that version"
        )


def _decide_again(folder: Path, sha256: Mapping[str, str]) -> tuple[Evidence, JudgedBy, Verdict]:
    """Judge the evidence of the release for the bytes that are there."""
    evidence_paths = EvidencePaths.of_release(folder)
    judged_by = _judged_by(folder)
    delivered = Files(
        artefacts={k: sha256.get(f[0].name, "") for k, f in model_files(folder).items()},
        checkpoint=load_contract(folder).checkpoint.sha256,
        samples=read_samples(evidence_paths.samples).sha256,
    )
    evidence = read_evidence(evidence_paths)
    _require_few_rounds(evidence, evidence_paths)
    verdict = decide(judged_by.gate, judged_by.baseline.device, delivered, evidence)
    return evidence, judged_by, verdict


def _judged_by(folder: Path) -> JudgedBy:
    path = folder / PARAMS_FILE
    try:
        return JudgedBy.model_validate_json(read_bytes(path), strict=True)
    except ValueError as error:
        raise IntegrityError(f"{path} is not what edge-vit writes ({shown(error, 200)})") from None


def _require_few_rounds(evidence: Evidence, evidence_paths: EvidencePaths) -> None:
    rounds = evidence.latency.rounds
    if rounds > MAX_ROUNDS:
        raise IntegrityError(
            f"{evidence_paths.latency} has {rounds} rounds, more than {MAX_ROUNDS}"
        )


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
