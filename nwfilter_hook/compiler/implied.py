"""
What a rule's attributes ask of a packet beside their own fields: the frame's type, a tag, SNAP, the protocol, and where
an address in ARP, neighbour discovery or DHCP stands.

In:  a `BoundRule`.
Out: alternatives of matches, as in matches.py.
"""

from __future__ import annotations

import itertools

from ..filters.bound import BoundRule
from ..filters.protocols import Element
from ..ruleset.fields import Field
from ..ruleset.model import Between, Equals, Masked, Match
from ..ruleset.numbers import EtherType, Protocol

Matches = tuple[Match, ...]
Alternatives = tuple[Matches, ...]

ALWAYS: Alternatives = ((),)
NEVER: Alternatives = ()

BPDU_ADDRESS = 0x0180C2000000
_ND_TYPES = (135, 136)  # neighbour solicitation and advertisement, RFC 4861 4.3 and 4.4
LENGTHS = Between(0, 0x5FF)  # in place of an EtherType: IEEE 802.3
# LLC aa aa 03, and the organisations whose SNAP carries EtherTypes: RFC 1042; IEEE 802.1H
SNAPS = (0xAAAA03000000, 0xAAAA030000F8)
ETHERNET_CLIENT = 0x0106  # hardware type and address length, RFC 2131 2
# option 1 (source) or 2 (target link-layer address), one unit of 8 octets long; RFC 4861 4.6.1
_MAC_OPTION = Masked(0xFCFF, 0x0001)
LATER_FRAGMENT = {
    False: Match(Field.IP_FRAGMENT, Masked(0x1FFF, 0), negated=True),
    True: Match(Field.IP6_FRAGMENT, Equals(0), negated=True),
}
"""Of an IPv4, an IPv6 packet (True): a fragment that isn't the first."""
# no fragment, since what a later one holds isn't seen: neither "more fragments" nor an offset
DHCP = (Match(Field.IP_FRAGMENT, Masked(0x3FFF, 0)), Match(Field.IP_PROTOCOL, Equals(Protocol.UDP)))
_DHCP6 = (Match(Field.IP6_NEXT_HEADER, Equals(Protocol.UDP)), Match(Field.L4_PROTOCOL, Equals(Protocol.UDP)))

# where the addresses of ARP stand is known for these only, RFC 826
ARP_OF_ETHERNET, ARP_OF_IPV4 = Match(Field.ARP_HTYPE, Equals(1)), Match(Field.ARP_PTYPE, Equals(EtherType.IPV4))
ARP_LENGTHS = (Match(Field.ARP_HLEN, Equals(6)), Match(Field.ARP_PLEN, Equals(4)))
_ARP_MACS = (Field.ARP_SRC_MAC, Field.ARP_DST_MAC)
_ARP_IPS = (Field.ARP_SRC_IP, Field.ARP_DST_IP)


def implied(rule: BoundRule, element: Element) -> Alternatives:
    """What the element itself says: frame type, transport protocol, and what other attributes imply."""
    matches: list[Match] = []
    if element.name == "stp":
        matches.append(Match(Field.ETHER_DST, Equals(BPDU_ADDRESS)))
    if element.protocol is not None:
        field = Field.L4_PROTOCOL if element.is_ipv6 else Field.IP_PROTOCOL
        matches.append(Match(field, Equals(element.protocol)))
    if element.layer == 2 and element.is_ipv6 and {"type", "code"}.intersection(rule.conditions):
        matches.append(Match(Field.L4_PROTOCOL, Equals(Protocol.ICMPV6)))
    if any(name.startswith("nd") for name in rule.conditions):
        matches.append(Match(Field.IP6_NEXT_HEADER, Equals(Protocol.ICMPV6)))
        of_type = rule.conditions.get("type")
        if of_type is None or of_type.end is not None:
            matches += [
                Match(Field.L4_PROTOCOL, Equals(Protocol.ICMPV6)),
                Match(Field.ICMPV6_TYPE, Between(*_ND_TYPES)),
            ]
    if "ndmacaddr" in rule.conditions:
        matches.append(Match(Field.ND_OPTION, _MAC_OPTION))
    if any(name.startswith("dhcp") for name in rule.conditions):
        matches += _DHCP6 if element.is_ipv6 else DHCP
    if "dhcpchaddr" in rule.conditions:
        matches.append(Match(Field.DHCP_HARDWARE, Equals(ETHERNET_CLIENT)))
    if rule.value("laterfragment"):
        matches.append(LATER_FRAGMENT[element.is_ipv6])
    if element.name in ("arp", "rarp"):
        fields = {condition.attribute.field for condition in rule.conditions.values()}
        addresses = rule.value("gratuitous") or fields.intersection(_ARP_IPS)
        if fields.intersection(_ARP_MACS):
            matches.append(ARP_OF_ETHERNET)
        if addresses:
            matches.append(ARP_OF_IPV4)
        if addresses or fields.intersection(_ARP_MACS):
            matches += ARP_LENGTHS
    return product([_frame_types(rule, element), (tuple(matches),), _snap(rule)])


def _frame_types(rule: BoundRule, element: Element) -> Alternatives:
    """The EtherType, behind a VLAN tag where `tagged` says so."""
    if element.ether_type is None:
        return ALWAYS
    tagged = rule.value("tagged") or "no"
    plain = (Match(Field.ETHER_TYPE, Equals(element.ether_type)),)
    behind = (Match(Field.ETHER_TYPE, Equals(EtherType.VLAN)), Match(Field.VLAN_TYPE, Equals(element.ether_type)))
    return {"no": (plain,), "yes": (behind,), "any": (plain, behind)}[str(tagged)]


def _snap(rule: BoundRule) -> Alternatives:
    """An EtherType in SNAP, in the frame itself or behind its tag."""
    if not rule.value("snap"):
        return ALWAYS
    length = Match(Field.VLAN_TYPE if rule.element == "vlan" else Field.ETHER_TYPE, LENGTHS)
    return tuple((length, Match(Field.SNAP, Equals(snap))) for snap in SNAPS)


def product(groups: list[Alternatives]) -> Alternatives:
    """One of each group, all together."""
    return tuple(tuple(itertools.chain.from_iterable(parts)) for parts in itertools.product(*groups))
