"""
nwfilter-hook show: what is installed.
"""

from __future__ import annotations

import json

import click

from ..base.errors import NwfilterHookError
from ..base.text import one_line
from ..operations.show import TapView, format_learned, format_state, read_views
from .common import json_option, open_cli_host
from .output import print_table


@click.command()
@click.argument("name", required=False, metavar="[GUEST|TAP]")
@json_option
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
            f"{view.filter} on {view.floor.partition(' ')[0]}" if view.floor else view.filter,
            " ".join(f"{key}={','.join(values)}" for key, values in view.parameters.items()) or "-",
            format_state(view),
            format_learned(view),
            str(len(view.chains)),
            "-" if view.dropped is None else str(view.dropped),
        )
        for view in views
    ]
    print_table(headings, rows, right=("CHAINS", "DROPPED"))
    for view in views:
        for bypass in view.bypasses:
            click.echo(one_line(f"{view.tap}: {bypass.text}"))
