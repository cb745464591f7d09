"""
The numbers that tcpdump, nft and the standards have words for, and the words.

https://www.iana.org/assignments/icmp-parameters, icmpv6-parameters, bootp-dhcp-parameters, dhcpv6-parameters,
protocol-numbers, ieee-802-numbers
"""

from __future__ import annotations

from collections.abc import Mapping

from ..ruleset.numbers import EtherType, Protocol

ETHER_TYPES = {
    "ipv4": EtherType.IPV4,
    "arp": EtherType.ARP,
    "rarp": EtherType.RARP,
    "vlan": EtherType.VLAN,
    "ipv6": EtherType.IPV6,
    "802.1ad": EtherType.VLAN_AD,
    "mpls": 0x8847,
    "pppoe-discovery": 0x8863,
    "pppoe": 0x8864,
    "eapol": 0x888E,
    "lldp": 0x88CC,
    "loopback": 0x9000,
}
PROTOCOLS = {
    "icmp": Protocol.ICMP,
    "igmp": Protocol.IGMP,
    "ipip": 4,
    "tcp": Protocol.TCP,
    "udp": Protocol.UDP,
    "dccp": Protocol.DCCP,
    "6in4": 41,
    "gre": 47,
    "esp": Protocol.ESP,
    "ah": Protocol.AH,
    "icmpv6": Protocol.ICMPV6,
    "ospf": 89,
    "pim": 103,
    "vrrp": 112,
    "sctp": Protocol.SCTP,
    "udplite": Protocol.UDPLITE,
}
ICMP_TYPES = {
    "echo-reply": 0,
    "destination-unreachable": 3,
    "source-quench": 4,
    "redirect": 5,
    "echo-request": 8,
    "router-advertisement": 9,
    "router-solicitation": 10,
    "time-exceeded": 11,
    "parameter-problem": 12,
    "timestamp-request": 13,
    "timestamp-reply": 14,
}
ICMPV6_TYPES = {
    "destination-unreachable": 1,
    "packet-too-big": 2,
    "time-exceeded": 3,
    "parameter-problem": 4,
    "echo-request": 128,
    "echo-reply": 129,
    "mld-listener-query": 130,
    "mld-listener-report": 131,
    "mld-listener-done": 132,
    "nd-router-solicit": 133,
    "nd-router-advert": 134,
    "nd-neighbor-solicit": 135,
    "nd-neighbor-advert": 136,
    "nd-redirect": 137,
    "mld2-listener-report": 143,
}
ARP_OPCODES = {"request": 1, "reply": 2}
RARP_OPCODES = {"request": 3, "reply": 4}
DHCP_TYPES = {
    "discover": 1,
    "offer": 2,
    "request": 3,
    "decline": 4,
    "ack": 5,
    "nak": 6,
    "release": 7,
    "inform": 8,
}
DHCPV6_TYPES = {
    "solicit": 1,
    "advertise": 2,
    "request": 3,
    "confirm": 4,
    "renew": 5,
    "rebind": 6,
    "reply": 7,
    "release": 8,
    "decline": 9,
    "reconfigure": 10,
    "information-request": 11,
}
TCP_FLAGS = {"fin": 0x01, "syn": 0x02, "rst": 0x04, "psh": 0x08, "ack": 0x10, "urg": 0x20, "ece": 0x40, "cwr": 0x80}
TCPDUMP_FLAGS = {"F": 0x01, "S": 0x02, "R": 0x04, "P": 0x08, ".": 0x10, "U": 0x20, "E": 0x40, "W": 0x80}
"""As tcpdump prints them: [S.] is syn and ack."""


def name_of(names: Mapping[str, int], value: int) -> str:
    """The word for `value`, or the number."""
    return next((name for name, number in names.items() if number == value), str(value))


def flags_text(value: int) -> str:
    """TCP flags as nft writes them: "syn,ack"; "none"."""
    return ",".join(name for name, bit in TCP_FLAGS.items() if value & bit) or "none"
