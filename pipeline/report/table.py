"""Tables: as wide as the terminal for people, plain columns for pipes, Markdown for files."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence

Rows = Sequence[Sequence[object]]


def columns(rows: Rows, header: Sequence[str]) -> str:
    """For stdout: cells wrap to the terminal's width; where stdout is none, lines stay whole."""
    if sys.stdout.isatty():
        return _fitted(rows, header, shutil.get_terminal_size().columns)
    from tabulate import tabulate

    return tabulate(rows, header, disable_numparse=True)


def table(rows: Rows, header: Sequence[str], style: str = "simple") -> str:
    """In a style of tabulate's, such as "github" for files; "simple" is :func:`columns`."""
    if style == "simple":
        return columns(rows, header)
    from tabulate import tabulate

    return tabulate(rows, header, tablefmt=style, disable_numparse=True)


def _fitted(rows: Rows, header: Sequence[str], width: int) -> str:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="")
    for name in header:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))  # as Text: [a, b] is no markup
    console = Console(width=width)
    with console.capture() as shown:
        console.print(table)
    lines = (line.rstrip() for line in shown.get().splitlines())
    return "\n".join(line for line in lines if line)
