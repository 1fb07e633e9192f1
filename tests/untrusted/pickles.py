"""PyTorch's checkpoint formats, written piece by piece, so that each piece may lie."""

from __future__ import annotations

import io
import pickle
import tarfile
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
SYSTEM = {"protocol_version": PROTOCOL, "little_endian": True, "type_sizes": {}}


class Storage:
    """What a pickle says of a tensor's memory."""

    def __init__(self, elements: int, key: str = "0", kind: Any = torch.FloatStorage) -> None:
        self.elements, self.key, self.kind = elements, key, kind


class Call:
    """Makes whoever opens the pickle call ``function``."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.function, self.args = function, args

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.args


def tensor(
    storage: Storage, size: tuple[int, ...], stride: tuple[int, ...] = (1,), offset: int = 0
) -> Call:
    return Call(torch._utils._rebuild_tensor_v2, storage, offset, size, stride, False, {})


def pickled(content: Any, legacy: bool = False, protocol: int = 2) -> bytes:
    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            if not isinstance(value, Storage):
                return None
            ending = (None,) if legacy else ()
            return ("storage", value.kind, value.key, "cpu", value.elements, *ending)

    buffer = io.BytesIO()
    Pickler(buffer, protocol).dump(content)
    return buffer.getvalue()


def write_zip(
    path: Path,
    pickle_: bytes,
    records: Mapping[str, bytes] | None = None,
    more: Iterable[tuple[str, bytes]] = (),
    method: int = zipfile.ZIP_STORED,
    byteorder: bytes = b"little",
) -> None:
    """Write a checkpoint of PyTorch's zip format; ``records`` are its tensors' bytes."""
    with zipfile.ZipFile(path, "w", method) as file:
        file.writestr("it/data.pkl", pickle_)
        file.writestr("it/byteorder", byteorder)
        for key, content in (records or {}).items():
            file.writestr(f"it/data/{key}", content)
        file.writestr("it/version", b"3\n")
        for name, content in more:
            file.writestr(name, content)


def write_legacy(path: Path, content: Any, keys: list[str], memory: bytes = b"") -> None:
    """Write a checkpoint of the format before it: five pickles and the tensors' bytes."""
    parts = [pickle.dumps(part, 2) for part in (MAGIC, PROTOCOL, SYSTEM)]
    whole = content if isinstance(content, bytes) else pickled(content, legacy=True)
    parts += [whole, pickle.dumps(keys, 2), memory]
    path.write_bytes(b"".join(parts))


def write_tar(path: Path, content: bytes) -> None:
    """Write a checkpoint of the first format."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as file:
        for name, part in (("storages", content), ("tensors", content), ("pickle", content)):
            info = tarfile.TarInfo(name)
            info.size = len(part)
            file.addfile(info, io.BytesIO(part))
