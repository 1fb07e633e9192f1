"""The Android app without a phone: its own preprocessing, and the library that it ships.

Maven compiles the app's sources against PyTorch's and Android's classes and runs them under
Robolectric, on Android's own Skia. The native library of PyTorch Lite is made for Android and
cannot be run here: the operators that a file needs are looked up in it, and what the app's
preprocessing makes of the images goes through the Lite interpreter of this machine.
"""

from __future__ import annotations

import platform
import re
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from device_tests import program
from device_tests.android import maven
from device_tests.android.operators import Library
from device_tests.target import Bundle, Cell, Check, Missing, Results
from pipeline.errors import EdgeVitError
from pipeline.evidence.golden import Golden
from pipeline.files import sha256_file
from pipeline.metrics.logits import json_logits
from pipeline.process import quiet
from pipeline.runtimes import Runtime, load

WHAT = "the Android app's preprocessing and PyTorch Lite's operators"
FORMATS = ("ptl",)
ABIS = ("arm64-v8a", "x86_64")
LIBRARY = "libpytorch_jni_lite.so"
WHOLE_LIBRARY = "libpytorch_jni.so"
FUSED_ATTENTION = "aten::scaled_dot_product_attention"  # from PyTorch 2.0
INVENTED = "aten::no_such_operator"
JAVA = 17  # that Robolectric asks for Android 15
# What Robolectric brings Android's graphics for.
SKIA = (("Linux", "x86_64"), ("Darwin", "x86_64"), ("Darwin", "arm64"))
# JPEG decoders may round differently; more than this of 255 is another image.
JPEG_LEVELS = 2


def missing() -> Missing | None:
    """Say what this machine lacks; see :class:`device_tests.target.Target`."""
    command = "sudo apt-get install -y default-jdk-headless maven aapt"
    for tool in ("javac", "mvn", "aapt2"):
        if shutil.which(tool) is None:
            return Missing(f"{tool} is not installed", command)
    version = re.search(r"javac (\d+)", program.call(["javac", "-version"]))
    if version is None or int(version[1]) < JAVA:
        return Missing(
            f"Java {JAVA} or later is needed; PATH leads to {version and version[0]}", command
        )
    if (platform.system(), platform.machine()) not in SKIA:
        here = f"{platform.system()} on {platform.machine()}"
        return Missing(
            f"Robolectric has no native graphics for {here}",
            "make device-test TARGETS=android  # on Linux, x86-64",
        )
    return None


def install(cache: Path) -> None:
    """Install into ``cache``; see :class:`device_tests.target.Target`."""
    maven.install(cache)


def run(bundle: Bundle, cache: Path) -> Results:
    """Run the files of ``bundle``; see :class:`device_tests.target.Target`."""
    path = bundle.files["ptl"]
    archives = maven.archives(cache)
    version = next(iter(archives))
    cell = Cell(
        format="ptl",
        sha256=sha256_file(path),
        runtime=f"the app's preprocessing, Robolectric {maven.robolectric()}",
        machine="JVM",
        loads=False,
        runs=False,
        own_preprocessing=True,
    )
    try:
        runtime = load(path, threads=1)
        operators = needed(runtime)
    except EdgeVitError as error:
        return Results([replace(cell, error=str(error))])

    libraries = {abi: library(archives[version], abi) for abi in ABIS}
    lacking = {abi: libraries[abi].missing(operators) for abi in ABIS}
    request = maven.Inputs(runtime.contract.to_json(), bundle.golden.images)
    answers = maven.run(cache, [request])
    about = answers.about
    cell = replace(cell, machine=f"JVM {about['java']}, Android {about['android']}'s Skia")
    checks = [
        *(_operators(cell, abi, version, operators, lacking[abi]) for abi in ABIS),
        _control(cell, archives, maven.control(cache)),
        Check(
            name="app",
            subject=cell.format,
            sha256=cell.sha256,
            passed=True,
            detail=f"compiles against pytorch_android_lite {version} and Android's API 24; "
            f"{answers.tests} JUnit tests pass",
        ),
    ]
    prepared = answers.inputs[0]
    logits = None
    if not isinstance(prepared, str):
        rows = [runtime.logits(prepared[i : i + 1])[0] for i in range(len(prepared))]
        logits = json_logits(np.stack(rows))
        checks.append(_pixels(cell, bundle.golden, prepared, runtime))
    if any(lacking.values()):
        names = sorted({name for names in lacking.values() for name in names})
        cell = replace(cell, error=f"operators not in {LIBRARY}: {', '.join(names)}")
    elif isinstance(prepared, str):
        cell = replace(cell, loads=True, error=prepared)
    else:
        cell = replace(cell, loads=True, runs=True, logits=logits)
    return Results([cell], checks)


