"""
nwfilter-hook resync: see that all guests that run have what libvirt says of them now.
"""

from __future__ import annotations

import json
import sys

import click

from ..base.errors import NwfilterHookError
from ..base.text import one_line
from ..libvirtd import open_libvirt
from ..operations.resync import FAILED, FOLLOWED, REMOVED, resync
from .common import json_option, open_cli_host


@click.command("resync")
@json_option
def resync_(as_json: bool) -> None:
    """Follow what no hook is told: devices plugged, unplugged, changed; metadata; guests older than the hook."""
    host = open_cli_host(readonly=False)
    if host.config.uri == "none":
        raise NwfilterHookError("[watch] uri is none: there is no libvirt to ask")
    libvirt = open_libvirt(host.config.uri, "install python3-libvirt")
    try:
        followed = resync(host, libvirt)
    finally:
        libvirt.close()
    for each in followed:
        for line in (*each.notes, *filter(None, [each.error])):
            host.report(f"{each.guest}: {line}")
    if as_json:
        keys = ("guest", "uuid", "outcome", "error", "notes")
        click.echo(json.dumps([{key: getattr(each, key) for key in keys} for each in followed], indent=2))
    else:
        for each in followed:
            if each.outcome == REMOVED:
                click.echo(one_line(f"{each.guest}: doesn't run; its rules are removed"))
        running = sum(each.outcome == FOLLOWED for each in followed)
        click.echo(f"{running} guest{'' if running == 1 else 's'} followed")
    if any(each.outcome == FAILED for each in followed):
        sys.exit(1)
