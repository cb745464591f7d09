"""
What nft calls the fields of a packet, and how it writes their values. Syntax: nft(8), PAYLOAD EXPRESSIONS.

In:  a `Field`.
Out: its name in nft, or its place (`@th,64,128`: base, offset and length in bits).

A place that counts from the IP header nft lists by the field's name, and then it refuses its own listing; so what must
be a number, for it is looked up among numbers (see sets.py), is counted from the Ethernet header.
"""

from __future__ import annotations

import ipaddress

from ..base.addresses import format_mac
from ..ruleset.fields import TRANSPORT_FIELDS, Base, Field, Header, ValueType
from ..ruleset.numbers import EtherType

_NAMES = {
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
"""Fields that nft (1.0.6) has names for; ports go by the name of their protocol's header."""

_BASES = {Base.LINK: "ll", Base.NETWORK: "nh", Base.TRANSPORT: "th"}
_TAG_BITS, _ETHERNET_BITS, _IPV6_BITS = 32, 112, 320
_FROM_ETHERNET = {
    Header.ARP: _ETHERNET_BITS,
    Header.IPV4: _ETHERNET_BITS,
    Header.IPV6: _ETHERNET_BITS,
    Header.ICMPV6: _ETHERNET_BITS + _IPV6_BITS,
}
"""Where a header begins; a neighbour discovery message follows the IPv6 header at once."""
_ETHER_TYPES = {EtherType.IPV4: "ip", EtherType.ARP: "arp", EtherType.IPV6: "ip6", EtherType.VLAN: "vlan"}
_PACKET_TYPES = {0: "host"}  # linux/if_packet.h


def name_of(field: Field) -> str:
    """Its name, or its place if it has none."""
    return _NAMES.get(field) or place(field)


def place(field: Field) -> str:
    """Where it is in its header."""
    assert field.header.base is not None
    return f"@{_BASES[field.header.base]},{field.offset},{field.bits}"


def number_place(field: Field, *, tagged: bool = False) -> str:
    """Where the address is that a set of numbers is asked for, behind a tag if `tagged`."""
    begins = _FROM_ETHERNET.get(field.header)
    if begins is None:
        return place(field)
    return f"@{_BASES[Base.LINK]},{begins + field.offset + (_TAG_BITS if tagged else 0)},{field.bits}"


def octets(field: Field) -> list[str]:
    """Each octet of it, by its place."""
    base, start, _ = place(field).split(",")
    return [f"{base},{int(start) + bit},8" for bit in range(0, field.bits, 8)]


def in_transport_header(field: Field) -> bool:
    """Whether it is in a header that a fragment that isn't the first has not."""
    return field.header.base is Base.TRANSPORT or field in TRANSPORT_FIELDS


def number(field: Field, value: int, *, raw: bool = False) -> str:
    """A value as it is written beside the field's name, or beside its place (`raw`)."""
    if raw:
        return f"{value:#x}"
    if field.kind is ValueType.MAC:
        return format_mac(value)
    if field.kind is ValueType.IPV4:
        return str(ipaddress.IPv4Address(value))
    if field.kind is ValueType.IPV6:
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
