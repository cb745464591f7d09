"""
The commands about filters as objects: list, define, undefine, dumpxml, reload; named as virsh's are.
"""

from __future__ import annotations

import json

import click

from ..operations.catalogue import dump_definition, list_definitions
from ..operations.define import define, reload, undefine
from .common import dry_run_option, json_option, open_cli_host, read_input
from .complete import names_of
from .output import print_table, print_update, print_xml


@click.command("list")
@json_option
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


@click.command("define")
@click.argument("file")
@dry_run_option
@json_option
def define_(file: str, dry_run: bool, as_json: bool) -> None:
    """Define or redefine the filter in FILE (- is standard input), and update every tap that uses it."""
    data, name = read_input(file), "<stdin>" if file == "-" else file
    update = define(open_cli_host(readonly=False), data, name, dry_run=dry_run)
    print_update(update, f"filter {update.name} defined from {name}", dry_run, as_json)


@click.command("undefine")
@click.argument("filter", metavar="NAME|UUID", shell_complete=names_of("filter"))
@dry_run_option
@json_option
def undefine_(filter: str, dry_run: bool, as_json: bool) -> None:
    """Remove a local filter that is not in use."""
    update = undefine(open_cli_host(readonly=False), filter, dry_run=dry_run)
    print_update(update, f"filter {update.name} undefined", dry_run, as_json)


@click.command("dumpxml")
@click.argument("filter", metavar="NAME|UUID", shell_complete=names_of("filter"))
def dumpxml(filter: str) -> None:
    """Print a filter in normal form."""
    print_xml(dump_definition(open_cli_host(readonly=True), filter))


@click.command("reload")
@dry_run_option
@json_option
def reload_(dry_run: bool, as_json: bool) -> None:
    """Put the filter files into force as they are now, after they were changed by other means."""
    print_update(reload(open_cli_host(readonly=False), dry_run=dry_run), "filters reloaded", dry_run, as_json)
