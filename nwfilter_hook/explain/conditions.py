"""
Conditions and values in words, as nft and tcpdump have them.

In:  a `Match`, a number that a frame has in a field.
Out: "ip saddr 192.0.2.7", "192.0.2.9".
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping

from ..base.addresses import format_mac
from ..base.dataclass import dataclass
from ..packets import names
from ..ruleset.evaluate import Context, SetElement
from ..ruleset.fields import Field, Header, ValueType
from ..ruleset.frame import Frame
from ..ruleset.model import (
    AnyState,
    Between,
    CountAbove,
    Equals,
    InSet,
    Masked,
    Match,
    NamedSet,
    OneOf,
    Present,
    SameAs,
    SetPurpose,
    Uncounted,
)

_NAMES = {
    Field.ETHER_SRC: "ether saddr",
    Field.ETHER_DST: "ether daddr",
    Field.IP_SRC: "ip saddr",
    Field.IP_DST: "ip daddr",
    Field.IP6_SRC: "ip6 saddr",
    Field.IP6_DST: "ip6 daddr",
    Field.ARP_OPCODE: "arp operation",
    Field.ARP_SRC_MAC: "arp saddr ether",
    Field.ARP_SRC_IP: "arp saddr ip",
    Field.ARP_DST_MAC: "arp daddr ether",
    Field.ARP_DST_IP: "arp daddr ip",
    Field.L4_PROTOCOL: "protocol",
    Field.SRC_PORT: "sport",
    Field.DST_PORT: "dport",
    Field.PACKET_TYPE: "packet",
}
"""What nft calls them, where it isn't the field's own name with blanks."""

_TYPES = (Field.ETHER_TYPE, Field.VLAN_TYPE, Field.ARP_PTYPE)
_PROTOCOLS = (Field.IP_PROTOCOL, Field.L4_PROTOCOL, Field.IP6_NEXT_HEADER)
_NUMBERED: Mapping[Field, Mapping[str, int]] = {
    Field.ARP_OPCODE: {**names.ARP_OPCODES, "request-reverse": 3, "reply-reverse": 4},
    Field.ICMP_TYPE: names.ICMP_TYPES,
    Field.ICMPV6_TYPE: names.ICMPV6_TYPES,
    Field.DHCP6_TYPE: names.DHCPV6_TYPES,
}
_WORDS: Mapping[Field, Mapping[int, str]] = {
    Field.PACKET_TYPE: {0: "sent or routed by the host", 3: "bridged"},
    Field.CT_DIRECTION: {0: "original", 1: "reply"},
}
_HEADERS = {
    Header.TAG: "no VLAN tag",
    Header.ARP: "no ARP",
    Header.IPV4: "no IPv4",
    Header.IPV6: "no IPv6",
    Header.TRANSPORT: "no ports",
    Header.TCP: "no TCP header",
    Header.UDP: "no UDP header",
    Header.ICMP: "no ICMP header",
    Header.ICMPV6: "no ICMPv6 header",
}
_LONGEST = 8
"""Of a set's elements, how many are told."""


@dataclass(frozen=True)
class Condition:
    """
    A condition that didn't hold.

    Attributes:
        text: "ip saddr 192.0.2.7".
        value: what the frame has: "192.0.2.9".
    """

    text: str
    value: str

    @property
    def line(self) -> str:
        """For people."""
        return f"{self.text}: the frame has {self.value}"


def unmet(match: Match, value: int | None, frame: Frame, context: Context) -> Condition:
    """The condition `match`, which doesn't hold of `frame`, where its field is `value`."""
    return Condition(text_of(match, context), _found(match, value, frame, context))


def name_of(field: Field) -> str:
    """What the field is called."""
    return _NAMES.get(field) or field.label.replace("-", " ")


def value_text(field: Field, value: int) -> str:
    """A number in this field as people write it."""
    if field.kind in (ValueType.MAC, ValueType.IPV4, ValueType.IPV6):
        return _address(field.kind, value)
    if field in _TYPES:
        word = names.name_of(names.ETHER_TYPES, value)
        return word if word != str(value) else f"{value:#06x}"
    if field in _PROTOCOLS:
        return names.name_of(names.PROTOCOLS, value)
    if field is Field.TCP_FLAGS:
        return names.flags_text(value)
    if field in _WORDS:
        return _WORDS[field].get(value, str(value))
    word = names.name_of(_NUMBERED.get(field, {}), value)
    if word != str(value):
        return f"{value} ({word})"
    return f"{value:#0{field.bits // 4 + 2}x}" if field.bits > 16 else str(value)


