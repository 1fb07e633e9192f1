"""Which operators a native PyTorch library registers, read from the library without running it.

A registration names an operator by its schema, ``quantized::linear_dynamic(Tensor X, ...) -> ...``,
a string that code refers to by its address. Looking for the text alone would be wrong both ways:
it occurs in error messages, and linkers let ``linalg_matmul(...)`` lend its tail to ``matmul(...)``
(``_quantized::x`` to ``quantized::x``) whether that is registered or not. So a string counts only
where something refers to its first character.

Operators of ATen are registered without ``aten::``; theirs is the name of another namespace, too,
unless the library exports ``at::_ops::NAME_OVERLOAD::call``.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import IntegrityError

X86_64, AARCH64 = 62, 183  # ELF's e_machine
RELATIVE = {X86_64: 8, AARCH64: 1027}  # relocation: an address within the library
LOAD = 1
SCHEMA_END = re.compile(rb"[^\0]*\)\s*->[^\0]")
# An address is made in two instructions, ADRP and ADD; the compiler may put others between them.
ADD_WITHIN = 8


@dataclass(frozen=True)
class Section:
    """A section of an ELF file: its virtual address and content."""

    address: int
    bytes: bytes


class Library:
    """A 64-bit little-endian ELF library of x86-64 or ARM64."""

    def __init__(self, content: bytes) -> None:
        if content[:6] != b"\x7fELF\x02\x01":
            raise IntegrityError("no 64-bit little-endian ELF library")
        self._content = content
        (self.machine,) = struct.unpack_from("<H", content, 18)
        if self.machine not in RELATIVE:
            raise IntegrityError(f"an ELF library for machine {self.machine}, not x86-64 or ARM64")

    def missing(self, operators: tuple[str, ...]) -> list[str]:
        """Return those of ``NAMESPACE::NAME[.OVERLOAD]`` that the library does not register."""
        return [name for name in operators if not self.registers(name)]

    def registers(self, operator: str) -> bool:
        """Whether the library registers ``NAMESPACE::NAME[.OVERLOAD]``."""
        namespace, _, name = operator.partition("::")
        if self._refers_to_schema(operator):
            return True
        return namespace == "aten" and self._refers_to_schema(name) and self._exports(name)

    @property
    def alignments(self) -> list[int]:
        """Bytes that each loadable segment is aligned to; Android's 16 KB pages ask for 16384."""
        start, size, count = struct.unpack_from("<Q14xHH", self._content, 0x20)[:3]
        found = []
        for i in range(count):
            kind, align = struct.unpack_from("<I44xQ", self._content, start + i * size)
            if kind == LOAD:
                found.append(align)
        return found

    def _refers_to_schema(self, name: str) -> bool:
        data = self._sections[".rodata"]
        for match in re.finditer(re.escape(name.encode()) + rb"\(", data.bytes):
            starts = data.address + match.start() in self._references
            if starts and SCHEMA_END.match(data.bytes, match.end()):
                return True
        return False

    def _exports(self, name: str) -> bool:
        mangled = name.replace(".", "_")
        symbol = f"\0_ZN2at4_ops{len(mangled)}{mangled}4callE"
        return symbol.encode() in self._sections[".dynstr"].bytes

    @cached_property
    def _references(self) -> set[int]:
        """Addresses that code or tables of the library refer to."""
        text = self._sections[".text"]
        code = _arm64(text) if self.machine == AARCH64 else _x86_64(text)
        return {*code.tolist(), *self._relocated().tolist()}

    def _relocated(self) -> NDArray[np.int64]:
        table = np.frombuffer(self._sections[".rela.dyn"].bytes, "<i8").reshape(-1, 3)
        addends: NDArray[np.int64] = table[(table[:, 1] & 0xFFFFFFFF) == RELATIVE[self.machine], 2]
        return addends

    @cached_property
    def _sections(self) -> dict[str, Section]:
        content = self._content
        (start,) = struct.unpack_from("<Q", content, 0x28)
        size, count, names_at = struct.unpack_from("<HHH", content, 0x3A)
        headers = [struct.unpack_from("<IIQQQQ", content, start + i * size) for i in range(count)]
        names = headers[names_at][4]
        found = {}
        for name_at, _, _, address, offset, length in headers:
            name = content[names + name_at : content.index(b"\0", names + name_at)].decode()
            found[name] = Section(address, content[offset : offset + length])
        return found


def _arm64(text: Section) -> NDArray[np.int64]:
    """Addresses that ADRP and a later ADD to the same register make."""
    words = np.frombuffer(text.bytes[: len(text.bytes) // 4 * 4], "<u4").astype(np.int64)
    adrp = np.flatnonzero((words & 0x9F000000) == 0x90000000)
    found = words[adrp]
    pages = _signed(((found >> 5) & 0x7FFFF) << 2 | ((found >> 29) & 3), 21)
    base = ((text.address + 4 * adrp) & ~0xFFF) + (pages << 12)
    targets = []
    for distance in range(1, ADD_WITHIN + 1):
        later = words[np.minimum(adrp + distance, len(words) - 1)]
        add = ((later & 0xFFC00000) == 0x91000000) & (((later >> 5) & 31) == (found & 31))
        targets.append((base + ((later >> 10) & 0xFFF))[add])
    return np.concatenate(targets)


def _x86_64(text: Section) -> NDArray[np.int64]:
    """Addresses that instructions make or read relative to their own."""
    code = np.frombuffer(text.bytes, np.uint8)
    prefix, opcode, operand = code[:-6], code[1:-5], code[2:-4]
    lea = (prefix & 0xF8 == 0x48) & (opcode == 0x8D)
    movups = (prefix == 0x0F) & (opcode == 0x10)  # the first bytes of a text that is copied
    at = np.flatnonzero((lea | movups) & (operand & 0xC7 == 5)) + 3
    distance: Any = sum(code[at + byte].astype(np.int64) << (8 * byte) for byte in range(4))
    return text.address + at + 4 + _signed(distance, 32)


def _signed(values: NDArray[np.int64], bits: int) -> NDArray[np.int64]:
    return np.where(values >= 1 << (bits - 1), values - (1 << bits), values)
