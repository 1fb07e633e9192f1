from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.evidence import sample_reuse
from pipeline.evidence.parity import ParityEvidence
from tests.verdict import builders
from tests.verdict.builders import digest


def evidence(samples: str, *files: str) -> ParityEvidence:
    case = builders.case()
    case.parity["samples"]["sha256"] = digest(samples)
    for key, name in zip(case.parity["artefacts"], files, strict=False):
        case.parity["artefacts"][key]["sha256"] = digest(name)
    return case.evidence.parity


def test_each_variant_counts_once_for_each_set_of_samples(tmp_path: Path) -> None:
    ledger = tmp_path / "artifacts" / "ledger.json"
    assert sample_reuse.count(ledger, digest("s")) == 0
    assert sample_reuse.record(ledger, evidence("s", "a", "b")) == 1
    assert sample_reuse.record(ledger, evidence("s", "b", "a")) == 1  # the same files
    assert sample_reuse.record(ledger, evidence("s", "a", "c")) == 2
    assert sample_reuse.record(ledger, evidence("other", "a", "c")) == 1
    assert (
        sample_reuse.count(ledger, digest("s")),
        sample_reuse.count(ledger, digest("other")),
    ) == (2, 1)


@pytest.mark.parametrize("text", ["[]", '{"s": 3}', "{"])
def test_a_damaged_ledger_is_said(tmp_path: Path, text: str) -> None:
    ledger = tmp_path / "ledger.json"
    ledger.write_text(text)
    with pytest.raises(InputError, match=r"ledger\.json is no"):
        sample_reuse.record(ledger, evidence("s", "a"))
    assert ledger.read_text() == text
