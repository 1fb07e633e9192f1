"""The one judge: of a run before it is published, and of a release by whoever has it.

Gate, report, publish and `verify` call the same functions on the same inputs (docs/adr/0038). First
everything is held to everything else: contracts to files, evidence to what it follows from. Only
what agrees is decided on, for exactly the bytes that are there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline import paths
from pipeline.contract.agreement import differing, disagreements
from pipeline.contract.files import CONTRACT_FILE, MODEL_FILE, load_contract
from pipeline.errors import EdgeVitError, GateError, InputError, IntegrityError, shown
from pipeline.evidence.golden import GOLDEN_FILE, Golden
from pipeline.evidence.latency import LatencyEvidence
from pipeline.evidence.model import SealedEvidence, read_sealed
from pipeline.evidence.parity import ParityEvidence
from pipeline.evidence.read import Evidence, EvidencePaths, read_evidence
from pipeline.evidence.recompute import edits
from pipeline.evidence.samples import read_samples
from pipeline.files import sha256_file
from pipeline.formats import FORMATS, ordered
from pipeline.params import Gate, Params
from pipeline.paths import Recorded
from pipeline.report import text
from pipeline.verdict.criteria.files import Files
from pipeline.verdict.decide import Verdict, decide

MAX_ROUNDS = 30_000  # of timing: the bootstrap of a ratio takes 32 kB for each
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


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is judged, and by what."""

    places: EvidencePaths
    files: Mapping[str, Path]  # delivered, by format
    sha256: Mapping[str, str]  # theirs
    gate: Gate
    device: str | None  # the reference GPU whose record a release needs, if any


@dataclass(frozen=True)
class Judged:
    """The evidence that was decided on, and the verdict."""

    evidence: Evidence
    verdict: Verdict


def of_run(params: Params, artifacts: Path, recorded: Recorded) -> Subject:
    """A run below ``artifacts``, with its files hashed.

    Raises:
        InputError: the files are not those of the formats that params.yaml chooses.
    """
    delivered = paths.delivered_files(artifacts)
    for key in ordered([*params.formats, *delivered]):
        folder = artifacts / FORMATS[key].folder
        if key not in delivered:
            raise InputError(
                f"{folder} has no {FORMATS[key].suffix}, and {key} is in formats of params.yaml; "
                "run `dvc repro` to make it"
            )
        if key not in params.formats:
            raise InputError(
                f"{folder} has a {FORMATS[key].suffix}, and {key} is not in formats of "
                "params.yaml; run `dvc repro`, which takes it away"
            )
    return Subject(
        places=EvidencePaths.of_run(artifacts, recorded),
        files=delivered,
        sha256={key: sha256_file(path) for key, path in delivered.items()},
        gate=params.gate,
        device=params.baseline.device,
    )


def judge(params: Params, artifacts: Path, recorded: Recorded, *, released: bool = False) -> Judged:
    """Judge a run; with ``released`` by the evidence that a release of it would hold.

    Raises:
        InputError: something is missing or damaged, or a format has no file.
        IntegrityError: lists everything that does not agree with the rest.
    """
    subject = of_run(params, artifacts, recorded)
    require_agreement(subject)
    evidence = read_evidence(subject.places)
    if released:
        evidence = without_refused(evidence)
    return Judged(evidence, decided(subject, evidence))


def require_agreement(subject: Subject) -> None:
    """Stop where something does not agree with the rest.

    Raises:
        EdgeVitError: what stopped a check, if that is all.
        IntegrityError: lists everything.
    """
    found: list[str] = []
    errors: list[EdgeVitError] = []
    for claim, problems in checks(subject).items():
        try:
            found += guarded(claim, problems)
        except EdgeVitError as error:
            errors.append(error)
    lines = list(dict.fromkeys([*found, *map(str, errors)]))
    if errors and len(lines) == 1:
        raise errors[0]
    if lines:
        raise IntegrityError("\n".join(lines))


