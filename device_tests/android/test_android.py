"""What the Android target catches, and that the app's resampling is Pillow's, bit for bit."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from device_tests import android, cache
from device_tests.android import maven
from device_tests.android.assets import assets, from_release
from device_tests.conftest import Judge
from device_tests.target import Bundle
from pipeline.contract.contract import Contract, Preprocessing
from pipeline.contract.files import read_contract
from pipeline.errors import IntegrityError
from pipeline.evidence.golden import read_golden
from pipeline.files import sha256_file
from pipeline.images.preprocessing import geometry, normalize
from pipeline.metrics.distances import sqnr_db
from pipeline.params import load_params
from pipeline.release.manifest import SUMS_FILE, format_sums
from pipeline.runtimes import Runtime, load

Pixels = NDArray[np.uint8]
Inputs = NDArray[np.float32]

FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
# height, width before and after: down, up, one way only, by very much, to a single pixel; tall
# images, whose height Pillow 13 reduces first, and those just not tall enough
SIZES = [
    ((411, 317), (256, 256)),
    ((901, 101), (224, 25)),
    ((411, 301), (310, 251)),
    ((411, 301), (311, 251)),
    ((400, 200), (200, 100)),
    ((131, 97), (224, 301)),
    ((411, 317), (223, 172)),
    ((97, 224), (53, 224)),
    ((224, 97), (224, 211)),
    ((871, 997), (3, 5)),
    ((1, 1), (7, 3)),
    ((2, 3), (1, 1)),
    ((255, 254), (256, 255)),
]


def at(preprocessing: Preprocessing, **changes: Any) -> Preprocessing:
    return replace(preprocessing, **changes)


# What apps do wrong, and what was meant.
def _as_it_is(p: Preprocessing) -> Preprocessing:
    return p


def _cropped_at_090(p: Preprocessing) -> Preprocessing:
    return at(p, resize=248, crop_pct=0.9)


MISTAKES: dict[str, tuple[Callable[[Preprocessing], Preprocessing], dict[str, Any]]] = {
    "crop 0.875 for 0.9": (_cropped_at_090, {"resize": 256, "crop_pct": 0.875}),
    "crop 0.875 for 1.0": (_as_it_is, {"resize": 256, "crop_pct": 0.875}),
    "bilinear for bicubic": (_as_it_is, {"interpolation": "bilinear"}),
    "BGR for RGB": (_as_it_is, {"colour_order": "BGR"}),
    "mean and std swapped": (
        _as_it_is,
        {"mean": (0.229, 0.224, 0.225), "std": (0.485, 0.456, 0.406)},
    ),
}
# Other contracts that the app has to follow as timm does.
OTHERS: dict[str, dict[str, Any]] = {
    "crop 0.9": {"resize": 248, "crop_pct": 0.9},
    "squash": {"crop_mode": "squash", "resize": 256, "crop_pct": 0.875},
    "padded": {"resize": 199, "crop_pct": 224 / 199.5},
    "bilinear": {"interpolation": "bilinear"},
}
REFUSED = {"crop_mode": "border"}


@pytest.fixture(scope="session")
def contract(bundle: Bundle) -> Contract:
    return read_contract(bundle.files["ptl"])


@pytest.fixture(scope="session")
def images() -> list[tuple[Pixels, tuple[int, int]]]:
    random = np.random.default_rng(0)
    return [(random.integers(0, 256, (*size, 3), np.uint8), to) for size, to in SIZES]


@pytest.fixture(scope="session")
def app(
    bundle: Bundle, contract: Contract, images: list[tuple[Pixels, tuple[int, int]]]
) -> dict[str, Any]:
    """All that is asked of the app, in one run of it: inputs by name of the contract, and sizes."""
    lacking = android.missing()
    if lacking is not None:
        pytest.fail(f"{lacking.reason}; run `{lacking.command}`")
    folder = cache.folder("android")
    android.install(folder)
    asked = {"": contract.preprocessing, "refused": at(contract.preprocessing, **REFUSED)}
    for name, (meant, wrong) in MISTAKES.items():
        asked[name] = at(meant(contract.preprocessing), **wrong)
    for name, changes in OTHERS.items():
        asked[name] = at(contract.preprocessing, **changes)
    answers = maven.run(
        folder,
        [
            maven.Inputs(replace(contract, preprocessing=p).to_json(), bundle.golden.images)
            for p in asked.values()
        ],
        [maven.Resize(pixels, to, name) for name in FILTERS for pixels, to in images],
    )
    return {"inputs": dict(zip(asked, answers.inputs, strict=True)), "sizes": answers.sizes}


@pytest.fixture(scope="session")
def runtime(bundle: Bundle) -> Runtime:
    return load(bundle.files["ptl"])


def logits(runtime: Runtime, inputs: Inputs) -> NDArray[np.float32]:
    return np.concatenate([runtime.logits(inputs[i : i + 1]) for i in range(len(inputs))])


def by_python(bundle: Bundle, preprocessing: Preprocessing) -> Inputs:
    apply = geometry(preprocessing)
    pixels = [apply(Image.open(path)) for path in bundle.golden.images]
    return normalize(np.stack(pixels), preprocessing)


def test_the_app_prepares_the_golden_images_as_python_does(
    bundle: Bundle, app: dict[str, Any]
) -> None:
    for path, mine, golden in zip(
        bundle.golden.images, app["inputs"][""], bundle.golden.inputs, strict=True
    ):
        if path.suffix == ".png":
            np.testing.assert_array_equal(mine, golden, path.name)
        else:
            np.testing.assert_allclose(mine, golden, atol=0.04, err_msg=path.name)


@pytest.mark.parametrize("name", OTHERS)
def test_the_app_follows_other_contracts(
    bundle: Bundle, contract: Contract, app: dict[str, Any], name: str
) -> None:
    expected = by_python(bundle, at(contract.preprocessing, **OTHERS[name]))
    png = [path.suffix == ".png" for path in bundle.golden.images]
    np.testing.assert_array_equal(app["inputs"][name][png], expected[png])
    np.testing.assert_allclose(app["inputs"][name], expected, atol=0.04)


@pytest.mark.parametrize("name", MISTAKES)
def test_a_wrong_preprocessing_is_caught(
    bundle: Bundle, contract: Contract, app: dict[str, Any], runtime: Runtime, name: str
) -> None:
    meant, _ = MISTAKES[name]
    expected = logits(runtime, by_python(bundle, meant(contract.preprocessing)))
    limit = load_params(Path(__file__).parents[2] / "params.yaml").gate.budgets["ptl"]
    assert limit.device_sqnr_min_db is not None
    found = sqnr_db(expected, logits(runtime, app["inputs"][name]))
    print(f"{name}: {found:.1f} dB")
    assert found < limit.device_sqnr_min_db


def test_what_a_contract_asks_and_the_app_lacks_is_said(app: dict[str, Any]) -> None:
    assert "crop_mode border, which this app lacks" in app["inputs"]["refused"]


def test_resampling_is_pillows_bit_for_bit(
    app: dict[str, Any], images: list[tuple[Pixels, tuple[int, int]]]
) -> None:
    asked = [(image, name) for name in FILTERS for image in images]
    for ((pixels, to), name), actual in zip(asked, app["sizes"], strict=True):
        expected = Image.fromarray(pixels).resize(to[::-1], FILTERS[name])
        np.testing.assert_array_equal(actual, np.asarray(expected), f"{pixels.shape} {to} {name}")


def with_contract(path: Path, to: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """Copy a .ptl with another contract in it."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(to, "w") as new:
        for entry in old.infolist():
            content = old.read(entry)
            if entry.filename.endswith("/extra/contract.json"):
                contract = json.loads(content)
                change(contract)
                content = json.dumps(contract).encode()
            new.writestr(entry.filename, content)
    return to


