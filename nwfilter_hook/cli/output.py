"""Tables for people: aligned, never wrapped when piped, no input can change their shape."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from ..base.errors import one_line


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[str] = ()) -> None:
    """Print `rows` under `headings`; columns named in `right` are numbers."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold", justify="right" if heading in right else "left")
    for row in rows:
        table.add_row(*(Text(one_line(cell)) for cell in row))
    on_terminal = sys.stdout.isatty()
    Console(soft_wrap=not on_terminal, width=None if on_terminal else 240).print(table)
