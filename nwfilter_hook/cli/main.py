"""
The command `nwfilter-hook`: which command is in which module, imported when it is used.

Exit status: 0 fine, 1 failed (stderr says why, a line for each fault), 2 wrong usage.
"""

from __future__ import annotations

import importlib
import sys

import click

from .. import __version__
from ..base.errors import NwfilterHookError
from .common import print_error

COMMANDS = {
    "adopt": "adopt.adopt_",
    "binding-create": "bindings.binding_create",
    "binding-delete": "bindings.binding_delete",
    "binding-dumpxml": "bindings.binding_dumpxml",
    "binding-list": "bindings.binding_list",
    "check-migration": "fleet.check_migration",
    "compile": "compile.compile_",
    "define": "filters.define_",
    "doctor": "doctor.doctor",
    "digest": "fleet.digest",
    "dumpxml": "filters.dumpxml",
    "edit": "edit.edit",
    "guard": "guard.guard",
    "explain": "explain.explain",
    "learn": "learned.learn",
    "lint": "lint.lint",
    "list": "filters.list_",
    "metrics": "metrics.metrics",
    "relearn": "learned.relearn",
    "reload": "filters.reload_",
    "replay": "replay.replay",
    "resync": "resync.resync_",
    "schema": "schema.schema",
    "set": "address_sets.set_",
    "setup": "setup.setup",
    "show": "show.show",
    "test": "test.test",
    "unadopt": "adopt.unadopt_",
    "trace": "trace.trace",
    "tree": "tree.tree",
    "undefine": "filters.undefine_",
    "validate": "validate.validate",
    "verify": "verify.verify",
    "watch": "watch.watch_",
}
"""Command to MODULE.FUNCTION of this package."""


class _Commands(click.Group):
    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, _, function = COMMANDS[name].partition(".")
        command = getattr(importlib.import_module(f".{module}", __package__), function)
        assert isinstance(command, click.Command)
        return command


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="nwfilter-hook")
def cli() -> None:
    """Per-guest packet filtering for libvirt: nwfilter compiled to nftables."""


def main() -> None:
    """Run the command line; an error of ours becomes a line on stderr for each fault, and exit status 1."""
    try:
        cli.main(prog_name="nwfilter-hook")
    except NwfilterHookError as error:
        print_error(error)
        sys.exit(1)
    except BrokenPipeError:
        sys.exit(1)
