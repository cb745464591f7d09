"""
The nwfilter language as one table: every protocol element, every attribute, its type and the field it tests.

The parser, the resolver and the compiler all read this table; none of them names an element. What an attribute means
beyond "the field equals the value" stands in its `mask` (the attribute that holds its mask) and `end` (the end of a
range that it starts). Facts: https://libvirt.org/formatnwfilter.html, "Supported protocols".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..base.dataclass import dataclass, replace
from ..ruleset.fields import Field
from ..ruleset.numbers import EtherType, Protocol
from .types import (
    BOOLEAN,
    CONNLIMIT,
    DSCP,
    ENCAPTYPE,
    ETHERTYPE,
    IP_ADDR,
    IP_MASK,
    IPSETFLAGS,
    IPSETNAME,
    IPV6_ADDR,
    IPV6_MASK,
    MAC_ADDR,
    MAC_MASK,
    OPCODE,
    PROTOCOL,
    PROTOCOLTYPE,
    STATES,
    STRING,
    TAGGED,
    TCPFLAGS,
    UINT8,
    UINT16,
    UINT32,
    VLANID,
    Type,
)


@dataclass(frozen=True)
class Attribute:
    """
    One attribute of a protocol element.

    Attributes:
        type: how its values are read and written.
        field: what it tests, or None if another attribute says (a mask, an end) or if it has a meaning of its own.
        mask, end: names of the attributes that complete it.
        begins: where a range begins of which only the end is given; None: the end is ignored then.
        part_of: the attribute it completes; it takes that one's sign and is ignored without it.
        joined_to: the attribute that it makes one condition with, which has the sign of that one.
        signed: whether match='no' may stand beside it.
    """

    name: str
    type: Type
    field: Field | None = None
    mask: str | None = None
    end: str | None = None
    begins: int | None = None
    part_of: str | None = None
    joined_to: str | None = None
    signed: bool = True


@dataclass(frozen=True)
class Element:
    """
    One protocol element.

    Attributes:
        layer: 2 or 3.
        ether_type: the outer type of the frames it matches, or None for any.
        protocol: IP protocol number (layer 3), or None for any.
        attributes: by name, in the order in which they are tested.
        aliases: other spellings of attribute names, as documents have them.
    """

    name: str
    layer: int
    ether_type: int | None
    protocol: int | None
    attributes: Mapping[str, Attribute]
    aliases: Mapping[str, str]

    @property
    def is_ipv6(self) -> bool:
        return self.ether_type == EtherType.IPV6


_MASK_TYPES = {"MAC_ADDR": MAC_MASK, "IP_ADDR": IP_MASK, "IPV6_ADDR": IPV6_MASK}


def _plain(name: str, type_: Type, field: Field) -> tuple[Attribute, ...]:
    return (Attribute(name, type_, field),)


def _masked(name: str, mask: str, kind: Type, field: Field) -> tuple[Attribute, ...]:
    return Attribute(name, kind, field, mask=mask), Attribute(mask, _MASK_TYPES[kind.name], part_of=name)


def _range(start: str, end: str, type_: Type, field: Field, *, begins: int | None = None) -> tuple[Attribute, ...]:
    return Attribute(start, type_, field, end=end, begins=begins), Attribute(end, type_, part_of=start)


def _joined(head: str, attributes: tuple[Attribute, ...], *, needed: bool = False) -> tuple[Attribute, ...]:
    """One condition with `head`; `needed`: none without it."""
    first, *rest = attributes
    return replace(first, joined_to=head, part_of=head if needed else None), *rest


_ETHERNET_SOURCE = _masked("srcmacaddr", "srcmacmask", MAC_ADDR, Field.ETHER_SRC)
_ETHERNET = _ETHERNET_SOURCE + _masked("dstmacaddr", "dstmacmask", MAC_ADDR, Field.ETHER_DST)
_PORTS = _range("srcportstart", "srcportend", UINT16, Field.SRC_PORT) + _range(
    "dstportstart", "dstportend", UINT16, Field.DST_PORT
)
_COMMENT = (Attribute("comment", STRING),)

# ours: libvirt looks neither behind a VLAN tag nor into SNAP, and doesn't tell fragments from whole packets
_TAGGED = (Attribute("tagged", TAGGED, signed=False),)
_SNAP = (Attribute("snap", BOOLEAN, signed=False),)
_LATER_FRAGMENT = (Attribute("laterfragment", BOOLEAN, signed=False),)


def _addresses(kind: Type, source: Field, destination: Field) -> tuple[Attribute, ...]:
    return _masked("srcipaddr", "srcipmask", kind, source) + _masked("dstipaddr", "dstipmask", kind, destination)


_ARP = (
    _ETHERNET
    + _plain("hwtype", UINT16, Field.ARP_HTYPE)
    + _plain("protocoltype", PROTOCOLTYPE, Field.ARP_PTYPE)
    + _plain("opcode", OPCODE, Field.ARP_OPCODE)
    + _plain("arpsrcmacaddr", MAC_ADDR, Field.ARP_SRC_MAC)
    + _plain("arpdstmacaddr", MAC_ADDR, Field.ARP_DST_MAC)
    + _masked("arpsrcipaddr", "arpsrcipmask", IP_ADDR, Field.ARP_SRC_IP)
    + _masked("arpdstipaddr", "arpdstipmask", IP_ADDR, Field.ARP_DST_IP)
    + (Attribute("gratuitous", BOOLEAN),)
    + _TAGGED
    + _COMMENT
)

_STP = (
    _ETHERNET_SOURCE
    + _plain("type", UINT8, Field.STP_TYPE)
    + _plain("flags", UINT8, Field.STP_FLAGS)
    + _range("root-priority", "root-priority-hi", UINT16, Field.STP_ROOT_PRIORITY)
    + _masked("root-address", "root-address-mask", MAC_ADDR, Field.STP_ROOT_ADDRESS)
    + _range("root-cost", "root-cost-hi", UINT32, Field.STP_ROOT_COST)
    + _range("sender-priority", "sender-priority-hi", UINT16, Field.STP_SENDER_PRIORITY)
    + _masked("sender-address", "sender-address-mask", MAC_ADDR, Field.STP_SENDER_ADDRESS)
    + _range("port", "port-hi", UINT16, Field.STP_PORT)
    + _range("age", "age-hi", UINT16, Field.STP_AGE)
    + _range("max-age", "max-age-hi", UINT16, Field.STP_MAX_AGE)
    + _range("hello-time", "hello-time-hi", UINT16, Field.STP_HELLO_TIME)
    + _range("forward-delay", "forward-delay-hi", UINT16, Field.STP_FORWARD_DELAY)
    + _COMMENT
)
STP_ALIASES = {"port_hi": "port-hi", "msg-age": "age", "msg-age-hi": "age-hi"}

_IP = (
    _ETHERNET
    + _addresses(IP_ADDR, Field.IP_SRC, Field.IP_DST)
    + _plain("protocol", PROTOCOL, Field.IP_PROTOCOL)
    + _PORTS
    + _plain("dscp", DSCP, Field.IP_DSCP)
    + _TAGGED
    + _LATER_FRAGMENT
    # ours: DHCP, which libvirt has no words for
    + _plain("dhcpop", UINT8, Field.DHCP_OP)
    + _plain("dhcpciaddr", IP_ADDR, Field.DHCP_OWN)
    + _plain("dhcpgiaddr", IP_ADDR, Field.DHCP_RELAY)
    + _plain("dhcpchaddr", MAC_ADDR, Field.DHCP_CLIENT)
    + _COMMENT
)
_IPV6 = (
    _ETHERNET
    + _addresses(IPV6_ADDR, Field.IP6_SRC, Field.IP6_DST)
    + _plain("protocol", PROTOCOL, Field.L4_PROTOCOL)
    + _PORTS
    + _range("type", "typeend", UINT8, Field.ICMPV6_TYPE, begins=0)
    + _joined("type", _range("code", "codeend", UINT8, Field.ICMPV6_CODE, begins=0))
    + _TAGGED
    + _LATER_FRAGMENT
    # ours: neighbour discovery and DHCPv6, which libvirt has no words for
    + _plain("ndlength", UINT16, Field.IP6_LENGTH)
    + _plain("ndtarget", IPV6_ADDR, Field.ND_TARGET)
    + _plain("ndmacaddr", MAC_ADDR, Field.ND_MAC)
    + _range("dhcptype", "dhcptypeend", UINT8, Field.DHCP6_TYPE, begins=0)
    + _COMMENT
)

IMPLIED_PROTOCOLS = {
    **dict.fromkeys(
        ("type", "typeend", "code", "codeend", "ndlength", "ndtarget", "ndmacaddr"), ("icmpv6", Protocol.ICMPV6)
    ),
    **dict.fromkeys(
        ("dhcpop", "dhcpciaddr", "dhcpgiaddr", "dhcpchaddr", "dhcptype", "dhcptypeend"), ("udp", Protocol.UDP)
    ),
}
"""Attributes of <ip> and <ipv6> that imply a `protocol`, and which."""

# Only these two layer 3 families' names differ: <tcp>, <tcp-ipv6>. (IPv4 name, IPv6 name, protocol number)
_L3_ELEMENTS = (
    ("tcp", "tcp-ipv6", Protocol.TCP),
    ("udp", "udp-ipv6", Protocol.UDP),
    ("udplite", "udplite-ipv6", Protocol.UDPLITE),
    ("esp", "esp-ipv6", Protocol.ESP),
    ("ah", "ah-ipv6", Protocol.AH),
    ("sctp", "sctp-ipv6", Protocol.SCTP),
    ("icmp", None, Protocol.ICMP),
    (None, "icmpv6", Protocol.ICMPV6),
    ("igmp", "igmp-ipv6", Protocol.IGMP),
    ("all", "all-ipv6", None),
)
_L3_WITH_PORTS = (Protocol.TCP, Protocol.UDP, Protocol.SCTP)
_L3_WITH_MAC_MASKS = ("udplite", "esp", "ah", "icmp", "igmp", "all")  # in the 2010 document only
_ICMP = {Protocol.ICMP: (Field.ICMP_TYPE, Field.ICMP_CODE), Protocol.ICMPV6: (Field.ICMPV6_TYPE, Field.ICMPV6_CODE)}


def _l3_attributes(name: str, protocol: int | None, *, ipv6: bool) -> tuple[Attribute, ...]:
    kind = IPV6_ADDR if ipv6 else IP_ADDR
    source, destination = (Field.IP6_SRC, Field.IP6_DST) if ipv6 else (Field.IP_SRC, Field.IP_DST)
    attributes = (
        (_ETHERNET if name in _L3_WITH_MAC_MASKS else _plain("srcmacaddr", MAC_ADDR, Field.ETHER_SRC))
        + _addresses(kind, source, destination)
        + _range("srcipfrom", "srcipto", kind, source)
        + _range("dstipfrom", "dstipto", kind, destination)
        + _plain("dscp", DSCP, Field.IP6_DSCP if ipv6 else Field.IP_DSCP)
    )
    if protocol in _L3_WITH_PORTS:
        attributes += _PORTS
    if protocol == Protocol.TCP:
        attributes += (Attribute("option", UINT8, Field.TCP_OPTION), Attribute("flags", TCPFLAGS, Field.TCP_FLAGS))
    if protocol in _ICMP:
        type_, code = _ICMP[protocol]
        attributes += _range("type", "typeend", UINT8, type_, begins=0)
        attributes += _joined("type", _range("code", "codeend", UINT8, code, begins=0), needed=True)
    return (
        *attributes,
        Attribute("connlimit-above", CONNLIMIT),
        Attribute("state", STATES),
        Attribute("ipset", IPSETNAME),
        Attribute("ipsetflags", IPSETFLAGS, part_of="ipset"),
        *_COMMENT,
    )


def _elements() -> Iterable[Element]:
    def element(
        name: str,
        layer: int,
        ether_type: int | None,
        attributes: Iterable[Attribute],
        protocol: int | None = None,
        aliases: Mapping[str, str] | None = None,
    ) -> Element:
        by_name = {attribute.name: attribute for attribute in attributes}
        return Element(name, layer, ether_type, protocol, by_name, aliases or {})

    mac_type = _plain("protocolid", ETHERTYPE, Field.ETHER_TYPE)
    vlan = _plain("vlanid", VLANID, Field.VLAN_ID) + _plain("encap-protocol", ENCAPTYPE, Field.VLAN_TYPE)
    yield element("mac", 2, None, _ETHERNET + mac_type + _SNAP + _COMMENT)
    yield element("vlan", 2, EtherType.VLAN, _ETHERNET + vlan + _SNAP + _COMMENT)
    yield element("stp", 2, None, _STP, aliases=STP_ALIASES)
    yield element("arp", 2, EtherType.ARP, _ARP)
    yield element("rarp", 2, EtherType.RARP, _ARP)
    yield element("ip", 2, EtherType.IPV4, _IP)
    yield element("ipv6", 2, EtherType.IPV6, _IPV6)
    for ipv4_name, ipv6_name, protocol in _L3_ELEMENTS:
        if ipv4_name:
            yield element(ipv4_name, 3, EtherType.IPV4, _l3_attributes(ipv4_name, protocol, ipv6=False), protocol)
        if ipv6_name:
            yield element(ipv6_name, 3, EtherType.IPV6, _l3_attributes(ipv6_name, protocol, ipv6=True), protocol)


ELEMENTS: dict[str, Element] = {element.name: element for element in _elements()}
"""Element by name: mac, vlan, stp, arp, rarp, ip, ipv6 (layer 2), and tcp … all-ipv6 (layer 3)."""

PORT_PROTOCOLS = (Protocol.TCP, Protocol.UDP, Protocol.DCCP, Protocol.SCTP)
"""The protocols that may stand beside ports on <ip> and <ipv6>: tcp, udp, dccp, sctp."""

CHAIN_PRIORITIES = {
    "stp": -810,
    "mac": -800,
    "vlan": -750,
    "ipv4": -700,
    "ipv6": -600,
    "arp": -500,
    "rarp": -400,
}
"""Default priority of a chain by the beginning of its name. "Filtering chains" in the libvirt document."""


def chain_prefix(chain: str) -> str | None:
    """The known beginning of a chain's name, or None: "arp" for "arp-mac", None for "root" and for unknown names."""
    return next((prefix for prefix in CHAIN_PRIORITIES if chain.startswith(prefix)), None)
