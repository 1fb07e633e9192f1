"""Where a checkpoint comes from: find the file that ``model.checkpoint`` names, and check its hash.

Nothing in a file is opened here but the JSON that lies beside weights on a hub.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

from pipeline.checkpoints import transformers_format, zoo
from pipeline.checkpoints.labels import read_labels
from pipeline.checkpoints.metadata import CheckpointInfo, info_from_config
from pipeline.errors import InputError, NetworkError, ParamsError
from pipeline.files import read_json, sha256_file
from pipeline.params import Model
from pipeline.untrusted.download import check_sha256, download, hub_file, trust, trusted_sha256
from pipeline.untrusted.http import file_name, without_secrets
from pipeline.untrusted.shards import DOWNLOAD, INDEX, is_index, shards, weights_sha256
from pipeline.untrusted.state_dict import SUFFIXES, State, suffix_of

MAX_BYTES = 16 << 30  # ViT-H/14 has 2.5 GB
MAX_CONFIG_BYTES = 4 << 20  # with the names of 21 843 classes twice, 2 MB
TRUST = "trust-first-use"
HUB = "hf:"
CONFIG_FILE, PREPROCESSOR_FILE = "config.json", "preprocessor_config.json"
WHOLE_FILES = ("model.safetensors", "pytorch_model.bin")
WEIGHTS_FILES = (*WHOLE_FILES, *(f"{name}{INDEX}" for name in WHOLE_FILES))  # the first there is
HUB_ID = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")
OWN = ("architecture", "labels", "weights", "kwargs")  # parameters for files of one's own
HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.\w+$")  # as torch.hub names its files


@dataclass(frozen=True, kw_only=True)
class Origin:
    """A checkpoint file on this machine, whose hash was checked, not yet opened."""

    name: str
    source: str  # for the contract and for errors
    path: Path
    sha256: str
    info: CheckpointInfo = field(default_factory=CheckpointInfo)
    to_timm: Callable[[State], State] = lambda state: state  # from the names in the file


def locate(model: Model) -> Origin:
    """Find the file that ``model.checkpoint`` names, download it if need be, check its hash.

    Raises:
        ParamsError: the checkpoint is not known, or its hash is missing.
        NetworkError: it cannot be downloaded.
        IntegrityError: its bytes are not the expected ones.
        InputError: it is too large, or the files beside it cannot be used.
    """
    named, entries = model.checkpoint, zoo.load_zoo()
    if named in entries.checkpoints:
        return _from_zoo(model, named, entries.checkpoints[named])
    if named.startswith(HUB):
        return _from_hub(model)
    if named.startswith(("https://", "http://")):
        return _from_address(model)
    if Path(named).is_file():
        return _from_path(model, entries)
    if (Path(named) / CONFIG_FILE).is_file():
        return _from_folder(model)
    if hub_id := _timm_hub_id(named):
        return _from_hub(model.model_copy(update={"checkpoint": HUB + hub_id}))
    raise ParamsError(f"params.yaml: model.checkpoint: {_unknown(named, entries)}")


def _unknown(named: str, entries: zoo.Zoo) -> str:
    if Path(named).is_dir():
        inside = sorted(path.parent.name for path in Path(named).glob(f"*/{CONFIG_FILE}"))
        if inside:
            some = ", ".join(inside[-3:])
            return (
                f"{named} is a folder without {CONFIG_FILE}, as a training run leaves it; give one "
                f"of the folders in it: {some}"
            )
        endings = " or ".join((*SUFFIXES, ".npz"))
        return f"{named} is a folder without {CONFIG_FILE}; give the {endings} file in it"
    similar = entries.similar(named)
    message = f"{named!r} is neither a file nor in the zoo; "
    message += (
        f"did you mean {', '.join(similar)}?"
        if similar
        else f"it has {', '.join(entries.checkpoints)}"
    )
    is_hub_id = named.count("/") == 1 and HUB_ID.fullmatch(named)
    return message + (f"; for the hub write {HUB}{named}" if is_hub_id else "")


def _from_zoo(model: Model, name: str, entry: zoo.Entry, copy: Path | None = None) -> Origin:
    """``copy`` is the user's own copy of the entry's file."""
    for key, value in _of_ones_own(model).items():
        if str(value) != getattr(entry, key, None):
            raise ParamsError(
                f"params.yaml: model.{key} is for a checkpoint of your own, but {name} is in the "
                f"zoo; set it to null, or set model.checkpoint to the path of your file"
            )
    path = copy or _entry_file(entry)
    sha256 = check_sha256(path, entry.sha256, str(copy or entry.source))
    if model.sha256 not in (None, TRUST):
        check_sha256(path, str(model.sha256), f"{name} (model.sha256 in params.yaml)")
    info = CheckpointInfo(
        architecture=entry.architecture,
        labels=entry.label_names(),
        license=entry.license,
        data=entry.to_timm(),
    )
    return Origin(name=_slug(name), source=entry.source, path=path, sha256=sha256, info=info)


def _entry_file(entry: zoo.Entry) -> Path:
    if entry.source.startswith("https://"):
        return download(entry.source, entry.sha256)
    if not Path(entry.source).is_file():
        raise InputError(
            f"{entry.source} is missing; run from the repository's root, or bring it back with "
            f"`git checkout {entry.source}`"
        )
    return Path(entry.source)


def _from_path(model: Model, entries: zoo.Zoo) -> Origin:
    path = Path(model.checkpoint)
    _check_size(path)
    if name := _zoo_name(path, model, entries):
        return _from_zoo(model, name, entries.checkpoints[name], path)
    return _users_file(path, model, _slug(_stem(path)))


def _check_size(path: Path) -> None:
    """Refuse a file that would take too long to hash."""
    files = [path, *(file for file in (shards(path) if is_index(path) else ()) if file.exists())]
    size = sum(file.stat().st_size for file in files)
    if size > MAX_BYTES:
        raise InputError(f"{path} has {size} bytes; checkpoints of up to {MAX_BYTES} are read")


def _users_file(path: Path, model: Model, name: str) -> Origin:
    key = str(path.resolve())
    expected = _expected_sha256(model.sha256, path.name, key)
    if expected is None and model.sha256 != TRUST:
        raise ParamsError(
            f"params.yaml: model.sha256 is missing for {path}. If this is the file you mean, add "
            f"under model:\n  sha256: {weights_sha256(path)}" + _missing_too(model)
        )
    sha256 = _check_or_trust(expected, path, key, model)
    return Origin(
        name=name, source=path.name, path=path, sha256=sha256, info=_info_from_params(model)
    )


def _of_ones_own(model: Model) -> dict[str, Any]:
    """The parameters for a checkpoint of one's own that are set."""
    values = {key: getattr(model, key) for key in OWN}
    return {k: value for k, value in values.items() if value != Model.model_fields[k].default}


