"""
Turn one bound rule's attributes into matches on packet fields.

In:  a `BoundRule`.
Out: alternatives. Each is a tuple of matches that must all hold; the rule applies if one alternative does. There is
     one alternative as a rule; a negated pair (NOT (type AND code)) makes two; a condition that can't hold makes none.

The packet is taken as travelling as the rule is written; `reverse` turns matches round for the other direction.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from ..base.dataclass import replace
from ..base.errors import UnsupportedMatch
from ..filters.bound import BoundRule, Condition
from ..filters.model import Learned, Prefix, SetFlags, TcpFlags
from ..filters.protocols import ELEMENTS, IMPLIED_PROTOCOLS, Element
from ..ruleset.fields import TRANSPORT_FIELDS, Field, max_dimensions
from ..ruleset.model import (
    Between,
    CountAbove,
    Equals,
    InSet,
    Masked,
    Match,
    NamedSet,
    Present,
    SameAs,
    SetPurpose,
    Test,
)
from .implied import ALWAYS, NEVER, Alternatives, Matches, implied, product
from .macs import mac_alternatives

_PACKET_HOST = 0
_ANY_TYPE = 255
"""The kernel's icmp matcher takes it for any type and code (its icmp_type_code_match)."""
FROM_HOST = Match(Field.PACKET_TYPE, Equals(_PACKET_HOST))
"""On its way to the guest: sent or routed by the host, not bridged."""
BRIDGED = Match(Field.PACKET_TYPE, Equals(_PACKET_HOST), negated=True)
# LLC 42 42 03, protocol identifier 0, version 0: all that the kernel's ebt_stp takes for a BPDU
_BPDU_HEADER = 0x424203000000
_CONFIGURATION_BPDU = 0
_ORDER = {field: position for position, field in enumerate(Field)}
"""Matches are tested in the order of the table of fields."""
_REVERSED = {
    Field.ETHER_SRC: Field.ETHER_DST,
    Field.IP_SRC: Field.IP_DST,
    Field.IP6_SRC: Field.IP6_DST,
    Field.SRC_PORT: Field.DST_PORT,
    Field.ARP_SRC_MAC: Field.ARP_DST_MAC,
    Field.ARP_SRC_IP: Field.ARP_DST_IP,
}
_REVERSED.update({destination: source for source, destination in _REVERSED.items()})

_MACS = (Field.ETHER_SRC, Field.ETHER_DST)


def rule_alternatives(rule: BoundRule) -> Alternatives:
    """
    What `rule`'s protocol element asks of a frame, sorted link layer first.

    `state` and `connlimit-above` are not in here: what they mean depends on the direction (compiler).

    Raises:
        UnsupportedMatch: a port range is reversed, or a learned address begins a range.
    """
    if rule.element is None:
        return ALWAYS
    element = ELEMENTS[rule.element]
    groups = [implied(rule, element)]
    is_stp = element.name == "stp"
    bpdu: list[Alternatives] = []
    for name, conditions in _joined(rule).items():
        if name in ("srcipfrom", "dstipfrom") and name[:5] + "addr" in rule.conditions:
            continue  # the single address beats the range of its side
        group = _condition(rule, conditions[0]) if len(conditions) == 1 else _all_of(rule, conditions)
        (bpdu if is_stp and conditions[0].attribute.field not in _MACS else groups).append(group)
    if bpdu:
        groups.append(_bpdu(rule, bpdu))
    groups += _special(rule, element)
    return tuple(
        alternative
        for parts in itertools.product(*groups)
        for alternative in (_sorted(tuple(itertools.chain.from_iterable(parts))),)
        if not _contradictory(alternative)
    )


def reversed_alternatives(rule: BoundRule) -> Alternatives:
    """
    What a layer 3 rule asks of the packets that travel the other way than it is written.

    A MAC can't be compared there: it is left out, and if it was the only condition there is no rule. What counts is
    what the rule says, not what it comes to: an address with a mask of 0 is a condition, a comment, a state, a set or
    a limit isn't.

    Raises:
        UnsupportedMatch: as rule_alternatives().
    """
    assert rule.element is not None
    conditions = {name for name, condition in rule.conditions.items() if condition.attribute.field is not None}
    macs = {name for name in conditions if rule.conditions[name].attribute.field in _MACS}
    if macs == conditions != set():
        return NEVER
    rest = {name: condition for name, condition in rule.conditions.items() if name not in macs}
    return tuple(reverse(matches) for matches in rule_alternatives(replace(rule, conditions=rest)))


