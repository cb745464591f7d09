"""
The words of a packet, as they were given: which there are, what each may be, and which go together.

In:  a mapping of words to values, from options or YAML: text, numbers, lists, True.
Out: `Given`: the packet's kind, and typed values.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any, Callable

from ..base.addresses import parse_ipv4, parse_ipv6, parse_mac
from ..base.dataclass import dataclass
from ..base.errors import PacketError
from ..base.text import did_you_mean
from . import names


@dataclass(frozen=True)
class Word:
    """
    One word.

    Attributes:
        value: what it takes, for people; "" if it only is there.
        kinds: the packets that it can be said of; () if it is a kind of packet itself.
    """

    name: str
    value: str
    help: str
    parse: Callable[[Any], Any]
    kinds: tuple[str, ...] = ()


@dataclass(frozen=True)
class End:
    """
    One end of a packet.

    Attributes:
        version: of IP; None if only the port was given.
    """

    version: int | None
    address: int | None
    port: int | None


@dataclass(frozen=True)
class Given:
    """
    What was said of a packet.

    Attributes:
        kind: the word that says what the packet is, and its value.
        version: of IP, if anything says it.
    """

    kind: str
    value: Any
    version: int | None
    words: Mapping[str, Any]

    def get(self, word: str) -> Any:
        """The word's value; None if it wasn't given."""
        return self.words.get(word)

    def address(self, word: str) -> int | None:
        """The address of an end."""
        end = self.words.get(word)
        return None if end is None else end.address

    def port(self, word: str) -> int | None:
        """The port of an end."""
        end = self.words.get(word)
        return None if end is None else end.port


# --- values: each takes what was given, and raises ValueError with what would be accepted -----------------------------


def parse_end(value: Any) -> End:
    """ADDRESS, ADDRESS:PORT, :PORT, [ADDRESS6]:PORT."""
    text = _text(value, _AN_END)
    address, port = text, ""
    if text.startswith("["):
        address, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(_AN_END)
        port = rest
    elif text.count(":") == 1:
        address, colon, port = text.partition(":")
        port = colon + port
    number = None
    if port:
        number = _number(0, 0xFFFF, "a port from 0 to 65535")(port[1:])
    if not address:
        if number is None or text.startswith("["):
            raise ValueError(_AN_END)
        return End(None, None, number)
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        raise ValueError(_AN_END) from None
    if "%" in address:
        raise ValueError(f"{_AN_END}, without a zone")
    return End(found.version, int(found), number)


_AN_END = "an address, a port or both, such as 192.0.2.7, 192.0.2.7:443, :443 or [2001:db8::7]:443"


def _text(value: Any, wanted: str) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(wanted)
    return value


def _present(value: Any) -> bool:
    if value is None or value is True:
        return True
    if value is False:
        return False
    raise ValueError("nothing behind it (in YAML: true)")


def _number(low: int, high: int, wanted: str = "", words: Mapping[str, int] | None = None) -> Callable[[Any], int]:
    wanted = wanted or f"a number from {low} to {high}" + (f", or one of {', '.join(words)}" if words else "")

    def parse(value: Any) -> int:
        number = value
        if isinstance(value, str):
            if words and value.lower() in words:
                return words[value.lower()]
            try:
                number = int(value, 16) if value.lower().startswith("0x") else int(value)
            except ValueError:
                raise ValueError(wanted) from None
            if not value.isascii() or not value.isalnum():
                raise ValueError(wanted)
        if not isinstance(number, int) or isinstance(number, bool) or not low <= number <= high:
            raise ValueError(wanted)
        return number

    return parse


def _type_and_code(words: Mapping[str, int]) -> Callable[[Any], tuple[int, int]]:
    wanted = f"TYPE or TYPE/CODE, each from 0 to 255; types have names: {', '.join(words)}"

    def parse(value: Any) -> tuple[int, int]:
        kind, slash, code = str(value).partition("/") if isinstance(value, str) else (value, "", "")
        return _number(0, 255, wanted, words)(kind), _number(0, 255, wanted)(code) if slash else 0

    return parse


def _choice(words: Iterable[str]) -> Callable[[Any], str]:
    words = tuple(words)

    def parse(value: Any) -> str:
        if not isinstance(value, str) or value.lower() not in words:
            near = did_you_mean(value, words) if isinstance(value, str) else ""
            raise ValueError(f"one of {', '.join(words)}{near}")
        return value.lower()

    return parse


def _mac(value: Any) -> int:
    if isinstance(value, int):
        raise ValueError("a MAC address such as 52:54:00:12:34:56; in YAML it needs quotes, else it is a number there")
    return parse_mac(_text(value, "a MAC address such as 52:54:00:12:34:56"))


def _ipv4(value: Any) -> int:
    return parse_ipv4(_text(value, "an IPv4 address such as 192.0.2.1"))


def _ipv6(value: Any) -> int:
    return parse_ipv6(_text(value, "an IPv6 address such as 2001:db8::1"))


def parse_flags(value: Any) -> int:
    """ "syn", "syn,ack", ["syn", "ack"], tcpdump's "S." or "[S.]", "none"."""
    wanted = f"some of {', '.join(names.TCP_FLAGS)}, by commas; none; or as tcpdump prints them, such as S."
    parts = value if isinstance(value, list) else _text(value, wanted).split(",")
    if not parts or not all(isinstance(part, str) for part in parts):
        raise ValueError(wanted)
    words = [part.strip().lower() for part in parts]
    if words == ["none"]:
        return 0
    if all(word in names.TCP_FLAGS for word in words):
        return sum({names.TCP_FLAGS[word] for word in words})
    letters = parts[0].strip("[]")
    if len(parts) == 1 and letters and all(letter in names.TCPDUMP_FLAGS for letter in letters):
        return sum({names.TCPDUMP_FLAGS[letter] for letter in letters})
    near = did_you_mean(next(word for word in words if word not in names.TCP_FLAGS), names.TCP_FLAGS)
    raise ValueError(wanted + near)


