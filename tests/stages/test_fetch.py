from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.checkpoints.zoo import load_zoo
from pipeline.contract.contract import Contract
from pipeline.errors import InputError, IntegrityError, NetworkError, ParamsError
from pipeline.files import sha256_file
from pipeline.images.imagenet import imagenet_labels
from pipeline.models.build import create
from pipeline.params import Model, Params, load_params
from pipeline.stages.fetch import fetch, locate, main
from tests.loopback import Page, Site, hub_pages

ROOT = Path(__file__).parents[2]
EMBEDDED = "deit_tiny_patch16_224.fashion_mnist"
TINY = "test_vit"  # 0.4 million weights, 160 px


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in a folder with nothing but ``embedded``, with a cache of its own."""
    monkeypatch.setenv("EDGE_VIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    (tmp_path / "embedded").symlink_to(ROOT / "embedded")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    """Random weights of a tiny transformer with three classes."""
    torch.manual_seed(0)
    return dict(create(TINY, num_classes=3).state_dict())


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    (tmp_path / "labels.txt").write_text("cat\ndog\ncow\n")
    return tmp_path / "labels.txt"


def run(images: Path | None = None, **model: Any) -> tuple[Contract, dict[str, torch.Tensor]]:
    default = load_params(ROOT / "params.yaml")
    params: Params = default.model_copy(update={"model": Model(**model)})
    if images:
        source = default.samples.model_copy(update={"source": images})
        params = params.model_copy(update={"samples": source})
    fetch(params, Path("out"))
    contract = Contract.from_json(Path("out/contract.json").read_text())
    assert contract.artefact is None
    assert contract.version == params.release.version
    assert contract.checkpoint.sha256 == sha256_file(Path("out/model.safetensors"))
    return contract, load_file("out/model.safetensors")


def save(path: str, content: Any) -> str:
    """Write a checkpoint; return its SHA-256."""
    if path.endswith(".safetensors"):
        save_file(content, path)
    else:
        torch.save(content, path)
    return sha256_file(Path(path))


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key].float()) for key in a)


def test_the_embedded_checkpoint_becomes_float32_with_its_contract() -> None:
    entry = load_zoo().checkpoints[EMBEDDED]
    contract, written = run(checkpoint=EMBEDDED)
    assert same(written, load_file(entry.source))
    assert {tensor.dtype for tensor in written.values()} == {torch.float32}
    assert contract.name == EMBEDDED
    assert contract.labels[0] == "T-shirt/top"
    assert len(contract.labels) == 10
    assert contract.checkpoint.architecture == "deit_tiny_patch16_224"
    assert contract.checkpoint.source_sha256 == entry.sha256
    assert contract.checkpoint.license == "MIT"
    how = contract.preprocessing
    assert (how.size, how.resize, how.crop_pct) == ((224, 224), 224, 1.0)
    assert (how.interpolation, how.crop_mode) == ("bicubic", "center")
    assert how.mean == (0.485, 0.456, 0.406)


def test_equal_input_gives_equal_bytes(state: dict[str, torch.Tensor], labels: Path) -> None:
    sha256 = save("own.pth", state)
    written = []
    for _ in range(2):
        run(checkpoint="own.pth", architecture=TINY, sha256=sha256, labels=labels)
        written.append([path.read_bytes() for path in sorted(Path("out").iterdir())])
    assert written[0] == written[1]


@pytest.mark.parametrize("file", ["my model v2.pth", "own.safetensors"])
def test_an_own_checkpoint_takes_timms_preprocessing(
    state: dict[str, torch.Tensor], labels: Path, file: str
) -> None:
    sha256 = save(file, state)
    contract, written = run(checkpoint=file, architecture=TINY, sha256=sha256, labels=labels)
    assert same(written, state)
    assert contract.name == Path(file).stem.replace(" ", "-")
    assert contract.labels == ("cat", "dog", "cow")
    assert contract.checkpoint.source == file
    how = contract.preprocessing
    assert (how.size, how.resize, how.crop_pct) == ((160, 160), 168, 0.95)


def test_deits_wrapping_and_both_distilled_heads_are_read() -> None:
    architecture = "deit_tiny_distilled_patch16_224"
    state = create(architecture, num_classes=1000).state_dict()
    sha256 = save("d.pth", {"model": state})
    contract, written = run(
        checkpoint="d.pth", architecture=architecture, sha256=sha256, labels="imagenet"
    )
    assert same(written, dict(state))
    assert "head_dist.weight" in written
    assert contract.labels == imagenet_labels()


def test_what_finetune_wrote_into_the_file_is_taken_over(state: dict[str, torch.Tensor]) -> None:
    metadata = {
        "architecture": TINY,
        "num_classes": "3",
        "labels": '["a", "b", "c"]',
        "mean": "[0.5, 0.5, 0.5]",
        "std": "[0.25, 0.25, 0.25]",
        "crop_pct": "0.8",
        "interpolation": "bilinear",
    }
    save_file(state, "own.safetensors", metadata)
    contract, _ = run(checkpoint="own.safetensors", sha256=sha256_file(Path("own.safetensors")))
    how = contract.preprocessing
    assert contract.labels == ("a", "b", "c")
    assert (how.mean, how.std) == ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    assert (how.crop_pct, how.resize, how.interpolation) == (0.8, 200, "bilinear")


def test_params_win_over_the_files_metadata(state: dict[str, torch.Tensor], labels: Path) -> None:
    save_file(state, "own.safetensors", {"architecture": TINY, "labels": '["a", "b", "c"]'})
    sha256 = sha256_file(Path("own.safetensors"))
    contract, _ = run(checkpoint="own.safetensors", sha256=sha256, labels=labels)
    assert contract.labels == ("cat", "dog", "cow")


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"crop_pct": "7"}, "crop_pct is 7"),
        ({"labels": '{"a": 1}'}, "labels do not have the numbers 0 to 0"),
    ],
)
def test_nonsense_in_metadata_is_refused(
    state: dict[str, torch.Tensor], metadata: dict[str, str], words: str
) -> None:
    save_file(state, "own.safetensors", {"architecture": TINY} | metadata)
    with pytest.raises(InputError, match=words):
        run(checkpoint="own.safetensors", sha256=sha256_file(Path("own.safetensors")))


# Labels from class folders


def class_folders(*names: str) -> Path:
    for name in names:
        (Path("images") / name).mkdir(parents=True)
        (Path("images") / name / "1.png").touch()
    return Path("images")


def test_class_folders_name_the_labels_where_nothing_else_does(
    state: dict[str, torch.Tensor], labels: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = {"checkpoint": "own.pth", "architecture": TINY, "sha256": save("own.pth", state)}
    images = class_folders("cow", "cat", "cafe\u0301")  # an accent as macOS writes it
    contract, _ = run(images, **own)
    assert contract.labels == ("caf\u00e9", "cat", "cow")
    assert "the labels are the 3 class folders of images, sorted" in capsys.readouterr().out
    assert run(images, **own, labels=labels)[0].labels == ("cat", "dog", "cow")


@pytest.mark.parametrize("names", [("1", "2", "10"), ("Bag", "apple", "Coat")])
def test_folders_that_training_scripts_number_differently_are_refused(
    state: dict[str, torch.Tensor], names: tuple[str, ...]
) -> None:
    own = {"checkpoint": "own.pth", "architecture": TINY, "sha256": save("own.pth", state)}
    with pytest.raises(InputError, match=r"two orders: torchvision trains with .*; timm with "):
        run(class_folders(*names), **own)


def test_another_number_of_class_folders_names_nothing(state: dict[str, torch.Tensor]) -> None:
    own = {"checkpoint": "own.pth", "architecture": TINY, "sha256": save("own.pth", state)}
    with pytest.raises(InputError, match="no labels are given and images has 2 class folders"):
        run(class_folders("cat", "dog"), **own)


def test_a_missing_architecture_and_missing_labels_are_said_at_once(
    state: dict[str, torch.Tensor], labels: Path
) -> None:
    own = {"checkpoint": "own.pth", "sha256": save("own.pth", state)}
    with pytest.raises(ParamsError, match=r"architecture is missing.* model\.labels is, too"):
        run(**own)
    for given in ({"labels": labels}, {"images": class_folders("cat", "cow", "dog")}):
        with pytest.raises(ParamsError) as caught:
            run(**own, **given)
        assert "model.labels" not in str(caught.value)


@pytest.mark.parametrize(("orientation", "background"), [("stored", "black")])
def test_how_images_are_decoded_stands_in_the_contract(
    state: dict[str, torch.Tensor], labels: Path, orientation: str, background: str
) -> None:
    own = {"checkpoint": "own.pth", "architecture": TINY, "sha256": save("own.pth", state)}
    contract, _ = run(**own, labels=labels, orientation=orientation, background=background)
    how = contract.preprocessing
    assert (how.orientation, how.background) == ("stored", (0, 0, 0))


# Hashes


def test_a_missing_hash_stops_with_the_line_to_paste(state: dict[str, torch.Tensor]) -> None:
    sha256 = save("own.pth", state)
    with pytest.raises(ParamsError, match=rf"model\.sha256 is missing .*\n  sha256: {sha256}"):
        run(checkpoint="own.pth", architecture=TINY)


def test_what_else_may_be_missing_is_said_with_the_missing_hash(
    state: dict[str, torch.Tensor], labels: Path
) -> None:
    save("own.pth", state)
    with pytest.raises(ParamsError, match=r"\n  architecture: NAME .*\n  labels: FILE "):
        run(checkpoint="own.pth")
    with pytest.raises(ParamsError) as caught:
        run(checkpoint="own.pth", architecture=TINY, labels=labels)
    assert "NAME" not in str(caught.value)
    assert "FILE" not in str(caught.value)


def test_a_wrong_hash_stops_with_both_before_the_file_is_opened() -> None:
    Path("own.pth").write_bytes(b"not even a checkpoint")
    actual = sha256_file(Path("own.pth"))
    with pytest.raises(IntegrityError, match=f"expected 01234567, got {actual}"):
        run(checkpoint="own.pth", architecture=TINY, sha256="01234567")


def test_the_hash_in_a_file_name_is_enough(state: dict[str, torch.Tensor], labels: Path) -> None:
    sha256 = save("own.pth", state)
    Path("own.pth").rename(f"own-{sha256[:8]}.pth")
    contract, _ = run(checkpoint=f"own-{sha256[:8]}.pth", architecture=TINY, labels=labels)
    assert contract.checkpoint.source_sha256 == sha256


def test_the_hash_in_a_file_name_is_checked(state: dict[str, torch.Tensor]) -> None:
    save("own-01234567.pth", state)
    with pytest.raises(IntegrityError, match="expected 01234567"):
        run(checkpoint="own-01234567.pth", architecture=TINY)


def test_trust_on_first_use_records_and_then_refuses_other_bytes(
    state: dict[str, torch.Tensor], labels: Path
) -> None:
    mine = {"checkpoint": "own.pth", "architecture": TINY, "labels": labels}
    sha256 = save("own.pth", state)
    for _ in range(2):
        contract, _ = run(**mine, sha256="trust-first-use")
    assert contract.checkpoint.source_sha256 == sha256
    assert sha256 in Path("cache/trusted.json").read_text()
    changed = save("own.pth", state | {"head.bias": state["head.bias"] + 1})
    with pytest.raises(IntegrityError, match=f"{sha256}.*{changed}"):
        run(**mine, sha256="trust-first-use")


def test_a_wrong_hash_for_a_zoo_entry_is_refused() -> None:
    with pytest.raises(IntegrityError, match="expected 01234567"):
        run(checkpoint=EMBEDDED, sha256="01234567")


def test_a_copy_of_a_zoo_file_is_known_as_the_zoo_entry(tmp_path: Path) -> None:
    (tmp_path / "downloads").mkdir()
    copy = Path(shutil.copy(load_zoo().checkpoints[EMBEDDED].source, tmp_path / "downloads"))
    origin = locate(Model(checkpoint=str(copy)))
    assert origin.name == EMBEDDED
    assert origin.path == copy
    assert origin.info.architecture == "deit_tiny_patch16_224"


# Addresses and the hub


def test_an_address_is_fetched_once(state: dict[str, torch.Tensor], labels: Path) -> None:
    sha256 = save("own.pth", state)
    with Site({"/w/own.pth": Page(Path("own.pth").read_bytes())}) as site:
        model = {"checkpoint": f"{site.address}/w/own.pth", "architecture": TINY, "labels": labels}
        run(**model, sha256=sha256)
        contract, written = run(**model, sha256=sha256)
    assert site.asked == ["/w/own.pth"]
    assert same(written, state)
    assert contract.name == "own"
    assert contract.checkpoint.source == f"{site.address}/w/own.pth"


def test_what_an_address_has_for_its_server_only_is_not_published(
    state: dict[str, torch.Tensor], labels: Path
) -> None:
    sha256 = save("own.pth", state)
    with Site({"/w/own.pth?token=s3cret": Page(Path("own.pth").read_bytes())}) as site:
        address = site.address.replace("http://", "http://me:passw0rd@") + "/w/own.pth?token=s3cret"
        contract, _ = run(checkpoint=address, architecture=TINY, labels=labels, sha256=sha256)
    assert contract.checkpoint.source == f"{site.address}/w/own.pth"
    assert "s3cret" not in contract.to_json()
    assert "passw0rd" not in contract.to_json()


def test_an_address_without_a_hash_is_not_even_asked() -> None:
    with Site({}) as site, pytest.raises(ParamsError, match="trust-first-use"):
        run(checkpoint=f"{site.address}/own.pth", architecture=TINY)
    assert site.asked == []


def test_an_address_that_changed_since_it_was_trusted_is_refused(
    state: dict[str, torch.Tensor], labels: Path
) -> None:
    first = save("own.pth", state)
    page = Page(Path("own.pth").read_bytes())
    with Site({"/own.pth": page}) as site:
        address = f"{site.address}/own.pth"
        model = {"checkpoint": address, "architecture": TINY, "labels": labels}
        run(**model, sha256="trust-first-use")
        Path(f"cache/{first}.pth").unlink()
        second = save("own.pth", state | {"head.bias": state["head.bias"] + 1})
        page.body = Path("own.pth").read_bytes()
        with pytest.raises(IntegrityError, match=f"{first}.*{second}"):
            run(**model, sha256="trust-first-use")


def test_a_timm_repository_on_the_hub_says_everything(
    state: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    sha256 = save("model.safetensors", state)
    config = {
        "architecture": TINY,
        "num_classes": 3,
        "label_names": ["a", "b", "c"],
        "pretrained_cfg": {"input_size": [3, 96, 96], "crop_pct": 0.75, "license": "mit"},
    }
    state["pos_embed"] = create(TINY, num_classes=3, image_size=96).state_dict()["pos_embed"]
    sha256 = save("model.safetensors", state)
    files = {
        "config.json": json.dumps(config).encode(),
        "model.safetensors": Path("model.safetensors").read_bytes(),
    }
    with Site(hub_pages("org/name", files, commit="d" * 40)) as site:
        monkeypatch.setenv("HF_ENDPOINT", site.address)
        contract, written = run(checkpoint="hf:org/name", sha256=sha256)
    assert same(written, state)
    assert contract.name == "org-name"
    assert contract.labels == ("a", "b", "c")
    assert contract.checkpoint.source == f"hf:org/name@{'d' * 40}"
    assert contract.checkpoint.license == "mit"
    assert contract.preprocessing.size == (96, 96)
    assert contract.preprocessing.resize == 128


@pytest.fixture
def vit() -> dict[str, bytes]:
    """A classifier of transformers' format, as files of a repository."""
    from tests.checkpoints.test_transformers_format import saved

    saved("ViT", Path("vit"))
    return {path.name: path.read_bytes() for path in Path("vit").iterdir()}


