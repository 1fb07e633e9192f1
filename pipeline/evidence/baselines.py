"""Float baselines that were recorded on other machines: one folder a device and checkpoint.

A record is ``record.json``, sealed as all evidence is, and ``logits.npy``. It is made by
``edge-vit baseline`` and read here without torch.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.contract.contract import Preprocessing
from pipeline.errors import InputError, IntegrityError
from pipeline.evidence.seal import check_seal
from pipeline.files import read_json
from pipeline.metrics.logits import logits_sha256

KIND = "baseline"
RECORD_FILE = "record.json"
LOGITS_FILE = "logits.npy"

Logits = NDArray[np.float32]


@dataclass(frozen=True)
class Record:
    """A baseline whose seal, fields and logits were checked."""

    path: str  # of its folder, below the folder of records
    content: Mapping[str, Any]
    logits: Logits  # [m, classes] of the first m samples


def read_records(folder: Path) -> tuple[Record, ...]:
    """Read every record below ``folder``, in the order of their paths; none if it is missing.

    Raises:
        IntegrityError: a record is damaged, was edited, or says what cannot be.
    """
    files = sorted(folder.glob(f"*/*/{RECORD_FILE}")) if folder.is_dir() else []
    return tuple(_read(path.parent, folder) for path in files)


def belongs(
    record: Record, checkpoint_sha256: str, samples_sha256: str, preprocessing: Preprocessing
) -> str | None:
    """Return None if the record was taken on these weights and samples, else why it does not count.

    Samples are stored after resizing and cropping, so their hash covers the geometry; mean and
    standard deviation come after it.
    """
    wanted = _plain(dataclasses.asdict(preprocessing))
    pairs = (
        ("weights", record.content["checkpoint_sha256"], checkpoint_sha256),
        ("samples", record.content["samples_sha256"], samples_sha256),
    )
    for what, recorded, actual in pairs:
        if recorded != actual:
            return f"{record.path} is of other {what}: {recorded[:12]}, these are {actual[:12]}"
    for key, value in wanted.items():
        recorded = record.content["preprocessing"].get(key)
        if recorded != value:
            return f"{record.path} was prepared with {key} {recorded}, this run with {value}"
    return None


def _read(folder: Path, root: Path) -> Record:
    path = folder / RECORD_FILE
    hint = "bring it back with git, or record it again with `edge-vit baseline --replace`"
    try:
        content = check_seal(read_json(path), KIND, str(path))
        # Mapped, so that a header cannot claim more memory than the file has bytes.
        logits: Logits = np.array(np.load(folder / LOGITS_FILE, "r", allow_pickle=False))
        _check(content, logits)
    except (InputError, IntegrityError) as error:
        raise IntegrityError(f"{str(error).split('; ')[0]}; {hint}") from None
    except (OSError, EOFError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise IntegrityError(f"{folder} is no usable baseline ({error}); {hint}") from None
    return Record(folder.relative_to(root).as_posix(), content, logits)


def _check(content: Mapping[str, Any], logits: Logits) -> None:
    """Raise where a record lacks something or says what cannot be."""
    times = content["latency"]["runs_ms"]
    count, samples = content["logits_count"], content["samples_count"]
    floor = content["noise_floor"]["max_abs"]
    claims = {
        "logits are not the recorded ones": logits.dtype == np.float32
        and logits.ndim == 2
        and logits_sha256(logits) == content["logits_sha256"],
        "logits hold NaN or infinity": bool(np.isfinite(logits).all()),
        f"{count} logits of {samples} samples": 0 < count == len(logits) <= samples,
        "a time is not positive": len(times) > 0 and all(math.isfinite(t) and t > 0 for t in times),
        f"the noise floor is {floor}": math.isfinite(floor) and floor >= 0,
        "TF32 was on": content["tf32"] is False,
        "the kind of device is neither cuda nor cpu": content["device"]["kind"] in ("cuda", "cpu"),
        "there is no device name or date": bool(content["device"]["name"] and content["recorded"]),
        "preprocessing is missing": isinstance(content["preprocessing"], dict),
        "hashes are missing": bool(content["checkpoint_sha256"] and content["samples_sha256"]),
    }
    wrong = [claim for claim, holds in claims.items() if not holds]
    if wrong:
        raise ValueError(wrong[0])


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    """As JSON would give it back: tuples are lists."""
    return {key: list(v) if isinstance(v, tuple) else v for key, v in value.items()}