def _options(value: Any) -> tuple[int, ...]:
    wanted = "the numbers of TCP options from 1 to 254, by commas, ten at most"
    parts = value if isinstance(value, list) else value.split(",") if isinstance(value, str) else [value]
    if not 1 <= len(parts) <= 10:
        raise ValueError(wanted)
    return tuple(_number(1, 254, wanted)(part) for part in parts)


def _payload(value: Any) -> bytes:
    wanted = "hexadecimal digits, two for each octet, 9000 octets at most"
    if isinstance(value, int):
        raise ValueError(f"{wanted}; in YAML in quotes")
    try:
        found = bytes.fromhex(_text(value, wanted))
    except ValueError:
        raise ValueError(wanted) from None
    if len(found) > 9000:
        raise ValueError(wanted)
    return found


_PORTS = ("tcp", "udp", "sctp")
_IP = (*_PORTS, "icmp", "icmpv6", "protocol", "dhcp", "dhcpv6")
_ARP = ("arp", "rarp")
_ANY = (*_IP, *_ARP, "stp", "ethertype")

WORDS = {
    word.name: word
    for word in (
        Word("tcp", "", "A TCP segment; by default it opens a connection.", _present),
        Word("udp", "", "A UDP datagram.", _present),
        Word("sctp", "", "An SCTP packet.", _present),
        Word("icmp", "TYPE[/CODE]", "An ICMP message: 8, echo-reply, 3/1 …", _type_and_code(names.ICMP_TYPES)),
        Word(
            *("icmpv6", "TYPE[/CODE]", "An ICMPv6 message: 135, echo-request, nd-router-advert …"),
            _type_and_code(names.ICMPV6_TYPES),
        ),
        Word(
            "protocol",
            "PROTOCOL",
            "An IP packet of another protocol: 47, gre, esp …",
            _number(0, 255, "", names.PROTOCOLS),
        ),
        Word(
            *("arp", "KIND", "An ARP message: request, reply, probe or gratuitous."),
            _choice((*names.ARP_OPCODES, "probe", "gratuitous")),
        ),
        Word(
            *("rarp", "KIND", "A RARP message: request, reply, or announce (QEMU's, after a migration)."),
            _choice((*names.RARP_OPCODES, "announce")),
        ),
        Word("dhcp", "KIND", "A DHCP message: discover, offer, request, ack …", _choice(names.DHCP_TYPES)),
        Word("dhcpv6", "KIND", "A DHCPv6 message: solicit, advertise, request, reply …", _choice(names.DHCPV6_TYPES)),
        Word("stp", "", "A spanning tree's configuration message.", _present),
        Word(
            *("ethertype", "TYPE", "A frame of another EtherType: 0x88cc, lldp …"),
            _number(0x600, 0xFFFF, "", names.ETHER_TYPES),
        ),
        Word("src", "[ADDRESS][:PORT]", "Where it comes from; of ARP, the sender.", parse_end, (*_IP, *_ARP)),
        Word("dst", "[ADDRESS][:PORT]", "Where it goes to; of ARP, the target.", parse_end, (*_IP, *_ARP)),
        Word("src-mac", "MAC", "Source of the frame.", _mac, _ANY),
        Word("dst-mac", "MAC", "Destination of the frame.", _mac, _ANY),
        Word("vlan", "ID", "In a VLAN tag.", _number(0, 4094), _ANY),
        Word("vlan-type", "TYPE", "EtherType of the tag.", _choice(("802.1q", "802.1ad")), _ANY),
        Word("ipv4", "", "Over IPv4, where no address says it.", _present, (*_PORTS, "protocol")),
        Word("ipv6", "", "Over IPv6, where no address says it.", _present, (*_PORTS, "protocol")),
        Word("flags", "FLAGS", "TCP flags: syn; syn,ack; S. …", parse_flags, ("tcp",)),
        Word("tcp-option", "NUMBER", "TCP options that it has, by commas.", _options, ("tcp",)),
        Word("dscp", "NUMBER", "Differentiated services.", _number(0, 63), _IP),
        Word("fragment", "WHICH", "The first or a later fragment of a packet.", _choice(("first", "later")), _IP),
        Word("arp-src-mac", "MAC", "The sender's MAC inside of ARP or RARP.", _mac, _ARP),
        Word("arp-dst-mac", "MAC", "The target's MAC inside of ARP or RARP.", _mac, _ARP),
        Word("target", "ADDRESS", "Whom a neighbour discovery message is about.", _ipv6, ("icmpv6",)),
        Word("nd-mac", "MAC", "The link-layer address in it.", _mac, ("icmpv6",)),
        Word("offered", "ADDRESS", "The address that a DHCP server gives.", _ipv4, ("dhcp",)),
        Word("client-mac", "MAC", "Whom a DHCP message is about.", _mac, ("dhcp",)),
        Word("payload", "HEX", "What it carries.", _payload, (*_PORTS, "icmp", "icmpv6", "protocol", "ethertype")),
    )
}
"""Every word: of a test file a key, of a command an option."""

