"""
nwfilter-hook compile: a filter as the nft script it would be.
"""

from __future__ import annotations

import click

from ..base.errors import Source
from ..filters.model import FilterRef
from ..operations.compile import compile_reference, in_force
from ..ruleset.model import Attachment
from ..storage.library import Library
from .common import open_cli_host
from .options import attachment_option, check_name, filter_option, filters_option, parameter_option, read_mac


@click.command("compile")
@filter_option("The filter to compile.", required=True)
@click.option("--tap", required=True, callback=check_name, help="The guest's device on the host.")
@click.option("--mac", required=True, callback=read_mac, help="The guest's MAC address, the value of $MAC.")
@parameter_option
@filters_option
@attachment_option
def compile_(
    filter: str, tap: str, mac: str, parameters: dict[str, tuple[str, ...]], filters: tuple[str, ...], attachment: str
) -> None:
    """Print the nft script that would filter a tap. Needs no root and asks no kernel."""
    host = open_cli_host(readonly=True)
    library = Library((*filters, *host.config.filter_dirs), trusting=True)
    reference = FilterRef(filter, parameters, Source("--filter", 0))
    end = host.config.end_of_chain
    ruleset = compile_reference(reference, tap, Attachment(attachment), mac, library, end_of_chain=end)
    for note in ruleset.notes:
        click.echo(f"nwfilter-hook: warning: {note}", err=True)
    click.echo(host.backend.install([host.backend.render(in_force(host, ruleset))], fresh=True).text, nl=False)