def _zoo_name(path: Path, model: Model, entries: zoo.Zoo) -> str | None:
    """Return the name of the zoo's entry whose file this is, downloaded by hand."""
    name = entries.by_file_name(path.name)
    if name is None or _of_ones_own(model):
        return None
    return name if sha256_file(path).startswith(entries.checkpoints[name].sha256) else None


def _from_address(model: Model) -> Origin:
    address = model.checkpoint
    name = file_name(address)
    expected = _expected_sha256(model.sha256, name, address)
    if expected is None:
        _need_hash(model)
    path = download(address, expected)
    sha256 = _check_or_trust(expected, path, address, model)
    stem = _stem(PurePosixPath(name))
    source = without_secrets(address)
    return Origin(
        name=_slug(stem), source=source, path=path, sha256=sha256, info=_info_from_params(model)
    )


def _from_hub(model: Model) -> Origin:
    if not (parts := HUB_ID.fullmatch(model.checkpoint.removeprefix(HUB))):
        raise ParamsError(
            f"params.yaml: model.checkpoint: {model.checkpoint!r} is not a hub id; write "
            f"{HUB}ORG/NAME or {HUB}ORG/NAME@REVISION"
        )
    repository, revision = parts["repository"], parts["revision"]
    expected = _expected_sha256(model.sha256, "", model.checkpoint)
    if expected is None:
        _need_hash(model)
    config = hub_file(repository, CONFIG_FILE, revision)
    commit = config.parent.name  # the same commit for all files, whatever happens between
    info, to_timm = _described(
        _read(config),
        lambda: _read(hub_file(repository, PREPROCESSOR_FILE, commit)),
        model.checkpoint,
    )
    path = _hub_weights(repository, commit)
    sha256 = _check_or_trust(expected, path, model.checkpoint, model)
    return Origin(
        name=_slug(repository),
        source=f"{HUB}{repository}@{commit}",
        path=path,
        sha256=sha256,
        info=_info_from_params(model).merged_with(info),
        to_timm=to_timm,
    )


def _hub_weights(repository: str, commit: str) -> Path:
    """The first of ``WEIGHTS_FILES`` that the repository has, with its shards."""
    errors: list[NetworkError] = []
    for name in WEIGHTS_FILES:
        try:
            path = hub_file(repository, name, commit)
        except NetworkError as error:
            errors.append(error)
            continue
        for shard in shards(path) if is_index(path) else ():
            hub_file(repository, shard.name, commit)
        return path
    raise errors[0]


