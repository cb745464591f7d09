"""
nwfilter-hook show: what is installed.
"""

from __future__ import annotations

import json

import click

from ..base.dataclass import as_dict
from ..base.errors import NwfilterHookError
from ..base.text import one_line
from ..operations.guard import Unknown, describe_guard, read_status
from ..operations.show import (
    TapView,
    format_learned,
    format_service,
    format_since,
    format_state,
    read_service,
    read_views,
)
from .common import json_option, open_cli_host
from .complete import names_of
from .output import print_table


@click.command()
@click.argument("name", required=False, shell_complete=names_of("tap", "guest"), metavar="[GUEST|TAP]")
@click.option(
    "--host",
    "of_host",
    is_flag=True,
    help="With --json: an object of taps, of the guard, and of what the service tells.",
)
@json_option
def show(name: str | None, of_host: bool, as_json: bool) -> None:
    """What is installed: guest, tap, filter, parameters, chains, packets dropped; the guard; the service."""
    host = open_cli_host(readonly=True)
    views = [view for view in read_views(host) if name is None or name in (view.guest, view.tap)]
    if name is not None and not views:
        raise NwfilterHookError(f"nothing is installed for a guest or tap {one_line(name)!r}")
    service = read_service(host)
    guard = read_status(host) if of_host or name is None else None
    if as_json:
        taps = [view.as_json() for view in views]
        found = {"taps": taps, "guard": guard.as_json() if guard else None, "watch": as_dict(service)}
        click.echo(json.dumps(found if of_host else taps, indent=2))
    else:
        cut_off = guard.unknown if guard and guard.guard else ()
        _print_views(views, cut_off)
        if guard and (guard.guard or guard.faults):
            for line in describe_guard(guard):
                click.echo(one_line(line))
        for line in format_service(service) if name is None else ():
            click.echo(one_line(line))


def _print_views(views: list[TapView], unknown: tuple[Unknown, ...]) -> None:
    headings = ("GUEST", "TAP", "FILTER", "PARAMETERS", "STATE", "SINCE", "LEARNED", "CHAINS", "DROPPED")
    rows = [
        (
            view.guest,
            view.tap,
            f"{view.filter} on {view.floor.partition(' ')[0]}" if view.floor else view.filter or "-",
            " ".join(f"{key}={','.join(values)}" for key, values in view.parameters.items()) or "-",
            format_state(view),
            format_since(view),
            format_learned(view),
            str(len(view.chains)),
            "-" if view.dropped is None else str(view.dropped),
        )
        for view in views
    ]
    rows += [
        ("-", each.name, "-", "-", "unknown: dropped", "-", "-", "0", str(each.refused.sent + each.refused.received))
        for each in unknown
    ]
    print_table(headings, rows, right=("CHAINS", "DROPPED"))
    for view in views:
        for bypass in view.bypasses:
            click.echo(one_line(f"{view.tap}: {bypass.text}"))