def test_a_file_whose_contract_was_changed_fails_on_android(
    judge: Judge, bundle: Bundle, tmp_path: Path
) -> None:
    def change(contract: dict[str, Any]) -> None:
        contract["preprocessing"]["colour_order"] = "BGR"
        contract["artefact"]["operators"].append(android.INVENTED)

    changed = with_contract(bundle.files["ptl"], tmp_path / "changed.ptl", change)
    status, text = judge("android", ptl=changed)
    assert status == 1
    assert "FAIL .ptl on android: does not load" in text
    assert f"operators arm64-v8a: not in {android.LIBRARY}" in text
    assert f"operators x86_64: not in {android.LIBRARY}" in text
    assert android.INVENTED in text
    assert "FAIL .ptl on android: pixels" in text


def test_a_truncated_file_does_not_load_on_android(
    judge: Judge, bundle: Bundle, tmp_path: Path
) -> None:
    path = tmp_path / "cut.ptl"
    path.write_bytes(bundle.files["ptl"].read_bytes()[:1_000_000])
    status, text = judge("android", ptl=path)
    assert status == 1
    assert "FAIL .ptl on android: does not load" in text


@pytest.mark.parametrize("abi", android.ABIS)
def test_the_operator_look_up_is_not_misled_by_text(app: dict[str, Any], abi: str) -> None:
    """Tails of other names, parts of names and names in messages are not operators."""
    archives = maven.archives(cache.folder("android"))
    library = android.library(archives[min(archives)], abi)
    there = ("quantized::linear_dynamic", "aten::matmul", "aten::softmax.int", "aten::add.str")
    assert library.missing(there) == []
    absent = (
        android.FUSED_ATTENTION,
        android.INVENTED,
        "uantized::linear_dynamic",
        "quantized::linear_dynami",
        "quantized::linear_dynamic.out",
        "aten::atmul",
        "aten::at",
        "aten::get_gradients",  # of another namespace
        "aten::linear_dynamic",
    )
    assert library.missing(absent) == list(absent)


