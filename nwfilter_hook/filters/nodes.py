"""
What every element of a filter is asked: are its attributes known, is there text or an element where none goes.

In:  the element, the path to name in messages, and the `Faults` that collect what is wrong.
Out: its attributes, its children.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..base.errors import FilterSyntaxError
from ..base.faults import Faults
from ..base.text import did_you_mean, nearest
from ..base.xml import Element, local_name, source_of, text_faults


def attributes_of(element: Element, known: tuple[str, ...], path: str, faults: Faults) -> dict[str, str]:
    """
    The attributes by name. One that isn't known stands under the name that was probably meant, so that that one isn't
    missed as well.
    """
    found: dict[str, str] = {}
    for key, text in element.items():
        name = key
        if faults.too_many:
            break
        if name not in known:
            message = f"unknown attribute {name!r} on <{local_name(element)}>{did_you_mean(name, known)}"
            faults.add(FilterSyntaxError(message, source_of(element, path)))
            name = nearest(name, known) or name
        found.setdefault(name, text)
    return found


def children_of(element: Element, path: str, faults: Faults) -> Iterator[Element]:
    """The child elements, as long as it makes sense to go on; text between them is a fault."""
    for fault in text_faults(element, path):
        faults.add(fault)
        if faults.too_many:
            return
    for child in element:
        if faults.too_many:
            return
        yield child


def refuse_children(element: Element, path: str, faults: Faults) -> None:
    """Neither text nor an element goes in there."""
    for child in children_of(element, path, faults):
        message = f"<{local_name(child)}> in <{local_name(element)}>: no element goes in there"
        faults.add(FilterSyntaxError(message, source_of(child, path)))
