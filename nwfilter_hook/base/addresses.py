"""
Addresses and names of devices: text to numbers and back.
"""

from __future__ import annotations

import ipaddress
import re

_MAC = re.compile(r"[0-9a-fA-F]{1,2}(:[0-9a-fA-F]{1,2}){5}")
_LINK_LOCAL = ipaddress.IPv6Network("fe80::/10")
_TAP_NAME = re.compile(r"[A-Za-z0-9_.-]{1,15}")


def parse_mac(text: str) -> int:
    """Six groups of one or two hexadecimal digits; returns 48 bits."""
    if not _MAC.fullmatch(text):
        raise ValueError("a MAC address such as 52:54:00:12:34:56")
    value = 0
    for group in text.split(":"):
        value = value << 8 | int(group, 16)
    return value


def format_mac(value: int) -> str:
    """48 bits as 52:54:00:12:34:56."""
    return ":".join(f"{value >> shift & 0xFF:02x}" for shift in range(40, -1, -8))


def prefix_mask(length: int, bits: int) -> int:
    """The mask of `bits` bits with `length` leading ones."""
    return (1 << bits) - (1 << bits - length)


def parse_ipv4(text: str) -> int:
    """Dotted quad, nothing shorter; returns 32 bits."""
    try:
        return int(ipaddress.IPv4Address(text))
    except ValueError:
        raise ValueError("an IPv4 address such as 192.0.2.1, without /length") from None


def parse_ipv6(text: str) -> int:
    """Any numeric IPv6 text without zone; returns 128 bits."""
    try:
        if "%" in text:
            raise ValueError
        return int(ipaddress.IPv6Address(text))
    except ValueError:
        raise ValueError("an IPv6 address such as 2001:db8::1, without /length") from None


def is_tap_name(text: str) -> bool:
    """Whether `text` can name chains, a file and an element of a verdict map; libvirt's own schema allows no more."""
    return _TAP_NAME.fullmatch(text) is not None and text not in (".", "..")


def is_link_local(text: str) -> bool:
    """Whether `text` is an IPv6 address or network within fe80::/10. RFC 4291, 2.5.6."""
    try:
        return ipaddress.IPv6Network(text, strict=False).subnet_of(_LINK_LOCAL)
    except ValueError:
        return False


def link_local(mac: int) -> int:
    """The link-local address that the MAC gives by EUI-64: fe80::5054:ff:fe00:1 for 52:54:00:00:00:01. RFC 4291, A."""
    identifier = (mac >> 24 ^ 0x020000) << 40 | 0xFFFE << 24 | mac & 0xFFFFFF
    return 0xFE80 << 112 | identifier
