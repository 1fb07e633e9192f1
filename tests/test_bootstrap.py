"""The environment of the Makefile: what the locks hold, and which builds of torch are taken."""

from __future__ import annotations

import re

import pytest

from scripts import bootstrap
from tests.conftest import ROOT

USERS = (ROOT / "requirements.lock").read_text()
DEVELOPERS = (ROOT / "requirements-dev.lock").read_text()


def pins(lock: str) -> set[str]:
    return set(re.findall(r"^[a-zA-Z0-9][^\s;\\]*", lock, re.MULTILINE))


def test_developers_have_what_users_have_in_the_same_versions():
    assert pins(USERS) < pins(DEVELOPERS)


def test_users_get_no_developers_tools():
    names = {pin.split("==")[0] for pin in pins(USERS)}
    assert not names & {"mypy", "playwright", "ruff", "statsmodels", "transformers"}
    assert {"torch", "timm", "onnx", "onnxruntime", "executorch", "dvc"} <= names


@pytest.mark.parametrize("lock", [USERS, DEVELOPERS])
def test_locks_hold_each_package_by_hash_and_name_no_index(lock):
    assert "://" not in lock
    assert lock.count("--hash=sha256:") >= len(pins(lock))


@pytest.mark.parametrize(("status", "has_cpu_builds"), [(0, True), (1, False)])
def test_cpu_builds_of_torch_are_taken_where_the_index_has_them(tmp_path, status, has_cpu_builds):
    uv = tmp_path / "uv"
    uv.write_text(f"#!/bin/sh\nexit {status}\n")
    uv.chmod(0o755)
    builds = bootstrap.torch_builds([str(uv)], USERS, "")
    assert [build.split("==")[0] for build in builds] == ["torch", "torchvision"] * has_cpu_builds
    assert all(build.endswith("+cpu") for build in builds)


def test_torch_wheels_names_a_folder_or_an_index(tmp_path):
    folder = bootstrap.torch_builds(["uv"], USERS, str(tmp_path))
    index = bootstrap.torch_builds(["uv"], USERS, "https://wheels.example/cpu")
    assert folder[:2] == ["--find-links", str(tmp_path)]
    assert index[:2] == ["--index", "https://wheels.example/cpu"]
    assert [pin.split("==")[0] for pin in index[2:]] == ["torch", "torchvision"]


def test_other_builds_of_torch_leave_its_cuda_libraries_out():
    names = {pin.split("==")[0] for pin in pins(bootstrap.without_torch(USERS))}
    assert not {name for name in names if name.startswith(("nvidia-", "cuda-", "triton"))}
    assert not names & {"torch", "torchvision"}
    assert {"torchao", "timm"} <= names


def test_an_environment_is_installed_once(tmp_path):
    lock = ROOT / "requirements.lock"
    assert not bootstrap.is_installed(tmp_path, lock, "")
    (tmp_path / "requirements.stamp").write_text(bootstrap.fingerprint(lock, ""))
    assert bootstrap.is_installed(tmp_path, lock, "")
    assert not bootstrap.is_installed(tmp_path, lock, "https://wheels.example/cpu")
