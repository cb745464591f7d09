"""
The command `nwfilter-hook`: replay a libvirt event by hand, compile, validate, show.

Exit status: 0 fine, 1 failed (one line on stderr says why), 2 wrong usage.
"""

from __future__ import annotations

import json
import sys

import click

from .. import hook
from ..base.errors import InputError, NwfilterHookError, Source, one_line
from ..config import read_config
from ..domain.parse import check_tap, parse_domain, parse_identity
from ..filters.model import FilterRef
from ..filters.parse import check_filter_name, check_parameter, parse_filter
from ..filters.types import format_mac, parse_mac
from ..nftables.script import Options, render_install
from ..operations.lifecycle import check, plan_removal
from ..operations.show import TapView, format_learned, read_views
from ..operations.transaction import compile_reference, plan
from ..ruleset.model import Attachment
from ..storage.library import Library, read_filter_file
from . import address_sets as cli_sets
from . import filters as cli_library
from . import learned as cli_learning
from .common import cli as cli
from .common import open_cli_host, read_input
from .output import print_table

OPERATIONS = (*hook.CHECKING, *hook.INSTALLING, "started", *hook.VERIFYING, *hook.REMOVING)


def main() -> None:
    """Run the command line; an error of ours becomes one line on stderr and exit status 1."""
    try:
        cli.main(prog_name="nwfilter-hook")
    except NwfilterHookError as error:
        click.echo(f"nwfilter-hook: {error}", err=True)
        sys.exit(1)
    except BrokenPipeError:
        sys.exit(1)


# --- replay -----------------------------------------------------------------------------------------------------------


@cli.command()
@click.argument("guest")
@click.argument("operation", type=click.Choice(OPERATIONS))
@click.argument("subop", required=False)
@click.argument("extra", required=False)
@click.option(
    "--xml", "xml_file", metavar="FILE", help="The domain XML; - is standard input. Without it libvirt is asked."
)
@click.option("--dry-run", is_flag=True, help="Print the nft script instead of running it; change nothing.")
def replay(
    guest: str, operation: str, subop: str | None, extra: str | None, xml_file: str | None, dry_run: bool
) -> None:
    """Do what the libvirt hook would do for OPERATION of GUEST."""
    data = read_input(xml_file) if xml_file else _ask_libvirt(guest)
    if not dry_run:
        sys.exit(hook.run(guest, operation, data))
    host = open_cli_host(readonly=True)
    path = f"domain XML of {one_line(guest)}"
    if operation in hook.REMOVING:
        click.echo(plan_removal(host, parse_identity(data, path)).text, nl=False)
        return
    domain = parse_domain(data, path, host.config.default_filters)
    if operation in hook.CHECKING:
        check(host, domain)
    elif operation != "started":
        planned = plan(host, domain, operation, fresh=operation == "start", tolerant=operation in hook.VERIFYING)
        click.echo(planned.script.text, nl=False)


def _ask_libvirt(guest: str) -> bytes:
    """The domain's XML as libvirt has it now. Never on the hook's path: a hook that calls libvirt blocks it."""
    try:
        import libvirt
    except ImportError:
        hint = "install python3-libvirt, or give --xml FILE"
        raise NwfilterHookError(f"libvirt's XML of {guest} is needed, but libvirt-python isn't there; {hint}") from None
    try:
        connection = libvirt.openReadOnly("qemu:///system")
        try:
            return str(connection.lookupByName(guest).XMLDesc()).encode()
        finally:
            connection.close()
    except libvirt.libvirtError as error:
        raise NwfilterHookError(f"libvirt: {error}") from error


# --- compile, validate ------------------------------------------------------------------------------------------------


def _parameter(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    parameters: dict[str, list[str]] = {}
    for text in values:
        name, equals, value = text.partition("=")
        if not equals:
            raise click.BadParameter(f"{text!r} is not NAME=VALUE")
        try:
            check_parameter(name, value, Source("-p", 1))
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
        return check_name(text, Source(f"--{option.name}", 1))
    except InputError as error:
        raise click.BadParameter(str(error)) from None


@cli.command("compile")
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
    config = read_config()
    library = Library((*filters, *config.filter_dirs))
    reference = FilterRef(filter, parameters, Source("--filter", 1))
    ruleset = compile_reference(reference, tap, Attachment(attachment), mac, library, end_of_chain=config.end_of_chain)
    for note in ruleset.notes:
        click.echo(f"nwfilter-hook: warning: {note}", err=True)
    click.echo(render_install([ruleset], options=Options(counters=config.counters)).text, nl=False)


@cli.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE…")
def validate(files: tuple[str, ...]) -> None:
    """Check that each FILE holds a filter; say all that is wrong."""
    wrong = 0
    for path in files:
        try:
            found = parse_filter(read_filter_file(path), path)
        except OSError as error:
            click.echo(f"{one_line(path)}: {error.strerror}", err=True)
            wrong += 1
        except NwfilterHookError as error:
            click.echo(str(error), err=True)
            wrong += 1
        else:
            click.echo(f"{one_line(path)}: filter {found.name}, {len(found.entries)} entries: fine")
    sys.exit(1 if wrong else 0)


# --- show -------------------------------------------------------------------------------------------------------------


@cli.command()
@click.argument("name", required=False, metavar="[GUEST|TAP]")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def show(name: str | None, as_json: bool) -> None:
    """What is installed: guest, tap, filter, parameters, chains, packets dropped."""
    host = open_cli_host(readonly=True)
    views = [view for view in read_views(host) if name is None or name in (view.guest, view.tap)]
    if name is not None and not views:
        raise NwfilterHookError(f"nothing is installed for a guest or tap {one_line(name)!r}")
    if as_json:
        click.echo(json.dumps([view.as_json() for view in views], indent=2))
    else:
        _print_views(views)


def _print_views(views: list[TapView]) -> None:
    headings = ("GUEST", "TAP", "FILTER", "PARAMETERS", "STATE", "LEARNED", "CHAINS", "DROPPED")
    rows = [
        (
            view.guest,
            view.tap,
            view.filter,
            " ".join(f"{key}={','.join(values)}" for key, values in view.parameters.items()) or "-",
            view.state,
            format_learned(view),
            str(len(view.chains)),
            "-" if view.dropped is None else str(view.dropped),
        )
        for view in views
    ]
    print_table(headings, rows, right=("CHAINS", "DROPPED"))


# the commands of these modules belong to the group as soon as they are imported
SUBJECTS = (cli_learning, cli_library, cli_sets)
