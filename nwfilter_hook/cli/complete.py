"""
What a shell offers at Tab for an argument: taps, guests, filters, sets, parameters of this host.

Nothing is said, whatever goes wrong: somebody is typing. A name that a line can't hold as it is isn't offered.
"""

from __future__ import annotations

from typing import Callable

import click

from ..base.errors import NwfilterHookError
from ..config import read_config
from ..host import Host, open_host

Complete = Callable[[click.Context, click.Parameter, str], "list[str]"]


def names_of(*kinds: str) -> Complete:
    """Completes a name of one of these kinds (operations/names.py)."""

    def complete(context: click.Context, parameter: click.Parameter, begun: str) -> list[str]:
        from ..operations.names import KINDS

        return _offered(lambda host: [name for kind in kinds for name in KINDS[kind](host)], begun)

    return complete


def complete_parameter(context: click.Context, parameter: click.Parameter, begun: str) -> list[str]:
    """Completes NAME= of NAME=VALUE, for the filter that the line names."""
    from ..operations.names import parameters

    # click binds no argument before an option that lacks its value yet
    named = context.params.get("filter") or next(iter(context.args), None)
    return _offered(lambda host: [f"{name}=" for name in parameters(host, str(named))], begun) if named else []


def _offered(names: Callable[[Host], list[str]], begun: str) -> list[str]:
    try:
        found = names(open_host(read_config(), lambda line: None, lambda line: None, readonly=True))
    except (NwfilterHookError, OSError):
        return []
    return [name for name in dict.fromkeys(found) if name.startswith(begun) and name.isprintable() and " " not in name]
