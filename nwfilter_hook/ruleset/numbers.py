"""
The numbers in headers that the field has names for. https://www.iana.org/assignments/ieee-802-numbers,
https://www.iana.org/assignments/protocol-numbers
"""

from __future__ import annotations


class EtherType:
    """What an Ethernet frame carries."""

    IPV4 = 0x0800
    ARP = 0x0806
    RARP = 0x8035
    VLAN = 0x8100
    IPV6 = 0x86DD
    VLAN_AD = 0x88A8
    """A service provider's tag, IEEE 802.1ad."""


class Protocol:
    """What an IP packet carries, or the IPv6 extension header that follows."""

    HOP_BY_HOP = 0
    ICMP = 1
    IGMP = 2
    TCP = 6
    UDP = 17
    DCCP = 33
    ROUTING = 43
    FRAGMENT = 44
    ESP = 50
    AH = 51
    ICMPV6 = 58
    NO_NEXT = 59
    DESTINATION = 60
    SCTP = 132
    UDPLITE = 136


DHCP_SERVER_PORT, DHCP_CLIENT_PORT = 67, 68
DHCP_COOKIE = 0x63825363
"""In every DHCP message, RFC 2131 3."""
