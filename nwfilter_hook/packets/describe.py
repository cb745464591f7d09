"""
A frame in one line, as tcpdump would.

In:  a `Frame`, of whatever octets.
Out: "TCP 192.0.2.7:40000 > 198.51.100.9:443 syn".
"""

from __future__ import annotations

import ipaddress

from ..base.addresses import format_mac
from ..ruleset.fields import Field
from ..ruleset.frame import Frame
from ..ruleset.numbers import DHCP_COOKIE, EtherType, Protocol
from . import names

_SHOWN = {"tcp": "TCP", "udp": "UDP", "icmp": "ICMP", "icmpv6": "ICMPv6", "sctp": "SCTP"}


def describe(frame: Frame) -> str:
    """The frame in one line; every octet of it may be wrong."""
    tag = frame.value(Field.VLAN_ID) if frame.ether_type == EtherType.VLAN else None
    front = "" if tag is None else f"VLAN {tag} "
    if frame.ether_type == EtherType.VLAN_AD:
        front = "802.1ad "
    if frame.inner_type in (EtherType.IPV4, EtherType.IPV6):
        return front + _ip(frame)
    if frame.inner_type in (EtherType.ARP, EtherType.RARP):
        return front + _arp(frame)
    known = names.name_of(names.ETHER_TYPES, frame.inner_type)
    if frame.inner_type < 0x600:
        known = "STP" if frame.value(Field.STP_HEADER) is not None and _is_stp(frame) else "IEEE 802.3"
    elif known == str(frame.inner_type):
        known = f"EtherType {frame.inner_type:#06x}"
    return f"{front}{known} {_macs(frame)}"


def _macs(frame: Frame) -> str:
    return f"{format_mac(frame.value(Field.ETHER_SRC) or 0)} > {format_mac(frame.value(Field.ETHER_DST) or 0)}"


def _is_stp(frame: Frame) -> bool:
    return frame.data[frame.network : frame.network + 3] == b"\x42\x42\x03"


def _arp(frame: Frame) -> str:
    what = "ARP" if frame.inner_type == EtherType.ARP else "RARP"
    opcode, src, dst = (frame.value(each) for each in (Field.ARP_OPCODE, Field.ARP_SRC_IP, Field.ARP_DST_IP))
    if opcode is None or src is None or dst is None:
        return f"{what}, cut off, {_macs(frame)}"
    numbers = names.ARP_OPCODES if what == "ARP" else names.RARP_OPCODES
    mac = format_mac(frame.value(Field.ARP_SRC_MAC) or 0)
    return f"{what} {names.name_of(numbers, opcode)}, {_ipv4(src)} ({mac}) about {_ipv4(dst)}"


def _ipv4(value: int) -> str:
    return str(ipaddress.IPv4Address(value))


def _ip(frame: Frame) -> str:
    version = 4 if frame.inner_type == EtherType.IPV4 else 6
    ends = (Field.IP_SRC, Field.IP_DST) if version == 4 else (Field.IP6_SRC, Field.IP6_DST)
    found = [frame.value(field) for field in ends]
    if found[0] is None or found[1] is None:
        return f"IPv{version}, cut off, {_macs(frame)}"
    write = ipaddress.IPv4Address if version == 4 else ipaddress.IPv6Address
    src, dst = (str(write(address)) for address in found if address is not None)
    transport = frame.transport
    if transport is None:
        return f"IPv{version} {src} > {dst}, its header contradicts itself"
    name = names.name_of(names.PROTOCOLS, transport.protocol)
    shown = _SHOWN.get(name, f"IPv{version} {name if not name.isdigit() else f'protocol {name}'}")
    if transport.offset is None:
        return f"{shown} {src} > {dst}, a later fragment or cut off"
    if transport.protocol in (Protocol.TCP, Protocol.UDP, Protocol.SCTP, Protocol.DCCP, Protocol.UDPLITE):
        ports = [frame.value(field) for field in (Field.SRC_PORT, Field.DST_PORT)]
        if None not in ports:
            src, dst = (f"[{end}]:{port}" if version == 6 else f"{end}:{port}" for end, port in zip((src, dst), ports))
    return f"{shown} {src} > {dst}{_more(frame, transport.protocol)}"


def _more(frame: Frame, protocol: int) -> str:
    if protocol == Protocol.TCP:
        flags = frame.value(Field.TCP_FLAGS)
        return "" if flags is None else f" {names.flags_text(flags)}"
    for number, words, kind, code in (
        (Protocol.ICMP, names.ICMP_TYPES, Field.ICMP_TYPE, Field.ICMP_CODE),
        (Protocol.ICMPV6, names.ICMPV6_TYPES, Field.ICMPV6_TYPE, Field.ICMPV6_CODE),
    ):
        value = frame.value(kind)
        if protocol == number and value is not None:
            subtype = frame.value(code)
            return f" {names.name_of(words, value)}" + (f"/{subtype}" if subtype else "")
    if protocol == Protocol.UDP and frame.value(Field.DHCP_COOKIE) == DHCP_COOKIE:
        options = (frame.value(Field.DHCP_OPTIONS) or 0).to_bytes(16, "big")
        return f" DHCP {names.name_of(names.DHCP_TYPES, options[2])}" if options[:2] == b"\x35\x01" else " DHCP"
    if protocol == Protocol.UDP and frame.value(Field.DST_PORT) in (546, 547):
        kind6 = frame.value(Field.DHCP6_TYPE)
        return "" if kind6 is None else f" DHCPv6 {names.name_of(names.DHCPV6_TYPES, kind6)}"
    return ""
