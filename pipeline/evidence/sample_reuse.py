"""How many variants were judged on a set of samples: the best of many looks better than it is.

The ledger is a file beside the artifacts that no stage owns, since DVC would delete or restore it.
It changes no verdict, which rests on evidence alone; it makes the report warn.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from pipeline.errors import InputError
from pipeline.evidence.parity import ParityEvidence
from pipeline.files import read_json, write_json

LEDGER_FILE = "ledger.json"


def record(ledger: Path, parity: ParityEvidence) -> int:
    """Note that these files were judged on these samples; return how many variants have been.

    The same files judged again count once.

    Raises:
        InputError: the ledger is damaged.
    """
    judged = _read(ledger)
    variants = judged.setdefault(parity.samples.sha256, [])
    hashes = sorted(file.sha256 for file in parity.artefacts.values())
    variant = hashlib.sha256("".join(hashes).encode()).hexdigest()
    if variant not in variants:
        variants.append(variant)
        write_json(ledger, judged)
    return len(variants)


def count(ledger: Path, samples_sha256: str) -> int:
    """Return how many variants were judged on these samples.

    Raises:
        InputError: the ledger is damaged.
    """
    return len(_read(ledger).get(samples_sha256, []))


def _read(ledger: Path) -> dict[str, list[str]]:
    if not ledger.exists():
        return {}
    content = read_json(ledger)
    if not isinstance(content, dict) or not all(isinstance(v, list) for v in content.values()):
        raise InputError(f"{ledger} is not a ledger of verdicts; delete it to start counting again")
    return content
