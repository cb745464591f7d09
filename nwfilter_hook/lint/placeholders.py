"""
Values for variables that nobody has given: a filter is judged as some interface would use it.

In:  the rules of a tree, and the variables that have a value.
Out: a value, or several, for each of the others: such as fits every attribute it is used in, and equals nothing else.

There are several SETS. What is true by chance of one isn't true of the next.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..base.dataclass import dataclass
from ..base.errors import Source
from ..filters.model import Variable
from ..filters.protocols import ELEMENTS, Attribute
from ..filters.resolve import RuleInstance, accesses
from ..filters.types import Type

SETS = (0, 1)
MAC = ("52:54:00:7e:00:01", "52:54:00:7f:00:02")
"""The guest's."""

# by type: what is written for number {0} of the set, or that plus 100, or it modulo 32;
# addresses for documentation, RFC 5737, 3849
_TEXTS: dict[str, tuple[str, str]] = {
    "IP_ADDR": ("192.0.2.{0}", "203.0.113.{0}"),
    "IPV6_ADDR": ("2001:db8::{0}", "2001:db8:7e::{0}"),
    "MAC_ADDR": ("52:54:00:7e:01:{0:02x}", "52:54:00:7f:02:{0:02x}"),
    "IP_MASK": ("24", "28"),
    "IPV6_MASK": ("64", "56"),
    "MAC_MASK": ("ff:ff:ff:00:00:00", "ff:ff:ff:ff:00:00"),
    "UINT8": ("{0}", "{1}"),
    "UINT16": ("40{0:03}", "50{0:03}"),
    "UINT32": ("40{0:03}", "50{0:03}"),
    "DSCP": ("{2}", "{3}"),
    "VLANID": ("1{0:02}", "3{0:03}"),
    "ETHERTYPE": ("0x88b5", "0x88b6"),
    "ENCAPTYPE": ("0x88b5", "0x88b6"),
    "PROTOCOLTYPE": ("0x88b5", "0x88b6"),
    "OPCODE": ("2{0:02}", "3{0:02}"),
    "PROTOCOL": ("253", "254"),
    "CONNLIMIT": ("2{0:02}", "3{0:02}"),
    "IPSETNAME": ("placeholder-{0}", "placeholder-{0}"),
    "TAGGED": ("any", "yes"),
}


@dataclass(frozen=True)
class Use:
    """An attribute in which a variable stands."""

    attribute: Attribute
    variable: Variable
    filter: str
    source: Source


def uses(instances: Iterable[RuleInstance]) -> dict[str, list[Use]]:
    """Where each variable stands, by its name."""
    found: dict[str, list[Use]] = {}
    for instance in instances:
        for name, setting, variable in accesses(instance.rule):
            assert instance.rule.element is not None
            attribute = ELEMENTS[instance.rule.element].attributes[name]
            found.setdefault(variable.name, []).append(Use(attribute, variable, instance.filter.name, setting.source))
    return found


def unbound(instances: Iterable[RuleInstance]) -> dict[str, list[Use]]:
    """Those that have no value at some place."""
    found: dict[str, list[Use]] = {}
    for instance in instances:
        for name, places in uses([instance]).items():
            if name not in instance.parameters:
                found.setdefault(name, []).extend(places)
    return found


def values_for(wanted: Mapping[str, list[Use]], number: int) -> dict[str, tuple[str, ...]]:
    """
    Values of set `number`; a variable that no value fits is left out.

    Variables that advance together have equally many.
    """
    many = 1 + max((use.variable.index or 0 for places in wanted.values() for use in places), default=0)
    # an end of a range is above what begins it
    names = sorted(wanted, key=lambda name: any(use.attribute.part_of for use in wanted[name]))
    found: dict[str, tuple[str, ...]] = {}
    for position, name in enumerate(names):
        types = list({use.attribute.type.name: use.attribute.type for use in wanted[name]}.values())
        numbers = range(10 + position * many, 10 + (position + 1) * many)
        texts = [value for each in numbers if (value := _text(types, number, each)) is not None]
        if len(texts) == many:
            found[name] = tuple(texts)
    return found


def _text(types: Iterable[Type], number: int, each: int) -> str | None:
    """What is a value of all the types, or None."""
    types = tuple(types)
    numbers = (each, each + 100, each % 32, 32 + each % 32)
    candidates = [_TEXTS[type_.name][number].format(*numbers) for type_ in types if type_.name in _TEXTS]
    return next((text for text in candidates if all(_fits(type_, text) for type_ in types)), None)


def _fits(type_: Type, text: str) -> bool:
    try:
        type_.parse_bound(text)
    except ValueError:
        return False
    return True
