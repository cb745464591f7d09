"""
What is unusual about a frame, told from its bytes alone: the tests say with it what has really been sent.

In:  a frame. Out: words of `STATELESS_KINDS`, or an error among ICMP messages.

Byte layouts: IEEE 802.1Q, RFC 791, 8200, 9293, 826, 9777 (MLD).
"""

from __future__ import annotations

from collections.abc import Iterator

TAGS = {0x8100: "802.1Q tag", 0x88A8: "802.1ad tag"}
EXTENSIONS = {0: "hop-by-hop", 43: "routing", 44: "fragment header", 51: "AH", 60: "destination options"}
HEADERS = {1: 8, 6: 20, 17: 8, 33: 12, 58: 8, 132: 12, 136: 8}
"""Octets of transport headers, by protocol."""
WITH_PORTS = (6, 17, 33, 132, 136)
MLD = (130, 131, 132, 143)

STATELESS_KINDS = frozenset(
    [
        *TAGS.values(),
        *("priority tag", "two tags"),
        *("cut in ARP", "ARP of other lengths", "cut in a BPDU"),
        *("IPv4 options", "IPv4 first fragment", "IPv4 later fragment", "IPv4 of wrong version"),
        *("IPv4 header length too short", "IPv4 longer than the frame", "IPv4 shorter than its header"),
        *("cut in the IPv4 header", "cut in IPv4 options"),
        *(f"IPv6 {name}" for name in EXTENSIONS.values()),
        *("hop-by-hop before MLD", "hop-by-hop before ICMPv6", "several IPv6 extension headers"),
        *("IPv6 first fragment", "IPv6 later fragment", "IPv6 of wrong version", "IPv6 longer than the frame"),
        *("cut in the IPv6 header", "cut in an IPv6 extension header"),
        *("cut in ports", "cut in the transport header", "TCP options", "TCP header length too short"),
        *("cut in TCP options",),
    ]
)
"""All that `kinds` says, but for errors."""


def kinds(frame: bytes) -> frozenset[str]:
    """Everything unusual about `frame`; of what is inside a tag, nothing."""
    return frozenset(_kinds(frame))


def _kinds(frame: bytes) -> Iterator[str]:
    at, tags = 12, 0
    while (ether_type := _number(frame, at, 2)) in TAGS:
        yield TAGS[ether_type]
        if len(frame) < at + 6:
            return  # the kernel itself drops it
        if not _number(frame, at + 2, 2) & 0xFFF:
            yield "priority tag"
        at, tags = at + 4, tags + 1
    if tags > 1:
        yield "two tags"
    rest = frame[at + 2 :]
    if tags:
        return
    if ether_type == 0x0800:
        yield from _ipv4(rest)
    elif ether_type == 0x86DD:
        yield from _ipv6(rest)
    elif ether_type in (0x0806, 0x8035):
        if len(rest) < 28:
            yield "cut in ARP"
        elif rest[4:6] != b"\6\4":
            yield "ARP of other lengths"
    elif ether_type < 0x600 and len(rest) < 38:
        yield "cut in a BPDU"


def _ipv4(packet: bytes) -> Iterator[str]:
    if len(packet) < 20:
        yield "cut in the IPv4 header"
        return
    length, total = (packet[0] & 15) * 4, _number(packet, 2, 2)
    if packet[0] >> 4 != 4:
        yield "IPv4 of wrong version"
    if length < 20:
        yield "IPv4 header length too short"
        return
    if length > 20:
        yield "IPv4 options" if len(packet) >= length else "cut in IPv4 options"
    if total > len(packet):
        yield "IPv4 longer than the frame"
    if total < length:
        yield "IPv4 shorter than its header"
    fragment = _number(packet, 6, 2)
    if fragment & 0x1FFF:
        yield "IPv4 later fragment"
        return
    if fragment & 0x2000:
        yield "IPv4 first fragment"
    yield from _transport(packet[9], packet[length:])


def _ipv6(packet: bytes) -> Iterator[str]:
    if len(packet) < 40:
        yield "cut in the IPv6 header"
        return
    if packet[0] >> 4 != 6:
        yield "IPv6 of wrong version"
    if _number(packet, 4, 2) > len(packet) - 40:
        yield "IPv6 longer than the frame"
    following, at, seen = packet[6], 40, []
    while following in EXTENSIONS:
        header = packet[at : at + 8]
        if len(header) < 8:
            yield "cut in an IPv6 extension header"
            return
        yield f"IPv6 {EXTENSIONS[following]}"
        seen.append(following)
        if following == 44:
            offset = _number(header, 2, 2)
            yield "IPv6 later fragment" if offset & 0xFFF8 else "IPv6 first fragment"
            if offset & 0xFFF8:
                return
        size = 8 if following == 44 else (header[1] + 2) * 4 if following == 51 else (header[1] + 1) * 8
        following, at = header[0], at + size
    if len(seen) > 1:
        yield "several IPv6 extension headers"
    if seen == [0] and following == 58:
        yield "hop-by-hop before MLD" if packet[at : at + 1] and packet[at] in MLD else "hop-by-hop before ICMPv6"
    yield from _transport(following, packet[at:])


def _transport(protocol: int, segment: bytes) -> Iterator[str]:
    if protocol not in HEADERS:
        return
    if protocol in WITH_PORTS and len(segment) < 4:
        yield "cut in ports"
    elif len(segment) < HEADERS[protocol]:
        yield "cut in the transport header"
    elif protocol == 6:
        length = (segment[12] >> 4) * 4
        if length < 20:
            yield "TCP header length too short"
        elif length > len(segment):
            yield "cut in TCP options"
        elif length > 20:
            yield "TCP options"
    elif (protocol == 1 and segment[0] in (3, 11, 12)) or (protocol == 58 and segment[0] < 128):
        yield f"{'ICMP' if protocol == 1 else 'ICMPv6'} error {segment[0]}"


def _number(data: bytes, at: int, length: int) -> int:
    return int.from_bytes(data[at : at + length], "big")
