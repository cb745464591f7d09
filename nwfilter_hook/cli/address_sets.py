"""
The commands about address sets: set add, delete, list, flush.
"""

from __future__ import annotations

import json

import click

from ..operations.address_sets import change_set, flush_set, list_set
from .common import json_option, open_cli_host
from .complete import names_of


@click.group("set")
def set_() -> None:
    """The address sets that rules with ipset='NAME' look in."""


@set_.command("add")
@click.argument("name", shell_complete=names_of("set"))
@click.argument("addresses", nargs=-1, required=True)
def add(name: str, addresses: tuple[str, ...]) -> None:
    """Add ADDRESSES (or networks, or FIRST-LAST) to the set NAME, which is made if it isn't there."""
    change_set(open_cli_host(readonly=True), "add", name, addresses)


@set_.command("delete")
@click.argument("name", shell_complete=names_of("set"))
@click.argument("addresses", nargs=-1, required=True)
def delete(name: str, addresses: tuple[str, ...]) -> None:
    """Delete ADDRESSES from the set NAME: all, or none if one of them isn't in it."""
    change_set(open_cli_host(readonly=True), "delete", name, addresses)


@set_.command("list")
@click.argument("name", shell_complete=names_of("set"))
@json_option
def list_(name: str, as_json: bool) -> None:
    """Print what the set NAME holds."""
    found = list_set(open_cli_host(readonly=True), name)
    if as_json:
        click.echo(json.dumps(found))
    else:
        for element in found:
            click.echo(element)


@set_.command("flush")
@click.argument("name", shell_complete=names_of("set"))
def flush(name: str) -> None:
    """Empty the set NAME."""
    flush_set(open_cli_host(readonly=True), name)
