"""
The commands about learned addresses: relearn, learn. `show` prints them.
"""

from __future__ import annotations

import click

from ..operations.learned import forget, teach
from .common import open_cli_host
from .complete import names_of


@click.command()
@click.argument("tap", shell_complete=names_of("tap"))
def relearn(tap: str) -> None:
    """Forget the addresses learned for TAP; it learns them anew, under DHCP with its next lease."""
    forget(open_cli_host(readonly=False), tap)
    click.echo(f"{tap}: learned addresses forgotten")


@click.command()
@click.argument("tap", shell_complete=names_of("tap"))
@click.argument("addresses", nargs=-1, required=True, metavar="ADDRESS…")
def learn(tap: str, addresses: tuple[str, ...]) -> None:
    """Make ADDRESS the learned address of TAP, in place of what was learned in its family."""
    known = teach(open_cli_host(readonly=False), tap, addresses)
    click.echo(f"{tap}: {', '.join(map(str, known))}")
