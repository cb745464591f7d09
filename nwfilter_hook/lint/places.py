"""
Frames that checks ask about: by conditions, as a ruleset has them.

In:  the guest's addresses.
Out: conditions; `MORE` are those of them that need no guest, for the regions to know them.
"""

from __future__ import annotations

from ..base.addresses import link_local, parse_ipv4, parse_ipv6, parse_mac
from ..filters.model import Parameters
from ..ruleset.fields import Field
from ..ruleset.model import AnyState, Equals, Match
from ..ruleset.numbers import EtherType, Protocol

# addresses that no filter names: for benchmarks (RFC 2544), discard only (RFC 6666), locally administered
STRANGER = {
    Field.ETHER_SRC: 0x0666DEADBEEF,
    Field.IP_SRC: parse_ipv4("198.19.253.254"),
    Field.IP6_SRC: parse_ipv6("100::dead:beef"),
    Field.ARP_SRC_MAC: 0x0666DEADBEEF,
    Field.ARP_SRC_IP: parse_ipv4("198.19.253.254"),
}
"""By the field of a source, what isn't the guest's."""
UNUSED_PORT = 60999
BROADCAST, ANY, EVERYBODY = (1 << 48) - 1, 0, 0xFFFFFFFF


def is_(field: Field, value: int) -> Match:
    """The field has this value."""
    return Match(field, Equals(value))


def in_state(*states: str) -> Match:
    """The connection is in one of these states."""
    return Match(Field.CT_STATE, AnyState(frozenset(states)))


IPV4, IPV6, ARP = (is_(Field.ETHER_TYPE, number) for number in (EtherType.IPV4, EtherType.IPV6, EtherType.ARP))
TAGGED = is_(Field.ETHER_TYPE, EtherType.VLAN)
TAGGED_IPV4, TAGGED_IPV6 = (is_(Field.VLAN_TYPE, number) for number in (EtherType.IPV4, EtherType.IPV6))
TAGGED_ARP = is_(Field.VLAN_TYPE, EtherType.ARP)
PROVIDER_TAGGED = is_(Field.ETHER_TYPE, EtherType.VLAN_AD)
IN_SNAP = (is_(Field.ETHER_TYPE, 100), is_(Field.SNAP, 0xAAAA03000000))
"""A length in place of the EtherType, and what begins SNAP (RFC 1042)."""
TCP4, TCP6 = is_(Field.IP_PROTOCOL, Protocol.TCP), is_(Field.L4_PROTOCOL, Protocol.TCP)
UDP4, ICMP6 = is_(Field.IP_PROTOCOL, Protocol.UDP), is_(Field.L4_PROTOCOL, Protocol.ICMPV6)
NEW = in_state("new")
UNTRACKED = in_state("untracked")
TO_UNUSED, FROM_UNUSED = is_(Field.DST_PORT, UNUSED_PORT), is_(Field.SRC_PORT, UNUSED_PORT)
DHCP_ASKS = (
    *(is_(Field.ETHER_DST, BROADCAST), IPV4, is_(Field.IP_SRC, ANY), is_(Field.IP_DST, EVERYBODY), UDP4),
    *(is_(Field.SRC_PORT, 68), is_(Field.DST_PORT, 67), NEW),
)
DHCP_ANSWERS = (IPV4, UDP4, is_(Field.SRC_PORT, 67), is_(Field.DST_PORT, 68), NEW)
ARP_ASKS, ARP_ANSWERS = ((ARP, is_(Field.ARP_OPCODE, number)) for number in (1, 2))
ND_ASKS, ND_ANSWERS = ((IPV6, ICMP6, is_(Field.ICMPV6_TYPE, number), UNTRACKED) for number in (135, 136))

MORE = (
    *(is_(field, value) for field, value in STRANGER.items()),
    *(*DHCP_ASKS, *DHCP_ANSWERS, *ARP_ASKS, *ARP_ANSWERS, *ND_ASKS, *ND_ANSWERS),
    *(
        IPV4,
        IPV6,
        ARP,
        TAGGED,
        TAGGED_IPV4,
        TAGGED_IPV6,
        TAGGED_ARP,
        PROVIDER_TAGGED,
        *IN_SNAP,
        TCP4,
        TCP6,
        TO_UNUSED,
        FROM_UNUSED,
    ),
    *(is_(Field.CT_DIRECTION, 0), is_(Field.CT_DIRECTION, 1)),
    *(is_(Field.ICMP_TYPE, number) for number in (0, 8)),
    *(is_(Field.ICMPV6_TYPE, number) for number in (128, 129)),
)


class Own:
    """The guest's addresses, as conditions on sources; by field, one condition for each address."""

    def __init__(self, mac: str, parameters: Parameters) -> None:
        macs = [parse_mac(text) for text in parameters.get("MAC", (mac,))]
        ipv4 = [parse_ipv4(text) for text in parameters.get("IP", ()) if "/" not in text]
        ipv6 = [parse_ipv6(text) for text in parameters.get("IPV6", ()) if "/" not in text]
        values = {
            Field.ETHER_SRC: macs,
            Field.IP_SRC: ipv4,
            Field.IP6_SRC: [*ipv6, *map(link_local, macs)],
            Field.ARP_SRC_MAC: macs,
            Field.ARP_SRC_IP: ipv4,
        }
        self.of = {field: tuple(is_(field, value) for value in found) for field, found in values.items()}

    @property
    def matches(self) -> tuple[Match, ...]:
        """All of them."""
        return tuple(match for found in self.of.values() for match in found)
