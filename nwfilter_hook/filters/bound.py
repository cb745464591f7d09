"""
A rule whose variables have their values: what it asks of a packet, condition by condition.

In:  the typed values of a protocol element's attributes.
Out: `Condition`s; what only completes another attribute (a mask, the end of a range) is in that one's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..base.dataclass import dataclass
from ..base.errors import Source
from .model import Action, Direction, Learned, Value
from .protocols import Attribute, Element


@dataclass(frozen=True)
class Condition:
    """
    What an attribute says.

    Attributes:
        mask, end: of the attributes that complete it; None if they aren't given.
    """

    attribute: Attribute
    value: Value
    negated: bool = False
    mask: Value | None = None
    end: Value | None = None

    @property
    def learned(self) -> Iterator[Learned]:
        """What of it is learned."""
        return (part for part in (self.value, self.mask, self.end) if isinstance(part, Learned))


@dataclass(frozen=True)
class BoundRule:
    """
    One <rule> with one value for each variable, ready to compile.

    Attributes:
        filter: name of the filter that contains it, for provenance.
        chain, chain_priority: of that filter.
        conditions: by attribute name, in the order of the language's table.
    """

    filter: str
    chain: str
    chain_priority: int
    action: Action
    direction: Direction
    priority: int
    statematch: bool
    element: str | None
    conditions: Mapping[str, Condition]
    source: Source

    def value(self, name: str) -> Value | None:
        """What the attribute is; None if it isn't given."""
        condition = self.conditions.get(name)
        return condition.value if condition else None


def conditions_of(element: Element, values: Mapping[str, tuple[Value, bool]]) -> dict[str, Condition]:
    """
    Args:
        values: by attribute name, with the sign that stands beside it.
    """
    found: dict[str, Condition] = {}
    for name, attribute in element.attributes.items():
        value, negated = values.get(name, (None, False))
        mask, end = (
            values[other][0] if other and other in values else None for other in (attribute.mask, attribute.end)
        )
        if value is None and end is not None:
            value = attribute.begins
        head = element.attributes[attribute.part_of] if attribute.part_of else None
        if value is None or (head and (name in (head.mask, head.end) or head.name not in found)):
            continue
        if attribute.joined_to:
            joined = found.get(attribute.joined_to)
            negated = joined is not None and joined.negated
        found[name] = Condition(attribute, value, negated, mask, end)
    return found
