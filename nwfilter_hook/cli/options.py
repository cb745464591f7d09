"""
Options that several commands have: of a filter, and of a packet.
"""

from __future__ import annotations

from typing import Any, Callable

import click

from ..base.addresses import format_mac, parse_mac
from ..base.errors import InputError, Source
from ..domain.model import check_tap
from ..filters.parse import check_filter_name, check_parameter
from ..packets.given import KINDS, WORDS
from ..ruleset.model import Attachment
from .complete import complete_parameter, names_of


def _parameters(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
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


def read_mac(context: click.Context, option: click.Parameter, text: str | None) -> str | None:
    """The value of an option that is a MAC, as libvirt writes it."""
    if text is None:
        return None
    try:
        return format_mac(parse_mac(text))
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not {error}") from None


def check_name(context: click.Context, option: click.Parameter, text: str | None) -> str | None:
    """The value of an option that names a tap, or a filter."""
    if text is None:
        return None
    check = check_tap if option.name == "tap" else check_filter_name
    try:
        return check(text, Source(f"--{option.name}", 0))
    except InputError as error:
        raise click.BadParameter(str(error)) from None


parameter_option = click.option(
    *("-p", "parameters"),
    multiple=True,
    metavar="NAME=VALUE",
    callback=_parameters,
    shell_complete=complete_parameter,
    help="A parameter; repeat for a list.",
)
filters_option = click.option(
    "--filters", multiple=True, metavar="DIR", help="Search here before the configured directories."
)
attachment_option = click.option(
    "--attachment",
    type=click.Choice([each.value for each in Attachment]),
    default=Attachment.BRIDGE_PORT.value,
    show_default=True,
    help="What the device is.",
)


def filter_option(text: str, *, required: bool = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`--filter NAME`, which means what the text says."""
    return click.option(
        *("--filter", "filter"),
        required=required,
        metavar="NAME",
        callback=check_name,
        shell_complete=names_of("filter"),
        help=text,
    )


def packet_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """An option for each word of a packet (packets/given.py); `said` reads them."""
    for word in reversed(list(WORDS.values())):
        decorate = (
            click.option(f"--{word.name}", metavar=word.value, help=word.help)
            if word.value
            else click.option(f"--{word.name}", is_flag=True, help=word.help)
        )
        command = decorate(command)
    return command


def said(options: dict[str, Any]) -> dict[str, Any]:
    """The words of a packet among a command's options."""
    found = {word: options[word.replace("-", "_")] for word in WORDS}
    return {word: value for word, value in found.items() if value not in (None, False)}


def says_kind(words: dict[str, Any]) -> bool:
    """Whether the words say what kind of packet it is."""
    return any(word in KINDS for word in words)