def reverse(matches: Matches) -> Matches:
    """`matches` for a packet that travels the other way: sources are compared with destinations and vice versa."""
    return tuple(
        Match(_REVERSED.get(match.field, match.field), _reverse_test(match.test), match.negated) for match in matches
    )


def intersect(matches: Matches, conditions: Matches) -> Matches | None:
    """`matches` and `conditions` in one rule; None if no frame passes both."""
    both = _sorted(matches + conditions)
    exact = {(match.field, match.test.value) for match in both if isinstance(match.test, Equals) and not match.negated}
    two_values = len({field for field, _ in exact}) < len(exact)
    return None if two_values or _contradictory(both) else both


def _reverse_test(test: Test) -> Test:
    if isinstance(test, SameAs):
        return SameAs(_REVERSED.get(test.other, test.other))
    if isinstance(test, InSet):
        return InSet(test.set, tuple(_REVERSED.get(field, field) for field in test.fields))
    return test


def _sorted(matches: Matches) -> Matches:
    # what a named set counts comes last: it must see only packets that pass everything else
    return tuple(
        dict.fromkeys(sorted(matches, key=lambda match: (isinstance(match.test, CountAbove), _ORDER[match.field])))
    )


def _contradictory(matches: Matches) -> bool:
    return any(Match(match.field, match.test, not match.negated) in matches for match in matches)


def _one(field: Field, test: Test, negated: bool = False) -> Alternatives:
    return ((Match(field, test, negated),),)


def _joined(rule: BoundRule) -> dict[str, list[Condition]]:
    """The conditions on fields, those together that are one."""
    joined: dict[str, list[Condition]] = {}
    for name, condition in rule.conditions.items():
        if condition.attribute.field is not None:
            joined.setdefault(condition.attribute.joined_to or name, []).append(condition)
    return joined


def _all_of(rule: BoundRule, conditions: Sequence[Condition]) -> Alternatives:
    """All hold; or, negated, not all of them do."""
    if _is_any_type(conditions[0]):
        return _condition(rule, conditions[0])
    parts = [_condition(rule, replace(condition, negated=False)) for condition in conditions]
    matches = [alternatives[0][0] for alternatives in parts if alternatives != ALWAYS]
    if not conditions[0].negated:
        return (tuple(matches),)
    return tuple(
        (*matches[:position], Match(match.field, match.test, negated=True)) for position, match in enumerate(matches)
    )


def _condition(rule: BoundRule, condition: Condition) -> Alternatives:
    attribute, value, negated = condition.attribute, condition.value, condition.negated
    field = attribute.field
    assert field is not None
    if any(condition.learned):
        return _learned(rule, condition, field)
    if isinstance(value, TcpFlags):
        if value.flags & ~value.mask:
            return ALWAYS if negated else NEVER
        return _one(field, Masked(value.mask, value.flags), negated)
    if isinstance(value, Prefix):
        return _masked(field, value.address, value.mask, negated)
    assert isinstance(value, int)
    if field is Field.TCP_OPTION:
        return _one(field, Present(value), negated)
    if isinstance(condition.mask, int):
        return _masked(field, value, condition.mask, negated)
    if isinstance(condition.end, int) and condition.end != value:
        return _range(rule, condition, field, value, condition.end)
    if _is_any_type(condition):
        return NEVER if negated else ALWAYS
    return _one(field, Equals(value), negated)


def _is_any_type(condition: Condition) -> bool:
    """Whether it holds for every type, and so for every code."""
    return condition.attribute.field is Field.ICMP_TYPE and condition.value == _ANY_TYPE and condition.end is None


def _range(rule: BoundRule, condition: Condition, field: Field, low: int, high: int) -> Alternatives:
    attribute = condition.attribute
    if high < low and field in TRANSPORT_FIELDS:
        raise UnsupportedMatch(f"{attribute.name}={low} is above {attribute.end}={high}; exchange them", rule.source)
    if high < low:
        return ALWAYS if condition.negated else NEVER
    if attribute.begins is not None and (low, high) == (0, (1 << field.bits) - 1):
        return NEVER if condition.negated else ALWAYS
    return _one(field, Between(low, high), condition.negated)


