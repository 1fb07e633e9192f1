"""Open checkpoint files that may come from anywhere: tensors come out, or one clear error.

Only safetensors and pickles read with ``weights_only=True`` are ever opened; neither can run code.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.core.errors import InputError

if TYPE_CHECKING:
    import torch

PICKLES = (".pth", ".pt", ".bin")
SUFFIXES = (".safetensors", *PICKLES)
CODE = re.compile(r"(?:GLOBAL|function) ([\w.]+)")  # what PyTorch's weights_only reader refused
WRAPPERS = ("model", "state_dict")  # keys that training scripts put the state dict under


def open_checkpoint(
    path: Path, source: str | None = None
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read a state dict, and the metadata that a safetensors file may carry.

    ``source`` is the name that errors give the file (default: ``path``).

    Raises:
        InputError: not one of ``SUFFIXES``, damaged, holds code, or holds no state dict.
    """
    source = source or str(path)
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        return _open_safetensors(path, source)
    if suffix in PICKLES:
        return _state_dict(_open_pickle(path, source), source), {}
    known = ", ".join((*SUFFIXES, ".npz"))
    raise InputError(f"{source}: only {known} checkpoints can be read")


def _open_safetensors(path: Path, source: str) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        raise InputError(
            f"{source} is not a whole safetensors file ({error}); fetch or export it again"
        ) from None


def _open_pickle(path: Path, source: str) -> Any:
    import torch

    try:
        _refuse_compressed(path, source)
        return torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except Exception as error:
        # A broken pickle makes PyTorch's reader fail in any way there is.
        if found := CODE.search(str(error)):
            raise InputError(
                f"{source} is a pickle that holds more than tensors ({found[1]}), which could run "
                "code; it was not opened. Ask for safetensors, or save its state_dict() alone"
            ) from None
        raise InputError(
            f"{source} is not a whole PyTorch checkpoint ({type(error).__name__}); fetch or save "
            "it again"
        ) from None


def _refuse_compressed(path: Path, source: str) -> None:
    """PyTorch stores tensors uncompressed; a deflated entry can only be a zip bomb."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as file:
            packed = [e.filename for e in file.infolist() if e.compress_type != zipfile.ZIP_STORED]
    except zipfile.BadZipFile as error:
        raise InputError(f"{source} is damaged ({error}); fetch or save it again") from None
    if packed:
        raise InputError(f"{source}: {packed[0]} is compressed, which PyTorch never does; refused")


def _state_dict(content: Any, source: str) -> dict[str, torch.Tensor]:
    if not isinstance(content, Mapping):
        raise InputError(f"{source} holds a {type(content).__name__}, not a state dict")
    for wrapper in WRAPPERS:
        if isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    odd = [str(key) for key, value in content.items() if not _is_plain(value)]
    if odd or not content:
        what = f"{odd[0]} is no plain tensor" if odd else "it is empty"
        raise InputError(f"{source} holds no state dict of timm's key names: {what}")
    return dict(content)


def _is_plain(value: Any) -> bool:
    """Whether this is a dense tensor with memory behind each of its elements."""
    import torch

    if not isinstance(value, torch.Tensor) or value.layout != torch.strided:
        return False
    if value.is_quantized or value.is_complex() or value.device.type != "cpu":
        return False
    return value.numel() * value.element_size() <= value.untyped_storage().nbytes()
