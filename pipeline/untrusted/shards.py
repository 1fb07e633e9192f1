"""Weights in several files with an index, as transformers writes large ones."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pipeline.errors import InputError, shown
from pipeline.files import read_json, sha256_file

INDEX = ".index.json"
MAX_INDEX_BYTES = 8 << 20  # ViT-H/14 has 50 KB
MAX_SHARDS = 1000
DOWNLOAD = "download it again"


def is_index(path: Path) -> bool:
    """Whether a file lists the shards that hold the weights."""
    return path.name.endswith(INDEX)


def shards(index: Path) -> list[Path]:
    """Return the files that an index names; they lie beside it.

    Raises:
        InputError: it is no such index, or names something else than files beside it.
    """
    content = read_json(index, MAX_INDEX_BYTES, DOWNLOAD)
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise InputError(f"{index} is not an index of weights; {DOWNLOAD}")
    suffix = Path(index.name.removesuffix(INDEX)).suffix
    names = sorted({str(name) for name in weight_map.values()})
    odd = [n for n in names if n != Path(n).name or n.startswith(".") or Path(n).suffix != suffix]
    if odd or len(names) > MAX_SHARDS:
        raise InputError(f"{index} names {shown((odd or names)[0])}, which is no file beside it")
    return [index.with_name(name) for name in names]


def weights_sha256(path: Path) -> str:
    """Return the SHA-256 of a file of weights.

    Of an index it is that of what `sha256sum` would print of it and its shards, by name.

    Raises:
        InputError: a file is missing.
    """
    if not is_index(path):
        return sha256_file(path)
    digest = hashlib.sha256()
    for file in [path, *shards(path)]:
        if not file.exists():
            raise InputError(f"{file} is missing, which {path.name} names; download it, too")
        digest.update(f"{sha256_file(file)}  {file.name}\n".encode())
    return digest.hexdigest()
