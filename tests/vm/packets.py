"""
Packets as bytes, for what no honest socket sends.

Not by scapy, as elsewhere: to import it takes half a minute in the VM.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

from tests.vm.lan import Station

ETH_IP = 0x0800
ETH_IPV6 = 0x86DD
ETH_8021Q = 0x8100


def ethernet(
    source: str, destination: str, payload: bytes, *, ethertype: int = ETH_IP, vlanid: int | None = None
) -> bytes:
    """A frame; with `vlanid` in an 802.1Q tag."""
    tag = b"" if vlanid is None else struct.pack("!HH", ETH_8021Q, vlanid)
    macs = bytes.fromhex(destination.replace(":", "") + source.replace(":", ""))
    return macs + tag + struct.pack("!H", ethertype) + payload


def udp(source: object, sport: int, destination: object, dport: int, data: bytes = b"data") -> bytes:
    """An IPv4 packet with a UDP datagram (which has no checksum)."""
    return ipv4(source, destination, socket.IPPROTO_UDP, struct.pack("!HHHH", sport, dport, 8 + len(data), 0) + data)


def ipv4(source: object, destination: object, protocol: int, payload: bytes) -> bytes:
    """An IPv4 packet; the addresses are anything whose str() is one."""
    return b"".join(fragments(source, destination, protocol, payload, size=65000))


def fragments(source: object, destination: object, protocol: int, payload: bytes, *, size: int) -> Iterator[bytes]:
    """The same, cut into fragments that carry `size` bytes each, a multiple of 8."""
    for offset in range(0, len(payload), size):
        piece = payload[offset : offset + size]
        more = 0x2000 if offset + size < len(payload) else 0
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(piece), 7, more | offset // 8, 64, protocol, 0)
        header += socket.inet_aton(str(source)) + socket.inet_aton(str(destination))
        yield header[:10] + struct.pack("!H", checksum(header)) + header[12:] + piece


def fragments6(source: object, destination: object, protocol: int, payload: bytes, *, size: int) -> Iterator[bytes]:
    """The fragments of an IPv6 packet, each of `size` bytes but the last: 48 of headers, the others a multiple of 8."""
    room = size - 48
    ends = b"".join(socket.inet_pton(socket.AF_INET6, str(end)) for end in (source, destination))
    for offset in range(0, len(payload), room):
        piece = payload[offset : offset + room]
        more = offset + room < len(payload)
        header = struct.pack("!IHBB", 6 << 28, 8 + len(piece), socket.IPPROTO_FRAGMENT, 64) + ends
        yield header + struct.pack("!BBHI", protocol, 0, offset | more, 7) + piece


def icmp(kind: int, code: int = 0, *, identity: int = 1) -> bytes:
    """An ICMP message with a body of eight bytes."""
    body = struct.pack("!HH", identity, 1) + b"payload."
    return struct.pack("!BBH", kind, code, checksum(struct.pack("!BBH", kind, code, 0) + body)) + body


def icmpv6(source: object, destination: object, kind: int) -> bytes:
    """An ICMPv6 message with a body of eight bytes, and the checksum that no kernel fills in behind another header."""
    message = icmp(kind)[4:]
    sum_ = checksum6(source, destination, socket.IPPROTO_ICMPV6, struct.pack("!BBH", kind, 0, 0) + message)
    return struct.pack("!BBH", kind, 0, sum_) + message


def udp6(source: object, sport: int, destination: object, dport: int, data: bytes) -> bytes:
    """A UDP datagram as it stands behind an IPv6 header."""
    head = struct.pack("!HHH", sport, dport, 8 + len(data))
    return head + struct.pack("!H", checksum6(source, destination, socket.IPPROTO_UDP, head + bytes(2) + data)) + data


def checksum6(source: object, destination: object, protocol: int, message: bytes) -> int:
    """The checksum of a message in IPv6, its own field being 0 (RFC 8200, 8.1)."""
    ends = b"".join(socket.inet_pton(socket.AF_INET6, str(end)) for end in (source, destination))
    return checksum(ends + struct.pack("!II", len(message), protocol) + message)


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071) of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def send(sender: Station, *frames: bytes) -> None:
    """Put frames on the guest's wire."""
    with sender.inside():
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    with wire:
        wire.bind(("eth0", 0))
        for frame in frames:
            wire.send(frame)
