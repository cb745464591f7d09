"""
nwfilter-hook verify: are the filters in force that the records tell of?
"""

from __future__ import annotations

import json
import sys

import click

from ..base.errors import NwfilterHookError
from ..base.text import one_line
from ..operations.repair import Repair, repair
from ..operations.verify import Difference, find_differences
from .common import json_option, open_cli_host
from .complete import names_of


@click.command()
@click.argument("name", required=False, shell_complete=names_of("tap", "guest"), metavar="[GUEST|TAP]")
@click.option("--repair", "mend", is_flag=True, help="Put back what differs.")
@json_option
def verify(name: str | None, mend: bool, as_json: bool) -> None:
    """Compare what the kernel has with all records, and the devices too. Exit status 1 if something differs."""
    host = open_cli_host(readonly=not mend)
    taps = None if name is None else _taps_of(name)
    if mend:
        repairs = repair(host, taps)
    else:
        repairs = [Repair(each, "") for each in find_differences(host, taps)]
        if repairs:  # perhaps somebody was at it
            with host.state.locked():
                repairs = [Repair(each, "") for each in find_differences(host, taps)]
    if as_json:
        click.echo(json.dumps([_as_json(each) for each in repairs], indent=2))
    else:
        for each in repairs:
            click.echo(one_line(each.line))
    if any(each.failed or not each.outcome for each in repairs):
        sys.exit(1)


def _taps_of(name: str) -> list[str]:
    """The taps that are meant. Raises NwfilterHookError: there is none."""
    host = open_cli_host(readonly=True)
    found = [
        binding.tap
        for record in host.state.records()
        for binding in record.bindings
        if name in (record.guest, binding.tap)
    ]
    if not found:
        raise NwfilterHookError(f"nothing is installed for a guest or tap {one_line(name)!r}")
    return found


def _as_json(each: Repair) -> dict[str, object]:
    difference: Difference = each.difference
    return {
        "guest": difference.guest,
        "uuid": difference.uuid,
        "tap": difference.tap,
        "differences": list(difference.texts),
        "device": difference.where.value,
        "outcome": each.outcome,
    }
