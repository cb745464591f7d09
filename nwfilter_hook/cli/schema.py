"""
nwfilter-hook schema: the language for editors.
"""

from __future__ import annotations

import click

from ..filters.schema import schema as relax_ng
from .output import print_xml


@click.command()
def schema() -> None:
    """Print the language of filters as a RELAX NG schema, for editors that complete and check while one writes."""
    print_xml(relax_ng())
