"""
A frame from hexadecimal text.

In:  digits, or what `tcpdump -xx` (-XX), Wireshark (Copy as …), `hexdump -C` or `xxd` print.
Out: octets.
"""

from __future__ import annotations

import re

from ..base.errors import PacketError

_OFFSET = re.compile(r"\s*(?:0x)?([0-9a-fA-F]{4,8})(?::|\s\s)\s*(.*)")
_WIDE = re.compile(r"\s{3,}|\|")
_SEPARATORS = re.compile(r"\\x|0x|[\s:,.;-]")
_LONGEST = 65_535 + 18
_LEAST = 14
_MAX_TEXT = 1 << 20


def parse_hex(text: str) -> bytes:
    """
    The frame that `text` shows.

    Raises:
        PacketError: it shows none, or more than one.
    """
    if len(text) > _MAX_TEXT:
        raise PacketError(f"hex: more than {_MAX_TEXT} characters")
    lines = [line for line in text.splitlines() if line.strip()]
    first = next((line for line in lines if (found := _OFFSET.fullmatch(line)) and int(found[1], 16) == 0), None)
    data = _digits(text) if first is None else _dump(lines)
    if len(data) < _LEAST:
        raise PacketError(f"hex: {len(data)} octets are no Ethernet frame, which has {_LEAST} at least")
    if len(data) > _LONGEST:
        raise PacketError(f"hex: {len(data)} octets are more than a frame can have, {_LONGEST}")
    if _is_bare_ip(data):
        raise PacketError("hex: an IP packet without its Ethernet header; tcpdump prints that with -xx (not -x)")
    return data


def _digits(text: str) -> bytes:
    plain = _SEPARATORS.sub("", text)
    wrong = next((char for char in plain if char not in "0123456789abcdefABCDEF"), None)
    if wrong is not None:
        raise PacketError(f"hex: {wrong!r} is no hexadecimal digit")
    if len(plain) % 2:
        raise PacketError(f"hex: {len(plain)} digits; every octet has two")
    return bytes.fromhex(plain)


def _dump(lines: list[str]) -> bytes:
    """Lines with an offset in front; what tcpdump prints above them is passed over."""
    data = bytearray()
    for line in lines:
        found = _OFFSET.fullmatch(line)
        if found is None:
            continue
        offset = int(found[1], 16)
        if offset == 0 and data:
            raise PacketError("hex: more than one frame; give one, or --pcap with --number")
        if offset != len(data):
            raise PacketError(f"hex: the line at {offset:#06x} should be at {len(data):#06x}: a line is missing")
        octets = bytearray()
        for group in _WIDE.split(found[2])[0].split():
            if len(octets) >= 16 or len(group) % 2 or not re.fullmatch(r"[0-9a-fA-F]+", group):
                break
            octets += bytes.fromhex(group)
        if not octets:
            raise PacketError(f"hex: no octets in the line at {offset:#06x}")
        data += octets[:16]
    return bytes(data)


def _is_bare_ip(data: bytes) -> bool:
    """An IP header that fits its own length, where an Ethernet header should be."""
    if data[0] >> 4 == 4 and data[0] & 15 >= 5:
        return int.from_bytes(data[2:4], "big") == len(data)
    return data[0] >> 4 == 6 and int.from_bytes(data[4:6], "big") + 40 == len(data)
