"""
Follow an interface's reference through the filters and bind every variable.

In:  a `FilterRef`, the interface's MAC, and a function that reads a filter by name.
Out: `BoundRule`s in document order, depth first, one for each combination of list values.

Parameters: an outer reference's value replaces an inner one's, whole list by whole list, so an inner parameter is a
default for its subtree. MAC is the interface's, LINK_LOCAL the link-local address that follows from it; IP (and IPV6,
if asked for) is learned where nobody gives it, and a learned address beats inner parameters, too: libvirt adds it to
the interface's own.
https://libvirt.org/formatnwfilter.html, "Usage of variables in filters", "Advanced Filter Configuration Topics".
"""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from ..base.addresses import is_link_local, link_local, parse_mac
from ..base.dataclass import dataclass
from ..base.errors import NOWHERE, BadValue, FilterLoop, InputError, Source, UnboundVariable
from .bound import BoundRule, conditions_of
from .learning import FIXED, IPV6_MODE, check_fixed, is_learnable, learned_macs, read_learning
from .model import Filter, FilterRef, FilterRule, Learned, Prefix, Setting, Value, Variable
from .protocols import ELEMENTS

MAX_DEPTH = 100
MAX_VISITS = 5000
MAX_RULES = 10_000
MAX_COMBINATIONS = 4096
"""Rules made of one <rule>; libvirt has no bound and would take hours."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Union

    _Item = Union[str, Learned]
    _Items = Mapping[str, tuple[_Item, ...]]
ReadFilter = Callable[[str, Source], Filter]
"""A filter by its name and the place that refers to it; `Library.read`."""


@dataclass(frozen=True)
class RuleInstance:
    """One rule at one place of the tree, with the values of the variables that are visible there."""

    filter: Filter
    rule: FilterRule
    parameters: _Items


def resolve(reference: FilterRef, mac: str, read_filter: ReadFilter) -> tuple[BoundRule, ...]:
    """
    Every rule of the tree under `reference`, bound.

    Args:
        mac: the interface's address, the value of $MAC unless the reference gives one or several.

    Raises:
        UnknownFilter, FilterSyntaxError: a filter isn't there or is wrong.
        FilterLoop: filters include each other; the cycle is in the message.
        UnboundVariable: a variable has no value, its list is too short, or lists of one iterator differ in length.
        BadValue: a value doesn't fit the attribute it is used in, or contradicts another; or they make too many rules.
    """
    check_fixed(reference)
    macs = reference.parameters.get("MAC", (mac,))
    outer: dict[str, tuple[_Item, ...]] = {**reference.parameters, "MAC": macs}
    outer["LINK_LOCAL"] = _link_locals(reference, macs)
    learned_too = learned_macs(reference, macs)
    if learned_too:
        outer["MAC"] = (learned_too,)
    occurrences = tuple(walk_tree(reference, outer, read_filter))
    learned = _learned(occurrences, reference)
    bound = (rule for occurrence in occurrences for rule in _bind(_with(occurrence, learned), reference))
    rules = tuple(itertools.islice(bound, MAX_RULES + 1))
    if len(rules) > MAX_RULES:
        number = f"filter {reference.filter!r} makes more than {MAX_RULES} rules of its parameters"
        raise BadValue(f"{number}; for many addresses use a network or an ipset", reference.source)
    return rules


def _link_locals(reference: FilterRef, macs: Iterable[str]) -> tuple[str, ...]:
    """What $LINK_LOCAL is: what the reference says, or what follows from $MAC."""
    name = "LINK_LOCAL" if "LINK_LOCAL" in reference.parameters else "MAC"
    found = []
    for text in reference.parameters.get("LINK_LOCAL", macs):
        try:
            found.append(text if name == "LINK_LOCAL" else str(ipaddress.IPv6Address(link_local(parse_mac(text)))))
            if not is_link_local(found[-1]):
                raise ValueError("a link-local address such as fe80::1; others are given as IPV6")
        except ValueError as error:
            raise BadValue(f"parameter {name}: {text!r} is not {error}", reference.source) from None
    return tuple(found)


def filters_in_tree(name: str, read_filter: ReadFilter) -> frozenset[str]:
    """Every filter name that the tree under `name` holds, itself included; what can't be read ends a branch."""
    found: set[str] = set()
    waiting = [(name, NOWHERE)]
    while waiting:
        current, wanted_by = waiting.pop()
        if current in found:
            continue
        found.add(current)
        try:
            entries = read_filter(current, wanted_by).entries
        except InputError:
            continue
        waiting += [(entry.filter, entry.source) for entry in entries if isinstance(entry, FilterRef)]
    return frozenset(found)