KINDS = tuple(word.name for word in WORDS.values() if not word.kinds)
"""Words of which a packet has one."""

_VERSIONS = {"icmp": 4, "dhcp": 4, "arp": 4, "rarp": 4, "icmpv6": 6, "dhcpv6": 6}


def read_words(words: Mapping[str, Any]) -> Given:
    """
    What `words` say.

    Raises:
        PacketError: a word or value is unknown, or they don't go together.
    """
    unknown = next((word for word in words if word not in WORDS), None)
    if unknown is not None:
        near = did_you_mean(unknown, WORDS) if isinstance(unknown, str) else ""
        raise PacketError(f"{unknown!r} is no word of a packet{near}", str(unknown))
    parsed = {word: _parse(WORDS[word], value) for word, value in words.items()}
    parsed = {word: value for word, value in parsed.items() if value is not False}
    kinds = [word for word in parsed if word in KINDS]
    if len(kinds) != 1:
        if kinds:
            raise PacketError(f"a packet is one of {', '.join(kinds)}, not all", kinds[-1])
        raise PacketError(f"what packet? one of {', '.join(KINDS)} is needed", "")
    (kind,) = kinds
    for word in parsed:
        if word != kind and kind not in WORDS[word].kinds:
            raise PacketError(f"{word} can't be said of {kind}, only of {', '.join(WORDS[word].kinds)}", word)
    for word in ("src", "dst"):
        end = parsed.get(word)
        if end is not None and end.port is not None and kind not in (*_PORTS, "dhcp", "dhcpv6"):
            raise PacketError(f"{word}: {kind} has no ports", word)
    if "vlan-type" in parsed and "vlan" not in parsed:
        raise PacketError("vlan-type needs vlan", "vlan-type")
    if parsed.get("fragment") == "later" and any(
        parsed[each].port is not None for each in ("src", "dst") if each in parsed
    ):
        raise PacketError("a later fragment has no ports", "fragment")
    return Given(kind, parsed[kind], _version(kind, parsed), parsed)


def _parse(word: Word, value: Any) -> Any:
    try:
        return word.parse(value)
    except ValueError as error:
        raise PacketError(f"{word.name}: {value!r} is not {error}", word.name) from None


def _version(kind: str, parsed: Mapping[str, Any]) -> int | None:
    """The version of IP, if a word says it. Raises PacketError if two say different ones."""
    found: dict[int, str] = {}
    if kind in _VERSIONS:
        found[_VERSIONS[kind]] = kind
    for word, version in (("ipv4", 4), ("ipv6", 6)):
        if word in parsed:
            found.setdefault(version, word)
    for word in ("src", "dst"):
        end = parsed.get(word)
        if end is not None and end.version is not None:
            found.setdefault(end.version, word)
    if len(found) > 1:
        raise PacketError(f"{found[4]} is of IPv4, {found[6]} of IPv6", found[6])
    return next(iter(found), None)
