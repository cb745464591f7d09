"""
The commands about filters as objects: list, define, undefine, dumpxml, edit, reload, binding-*; named as virsh's are.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click

from ..base.errors import NwfilterHookError, one_line
from ..filters.format import normal_form
from ..nftables.process import run_editor
from ..operations.bindings import all_bindings, create_binding, delete_binding, find_binding, format_binding
from ..operations.catalogue import dump_definition, find_definition, list_definitions, read_definition
from ..operations.define import Update, define, reload, undefine
from .common import cli, open_cli_host, read_input
from .output import print_table

_dry_run = click.option("--dry-run", is_flag=True, help="Say which taps would change and how; change nothing.")
_json = click.option("--json", "as_json", is_flag=True, help="For programs.")
_xml = click.option("--xml", is_flag=True, default=True, help="It is XML anyhow; for those who want to be sure.")


@cli.command("list")
@_json
def list_(as_json: bool) -> None:
    """List the filters: UUID, name, origin, chain, how many taps use it."""
    definitions = list_definitions(open_cli_host(readonly=True))
    if as_json:
        found = [
            {
                "uuid": each.uuid,
                "name": each.name,
                "origin": each.origin,
                "chain": each.chain,
                "path": each.path,
                "shadows": each.shadows,
                "taps": list(each.taps),
                "problem": each.problem,
            }
            for each in definitions
        ]
        click.echo(json.dumps(found, indent=2))
        return
    rows = [
        (
            each.uuid or "-",
            each.name,
            f"{each.origin}, hides another" if each.shadows else each.origin,
            each.chain or "(broken)",
            str(len(each.taps)),
        )
        for each in definitions
    ]
    print_table(("UUID", "NAME", "ORIGIN", "CHAIN", "TAPS"), rows, right=("TAPS",))
    for each in definitions:
        if each.problem:
            click.echo(f"nwfilter-hook: {each.problem}", err=True)


@cli.command("define")
@click.argument("file")
@_dry_run
@_json
def define_(file: str, dry_run: bool, as_json: bool) -> None:
    """Define or redefine the filter in FILE (- is standard input), and update every tap that uses it."""
    data, name = read_input(file), "<stdin>" if file == "-" else file
    update = define(open_cli_host(readonly=False), data, name, dry_run=dry_run)
    _say(update, f"filter {update.name} defined from {name}", dry_run, as_json)


@cli.command("undefine")
@click.argument("filter", metavar="NAME|UUID")
@_dry_run
@_json
def undefine_(filter: str, dry_run: bool, as_json: bool) -> None:
    """Remove a local filter that is not in use."""
    update = undefine(open_cli_host(readonly=False), filter, dry_run=dry_run)
    _say(update, f"filter {update.name} undefined", dry_run, as_json)


@cli.command("dumpxml")
@click.argument("filter", metavar="NAME|UUID")
@_xml
def dumpxml(filter: str, xml: bool) -> None:
    """Print a filter in normal form."""
    _print_xml(dump_definition(open_cli_host(readonly=True), filter))


@cli.command("reload")
@_dry_run
@_json
def reload_(dry_run: bool, as_json: bool) -> None:
    """Put the filter files into force as they are now, after they were changed by other means."""
    _say(reload(open_cli_host(readonly=False), dry_run=dry_run), "filters reloaded", dry_run, as_json)


def _say(update: Update, done: str, dry_run: bool, as_json: bool = False) -> None:
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


def _print_xml(text: str) -> None:
    """Always UTF-8, as XML without a declaration is."""
    click.echo(text.encode(), nl=False)


# --- edit -------------------------------------------------------------------------------------------------------------


@cli.command("edit")
@click.argument("filter", metavar="NAME|UUID")
@_dry_run
def edit(filter: str, dry_run: bool) -> None:
    """Edit a filter with $EDITOR and redefine it. What you wrote is kept until it is in force or you give up."""
    host = open_cli_host(readonly=False)
    name = find_definition(host, filter).name
    before = read_definition(host, name)
    start = _editable(before)
    directory = Path(tempfile.mkdtemp(prefix="nwfilter-hook-"))
    copy = directory / f"{name}.xml"
    copy.write_bytes(start)
    while True:
        run_editor(_editor(), str(copy))
        text = _written(copy)
        if text == start:
            click.echo(f"filter {name} not changed")
            break
        try:
            # a new host each time: the library may have changed meanwhile
            host = open_cli_host(readonly=False)
            update = define(host, text, str(copy), dry_run=dry_run, expected={name: before})
        except NwfilterHookError as error:
            click.echo(f"nwfilter-hook: {error}", err=True)
            if _again():
                before = read_definition(open_cli_host(readonly=True), name)
                continue
            raise NwfilterHookError(f"not defined; your text is kept in {copy}") from None
        _say(update, f"filter {name} edited", dry_run)
        if dry_run:
            click.echo(f"your text is kept in {copy}")
            return
        break
    shutil.rmtree(directory, ignore_errors=True)  # with what the editor may have left beside it


def _editable(before: tuple[str, bytes]) -> bytes:
    """The normal form; of a file that is no filter, what is in it."""
    path, data = before
    try:
        return normal_form(data, path).encode()
    except NwfilterHookError as error:
        click.echo(f"nwfilter-hook: {error}", err=True)
        return data


def _written(copy: Path) -> bytes:
    try:
        return copy.read_bytes()
    except OSError as error:
        raise NwfilterHookError(f"not defined; what you wrote can't be read: {copy}: {error.strerror}") from error


def _again() -> bool:
    """Whether the person, if there is one, wants another try."""
    try:
        return sys.stdin.isatty() and click.confirm("Edit it again?", default=True)
    except click.Abort:
        click.echo(err=True)
        return False


def _editor() -> Sequence[str]:
    return shlex.split(os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi")


# --- bindings ---------------------------------------------------------------------------------------------------------


@cli.command("binding-list")
@_json
def binding_list(as_json: bool) -> None:
    """List the taps under filter and their filters."""
    found = list(all_bindings(open_cli_host(readonly=True)))
    if as_json:
        rows = [{"tap": b.tap, "filter": b.filter, "guest": r.guest, "uuid": r.uuid, "mac": b.mac} for r, b in found]
        click.echo(json.dumps(rows, indent=2))
        return
    print_table(("TAP", "FILTER", "GUEST"), [(binding.tap, binding.filter, record.guest) for record, binding in found])


@cli.command("binding-dumpxml")
@click.argument("tap")
@_xml
def binding_dumpxml(tap: str, xml: bool) -> None:
    """Print a tap's binding as XML."""
    _print_xml(format_binding(*find_binding(open_cli_host(readonly=True), tap)))


@cli.command("binding-create")
@click.argument("file")
def binding_create(file: str) -> None:
    """Put a filter on a tap that libvirt doesn't manage; FILE holds a <filterbinding>, - is standard input."""
    host = open_cli_host(readonly=False)
    name = "<stdin>" if file == "-" else file
    tap = create_binding(host, read_input(file), name)
    click.echo(one_line(f"binding on {tap} created from {name}"))


@cli.command("binding-delete")
@click.argument("tap")
def binding_delete(tap: str) -> None:
    """Take the filter of a tap away that binding-create put there."""
    delete_binding(open_cli_host(readonly=False), tap)
    click.echo(one_line(f"binding on {tap} deleted"))
