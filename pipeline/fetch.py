"""Stage ``fetch``: float weights from wherever ``model.checkpoint`` says, and the contract.

What is known about a checkpoint comes, first hit wins, from params.yaml, from the zoo or the hub's
``config.json``, from the file's own metadata, and from timm's configuration of the architecture.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from pipeline.core.contract import Checkpoint, Contract, Preprocessing
from pipeline.core.errors import InputError, ParamsError, exit_on_error
from pipeline.core.params import Model, Params, load_params
from pipeline.support import paths, zoo
from pipeline.support.checkpoints import SUFFIXES, open_checkpoint
from pipeline.support.contracts import CONTRACT_FILE, MODEL_FILE
from pipeline.support.download import (
    check_sha256,
    download,
    file_name,
    hub_file,
    trust,
    trusted_sha256,
)
from pipeline.support.facts import (
    IMAGENET_CLASSES,
    Facts,
    facts_of_config,
    facts_of_metadata,
    read_labels,
)
from pipeline.support.files import atomic, read_json, sha256_file, write_bytes, write_text

if TYPE_CHECKING:
    import torch
    from torch import nn

TRUST = "trust-first-use"
HUB = "hf:"
HUB_ID = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")
HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.\w+$")  # as torch.hub names its files


@dataclass(frozen=True, kw_only=True)
class Origin:
    """A checkpoint file on this machine, whose hash was checked, not yet opened."""

    name: str
    source: str  # for the contract and for errors
    path: Path
    sha256: str
    facts: Facts = field(default_factory=Facts)


def fetch(params: Params, out: Path) -> None:
    """Write folder ``out``: ``model.safetensors`` (float32, timm's names) and ``contract.json``.

    Raises:
        ParamsError: the checkpoint is not known, or its hash is missing.
        NetworkError: it cannot be downloaded.
        IntegrityError: its bytes are not the promised ones.
        InputError: it is no classifier that timm can build, or its weights do not fit.
    """
    origin = locate(params.model)

    from safetensors.torch import save

    state, metadata = open_checkpoint(origin.path, origin.source)
    facts = origin.facts.over(facts_of_metadata(metadata, origin.source))
    model, labels, preprocessing = _build(state, facts, origin.source, params.model.image_size)
    with atomic(out) as new:
        new.mkdir()
        arrays = {key: value.contiguous() for key, value in model.state_dict().items()}
        write_bytes(new / MODEL_FILE, save(arrays, {"format": "pt"}))
        checkpoint = Checkpoint(
            name=origin.name,
            architecture=str(facts.architecture),
            source=origin.source,
            source_sha256=origin.sha256,
            sha256=sha256_file(new / MODEL_FILE),
            license=facts.license,
        )
        contract = Contract(
            name=origin.name,
            version=params.release.version,
            preprocessing=preprocessing,
            labels=labels,
            checkpoint=checkpoint,
        )
        write_text(new / CONTRACT_FILE, contract.to_json())


def locate(model: Model) -> Origin:
    """Find the file that ``model.checkpoint`` names, download it if need be, check its hash."""
    named, known = model.checkpoint, zoo.load_zoo()
    if named in known.checkpoints:
        return _from_zoo(model, named, known.checkpoints[named])
    if named.startswith(HUB):
        return _from_hub(model)
    if named.startswith(("https://", "http://")):
        return _from_address(model)
    if Path(named).is_file():
        return _from_path(model, known)
    raise ParamsError(f"params.yaml: model.checkpoint: {_unknown(named, known)}")


def _unknown(named: str, known: zoo.Zoo) -> str:
    if Path(named).is_dir():
        return f"{named} is a folder; give the {' or '.join(SUFFIXES)} file in it"
    near = known.near(named)
    message = f"{named!r} is neither a file nor in the zoo; "
    message += (
        f"did you mean {', '.join(near)}?" if near else f"it has {', '.join(known.checkpoints)}"
    )
    is_hub_id = named.count("/") == 1 and HUB_ID.fullmatch(named)
    return message + (f"; for the hub write {HUB}{named}" if is_hub_id else "")


def _from_zoo(model: Model, name: str, entry: zoo.Entry, copy: Path | None = None) -> Origin:
    """``copy`` is the user's own copy of the entry's file."""
    for key in ("architecture", "labels"):
        given = getattr(model, key)
        if given is not None and str(given) != getattr(entry, key):
            raise ParamsError(
                f"params.yaml: model.{key} is for a checkpoint of your own, but {name} is in the "
                f"zoo; set it to null, or set model.checkpoint to the path of your file"
            )
    path = copy or _entry_file(entry)
    sha256 = check_sha256(path, entry.sha256, str(copy or entry.source))
    if model.sha256 not in (None, TRUST):
        check_sha256(path, str(model.sha256), f"{name} (model.sha256 in params.yaml)")
    facts = Facts(
        architecture=entry.architecture,
        labels=entry.label_names(),
        license=entry.license,
        data=entry.given(),
    )
    return Origin(name=_slug(name), source=entry.source, path=path, sha256=sha256, facts=facts)


def _entry_file(entry: zoo.Entry) -> Path:
    if entry.source.startswith("https://"):
        return download(entry.source, entry.sha256)
    if not Path(entry.source).is_file():
        raise InputError(
            f"{entry.source} is missing; run from the repository's root, or bring it back with "
            f"`git checkout {entry.source}`"
        )
    return Path(entry.source)


def _from_path(model: Model, known: zoo.Zoo) -> Origin:
    path = Path(model.checkpoint)
    if name := _is_copy_of(path, model, known):
        return _from_zoo(model, name, known.checkpoints[name], path)
    key = str(path.resolve())
    expected = _promised(model.sha256, path.name, key)
    if expected is None and model.sha256 != TRUST:
        raise ParamsError(
            f"params.yaml: model.sha256 is missing for {path}. If this is the file you mean, add "
            f"under model:\n  sha256: {sha256_file(path)}"
        )
    sha256 = _hold_to(expected, path, key, model)
    return Origin(
        name=_slug(path.stem), source=path.name, path=path, sha256=sha256, facts=_given(model)
    )


def _is_copy_of(path: Path, model: Model, known: zoo.Zoo) -> str | None:
    """Return the zoo's entry whose file this is, downloaded by hand."""
    name = known.by_file_name(path.name)
    if name is None or model.architecture is not None or model.labels is not None:
        return None
    return name if sha256_file(path).startswith(known.checkpoints[name].sha256) else None


def _from_address(model: Model) -> Origin:
    address = model.checkpoint
    name = file_name(address)
    expected = _promised(model.sha256, name, address)
    if expected is None:
        _need_hash(model)
    path = download(address, expected)
    sha256 = _hold_to(expected, path, address, model)
    stem = PurePosixPath(name).stem
    return Origin(name=_slug(stem), source=address, path=path, sha256=sha256, facts=_given(model))


def _from_hub(model: Model) -> Origin:
    given = model.checkpoint.removeprefix(HUB)
    if not (parts := HUB_ID.fullmatch(given)):
        raise ParamsError(
            f"params.yaml: model.checkpoint: {model.checkpoint!r} is no hub id; write "
            f"{HUB}ORG/NAME or {HUB}ORG/NAME@REVISION"
        )
    repository, revision = parts["repository"], parts["revision"]
    expected = _promised(model.sha256, "", model.checkpoint)
    if expected is None:
        _need_hash(model)
    config = hub_file(repository, "config.json", revision)
    facts = facts_of_config(read_json(config), model.checkpoint)
    commit = config.parent.name  # the same commit for both files, whatever happens between
    path = hub_file(repository, "model.safetensors", commit)
    sha256 = _hold_to(expected, path, model.checkpoint, model)
    return Origin(
        name=_slug(repository),
        source=f"{HUB}{repository}@{commit}",
        path=path,
        sha256=sha256,
        facts=_given(model).over(facts),
    )


def _promised(given: str | None, name: str, key: str) -> str | None:
    """Return the first digits of the SHA-256 that the file must have, None if nobody says."""
    if given not in (None, TRUST):
        return given
    if found := HASH_IN_NAME.search(name):
        return found[1]
    return trusted_sha256(key) if given == TRUST else None


def _need_hash(model: Model) -> None:
    if model.sha256 != TRUST:
        raise ParamsError(
            f"params.yaml: model.sha256 is missing for {model.checkpoint}. Set it to the SHA-256 "
            f"that the publisher states (8 to 64 hex digits), or to {TRUST} to take what comes "
            "now and refuse anything else later"
        )


def _hold_to(expected: str | None, path: Path, key: str, model: Model) -> str:
    """Return the file's SHA-256, once it is the promised one, or trusted for the first time."""
    if model.sha256 == TRUST:
        sha256 = sha256_file(path)
        trust(key, sha256)
    return check_sha256(path, expected or "", model.checkpoint)


def _slug(text: str) -> str:
    """Make a name that every file system and app store takes."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.") or "model"


def _given(model: Model) -> Facts:
    """What params.yaml says about the user's own checkpoint."""
    labels = read_labels(model.labels) if model.labels else None
    return Facts(architecture=model.architecture, labels=labels)


def _build(
    state: Mapping[str, torch.Tensor], facts: Facts, source: str, image_size: int | None
) -> tuple[nn.Module, tuple[str, ...], Preprocessing]:
    """Make the model with its weights, and say how to feed it and what its outputs are called."""
    from pipeline.support.models import (
        create,
        head_size,
        load_weights,
        pretrained_cfg,
        resample,
    )

    if facts.architecture is None:
        raise ParamsError(
            f"params.yaml: model.architecture is missing, and {source} does not say; give timm's "
            "name, e.g. deit_tiny_patch16_224"
        )
    cfg = pretrained_cfg(facts.architecture)
    labels = facts.labels or ()
    classes = head_size(cfg, state) or len(labels) or IMAGENET_CLASSES
    size = {} if image_size is None else {"input_size": (3, image_size, image_size)}
    preprocessing = _preprocessing({**facts.data, **size}, cfg)
    model = create(facts.architecture, num_classes=classes, image_size=preprocessing.size[0])
    load_weights(model, resample(state, model), source)
    if len(labels) != classes:
        names = f"{len(labels)} labels are given" if labels else "no labels are given"
        raise InputError(
            f"{source} has {classes} classes, but {names}; set model.labels in params.yaml to a "
            f"file with one class name a line, or to {zoo.IMAGENET} for the 1000 of ImageNet-1k"
        )
    return model, labels, preprocessing


def _preprocessing(data: Mapping[str, Any], cfg: Mapping[str, Any]) -> Preprocessing:
    from timm.data import resolve_data_config

    config = resolve_data_config(dict(data), pretrained_cfg=dict(cfg))
    _, height, width = config["input_size"]
    return Preprocessing(
        size=(height, width),
        resize=math.floor(height / config["crop_pct"]),
        crop_pct=config["crop_pct"],
        crop_mode=config["crop_mode"],
        interpolation=config["interpolation"],
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )


def main() -> None:
    with exit_on_error():
        fetch(load_params(), paths.CHECKPOINT)


if __name__ == "__main__":
    main()
