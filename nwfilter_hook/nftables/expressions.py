"""
One rule of a ruleset as nft statements. Syntax: nft(8).

In:  a `Ruleset` and one of its rules.
Out: statements without "add rule …" in front, with the comment that says where the rule comes from.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from ..base.addresses import format_mac
from ..base.dataclass import dataclass
from ..ruleset.fields import TRANSPORT_FIELDS, Field, Kind
from ..ruleset.model import (
    Between,
    CountAbove,
    Equals,
    InSet,
    Masked,
    Match,
    Present,
    Purpose,
    Rule,
    Ruleset,
    SameAs,
    Tree,
    Uncounted,
    Verdict,
)
from .names import chain_name
from .sets import NAMELESS, PLACES, interface_field, place, replace_newest, set_name, store

EQUAL_OCTETS = "equal-octets"
"""A set of all pairs of equal octets: nft can't compare two fields of a packet, but it can look up pairs."""

_ETHER_TYPES = {0x0800: "ip", 0x0806: "arp", 0x86DD: "ip6", 0x8100: "vlan"}
_PORT_HEADERS = {6: "tcp", 17: "udp", 33: "dccp", 132: "sctp"}
_PACKET_TYPES = {0: "host"}  # linux/if_packet.h
_RARP = 0x8035
_CT_STATES = ("new", "established", "related", "invalid", "untracked")

_SYMBOLIC = {
    Field.ETHER_SRC: "ether saddr",
    Field.ETHER_DST: "ether daddr",
    Field.ETHER_TYPE: "ether type",
    Field.VLAN_ID: "vlan id",
    Field.VLAN_TYPE: "vlan type",
    Field.ARP_HTYPE: "arp htype",
    Field.ARP_PTYPE: "arp ptype",
    Field.ARP_HLEN: "arp hlen",
    Field.ARP_PLEN: "arp plen",
    Field.ARP_OPCODE: "arp operation",
    Field.ARP_SRC_MAC: "arp saddr ether",
    Field.ARP_SRC_IP: "arp saddr ip",
    Field.ARP_DST_MAC: "arp daddr ether",
    Field.ARP_DST_IP: "arp daddr ip",
    Field.IP_SRC: "ip saddr",
    Field.IP_DST: "ip daddr",
    Field.IP_PROTOCOL: "ip protocol",
    Field.IP_DSCP: "ip dscp",
    Field.IP_FRAGMENT: "ip frag-off",
    Field.IP6_SRC: "ip6 saddr",
    Field.IP6_DST: "ip6 daddr",
    Field.IP6_DSCP: "ip6 dscp",
    Field.IP6_FRAGMENT: "frag frag-off",
    Field.L4_PROTOCOL: "meta l4proto",
    Field.TCP_FLAGS: "tcp flags",
    Field.TCP_OPTION: "tcp option",
    Field.ICMP_TYPE: "icmp type",
    Field.ICMP_CODE: "icmp code",
    Field.ICMPV6_TYPE: "icmpv6 type",
    Field.ICMPV6_CODE: "icmpv6 code",
    Field.IP6_NEXT_HEADER: "ip6 nexthdr",
    Field.IP6_LENGTH: "ip6 length",
    Field.PACKET_TYPE: "meta pkttype",
    Field.CT_STATE: "ct state",
    Field.CT_DIRECTION: "ct direction",
}
# base and bit offset, for headers that nft has no names for: RFC 826 behind the network header, IEEE 802.1D 9.3.1
# behind the Ethernet header
_ARP_OFFSETS = {
    Field.ARP_HTYPE: 0,
    Field.ARP_PTYPE: 16,
    Field.ARP_HLEN: 32,
    Field.ARP_PLEN: 40,
    Field.ARP_OPCODE: 48,
    Field.ARP_SRC_MAC: 64,
    Field.ARP_SRC_IP: 112,
    Field.ARP_DST_MAC: 144,
    Field.ARP_DST_IP: 192,
}
_ETHERNET = {Field.ETHER_DST: "@ll,0", Field.ETHER_SRC: "@ll,48"}
_STP_OFFSETS = {
    Field.STP_HEADER: 112,
    Field.STP_TYPE: 160,
    Field.STP_FLAGS: 168,
    Field.STP_ROOT_PRIORITY: 176,
    Field.STP_ROOT_ADDRESS: 192,
    Field.STP_ROOT_COST: 240,
    Field.STP_SENDER_PRIORITY: 272,
    Field.STP_SENDER_ADDRESS: 288,
    Field.STP_PORT: 336,
    Field.STP_AGE: 352,
    Field.STP_MAX_AGE: 368,
    Field.STP_HELLO_TIME: 384,
    Field.STP_FORWARD_DELAY: 400,
}


