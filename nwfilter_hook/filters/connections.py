"""
How many connections a guest may have open: what its interface's parameter says.

In:  a reference's parameters.
Out: a number; None for the host's bound, 0 for none.
"""

from __future__ import annotations

from ..base.errors import BadValue
from .model import FilterRef
from .values import Number

CONNECTIONS = "CTRL_CONNECTIONS_MAX"
MAX_CONNECTIONS = 1_000_000


def read_connections(reference: FilterRef) -> int | None:
    """
    The interface's own bound.

    Raises:
        BadValue: it means nothing, or there are several.
    """
    given = reference.parameters.get(CONNECTIONS, ())
    if not given:
        return None
    if len(given) > 1:
        raise BadValue(f"parameter {CONNECTIONS} is given {len(given)} times; it is one number", reference.source)
    if given[0].lower() == "none":
        return 0
    try:
        value = Number(1, MAX_CONNECTIONS)(given[0])
    except ValueError as error:
        message = f"parameter {CONNECTIONS}: {given[0]!r} is not none or {error}"
        raise BadValue(message, reference.source) from None
    assert isinstance(value, int)
    return value


def under_floor(own: int | None, floor: int | None) -> int | None:
    """The bound of an interface whose bridge has one on its floor: no more than that."""
    if not floor:
        return own
    return min(own, floor) if own else floor