def library(archive: Path, abi: str, name: str = LIBRARY) -> Library:
    """The native library of an .aar for one kind of processor."""
    with zipfile.ZipFile(archive) as content:
        return Library(content.read(f"jni/{abi}/{name}"))


def needed(runtime: Runtime) -> tuple[str, ...]:
    """Operators that a loaded .ptl calls by its bytecode, and those that its contract names."""
    from torch.jit.mobile import _export_operator_list

    with quiet():
        called: set[str] = set(_export_operator_list(getattr(runtime, "module")))  # noqa: B009
    named = runtime.contract.artefact.operators if runtime.contract.artefact else ()
    return tuple(sorted({*called, *named}))


def _operators(
    cell: Cell, abi: str, version: str, operators: tuple[str, ...], lacking: list[str]
) -> Check:
    where = f"{LIBRARY} of pytorch_android_lite {version}"
    return Check(
        name=f"operators {abi}",
        subject=cell.format,
        sha256=cell.sha256,
        passed=not lacking,
        detail=f"not in {where}: {', '.join(lacking)}"
        if lacking
        else f"all {len(operators)} are in {where}",
    )


def _control(cell: Cell, archives: dict[str, Path], whole: Path) -> Check:
    """Show that the look-up can say no: of fused attention before 2.0, of an invented name."""
    looked = [(f"lite {version}", archives[version], LIBRARY) for version in archives]
    looked.append((f"whole {maven.CONTROL_VERSION}", whole, WHOLE_LIBRARY))
    wrong, seen = [], []
    for name, archive, file in looked:
        expected = name.split()[1] >= "2"
        for abi in ABIS:
            there = library(archive, abi, file)
            if there.registers(FUSED_ATTENTION) != expected or there.registers(INVENTED):
                wrong.append(f"{name} {abi}")
        seen.append(f"{name} {'has' if expected else 'lacks'} it")
    absent = [version for version in maven.RELEASES if version not in archives]
    note = f"; the registry has no lite {', '.join(absent)}" if absent else ""
    return Check(
        name="operator control",
        subject=cell.format,
        sha256=cell.sha256,
        passed=not wrong,
        detail=f"wrong for {', '.join(wrong)}"
        if wrong
        else f"{FUSED_ATTENTION}: {', '.join(seen)}; none has {INVENTED}{note}",
    )


def _pixels(cell: Cell, golden: Golden, prepared: NDArray[np.float32], runtime: Runtime) -> Check:
    """Compare with the golden inputs, in steps of a pixel's 255."""
    std = np.array(runtime.contract.preprocessing.std, np.float32)[:, None, None]
    levels = np.abs(prepared - golden.inputs) * std * 255
    jpeg = np.array([path.suffix == ".jpg" for path in golden.images])
    detail = []
    for kind, chosen in (("PNG", ~jpeg), ("JPEG", jpeg)):
        part = levels[chosen]
        most, share = (part.max(), (part > 0).mean()) if part.size else (0.0, 0.0)
        detail.append(f"{len(part)} {kind}: at most {most:.3g} of 255 off, {share:.2%} of pixels")
    return Check(
        name="pixels",
        subject=cell.format,
        sha256=cell.sha256,
        passed=not levels[~jpeg].any() and bool((levels[jpeg] <= JPEG_LEVELS + 0.01).all()),
        detail="; ".join(detail),
    )