def text_of(match: Match, context: Context) -> str:
    """The condition in words."""
    field, test = match.field, match.test
    name = name_of(field)
    sign = "!= " if match.negated else ""
    if isinstance(test, Equals):
        return f"{name} {sign}{value_text(field, test.value)}"
    if isinstance(test, Masked):
        return _masked(field, test, match.negated)
    if isinstance(test, Between):
        return f"{name} {sign}{value_text(field, test.low)}-{value_text(field, test.high)}"
    if isinstance(test, Present):
        return f"{'no ' if match.negated else ''}tcp option {test.kind}"
    if isinstance(test, SameAs):
        return f"{name} {'other than' if match.negated else 'the same as'} {name_of(test.other)}"
    if isinstance(test, AnyState):
        return f"ct state {sign}{','.join(sorted(test.states))}"
    if isinstance(test, CountAbove):
        return f"{'not ' if match.negated else ''}more than {test.limit} connections of {name}"
    if isinstance(test, Uncounted):
        return f"no room to count connections of {name}"
    if isinstance(test, OneOf):
        return f"{name} {sign}{', '.join(value_text(field, value) for value in test.values)}"
    return _in_set(match, test, context)


def _masked(field: Field, test: Masked, negated: bool) -> str:
    bits = field.bits
    length = bin(test.mask).count("1")
    is_prefix = test.mask == (1 << bits) - (1 << bits - length)
    if field.kind in (ValueType.IPV4, ValueType.IPV6) and is_prefix:
        return f"{name_of(field)} {'!= ' if negated else ''}{value_text(field, test.value)}/{length}"
    mask = value_text(field, test.mask) if field.kind is not ValueType.NUMBER else f"{test.mask:#x}"
    value = value_text(field, test.value)
    if field is Field.TCP_FLAGS:
        mask = names.flags_text(test.mask)
    elif field.kind is ValueType.NUMBER:
        value = f"{test.value:#x}"
    return f"{name_of(field)} & {mask} {'!=' if negated else '=='} {value}"


def _in_set(match: Match, test: InSet, context: Context) -> str:
    named = test.set
    what = " . ".join([name_of(match.field), *map(name_of, test.fields)])
    elements = context.sets.get(named)
    known = [*_elements(named, elements)] if elements is not None else [_element(named, one) for one in _initial(named)]
    shown = ", ".join(sorted(known)[:_LONGEST]) + (
        f" and {len(known) - _LONGEST} more" if len(known) > _LONGEST else ""
    )
    return f"{what} {'not ' if match.negated else ''}in {_set_name(named)} ({shown or 'empty'})"


def _set_name(named: NamedSet) -> str:
    if named.purpose is SetPurpose.IPSET:
        return f"set {named.name}"
    return _SET_NAMES.get(named.purpose) or str(named.purpose.value)


_SET_NAMES = {
    SetPurpose.LEARNED: "the learned addresses",
    SetPurpose.LEASED: "the taps that have a lease",
    SetPurpose.MACS: "the learned MACs",
    SetPurpose.SEEN: "what was seen within the last minute",
}


def _initial(named: NamedSet) -> Iterable[SetElement]:
    return ((range(value, value + 1),) for value in named.initial)


def _elements(named: NamedSet, elements: Iterable[SetElement]) -> Iterable[str]:
    return (_element(named, each) for each in elements)


def _element(named: NamedSet, element: SetElement) -> str:
    return ",".join(_span(named.kind, span) for span in element)


def _span(kind: ValueType, span: range) -> str:
    if kind not in (ValueType.MAC, ValueType.IPV4, ValueType.IPV6):
        return "this tap" if kind is ValueType.INTERFACE else str(span[0])
    first, last = (_address(kind, end) for end in (span[0], span[-1]))
    return first if first == last else f"{first}-{last}"


def _address(kind: ValueType, value: int) -> str:
    if kind is ValueType.MAC:
        return format_mac(value)
    return str(ipaddress.IPv4Address(value) if kind is ValueType.IPV4 else ipaddress.IPv6Address(value))


def _found(match: Match, value: int | None, frame: Frame, context: Context) -> str:
    """What the frame has in place of what is wanted."""
    field, test = match.field, match.test
    if isinstance(test, AnyState):
        return context.state.value
    if isinstance(test, Present):
        options = frame.tcp_options()
        if options is None:
            return "no TCP header"
        return f"the options {', '.join(map(str, sorted(options)))}" if options else "no option"
    if isinstance(test, CountAbove):
        return f"{context.counts.get(test.set, 1)}"
    if value is None:
        return "no connection" if field is Field.CT_DIRECTION else _HEADERS.get(field.header, "none")
    in_bits = isinstance(test, Masked) and field.kind is ValueType.NUMBER and field is not Field.TCP_FLAGS
    found = f"{value:#x}" if in_bits else value_text(field, value)
    others = test.fields if isinstance(test, InSet) else (test.other,) if isinstance(test, SameAs) else ()
    for other in others:
        known = frame.value(other)
        found += f" and {'none' if known is None else value_text(other, known)}"
    return found