_IN_TRANSPORT_HEADER = (*TRANSPORT_FIELDS, *(field for field, place in NAMELESS.items() if place.startswith("@th")))
# The kernel has a short cut for loads of 1, 2 or 4 octets, and there it takes what is in a fragment that isn't the
# first for the header (nft_payload_fast_eval in net/netfilter/nf_tables_core.c). It refuses a load of 3.
_HAS_TRANSPORT_HEADER = "@th,0,24 >= 0x0"
_NOT_IN_A_HEADER = (Field.L4_PROTOCOL, Field.PACKET_TYPE)


@dataclass(frozen=True)
class _Frame:
    """
    What the matches of a rule say about the frame, where nft's spelling of a match depends on it.

    Attributes:
        apart: fields whose "!=" must not be merged with another one: nft (1.0.6 at least) makes of `A != 1 B != 2`,
            where A and B are neighbours in a header, `A.B != 1.2`, which is "not both". A mask keeps them apart.
    """

    is_rarp: bool
    tagged: bool
    port_header: str
    apart: frozenset[Field]
    interface: str


def render_rule(ruleset: Ruleset, tree: Tree, rule: Rule, counters: str) -> tuple[str, ...]:
    """
    `rule` of a tap as nft statements, without "add rule …" in front: one, or several if a negated comparison or a
    store needs them.
    """
    frame = _frame(ruleset, tree, rule.matches)
    comment = f'comment "{rule.provenance}"'
    variants: list[list[str]] = [[]]
    for match in rule.matches:
        texts = _match(ruleset.tap, match, frame)
        if match.field in _IN_TRANSPORT_HEADER and not any(_HAS_TRANSPORT_HEADER in variant for variant in variants):
            variants = [[*variant, _HAS_TRANSPORT_HEADER] for variant in variants]
        variants = [[*variant, text] for variant in variants for text in texts]
    ends = _stores(ruleset, rule, frame) if rule.verdict is Verdict.LEARN else (_verdict(ruleset.tap, tree, rule),)
    counter = _counter(rule, counters)
    return tuple(" ".join([*variant, *counter, end, comment]) for variant in variants for end in ends)


def _frame(ruleset: Ruleset, tree: Tree, matches: Sequence[Match]) -> _Frame:
    exact = {match.field: match.test.value for match in matches if isinstance(match.test, Equals) and not match.negated}
    protocol = exact.get(Field.IP_PROTOCOL, exact.get(Field.L4_PROTOCOL))
    unequal = [match.field for match in matches if isinstance(match.test, Equals) and match.negated]
    apart = frozenset(field for field in unequal[1:] if field.bits % 8 == 0 and field not in _NOT_IN_A_HEADER)
    interface = interface_field(tree, ruleset.attachment)
    is_rarp = _RARP in (exact.get(Field.ETHER_TYPE), exact.get(Field.VLAN_TYPE))
    tagged = Field.VLAN_TYPE in exact
    return _Frame(is_rarp, tagged, _PORT_HEADERS.get(protocol or 0, "th"), apart, interface)


def _counter(rule: Rule, counters: str) -> tuple[str, ...]:
    stops = rule.verdict in (Verdict.DROP, Verdict.REJECT)
    return ("counter",) if counters == "all" or (counters == "drops" and stops) else ()


def with_counts(statement: str, packets: int, octets: int) -> str:
    """`statement`, as `render_rule` wrote it, its counter (if it has one) beginning at these numbers."""
    words = statement.split(" ")
    if "counter" in words:  # no condition has a word of that name
        words[words.index("counter")] = f"counter packets {packets} bytes {octets}"
    return " ".join(words)


def _verdict(tap: str, tree: Tree, rule: Rule) -> str:
    return f"jump {chain_name(tap, tree, rule.target)}" if rule.verdict is Verdict.JUMP else rule.verdict.value


def _stores(ruleset: Ruleset, rule: Rule, frame: _Frame) -> tuple[str, ...]:
    first, second = replace_newest(ruleset.tap, rule.stores, frame.interface)
    stores = [
        store(ruleset.tap, place(field) if field in PLACES else _field(field, frame), named)
        for field, named in rule.stores
        if not named.newest
    ]
    return (*first, " ".join(filter(None, [second, *stores])))


