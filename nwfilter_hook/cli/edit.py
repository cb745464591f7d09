"""
nwfilter-hook edit: a filter in the person's editor, then define.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

import click

from ..base.errors import NwfilterHookError, SystemErrorAs
from ..host import Host
from ..operations.catalogue import dump_definition, find_definition, read_definition
from ..operations.define import define
from .common import dry_run_option, open_cli_host, print_error
from .complete import names_of
from .output import print_update


@click.command("edit")
@click.argument("filter", metavar="NAME|UUID", shell_complete=names_of("filter"))
@dry_run_option
def edit(filter: str, dry_run: bool) -> None:
    """Edit a filter with $EDITOR and redefine it. What you wrote is kept until it is in force or you give up."""
    host = open_cli_host(readonly=False)
    name = find_definition(host, filter).name
    before = read_definition(host, name)
    start = _editable(host, name, before)
    directory = Path(tempfile.mkdtemp(prefix="nwfilter-hook-"))
    copy = directory / f"{name}.xml"
    copy.write_bytes(start)
    while True:
        _edit(copy)
        text = _written(copy)
        if text == start:
            click.echo(f"filter {name} not changed")
            break
        try:
            # a new host each time: the library may have changed meanwhile
            host = open_cli_host(readonly=False)
            update = define(host, text, str(copy), dry_run=dry_run, expected={name: before})
        except NwfilterHookError as error:
            print_error(error)
            if _again():
                before = read_definition(open_cli_host(readonly=True), name)
                continue
            raise NwfilterHookError(f"not defined; your text is kept in {copy}") from None
        print_update(update, f"filter {name} edited", dry_run)
        if dry_run:
            click.echo(f"your text is kept in {copy}")
            return
        break
    shutil.rmtree(directory, ignore_errors=True)  # with what the editor may have left beside it


def _editable(host: Host, name: str, before: tuple[str, bytes]) -> bytes:
    """The normal form; of a file that is no filter, what is in it."""
    try:
        return dump_definition(host, name).encode()
    except NwfilterHookError as error:
        print_error(error)
        return before[1]


def _written(copy: Path) -> bytes:
    with SystemErrorAs(NwfilterHookError, f"not defined; what you wrote can't be read: {copy}"):
        return copy.read_bytes()


def _again() -> bool:
    """Whether the person, if there is one, wants another try."""
    try:
        return sys.stdin.isatty() and click.confirm("Edit it again?", default=True)
    except click.Abort:
        click.echo(err=True)
        return False


def _edit(copy: Path) -> None:
    """Let the person edit the file; the terminal is theirs meanwhile."""
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    try:
        click.edit(editor=editor, filename=str(copy))
    except click.ClickException as error:
        raise NwfilterHookError(f"{error.message}; your text is kept in {copy}") from error
