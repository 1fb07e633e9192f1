"""Stage ``golden``: images, the tensors they become and the answers they lead to, for any device.

Whoever ports the preprocessing or tries another runtime holds it to these: the first of the samples
and photographs of many sizes, as files; the model's input for each; the logits of float and of
every delivered file. `device_tests` runs them, and they are part of the release.
"""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from pipeline import paths
from pipeline.contract.contract import Contract
from pipeline.contract.files import MODEL_FILE, load_contract
from pipeline.errors import InputError, exit_on_error
from pipeline.evidence.golden import (
    FLOAT,
    GOLDEN_FILE,
    IMAGES,
    INPUTS_FILE,
    GoldenAnswers,
    GoldenEvidence,
    GoldenImage,
    GoldenInputs,
)
from pipeline.evidence.machine import fingerprint
from pipeline.evidence.model import Machine, sealed_json
from pipeline.files import atomic, read_json, sha256_file, write_json
from pipeline.images.decode import read_file
from pipeline.images.preprocessing import Pixels, geometry, normalize
from pipeline.images.sources import ImageSource, find_images, image_files
from pipeline.metrics.logits import json_logits
from pipeline.params import Params, load_params
from pipeline.runtimes import FloatArray, load

# What every decoder reads alike: 8 bits of grey or RGB, no transparency, no profile, no gamma, no
# orientation to apply.
PLAIN_FORMATS = {"JPEG": ".jpg", "PNG": ".png"}
PLAIN_MODES = ("RGB", "L")
PLAIN_CHUNKS = {b"IHDR", b"IDAT", b"IEND", b"pHYs", b"tEXt", b"zTXt", b"tIME", b"bKGD", b"sRGB"}
ORIENTATION = ExifTags.Base.Orientation


def golden(params: Params, artifacts: Path, out: Path) -> GoldenEvidence:
    """Write folder ``out``: ``golden.json``, ``images/`` and ``inputs.f32``.

    ``inputs.f32`` is little-endian float32 [n, 3, H, W], the images in the order of the JSON.

    Raises:
        InputError: a photograph or a delivered file cannot be read.
    """
    contract = load_contract(artifacts / "checkpoint")
    chosen = _first_samples(params, artifacts, contract)
    chosen += image_files(params.golden.photographs, contract.preprocessing)
    apply = geometry(contract.preprocessing)
    with atomic(out) as new:
        (new / IMAGES).mkdir(parents=True)
        images, pixels = [], []
        for number, candidate in enumerate(chosen):
            image, prepared = _keep(candidate, new, number, apply)
            images.append(image)
            pixels.append(prepared)
        inputs = normalize(np.stack(pixels), contract.preprocessing)
        inputs.astype("<f4", copy=False).tofile(new / INPUTS_FILE)
        files = {
            FLOAT: artifacts / "checkpoint" / MODEL_FILE,
            **paths.delivered_files(artifacts),
        }
        evidence = GoldenEvidence(
            inputs=GoldenInputs(
                file=INPUTS_FILE,
                sha256=sha256_file(new / INPUTS_FILE),
                dtype="little-endian float32",
                shape=inputs.shape,
            ),
            images=tuple(images),
            artefacts={key: _answers(path, inputs) for key, path in files.items()},
            machine=Machine(**fingerprint()),
            threshold=contract.threshold,
        )
        write_json(new / GOLDEN_FILE, sealed_json(evidence))
    return evidence


def _first_samples(params: Params, artifacts: Path, contract: Contract) -> list[ImageSource]:
    ids = read_json(artifacts / "samples" / "samples.json")["ids"][: params.golden.samples]
    by_id = {c.id: c for c in find_images(params.samples.source, contract).images}
    lost = [name for name in ids if name not in by_id]
    if lost:
        raise InputError(f"{params.samples.source} lacks {lost[0]}; run `dvc repro samples`")
    return [by_id[name] for name in ids]


def _keep(
    candidate: ImageSource, folder: Path, number: int, apply: Callable[[Image.Image], Pixels]
) -> tuple[GoldenImage, Pixels]:
    """Put an image into ``folder``; return what is to be known of it, and its geometry's pixels."""
    try:
        image = candidate.open()
        suffix = _plain_suffix(read_file(candidate.path)) if candidate.path else None
    except Exception as error:  # Pillow's decoders raise anything on broken files
        raise InputError(f"{candidate.path or candidate.id} is not an image ({error})") from None
    stem = re.sub(r"[^A-Za-z0-9._-]+", "_", Path(candidate.id).with_suffix("").as_posix())
    path = folder / IMAGES / f"{number:02}-{stem}{suffix or '.png'}"
    if suffix and candidate.path:
        shutil.copyfile(candidate.path, path)
    else:
        image.save(path)
    kept = GoldenImage(
        id=candidate.id,
        file=f"{IMAGES}/{path.name}",
        sha256=sha256_file(path),
        width=image.width,
        height=image.height,
        label=candidate.label,
    )
    return kept, apply(image)


def _plain_suffix(data: bytes) -> str | None:
    """The ending of a file that every decoder reads alike; None if it must be written anew."""
    with Image.open(io.BytesIO(data)) as image:
        turned = image.getexif().get(ORIENTATION, 1) != 1
        if turned or image.mode not in PLAIN_MODES or "icc_profile" in image.info:
            return None
        if image.format == "PNG" and (data[24] != 8 or not PLAIN_CHUNKS.issuperset(_chunks(data))):
            return None
        return PLAIN_FORMATS.get(image.format or "")


def _chunks(png: bytes) -> Iterator[bytes]:
    position = 8
    while position < len(png):
        yield png[position + 4 : position + 8]
        position += 12 + int.from_bytes(png[position : position + 4], "big")


def _answers(path: Path, inputs: FloatArray) -> GoldenAnswers:
    """Run one image at a time, as an app does: dynamic quantization sees a whole batch's range."""
    runtime = load(path, threads=1)
    rows = [runtime.logits(inputs[i : i + 1]) for i in range(len(inputs))]
    return GoldenAnswers(
        file=path.name,
        sha256=sha256_file(path),
        logits=tuple(map(tuple, json_logits(np.concatenate(rows)))),
    )


def main() -> None:
    with exit_on_error():
        written = golden(load_params(), paths.ARTIFACTS, paths.GOLDEN)
        images, files = len(written.images), len(written.artefacts)
        print(f"golden: {images} images and the answers of {files} files in {paths.GOLDEN}")


if __name__ == "__main__":
    main()
