"""
nwfilter-hook validate: every fault of filter files.
"""

from __future__ import annotations

import sys

import click

from ..base.errors import NwfilterHookError
from ..base.text import one_line
from ..operations.validate import validate as validate_filter
from ..storage.library import read_filter_file


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE…")
def validate(files: tuple[str, ...]) -> None:
    """Check that each FILE holds a filter; say all that is wrong."""
    wrong = 0
    for path in files:
        try:
            found = validate_filter(read_filter_file(path), path)
        except OSError as error:
            click.echo(f"{one_line(path)}: {error.strerror}", err=True)
            wrong += 1
        except NwfilterHookError as error:
            click.echo("\n".join(error.lines()), err=True)
            wrong += 1
        else:
            click.echo(f"{one_line(path)}: filter {found.name}, {len(found.entries)} entries: fine")
    sys.exit(1 if wrong else 0)