def walk_tree(reference: FilterRef, parameters: _Items, read_filter: ReadFilter) -> Iterator[RuleInstance]:
    """
    Every rule, depth first. A filter that is met again with the same parameters would only repeat its rules, which
    changes no verdict, so it is passed over; else a few filters that refer to each other twice make millions.
    """
    visited: set[tuple[str, frozenset[tuple[str, tuple[_Item, ...]]]]] = set()

    def walk(reference: FilterRef, parameters: _Items, path: tuple[str, ...]) -> Iterator[RuleInstance]:
        if reference.filter in path:
            cycle = " -> ".join((*path[path.index(reference.filter) :], reference.filter))
            raise FilterLoop(f"filters include each other: {cycle}; leave one of the references out", reference.source)
        if len(path) >= MAX_DEPTH:
            raise FilterLoop(f"filters refer to each other more than {MAX_DEPTH} deep", reference.source)
        visit = (reference.filter, frozenset(parameters.items()))
        if visit in visited:
            return
        visited.add(visit)
        if len(visited) > MAX_VISITS:
            raise FilterLoop(f"the tree holds more than {MAX_VISITS} references", reference.source)
        filter_ = read_filter(reference.filter, reference.source)
        for entry in filter_.entries:
            if isinstance(entry, FilterRule):
                yield RuleInstance(filter_, entry, parameters)
            else:
                yield from walk(entry, {**entry.parameters, **parameters}, (*path, reference.filter))

    yield from walk(reference, parameters, ())


def accesses(rule: FilterRule) -> Iterator[tuple[str, Setting, Variable]]:
    for name, setting in rule.settings.items():
        if isinstance(setting.value, Variable):
            yield name, setting, setting.value


def _with(occurrence: RuleInstance, learned: _Items) -> RuleInstance:
    """The same where these are learned, whatever inner references say."""
    if not learned:
        return occurrence
    return RuleInstance(occurrence.filter, occurrence.rule, {**occurrence.parameters, **learned})


def _learned(occurrences: Sequence[RuleInstance], reference: FilterRef) -> _Items:
    """The variables that are learned; one that nobody gave, and that isn't, is an error."""
    missing: dict[str, Setting] = {}
    learnable = True
    for occurrence in occurrences:
        for _, setting, variable in accesses(occurrence.rule):
            if variable.name not in occurrence.parameters:
                missing.setdefault(variable.name, setting)
                plain = variable.iterator == 0 and variable.index is None
                learnable = learnable and variable.name in ("IP", "IPV6") and plain
    if not missing:
        return {}
    if learnable:
        learning = read_learning(reference)
        fixed = {"IP": learning.fixed, "IPV6": learning.ipv6_fixed}
        learned = {name: (Learned(name, fixed[name]),) for name in missing if is_learnable(name, learning)}
        missing = {name: setting for name, setting in missing.items() if name not in learned}
        if not missing:
            return learned
    names = sorted(missing)
    places = ", ".join(f"${name} at {missing[name].source}" for name in names)
    plural = "variables have" if len(names) > 1 else "variable has"
    hint = f"<parameter name='{names[0]}' value='…'/>"
    if learnable and names[0] == "IPV6":
        hint += f", or {IPV6_MODE} with the value any to learn it"
    raise UnboundVariable(f"filter {reference.filter!r}: {plural} no value: {places}; add {hint}", reference.source)


def uses_learned(rules: Iterable[BoundRule]) -> bool:
    """Whether a rule compares with an address that nobody gave."""
    return any(any(condition.learned) for rule in rules for condition in rule.conditions.values())


def literal_rules(definition: Filter) -> Iterator[BoundRule]:
    """Those rules of the filter that hold no variable, and so mean the same wherever it is used."""
    for rule in definition.entries:
        if isinstance(rule, FilterRule) and not any(accesses(rule)):
            yield from _bind(RuleInstance(definition, rule, {}), FilterRef(definition.name, {}, definition.source))


def _bind(occurrence: RuleInstance, reference: FilterRef) -> Iterator[BoundRule]:
    rule, filter_ = occurrence.rule, occurrence.filter
    for values in _combinations(occurrence):
        bound: dict[str, tuple[Value, bool]] = {}
        for name, setting in rule.settings.items():
            if isinstance(setting.value, Variable):
                value = _typed(rule, name, setting, setting.value, values[setting.value], reference)
            else:
                value = setting.value
            bound[name] = (value, setting.negated)
        yield BoundRule(
            filter=filter_.name,
            chain=filter_.chain,
            chain_priority=filter_.priority,
            action=rule.action,
            direction=rule.direction,
            priority=rule.priority,
            statematch=rule.statematch,
            element=rule.element,
            conditions=conditions_of(ELEMENTS[rule.element], bound) if rule.element else {},
            source=rule.source,
        )


