"""
The commands about bindings: list, dumpxml, create, delete; named as virsh's are.
"""

from __future__ import annotations

import json

import click

from ..base.text import one_line
from ..operations.bindings import all_bindings, create_binding, delete_binding, find_binding, format_binding
from .common import json_option, open_cli_host, read_input
from .complete import names_of
from .output import print_table, print_xml


@click.command("binding-list")
@json_option
def binding_list(as_json: bool) -> None:
    """List the taps under filter and their filters."""
    found = list(all_bindings(open_cli_host(readonly=True)))
    if as_json:
        rows = [{"tap": b.tap, "filter": b.filter, "guest": r.guest, "uuid": r.uuid, "mac": b.mac} for r, b in found]
        click.echo(json.dumps(rows, indent=2))
        return
    print_table(("TAP", "FILTER", "GUEST"), [(binding.tap, binding.filter, record.guest) for record, binding in found])


@click.command("binding-dumpxml")
@click.argument("tap", shell_complete=names_of("tap"))
def binding_dumpxml(tap: str) -> None:
    """Print a tap's binding as XML."""
    print_xml(format_binding(*find_binding(open_cli_host(readonly=True), tap)))


@click.command("binding-create")
@click.argument("file")
def binding_create(file: str) -> None:
    """Put a filter on a tap that libvirt doesn't manage; FILE holds a <filterbinding>, - is standard input."""
    host = open_cli_host(readonly=False)
    name = "<stdin>" if file == "-" else file
    tap = create_binding(host, read_input(file), name)
    click.echo(one_line(f"binding on {tap} created from {name}"))


@click.command("binding-delete")
@click.argument("tap", shell_complete=names_of("tap"))
def binding_delete(tap: str) -> None:
    """Take the filter of a tap away that binding-create put there."""
    delete_binding(open_cli_host(readonly=False), tap)
    click.echo(one_line(f"binding on {tap} deleted"))
