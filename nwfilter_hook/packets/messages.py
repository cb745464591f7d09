"""
What ICMP, ICMPv6 and DHCP messages hold behind their headers. RFC 792, 4443, 4861, 2131, 2132.

In:  a message's type, and whom it is from and to.
Out: bytes.
"""

from __future__ import annotations

from ..base.dataclass import dataclass
from ..ruleset.numbers import Protocol
from . import layout, names

_ECHO = b"\0\1\0\1nwfilter-hook"
_ICMP_ERRORS, _ICMPV6_ERRORS = (3, 4, 5, 11, 12), (1, 2, 3, 4)
_SOLICITED_NODE = 0xFF0200000000000000000001FF000000
_ROUTER_ADVERTISEMENT, _SOLICITATION, _ADVERTISEMENT, _REDIRECT = 134, 135, 136, 137
_SOURCE_ADDRESS, _TARGET_ADDRESS = 1, 2
_ANSWERS = ("offer", "ack", "nak")


@dataclass(frozen=True)
class Sides:
    """Whom a packet is from and to."""

    src: int
    dst: int
    src_mac: int
    dst_mac: int


def solicited_node(target: int) -> int:
    """The group that a neighbour solicitation for `target` goes to. RFC 4291, 2.7.1."""
    return _SOLICITED_NODE | target & 0xFFFFFF


def icmp_body(kind: int, sides: Sides) -> bytes:
    """What an ICMP message carries: an error, the packet that it is about, which went the other way."""
    if kind not in _ICMP_ERRORS:
        return _ECHO
    udp = layout.udp(sides.dst, sides.src, 32, (40000, 53), b"")
    return bytes(4) + layout.ipv4(sides.dst, sides.src, Protocol.UDP, udp)


def icmpv6_body(kind: int, sides: Sides, target: int | None, mac: int | None) -> bytes:
    """
    What an ICMPv6 message carries.

    Args:
        target, mac: of a neighbour discovery message; None for what an honest sender has.
    """
    if kind in _ICMPV6_ERRORS:
        udp = layout.udp(sides.dst, sides.src, 128, (40000, 53), b"")
        return bytes(4) + layout.ipv6(sides.dst, sides.src, Protocol.UDP, udp)
    own = layout.octets(sides.src_mac if mac is None else mac, 48)
    if kind == 133:
        return bytes(4) + bytes((_SOURCE_ADDRESS, 1)) + own
    if kind == _ROUTER_ADVERTISEMENT:
        return bytes((64, 0, 7, 8)) + bytes(8) + bytes((_SOURCE_ADDRESS, 1)) + own
    if kind in (_SOLICITATION, _ADVERTISEMENT, _REDIRECT):
        if target is None:
            target = sides.dst if kind == _SOLICITATION else sides.src
        if kind == _REDIRECT:
            return bytes(4) + layout.octets(target, 128) + layout.octets(sides.dst, 128)
        flags = bytes(4) if kind == _SOLICITATION else b"\x60\0\0\0"
        option = _SOURCE_ADDRESS if kind == _SOLICITATION else _TARGET_ADDRESS
        return flags + layout.octets(target, 128) + bytes((option, 1)) + own
    if 130 <= kind <= 132:
        return bytes(4) + layout.octets(sides.dst, 128)
    return _ECHO


def dhcp_message(kind: str, client: int, offered: int | None, sides: Sides) -> bytes:
    """A DHCP message of this kind about the client with this MAC; `offered` is what it gets, or asks for."""
    options = bytes((53, 1, names.DHCP_TYPES[kind]))
    if kind in _ANSWERS:
        options += bytes((54, 4)) + layout.octets(sides.src, 32) + bytes((51, 4)) + layout.octets(3600, 32)
        return layout.dhcp(2, client, 0, offered or 0, options)
    if kind in ("request", "decline") and offered is not None:
        options += bytes((50, 4)) + layout.octets(offered, 32)
    own = sides.src if kind in ("release", "inform") else 0
    return layout.dhcp(1, client, own, 0, options)
