"""
nwfilter-hook tree: what refers to what, and in which order rules decide.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

import click

from ..base.dataclass import as_dict
from ..base.errors import NwfilterHookError
from ..base.text import one_line
from ..operations.picture import ORDER, picture
from ..operations.tree import Reference, Step, Tree, tree_of_filter, tree_of_tap
from ..storage.library import Library
from .common import json_option, open_cli_host, write_output
from .complete import names_of
from .options import filters_option, parameter_option, read_mac


@click.command()
@click.argument("name", metavar="NAME|TAP", shell_complete=names_of("filter", "tap"))
@parameter_option
@click.option("--mac", callback=read_mac, help="The guest's MAC address, the value of $MAC.")
@filters_option
@click.option("--svg", metavar="FILE", help="Draw it on one page instead; - is standard output. Needs Graphviz.")
@json_option
def tree(
    name: str,
    parameters: dict[str, tuple[str, ...]],
    mac: str | None,
    filters: tuple[str, ...],
    svg: str | None,
    as_json: bool,
) -> None:
    """
    What a filter refers to, and the order in which its rules decide; of a tap with its addresses and counters.

    A tap comes before a filter of the same name. -p, --mac and --filters are for a filter; that needs no root.
    """
    if svg is not None and as_json:
        raise click.UsageError("--svg and --json exclude each other")
    found = _read(name, parameters, mac, filters)
    if as_json:
        click.echo(json.dumps(as_dict(found), indent=2))
    elif svg is not None:
        write_output(svg, _draw(picture(found)))
    else:
        _print(found)


def _read(name: str, parameters: dict[str, tuple[str, ...]], mac: str | None, filters: tuple[str, ...]) -> Tree:
    host = open_cli_host(readonly=True)
    if host.state.owner(name) and not (parameters or mac or filters):
        return tree_of_tap(host, name)
    library = Library((*filters, *host.config.filter_dirs), trusting=True)
    return tree_of_filter(host, name, parameters, mac, library)


def _draw(source: str) -> bytes:
    """Raises NwfilterHookError: Graphviz isn't there."""
    hint = "Graphviz draws it: install python3-graphviz and graphviz"
    try:
        import graphviz
    except ImportError:
        raise NwfilterHookError(hint) from None
    try:
        return bytes(graphviz.Source(source).pipe(format="svg", quiet=True))
    except graphviz.ExecutableNotFound:
        raise NwfilterHookError(hint) from None
    except graphviz.CalledProcessError as error:
        raise NwfilterHookError(f"Graphviz can't draw it: {error}") from error


# --- for people -------------------------------------------------------------------------------------------------------


def _print(found: Tree) -> None:
    from rich.console import Console
    from rich.text import Text
    from rich.tree import Tree as Drawn

    title = f"tap {found.tap} of {found.guest}: {found.filter}" if found.tap else f"filter {found.filter}"
    values = "".join(f"  {name}={text}" for name, text in found.values.items())
    top = Drawn(Text(one_line(title + values), style="bold"))
    _references(top, found.references)
    console = Console(width=None if sys.stdout.isatty() else _WIDE, highlight=False)
    console.print(top)
    for place in found.places:
        top = Drawn(Text(ORDER[place.direction, place.layer], style="bold"))
        _steps(top, place.steps)
        top.add(Text("whatever is left passes", style="dim"))
        console.print()
        console.print(top)
    for note in found.notes:
        click.echo(f"note: {one_line(note)}")


def _references(above: Any, references: Sequence[Reference]) -> None:
    from rich.text import Text

    for each in references:
        chain = "" if each.chain == "root" else f"  chain {each.chain} at {each.priority}"
        rules = f"  {each.rules} rule{'' if each.rules == 1 else 's'}" if each.rules else ""
        again = "  (as above)" if each.again else ""
        given = "".join(f"  {parameter}" for parameter in each.parameters)
        _references(above.add(Text(one_line(f"{each.filter}{given}{chain}{rules}{again}"))), each.below)


_WIDE = 10_000
"""Where no terminal has a width no line is broken."""
_STYLES = {"accept": "green", "drop": "red", "reject": "red", "return": "yellow"}


def _steps(above: Any, steps: Sequence[Step]) -> None:
    from rich.text import Text

    for each in steps:
        number = "" if each.priority is None else str(each.priority)
        if each.kind == "chain":
            _steps(above.add(Text(one_line(f"{number:>5} chain {each.text}"), style="bold")), each.below)
            continue
        answers = ", answers" if each.answers else ""
        packets = "" if each.packets is None else f"  {each.packets} packets"
        line = Text(f"{number:>5} ")
        line.append(f"{each.verdict:8}", style=_STYLES.get(each.verdict, "dim"))
        line.append(one_line(f" {each.text}{answers}  {each.rule}{packets}"))
        if each.dead:
            line.append(f"  dead: {each.dead}")
            line.stylize("bright_black")
        above.add(line)
