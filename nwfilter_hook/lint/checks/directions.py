"""
Rules that mean something else on the way that wasn't thought of.
"""

from __future__ import annotations

from collections.abc import Iterator

from ...base.errors import Source
from ...filters.bound import BoundRule, Condition
from ...filters.model import Action, Direction, Prefix, Variable
from ...filters.protocols import ELEMENTS
from ...ruleset.cover import disjoint
from ...ruleset.fields import Field
from ...ruleset.model import Equals, Masked, Match, Stage
from ...ruleset.regions import NOTHING
from ..answers import answers
from ..findings import Check, Finding
from ..tree import Tree, layer_of, meaning_of

_OWN = ("IP", "IPV6", "LINK_LOCAL", "MAC")


def _is_group(type_name: str, address: int) -> bool:
    """Whether the address is that of several hosts, or of all."""
    if type_name == "MAC_ADDR":
        return bool(address >> 40 & 1)
    return (type_name == "IP_ADDR" and address >= 0xE0000000) or (type_name == "IPV6_ADDR" and address >> 120 == 0xFF)


def _counterpart(name: str) -> str:
    return name.replace("src", "dst", 1) if "src" in name else name.replace("dst", "src", 1)


def find_one_sided(tree: Tree) -> Iterator[Finding]:
    for definition, rule in tree.file_rules():
        if rule.direction is not Direction.INOUT or rule.element in (None, "stp"):
            continue
        for name, setting in rule.settings.items():
            attribute = ELEMENTS[rule.element or ""].attributes[name]
            if not ("src" in name or "dst" in name) or _counterpart(name) in rule.settings or attribute.part_of:
                continue
            value = setting.value
            if "src" in name and isinstance(value, Variable) and value.name in _OWN:
                message = (
                    f"{name}='{value}' under 'inout' asks for frames to the guest that come from its own address, and "
                    f"for what it sends to itself: write {_counterpart(name)}, or a rule each for 'in' and 'out'"
                )
                yield Finding("NWF120", message, definition.name, rule.source)
            elif "dst" in name and isinstance(value, int) and _is_group(attribute.type.name, value):
                message = (
                    f"{name} under 'inout' is the source of what the guest sends, and no frame comes from a group: "
                    "write a rule each for 'in' and 'out'"
                )
                yield Finding("NWF120", message, definition.name, rule.source)


def find_negated_lists(tree: Tree) -> Iterator[Finding]:
    """Of several rules that ask for "not this one" with the same verdict one always holds."""
    groups: dict[object, list[tuple[BoundRule, str, Condition]]] = {}
    for rule in tree.rules:
        negated = [(name, each) for name, each in rule.conditions.items() if each.negated]
        if len(negated) != 1:
            continue
        (name, condition) = negated[0]
        rest = meaning_of({other: each for other, each in rule.conditions.items() if other != name})
        key = (rule.filter, rule.action, rule.direction, rule.priority, rule.statematch, rule.element, rest, name)
        groups.setdefault(key, []).append((rule, name, condition))
    told = set()
    for members in groups.values():
        for number, (rule, name, condition) in enumerate(members):
            other = next((each for each in members[:number] if _apart(each[2], condition)), None)
            if other is not None and rule.source not in told:
                told.add(rule.source)
                where = "each value of the list makes a rule of its own" if other[0].source == rule.source else ""
                where = where or f"the rule at {other[0].source} excepts another"
                message = (
                    f"this {rule.action.value} of all but one {name} holds for every frame, as {where}: what one "
                    "excepts the other hits"
                )
                wins = other[0].source if other[0].source != rule.source else None
                yield Finding("NWF121", message, rule.filter, rule.source, wins, rule.filter if wins else "")


def _apart(one: Condition, other: Condition) -> bool:
    first, second = _match(one), _match(other)
    return first is not None and second is not None and disjoint([first], [second])


def _match(condition: Condition) -> Match | None:
    field, value, mask = condition.attribute.field, condition.value, condition.mask
    if field is None or condition.end is not None:
        return None
    if isinstance(value, Prefix):
        return Match(field, Masked(value.mask, value.address))
    if isinstance(value, int) and isinstance(mask, int):
        return Match(field, Masked(mask, value & mask))
    return Match(field, Equals(value)) if isinstance(value, int) else None


