"""
Turn one bound rule's attributes into matches on packet fields.

In:  a `BoundRule`.
Out: alternatives. Each is a tuple of matches that must all hold; the rule applies if one alternative does. There is
     one alternative as a rule; a negated pair (NOT (type AND code)) makes two; a condition that can't hold makes none.

The packet is taken as travelling as the rule is written; `exchange` turns matches round for the other direction.
"""

from __future__ import annotations

import itertools

from ..base.dataclass import replace
from ..base.errors import UnsupportedMatch
from ..filters.model import BoundRule, Learned, Prefix, SetFlags, TcpFlags
from ..filters.protocols import ELEMENTS, IMPLIED_PROTOCOLS, Attribute, Element, icmp_fields
from ..ruleset.fields import Field, max_dimensions
from ..ruleset.model import Between, CountAbove, Equals, InSet, Masked, Match, NamedSet, Present, Purpose, SameAs, Test
from ..ruleset.numbers import Protocol
from .implied import ALWAYS, NEVER, Alternatives, Matches, implied, product
from .macs import mac_alternatives

_PACKET_HOST = 0
FROM_HOST = Match(Field.PACKET_TYPE, Equals(_PACKET_HOST))
"""On its way to the guest: sent or routed by the host, not bridged."""
BRIDGED = Match(Field.PACKET_TYPE, Equals(_PACKET_HOST), negated=True)
# LLC 42 42 03, protocol identifier 0, version 0: all that the kernel's ebt_stp takes for a BPDU
_BPDU_HEADER = 0x424203000000
_CONFIGURATION_BPDU = 0
_ORDER = {field: position for position, field in enumerate(Field)}
"""Matches are tested in the order of the table of fields."""
_EXCHANGED = {
    Field.ETHER_SRC: Field.ETHER_DST,
    Field.IP_SRC: Field.IP_DST,
    Field.IP6_SRC: Field.IP6_DST,
    Field.SRC_PORT: Field.DST_PORT,
    Field.ARP_SRC_MAC: Field.ARP_DST_MAC,
    Field.ARP_SRC_IP: Field.ARP_DST_IP,
}
_EXCHANGED.update({destination: source for source, destination in _EXCHANGED.items()})

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
    for attribute in element.attributes.values():
        if attribute.part_of or attribute.field is None or attribute.name not in rule.values:
            continue
        if attribute.name in ("srcipfrom", "dstipfrom") and attribute.name[:5] + "addr" in rule.values:
            continue  # the single address beats the range of its side
        group = _attribute(rule, attribute)
        (bpdu if is_stp and attribute.field not in _MACS else groups).append(group)
    if bpdu:
        groups.append(_bpdu(rule, bpdu))
    groups += _special(rule, element)
    return tuple(
        alternative
        for parts in itertools.product(*groups)
        for alternative in (_sorted(tuple(itertools.chain.from_iterable(parts))),)
        if not _contradictory(alternative)
    )


def turned_alternatives(rule: BoundRule) -> Alternatives:
    """
    What a layer 3 rule asks of the packets that travel the other way than it is written.

    A MAC can't be compared there: it is left out, and if it was the only condition there is no rule. What counts is
    what the rule says, not what it comes to: an address with a mask of 0 is a condition, a comment, a state, a set or
    a limit isn't.

    Raises:
        UnsupportedMatch: as rule_alternatives().
    """
    assert rule.element is not None
    given = [ELEMENTS[rule.element].attributes[name] for name in rule.values]
    macs = {attribute.name for attribute in given if attribute.field in _MACS}
    conditions = {attribute.name for attribute in given if attribute.field is not None or attribute.name == "type"}
    if macs == conditions != set():
        return NEVER
    rest = {name: value for name, value in rule.values.items() if name not in macs}
    return tuple(exchange(matches) for matches in rule_alternatives(replace(rule, values=rest)))


