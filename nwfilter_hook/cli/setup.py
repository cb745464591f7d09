"""
nwfilter-hook setup: after an installation by pip, put the hook and the units into their places, or take them away.
"""

from __future__ import annotations

import json
import sysconfig

import click

from ..base.text import one_line
from ..operations.bindings import all_bindings
from ..operations.setup import set_up, undo
from .common import json_option, open_cli_host

_NEXT = (
    "then: systemctl daemon-reload; libvirt looks for hooks when it starts: systemctl restart libvirtd (or virtqemud)"
)


@click.command("setup")
@click.option("--remove", is_flag=True, help="Take them away again; what somebody has changed stays.")
@click.option("--dry-run", is_flag=True, help="Say what would be written or removed; change nothing.")
@json_option
def setup(remove: bool, dry_run: bool, as_json: bool) -> None:
    """Put hook, units and a sample configuration where libvirt and systemd look, after `pip install`."""
    done = []
    for path, what in (undo if remove else set_up)(sysconfig.get_path("data"), dry_run=dry_run):
        done.append({"path": path, "what": what})
        if not as_json:
            click.echo(
                one_line(f"{path}: {'would be ' if dry_run and not what.startswith(('is', 'stays')) else ''}{what}")
            )
    if as_json:
        click.echo(json.dumps(done, indent=2))
    elif remove:
        taps = [binding.tap for _, binding in all_bindings(open_cli_host(readonly=True))]
        if taps:
            click.echo(one_line(f"these taps stay under filter until they are gone: {' '.join(sorted(taps))}"))
    elif any(each["what"] != "is there" for each in done):
        click.echo(_NEXT)
