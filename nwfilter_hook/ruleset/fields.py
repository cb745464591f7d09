"""
The fields of a frame and of its connection that rules can ask for.
"""

from __future__ import annotations

import enum


class Kind(enum.Enum):
    """How the value of a field is written."""

    NUMBER = "number"
    MAC = "mac"
    IPV4 = "ipv4"
    IPV6 = "ipv6"
    INTERFACE = "interface"


def max_dimensions(kind: Kind) -> int:
    """
    How many addresses may make one element of a set: as many as `ipsetflags` names (libvirt: six), and as fit in the
    512 bits of a set's key (NFT_DATA_VALUE_MAXLEN, linux/netfilter/nf_tables.h).
    """
    return {Kind.IPV4: 6, Kind.IPV6: 4}[kind]


class Field(enum.Enum):
    """
    A field of a frame or of its connection: (name, width in bits, kind).

    ARP_* stand for RARP frames too; L4_PROTOCOL is the transport protocol behind IPv6 extension headers, IP_PROTOCOL
    the octet of the IPv4 header. ETHER_TYPE is the outer type: 0x8100 for a tagged frame; what is behind a tag is read
    as in an untagged frame. SNAP is what begins an IEEE 802.3 frame that carries an EtherType (RFC 1042), up to that.
    IP6_NEXT_HEADER is what follows the IPv6 header at once. ND_* are those of neighbour discovery messages (RFC 4861):
    ND_OPTION the first option's type and length, ND_MAC its address. DHCP_* are at their offsets behind the UDP header
    (RFC 2131): DHCP_HARDWARE is htype and hlen, DHCP_OWN ciaddr, DHCP_ADDRESS yiaddr, DHCP_RELAY giaddr, DHCP_CLIENT
    chaddr, DHCP_OPTIONS the first 16 octets behind the magic cookie. DHCP6_TYPE is a DHCPv6 message's (RFC 8415).
    IP_FRAGMENT is the IPv4 header's flags and fragment offset, IP6_FRAGMENT the offset in a fragment header. TAP is the
    interface, and so the same value for every frame of a tap. PACKET_TYPE is PACKET_HOST (linux/if_packet.h) for what
    the host sends or routes, not for what it bridges.
    """

    ETHER_SRC = ("ether-src", 48, Kind.MAC)
    ETHER_DST = ("ether-dst", 48, Kind.MAC)
    ETHER_TYPE = ("ether-type", 16, Kind.NUMBER)
    VLAN_ID = ("vlan-id", 12, Kind.NUMBER)
    VLAN_TYPE = ("vlan-type", 16, Kind.NUMBER)
    SNAP = ("snap", 48, Kind.NUMBER)
    ARP_HTYPE = ("arp-htype", 16, Kind.NUMBER)
    ARP_PTYPE = ("arp-ptype", 16, Kind.NUMBER)
    ARP_HLEN = ("arp-hlen", 8, Kind.NUMBER)
    ARP_PLEN = ("arp-plen", 8, Kind.NUMBER)
    ARP_OPCODE = ("arp-opcode", 16, Kind.NUMBER)
    ARP_SRC_MAC = ("arp-src-mac", 48, Kind.MAC)
    ARP_SRC_IP = ("arp-src-ip", 32, Kind.IPV4)
    ARP_DST_MAC = ("arp-dst-mac", 48, Kind.MAC)
    ARP_DST_IP = ("arp-dst-ip", 32, Kind.IPV4)
    IP_SRC = ("ip-src", 32, Kind.IPV4)
    IP_DST = ("ip-dst", 32, Kind.IPV4)
    IP_PROTOCOL = ("ip-protocol", 8, Kind.NUMBER)
    IP_DSCP = ("ip-dscp", 6, Kind.NUMBER)
    IP_FRAGMENT = ("ip-fragment", 16, Kind.NUMBER)
    IP6_SRC = ("ip6-src", 128, Kind.IPV6)
    IP6_DST = ("ip6-dst", 128, Kind.IPV6)
    IP6_DSCP = ("ip6-dscp", 6, Kind.NUMBER)
    IP6_FRAGMENT = ("ip6-fragment", 13, Kind.NUMBER)
    L4_PROTOCOL = ("l4-protocol", 8, Kind.NUMBER)
    SRC_PORT = ("src-port", 16, Kind.NUMBER)
    DST_PORT = ("dst-port", 16, Kind.NUMBER)
    TCP_FLAGS = ("tcp-flags", 8, Kind.NUMBER)
    TCP_OPTION = ("tcp-option", 8, Kind.NUMBER)
    ICMP_TYPE = ("icmp-type", 8, Kind.NUMBER)
    ICMP_CODE = ("icmp-code", 8, Kind.NUMBER)
    ICMPV6_TYPE = ("icmpv6-type", 8, Kind.NUMBER)
    ICMPV6_CODE = ("icmpv6-code", 8, Kind.NUMBER)
    STP_HEADER = ("stp-header", 48, Kind.NUMBER)
    STP_TYPE = ("stp-type", 8, Kind.NUMBER)
    STP_FLAGS = ("stp-flags", 8, Kind.NUMBER)
    STP_ROOT_PRIORITY = ("stp-root-priority", 16, Kind.NUMBER)
    STP_ROOT_ADDRESS = ("stp-root-address", 48, Kind.NUMBER)
    STP_ROOT_COST = ("stp-root-cost", 32, Kind.NUMBER)
    STP_SENDER_PRIORITY = ("stp-sender-priority", 16, Kind.NUMBER)
    STP_SENDER_ADDRESS = ("stp-sender-address", 48, Kind.NUMBER)
    STP_PORT = ("stp-port", 16, Kind.NUMBER)
    STP_AGE = ("stp-age", 16, Kind.NUMBER)
    STP_MAX_AGE = ("stp-max-age", 16, Kind.NUMBER)
    STP_HELLO_TIME = ("stp-hello-time", 16, Kind.NUMBER)
    STP_FORWARD_DELAY = ("stp-forward-delay", 16, Kind.NUMBER)
    IP6_NEXT_HEADER = ("ip6-next-header", 8, Kind.NUMBER)
    IP6_LENGTH = ("ip6-length", 16, Kind.NUMBER)
    ND_TARGET = ("nd-target", 128, Kind.IPV6)
    ND_OPTION = ("nd-option", 16, Kind.NUMBER)
    ND_MAC = ("nd-mac", 48, Kind.MAC)
    DHCP_OP = ("dhcp-op", 8, Kind.NUMBER)
    DHCP_HARDWARE = ("dhcp-hardware", 16, Kind.NUMBER)
    DHCP_OWN = ("dhcp-own", 32, Kind.IPV4)
    DHCP_ADDRESS = ("dhcp-address", 32, Kind.IPV4)
    DHCP_RELAY = ("dhcp-relay", 32, Kind.IPV4)
    DHCP_CLIENT = ("dhcp-client", 48, Kind.MAC)
    DHCP_COOKIE = ("dhcp-cookie", 32, Kind.NUMBER)
    DHCP_OPTIONS = ("dhcp-options", 128, Kind.NUMBER)
    DHCP6_TYPE = ("dhcp6-type", 8, Kind.NUMBER)
    TAP = ("tap", 128, Kind.INTERFACE)
    PACKET_TYPE = ("packet-type", 8, Kind.NUMBER)
    CT_STATE = ("ct-state", 0, Kind.NUMBER)
    CT_DIRECTION = ("ct-direction", 0, Kind.NUMBER)

    @property
    def bits(self) -> int:
        return self.value[1]

    @property
    def kind(self) -> Kind:
        return self.value[2]


TRANSPORT_FIELDS = (
    *(Field.SRC_PORT, Field.DST_PORT, Field.TCP_FLAGS, Field.TCP_OPTION),
    *(Field.ICMP_TYPE, Field.ICMP_CODE, Field.ICMPV6_TYPE, Field.ICMPV6_CODE),
)
"""Fields of the transport header that rules of layer 3 ask for; of a packet's fragments only the first has it."""