def exchange(matches: Matches) -> Matches:
    """`matches` for a packet that travels the other way: sources are compared with destinations and vice versa."""
    return tuple(
        Match(_EXCHANGED.get(match.field, match.field), _exchange_test(match.test), match.negated) for match in matches
    )


def narrow(matches: Matches, conditions: Matches) -> Matches | None:
    """`matches` and `conditions` in one rule; None if no frame passes both."""
    both = _sorted(matches + conditions)
    exact = {(match.field, match.test.value) for match in both if isinstance(match.test, Equals) and not match.negated}
    two_values = len({field for field, _ in exact}) < len(exact)
    return None if two_values or _contradictory(both) else both


def _exchange_test(test: Test) -> Test:
    if isinstance(test, SameAs):
        return SameAs(_EXCHANGED.get(test.other, test.other))
    if isinstance(test, InSet):
        return InSet(test.set, tuple(_EXCHANGED.get(field, field) for field in test.fields))
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


def _attribute(rule: BoundRule, attribute: Attribute) -> Alternatives:
    field = attribute.field
    assert field is not None
    value, negated = rule.values[attribute.name]
    mask = rule.values.get(attribute.mask or "", (None, False))[0]
    end = rule.values.get(attribute.end or "", (None, False))[0]
    if isinstance(value, Learned) or isinstance(end, Learned) or isinstance(mask, Learned):
        return _learned(rule, attribute, field, value, mask, end, negated)
    if isinstance(value, TcpFlags):
        if value.flags & ~value.mask:
            return ALWAYS if negated else NEVER
        return _one(field, Masked(value.mask, value.flags), negated)
    if isinstance(value, Prefix):
        return _masked(field, value.address, value.mask, negated)
    assert isinstance(value, int)
    if field is Field.TCP_OPTION:
        return _one(field, Present(value), negated)
    if isinstance(mask, int):
        return _masked(field, value, mask, negated)
    if isinstance(end, int) and end != value:
        if end < value and field in (Field.SRC_PORT, Field.DST_PORT):
            raise UnsupportedMatch(
                f"{attribute.name}={value} is above {attribute.end}={end}; exchange them", rule.source
            )
        if end < value:
            return ALWAYS if negated else NEVER
        return _one(field, Between(value, end), negated)
    return _one(field, Equals(value), negated)


def _masked(field: Field, value: int, mask: int, negated: bool) -> Alternatives:
    if mask == 0:
        return NEVER if negated else ALWAYS
    full = (1 << field.bits) - 1
    test: Test = Equals(value) if mask == full else Masked(mask, value & mask)
    return _one(field, test, negated)


def _learned(
    rule: BoundRule, attribute: Attribute, field: Field, value: object, mask: object, end: object, negated: bool
) -> Alternatives:
    if isinstance(value, Learned) and value.variable == "MAC" and (mask is None or isinstance(mask, int)):
        return mac_alternatives(rule, field, value, mask, negated)
    if not isinstance(value, Learned) or not (mask is None or isinstance(mask, int)) or end is not None:
        variable = next(part.variable for part in (value, mask, end) if isinstance(part, Learned))
        message = f"{attribute.name}: a range or a mask can't be learned; give parameter {variable}"
        raise UnsupportedMatch(message, rule.source)
    if mask == 0:
        return NEVER if negated else ALWAYS
    stored = mask if mask != (1 << field.bits) - 1 else None
    learned = InSet(NamedSet(Purpose.LEARNED, "", field.kind, mask=stored))
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
    gratuitous, negated = rule.values.get("gratuitous", (False, False))
    if gratuitous:
        groups.append(_one(Field.ARP_SRC_IP, SameAs(Field.ARP_DST_IP), negated))
    for name in (name for name in IMPLIED_PROTOCOLS if name in rule.values and element.layer == 2):
        word, number = IMPLIED_PROTOCOLS[name]
        if "protocol" in element.attributes and rule.values.get("protocol", (number, False)) != (number, False):
            message = f"{name} on <{element.name}> goes with protocol='{word}' only; write that, or no protocol"
            raise UnsupportedMatch(message, rule.source)
    if element.name == "ipv6":
        groups += _icmpv6_ranges(rule)
    elif "type" in rule.values and element.name != "stp":
        groups.append(_icmp(rule, element))
    if "ipset" in rule.values:
        groups.append(_ipset(rule, element))
    return groups


