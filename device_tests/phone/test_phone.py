"""What is read from adb and from the instrumented test, in the formats that they print."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from device_tests import phone
from device_tests.target import Bundle
from pipeline.errors import InputError
from pipeline.metrics.logits import json_logits

LISTING = """\
* daemon not running; starting now at tcp:5037
* daemon started successfully
List of devices attached
emulator-5554\toffline
0A171FDD4003EY\tunauthorized
R5CT20ABCDE\tdevice

"""
GETPROP = """\
[ro.board.platform]: [gs101]
[ro.build.version.release]: [14]
[ro.product.manufacturer]: [Google]
[ro.product.model]: [Pixel 6]
[ro.soc.model]: [Tensor]
"""


def tool(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder at the front of PATH, with an adb that answers as above, and an SDK."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "listing").write_text(LISTING)
    (folder / "getprop").write_text(GETPROP)
    script = f'case "$*" in devices) cat {folder}/listing;; *getprop) cat {folder}/getprop;; esac'
    tool(folder, "adb", script)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("ANDROID_HOME", str(tmp_path))
    monkeypatch.delenv("ANDROID_SERIAL", raising=False)
    return folder


@pytest.fixture
def results(bundle: Bundle) -> dict[str, Any]:
    """What the instrumented test writes."""
    logits = json_logits(bundle.golden.logits("ptl"))
    return {
        "loads": True,
        "runs": True,
        "sha256": bundle.golden.content.artefacts["ptl"].sha256,
        "load_ms": 51.5,
        "first_ms": 90.25,
        "runs_ms": [30.5, 31.0],
        "logits": logits,
        "own_logits": logits,
    }


def leaves(tools: Path, results: dict[str, Any], status: int = 0) -> None:
    """A gradle that needs the assets, leaves results and exits with ``status``."""
    (tools / "results").write_text(json.dumps(results))
    tool(
        tools,
        "gradle",
        f"""\
test "$3" = connectedAndroidTest && test "$ANDROID_SERIAL" = R5CT20ABCDE || exit 9
cd "$2" && ls app/src/main/assets/release/SHA256SUMS >/dev/null || exit 9
ls app/src/androidTest/assets/golden/golden.json >/dev/null || exit 9
mkdir -p {phone.COLLECTED}/debugAndroidTest/connected/phone
cp {tools}/results {phone.COLLECTED}/debugAndroidTest/connected/phone/{phone.RESULTS}
exit {status}""",
    )


def test_only_devices_that_allow_debugging_count() -> None:
    assert phone.devices(LISTING) == ["R5CT20ABCDE"]
    assert phone.devices("List of devices attached\n\n") == []


def test_without_adb_the_command_that_installs_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    lacking = phone.missing()
    assert lacking is not None
    assert "adb is not installed" in lacking.reason
    assert lacking.command == "sudo apt-get install -y adb"


def test_what_is_missing_is_named_in_turn(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool(tools, "gradle", "exit 0")
    assert phone.missing() is None
    monkeypatch.delenv("ANDROID_HOME")
    monkeypatch.delenv("ANDROID_SDK_ROOT", raising=False)
    lacking = phone.missing()
    assert lacking is not None
    assert "Android SDK" in lacking.reason
    (tools / "listing").write_text("List of devices attached\n\n")
    lacking = phone.missing()
    assert lacking is not None
    assert "no phone is on adb" in lacking.reason


def test_another_phone_is_chosen_by_its_serial(
    tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANDROID_SERIAL", "emulator-5554")
    lacking = phone.missing()
    assert lacking is not None
    assert "no phone is on adb" in lacking.reason


def test_results_become_a_cell_that_names_the_phone(
    tools: Path, bundle: Bundle, results: dict[str, Any], tmp_path: Path
) -> None:
    leaves(tools, results)
    found = phone.run(bundle, tmp_path)
    (cell,) = found.cells
    assert cell.runtime == f"PyTorch Lite {phone.version()}"
    assert cell.machine == "Google Pixel 6, Android 14, Tensor"
    assert (cell.loads, cell.runs, cell.error) == (True, True, None)
    assert cell.cost.runs_ms == (30.5, 31.0)
    assert cell.logits == results["logits"]
    (check,) = found.checks
    assert check.passed


def test_a_test_that_fails_on_the_phone_is_a_finding(
    tools: Path, bundle: Bundle, results: dict[str, Any], tmp_path: Path
) -> None:
    results["own_logits"] = [row[::-1] for row in results["own_logits"]]
    leaves(tools, results, status=1)
    found = phone.run(bundle, tmp_path)
    assert not found.checks[0].passed
    leaves(tools, {"loads": False, "runs": False, "error": "Following ops cannot be found"}, 1)
    found = phone.run(bundle, tmp_path)
    assert not found.cells[0].loads
    assert found.cells[0].error == "Following ops cannot be found"


def test_no_results_is_an_error_with_gradles_words(
    tools: Path, bundle: Bundle, tmp_path: Path
) -> None:
    tool(tools, "gradle", "echo SDK location not found; exit 1")
    with pytest.raises(InputError, match="SDK location not found"):
        phone.run(bundle, tmp_path)


def test_results_of_another_file_are_refused(bundle: Bundle, results: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="of another file"):
        phone.read_answer(bundle, results | {"sha256": "0" * 64}, "a phone")
