"""Set up params.yaml for a checkpoint and a folder of images of your own.

CHECKPOINT is whatever model.checkpoint takes: a file, a folder, an address, hf:ORG/NAME, a name of
the zoo or of timm. IMAGES is a folder with one folder a class, or of unlabelled images. What can be
found is found: the hash, the network, its labels, image size and channels, the classes and the
number of images. Then the keys are written, in place, and what was assumed is said. What stage
fetch would refuse is refused here, and nothing is written. Then `make repro` does the rest.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from pipeline.checkpoints import zoo
from pipeline.checkpoints.locate import TRUST, local_weights
from pipeline.commands.common import PATH, command
from pipeline.contract.contract import Contract
from pipeline.contract.files import load_contract
from pipeline.errors import ParamsError
from pipeline.files import write_text
from pipeline.images.sources import check_source, find_images
from pipeline.network_args import NetworkArgs
from pipeline.params import PARAMS_FILE, Model, Params, load_params
from pipeline.stages.fetch import fetch
from pipeline.stages.samples import divided, shown_at_most
from pipeline.untrusted.shards import weights_sha256

KEPT = (  # if set before
    *("architecture", "labels", "weights", "kwargs", "activation", "threshold", "image_size"),
    "crop_pct",
)
LABEL_STEMS = ("labels", "classes", "class_names")
LABEL_SUFFIXES = (".txt", ".csv", ".tsv", ".json")


@command("init", __doc__)
@click.argument("checkpoint")
@click.argument("images", type=PATH)
@click.option("--architecture", metavar="NAME", help="timm's name, where the file does not say it.")
@click.option("--labels", type=PATH, metavar="FILE", help="File of class names.")
def main(checkpoint: str, images: Path, architecture: str | None, labels: Path | None) -> None:
    """Write the keys and say what was found."""
    told = {"architecture": architecture, "labels": labels}
    for line in init(checkpoint, images, {k: v for k, v in told.items() if v is not None}):
        print(line)


def init(
    checkpoint: str, images: Path, told: Mapping[str, Any], path: Path = PARAMS_FILE
) -> list[str]:
    """Write the keys of ``model`` and ``samples.source`` into ``path``; return what to say.

    ``told`` are keys of ``model`` that the user gives.

    Raises:
        ParamsError, InputError, IntegrityError, NetworkError: as stages `fetch` and `samples` would
            refuse it; the file is then as before.
    """
    params = load_params(path)
    if not checkpoint:
        raise ParamsError("the checkpoint's name is empty")
    check_source(images)
    keys: dict[str, Any] = {"checkpoint": checkpoint, "sha256": None, **told}
    kept = {
        key: getattr(params.model, key)
        for key in KEPT
        if getattr(params.model, key) != Model.model_fields[key].default and key not in told
    }
    lines = [f"kept from {path}: model.{key}: {_shown(value)}" for key, value in kept.items()]
    if checkpoint not in zoo.load_zoo().checkpoints:
        keys["sha256"] = TRUST
        if "labels" not in {*keys, *kept} and (beside := _labels_beside(checkpoint)):
            keys["labels"] = beside
            lines.append(f"assumed: {beside} has the labels; --labels names another file")
    if weights := local_weights(checkpoint):
        keys["sha256"] = weights_sha256(weights)
    model = params.model.model_copy(update=keys)
    source = params.samples.model_copy(update={"source": images})
    changed = params.model_copy(update={"model": model, "samples": source})
    with tempfile.TemporaryDirectory() as folder:
        fetch(changed, Path(folder) / "checkpoint")
        contract = load_contract(Path(folder) / "checkpoint")
    if keys["sha256"] == TRUST:
        keys["sha256"] = contract.checkpoint.source_sha256
        lines.append(f"assumed: {checkpoint} as it is now; any other is refused later")
    lines += [*_about_model(contract), *_about_images(changed, contract)]
    texts = {key: str(value) if isinstance(value, Path) else value for key, value in keys.items()}
    _write(path, {"model": texts, "samples": {"source": str(images)}})
    written = ", ".join([*(f"model.{key}" for key in keys), "samples.source"])
    return [*lines, f"written to {path}: {written}; next: make repro"]


def _shown(value: Any) -> str:
    return str(value.for_timm() if isinstance(value, NetworkArgs) else value)


def _labels_beside(checkpoint: str) -> Path | None:
    """The one file beside a checkpoint on this machine whose name says that it has labels."""
    path = Path(checkpoint)
    if not path.exists():
        return None
    folder = path if path.is_dir() else path.parent
    names = (folder / f"{stem}{suffix}" for stem in LABEL_STEMS for suffix in LABEL_SUFFIXES)
    found = [name for name in names if name.is_file()]
    if len(found) > 1:
        raise ParamsError(
            f"{', '.join(file.name for file in found)} in {folder} may all have the labels; say "
            "which does by --labels FILE"
        )
    return found[0] if found else None


def _about_model(contract: Contract) -> list[str]:
    steps, labels = contract.preprocessing, contract.labels
    height, width = steps.size
    colours = "grey" if steps.channels == 1 else steps.colour_order
    some = f"{labels[0]} to {labels[-1]}"
    return [
        f"network: {contract.checkpoint.architecture}, {len(labels)} classes ({some})",
        f"input: {height} x {width} pixels (height x width), {colours}; resized to {steps.resize}, "
        f"{steps.interpolation}, mean {_numbers(steps.mean)}, deviation {_numbers(steps.std)}",
    ]


def _numbers(values: tuple[float, ...]) -> str:
    return "[" + ", ".join(f"{value:.3g}" for value in values) + "]"


def _about_images(params: Params, contract: Contract) -> list[str]:
    images = find_images(params.samples.source, contract).images
    if not images:
        raise ParamsError(f"{params.samples.source} holds no images")
    limit, calibration = divided(images, params.samples)
    evaluated = min(limit, len(images))
    labels = {image.label for image in images}
    where = "unlabelled" if None in labels else f"in {len(labels)} classes"
    return [
        f"images: {len(images)}, {where}: {evaluated} to evaluate and {calibration} to calibrate "
        "with",
        *shown_at_most(params.gate, evaluated),
    ]


def _write(path: Path, sections: Mapping[str, Mapping[str, Any]]) -> None:
    """Set keys in a YAML file; all else in it, its comments too, stays as it is."""
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.width, yaml.preserve_quotes = 1 << 16, True  # no line is broken, no quote changed
    yaml.representer.add_representer(
        type(None), lambda r, _: r.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    values = yaml.load(path.read_text(encoding="utf-8"))
    for section, keys in sections.items():
        values[section].update(keys)
    text = io.StringIO()
    yaml.dump(values, text)
    write_text(path, text.getvalue())
