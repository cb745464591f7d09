"""
nwfilter-hook doctor: is this host fit to filter guests, and does it?
"""

from __future__ import annotations

import json
import os
import sys

import click

from ..base.dataclass import as_dict
from ..base.errors import ConfigError, NwfilterHookError
from ..base.text import did_you_mean, one_line
from ..config import read_config
from ..doctor.examine import examine, names
from ..doctor.findings import Finding, Level
from ..doctor.patient import Patient
from ..host import open_host
from ..storage.configuration import fall_back
from .common import json_option


@click.command()
@click.argument("checks", nargs=-1, metavar="[CHECK]…")
@json_option
def doctor(checks: tuple[str, ...], as_json: bool) -> None:
    """Look for what keeps guests from their filters, or lets them past; change nothing. 1 if something is wrong."""
    known = names()
    for name in checks:
        if name not in known:
            hint = did_you_mean(name, known) or f"; there are: {' '.join(known)}"
            raise click.UsageError(f"no check {one_line(name)!r}{hint}")
    if os.geteuid() != 0:
        raise NwfilterHookError("only root can look at all that has to be looked at")
    wanted = [name for name in known if name in checks] or known
    findings = examine(_patient(), wanted)
    if as_json:
        click.echo(json.dumps({"checks": wanted, "findings": [as_dict(each) for each in findings]}, indent=2))
    else:
        for each in findings:
            _print(each)
        count = sum(each.level is Level.WRONG for each in findings)
        hints = len(findings) - count
        click.echo(f"{len(wanted)} checks: {count} wrong, {hints} hint{'' if hints == 1 else 's'}")
    if any(each.level is Level.WRONG for each in findings):
        sys.exit(1)


def _patient() -> Patient:
    """This host, by another configuration if its own can't be used."""
    said: list[str] = []
    fault = ""
    try:
        config = read_config()
    except ConfigError as error:
        found = fall_back()
        if found is None:
            raise
        config, which = found
        fault = f"{error}; {which}"
    return Patient(open_host(config, said.append, readonly=True), fault, said)


def _print(each: Finding) -> None:
    click.echo(one_line(f"{each.level.value:5}  {each.check}: {each.finding}"))
    click.echo(one_line(f"       why: {each.why}"))
    if each.command:
        click.echo(one_line(f"       do:  {each.command}"))