def _from_folder(model: Model) -> Origin:
    """A hub repository that was downloaded by hand."""
    folder = Path(model.checkpoint)
    config = _read(folder / CONFIG_FILE)

    def preprocessor() -> Any:
        path = folder / PREPROCESSOR_FILE
        if not path.exists():
            raise transformers_format.no_preprocessor(config, path)
        return _read(path)

    info, to_timm = _described(config, preprocessor, model.checkpoint)
    weights = _weights_in(folder)
    _check_size(weights)
    return dataclasses.replace(
        _users_file(weights, model, _slug(folder.resolve().name)),
        info=_info_from_params(model).merged_with(info),
        to_timm=to_timm,
    )


def _weights_in(folder: Path) -> Path:
    for name in WEIGHTS_FILES:
        if (folder / name).is_file():
            return folder / name
    raise InputError(
        f"{folder} has neither {' nor '.join(WHOLE_FILES)}, nor one in shards with an index; "
        "download it again"
    )


def local_weights(named: str) -> Path | None:
    """The file on this machine with a checkpoint's weights; None of one that is elsewhere.

    Raises:
        InputError: it is a folder without weights, or a file too large to hash.
    """
    path = Path(named)
    if named in zoo.load_zoo().checkpoints or not path.exists():
        return None
    if (path / CONFIG_FILE).is_file():
        path = _weights_in(path)
    if not path.is_file():
        return None
    _check_size(path)
    return path


def _read(path: Path) -> Any:
    return read_json(path, MAX_CONFIG_BYTES, DOWNLOAD)


def _described(
    config: Any, preprocessor: Callable[[], Any], source: str
) -> tuple[CheckpointInfo, Callable[[State], State]]:
    """Return what a repository's own files say, and how its weights get timm's names."""
    if not transformers_format.is_transformers(config):
        return info_from_config(config, source), lambda state: state
    transformers_format.read_config(config, source)
    prepared = preprocessor()
    info = transformers_format.checkpoint_info(config, prepared, source)
    return info, lambda state: transformers_format.to_timm(state, config, prepared)


def _timm_hub_id(name: str) -> str | None:
    """Where timm's own weights of an architecture are on the hub, if it has any."""
    import timm

    if not re.fullmatch(r"[\w.]+", name) or not timm.is_model(name):
        return None
    from pipeline.models.build import pretrained_cfg

    hub_id = pretrained_cfg(name).get("hf_hub_id")
    return str(hub_id) if hub_id and not str(hub_id).endswith("/") else None


def _expected_sha256(in_params: str | None, name: str, key: str) -> str | None:
    """Return the first digits of the SHA-256 that the file must have, None if nobody says."""
    if in_params not in (None, TRUST):
        return in_params
    if in_name := HASH_IN_NAME.search(name):
        return in_name[1]
    return trusted_sha256(key) if in_params == TRUST else None


def _need_hash(model: Model) -> None:
    if model.sha256 != TRUST:
        raise ParamsError(
            f"params.yaml: model.sha256 is missing for {model.checkpoint}. Set it to the SHA-256 "
            f"that the publisher states (8 to 64 hex digits), or to {TRUST} to accept the file "
            "as it is now and refuse any other later" + _missing_too(model)
        )


def _missing_too(model: Model) -> str:
    """What else the file may not say; it is not opened before its hash is known."""
    lines = ""
    if model.architecture is None:
        lines += "\n  architecture: NAME # timm's, unless the file says it"
    if model.labels is None:
        lines += "\n  labels: FILE # one class a line, unless the file or class folders say them"
    return lines


def _check_or_trust(expected: str | None, path: Path, key: str, model: Model) -> str:
    """Return the file's SHA-256, once it is the expected one, or trusted for the first time."""
    if model.sha256 == TRUST:
        sha256 = weights_sha256(path)
        trust(key, sha256)
    return check_sha256(path, expected or "", model.checkpoint)


def _stem(path: PurePath) -> str:
    """The file's name without its ending, which may be ``.pth.tar``."""
    ending = suffix_of(path)
    return path.name[: -len(ending)] if ending else path.stem


def _slug(text: str) -> str:
    """Make a name that every file system and app store takes."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.") or "model"


def _info_from_params(model: Model) -> CheckpointInfo:
    """What params.yaml says about the user's own checkpoint."""
    labels = read_labels(model.labels) if model.labels else None
    return CheckpointInfo(architecture=model.architecture, labels=labels, kwargs=model.kwargs)
