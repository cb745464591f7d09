"""
What all commands of `nwfilter-hook` share: the group they belong to, the host they act on, how they read a file.
"""

from __future__ import annotations

import sys

import click

from .. import hook
from ..base.errors import NwfilterHookError, SystemErrorAs
from ..base.said import kind_of
from ..config import read_config
from ..host import Host, open_host
from ..messages import log


def open_cli_host(*, readonly: bool) -> Host:
    """This host; what it has to say goes to stderr. Raises ConfigError."""
    return open_host(read_config(), _say, _log, readonly=readonly)


def _say(line: str) -> None:
    click.echo(f"nwfilter-hook: {line}", err=True)


def _log(line: str) -> None:
    """What is of another guest, or for the journal alone."""
    if kind_of(line).quiet:
        log(line)
    else:
        _say(line)


def read_input(path: str) -> bytes:
    """A file's bytes, "-" is standard input; one more than accepted at most. Raises NwfilterHookError."""
    with SystemErrorAs(NwfilterHookError, path):
        if path == "-":
            return sys.stdin.buffer.read(hook.MAX_BYTES)
        with open(path, "rb") as file:
            return file.read(hook.MAX_BYTES)


def write_output(path: str, data: bytes) -> None:
    """What a command makes, to a file; "-" is standard output. Raises NwfilterHookError."""
    if path == "-":
        sys.stdout.buffer.write(data)
        return
    with SystemErrorAs(NwfilterHookError, path), open(path, "wb") as file:
        file.write(data)


def print_error(error: NwfilterHookError) -> None:
    """A line on stderr for each fault."""
    for line in error.lines():
        click.echo(f"nwfilter-hook: {line}", err=True)


dry_run_option = click.option("--dry-run", is_flag=True, help="Say which taps would change and how; change nothing.")
json_option = click.option("--json", "as_json", is_flag=True, help="For programs.")
