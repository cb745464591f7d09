"""
What a tap's rules compile to: chains of typed matches and verdicts, which know nothing of nft.

In a `Ruleset` a match is a field of the packet, a test and a sign. The compiler makes it, the renderer writes it down
for nft, and the evaluator follows a frame through it. All values are frozen and compared with ==.
"""

from __future__ import annotations

import enum
from typing import Union

from ..base.dataclass import dataclass
from ..base.errors import Source


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
    the octet of the IPv4 header. ETHER_TYPE is the outer type: 0x8100 for a tagged frame. IP6_NEXT_HEADER is what
    follows the IPv6 header at once. ND_* are those of neighbour discovery messages (RFC 4861): ND_OPTION the first
    option's type and length, ND_MAC its address. DHCP_* are at their offsets behind the UDP header (RFC 2131),
    DHCP_OPTIONS the first 16 octets behind the magic cookie. IP_FRAGMENT is the IPv4 header's flags and fragment
    offset, IP6_FRAGMENT the offset in a fragment header. TAP is the interface, and so the same value for every frame of
    a tap. PACKET_TYPE is PACKET_HOST (linux/if_packet.h) for what the host sends or routes, not for what it bridges.
    """

    ETHER_SRC = ("ether-src", 48, Kind.MAC)
    ETHER_DST = ("ether-dst", 48, Kind.MAC)
    ETHER_TYPE = ("ether-type", 16, Kind.NUMBER)
    VLAN_ID = ("vlan-id", 12, Kind.NUMBER)
    VLAN_TYPE = ("vlan-type", 16, Kind.NUMBER)
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
    DHCP_ADDRESS = ("dhcp-address", 32, Kind.IPV4)
    DHCP_CLIENT = ("dhcp-client", 48, Kind.MAC)
    DHCP_COOKIE = ("dhcp-cookie", 32, Kind.NUMBER)
    DHCP_OPTIONS = ("dhcp-options", 128, Kind.NUMBER)
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


@dataclass(frozen=True)
class Equals:
    """field == value"""

    value: int


@dataclass(frozen=True)
class Masked:
    """field & mask == value; `value` has no bit outside `mask`."""

    mask: int
    value: int


@dataclass(frozen=True)
class Between:
    """low <= field <= high"""

    low: int
    high: int


@dataclass(frozen=True)
class Present:
    """A header option of this kind is there (TCP_OPTION)."""

    kind: int


@dataclass(frozen=True)
class SameAs:
    """Equals another field of the same frame."""

    other: Field


@dataclass(frozen=True)
class AnyState:
    """Connection state is one of "new", "established", "related", "invalid", "untracked" (CT_STATE)."""

    states: frozenset[str]


@dataclass(frozen=True)
class InSet:
    """field (& the set's mask) is in the named set; `fields` are further dimensions of it."""

    set: NamedSet
    fields: tuple[Field, ...] = ()


@dataclass(frozen=True)
class CountAbove:
    """The tracked connections counted in `set` under this packet's `field` are more than `limit`."""

    set: NamedSet
    limit: int


Test = Union[Equals, Masked, Between, Present, SameAs, AnyState, InSet, CountAbove]


@dataclass(frozen=True)
class Match:
    """One condition: `field` passes `test`; or, negated, the field is there and doesn't pass it."""

    field: Field
    test: Test
    negated: bool = False


class Purpose(enum.Enum):
    """What a named set is for; decides its name and who may empty it."""

    LEARNED = "learned-ip"
    LEASED = "leased"
    UNREAD = "unread-lease"
    CONNLIMIT = "connlimit"
    IPSET = "ipset"


@dataclass(frozen=True)
class NamedSet:
    """
    A set of the table that lives beside the chains.

    Attributes:
        name: the ipset's name; for CONNLIMIT a number that is unique for the tap; "" for what is learned.
        mask: what is stored of an address: all of it (None), or the address under this mask (LEARNED).
        dimensions: addresses per element (IPSET).
        size: how many elements are learned, beside `initial`; a further one isn't stored, and its rule doesn't apply.
        initial: elements that are there from the beginning.
        newest: a further element replaces the one that is there (size is 1).
    """

    purpose: Purpose
    name: str
    kind: Kind
    mask: int | None = None
    dimensions: int = 1
    size: int = 1
    initial: tuple[int, ...] = ()
    newest: bool = False


class Tree(enum.Enum):
    """The four places where a tap's traffic is filtered; "from" is what the guest sends."""

    FROM_L2 = "from"
    TO_L2 = "to"
    FROM_L3 = "from-l3"
    TO_L3 = "to-l3"


class Verdict(enum.Enum):
    """What a rule does with the packet. LEARN stores and goes on, as CONTINUE does; see NamedSet for a full set."""

    ACCEPT = "accept"
    DROP = "drop"
    REJECT = "reject"
    RETURN = "return"
    CONTINUE = "continue"
    JUMP = "jump"
    LEARN = "learn"


@dataclass(frozen=True)
class Rule:
    """
    All matches hold: the verdict is given.

    Attributes:
        matches: in the order they must be tested (link layer before network before transport).
        target: sub-chain of the same tree to jump to (JUMP).
        stores: the sets the field goes to, in this order; nothing more is stored once a set is full (LEARN).
        filter, source: where it comes from.
    """

    matches: tuple[Match, ...]
    verdict: Verdict
    filter: str
    source: Source
    target: str | None = None
    stores: tuple[tuple[Field, NamedSet], ...] = ()


@dataclass(frozen=True)
class Chain:
    """One chain: `name` is None for the tree's root, else the sub-chain's name."""

    tree: Tree
    name: str | None
    rules: tuple[Rule, ...]


class Attachment(enum.Enum):
    """
    How a tap's traffic is seen: as a bridge port (table `bridge`), or on the device itself (table `netdev`).

    What the guest sends comes in through a tap's ingress, but goes out through a macvtap's egress.
    """

    BRIDGE_PORT = "bridge-port"
    DEVICE = "device"
    MACVTAP = "macvtap"

    @property
    def family(self) -> str:
        return "bridge" if self is Attachment.BRIDGE_PORT else "netdev"


@dataclass(frozen=True)
class Ruleset:
    """
    Everything one tap needs.

    Attributes:
        chains: roots before their sub-chains.
        sets: what the rules name.
        notes: what the administrator should know, one line each.
    """

    tap: str
    attachment: Attachment
    chains: tuple[Chain, ...]
    sets: tuple[NamedSet, ...]
    notes: tuple[str, ...] = ()
