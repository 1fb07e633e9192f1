"""Open checkpoint files from untrusted sources: tensors come out, or one clear error.

Only safetensors and pickles read with ``weights_only=True`` are ever opened; neither can run code.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import InputError, shown
from pipeline.files import open_regular
from pipeline.untrusted.pickle_scan import check_pickles

if TYPE_CHECKING:
    import torch

PICKLES = (".pth", ".pt", ".bin")
SUFFIXES = (".safetensors", *PICKLES)
LENGTH_BYTES = 8  # of a safetensors file, before its header
MAX_HEADER_BYTES = 8 << 20  # ViT-H/14 has 60 KB
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
        return _state_dict(_open_pickle(path, source), source, path.stat().st_size), {}
    suffixes = ", ".join((*SUFFIXES, ".npz"))
    raise InputError(f"{source}: only {suffixes} checkpoints can be read")


def _open_safetensors(path: Path, source: str) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    with open_regular(path) as file:
        # The library takes a hundred megabytes, from which it makes a gigabyte of objects.
        length = int.from_bytes(file.read(LENGTH_BYTES), "little")
    if length > MAX_HEADER_BYTES:
        raise InputError(
            f"{source} is not a whole safetensors file (a header of {length} bytes, more than "
            f"{MAX_HEADER_BYTES}); fetch or export it again"
        )
    try:
        with safe_open(path, framework="pt") as opened:
            state = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
            return state, opened.metadata() or {}
    except (SafetensorError, OSError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise InputError(
            f"{source} is not a whole safetensors file ({shown(error, 200)}); fetch or export it "
            "again"
        ) from None


def _open_pickle(path: Path, source: str) -> Any:
    import torch

    check_pickles(path, source)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # A broken pickle makes PyTorch's reader fail in any way there is.
        raise InputError(
            f"{source} is not a whole PyTorch checkpoint ({type(error).__name__}); fetch or save "
            "it again"
        ) from None


def _state_dict(content: Any, source: str, size: int) -> dict[str, torch.Tensor]:
    if not isinstance(content, dict):
        raise InputError(f"{source} holds a {type(content).__name__}, not a state dict")
    # Not by the object's own methods: a pickle may put something else in their place.
    values = dict(dict.items(content))
    for wrapper in WRAPPERS:
        if isinstance(values.get(wrapper), dict):
            values = dict(dict.items(values[wrapper]))
            break
    odd = [key for key, value in values.items() if not (isinstance(key, str) and _is_dense(value))]
    if odd or not values:
        problem = f"{shown(odd[0])} is not a dense tensor" if odd else "it is empty"
        raise InputError(f"{source} holds no state dict of timm's key names: {problem}")
    storages = [value.untyped_storage() for value in values.values()]
    claimed = sum({s.data_ptr(): s.nbytes() for s in storages}.values())
    if claimed > size:
        raise InputError(
            f"{source} has {size} bytes and claims tensors of {claimed}; fetch or save it again"
        )
    return values


def _is_dense(value: Any) -> bool:
    """Whether this is a dense tensor with memory behind each of its elements."""
    import torch

    if not isinstance(value, torch.Tensor) or value.layout != torch.strided:
        return False
    if value.is_quantized or value.is_complex() or value.device.type != "cpu":
        return False
    return value.numel() * value.element_size() <= value.untyped_storage().nbytes()
