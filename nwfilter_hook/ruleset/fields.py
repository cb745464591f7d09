"""
The fields of a frame and of its connection that rules can ask for.
"""

from __future__ import annotations

import enum

from .numbers import EtherType, Protocol


class ValueType(enum.Enum):
    """How the value of a field is written."""

    NUMBER = "number"
    MAC = "mac"
    IPV4 = "ipv4"
    IPV6 = "ipv6"
    INTERFACE = "interface"


def max_dimensions(kind: ValueType) -> int:
    """
    How many addresses may make one element of a set: as many as `ipsetflags` names (libvirt: six), and as fit in the
    512 bits of a set's key (NFT_DATA_VALUE_MAXLEN, linux/netfilter/nf_tables.h).
    """
    return {ValueType.IPV4: 6, ValueType.IPV6: 4}[kind]


class Base(enum.Enum):
    """What the kernel counts an offset from: the frame's beginning, what follows its (inner) EtherType, or that."""

    LINK = "link"
    NETWORK = "network"
    TRANSPORT = "transport"


class Header(enum.Enum):
    """
    Where a field stands: (name, base, EtherTypes or protocols of the frames that have it; none for all of them).

    TAG counts from the frame's beginning. NONE is for what isn't at one place, or not in the frame.
    """

    ETHERNET = ("ethernet", Base.LINK, ())
    TAG = ("tag", Base.LINK, ())
    NETWORK = ("network", Base.NETWORK, ())
    ARP = ("arp", Base.NETWORK, (EtherType.ARP, EtherType.RARP))
    IPV4 = ("ipv4", Base.NETWORK, (EtherType.IPV4,))
    IPV6 = ("ipv6", Base.NETWORK, (EtherType.IPV6,))
    TRANSPORT = ("transport", Base.TRANSPORT, ())
    TCP = ("tcp", Base.TRANSPORT, (Protocol.TCP,))
    UDP = ("udp", Base.TRANSPORT, (Protocol.UDP,))
    ICMP = ("icmp", Base.TRANSPORT, (Protocol.ICMP,))
    ICMPV6 = ("icmpv6", Base.TRANSPORT, (Protocol.ICMPV6,))
    NONE = ("none", None, ())

    def __init__(self, label: str, base: Base | None, numbers: tuple[int, ...]) -> None:
        self.base, self.numbers = base, numbers


