"""`edge-vit predict` as a user runs it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import InputError, IntegrityError
from pipeline.formats import FORMATS
from pipeline.inference.select import select_artifact
from tests.inference.images import encoded, oriented, pixels, png_bomb

pytestmark = pytest.mark.full

ROOT = Path(__file__).parent.parent.parent


def predict(work: Path, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "predict", *arguments],
        cwd=work,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        input=stdin,
        capture_output=True,
        check=False,
    )


@pytest.mark.parametrize("runtime", ["float", *(known.option for known in FORMATS.values())])
def test_every_runtime_answers_and_names_the_class_that_is_there(released, runtime):
    golden = json.loads((released / "artifacts" / "golden" / "golden.json").read_text())
    image = golden["images"][0]
    ran = predict(released, f"artifacts/golden/{image['file']}", "--runtime", runtime, "--json")
    assert ran.returncode == 0, ran.stderr
    (answer,) = json.loads(ran.stdout)
    logits = golden["artefacts"]["float"]["logits"][0]
    contract = json.loads((released / "artifacts" / "checkpoint" / "contract.json").read_text())
    assert len(answer["predictions"]) == 5
    assert answer["predictions"][0]["label"] == contract["labels"][logits.index(max(logits))]
    scores = [prediction["score"] for prediction in answer["predictions"]]
    assert scores == sorted(scores, reverse=True)


def test_bad_images_are_named_and_the_others_answered(released, tmp_path):
    folder = tmp_path / "in"
    (folder / "deep" / ".hidden").mkdir(parents=True)
    (folder / "b.png").write_bytes(encoded("PNG"))
    (folder / "deep" / "a.JPG").write_bytes(oriented(6))
    (folder / "deep" / ".hidden" / "c.png").write_bytes(encoded("PNG"))
    (folder / "bomb.png").write_bytes(png_bomb())
    (folder / "cut.jpg").write_bytes(encoded("JPEG")[:300])
    (folder / "notes.txt").write_text("no image")
    ran = predict(released, str(folder), "missing.png", "-", "--json", stdin=encoded("WEBP"))
    assert ran.returncode == 2
    names = [entry["image"] for entry in json.loads(ran.stdout)]
    assert names == [str(folder / "b.png"), str(folder / "deep" / "a.JPG"), "-"]
    words = ran.stderr.decode()
    assert "bomb.png: the image has more than 89478485 pixels" in words
    assert "cut.jpg: the image is damaged or cut short" in words
    assert "missing.png: No such file or directory" in words
    assert "Traceback" not in words
    assert "notes.txt" not in words


def test_the_table_shows_top_classes_and_a_turned_photo_reads_as_upright(released, tmp_path):
    turned = tmp_path / "turned.png"
    turned.write_bytes(encoded("PNG", pixels().rotate(-90, expand=True)))
    sideways = tmp_path / "photo.png"
    exif = pixels().getexif()
    exif[0x0112] = 6
    sideways.write_bytes(encoded("PNG", exif=exif))
    ran = predict(released, str(turned), str(sideways), "--top", "3", "--runtime", "onnx")
    assert ran.returncode == 0, ran.stderr
    first, second = ran.stdout.decode().split("\n\n")
    assert "turned.png" in first.splitlines()[0]
    classes = [line.split() for line in first.splitlines()[2:]]
    assert len(classes) == 3
    assert classes == [line.split() for line in second.splitlines()[2:]]


def test_an_empty_folder_and_a_device_are_refused(released, tmp_path):
    ran = predict(released, str(tmp_path), "/dev/zero")
    assert ran.returncode == 2
    assert "holds no images" in ran.stderr.decode()
    assert "/dev/zero: not a regular file" in ran.stderr.decode()


def test_where_there_is_no_release_the_message_says_how_to_get_one(tmp_path):
    with pytest.raises(InputError, match=r"no release below .*release; run `dvc repro`"):
        select_artifact(None, "lite", tmp_path / "artifacts")
    with pytest.raises(InputError, match="is not a folder"):
        select_artifact(tmp_path / "nowhere", "lite", tmp_path)
    with pytest.raises(InputError, match=r"carries no float weights .*--runtime onnx"):
        select_artifact(None, "float", tmp_path / "artifacts")


def test_a_release_that_was_changed_does_not_answer(released, tmp_path):
    folder = Path(
        shutil.copytree(released / "artifacts" / "release" / "model-0.1.0", tmp_path / "copy")
    )
    assert select_artifact(folder, "onnx", tmp_path).path.parent == folder
    (folder / "contract.json").write_text("{}")
    with pytest.raises(IntegrityError, match="not what was published"):
        select_artifact(folder, "onnx", tmp_path)


def test_float_weights_of_another_model_do_not_stand_for_the_release(released, tmp_path):
    artifacts = tmp_path / "artifacts"
    shutil.copytree(released / "artifacts" / "checkpoint", artifacts / "checkpoint")
    with open(artifacts / "checkpoint" / "model.safetensors", "ab") as file:
        file.write(b"\0")
    release = released / "artifacts" / "release" / "model-0.1.0"
    with pytest.raises(InputError, match=r"is not what .* was made from"):
        select_artifact(release, "float", artifacts)


def test_the_newest_release_of_any_model_answers(released, tmp_path):
    older = released / "artifacts" / "release" / "model-0.1.0"
    artifacts = tmp_path / "artifacts"
    for name, when in (("a-9.0.0", 1), ("z-0.1.0", 2), ("b-0.2.0", 3)):
        folder = shutil.copytree(older, artifacts / "release" / name)
        os.utime(folder / "SHA256SUMS", (when, when))
    assert select_artifact(None, "lite", artifacts).release == "b-0.2.0"
