"""A release gets its name once: the same again is nothing new, other bytes are refused."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import IntegrityError
from pipeline.evidence import sample_reuse
from pipeline.evidence.read import EvidencePaths
from pipeline.params import Params
from pipeline.paths import Recorded
from pipeline.release.manifest import SIGNATURE_FILE, SUMS_FILE
from pipeline.release.read import read_release
from pipeline.release.verification import verify
from pipeline.stages.latency import _previous
from pipeline.stages.publish import publish
from tests.release.conftest import NOWHERE, put

ROOT = Path(__file__).parents[2]


def content(folder: Path) -> dict[str, bytes]:
    found = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def test_sums_are_what_sha256sum_checks(published: Path) -> None:
    ran = subprocess.run(
        ["sha256sum", "--check", "--strict", "--quiet", SUMS_FILE],
        cwd=published,
        capture_output=True,
        text=True,
    )
    assert (ran.returncode, ran.stdout) == (0, ""), ran.stderr


def test_it_holds_what_deciding_again_needs(published: Path) -> None:
    places = EvidencePaths.of_release(published)
    for path in (places.parity, places.latency, places.logits, places.samples):
        assert path.is_file()
    assert (places.recorded.devices / "lite_app.json").is_file()
    assert (places.recorded.baselines / "a-gpu" / "a-model" / "logits.npy").is_file()
    samples = json.loads(places.samples.read_text())
    assert set(samples) == {"sha256", "labels", "images"}  # no file names
    assert len(samples["images"]) == len(samples["labels"])


def test_the_next_run_knows_what_it_was_judged_by(published: Path, params: Params) -> None:
    previous = _previous(read_release(published), {}, {})
    assert previous is not None
    assert (previous.gate, previous.device) == (params.gate, params.baseline.device)


def test_publishing_the_same_again_is_nothing_new(
    release: Path,
    healthy: Path,
    recorded: Recorded,
    params: Params,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (release / SIGNATURE_FILE).write_text("signed meanwhile")
    before = content(release)
    assert publish(params, healthy, recorded, release.parent) == release
    assert "is there already, the same" in capsys.readouterr().out
    assert content(release) == before
    assert os.listdir(release.parent) == [release.name]


def test_what_else_was_judged_meanwhile_makes_no_other_release(
    release: Path, artifacts: Path, recorded: Recorded, params: Params
) -> None:
    samples = json.loads((artifacts / "parity" / "evidence.json").read_text())["samples"]["sha256"]
    ledger = {samples: [f"{number:064}" for number in range(500)]}
    (artifacts / sample_reuse.LEDGER_FILE).write_text(json.dumps(ledger))
    publish(params, artifacts, recorded, release.parent)


def test_other_bytes_under_the_same_version_are_refused_and_named(
    release: Path, healthy: Path, recorded: Recorded, params: Params
) -> None:
    put(release / "labels.txt", b"other\n")
    (release / "verdict.md").unlink()
    (release / "note.txt").write_text("added")
    before = content(release)
    with pytest.raises(IntegrityError) as refused:
        publish(params, healthy, recorded, release.parent)
    words = str(refused.value)
    assert "changed: SHA256SUMS" not in words
    assert "changed: labels.txt\n" in words
    assert "added: verdict.md\n" in words
    assert "missing: note.txt\n" in words
    assert "raise release.version in params.yaml" in words
    assert f"delete {release}" in words
    assert content(release) == before
    assert os.listdir(release.parent) == [release.name]


def test_other_evidence_is_another_release(release: Path, healthy: Path, params: Params) -> None:
    with pytest.raises(IntegrityError, match=r"missing: .*evidence/devices/lite_app\.json"):
        publish(params, healthy, NOWHERE, release.parent)


def test_a_file_in_the_way_is_not_replaced(
    tmp_path: Path, published: Path, healthy: Path, recorded: Recorded, params: Params
) -> None:
    (tmp_path / published.name).write_text("mine")
    with pytest.raises(IntegrityError, match="is not a folder; move it away"):
        publish(params, healthy, recorded, tmp_path)
    assert (tmp_path / published.name).read_text() == "mine"


def test_files_of_another_version_than_that_of_the_folder_are_refused(
    tmp_path: Path, healthy: Path, recorded: Recorded, params: Params
) -> None:
    newer = params.model_copy(
        update={"release": params.release.model_copy(update={"version": "9.0.0"})}
    )
    with pytest.raises(IntegrityError, match=r"of version 0\.1\.0, release\.version is 9\.0\.0"):
        publish(newer, healthy, recorded, tmp_path)
    assert not list(tmp_path.iterdir())


def _publish(params: Params, healthy: Path, recorded: Recorded, out: Path, go: object) -> None:
    go.wait()  # type: ignore[attr-defined]
    publish(params, healthy, recorded, out)


@pytest.mark.full
def test_two_publishes_at_once_do_not_mix(
    tmp_path: Path, healthy: Path, recorded: Recorded, params: Params
) -> None:
    """Both make one release; of two different ones, one is refused and the other is whole."""
    context = multiprocessing.get_context("spawn")
    for number, others in enumerate((recorded, NOWHERE)):
        out, go = tmp_path / str(number), context.Barrier(2)
        both = [
            context.Process(target=_publish, args=(params, healthy, which, out, go))
            for which in (recorded, others)
        ]
        for process in both:
            process.start()
        for process in both:
            process.join()
        refused = sum(process.exitcode != 0 for process in both)
        assert refused == number
        (release,) = out.iterdir()
        assert verify(release) == []


STOP = """
import os, signal, sys
from pathlib import Path
from pipeline.params import Params
from pipeline.release import folder
from pipeline.paths import Recorded
from pipeline.stages import publish
params, artifacts, baselines, devices, out, point = sys.argv[1:]
def stop(*given):
    os.kill(os.getpid(), signal.SIGKILL)
setattr({"documents": folder, "publish_folder": publish, "rename": os}[point], point, stop)
publish.publish(
    Params.model_validate_json(params), Path(artifacts), Recorded(Path(baselines), Path(devices)),
    Path(out),
)
"""


@pytest.mark.parametrize("point", ["documents", "publish_folder", "rename"])
def test_a_killed_publish_leaves_no_release_and_the_next_one_cleans_up(
    point: str, tmp_path: Path, healthy: Path, recorded: Recorded, params: Params
) -> None:
    given = (params.model_dump_json(), healthy, recorded.baselines, recorded.devices, tmp_path)
    ran = subprocess.run([sys.executable, "-c", STOP, *map(str, given), point], cwd=ROOT)
    assert ran.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".")
    release = publish(params, healthy, recorded, tmp_path)
    assert list(tmp_path.iterdir()) == [release]
    assert verify(release) == []


def test_a_refused_publish_leaves_the_last_release(
    release: Path, artifacts: Path, recorded: Recorded, params: Params
) -> None:
    shutil.rmtree(artifacts / "golden")
    before = content(release)
    with pytest.raises(Exception, match="missing"):
        publish(params, artifacts, recorded, release.parent)
    assert content(release) == before
    assert os.listdir(release.parent) == [release.name]
