"""
nwfilter-hook digest, check-migration: what guests' filters are, and whether they are the same elsewhere.
"""

from __future__ import annotations

import json
import sys

import click

from ..base.dataclass import as_dict
from ..base.errors import NwfilterHookError
from ..base.text import one_line
from ..host import Host
from ..libvirtd import open_libvirt
from ..network.remote import ask, is_remote
from ..operations.digests import GuestDigest, digest_domain, digest_host, digest_record
from ..operations.floors import read_domain
from ..operations.migration import MAX_BYTES, Elsewhere, differences
from .common import json_option, open_cli_host, read_input
from .complete import names_of


@click.command()
@click.argument("guest", required=False, shell_complete=names_of("guest"))
@click.option("--all", "every", is_flag=True, help="Of every guest that runs; with --json of the host, too.")
@json_option
def digest(guest: str | None, every: bool, as_json: bool) -> None:
    """Print a digest of the filters and parameters of GUEST, the same on two hosts if these are."""
    if every == (guest is not None):
        raise click.UsageError("give a GUEST, or --all")
    host = open_cli_host(readonly=True)
    found = [_digest(host, guest)] if guest else [digest_record(host, record) for record in host.state.records()]
    if as_json:
        whole = digest_host(host, found).as_json() if every else as_dict(found[0])
        click.echo(json.dumps(whole, indent=2))
    else:
        for each in found:
            click.echo(one_line(f"{each.digest}  {each.guest}"))


@click.command("check-migration")
@click.argument("guest", shell_complete=names_of("guest"))
@click.argument("destination")
def check_migration(guest: str, destination: str) -> None:
    """Say whether GUEST would be filtered the same on DESTINATION: ssh://HOST, a libvirt URI, or a file from there."""
    host = open_cli_host(readonly=True)
    here = _digest(host, guest)
    data = ask(destination) if is_remote(destination) else read_input(destination)
    if len(data) > MAX_BYTES:
        raise NwfilterHookError(f"{destination}: more than {MAX_BYTES >> 20} MiB")
    there = Elsewhere(data, destination)
    found = differences(here, digest_host(host, [here]), there)
    for line in found:
        click.echo(one_line(f"{guest}: {there.host}: {line}"))
    if found:
        sys.exit(1)
    click.echo(one_line(f"{guest}: {there.host}: the same filters, abilities, sets and configuration"))


def _digest(host: Host, guest: str) -> GuestDigest:
    """Of a guest that runs, by its record; of another as libvirt has defined it."""
    record = next((each for each in host.state.records() if each.guest == guest), None)
    if record is not None:
        return digest_record(host, record)
    if host.config.uri == "none":
        raise NwfilterHookError(f"no guest {one_line(guest)!r} runs under filter, and there is no libvirt to ask")
    libvirt = open_libvirt(host.config.uri)
    try:
        return digest_domain(host, read_domain(host, libvirt.xml_by_name(guest), f"domain XML of {guest}"))
    finally:
        libvirt.close()
