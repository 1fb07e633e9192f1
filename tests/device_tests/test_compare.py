from __future__ import annotations

import json
from pathlib import Path

import pytest

from device_tests import compare
from pipeline.evidence.golden import Golden


def written(folder: Path, content: object) -> Path:
    path = folder / "answer.json"
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(("changed", "status"), [(False, 0), (True, 1)])
def test_answers_of_a_device_are_compared(
    healthy: Path, tmp_path: Path, changed: bool, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    golden = Golden.load(healthy / "golden")
    logits = golden.content.artefacts["ptl"].logits
    answer = written(tmp_path, {"logits": logits[::-1] if changed else logits})
    with pytest.raises(SystemExit) as stopped:
        compare.main([str(golden.folder), "ptl", str(answer)])
    assert stopped.value.code == status
    assert ("DOES NOT AGREE" in capsys.readouterr().out) == changed


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"logits": None, "error": "no such operator"}, "holds no logits: no such operator"),
        ([1, 2], "holds no logits"),
        ({"logits": [[1.0] * 10]}, "16 to 19 lists of 10 numbers"),
        ({"logits": [[1.0] * 9] * 19}, "16 to 19 lists of 10 numbers"),
        ({"logits": [["a"] * 10] * 19}, "16 to 19 lists of 10 numbers"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    healthy: Path,
    tmp_path: Path,
    content: object,
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as stopped:
        compare.main([str(healthy / "golden"), "ptl", str(written(tmp_path, content))])
    assert stopped.value.code == 2
    assert words in capsys.readouterr().err
