"""
nwfilter-hook guard: taps that nobody has decided about drop.
"""

from __future__ import annotations

import glob
import json
import os
import sys
import threading
from collections.abc import Iterator

import click

from ..base.dataclass import as_dict
from ..base.errors import NwfilterHookError
from ..base.text import one_line
from ..host import Host
from ..libvirtd import Libvirt, open_libvirt
from ..operations.guard import Unknown, describe_guard, read_status, switch_off, switch_on, wanted
from .common import json_option, open_cli_host
from .output import print_table

_ANSWER_S = 15.0


@click.group(name="guard")
def guard() -> None:
    """Taps in bridges that nobody has decided about pass nothing, from the first frame on."""


@guard.command()
@click.option("--yes", is_flag=True, help="Put it on although ports are cut off.")
@click.option("--boot", is_flag=True, help="Ask libvirt only if its status directory tells of guests that run.")
@json_option
def on(yes: bool, boot: bool, as_json: bool) -> None:
    """Put guests that run under their filters, list which ports would be cut off, and put the guard on, as the
    configuration has it."""
    host = open_cli_host(readonly=False)
    wish = wanted(host)
    if wish is None:
        raise NwfilterHookError("[guard] mode = off in the configuration: choose generated, taps, bridges or strict")
    libvirt = None if boot and not glob.glob(os.path.join(host.config.status_dir, "*.xml")) else _libvirt(host)
    unknown = switch_on(host, wish, libvirt, agreed=yes)
    done = yes or not unknown
    if as_json:
        click.echo(json.dumps({"on": done, "unknown": [as_dict(each) for each in unknown]}, indent=2))
    else:
        for line in _on_lines(unknown, wish.mode, done):
            click.echo(one_line(line))
    if not done:
        sys.exit(1)


@guard.command()
@json_option
def off(as_json: bool) -> None:
    """Take the guard off: taps without a filter pass everything again."""
    changed = switch_off(open_cli_host(readonly=False))
    if as_json:
        click.echo(json.dumps({"on": False, "changed": changed}, indent=2))
    else:
        click.echo("the guard is off" if changed else "the guard was off")


@guard.command()
@json_option
def status(as_json: bool) -> None:
    """Whether it is on, and which ports it cuts off. Exit status 1 if the kernel doesn't have it as it is to be."""
    found = read_status(open_cli_host(readonly=True))
    if as_json:
        click.echo(json.dumps(found.as_json(), indent=2))
    else:
        for line in describe_guard(found):
            click.echo(one_line(line))
        if found.unknown:
            rows = [
                (each.name, each.bridge, str(each.refused.sent), str(each.refused.received)) for each in found.unknown
            ]
            print_table(
                ("UNKNOWN PORT", "BRIDGE", "DROPPED FROM", "DROPPED TO"), rows, right=("DROPPED FROM", "DROPPED TO")
            )
    if found.faults:
        sys.exit(1)


def _libvirt(host: Host) -> Libvirt | None:
    """None if it isn't to be asked, or doesn't answer, be it that it hangs: that is said."""
    if host.config.uri == "none":
        return None
    opened: list[Libvirt | NwfilterHookError] = []

    def ask() -> None:
        try:
            libvirt = open_libvirt(host.config.uri)
            libvirt.running()
            opened.append(libvirt)
        except NwfilterHookError as error:
            opened.append(error)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(_ANSWER_S)
    found = opened[0] if opened else NwfilterHookError(f"libvirt doesn't answer within {_ANSWER_S:g} s")
    if isinstance(found, Libvirt):
        return found
    host.report(f"{found}; going by what is recorded of guests")
    return None


def _on_lines(unknown: tuple[Unknown, ...], mode: str, done: bool) -> Iterator[str]:
    for each in unknown:
        where = f" on {each.bridge}" if each.bridge else ""
        yield f"{each.name}{where}: {'is' if done else 'would be'} cut off, nobody has decided about it"
    if done:
        yield f"the guard is on, mode {mode}"
    else:
        yield "the guard is as it was; name in [guard] allow what is to pass, or say --yes"
