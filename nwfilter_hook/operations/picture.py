"""
A `Tree` as a picture on one page.

In:  a `Tree`. Out: Graphviz's language. Pure.

https://graphviz.org/doc/info/shapes.html#html
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from ..base.text import one_line
from .tree import Place, Reference, Step, Tree

ORDER = {
    ("from-guest", 2): "1. what the guest sends, layer 2",
    ("from-guest", 3): "2. what the guest sends, layer 3: what layer 2 has let pass",
    ("to-guest", 3): "1. what the guest gets, layer 3",
    ("to-guest", 2): "2. what the guest gets, layer 2: what layer 3 has let pass",
}
"""Of each direction the place that packets meet first stands first."""
_PAGE = "11.2,7.8"
"""Inches: A4 across, less its margins; a larger picture is made smaller."""
_COLOURS = {"accept": "#1a7f37", "drop": "#b42318", "reject": "#b42318", "return": "#9a6700", "learn": "#57606a"}
GREY = "#a0a6ad"
_LONGEST = 64


def picture(tree: Tree) -> str:
    """Above what refers to what, below the four places where rules decide."""
    title = f"tap {tree.tap} of {tree.guest}: {tree.filter}" if tree.tap else f"filter {tree.filter}"
    values = "".join(f"   {name}={text}" for name, text in tree.values.items())
    lines = [
        "digraph tree {",
        f'  graph [size="{_PAGE}" margin=0.2 rankdir=TB ranksep=0.3 nodesep=0.25 labelloc=t fontname="Helvetica" '
        f"fontsize=18 label={_quoted(title + values)}]",
        '  node [shape=box style=rounded fontname="Helvetica" fontsize=11 margin="0.12,0.06" color="#57606a"]',
        '  edge [arrowsize=0.6 color="#57606a"]',
    ]
    numbers: dict[str, str] = {}
    edges: list[str] = []
    for each in tree.references:
        lines += _nodes(each, numbers, edges)
    lines += edges
    lines += [f"  p{number} [shape=plain label=<{_place(place)}>]" for number, place in enumerate(tree.places)]
    for first in range(0, len(tree.places), 2):  # a direction in a row
        lines.append(f"  {{rank=same p{first} -> p{first + 1} [style=invis]}}")
    lines += [f"  p{number} -> p{number + 2} [style=invis]" for number in range(len(tree.places) - 2)]
    leaves = [number for number in numbers.values() if not any(edge.startswith(f"  {number} ->") for edge in edges)]
    lines += [f"  {number} -> p0 [style=invis]" for number in leaves]
    return "\n".join([*lines, "}", ""])


def _nodes(each: Reference, numbers: dict[str, str], edges: list[str]) -> Iterator[str]:
    """Of a filter and what it refers to: a node each, however often it is referred to."""
    if each.filter not in numbers:
        numbers[each.filter] = f"f{len(numbers)}"
        chain = "" if each.chain == "root" else f"\nchain {each.chain} at {each.priority}"
        yield f"  {numbers[each.filter]} [label={_quoted(each.filter + chain)}]"
    for inner in each.below:
        yield from _nodes(inner, numbers, edges)
        given = f" [label={_quoted(', '.join(inner.parameters))} fontsize=9]" if inner.parameters else ""
        edges.append(f"  {numbers[each.filter]} -> {numbers[inner.filter]}{given}")


def _place(place: Place) -> str:
    title = escape(ORDER[place.direction, place.layer])
    rows = f'<TR><TD COLSPAN="4" ALIGN="LEFT"><B>{title}</B></TD></TR>'
    rows += "".join(_rows(place.steps, 0))
    rows += f'<TR><TD COLSPAN="4" ALIGN="LEFT"><FONT COLOR="{GREY}">whatever is left passes</FONT></TD></TR>'
    return f'<TABLE BORDER="1" COLOR="#d0d7de" CELLBORDER="0" CELLSPACING="0" CELLPADDING="2">{rows}</TABLE>'


def _rows(steps: Sequence[Step], depth: int) -> Iterator[str]:
    indent = "&#160;" * (4 * depth)
    for each in steps:
        number = _text("" if each.priority is None else str(each.priority))
        if each.kind == "chain":
            yield (
                f'<TR><TD ALIGN="RIGHT">{number}</TD><TD COLSPAN="3" ALIGN="LEFT">{indent}<B>chain '
                f"{_text(each.text)}</B></TD></TR>"
            )
            yield from _rows(each.below, depth + 1)
            continue
        colour = GREY if each.dead else _COLOURS.get(each.verdict, "#57606a")
        ink = GREY if each.dead else "#1f2328"
        text = each.text if len(each.text) <= _LONGEST else f"{each.text[:_LONGEST]}…"
        more = "".join(
            (
                ", answers" if each.answers else "",
                f"  {each.packets} packets" if each.packets is not None else "",
                f"  dead: {each.dead}" if each.dead else "",
            )
        )
        yield (
            f'<TR><TD ALIGN="RIGHT"><FONT COLOR="{ink}">{number}</FONT></TD>'
            f'<TD ALIGN="LEFT">{indent}<FONT COLOR="{colour}">{_text(each.verdict)}</FONT></TD>'
            f'<TD ALIGN="LEFT"><FONT COLOR="{ink}">{_text(text + more)}</FONT></TD>'
            f'<TD ALIGN="LEFT"><FONT COLOR="{GREY}">{_text(each.rule)}</FONT></TD></TR>'
        )


def _text(text: str) -> str:
    return escape(one_line(text)) or "&#160;"


def _quoted(text: str) -> str:
    """A label; its backslashes and quotes stand for themselves, and a line's end is one."""
    lines = (one_line(line).replace("\\", "\\\\").replace('"', '\\"') for line in text.split("\n"))
    return '"' + "\\n".join(lines) + '"'
