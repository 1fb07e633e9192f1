from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from huggingface_hub import ModelCard

from pipeline.params import Params
from pipeline.paths import Recorded
from pipeline.release.documents.notices import write_notices
from pipeline.stages.publish import publish
from tests.conftest import ROOT
from tests.release.materials import contract, material

DOCUMENTS = (
    "README.md",
    "NOTICES.md",
    "bom.cdx.json",
    "attestations/verdict.intoto.json",
    "attestations/provenance.intoto.json",
    "licenses/samples/LICENSE",
    "licenses/photographs/NOTICE.md",
)


def test_every_document_is_there_and_listed(published: Path) -> None:
    listed = {line.split("  ")[1] for line in (published / "SHA256SUMS").read_text().splitlines()}
    assert set(DOCUMENTS) <= listed


def test_the_same_evidence_gives_the_same_bytes_elsewhere(
    published: Path,
    healthy: Path,
    recorded: Recorded,
    params: Params,
    tmp_path: Path,
) -> None:
    again = publish(params, healthy, recorded, tmp_path)
    for name in DOCUMENTS:
        assert (again / name).read_bytes() == (published / name).read_bytes(), name


def test_documents_name_the_files_that_are_there(published: Path) -> None:
    sums = {
        name: digest
        for digest, name in (
            line.split("  ") for line in (published / "SHA256SUMS").read_text().splitlines()
        )
    }
    content = json.loads((published / "bom.cdx.json").read_text())
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(content)) is None
    files = [c for c in content["components"] if c["bom-ref"] in sums]
    assert len(files) == 4
    for file in files:
        assert file["hashes"][0]["content"] == sums[file["name"]]
        facts = {p["name"]: p["value"] for p in file["properties"]}
        assert facts["edge-vit:oldest_runtime"]
        assert int(facts["edge-vit:size_bytes"]) == (published / file["name"]).stat().st_size
    (beside,) = [inner for file in files for inner in file.get("components", ())]
    assert beside["name"].endswith(".pte.contract.json")
    assert beside["hashes"][0]["content"] == sums[beside["name"]]
    for name in DOCUMENTS[3:5]:
        statement = json.loads((published / name).read_text())
        subjects = {s["name"]: s["digest"]["sha256"] for s in statement["subject"]}
        assert len(subjects) == 5  # four files, and the contract beside the .pte
        assert all(sums[name] == digest for name, digest in subjects.items())
    verdict = json.loads((published / DOCUMENTS[3]).read_text())["predicate"]
    for found in verdict["configuration"][1:]:
        assert sums[found["name"]] == found["digest"]["sha256"]


def test_links_of_card_and_notices_resolve(published: Path) -> None:
    for name in ("README.md", "NOTICES.md"):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", (published / name).read_text()):
            assert (published / target).exists(), target


def test_the_card_of_a_real_run_can_be_read(published: Path) -> None:
    read = ModelCard.load(published / "README.md")
    assert read.data.license == "mit"
    assert len(read.data.eval_results) == 8
    names = {path.name for path in published.iterdir()}
    assert all(r.metric_name.split(" of ")[-1] in names for r in read.data.eval_results)


def test_publish_imports_neither_the_hub_s_library_nor_jinja() -> None:
    code = "import sys, pipeline.stages.publish; "
    code += "print([m for m in ('huggingface_hub', 'jinja2', 'torch')"
    code += " if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert ran.stdout.strip() == "[]", ran.stderr


def notices(folder: Path, **changes: object) -> str:
    folder.mkdir(exist_ok=True)
    write_notices(folder, material(**changes))
    return (folder / "NOTICES.md").read_text()


def test_an_unknown_licence_is_said_to_be_unknown(tmp_path: Path) -> None:
    text = notices(tmp_path, contract=contract(licence=None))
    weights = text.split("## ")[1]
    assert "unknown: that is no permission" in weights
    assert not (tmp_path / "licenses" / "Apache-2.0.txt").exists()


def test_apache_s_text_goes_with_weights_under_it(tmp_path: Path) -> None:
    text = notices(tmp_path, contract=contract(licence="apache-2.0"))
    assert "[licenses/Apache-2.0.txt](licenses/Apache-2.0.txt)" in text
    content = (tmp_path / "licenses" / "Apache-2.0.txt").read_bytes()
    # As https://www.apache.org/licenses/LICENSE-2.0.txt has it.
    digest = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"
    assert hashlib.sha256(content).hexdigest() == digest


def test_licence_files_are_copied_from_beside_the_images(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    (images / "Copying.txt").write_text("all mine")
    (images / "license.exe").write_text("no text")
    (images / "cat.jpg").write_text("")
    params = material().params
    values = params.model_dump() | {"golden": {"samples": 0, "photographs": images}}
    values["samples"]["source"] = tmp_path / "nowhere"
    text = notices(tmp_path / "out", params=type(params).model_validate(values))
    copied = tmp_path / "out" / "licenses" / "photographs"
    assert [path.name for path in copied.iterdir()] == ["Copying.txt"]
    assert (copied / "Copying.txt").read_text() == "all mine"
    assert "- of nowhere: no licence file lies beside them" in text
    assert str(tmp_path) not in text


def test_labels_say_where_they_come_from(tmp_path: Path) -> None:
    params = material().params
    values = params.model_dump()
    values["model"]["labels"] = "imagenet"
    text = notices(tmp_path, params=type(params).model_validate(values))
    assert "ImageNet-1k's, in timm's words (Apache-2.0)" in text
    assert "As the origin of the weights has them" in notices(tmp_path)