class Field(enum.Enum):
    """
    A field of a frame or of its connection: (name, header, offset there and width in bits, kind).

    A rule's matches are tested in the order of this table: link layer, network, transport, connection.

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

    ETHER_SRC = ("ether-src", Header.ETHERNET, 48, 48, ValueType.MAC)
    ETHER_DST = ("ether-dst", Header.ETHERNET, 0, 48, ValueType.MAC)
    ETHER_TYPE = ("ether-type", Header.ETHERNET, 96, 16, ValueType.NUMBER)
    VLAN_ID = ("vlan-id", Header.TAG, 116, 12, ValueType.NUMBER)
    VLAN_TYPE = ("vlan-type", Header.TAG, 128, 16, ValueType.NUMBER)
    SNAP = ("snap", Header.NETWORK, 0, 48, ValueType.NUMBER)
    ARP_HTYPE = ("arp-htype", Header.ARP, 0, 16, ValueType.NUMBER)
    ARP_PTYPE = ("arp-ptype", Header.ARP, 16, 16, ValueType.NUMBER)
    ARP_HLEN = ("arp-hlen", Header.ARP, 32, 8, ValueType.NUMBER)
    ARP_PLEN = ("arp-plen", Header.ARP, 40, 8, ValueType.NUMBER)
    ARP_OPCODE = ("arp-opcode", Header.ARP, 48, 16, ValueType.NUMBER)
    ARP_SRC_MAC = ("arp-src-mac", Header.ARP, 64, 48, ValueType.MAC)
    ARP_SRC_IP = ("arp-src-ip", Header.ARP, 112, 32, ValueType.IPV4)
    ARP_DST_MAC = ("arp-dst-mac", Header.ARP, 144, 48, ValueType.MAC)
    ARP_DST_IP = ("arp-dst-ip", Header.ARP, 192, 32, ValueType.IPV4)
    IP_SRC = ("ip-src", Header.IPV4, 96, 32, ValueType.IPV4)
    IP_DST = ("ip-dst", Header.IPV4, 128, 32, ValueType.IPV4)
    IP_PROTOCOL = ("ip-protocol", Header.IPV4, 72, 8, ValueType.NUMBER)
    IP_DSCP = ("ip-dscp", Header.IPV4, 8, 6, ValueType.NUMBER)
    IP_FRAGMENT = ("ip-fragment", Header.IPV4, 48, 16, ValueType.NUMBER)
    IP6_SRC = ("ip6-src", Header.IPV6, 64, 128, ValueType.IPV6)
    IP6_DST = ("ip6-dst", Header.IPV6, 192, 128, ValueType.IPV6)
    IP6_DSCP = ("ip6-dscp", Header.IPV6, 4, 6, ValueType.NUMBER)
    IP6_FRAGMENT = ("ip6-fragment", Header.NONE, 0, 13, ValueType.NUMBER)
    L4_PROTOCOL = ("l4-protocol", Header.NONE, 0, 8, ValueType.NUMBER)
    SRC_PORT = ("src-port", Header.TRANSPORT, 0, 16, ValueType.NUMBER)
    DST_PORT = ("dst-port", Header.TRANSPORT, 16, 16, ValueType.NUMBER)
    TCP_FLAGS = ("tcp-flags", Header.TCP, 104, 8, ValueType.NUMBER)
    TCP_OPTION = ("tcp-option", Header.NONE, 0, 8, ValueType.NUMBER)
    ICMP_TYPE = ("icmp-type", Header.ICMP, 0, 8, ValueType.NUMBER)
    ICMP_CODE = ("icmp-code", Header.ICMP, 8, 8, ValueType.NUMBER)
    ICMPV6_TYPE = ("icmpv6-type", Header.ICMPV6, 0, 8, ValueType.NUMBER)
    ICMPV6_CODE = ("icmpv6-code", Header.ICMPV6, 8, 8, ValueType.NUMBER)
    STP_HEADER = ("stp-header", Header.ETHERNET, 112, 48, ValueType.NUMBER)
    STP_TYPE = ("stp-type", Header.ETHERNET, 160, 8, ValueType.NUMBER)
    STP_FLAGS = ("stp-flags", Header.ETHERNET, 168, 8, ValueType.NUMBER)
    STP_ROOT_PRIORITY = ("stp-root-priority", Header.ETHERNET, 176, 16, ValueType.NUMBER)
    STP_ROOT_ADDRESS = ("stp-root-address", Header.ETHERNET, 192, 48, ValueType.NUMBER)
    STP_ROOT_COST = ("stp-root-cost", Header.ETHERNET, 240, 32, ValueType.NUMBER)
    STP_SENDER_PRIORITY = ("stp-sender-priority", Header.ETHERNET, 272, 16, ValueType.NUMBER)
    STP_SENDER_ADDRESS = ("stp-sender-address", Header.ETHERNET, 288, 48, ValueType.NUMBER)
    STP_PORT = ("stp-port", Header.ETHERNET, 336, 16, ValueType.NUMBER)
    STP_AGE = ("stp-age", Header.ETHERNET, 352, 16, ValueType.NUMBER)
    STP_MAX_AGE = ("stp-max-age", Header.ETHERNET, 368, 16, ValueType.NUMBER)
    STP_HELLO_TIME = ("stp-hello-time", Header.ETHERNET, 384, 16, ValueType.NUMBER)
    STP_FORWARD_DELAY = ("stp-forward-delay", Header.ETHERNET, 400, 16, ValueType.NUMBER)
    IP6_NEXT_HEADER = ("ip6-next-header", Header.IPV6, 48, 8, ValueType.NUMBER)
    IP6_LENGTH = ("ip6-length", Header.IPV6, 32, 16, ValueType.NUMBER)
    ND_TARGET = ("nd-target", Header.ICMPV6, 64, 128, ValueType.IPV6)
    ND_OPTION = ("nd-option", Header.ICMPV6, 192, 16, ValueType.NUMBER)
    ND_MAC = ("nd-mac", Header.ICMPV6, 208, 48, ValueType.MAC)
    DHCP_OP = ("dhcp-op", Header.UDP, 64, 8, ValueType.NUMBER)
    DHCP_HARDWARE = ("dhcp-hardware", Header.UDP, 72, 16, ValueType.NUMBER)
    DHCP_OWN = ("dhcp-own", Header.UDP, 160, 32, ValueType.IPV4)
    DHCP_ADDRESS = ("dhcp-address", Header.UDP, 192, 32, ValueType.IPV4)
    DHCP_RELAY = ("dhcp-relay", Header.UDP, 256, 32, ValueType.IPV4)
    DHCP_CLIENT = ("dhcp-client", Header.UDP, 288, 48, ValueType.MAC)
    DHCP_COOKIE = ("dhcp-cookie", Header.UDP, 1952, 32, ValueType.NUMBER)
    DHCP_OPTIONS = ("dhcp-options", Header.UDP, 1984, 128, ValueType.NUMBER)
    DHCP6_TYPE = ("dhcp6-type", Header.UDP, 64, 8, ValueType.NUMBER)
    TAP = ("tap", Header.NONE, 0, 128, ValueType.INTERFACE)
    PACKET_TYPE = ("packet-type", Header.NONE, 0, 8, ValueType.NUMBER)
    CT_STATE = ("ct-state", Header.NONE, 0, 0, ValueType.NUMBER)
    CT_DIRECTION = ("ct-direction", Header.NONE, 0, 0, ValueType.NUMBER)

    def __init__(self, label: str, header: Header, offset: int, bits: int, kind: ValueType) -> None:
        self.label, self.header, self.offset, self.bits, self.kind = label, header, offset, bits, kind


TRANSPORT_FIELDS = (
    *(Field.SRC_PORT, Field.DST_PORT, Field.TCP_FLAGS, Field.TCP_OPTION),
    *(Field.ICMP_TYPE, Field.ICMP_CODE, Field.ICMPV6_TYPE, Field.ICMPV6_CODE),
)
"""Fields of the transport header that rules of layer 3 ask for; of a packet's fragments only the first has it."""