def test_a_transformers_repository_is_taken_over(
    vit: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    sha256 = hashlib.sha256(vit["model.safetensors"]).hexdigest()
    with Site(hub_pages("google/vit", vit)) as site:
        monkeypatch.setenv("HF_ENDPOINT", site.address)
        contract, _ = run(checkpoint="hf:google/vit", sha256=sha256)
    downloaded, _ = run(checkpoint="vit", sha256=sha256)
    for found in (contract, downloaded):
        assert found.checkpoint.architecture == "vit_tiny_patch16_224"
        assert found.checkpoint.norm_eps == 1e-12
        assert found.preprocessing.crop_mode == "squash"
        assert found.labels == ("crane", "tench", "crane")


def test_a_repository_without_a_preprocessor_is_refused(vit: dict[str, bytes]) -> None:
    Path("vit/preprocessor_config.json").unlink()
    with pytest.raises(
        InputError, match=r"preprocessor_config\.json is missing, .*transformers\.ViTImageProcessor"
    ):
        run(checkpoint="vit", sha256="trust-first-use")


def test_a_repository_of_another_kind_is_refused_before_its_weights_are_fetched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = {"architectures": ["SwinForImageClassification"], "model_type": "swin"}
    files = {"config.json": json.dumps(config).encode(), "model.safetensors": b""}
    with Site(hub_pages("org/swin", files)) as site:
        monkeypatch.setenv("HF_ENDPOINT", site.address)
        with pytest.raises(InputError, match="'swin' model"):
            run(checkpoint="hf:org/swin", sha256="trust-first-use")
    assert not any("model.safetensors" in path for path in site.asked)


def test_a_timm_name_is_looked_for_on_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    with Site({}) as site:
        monkeypatch.setenv("HF_ENDPOINT", site.address)
        with pytest.raises(
            NetworkError, match=r"hf:timm/vit_base_patch32_224\.augreg_in21k_ft_in1k"
        ):
            run(checkpoint="vit_base_patch32_224", sha256="trust-first-use")


def test_a_file_of_googles_needs_no_more_words(tmp_path: Path) -> None:
    from benchmarks.checkpoints.google_npz import save as save_npz

    save_npz(create("vit_tiny_patch16_224", num_classes=1000, image_size=64), Path("Ti_16.npz"))
    contract, written = run(checkpoint="Ti_16.npz", sha256=sha256_file(Path("Ti_16.npz")))
    assert contract.checkpoint.architecture == "vit_tiny_patch16_224"
    assert contract.preprocessing.size == (64, 64)
    assert contract.preprocessing.mean == (0.5, 0.5, 0.5)
    assert contract.labels == imagenet_labels()
    assert written["pos_embed"].shape == (1, 17, 192)


def test_a_head_of_imagenet_21k_is_refused(state: dict[str, torch.Tensor]) -> None:
    width = state["head.weight"].shape[1]
    head = {"head.weight": torch.zeros(21_843, width), "head.bias": torch.zeros(21_843)}
    sha256 = save("own.pth", state | head)
    with pytest.raises(InputError, match="21843 classes of ImageNet-21k"):
        run(checkpoint="own.pth", sha256=sha256, architecture=TINY)


@pytest.mark.parametrize("size", [80, 240])
def test_position_embeddings_are_fitted_to_the_image_size(
    state: dict[str, torch.Tensor], labels: Path, size: int
) -> None:
    sha256 = save("own.pth", state)
    own = {"checkpoint": "own.pth", "architecture": TINY, "labels": labels, "image_size": size}
    contract, written = run(**own, sha256=sha256)
    assert contract.preprocessing.size == (size, size)
    assert written["pos_embed"].shape[1] == (size // 16) ** 2 + 1
    assert torch.equal(written["pos_embed"][:, 0], state["pos_embed"][:, 0])


def test_a_crop_that_is_given_counts_more_than_timms(
    state: dict[str, torch.Tensor], labels: Path
) -> None:
    own = {"checkpoint": "own.pth", "architecture": TINY, "labels": labels}
    own["sha256"] = save("own.pth", state)
    usual, _ = run(**own)
    contract, _ = run(**own, crop_pct=0.5)
    assert usual.preprocessing.crop_pct != 0.5
    assert contract.preprocessing.crop_pct == 0.5
    assert contract.preprocessing.resize == 2 * contract.preprocessing.size[0]


# Wrong input


def test_missing_images_are_said_before_anything_is_fetched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text.replace("source: embedded/", "source: nowhere/"))
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    assert "samples.source: nowhere/fashion_mnist is missing" in capsys.readouterr().err
    assert not Path("artifacts").exists()


@pytest.mark.parametrize(
    ("checkpoint", "words"),
    [
        ("deit_tiny_224", "did you mean deit_tiny_patch16_224"),
        ("google/vit-base-patch16-224", "for the hub write hf:google/vit-base-patch16-224"),
        ("no/such/file.pth", "neither a file nor in the zoo"),
        ("embedded", r"embedded is a folder without config\.json; give the \.safetensors"),
        ("hf:only-a-name", "write hf:ORG/NAME"),
    ],
)
def test_an_unknown_checkpoint_is_explained(checkpoint: str, words: str) -> None:
    with pytest.raises(ParamsError, match=words):
        run(checkpoint=checkpoint, sha256="trust-first-use")


def test_an_architecture_must_be_known(state: dict[str, torch.Tensor]) -> None:
    sha256 = save("own.pth", state)
    with pytest.raises(ParamsError, match=r"model\.architecture is missing"):
        run(checkpoint="own.pth", sha256=sha256)
    with pytest.raises(InputError, match=r"did you mean .*test_vit"):
        run(checkpoint="own.pth", sha256=sha256, architecture="test_vitt")


@pytest.mark.parametrize("key", ["architecture", "labels"])
def test_parameters_for_own_checkpoints_do_not_pass_for_the_zoos(key: str) -> None:
    with pytest.raises(ParamsError, match=rf"model\.{key} is for a checkpoint of your own"):
        run(checkpoint=EMBEDDED, **{key: "something"})


def test_weights_of_another_architecture_are_refused_and_nothing_is_written(
    state: dict[str, torch.Tensor], labels: Path
) -> None:
    sha256 = save("own.pth", state)
    with pytest.raises(InputError, match=r"own\.pth does not fit the model: .* and \d+ more"):
        run(checkpoint="own.pth", sha256=sha256, architecture="test_vit2", labels=labels)
    assert not Path("out").exists()


def test_nan_in_weights_is_refused_and_the_last_output_stays(
    state: dict[str, torch.Tensor], labels: Path
) -> None:
    mine = {"checkpoint": "own.pth", "architecture": TINY, "labels": labels}
    run(**mine, sha256=save("own.pth", state))
    before = sha256_file(Path("out/model.safetensors"))
    state["norm.weight"][3] = float("nan")
    with pytest.raises(InputError, match=r"norm\.weight holds NaN"):
        run(**mine, sha256=save("own.pth", state))
    assert sha256_file(Path("out/model.safetensors")) == before


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cat\ndog\n", r"own\.pth has 3 classes, but 2 labels are given"),
        ("cat\ndog\ncat\n", "two classes are called 'cat'"),
        ("cat\n\ndog\n", "a class name is empty"),
        ("", "a class name is empty"),
        (None, r"labels\.txt is missing"),
    ],
)
def test_labels_must_be_one_name_for_each_class(
    state: dict[str, torch.Tensor], labels: Path, text: str | None, words: str
) -> None:
    sha256 = save("own.pth", state)
    labels.unlink() if text is None else labels.write_text(text)
    with pytest.raises((InputError, ParamsError), match=words):
        run(checkpoint="own.pth", sha256=sha256, architecture=TINY, labels=labels)


def test_labels_are_asked_for_where_nobody_gives_them(state: dict[str, torch.Tensor]) -> None:
    sha256 = save("own.pth", state)
    with pytest.raises(InputError, match=r"3 classes, but no labels.*model\.labels"):
        run(checkpoint="own.pth", sha256=sha256, architecture=TINY)


def test_the_command_ends_with_one_message_and_status_2(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = (ROOT / "params.yaml").read_text().replace(EMBEDDED, "deit_tiny_224")
    Path("params.yaml").write_text(text)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("edge-vit: params.yaml: model.checkpoint: ")
    assert len(said.splitlines()) == 1
    assert list(Path("artifacts").glob("*")) == []
