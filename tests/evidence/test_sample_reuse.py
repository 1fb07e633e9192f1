from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import InputError
from pipeline.evidence import sample_reuse


def evidence(samples: str, *hashes: str) -> dict[str, Any]:
    artefacts = {str(i): {"sha256": digest} for i, digest in enumerate(hashes)}
    return {"samples": {"sha256": samples}, "artefacts": artefacts}


def test_each_variant_counts_once_for_each_set_of_samples(tmp_path: Path) -> None:
    ledger = tmp_path / "artifacts" / "ledger.json"
    assert sample_reuse.count(ledger, "s") == 0
    assert sample_reuse.record(ledger, evidence("s", "a", "b")) == 1
    assert sample_reuse.record(ledger, evidence("s", "b", "a")) == 1  # the same files
    assert sample_reuse.record(ledger, evidence("s", "a", "c")) == 2
    assert sample_reuse.record(ledger, evidence("other", "a", "c")) == 1
    assert (sample_reuse.count(ledger, "s"), sample_reuse.count(ledger, "other")) == (2, 1)


@pytest.mark.parametrize("text", ["[]", '{"s": 3}', "{"])
def test_a_damaged_ledger_is_said(tmp_path: Path, text: str) -> None:
    ledger = tmp_path / "ledger.json"
    ledger.write_text(text)
    with pytest.raises(InputError, match=r"ledger\.json is no"):
        sample_reuse.record(ledger, evidence("s", "a"))
    assert ledger.read_text() == text