def test_the_library_is_not_aligned_to_16_kb_pages(app: dict[str, Any]) -> None:
    """What docs/devices.md says of Google Play's rule."""
    for archive in maven.archives(cache.folder("android")).values():
        assert min(android.library(archive, "arm64-v8a").alignments) < 16384


def test_assets_are_the_model_its_hash_and_the_golden_images(
    bundle: Bundle, tmp_path: Path
) -> None:
    model = bundle.files["ptl"]
    assets(model, bundle.golden, tmp_path)
    release = tmp_path / "main" / "assets" / "release"
    sha256 = bundle.golden.content.artefacts["ptl"].sha256
    assert (release / "SHA256SUMS").read_text() == f"{sha256}  {model.name}\n"
    assert (release / model.name).read_bytes() == model.read_bytes()
    golden = tmp_path / "androidTest" / "assets" / "golden"
    assert read_golden(golden) == bundle.golden.content
    assert (golden / bundle.golden.content.images[0].file).is_file()


def test_assets_of_another_model_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="has no answers of"):
        assets(bundle.files["onnx"], bundle.golden, tmp_path)
    assert not any(tmp_path.iterdir())


def test_a_release_that_was_tampered_with_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    release, out = tmp_path / "release", tmp_path / "out"
    shutil.copytree(bundle.golden.folder, release / "golden")
    model = release / bundle.files["ptl"].name
    shutil.copyfile(bundle.files["ptl"], model)
    whole = [path for path in release.rglob("*") if path.is_file()]
    sums = {path.relative_to(release).as_posix(): sha256_file(path) for path in whole}
    (release / SUMS_FILE).write_text(format_sums(sums))
    from_release(release, out)
    assert (out / "main" / "assets" / "release" / model.name).is_file()
    model.write_bytes(model.read_bytes()[:-1])
    with pytest.raises(IntegrityError, match="is not what was published"):
        from_release(release, out)


def test_the_app_ships_the_release_that_is_looked_for_first() -> None:
    gradle = (Path(android.__file__).parent / "app" / "build.gradle").read_text()
    assert f"{maven.LITE}:{maven.RELEASES[0]}'" in gradle
