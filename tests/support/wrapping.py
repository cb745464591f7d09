"""
What a message can be wrapped in so that a filter which looks for it in a plain frame doesn't see it.

In:  a frame with IPv4 or IPv6 in it.
Out: by name, the frames that carry the same message. Hosts, or what stands between them, unwrap each of these.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from tests.support.frames import snap, vlan

ETHERNET, IPV4, IPV6 = 14, 20, 40
AH, MOBILITY, HIP, SHIM6, DESTINATION, FRAGMENT = 51, 135, 139, 140, 60, 44


def in_tags(frame: bytes) -> dict[str, bytes]:
    """Behind tags and in IEEE 802.3, whatever the frame holds."""
    bridged = frame[:12] + (8 + len(frame) - 14).to_bytes(2, "big") + bytes.fromhex("aaaa030000f8") + frame[12:]
    return {
        "vlan-0": vlan(frame, 0),
        "vlan-7": vlan(frame, 7),
        "vlan-0-priority-7": vlan(frame, 0xE000),
        "802.1ad-0": vlan(frame, 0, ethertype=0x88A8),
        "802.1ad-7": vlan(frame, 7, ethertype=0x88A8),
        "qinq-9100": vlan(frame, 0, ethertype=0x9100),
        "vlan-0-twice": vlan(vlan(frame, 0), 0),
        "vlan-0-three-times": vlan(vlan(vlan(frame, 0), 0), 0),
        "802.1ad-in-vlan-0": vlan(vlan(frame, 0, ethertype=0x88A8), 0),
        "vlan-0-in-802.1ad": vlan(vlan(frame, 0), 0, ethertype=0x88A8),
        "snap": snap(frame),
        "snap-802.1h": bridged,
        "snap-in-vlan-0": vlan(snap(frame), 0),
        "vlan-0-in-snap": snap(vlan(frame, 0)),
    }


ONE_TAG = ("vlan-0", "vlan-7", "vlan-0-priority-7")
READABLE = ("destination-options", "whole-in-a-fragment", "ah-in-vlan-0")


def in_two_tags(frame: bytes) -> dict[str, bytes]:
    """Those of `in_tags` that no filter can look into."""
    return {name: wrapped for name, wrapped in in_tags(frame).items() if name not in ONE_TAG}


def behind_unusual_headers(frame: bytes) -> dict[str, bytes]:
    """Those of `behind_headers`, in no tag, that no filter can look behind."""
    return {name: wrapped for name, wrapped in behind_headers(frame).items() if name not in READABLE}


def behind_headers(frame: bytes) -> dict[str, bytes]:
    """IPv6 behind extension headers that the kernel's filter doesn't look behind, and behind those it does."""
    return {
        "ah": extended(frame, AH),
        "mobility": extended(frame, MOBILITY),
        "hip": extended(frame, HIP),
        "shim6": extended(frame, SHIM6),
        "ah-behind-destination-options": extended(frame, DESTINATION, AH),
        "hip-behind-fragment": extended(frame, FRAGMENT, HIP),
        "ah-in-vlan-0": vlan(extended(frame, AH), 0),
        "destination-options": extended(frame, DESTINATION),
        "whole-in-a-fragment": extended(frame, FRAGMENT),
        "payload-length-too-long": frame[:18] + struct.pack("!H", len(frame)) + frame[20:],
    }


def in_fragments(frame: bytes) -> list[bytes]:
    """An IPv6 packet in two fragments: the first has extension headers only, all of the message is in the second."""
    options = bytes((frame[20], 0, 1, 4, 0, 0, 0, 0))
    return [
        _ipv6(frame, FRAGMENT, _fragment(DESTINATION, 0, more=True) + options),
        _ipv6(frame, FRAGMENT, _fragment(DESTINATION, 8, more=False) + frame[ETHERNET + IPV6 :]),
    ]


def in_nested_fragments(frame: bytes) -> list[bytes]:
    """The same, in a fragment that is whole."""
    first, second = in_fragments(frame)
    return [extended(first, FRAGMENT), extended(second, FRAGMENT)]


def extended(frame: bytes, *headers: int) -> bytes:
    """An IPv6 packet with these extension headers, of 8 octets each (AH: 24), the first next to the IPv6 header."""
    body, following = frame[ETHERNET + IPV6 :], frame[20]
    for header in reversed(headers):
        if header == FRAGMENT:
            body = _fragment(following, 0, more=False) + body
        elif header == AH:
            body = struct.pack("!BBHII", following, 4, 0, 1, 1) + bytes(12) + body
        else:
            body = bytes((following, 0, 1, 4, 0, 0, 0, 0)) + body
        following = header
    return _ipv6(frame, following, body)


def fragmented(frame: bytes, size: int = 64, *, header: int | None = None) -> list[bytes]:
    """
    An IPv4 or IPv6 packet in fragments of `size` octets, a multiple of 8.

    Args:
        header: what the fragment headers of IPv6 say that follows, if not what does.
    """
    six = frame[12:14] == b"\x86\xdd"
    body = frame[ETHERNET + (IPV6 if six else IPV4) :]
    parts = []
    for at in range(0, len(body), size):
        more = at + size < len(body)
        part = body[at : at + size]
        if six:
            parts.append(_ipv6(frame, FRAGMENT, _fragment(header or frame[20], at, more=more) + part))
        else:
            parts.append(ipv4_with(frame, part, fragment=at // 8 | (0x2000 if more else 0)))
    return parts


def ipv4_with(
    frame: bytes, body: bytes, *, fragment: int = 0, protocol: int | None = None, total: int | None = None
) -> bytes:
    """The frame's IPv4 header before another body; `total` in place of the right length."""
    header = bytearray(frame[ETHERNET : ETHERNET + IPV4])
    header[2:4] = struct.pack("!H", IPV4 + len(body) if total is None else total)
    header[6:8] = struct.pack("!H", fragment)
    if protocol is not None:
        header[9] = protocol
    header[10:12] = b"\0\0"
    header[10:12] = struct.pack("!H", _checksum(header))
    return frame[:ETHERNET] + bytes(header) + body


def in_ipv4(frame: bytes) -> dict[str, bytes]:
    """IPv4 behind an Authentication header, and with a length that no filter believes."""
    body = frame[ETHERNET + IPV4 :]
    header = struct.pack("!BBHII", frame[23], 4, 0, 1, 1) + bytes(12)
    return {
        "ah": ipv4_with(frame, header + body, protocol=AH),
        "length-too-long": ipv4_with(frame, body, total=len(frame)),
    }


def _ipv6(frame: bytes, following: int, body: bytes) -> bytes:
    header = frame[ETHERNET : ETHERNET + 4] + struct.pack("!HB", len(body), following) + frame[21 : ETHERNET + IPV6]
    return frame[:ETHERNET] + header + body


def _fragment(following: int, offset: int, *, more: bool) -> bytes:
    return struct.pack("!BBHI", following, 0, offset | int(more), 7)


def _checksum(data: Sequence[int]) -> int:
    total = sum(data[at] << 8 | data[at + 1] for at in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
