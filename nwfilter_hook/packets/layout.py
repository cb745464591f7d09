"""
Headers as octets, checksums right. RFC 791, 826, 768, 2131, 4861, 8200, 8415, 9293, IEEE 802.1D.

In:  field values as numbers.
Out: bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from ..ruleset.numbers import DHCP_COOKIE, EtherType, Protocol

BROADCAST = 0xFFFFFFFFFFFF
BRIDGE_GROUP = 0x0180C2000000
"""Where bridges listen for spanning tree, IEEE 802.1D."""
MORE_FRAGMENTS = 0x2000
LATER_OFFSET = 185
"""In units of 8 octets: where the second fragment of a packet begins on an Ethernet."""
_DONT_FRAGMENT = 0x4000
_IDENTIFICATION = 1
_HOPS, _NEIGHBOUR_HOPS = 64, 255
_WINDOW = 64240


def octets(value: int, bits: int) -> bytes:
    """A number of so many bits, in network byte order."""
    return value.to_bytes(bits // 8, "big")


def ethernet(src: int, dst: int, ether_type: int, payload: bytes, tag: tuple[int, int] | None = None) -> bytes:
    """A frame; `tag` is a VLAN tag's EtherType and number."""
    between = b"" if tag is None else struct.pack("!HH", *tag)
    return octets(dst, 48) + octets(src, 48) + between + octets(ether_type, 16) + payload


def checksum(data: bytes) -> int:
    """The internet checksum, RFC 1071."""
    total: int = sum(struct.unpack(f"!{len(data) // 2 + len(data) % 2}H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ipv4(src: int, dst: int, protocol: int, payload: bytes, *, dscp: int = 0, fragment: str = "") -> bytes:
    """An IPv4 packet; `fragment` is "first" or "later" for one of a packet's fragments."""
    flags = {"first": MORE_FRAGMENTS, "later": LATER_OFFSET}.get(fragment, _DONT_FRAGMENT)
    head = struct.pack("!BBHHHBB", 0x45, dscp << 2, 20 + len(payload), _IDENTIFICATION, flags, _HOPS, protocol)
    addresses = octets(src, 32) + octets(dst, 32)
    return head + octets(checksum(head + addresses), 16) + addresses + payload


def ipv6(src: int, dst: int, protocol: int, payload: bytes, *, dscp: int = 0, fragment: str = "") -> bytes:
    """An IPv6 packet; `fragment` as in `ipv4`."""
    following = protocol
    if fragment:
        where = 1 if fragment == "first" else LATER_OFFSET << 3
        payload = struct.pack("!BBHI", protocol, 0, where, _IDENTIFICATION) + payload
        following = Protocol.FRAGMENT
    hops = _NEIGHBOUR_HOPS if protocol == Protocol.ICMPV6 else _HOPS
    head = struct.pack("!IHBB", 6 << 28 | dscp << 22, len(payload), following, hops)
    return head + octets(src, 128) + octets(dst, 128) + payload


def _summed(segment: bytes, at: int, src: int, dst: int, bits: int, protocol: int) -> bytes:
    """`segment` with its checksum at `at`, over addresses of so many bits, too."""
    pseudo = octets(src, bits) + octets(dst, bits) + struct.pack("!IHBB", len(segment), 0, 0, protocol)
    found = checksum(pseudo + segment) or 0xFFFF
    return segment[:at] + octets(found, 16) + segment[at + 2 :]


def tcp(
    src: int, dst: int, bits: int, ports: tuple[int, int], flags: int, options: Iterable[int], payload: bytes
) -> bytes:
    """A TCP segment; `options` are the kinds of those that it has, each without a value."""
    listed = b"".join(bytes([kind]) if kind <= 1 else bytes([kind, 2]) for kind in options)
    listed += b"\0" * (-len(listed) % 4)
    acknowledged = 1 if flags & 0x10 else 0
    words = 5 + len(listed) // 4
    head = struct.pack("!HHIIBBHHH", *ports, 1, acknowledged, words << 4, flags, _WINDOW, 0, 0)
    return _summed(head + listed + payload, 16, src, dst, bits, Protocol.TCP)


def udp(src: int, dst: int, bits: int, ports: tuple[int, int], payload: bytes) -> bytes:
    """A UDP datagram."""
    return _summed(struct.pack("!HHHH", *ports, 8 + len(payload), 0) + payload, 6, src, dst, bits, Protocol.UDP)


def icmp(kind: int, code: int, body: bytes) -> bytes:
    """An ICMP message; the body begins behind the checksum."""
    head = bytes((kind, code))
    return head + octets(checksum(head + bytes(2) + body), 16) + body


def icmpv6(src: int, dst: int, kind: int, code: int, body: bytes) -> bytes:
    """An ICMPv6 message."""
    return _summed(bytes((kind, code, 0, 0)) + body, 2, src, dst, 128, Protocol.ICMPV6)


def arp(opcode: int, src_mac: int, src: int, dst_mac: int, dst: int) -> bytes:
    """An ARP or RARP message about Ethernet and IPv4."""
    head = struct.pack("!HHBBH", 1, EtherType.IPV4, 6, 4, opcode)
    return head + octets(src_mac, 48) + octets(src, 32) + octets(dst_mac, 48) + octets(dst, 32)


def dhcp(operation: int, client: int, own: int, offered: int, options: bytes) -> bytes:
    """A DHCP message: `operation` 1 of a client, 2 of a server; `own` is ciaddr, `offered` yiaddr."""
    head = struct.pack("!BBBBIHHIIII", operation, 1, 6, 0, 1, 0, 0, own, offered, 0, 0)
    return head + octets(client, 48) + bytes(10 + 64 + 128) + octets(DHCP_COOKIE, 32) + options + b"\xff"


def stp(sender: int) -> bytes:
    """An IEEE 802.3 payload, its length in front: a spanning tree's configuration message."""
    bridge = b"\x80\x00" + octets(sender, 48)
    message = bytes(5) + bridge + bytes(4) + bridge + b"\x80\x01" + struct.pack("!HHHH", 0, 20 << 8, 2 << 8, 15 << 8)
    return b"\x42\x42\x03" + message