def _icmp(rule: BoundRule, element: Element) -> Alternatives:
    """`type` and `code` have one sign in common: NOT (type AND code)."""
    type_field, code_field = icmp_fields(element)
    type_, negated = rule.values["type"]
    code = rule.values.get("code", (None, False))[0]
    assert isinstance(type_, int)
    if type_ == 255 and not element.is_ipv6:  # the kernel's icmp matcher takes 255 for any type and code
        return NEVER if negated else ALWAYS
    is_type = Match(type_field, Equals(type_))
    if code is None:
        return ((Match(type_field, Equals(type_), negated),),)
    assert isinstance(code, int)
    if not negated:
        return ((is_type, Match(code_field, Equals(code))),)
    return (Match(type_field, Equals(type_), True),), (is_type, Match(code_field, Equals(code), True))


def _icmpv6_ranges(rule: BoundRule) -> list[Alternatives]:
    """<ipv6>: type in its range AND code in its range, one condition with the sign of `type`."""
    if not {"type", "typeend", "code", "codeend"}.intersection(rule.values):
        return []
    negated = rule.values.get("type", (0, False))[1]
    tests = [
        Match(field, test)
        for name, field in (("type", Field.ICMPV6_TYPE), ("code", Field.ICMPV6_CODE))
        for test in _octet_range(rule, name)
    ]
    implied = _one(Field.L4_PROTOCOL, Equals(Protocol.ICMPV6))
    if not negated:
        return [implied, (tuple(tests),)]
    alternatives: list[Matches] = []
    for index, match in enumerate(tests):
        alternatives.append((*tests[:index], Match(match.field, match.test, True)))
    return [implied, tuple(alternatives)]


def _octet_range(rule: BoundRule, name: str) -> list[Test]:
    """The test for NAME and NAMEend; [] if they leave everything open."""
    start = _number(rule, name)
    end = _number(rule, name + "end")
    low = 0 if start is None else start
    high = end if end is not None else 255 if start is None else start
    if (low, high) == (0, 255):
        return []
    if high < low:
        raise UnsupportedMatch(f"{name}={low} is above {name}end={high}; exchange them", rule.source)
    return [Equals(low) if low == high else Between(low, high)]


def _number(rule: BoundRule, name: str) -> int | None:
    value = rule.values.get(name, (None, False))[0]
    assert value is None or isinstance(value, int)
    return value


def _ipset(rule: BoundRule, element: Element) -> Alternatives:
    name = rule.values["ipset"][0]
    flags = rule.values.get("ipsetflags", (SetFlags((True,)), False))[0]
    assert isinstance(name, str)
    assert isinstance(flags, SetFlags)
    source, destination = (Field.IP6_SRC, Field.IP6_DST) if element.is_ipv6 else (Field.IP_SRC, Field.IP_DST)
    fields = [source if from_source else destination for from_source in flags.source]
    if len(fields) > max_dimensions(source.kind):
        limit = max_dimensions(source.kind)
        message = f"ipsetflags: {len(fields)} addresses are more than the {limit} that a key of a set can hold"
        raise UnsupportedMatch(message, rule.source)
    named = NamedSet(Purpose.IPSET, name, source.kind, dimensions=len(fields))
    return _one(fields[0], InSet(named, tuple(fields[1:])))


def _bpdu(rule: BoundRule, groups: list[Alternatives]) -> Alternatives:
    """
    BPDU fields: `type` holds for every BPDU, the others only bind configuration BPDUs; another BPDU meets them.

    ebt_stp means to do so, but reads every field one octet early (README, difference 15).
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