def _typed(
    rule: FilterRule, name: str, setting: Setting, variable: Variable, item: _Item, reference: FilterRef
) -> Value:
    assert rule.element is not None  # a rule without an element has no settings
    attribute = ELEMENTS[rule.element].attributes[name]
    if isinstance(item, Learned):
        if not attribute.type.can_be(item):
            message = f"${variable.name} is learned, and can't be {name} on <{rule.element}> at {setting.source}"
            message += f"; give parameter {variable.name} a value"
            raise BadValue(message, reference.source)
        if attribute.mask in rule.settings and any(isinstance(fixed, Prefix) for fixed in item.fixed):
            message = (
                f"parameter {FIXED[item.variable]}: no network can be {name} on <{rule.element}> at {setting.source}"
            )
            raise BadValue(f"{message}: {attribute.mask} stands beside it; give addresses", reference.source)
        return item
    message = f"parameter {variable.name}: {item!r} can't be {name} on <{rule.element}> at {setting.source}:"
    try:
        value = attribute.type.parse_bound(item)
    except ValueError as error:
        from .mends import value_meant

        meant = value_meant(attribute.type, item)
        hint = f"; write {meant}" if meant else ""
        raise BadValue(f"{message} it is not {error}{hint}", reference.source) from None
    if isinstance(value, Prefix) and attribute.mask in rule.settings:
        address = item.partition("/")[0]
        hint = f"keep the mask and give {address}, or keep the network and remove {attribute.mask}"
        raise BadValue(f"{message} {attribute.mask} stands beside it; {hint}", reference.source)
    if isinstance(value, Prefix) and (attribute.end or attribute.part_of):
        raise BadValue(f"{message} it is not one address, as a range begins and ends with", reference.source)
    return value


def _combinations(occurrence: RuleInstance) -> Iterator[Mapping[Variable, _Item]]:
    """Each way to give the rule's variables one value: iterators side by side, the first met varying fastest."""
    groups: dict[int, list[Variable]] = {}
    fixed: dict[Variable, _Item] = {}
    for _, setting, variable in accesses(occurrence.rule):
        if variable.index is not None:
            fixed[variable] = _element(occurrence, setting.source, variable)
        elif variable not in groups.setdefault(variable.iterator, []):
            groups[variable.iterator].append(variable)
    columns: list[list[dict[Variable, _Item]]] = []
    # iterator 0 first, then in the order of the attributes, as libvirt counts
    for iterator in sorted(groups, key=lambda number: number != 0):
        lists = [_list(occurrence, variable) for variable in groups[iterator]]
        if len({len(values) for values in lists}) > 1:
            named = ", ".join(f"${v.name} has {len(values)}" for v, values in zip(groups[iterator], lists))
            message = f"lists that advance together differ in length: {named}; use $NAME[@1] for independent ones"
            raise UnboundVariable(message, occurrence.rule.source)
        rows = list(dict.fromkeys(zip(*lists)))
        columns.append([dict(zip(groups[iterator], row)) for row in rows])
    total = 1
    for column in columns:
        total *= len(column)
    if total > MAX_COMBINATIONS:
        message = (
            f"its list variables make {total} rules of one, more than {MAX_COMBINATIONS}; for addresses use an ipset"
        )
        raise UnboundVariable(message, occurrence.rule.source)
    for row in itertools.product(*reversed(columns)):
        values = dict(fixed)
        for part in row:
            values.update(part)
        yield values


def _list(occurrence: RuleInstance, variable: Variable) -> tuple[_Item, ...]:
    return occurrence.parameters[variable.name]


def _element(occurrence: RuleInstance, source: Source, variable: Variable) -> _Item:
    assert variable.index is not None
    values = occurrence.parameters[variable.name]
    if isinstance(values[0], Learned):
        message = f"{variable}: ${variable.name} is learned, and has no elements to choose from; give it values"
        raise UnboundVariable(message, source)
    if variable.index >= len(values):
        last = f"${variable.name}[{len(values) - 1}]"
        message = f"{variable} is beyond the end of the list, which has {len(values)} values; the last is {last}"
        raise UnboundVariable(message, source)
    return values[variable.index]
