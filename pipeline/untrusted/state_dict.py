"""Open checkpoint files from untrusted sources: tensors come out, or one clear error.

Only safetensors and pickles read with ``weights_only=True`` are ever opened; neither can run code.
Of what training scripts write beside weights, a few known classes become inert data.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from pipeline.errors import InputError, shown
from pipeline.files import open_regular
from pipeline.untrusted.pickle_scan import check_pickles
from pipeline.untrusted.shards import is_index, shards

if TYPE_CHECKING:
    import torch

State = dict[str, "torch.Tensor"]

PICKLES = (".pth", ".pt", ".bin", ".ckpt", ".pth.tar")
SUFFIXES = (".safetensors", *PICKLES)
LENGTH_BYTES = 8  # of a safetensors file, before its header
MAX_HEADER_BYTES = 8 << 20  # ViT-H/14 has 60 KB
WRAPPERS = ("model", "state_dict")  # keys that most training scripts put the state dict under
MAX_DEPTH = 2  # of dictionaries around a state dict; an optimizer's tensors lie deeper
ABOUT = ("arch", "args", "hyper_parameters")  # what scripts call how a network was made
MAX_PLAIN = 1000  # values in one of these, all of them taken together
MAX_PLAIN_DEPTH = 10


@dataclass(frozen=True)
class Opened:
    """What a checkpoint file holds."""

    states: Mapping[str, State]  # by their place in the file, as "state_dict"; "" is all of it
    metadata: Mapping[str, str] = field(default_factory=dict)  # of safetensors
    about: Mapping[str, Any] = field(default_factory=dict)  # of ``ABOUT``: plain data

    @property
    def state(self) -> State:
        """The one state dict of a file that has one."""
        (state,) = self.states.values()
        return dict(state)


class Inert:
    """Stands for an object of a known class in a pickle; nothing of the class runs."""

    def __new__(cls, *_: Any) -> Inert:  # noqa: D102
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        self.state = state


# What becomes of objects in a pickle whose classes are neither tensors nor containers.
INERT: Mapping[str, type] = {
    "argparse.Namespace": Inert,
    "pathlib.PosixPath": Inert,
    "pathlib.WindowsPath": Inert,
    "pathlib.PurePosixPath": Inert,
    "numpy.dtype": Inert,
    "numpy.core.multiarray.scalar": Inert,
    "numpy._core.multiarray.scalar": Inert,
    "_codecs.encode": Inert,  # numpy's bytes
    "pytorch_lightning.utilities.parsing.AttributeDict": OrderedDict,
    "lightning_fabric.utilities.data.AttributeDict": OrderedDict,
    "lightning.fabric.utilities.data.AttributeDict": OrderedDict,
}


def suffix_of(path: PurePath) -> str:
    """Return the ending that says a checkpoint's format, in lower case; "" if it is none."""
    name = path.name.lower()
    endings = (*SUFFIXES, ".npz")
    return next((ending for ending in endings if name.endswith(ending)), "")


def open_checkpoint(path: Path, source: str | None = None) -> Opened:
    """Read a checkpoint file.

    ``source`` is the name that errors give the file (default: ``path``).

    Raises:
        InputError: not one of ``SUFFIXES``, damaged, holds code, or holds no state dict.
    """
    source = source or str(path)
    if is_index(path):
        return _open_shards(path)
    suffix = suffix_of(path)
    if suffix == ".safetensors":
        return _open_safetensors(path, source)
    if suffix in PICKLES:
        content = _open_pickle(path, source)
        if not isinstance(content, dict):
            raise InputError(f"{source} holds a {type(content).__name__}, not a state dict")
        # Not by the object's own methods: a pickle may put something else in their place.
        values = dict(dict.items(content))
        about = {key: _plain(values[key]) for key in ABOUT if key in values}
        return Opened(_state_dicts(values, source, path.stat().st_size), about=about)
    suffixes = ", ".join((*SUFFIXES, ".npz"))
    raise InputError(f"{source}: only {suffixes} checkpoints can be read")


