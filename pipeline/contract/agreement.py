"""Whether delivered files say the same of a model as the contract beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pipeline.contract.contract import DATA_KEY, Contract, differences
from pipeline.contract.files import CONTRACT_FILE, read_contract
from pipeline.contract.onnx_metadata import metadata
from pipeline.errors import shown
from pipeline.files import sha256_file
from pipeline.paths import data_file

VALUE = 120  # characters of a value that a message shows


def disagreements(path: Path, key: str, contract: Contract) -> Iterator[str]:
    """Yield a sentence for each value in which a delivered file of format ``key`` differs.

    Compared are the contract that it carries, its name, and the weights beside it.

    Raises:
        IntegrityError: it is damaged, or carries no contract.
    """
    inside = read_contract(path)
    yield from differing(f"{path.name} carries", inside, contract)
    if inside.artefact is None or inside.artefact.format != key:
        made = inside.artefact and inside.artefact.format
        yield f"{path.name} carries the contract of format {shown(made)}, expected {key}"
    yield from _weights_beside(path)
    if not (path.name.startswith(f"{contract.name}-") and f"-{contract.version}." in path.name):
        yield f"{path.name} does not have the name and version of {CONTRACT_FILE}"


def differing(who: str, other: Contract, contract: Contract) -> Iterator[str]:
    """Yield a sentence for each value of a model that two contracts state differently.

    ``who`` is the subject of the sentence with its verb.
    """
    found = differences(other, contract)
    if "checkpoint.sha256" in found:
        # Then nothing else is worth a sentence: it is another model.
        theirs, ours = found["checkpoint.sha256"]
        yield (
            f"{who} another contract than {CONTRACT_FILE}: checkpoint.sha256 is {shown(theirs)}, "
            f"in {CONTRACT_FILE} {shown(ours)}; it was made from other weights"
        )
        return
    for name, (theirs, ours) in found.items():
        yield (
            f"{who} another contract than {CONTRACT_FILE}: {name} is {shown(theirs, VALUE)}, "
            f"in {CONTRACT_FILE} {shown(ours, VALUE)}"
        )


def _weights_beside(path: Path) -> Iterator[str]:
    """Compare the weights beside a large ONNX file with the hash inside it."""
    data = data_file(path)
    wanted = metadata(path, DATA_KEY, 64) if path.suffix == ".onnx" else None
    if wanted is None and data.is_file():
        yield f"{data.name} is not part of {path.name}"
    elif wanted is not None and sha256_file(data) != wanted.decode(errors="replace"):
        yield f"{data.name} does not have the SHA-256 that {path.name} says"
