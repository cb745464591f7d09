"""
nwfilter-hook replay: do what the hook would do, or say what that would be.
"""

from __future__ import annotations

import sys

import click

from .. import hook
from ..base.text import one_line
from ..domain.parse import parse_identity
from ..libvirtd import ask_libvirt
from ..operations.compile import compile_domain
from ..operations.floors import read_domain
from ..operations.lifecycle import check
from ..operations.removal import plan_removal
from ..operations.transaction import plan_domain
from .common import open_cli_host, read_input
from .complete import names_of

OPERATIONS = (*hook.CHECKING, *hook.INSTALLING, "started", *hook.VERIFYING, *hook.REMOVING)


@click.command()
@click.argument("guest", shell_complete=names_of("guest"))
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
    data = read_input(xml_file) if xml_file else ask_libvirt(guest)
    if not dry_run:
        sys.exit(hook.run(guest, operation, data))
    host = open_cli_host(readonly=True)
    path = f"domain XML of {one_line(guest)}"
    if operation in hook.REMOVING:
        click.echo(plan_removal(host, parse_identity(data, path)).text, nl=False)
        return
    domain = read_domain(host, data, path)
    if operation in hook.CHECKING:
        check(host, domain)
    elif operation != "started":
        compiled = compile_domain(host, domain, tolerant=operation in hook.VERIFYING)
        planned = plan_domain(host, domain, compiled, operation, fresh=operation == "start")
        click.echo(planned.transaction.text, nl=False)