def find_mirrored_drops(tree: Tree) -> Iterator[Finding]:
    """A drop of one way that stops the other way, too."""
    for source, rule in tree.rule_at.items():
        if layer_of(rule) != 3 or rule.action not in (Action.DROP, Action.REJECT) or rule.direction is Direction.INOUT:
            continue
        if "state" in rule.conditions and rule.statematch:
            continue
        fields = {each.attribute.field for each in rule.conditions.values()}
        if Field.DST_PORT in fields and Field.SRC_PORT not in fields:
            continue  # what it stops on the way back are answers to what it stops on its own
        stage = Stage.TO_L3 if rule.direction is Direction.OUT else Stage.FROM_L3
        mirrored = [each.rule for each in tree.decisions.every if each.stage is stage and each.rule.source == source]
        if not mirrored or tree.decisions.passing_without(stage, mirrored) == tree.decisions.passing(stage):
            continue
        what = "comes to the guest" if rule.direction is Direction.OUT else "the guest sends"
        message = (
            f"this {rule.action.value} of direction '{rule.direction.value}' also stops what {what} the other way "
            "round, answers and new connections: with state='NEW' it stops new connections of its direction only"
        )
        yield Finding("NWF122", message, rule.filter, source)


def find_unanswered(tree: Tree) -> Iterator[Finding]:
    regions = tree.decisions.regions
    missing: dict[Source, list[tuple[bool, bool]]] = {}
    for rule in tree.rules:
        decisions = tree.by_rule.get(rule.source, ())
        if not any(each.decides != NOTHING for each in decisions):
            continue
        for answer in answers(rule):
            passing = regions.both(regions.of(answer.matches), tree.decisions.passing_way(answer.way))
            missing.setdefault(rule.source, []).append((passing == NOTHING, answer.onward))
    for source, found in missing.items():
        backs = [blocked for blocked, onward in found if not onward]
        onwards = [blocked for blocked, onward in found if onward]
        rule = tree.rule_at[source]
        if backs and all(backs):
            what = "the answer to what it lets pass is dropped"
        elif onwards and all(onwards):
            what = "of what it lets pass only the first packet passes: add ESTABLISHED to its state"
        else:
            continue
        yield Finding("NWF123", f"this accept leads nowhere: {what}", rule.filter, source)


def find_quiet_rejects(tree: Tree) -> Iterator[Finding]:
    for definition, rule in tree.file_rules():
        if rule.action is not Action.REJECT:
            continue
        layer = 2 if rule.element is None else ELEMENTS[rule.element].layer
        if layer == 2:
            message = "this reject only drops: at layer 2 nobody is told; <tcp>, <udp>, <all> … can reject"
        elif rule.direction is Direction.IN:
            message = "this reject only drops: the sender is told nothing of what is on its way to a guest"
        else:
            continue
        yield Finding("NWF124", message, definition.name, rule.source)


CHECKS = (
    Check(
        "NWF120",
        "an address on one side of an inout rule that fits neither way",
        "Under direction 'inout' a rule is compared as it is with what comes to the guest, and with source and "
        "destination exchanged with what the guest sends. So srcipaddr is the other end's address on both ways, and "
        "dstipaddr the guest's. $IP or $MAC as the source, or a group as the destination, match on neither way as "
        "meant.",
        find_one_sided,
    ),
    Check(
        "NWF121",
        "a negated list, which always holds",
        "A list makes one rule of each value: not A, or not B. Each frame that isn't from A is hit by the first, and "
        "what is from A by the second. Write a rule that returns for each of the list (match='yes'), and a drop behind "
        "it, in a chain of its own; no-ip-spoofing is made so.",
        find_negated_lists,
    ),
    Check(
        "NWF122",
        "a drop of one way that hits the other way, too",
        "At layer 3 a drop of direction 'in' or 'out' without state also drops packets of the other way, with source "
        "and destination exchanged (as libvirt does): a drop of <all/> 'in' stops what the guest sends. With "
        "state='NEW' a rule stops new connections of its own direction only.",
        find_mirrored_drops,
    ),
    Check(
        "NWF123",
        "a stateful accept without a way for the answers",
        "A rule with state='…' or with an ICMP type has no automatic way back, and in this filter nothing else lets "
        "the answers pass (or the rest of what it begins). Leave state away, or accept state='ESTABLISHED' the other "
        "way; for type 8 (echo request) accept type 0 the other way.",
        find_unanswered,
    ),
    Check(
        "NWF124",
        "a reject that can only drop",
        "Only the guest itself can be told that something was rejected: at layer 3, of what it sends. Everywhere else "
        "a reject is a drop. Write drop where that is meant.",
        find_quiet_rejects,
    ),
)