def _match(tap: str, match: Match, frame: _Frame) -> tuple[str, ...]:
    """The match as nft expressions: any one of them suffices."""
    field, test, sign = match.field, match.test, "!= " if match.negated else ""
    name = _field(field, frame)
    if isinstance(test, Equals):
        if field is Field.CT_DIRECTION:
            return (f"{name} {'reply' if test.value else 'original'}",)
        if match.negated and field in frame.apart:
            test = Masked((1 << field.bits) - 1, test.value)
            return _match(tap, Match(field, test, negated=True), frame)
        return (f"{name} {sign}{_number(field, test.value, raw=name.startswith('@'))}",)
    if isinstance(test, Masked):
        raw = name.startswith("@")
        operator = "!=" if match.negated else "=="
        return (f"{name} & {_number(field, test.mask, raw=raw)} {operator} {_number(field, test.value, raw=raw)}",)
    if isinstance(test, Between):
        raw = name.startswith("@")
        low, high = _number(field, test.low, raw=raw), _number(field, test.high, raw=raw)
        # nft makes two comparisons of "A low-high" before 1.1.2, one of another kind since
        return (f"{name} != {low}-{high}" if match.negated else f"{name} >= {low} {name} <= {high}",)
    if isinstance(test, Present):
        return (f"{name} {test.kind} {'missing' if match.negated else 'exists'}",)
    if isinstance(test, SameAs):
        return _same(field, test.other, match.negated)
    if isinstance(test, InSet):
        if test.set.purpose is Purpose.LEARNED:
            name = place(field, tagged=frame.tagged)
        if test.set.mask is not None:
            name = f"{name} & {_number(field, test.set.mask, raw=name.startswith('@'))}"
        key = " . ".join([name, *(_field(other, frame) for other in test.fields)])
        return (f"{key} {sign}@{set_name(tap, test.set)}",)
    if isinstance(test, Uncounted):
        return (f"{name} != @{set_name(tap, test.set)}",)
    if isinstance(test, CountAbove):
        over = "" if match.negated else "over "
        return (f"add @{set_name(tap, test.set)} {{ {name} ct count {over}{test.limit} }}",)
    states = ",".join(state for state in _CT_STATES if state in test.states)
    return (f"{name} {states}",)


def _same(field: Field, other: Field, negated: bool) -> tuple[str, ...]:
    """Equal: every octet's pair is in the set of equal pairs. Different: one octet's pair isn't."""
    operator = "!= " if negated else ""
    pairs = zip(_octets(field), _octets(other))
    octets = tuple(f"{one} . {another} {operator}@{EQUAL_OCTETS}" for one, another in pairs)
    return octets if negated else (" ".join(octets),)


def _octets(field: Field) -> list[str]:
    """Each octet of a field, by its place."""
    place = f"@nh,{_ARP_OFFSETS[field]}" if field in _ARP_OFFSETS else _ETHERNET.get(field) or NAMELESS[field]
    base, start, *_ = place.split(",")
    return [f"{base},{int(start) + bit},8" for bit in range(0, field.bits, 8)]


def _field(field: Field, frame: _Frame) -> str:
    if field in _STP_OFFSETS:
        return f"@ll,{_STP_OFFSETS[field]},{field.bits}"
    if frame.is_rarp and field in _ARP_OFFSETS:
        return f"@nh,{_ARP_OFFSETS[field]},{field.bits}"
    if field in NAMELESS:
        return NAMELESS[field]
    if field is Field.TAP:
        return frame.interface
    if field in (Field.SRC_PORT, Field.DST_PORT):
        return f"{frame.port_header} {'sport' if field is Field.SRC_PORT else 'dport'}"
    return _SYMBOLIC[field]


def _number(field: Field, value: int, *, raw: bool = False) -> str:
    if raw:
        return f"{value:#x}"
    if field.kind is Kind.MAC:
        return format_mac(value)
    if field.kind is Kind.IPV4:
        return str(ipaddress.IPv4Address(value))
    if field.kind is Kind.IPV6:
        return str(ipaddress.IPv6Address(value))
    if field is Field.ETHER_TYPE:
        return _ETHER_TYPES.get(value, f"{value:#06x}")
    if field in (Field.VLAN_TYPE, Field.ARP_PTYPE):
        return f"{value:#06x}"
    if field is Field.TCP_FLAGS:
        return f"{value:#x}"
    if field is Field.PACKET_TYPE:
        return _PACKET_TYPES.get(value, str(value))
    return str(value)
