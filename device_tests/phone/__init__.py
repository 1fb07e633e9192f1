"""A phone on adb: the Android project's instrumented test runs there, and its results are read."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from device_tests import android, program
from device_tests.android.assets import assets
from device_tests.target import Bundle, Cell, Check, Cost, Missing, Results
from pipeline.errors import InputError
from pipeline.files import read_json, sha256_file
from pipeline.metrics.distances import sqnr_db
from pipeline.metrics.logits import logits_array

WHAT = "the Android app on a phone"
FORMATS = ("ptl",)
AGAIN = "make device-test TARGETS=phone"
PROJECT = Path(android.__file__).parent
RESULTS = "edge-vit-results.json"
# Where the Android Gradle plugin puts what a test left in additionalTestOutputDir.
COLLECTED = "app/build/outputs/connected_android_test_additional_output"
MIN_SQNR_DB = 25  # as in GoldenOnDeviceTest.java


def missing() -> Missing | None:
    """Say what this machine lacks; see :class:`device_tests.target.Target`."""
    if shutil.which("adb") is None:
        return Missing("adb is not installed", "sudo apt-get install -y adb")
    if _phone() is None:
        return Missing(
            "no phone is on adb that allows debugging (`adb devices` lists none as 'device')", AGAIN
        )
    if not any(os.environ.get(name) for name in ("ANDROID_HOME", "ANDROID_SDK_ROOT")):
        return Missing(
            "ANDROID_HOME names no Android SDK; install one, Android Studio brings it",
            f"ANDROID_HOME=$HOME/Android/Sdk {AGAIN}",
        )
    if _gradle() is None:
        return Missing(
            "gradle is not on PATH; the Android project needs 8.13 or later",
            f"PATH=GRADLE/bin:$PATH {AGAIN}",
        )
    return None


def install(cache: Path) -> None:
    """Gradle keeps what it downloads itself."""


def run(bundle: Bundle, cache: Path) -> Results:
    """Run the files of ``bundle``; see :class:`device_tests.target.Target`."""
    serial, gradle = _phone(), _gradle()
    if serial is None or gradle is None:
        raise InputError("the phone went away; attach it and run this again")
    with tempfile.TemporaryDirectory() as name:
        project = Path(name) / "android"
        shutil.copytree(PROJECT, project, ignore=shutil.ignore_patterns("build", "assets", "ci"))
        assets(bundle.files["ptl"], bundle.golden, project / "app" / "src")
        answer = _test(project, gradle, serial)
    return read_answer(bundle, answer, machine(serial))


def read_answer(bundle: Bundle, answer: dict[str, Any], on: str) -> Results:
    """Turn the instrumented test's results into a cell, and a check of its own preprocessing.

    Raises:
        InputError: the results are of another file.
    """
    sha256 = sha256_file(bundle.files["ptl"])
    if answer.get("sha256", sha256) != sha256:
        raise InputError(f"{RESULTS} is of another file ({answer['sha256']}); run this again")
    cell = Cell(
        format="ptl",
        sha256=sha256,
        runtime=f"PyTorch Lite {version()}",
        machine=on,
        loads=bool(answer.get("loads")),
        runs=bool(answer.get("runs")),
        error=answer.get("error"),
        logits=answer.get("logits"),
        cost=Cost(
            load_ms=answer.get("load_ms"),
            first_ms=answer.get("first_ms"),
            runs_ms=tuple(answer.get("runs_ms") or ()),
        ),
    )
    checks = []
    if answer.get("own_logits") is not None:
        own = logits_array(answer["own_logits"])
        value = sqnr_db(bundle.golden.logits("ptl"), own)
        checks.append(
            Check(
                name="app's preprocessing",
                subject="ptl",
                sha256=sha256,
                passed=value >= MIN_SQNR_DB,
                detail=f"answers from the image files are {value:.1f} dB from the golden ones",
            )
        )
    return Results([cell], checks)


def devices(listing: str) -> list[str]:
    """Serial numbers that ``adb devices`` lists as ready, not as offline or unauthorized."""
    rows = [line.split() for line in listing.splitlines()]
    return [row[0] for row in rows if len(row) >= 2 and row[1] == "device"]


def machine(serial: str) -> str:
    """Model, Android's version and system on chip, as the phone names them."""
    printed = program.call(["adb", "-s", serial, "shell", "getprop"], timeout_s=30)
    found = dict(re.findall(r"^\[(.+?)\]: \[(.*)\]\r?$", printed, re.MULTILINE))
    name = f"{found.get('ro.product.manufacturer', '')} {found.get('ro.product.model', '')}".strip()
    release = found.get("ro.build.version.release", "?")
    # Named since Android 12; before, the board stands for it.
    chip = found.get("ro.soc.model") or found.get("ro.board.platform") or "unknown SoC"
    return f"{name or serial}, Android {release}, {chip}"


def version() -> str:
    """The release of PyTorch Lite that the app ships."""
    found = re.search(
        r"pytorch_android_lite:([\w.]+)", (PROJECT / "app" / "build.gradle").read_text()
    )
    if found is None:
        raise InputError(f"{PROJECT / 'app' / 'build.gradle'} names no pytorch_android_lite")
    return found[1]


def _phone() -> str | None:
    """ANDROID_SERIAL's device, or the first."""
    try:
        ready = devices(program.call(["adb", "devices"], timeout_s=30))
    except InputError:
        return None
    wanted = os.environ.get("ANDROID_SERIAL")
    if wanted:
        return wanted if wanted in ready else None
    return ready[0] if ready else None


def _gradle() -> str | None:
    wrapper = PROJECT / "gradlew"
    return str(wrapper) if wrapper.is_file() else shutil.which("gradle")


def _test(project: Path, gradle: str, serial: str) -> dict[str, Any]:
    """Run the instrumented test; its results, whether it passed or not."""
    command: list[str | Path] = [gradle, "--project-dir", project, "connectedAndroidTest"]
    failure = None
    try:
        program.call(command, cwd=project, env={"ANDROID_SERIAL": serial}, timeout_s=1800)
    except InputError as error:  # also where an answer does not agree: the results say so
        failure = error
    found = sorted((project / COLLECTED).rglob(RESULTS))
    if not found:
        raise failure or InputError(f"the instrumented test left no {RESULTS} in {COLLECTED}")
    results: dict[str, Any] = read_json(found[0])
    return results