def checks(subject: Subject) -> dict[str, Iterator[str]]:
    """What has to hold before anything is decided, each with a sentence for what does not.

    The sentences come as they are found; reading them raises as the functions below.
    """
    return {
        f"each model file carries the contract of {CONTRACT_FILE}": _contracts(subject),
        "the golden images, tensors and answers are the sealed ones": _golden(subject.places),
        "the evidence is sealed, and its numbers follow from its logits": _evidence(subject),
    }


def guarded(claim: str, problems: Iterable[str]) -> Iterator[str]:
    """The problems of a check, and one more where damaged content stops it."""
    try:
        yield from problems
    except EdgeVitError:
        raise
    except DAMAGE as error:
        # edge-vit did not write this; the hashes or the seals say which file it is.
        yield f"cannot be checked: {claim} ({shown(repr(error), 200)})"


def _contracts(subject: Subject) -> Iterator[str]:
    places = subject.places
    contract = load_contract(places.contract)
    for key, path in subject.files.items():
        try:
            yield from guarded(path.name, disagreements(path, key, contract))
        except IntegrityError as error:
            yield str(error)
    if places.run is not None:
        weights, stated = _weights(places.run), contract.checkpoint.sha256
        if stated != (there := sha256_file(weights)):
            yield (
                f"{places.contract / CONTRACT_FILE} says checkpoint.sha256 = {shown(stated)}, "
                f"{weights.name} beside it has {there}; run `dvc repro --force fetch`"
            )
        for folder in (paths.REWRITTEN.name, paths.QUANTIZED.name):
            beside = places.run / folder
            if beside.is_dir() and not paths.is_off(beside):
                says = f"{beside / CONTRACT_FILE} is"
                yield from differing(says, load_contract(beside), contract)


def _golden(places: EvidencePaths) -> Iterator[str]:
    golden = Golden.load(places.golden)
    listed = {*golden.images, golden.inputs_file, golden.folder / GOLDEN_FILE}
    for path in sorted(golden.folder.rglob("*")):
        if path.is_file() and path not in listed:
            yield f"{path} is not part of the golden set"


def _evidence(subject: Subject) -> Iterator[str]:
    places = subject.places
    sealed: dict[Path, type[SealedEvidence]] = {
        places.parity: ParityEvidence,
        places.latency: LatencyEvidence,
    }
    broken = False
    for path, model in sealed.items():
        try:
            read_sealed(path, model)
        except IntegrityError as error:
            broken = True
            yield str(error)
    if not broken:
        evidence = read_evidence(places)
        contract = load_contract(places.contract)
        yield from edits(places, evidence, contract, subject.files, subject.sha256)


def decided(subject: Subject, evidence: Evidence) -> Verdict:
    """Decide for the bytes that are there.

    Raises:
        IntegrityError: more rounds were timed than can be decided on.
    """
    places, rounds = subject.places, evidence.latency.rounds
    if rounds > MAX_ROUNDS:
        raise IntegrityError(f"{places.latency} has {rounds} rounds, more than {MAX_ROUNDS}")
    files = Files(
        artefacts=subject.sha256,
        checkpoint=load_contract(places.contract).checkpoint.sha256,
        samples=read_samples(places.samples).sha256,
    )
    return decide(subject.gate, subject.device, files, evidence)


def _weights(run: Path) -> Path:
    return run / paths.CHECKPOINT.name / MODEL_FILE


def without_refused(evidence: Evidence) -> Evidence:
    """Return the evidence without baselines that do not belong to the release.

    They never count; the verdict only names them.
    """
    used = tuple(b for b in evidence.baselines if b.refusal is None)
    return dataclasses.replace(evidence, baselines=used)


def require(verdict: Verdict) -> None:
    """Refuse unless the channel's rule is met.

    Raises:
        GateError: names each failure with its number, its limit and what to try, and what would
            decide what is undecided.
    """
    if not verdict.passed:
        raise GateError(text.refusal(verdict))
