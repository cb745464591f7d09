"""
How values are written in attributes of nwfilter: text in, typed value out, and back as libvirt writes them.

Each parser takes the text of an attribute and returns a `Value`, or raises ValueError with what would be accepted.
Accepted forms: https://libvirt.org/formatnwfilter.html, "Supported protocols", and what libvirt's parser takes beyond
it (numbers in hexadecimal with or without 0x, MAC groups of one digit); short and octal IPv4 forms are refused.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping

from ..base.addresses import parse_ipv4, parse_ipv6, parse_mac, prefix_mask
from ..ruleset.numbers import EtherType, Protocol
from .model import Prefix, SetFlags, TcpFlags, Value

Parser = Callable[[str], Value]

ETHERTYPES = {name: getattr(EtherType, name.upper()) for name in ("arp", "rarp", "ipv4", "ipv6", "vlan")}
ARP_OPCODES = {
    "request": 1,
    "reply": 2,
    "request_reverse": 3,
    "reply_reverse": 4,
    "drarp_request": 5,
    "drarp_reply": 6,
    "drarp_error": 7,
    "inarp_request": 8,
    "arp_nak": 9,
}
PROTOCOLS = {
    name: getattr(Protocol, name.upper())
    for name in ("tcp", "udp", "udplite", "esp", "ah", "icmp", "igmp", "sctp", "icmpv6")
}
TCP_FLAG_BITS = {
    "FIN": 0x01,
    "SYN": 0x02,
    "RST": 0x04,
    "PSH": 0x08,
    "ACK": 0x10,
    "URG": 0x20,
    "ALL": 0x3F,
    "NONE": 0,
}
STATES = ("new", "established", "related", "invalid", "none")
_FLAG_ORDER = ("SYN", "ACK", "URG", "PSH", "FIN", "RST")
COMMENT_BYTES = 256  # libvirt cuts longer ones, https://libvirt.org/formatnwfilter.html

DECIMAL = re.compile(r"[ \t]*\+?([0-9]{1,40})")
HEXADECIMAL = re.compile(r"[ \t]*\+?(?:0[xX])?([0-9a-fA-F]{1,40})")
_SET_NAME = re.compile(r"[A-Za-z0-9_.:+ -]{1,31}")


def parse_number(text: str) -> int:
    """Decimal; if that fails, hexadecimal with or without 0x, as C's strtoul is used by libvirt."""
    match = DECIMAL.fullmatch(text)
    if match:
        return int(match[1])
    match = HEXADECIMAL.fullmatch(text)
    if match:
        return int(match[1], 16)
    raise ValueError("a number, decimal or hexadecimal")


class Number:
    """
    A parser of numbers from `low` to `high`, or of `names` in any case.

    Attributes:
        low, high: the least and the largest that is accepted.
    """

    def __init__(self, low: int, high: int, names: Mapping[str, int] | None = None) -> None:
        self.low, self.high = low, high
        self._names = names or {}
        self._expected = f"a number from {low:#x} to {high:#x}" if low > 255 else f"a number from {low} to {high}"
        if names:
            self._expected += " or one of " + " ".join(names)

    def __call__(self, text: str) -> int:
        if text.lower() in self._names:
            return self._names[text.lower()]
        try:
            value = parse_number(text)
        except ValueError:
            raise ValueError(self._expected) from None
        if not self.low <= value <= self.high:
            raise ValueError(self._expected)
        return value


def parse_connlimit(text: str) -> int:
    """Decimal only, unlike every other number."""
    if not DECIMAL.fullmatch(text) or int(text) > 0xFFFF:
        raise ValueError("a decimal number from 0 to 65535")
    return int(text)


def _contiguous(value: int, bits: int, expected: str) -> int:
    inverted = value ^ (1 << bits) - 1
    if inverted & inverted + 1:
        raise ValueError(expected)
    return value


def parse_mac_mask(text: str) -> int:
    """A MAC whose ones are all at the front."""
    expected = "a mask such as ff:ff:ff:00:00:00, its ones all at the front"
    try:
        value = parse_mac(text)
    except ValueError:
        raise ValueError(expected) from None
    return _contiguous(value, 48, expected)


def ip_mask(bits: int, parse_address: Callable[[str], int], example: str) -> Parser:
    expected = f"a mask: a prefix length from 0 to {bits}, or {example}, its ones all at the front"

    def parse(text: str) -> int:
        if text.isascii() and text.isdigit():
            if len(text) > 3 or int(text) > bits:
                raise ValueError(expected)
            return prefix_mask(int(text), bits)
        try:
            return _contiguous(parse_address(text), bits, expected)
        except ValueError:
            raise ValueError(expected) from None

    return parse


