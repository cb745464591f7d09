"""
The commands about filters as objects: list, define, undefine, dumpxml, edit, reload, binding-*; named as virsh's are.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click

from .bindings import all_bindings, create_binding, delete_binding, find_binding, format_binding
from .cli import cli, open_cli_host, read_input
from .cli_table import print_table
from .definitions import (
    Update,
    define,
    dump_definition,
    find_definition,
    list_definitions,
    reload,
    undefine,
)
from .errors import NwfilterHookError
from .nft import run_editor

_dry_run = click.option("--dry-run", is_flag=True, help="Say which taps would change and how; change nothing.")
_json = click.option("--json", "as_json", is_flag=True, help="For programs.")


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
    host = open_cli_host(readonly=False)
    _say(
        define(host, read_input(file), "<stdin>" if file == "-" else file, dry_run=dry_run), dry_run, as_json, "defined"
    )


@cli.command("undefine")
@click.argument("filter", metavar="NAME|UUID")
@_dry_run
@_json
def undefine_(filter: str, dry_run: bool, as_json: bool) -> None:
    """Remove a local filter that is not in use."""
    _say(undefine(open_cli_host(readonly=False), filter, dry_run=dry_run), dry_run, as_json, "undefined")


@cli.command("dumpxml")
@click.argument("filter", metavar="NAME|UUID")
def dumpxml(filter: str) -> None:
    """Print a filter in normal form."""
    click.echo(dump_definition(open_cli_host(readonly=True), filter), nl=False)


@cli.command("reload")
@_dry_run
@_json
def reload_(dry_run: bool, as_json: bool) -> None:
    """Put the filter files into force as they are now, after they were changed by other means."""
    _say(reload(open_cli_host(readonly=False), dry_run=dry_run), dry_run, as_json, "reloaded")


def _say(update: Update, dry_run: bool, as_json: bool, done: str) -> None:
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
        click.echo(note, err=note.startswith("warning"))
    for line in update.diff:
        click.echo(line)
    for guest, tap in update.changed:
        click.echo(f"{'would change' if dry_run else 'changed'}: {guest} {tap}")
    count = len(update.changed)
    what = f"filter {update.name} {done}" if update.name else "filters " + done
    click.echo(f"{'nothing done; ' if dry_run else ''}{what}, {count} tap{'' if count == 1 else 's'} changed")


# --- edit -------------------------------------------------------------------------------------------------------------


@cli.command("edit")
@click.argument("filter", metavar="NAME|UUID")
@_dry_run
def edit(filter: str, dry_run: bool) -> None:
    """Edit a filter with $EDITOR and redefine it. What you wrote is kept until it is in force or you give up."""
    host = open_cli_host(readonly=False)
    definition = find_definition(host, filter)
    before = Path(definition.path).read_bytes()
    directory = Path(tempfile.mkdtemp(prefix="nwfilter-hook-"))
    copy = directory / f"{definition.name}.xml"
    copy.write_text(dump_definition(host, definition.name))
    start = copy.read_bytes()
    while True:
        run_editor(_editor(), str(copy))
        text = copy.read_bytes()
        if text == start:
            click.echo("nothing was changed")
            break
        try:
            # a new host each time: the library may have changed meanwhile
            _refuse_if_changed(definition.path, before)
            host = open_cli_host(readonly=False)
            update = define(host, text, str(copy), dry_run=dry_run)
        except NwfilterHookError as error:
            click.echo(f"nwfilter-hook: {error}", err=True)
            if sys.stdin.isatty() and click.confirm("Edit it again?", default=True):
                before = Path(definition.path).read_bytes()
                continue
            raise NwfilterHookError(f"not defined; your text is kept in {copy}") from None
        _say(update, dry_run, False, "defined")
        if dry_run:
            click.echo(f"your text is kept in {copy}")
            return
        break
    copy.unlink()
    directory.rmdir()


def _refuse_if_changed(path: str, before: bytes) -> None:
    try:
        unchanged = Path(path).read_bytes() == before
    except OSError:
        unchanged = False
    if not unchanged:
        raise NwfilterHookError(f"{path} was changed by someone else while you edited it; look at it before you go on")


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
def binding_dumpxml(tap: str) -> None:
    """Print a tap's binding as XML."""
    click.echo(format_binding(*find_binding(open_cli_host(readonly=True), tap)), nl=False)


@cli.command("binding-create")
@click.argument("file")
def binding_create(file: str) -> None:
    """Put a filter on a tap that libvirt doesn't manage; FILE holds a <filterbinding>, - is standard input."""
    host = open_cli_host(readonly=False)
    tap = create_binding(host, read_input(file), "<stdin>" if file == "-" else file)
    click.echo(f"binding created for {tap}")


@cli.command("binding-delete")
@click.argument("tap")
def binding_delete(tap: str) -> None:
    """Take the filter of a tap away that binding-create put there."""
    delete_binding(open_cli_host(readonly=False), tap)
    click.echo(f"binding of {tap} deleted")
