"""
What is written otherwise than it works: priorities of chains, parameters, lists, masks.
"""

from __future__ import annotations

from collections.abc import Iterator

from ...base.errors import Source
from ...base.text import nearest
from ...filters.connections import CONNECTIONS
from ...filters.learning import FIXED, IPV6_LINK_LOCAL, IPV6_MAXIMUM, IPV6_MODE, MAC_MAXIMUM, MAXIMUM, MODE
from ...filters.model import FilterRef, TcpFlags
from ...filters.protocols import ELEMENTS
from ..findings import Check, Finding
from ..placeholders import uses
from ..tree import Tree

MANY_RULES = 256
_SPECIAL = ("IP", "IPV6", "MAC", "LINK_LOCAL", "DHCPSERVER")
_OF_INTERFACES = (
    *(MODE, MAXIMUM, IPV6_MODE, IPV6_MAXIMUM, MAC_MAXIMUM, IPV6_LINK_LOCAL, CONNECTIONS),
    *FIXED.values(),
)
"""Parameters that no rule names; they count at an interface's reference only."""


def find_chain_priorities(tree: Tree) -> Iterator[Finding]:
    first: dict[str, tuple[int, str, Source]] = {}
    for instance in tree.instances:
        definition = instance.filter
        if definition.chain == "root":
            continue
        priority, name, source = first.setdefault(
            definition.chain, (definition.priority, definition.name, definition.source)
        )
        if priority != definition.priority and name != definition.name:
            message = (
                f"chain {definition.chain!r} has priority {definition.priority} here and {priority} at {source} "
                f"({name}): only one of them counts"
            )
            yield Finding("NWF140", message, definition.name, definition.source, source, name)


def find_unused_parameters(tree: Tree) -> Iterator[Finding]:
    for definition in tree.filters.values():
        for entry in definition.entries:
            if not isinstance(entry, FilterRef):
                continue
            known = _used_below(tree, entry.filter)
            for name in entry.parameters:
                if name in known:
                    continue
                if name in _OF_INTERFACES:
                    why = "it counts at an interface's reference only"
                else:
                    near = nearest(name, known)
                    why = f"did you mean {near!r}?" if near else "no rule there uses it"
                message = f"parameter {name!r} means nothing to filter {entry.filter!r}: {why}"
                yield Finding("NWF141", message, definition.name, entry.source)


def _used_below(tree: Tree, name: str) -> set[str]:
    """The variables in a filter and in all that it refers to."""
    found: set[str] = set()
    seen: set[str] = set()
    todo = [name]
    while todo:
        current = todo.pop()
        definition = tree.filters.get(current)
        if current in seen or definition is None:
            continue
        seen.add(current)
        todo += [entry.filter for entry in definition.entries if isinstance(entry, FilterRef)]
        found |= set(uses(each for each in tree.instances if each.filter.name == current))
    return found


def find_misspelt_variables(tree: Tree) -> Iterator[Finding]:
    for name, places in uses(tree.instances).items():
        if name in tree.given or name in _SPECIAL:
            continue
        meant = next((each for each in _SPECIAL if each.replace("_", "") == name.upper().replace("_", "")), None)
        if meant is not None:
            use = places[0]
            message = f"variable ${name} is another than ${meant}, which every interface has"
            if meant not in ("MAC", "LINK_LOCAL"):
                message = f"variable ${name} is another than ${meant}: did you mean that?"
            yield Finding("NWF142", message, use.filter, use.source)


def find_products(tree: Tree) -> Iterator[Finding]:
    count: dict[Source, int] = {}
    for rule in tree.rules:
        count[rule.source] = count.get(rule.source, 0) + 1
    for source, number in count.items():
        if number > MANY_RULES:
            rule = tree.rule_at[source]
            message = (
                f"makes {number} rules, a product of its lists, more than {MANY_RULES}: for addresses use an ipset or "
                "a network, for values that belong together one iterator"
            )
            yield Finding("NWF143", message, rule.filter, source)


def find_bits_outside(tree: Tree) -> Iterator[Finding]:
    for definition, rule in tree.file_rules():
        for name, setting in rule.settings.items():
            attribute = ELEMENTS[rule.element or ""].attributes[name]
            value = setting.value
            if isinstance(value, TcpFlags) and value.flags & ~value.mask:
                message = f"{name}: flags that the mask leaves out can't be asked for, so no packet passes"
                yield Finding("NWF144", message, definition.name, rule.source)
            mask = rule.settings.get(attribute.mask or "")
            if mask is None or not isinstance(value, int) or not isinstance(mask.value, int):
                continue
            if value & ~mask.value:
                shown = attribute.type.format(value & mask.value)
                message = f"{name}={attribute.type.format(value)!r} has bits outside of its mask: it means {shown}"
                yield Finding("NWF144", message, definition.name, rule.source)


CHECKS = (
    Check(
        "NWF140",
        "one chain with two priorities",
        "Filters of the same chain share it, and it has one priority: that of the rule that is sorted last, as in "
        "libvirt. Give the chain one priority, or two names.",
        find_chain_priorities,
    ),
    Check(
        "NWF141",
        "a parameter that nothing uses",
        "No rule of the filter that is referred to, nor of those behind it, has a variable of that name; parameters "
        "that begin with CTRL_ count where an interface refers to a filter, not between filters.",
        find_unused_parameters,
    ),
    Check(
        "NWF142",
        "a variable that is nearly one of those that are known",
        "Names of variables are told apart by their case. An interface gives MAC, LINK_LOCAL and IP by itself, others "
        "it must be given.",
        find_misspelt_variables,
    ),
    Check(
        "NWF143",
        "a product of lists that makes very many rules",
        "Variables with different iterators ($A[@1], $B[@2]) make a rule for each combination, and every packet may be "
        "compared with all of them. More than 4096 are refused.",
        find_products,
    ),
    Check(
        "NWF144",
        "an address with bits outside of its mask",
        "10.0.0.5 under a mask of 24 means all of 10.0.0.0/24. If one address is meant leave the mask away; if the "
        "network is, write its first address. Of TCP flags, those outside of the mask are never there.",
        find_bits_outside,
    ),
)