def parse_states(text: str) -> frozenset[str]:
    """Tokens in any case, separated by commas or blanks; NONE anywhere wins."""
    states = frozenset(re.split(r"[ ,\t]+", text.strip(" ,\t").lower()))
    if not states <= frozenset(STATES):
        raise ValueError("a list of NEW ESTABLISHED RELATED INVALID, or NONE")
    return frozenset(("none",)) if "none" in states else states


def parse_tcp_flags(text: str) -> TcpFlags:
    """MASK/FLAGS, each a comma separated list; no FLAGS are none of them, as in libvirt."""
    expected = "MASK/FLAGS, each a list of SYN ACK URG PSH FIN RST, or ALL or NONE, such as SYN,ACK/SYN"
    sides = text.split("/")
    if len(sides) != 2:
        raise ValueError(expected)
    bits = []
    for side in (sides[0], sides[1] or "NONE"):
        value = 0
        for token in side.upper().split(","):
            if token not in TCP_FLAG_BITS:
                raise ValueError(expected)
            value |= TCP_FLAG_BITS[token]
        bits.append(value)
    return TcpFlags(mask=bits[0], flags=bits[1])


def parse_set_name(text: str) -> str:
    """1 to 31 characters."""
    if not _SET_NAME.fullmatch(text):
        raise ValueError("a set name of 1 to 31 characters A-Z a-z 0-9 _ . : + - and blank")
    return text


def parse_set_flags(text: str) -> SetFlags:
    """1 to 6 of src and dst."""
    tokens = text.lower().split(",")
    if not 1 <= len(tokens) <= 6 or not set(tokens) <= {"src", "dst"}:
        raise ValueError("1 to 6 of src and dst, separated by commas")
    return SetFlags(tuple(token == "src" for token in tokens))


def parse_boolean(text: str) -> bool:
    """`true`, `1` and `yes` set the condition; `false`, `0` and `no` leave it away (they don't invert it)."""
    if text in ("true", "1", "yes"):
        return True
    if text in ("false", "0", "no"):
        return False
    raise ValueError("true or false")


def parse_tagged(text: str) -> str:
    """`yes` is behind a VLAN tag, `any` behind one or without, `no` the same as no attribute: not behind one."""
    if text not in ("yes", "any", "no"):
        raise ValueError("yes, any or no")
    return text


def parse_comment(text: str) -> str:
    """Any text; cut as libvirt does."""
    return text.encode()[:COMMENT_BYTES].decode(errors="ignore")


def parse_prefix(text: str, version: int) -> int | Prefix:
    """
    ADDRESS or ADDRESS/LENGTH; one address if the length says so.

    Args:
        version: of IP, 4 or 6.

    Raises:
        ValueError: neither; or the address is not the first of its network, so that either may be meant.
    """
    parse = parse_ipv4 if version == 4 else parse_ipv6
    bits = 32 if version == 4 else 128
    start, slash, length = text.partition("/")
    if not slash:
        return parse(text)
    example = "192.0.2.8/29" if version == 4 else "2001:db8:7::/64"
    expected = f"an IPv{version} network such as {example}, its length from 0 to {bits}"
    try:
        address = parse(start)
    except ValueError:
        raise ValueError(expected) from None
    if not (length.isascii() and length.isdigit() and len(length) <= 3 and int(length) <= bits):
        raise ValueError(expected)
    mask = prefix_mask(int(length), bits)
    if address & ~mask:
        first = (ipaddress.IPv4Address if version == 4 else ipaddress.IPv6Address)(address & mask)
        raise ValueError(f"the first address of a network: write {first}/{length} for all of it, or {start} for one")
    return address if int(length) == bits else Prefix(address, mask)


# --- and back ---------------------------------------------------------------------------------------------------------


def format_ipv4(value: int) -> str:
    """As in 192.0.2.1."""
    return str(ipaddress.IPv4Address(value))


def format_ipv6(value: int) -> str:
    """As in 2001:db8::1."""
    return str(ipaddress.IPv6Address(value))


def format_length(mask: int) -> str:
    """The length of the prefix that a mask stands for."""
    return str(bin(mask).count("1"))


def format_states(states: frozenset[str]) -> str:
    """As in NEW,ESTABLISHED."""
    return ",".join(state.upper() for state in STATES if state in states)


def format_tcp_flags(value: TcpFlags) -> str:
    """As in SYN,ACK/SYN."""
    return f"{_flags(value.mask)}/{_flags(value.flags)}"


def _flags(bits: int) -> str:
    if bits == TCP_FLAG_BITS["ALL"]:
        return "ALL"
    return ",".join(name for name in _FLAG_ORDER if bits & TCP_FLAG_BITS[name]) or "NONE"


def format_set_flags(value: SetFlags) -> str:
    """As in src,dst."""
    return ",".join("src" if source else "dst" for source in value.source)


def format_boolean(value: bool) -> str:
    """true or false."""
    return "true" if value else "false"
