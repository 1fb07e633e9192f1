"""Scan the pickles of PyTorch's checkpoints before PyTorch opens them; no object is built.

PyTorch's own reader runs no code, but it takes whatever time and memory a pickle asks for: a key
that is a tuple of tuples takes forever to hash, an array of zeros any memory. What `torch.save`
writes for state dicts needs none of that.
"""

from __future__ import annotations

import io
import pickletools
import re
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

from pipeline.errors import InputError, shown
from pipeline.files import open_regular
from pipeline.untrusted.zip_archive import MAGIC, open_archive

MAX_BYTES = 2 << 20  # ViT-H/14 has 90 KB of them
MAX_UNFOLDED = 1000  # values in a tuple, those of the tuples in it included
LEGACY_PICKLES = 5  # magic number, version, system, state dict, keys of what follows
OPCODES = frozenset(
    [
        "PROTO",
        "STOP",
        "MARK",
        "GLOBAL",
        "REDUCE",
        "NEWOBJ",
        "BUILD",
        "BINPERSID",
        "NONE",
        "NEWTRUE",
        "NEWFALSE",
        "BININT",
        "BININT1",
        "BININT2",
        "LONG1",
        "BINFLOAT",
        "BINUNICODE",
        "SHORT_BINSTRING",
        "EMPTY_TUPLE",
        "TUPLE",
        "TUPLE1",
        "TUPLE2",
        "TUPLE3",
        "EMPTY_LIST",
        "APPEND",
        "APPENDS",
        "EMPTY_DICT",
        "SETITEM",
        "SETITEMS",
        "BINPUT",
        "LONG_BINPUT",
        "BINGET",
        "LONG_BINGET",
    ]
)
GLOBALS = re.compile(
    r"collections OrderedDict|torch Size|torch device|torch\.nn\.parameter Parameter"
    r"|torch\._utils _rebuild_(tensor|tensor_v[23]|parameter)|torch \w+Storage"
    r"|torch\.storage \w+Storage|torch (b?float|u?int|bool|complex)\w*"
    # Beside the weights in training scripts' files; `state_dict` makes inert data of the rest.
    r"|collections Counter|argparse Namespace|pathlib (Posix|Windows|PurePosix)Path"
    r"|numpy dtype|numpy\._?core\.multiarray scalar|_codecs encode"
    r"|(pytorch_lightning\.utilities\.parsing|lightning[._]fabric\.utilities\.data) AttributeDict"
)


def check_pickles(path: Path, source: str) -> None:
    """Check that a checkpoint's pickles hold only what training scripts write for tensors.

    Raises:
        InputError: they hold something else, or more than a checkpoint needs.
    """
    with open_regular(path) as file:
        is_zip = file.read(len(MAGIC)) == MAGIC
        file.seek(0)
        if not is_zip:
            head = io.BytesIO(file.read(MAX_BYTES))
            if b"ustar" in head.getbuffer()[257:263].tobytes():
                raise InputError(
                    f"{source} is a tar archive of PyTorch before 0.2, which is not read; save "
                    "its state_dict() again with a newer PyTorch"
                )
            for _ in range(LEGACY_PICKLES):
                _check(head, source)
            return
    with open_archive(path, source) as archive:
        _check_members(archive, source)
        _check(io.BytesIO(_pickle_of(archive, source)), source)


def _check_members(archive: zipfile.ZipFile, source: str) -> None:
    names = archive.namelist()
    if any(name.endswith("/constants.pkl") for name in names):
        raise InputError(
            f"{source} is a TorchScript program, which could run code; it was not opened. Save "
            "the state_dict() of the model that it was made from"
        )
    for entry in archive.infolist():
        if entry.compress_type != zipfile.ZIP_STORED:
            raise InputError(
                f"{source}: {shown(entry.filename)} is compressed, which PyTorch never does; "
                "refused"
            )


def _pickle_of(archive: zipfile.ZipFile, source: str) -> bytes:
    pickles = [e for e in archive.infolist() if e.filename.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise InputError(f"{source} is not a whole PyTorch checkpoint (no data.pkl); save it again")
    if pickles[0].file_size > MAX_BYTES:
        raise _too_long(source)
    return archive.read(pickles[0])


def _check(stream: BinaryIO, source: str) -> None:
    """Interpret one pickle with a number in the place of each value.

    The number says how many values a tuple holds, those of the tuples in it included.
    """
    stack: list[Any] = []
    memo: dict[Any, Any] = {}
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            _check_opcode(opcode.name, argument, source)
            if opcode.name in ("BINPUT", "LONG_BINPUT"):
                memo[argument] = stack[-1]
            elif opcode.name in ("BINGET", "LONG_BINGET"):
                stack.append(memo[argument])
            else:
                items = _taken(stack, opcode.stack_before)
                unfolded = 1 + sum(items) if opcode.name.startswith("TUPLE") else 1
                if unfolded > MAX_UNFOLDED:
                    raise InputError(
                        f"{source} holds a tuple that unfolds to more than {MAX_UNFOLDED} values, "
                        "which no state dict has; refused"
                    )
                mark = pickletools.markobject
                stack += [None if kind is mark else unfolded for kind in opcode.stack_after]
    except (ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
        if stream.tell() >= MAX_BYTES:
            raise _too_long(source) from None
        raise InputError(
            f"{source} is not a whole PyTorch checkpoint ({shown(error)}); fetch or save it again"
        ) from None


def _taken(stack: list[Any], kinds: list[Any]) -> list[Any]:
    """Take from the stack what an opcode takes; a mark there is None."""
    if pickletools.markobject in kinds:
        last = len(stack) - 1 - stack[::-1].index(None)
        items = stack[last + 1 :]
        del stack[last:]
        kinds = kinds[: kinds.index(pickletools.markobject)]
    else:
        items = []
    return [*(stack.pop() for _ in kinds), *items]


def _check_opcode(name: str, argument: Any, source: str) -> None:
    if name == "GLOBAL" and not GLOBALS.fullmatch(argument):
        raise InputError(
            f"{source} is a pickle that holds more than tensors "
            f"({shown(argument.replace(' ', '.'))}), which could run code; it was not opened. Ask "
            "for safetensors, or save its state_dict() alone"
        )
    if name not in OPCODES or (name == "PROTO" and argument != 2):
        what = f"PROTO {argument}" if name == "PROTO" else name
        raise InputError(
            f"{source} is a pickle that torch.save did not write for a state dict ({what}), and "
            "could run code; it was not opened. Ask for safetensors"
        )


def _too_long(source: str) -> InputError:
    return InputError(
        f"{source} has a pickle larger than {MAX_BYTES} bytes; it is not a checkpoint"
    )
