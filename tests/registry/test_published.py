"""A release as the pipeline publishes it, from its folder to somebody else's clone."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from pipeline.params import Params
from pipeline.paths import Recorded
from pipeline.release.manifest import SIGNATURE_FILE
from pipeline.release.verification import verify
from pipeline.stages.publish import publish
from tests.registry.registry_fixture import ROOT, Forker, Registry


@pytest.fixture(scope="module")
def published(params: Params, healthy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    empty = tmp_path_factory.mktemp("recorded")
    recorded = Recorded(baselines=empty / "baselines", devices=empty / "devices")
    return publish(params, healthy, recorded, empty / "release")


@pytest.fixture
def registry(params: Params, published: Path, tmp_path: Path, forker: Forker) -> Registry:
    """With the release, and what made it committed."""
    registry = Registry.make(tmp_path, forker, small=False)
    shutil.copytree(published, registry.work / "artifacts" / "release" / published.name)
    shutil.copyfile(ROOT / "requirements.lock", registry.work / "requirements.lock")
    text = yaml.safe_dump(params.model_dump(mode="json"))
    (registry.work / "params.yaml").write_text(text)
    registry.commit("what made the release")
    registry.push()
    return registry


def test_a_published_release_is_fetched_by_stage_in_another_clone(
    registry: Registry, published: Path, tmp_path: Path
) -> None:
    assert registry.edge_vit("sign", "--generate-key", str(tmp_path / "keys")).status == 0
    key, public = (tmp_path / "keys" / f"edge-vit.{kind}" for kind in ("key", "pub"))
    assert registry.edge_vit("release", "--yes", "--key", str(key), kill="push").status == -9
    assert registry.tags() == {}
    registry.do("release", "--key", str(key))
    ran = registry.edge_vit("promote", "deit-tiny@v0.1.0", "prod", "--yes")
    assert ran.status == 1
    assert "undecided criteria" in ran.text
    registry.do("promote", "deit-tiny@v0.1.0", "prod", "--accept-undecided", "no GPU record yet")
    registry.check_tags()
    got = registry.fetched("--stage", "prod")
    subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=got, check=True)
    assert verify(got, public) == []
    names = {p.relative_to(published) for p in published.rglob("*") if p.is_file()}
    signature = Path(SIGNATURE_FILE)
    assert {p.relative_to(got) for p in got.rglob("*") if p.is_file()} == {*names, signature}
    for name in names:
        assert (got / name).read_bytes() == (published / name).read_bytes(), name


def test_a_published_release_that_was_tampered_with_is_refused(
    registry: Registry, published: Path
) -> None:
    folder = registry.work / "artifacts" / "release" / published.name
    (model,) = folder.glob("*.ptl")
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)
    before = registry.state()
    ran = registry.edge_vit("release", str(folder), "--yes")
    assert ran.status == 2
    assert f"{model.name} has SHA-256" in ran.text
    assert registry.state() == before