def _masked(field: Field, value: int, mask: int, negated: bool) -> Alternatives:
    if mask == 0:
        return NEVER if negated else ALWAYS
    full = (1 << field.bits) - 1
    test: Test = Equals(value) if mask == full else Masked(mask, value & mask)
    return _one(field, test, negated)


def _learned(rule: BoundRule, condition: Condition, field: Field) -> Alternatives:
    value, mask, negated = condition.value, condition.mask, condition.negated
    if isinstance(value, Learned) and value.variable == "MAC" and (mask is None or isinstance(mask, int)):
        return mac_alternatives(rule, field, value, mask, negated)
    if not isinstance(value, Learned) or not (mask is None or isinstance(mask, int)) or condition.end is not None:
        variable = next(condition.learned).variable
        message = f"{condition.attribute.name}: a range or a mask can't be learned; give parameter {variable}"
        raise UnsupportedMatch(message, rule.source)
    if mask == 0:
        return NEVER if negated else ALWAYS
    stored = mask if mask != (1 << field.bits) - 1 else None
    learned = InSet(NamedSet(SetPurpose.LEARNED, "", field.kind, mask=stored))
    matches = tuple(
        Match(field, test, negated) for test in (learned, *(_test_of(field, each, stored) for each in value.fixed))
    )
    return (matches,) if negated else tuple((match,) for match in matches)


def _test_of(field: Field, value: int | Prefix, mask: int | None) -> Test:
    """The test for an address that a guest has besides learned ones; under a mask, as they are."""
    if isinstance(value, Prefix):
        return Masked(value.mask, value.address)
    return Equals(value) if mask is None else Masked(mask, value & mask)


def _special(rule: BoundRule, element: Element) -> list[Alternatives]:
    """Conditions that no single field expresses."""
    groups: list[Alternatives] = []
    gratuitous = rule.conditions.get("gratuitous")
    if gratuitous and gratuitous.value:
        groups.append(_one(Field.ARP_SRC_IP, SameAs(Field.ARP_DST_IP), gratuitous.negated))
    protocol = rule.conditions.get("protocol")
    for name in (name for name in IMPLIED_PROTOCOLS if name in rule.conditions and element.layer == 2):
        word, number = IMPLIED_PROTOCOLS[name]
        if protocol and (protocol.value, protocol.negated) != (number, False):
            message = f"{name} on <{element.name}> goes with protocol='{word}' only; write that, or no protocol"
            raise UnsupportedMatch(message, rule.source)
    if "ipset" in rule.conditions:
        groups.append(_ipset(rule, element))
    return groups


def _ipset(rule: BoundRule, element: Element) -> Alternatives:
    name, flags = rule.value("ipset"), rule.value("ipsetflags") or SetFlags((True,))
    assert isinstance(name, str)
    assert isinstance(flags, SetFlags)
    source, destination = (Field.IP6_SRC, Field.IP6_DST) if element.is_ipv6 else (Field.IP_SRC, Field.IP_DST)
    fields = [source if from_source else destination for from_source in flags.source]
    if len(fields) > max_dimensions(source.kind):
        limit = max_dimensions(source.kind)
        message = f"ipsetflags: {len(fields)} addresses are more than the {limit} that a key of a set can hold"
        raise UnsupportedMatch(message, rule.source)
    named = NamedSet(SetPurpose.IPSET, name, source.kind, dimensions=len(fields))
    return _one(fields[0], InSet(named, tuple(fields[1:])))


def _bpdu(rule: BoundRule, groups: list[Alternatives]) -> Alternatives:
    """
    BPDU fields: `type` holds for every BPDU, the others only bind configuration BPDUs; another BPDU meets them.

    ebt_stp means to do so, but reads every field one octet early (nwfilter-differences(7), 15).
    """
    header = Match(Field.STP_HEADER, Equals(_BPDU_HEADER))
    is_configuration = Match(Field.STP_TYPE, Equals(_CONFIGURATION_BPDU))
    types = [group for group in groups if group and group[0] and group[0][0].field is Field.STP_TYPE]
    fields = [group for group in groups if group not in types]
    of_type = product([((header,),), *types])
    if not fields:
        return of_type
    other = ((Match(Field.STP_TYPE, Equals(_CONFIGURATION_BPDU), True),),)
    return product([of_type, other]) + product([of_type, ((is_configuration,),), *fields])
