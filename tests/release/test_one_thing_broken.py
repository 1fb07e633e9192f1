"""One thing of a run or a release broken at a time, in every way that there is.

Never a traceback, never a release that `verify` refuses, and `gate` and `publish` agree.
"""

from __future__ import annotations

import contextlib
import copy
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from device_tests.target import Cost
from pipeline.errors import EdgeVitError
from pipeline.evidence.seal import seal
from pipeline.files import read_json
from pipeline.metrics.logits import logits_sha256
from pipeline.params import Params, load_params
from pipeline.paths import Recorded
from pipeline.release import build
from pipeline.release.manifest import SUMS_FILE, format_sums
from pipeline.release.read import hashes
from pipeline.release.verification import verify
from pipeline.stages.gate import gate
from pipeline.stages.publish import publish
from tests.conftest import ROOT
from tests.made_up import make
from tests.release.conftest import write_baseline, write_device

Broken = Callable[[Path], None]
EXAMPLES = int(os.environ.get("EDGE_VIT_TEST_EXAMPLES", "60"))
SETTINGS = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES <= 60,
    database=None,
    phases=[Phase.generate],  # one thing is broken: there is nothing to shrink
    suppress_health_check=list(HealthCheck),
)
VALUES: list[Callable[[Any], Any]] = [
    lambda value: None,
    lambda value: True,
    lambda value: -1,
    lambda value: 0,
    lambda value: 10**30,
    lambda value: 0.5,
    lambda value: math.nan,
    lambda value: math.inf,
    lambda value: "",
    lambda value: "other",
    lambda value: "../../x\x1b[31m",
    lambda value: [],
    lambda value: {},
    lambda value: [value],
    lambda value: {"a": value},
    lambda value: value + 1 if type(value) in (int, float) else value,
    lambda value: value * 4 if isinstance(value, list | str) else value,
    lambda value: value[::-1] if isinstance(value, list | str) else value,
    lambda value: value[:-1] if isinstance(value, list | str) else value,
    lambda value: not value if isinstance(value, bool) else value,
]
ARRAYS: list[Callable[[np.ndarray], Any]] = [
    lambda rows: np.tile(rows, (4, *[1] * (rows.ndim - 1))),
    lambda rows: rows[:-1],
    lambda rows: rows[:0],
    lambda rows: rows[..., :-1],
    lambda rows: rows[..., None],
    lambda rows: rows.astype(np.float64),
    lambda rows: rows.astype(np.int32),
    lambda rows: rows[::-1].copy(),
    lambda rows: np.full_like(rows, np.nan if rows.dtype.kind == "f" else 1),
    lambda rows: np.where(np.arange(rows.size).reshape(rows.shape) == 5, rows.max(), rows),
    lambda rows: np.array(3, rows.dtype),
]
FILES: list[Callable[[bytes], bytes]] = [
    lambda content: b"",
    lambda content: content[: len(content) // 2],
    lambda content: content + b"\0",
    lambda content: bytes([*content[:-9], content[-9] ^ 1, *content[-8:]]),
    lambda content: b"[" * 100_000,
    lambda content: b"null",
    lambda content: b"\xff\xfe" + content,
]


@pytest.fixture(scope="module")
def run(params: Params, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run below ``artifacts``, with what was recorded on other machines beside it."""
    folder = tmp_path_factory.mktemp("whole")
    artifacts = make(folder / "artifacts")
    write_baseline(artifacts, folder / "baselines" / "a-gpu" / "a-model", params.baseline.device)
    write_baseline(artifacts, folder / "baselines" / "b-gpu" / "a-model", "another")
    write_device(artifacts, folder / "devices", Cost())
    return folder


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another run, whose files are put into the place of the first one's."""
    return make(tmp_path_factory.mktemp("other") / "artifacts", count=40, source="elsewhere").parent


@pytest.fixture
def once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Code and packages are hashed once, not for each release."""
    environment = build.environment()
    monkeypatch.setattr(build, "environment", lambda: environment)


def nodes(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value in JSON; of long lists only of the first three."""
    if path:
        yield path
    if isinstance(value, dict):
        for key in value:
            yield from nodes(value[key], (*path, key))
    elif isinstance(value, list):
        for number in range(min(3, len(value))):
            yield from nodes(value[number], (*path, number))


def change(content: Any, path: tuple[Any, ...], new: Callable[[Any], Any] | None) -> None:
    """Put another value at ``path``; None takes it out."""
    *way, last = path
    for key in way:
        content = content[key]
    if new is None:
        del content[last]
    else:
        content[last] = new(copy.deepcopy(content[last]))


@st.composite
def broken_field(draw: st.DrawFn, folder: Path, path: Path) -> str:
    content = read_json(path)
    place = draw(st.sampled_from(sorted(nodes(content), key=str)))
    number = draw(st.integers(-1, len(VALUES) - 1))
    change(content, place, None if number < 0 else VALUES[number])
    sealed = "seal" in content and draw(st.sampled_from([True, True, False]))
    if sealed:
        try:
            content = seal(content)
        except ValueError:
            sealed = False
    path.write_text(json.dumps(content))
    return f"{place} by value {number}, {'sealed' if sealed else 'as it was'}"


@st.composite
def broken_array(draw: st.DrawFn, folder: Path, path: Path) -> str:
    """An array is another; sometimes the hashes that are written of it fit again."""
    number = draw(st.integers(0, len(ARRAYS) - 1))
    fits = draw(st.booleans())
    if path.suffix == ".npy":
        before = np.load(path)
        after = ARRAYS[number](before)
        np.save(path, after)
        key = ""
    else:
        with np.load(path) as archive:
            arrays = dict(archive)
        key = draw(st.sampled_from(sorted(arrays)))
        before = arrays[key]
        after = arrays[key] = ARRAYS[number](before)
        np.savez(path, allow_pickle=False, **arrays)
    if fits and before.dtype == np.float32:
        old, new = logits_sha256(before), logits_sha256(after)
        for text in sorted(folder.rglob("*.json")):
            if old in text.read_text():
                content = json.loads(text.read_text().replace(old, new))
                text.write_text(json.dumps(seal(content) if "seal" in content else content))
    return f"{key} by array {number}{', hashes made to fit' if fits else ''}"


@st.composite
def broken_file(draw: st.DrawFn, folder: Path, path: Path, another: Path | None) -> str:
    kinds = ["removed", "folder", *range(len(FILES))]
    if another is not None and another.is_file():
        kinds += ["another run's"] * 4
    kind = draw(st.sampled_from(kinds))
    content = path.read_bytes()
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "another run's":
        assert another is not None
        shutil.copyfile(another, path)
    elif isinstance(kind, int):
        path.write_bytes(FILES[kind](content))
    return f"file {kind}"


@st.composite
def broken_thing(draw: st.DrawFn, folder: Path, others: Path | None) -> str:
    """Break one thing below ``folder``, and say which."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.stat().st_size > 10)
    texts = [p for p in files if p.suffix == ".json"]
    arrays = [p for p in files if p.suffix in (".npy", ".npz")]
    kind = draw(st.sampled_from(["field", "field", "field", "array", "file"]))
    path = draw(st.sampled_from({"field": texts, "array": arrays, "file": files}[kind]))
    name = path.relative_to(folder)
    if kind == "field":
        how = draw(broken_field(folder, path))
    elif kind == "array":
        how = draw(broken_array(folder, path))
    else:
        how = draw(broken_file(folder, path, others and others / name))
    return f"{name}: {how}"


@pytest.mark.full
def test_a_run_with_one_thing_broken(
    run: Path, other: Path, tmp_path_factory: pytest.TempPathFactory, once: None
) -> None:
    params = load_params(ROOT / "params.yaml")
    folder = tmp_path_factory.mktemp("broken") / "run"

    @SETTINGS
    @given(st.data())
    def broken(data: st.DataObject) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(run, folder)
        broken = data.draw(broken_thing(folder, other))
        recorded = Recorded(folder / "baselines", folder / "devices")
        try:
            passed = gate(params, folder / "artifacts", recorded, folder / "verdict").passed
        except EdgeVitError:
            passed = False
        release, words = None, ""
        try:
            release = publish(params, folder / "artifacts", recorded, folder / "release")
        except EdgeVitError as error:
            words = str(error)
        assert "cannot be checked" not in words, f"{broken}: {words}"
        assert passed == (release is not None), f"{broken}: gate and publish differ: {words}"
        if release is None:
            assert not list((folder / "release").glob("*")), broken
        else:
            assert verify(release) == [], broken

    broken()


@pytest.mark.full
def test_a_release_with_one_thing_broken(
    run: Path, tmp_path_factory: pytest.TempPathFactory, once: None
) -> None:
    """Its sums are made to fit: `verify` finds it or not, and never ends in a traceback."""
    recorded = Recorded(run / "baselines", run / "devices")
    out = tmp_path_factory.mktemp("releases")
    release = publish(load_params(ROOT / "params.yaml"), run / "artifacts", recorded, out)
    folder = out / "broken"

    @SETTINGS
    @given(st.data())
    def broken(data: st.DataObject) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(release, folder)
        broken = data.draw(broken_thing(folder, None))
        with contextlib.suppress(EdgeVitError, OSError):
            (folder / SUMS_FILE).write_text(format_sums(hashes(folder)))
        assert all(verify(folder)), f"{broken}: a problem without words"

    broken()
