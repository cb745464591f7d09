"""What commands print: tables for people, aligned and never wrapped when piped; what an update did; XML."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence

import click

from ..base.text import one_line
from ..operations.define import Update


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


def print_update(update: Update, done: str, dry_run: bool, as_json: bool = False) -> None:
    """What a change of filters did, or would do."""
    if as_json:
        found = {
            "name": update.name,
            "changed": [{"guest": guest, "tap": tap} for guest, tap in update.changed],
            "notes": list(update.notes),
            "diff": list(update.diff),
            "dry_run": dry_run,
        }
        click.echo(json.dumps(found, indent=2))
        return
    for note in update.notes:
        click.echo(one_line(note), err=note.startswith("warning"))
    for line in update.diff:
        click.echo(line)
    for guest, tap in update.changed:
        click.echo(one_line(f"{'would change' if dry_run else 'changed'}: {guest} {tap}"))
    count = len(update.changed)
    taps = f"{count} tap{'' if count == 1 else 's'}"
    if dry_run:
        click.echo(f"dry run, nothing done; {taps} would change")
    else:
        click.echo(one_line(f"{done}; {taps} changed"))


def print_xml(text: str) -> None:
    """Always UTF-8, as XML without a declaration is."""
    click.echo(text.encode(), nl=False)