def _open_shards(index: Path) -> Opened:
    state: State = {}
    for path in shards(index):
        part = open_checkpoint(path).states.get("", {})
        if twice := state.keys() & part.keys():
            raise InputError(f"{path} has {shown(min(twice))}, as another shard has")
        state |= part
    return Opened({"": state})


def _open_safetensors(path: Path, source: str) -> Opened:
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
            return Opened({"": state}, opened.metadata() or {})
    except (SafetensorError, OSError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise InputError(
            f"{source} is not a whole safetensors file ({shown(error, 200)}); fetch or export it "
            "again"
        ) from None


def _open_pickle(path: Path, source: str) -> Any:
    import torch

    check_pickles(path, source)
    try:
        with torch.serialization.safe_globals([(kind, name) for name, kind in INERT.items()]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # A broken pickle makes PyTorch's reader fail in any way there is.
        raise InputError(
            f"{source} is not a whole PyTorch checkpoint ({type(error).__name__}); fetch or save "
            "it again"
        ) from None


def _state_dicts(content: dict[Any, Any], source: str, size: int) -> dict[str, State]:
    """Find every dictionary of nothing but tensors, by its keys joined with dots."""
    states: dict[str, State] = {}
    seen: set[int] = set()
    queue = deque([("", content, 0)])
    while queue:
        place, values, depth = queue.popleft()
        values = dict(dict.items(values))
        if values and not _odd(values):
            states[place] = values
        elif depth < MAX_DEPTH:
            for key, value in values.items():
                if isinstance(key, str) and isinstance(value, dict) and id(value) not in seen:
                    seen.add(id(value))
                    queue.append((f"{place}.{key}" if place else key, value, depth + 1))
    if not states:
        raise _no_state_dict(content, source)
    storages = [v.untyped_storage() for state in states.values() for v in state.values()]
    claimed = sum({s.data_ptr(): s.nbytes() for s in storages}.values())
    if claimed > size:
        raise InputError(
            f"{source} has {size} bytes and claims tensors of {claimed}; fetch or save it again"
        )
    return states


def _odd(values: dict[Any, Any]) -> list[Any]:
    """Keys of what has no place in a state dict."""
    return [k for k, value in values.items() if not (isinstance(k, str) and _is_dense(value))]


def _no_state_dict(content: dict[Any, Any], source: str) -> InputError:
    values = content
    for wrapper in WRAPPERS:
        if isinstance(values.get(wrapper), dict):
            values = dict(dict.items(values[wrapper]))
            break
    problem = f"{shown(_odd(values)[0])} is not a dense tensor" if values else "it is empty"
    return InputError(f"{source} holds no state dict of timm's key names: {problem}")


def _plain(value: Any, budget: Iterator[int] | None = None, depth: int = 0) -> Any:
    """Return text, numbers and containers of them; None for anything else, and beyond limits."""
    budget = budget or iter(range(MAX_PLAIN))
    if next(budget, None) is None or depth > MAX_PLAIN_DEPTH:
        return None
    if isinstance(value, Inert):
        value = getattr(value, "state", None)
    if isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, dict):
        items = list(dict.items(value))[:MAX_PLAIN]
        return {k: _plain(item, budget, depth + 1) for k, item in items if isinstance(k, str)}
    if isinstance(value, list | tuple):
        return [_plain(item, budget, depth + 1) for item in value[:MAX_PLAIN]]
    return None


def _is_dense(value: Any) -> bool:
    """Whether this is a dense tensor with memory behind each of its elements."""
    import torch

    if not isinstance(value, torch.Tensor) or value.layout != torch.strided:
        return False
    if value.is_quantized or value.is_complex() or value.device.type != "cpu":
        return False
    return value.numel() * value.element_size() <= value.untyped_storage().nbytes()
