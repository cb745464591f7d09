"""
nwfilter-hook compile: a filter as the nft script it would be.
"""

from __future__ import annotations

import click

from ..base.addresses import format_mac, parse_mac
from ..base.errors import InputError, Source
from ..domain.model import check_tap
from ..filters.model import FilterRef
from ..filters.parse import check_filter_name, check_parameter
from ..operations.compile import compile_reference
from ..ruleset.model import Attachment
from ..storage.library import Library
from .common import open_cli_host


def _parameter(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    parameters: dict[str, list[str]] = {}
    for text in values:
        name, equals, value = text.partition("=")
        if not equals:
            raise click.BadParameter(f"{text!r} is not NAME=VALUE")
        try:
            check_parameter(name, value, Source("-p", 0), networks=True)
        except InputError as error:
            raise click.BadParameter(str(error)) from None
        parameters.setdefault(name, []).append(value)
    return {name: tuple(found) for name, found in parameters.items()}


def _mac(context: click.Context, option: click.Parameter, text: str) -> str:
    try:
        return format_mac(parse_mac(text))
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not {error}") from None


def _checked_name(context: click.Context, option: click.Parameter, text: str) -> str:
    check_name = check_tap if option.name == "tap" else check_filter_name
    try:
        return check_name(text, Source(f"--{option.name}", 0))
    except InputError as error:
        raise click.BadParameter(str(error)) from None


@click.command("compile")
@click.option(
    "--filter", "filter", required=True, metavar="NAME", callback=_checked_name, help="The filter to compile."
)
@click.option("--tap", required=True, callback=_checked_name, help="The guest's device on the host.")
@click.option("--mac", required=True, callback=_mac, help="The guest's MAC address, the value of $MAC.")
@click.option(
    "-p", "parameters", multiple=True, metavar="NAME=VALUE", callback=_parameter, help="A parameter; repeat for a list."
)
@click.option("--filters", multiple=True, metavar="DIR", help="Search here before the configured directories.")
@click.option(
    "--attachment",
    type=click.Choice([each.value for each in Attachment]),
    default=Attachment.BRIDGE_PORT.value,
    show_default=True,
    help="What the device is.",
)
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
    click.echo(host.backend.install([host.backend.render(ruleset)], fresh=True).text, nl=False)
