"""
nwfilter-hook watch: the service, and one pass of it.
"""

from __future__ import annotations

import sys

import click

from ..base.text import one_line
from ..libvirtd import open_libvirt
from ..operations.repair import repair
from ..operations.resync import FAILED, resync
from .common import open_cli_host


@click.command("watch")
@click.option("--once", is_flag=True, help="One pass: see that everything is as recorded, follow all guests, and end.")
def watch_(once: bool) -> None:
    """Follow what libvirt tells no hook of, and put back what others change of our rules; until SIGTERM."""
    if not once:
        from ..watch.service import watch

        watch()
        return
    host = open_cli_host(readonly=False)
    repairs = repair(host)
    for each in repairs:
        click.echo(one_line(each.line))
    followed = []
    if host.config.uri != "none":
        hint = "install python3-libvirt, or set [watch] uri = none in the configuration"
        libvirt = open_libvirt(host.config.uri, hint)
        try:
            followed = resync(host, libvirt)
        finally:
            libvirt.close()
    for one in followed:
        for line in (*one.notes, *filter(None, [one.error])):
            host.report(f"{one.guest}: {line}")
    if any(each.failed for each in repairs) or any(one.outcome == FAILED for one in followed):
        sys.exit(1)
