"""
The frames that words describe, where they ask and don't make one: what nobody says may be anything.

In:  a mapping of words to values, as given.py has them.
Out: conditions, any one group of which suffices.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..base.errors import PacketError
from ..ruleset.fields import Field
from ..ruleset.model import Equals, Masked, Match, Present, SameAs
from ..ruleset.numbers import DHCP_COOKIE, EtherType, Protocol
from . import layout, names
from .given import Given, read_words

Wanted = tuple[tuple[Match, ...], ...]

_IPV4, _IPV6 = EtherType.IPV4, EtherType.IPV6
_ORDER = {field: number for number, field in enumerate(Field)}
_PROTOCOL_OF = {
    **{"tcp": Protocol.TCP, "udp": Protocol.UDP, "sctp": Protocol.SCTP, "dhcp": Protocol.UDP, "dhcpv6": Protocol.UDP},
    **{"icmp": Protocol.ICMP, "icmpv6": Protocol.ICMPV6},
}
_STP_LLC, _LLC_MASK = 0x424203000000, 0xFFFFFF000000
_OPTION_BITS = 128
_DHCP_TYPE_OPTION = 0x3501
_SIMPLE = {
    "src-mac": Field.ETHER_SRC,
    "dst-mac": Field.ETHER_DST,
    "arp-src-mac": Field.ARP_SRC_MAC,
    "arp-dst-mac": Field.ARP_DST_MAC,
    "target": Field.ND_TARGET,
    "nd-mac": Field.ND_MAC,
    "offered": Field.DHCP_ADDRESS,
    "client-mac": Field.DHCP_CLIENT,
    "flags": Field.TCP_FLAGS,
}
"""Words that are one field's value."""
_ADDRESSES = {
    ("src", 4): Field.IP_SRC,
    ("dst", 4): Field.IP_DST,
    ("src", 6): Field.IP6_SRC,
    ("dst", 6): Field.IP6_DST,
}
_ARP_ADDRESSES = {"src": Field.ARP_SRC_IP, "dst": Field.ARP_DST_IP}


def read_wanted(words: Mapping[str, Any]) -> Wanted:
    """
    The frames that `words` describe; () for all.

    A `--vlan` asks for its tag; without it frames are meant in a tag of IEEE 802.1Q or without.

    Raises:
        PacketError: they describe none, or can't be asked for.
    """
    if not words:
        return ()
    given = read_words(words)
    if given.get("payload") is not None:
        raise PacketError("payload can't be asked for, only what headers say", "payload")
    if given.get("vlan-type") == "802.1ad":
        raise PacketError("vlan-type 802.1ad can't be asked for: say --ethertype 0x88a8", "vlan-type")
    said = tuple(_said(given, words))
    groups = (said + more for more in _versions(given))
    return tuple(tuple(sorted(dict.fromkeys(each), key=lambda match: _ORDER[match.field])) for each in groups)


def _said(given: Given, words: Mapping[str, Any]) -> Iterator[Match]:
    """What the words say, whatever the version of IP."""
    yield from (Match(field, Equals(given.get(word))) for word, field in _SIMPLE.items() if given.get(word) is not None)
    yield from (Match(Field.TCP_OPTION, Present(kind)) for kind in given.get("tcp-option") or ())
    if given.get("vlan") is not None:
        yield Match(Field.VLAN_ID, Equals(given.get("vlan")))
    kind, value = given.kind, given.value
    if kind in _PROTOCOL_OF or kind == "protocol":
        yield Match(Field.L4_PROTOCOL, Equals(_PROTOCOL_OF.get(kind, value)))
    for word, field in (("src", Field.SRC_PORT), ("dst", Field.DST_PORT)):
        if given.port(word) is not None:
            yield Match(field, Equals(given.port(word) or 0))
    if kind in ("icmp", "icmpv6"):
        fields = (Field.ICMP_TYPE, Field.ICMP_CODE) if kind == "icmp" else (Field.ICMPV6_TYPE, Field.ICMPV6_CODE)
        # without a code it may be any
        yield from (Match(*each) for each in zip(fields, map(Equals, value[: 1 + ("/" in str(words[kind]))])))
    elif kind == "dhcp":
        shift = _OPTION_BITS - 24
        code = (_DHCP_TYPE_OPTION << 8 | names.DHCP_TYPES[value]) << shift
        yield Match(Field.DHCP_COOKIE, Equals(DHCP_COOKIE))
        yield Match(Field.DHCP_OPTIONS, Masked(0xFFFFFF << shift, code))
    elif kind == "dhcpv6":
        yield Match(Field.DHCP6_TYPE, Equals(names.DHCPV6_TYPES[value]))
    elif kind == "stp":
        yield Match(Field.ETHER_DST, Equals(layout.BRIDGE_GROUP))
        yield Match(Field.STP_HEADER, Masked(_LLC_MASK, _STP_LLC))
    elif kind in ("arp", "rarp"):
        yield from _arp(given)


def _arp(given: Given) -> Iterator[Match]:
    kind, value = given.kind, given.value
    opcode = names.ARP_OPCODES.get(value) if kind == "arp" else names.RARP_OPCODES.get(value, 3)
    for word, field in _ARP_ADDRESSES.items():
        address = given.address(word)
        if address is not None:
            yield Match(field, Equals(address))
    if value == "probe":
        opcode = names.ARP_OPCODES["request"]
        yield Match(Field.ARP_SRC_IP, Equals(0))
    elif value == "gratuitous":
        yield Match(Field.ARP_SRC_IP, SameAs(Field.ARP_DST_IP))
    elif value == "announce":
        yield Match(Field.ARP_SRC_MAC, SameAs(Field.ARP_DST_MAC))
    if opcode is not None:
        yield Match(Field.ARP_OPCODE, Equals(opcode))


def _versions(given: Given) -> Iterator[tuple[Match, ...]]:
    """For each version of IP, or EtherType, that it can be, and for each way to be tagged, what that asks for."""
    if given.kind == "stp":
        yield ()
        return
    if given.kind in ("arp", "rarp", "ethertype"):
        numbers = {"arp": EtherType.ARP, "rarp": EtherType.RARP}
        yield from _types(given, numbers.get(given.kind, given.value))
        return
    for version in (4, 6) if given.version is None else (given.version,):
        yield from ((*types, *_of(given, version)) for types in _types(given, _IPV4 if version == 4 else _IPV6))


def _types(given: Given, number: int) -> Iterator[tuple[Match, ...]]:
    """The EtherType of a frame, or behind its tag."""
    if given.get("vlan") is None:
        yield (Match(Field.ETHER_TYPE, Equals(number)),)
    yield Match(Field.ETHER_TYPE, Equals(EtherType.VLAN)), Match(Field.VLAN_TYPE, Equals(number))


def _of(given: Given, version: int) -> list[Match]:
    """What the words say in this version of IP."""
    found = [
        Match(_ADDRESSES[word, version], Equals(given.address(word) or 0))
        for word in ("src", "dst")
        if given.address(word) is not None
    ]
    if given.get("dscp") is not None:
        found.append(Match(Field.IP_DSCP if version == 4 else Field.IP6_DSCP, Equals(given.get("dscp"))))
    fragment = given.get("fragment")
    if fragment and version == 4:
        test = Masked(0x3FFF, 0x2000) if fragment == "first" else Masked(0x1FFF, 0)
        found.append(Match(Field.IP_FRAGMENT, test, negated=fragment == "later"))
    elif fragment:
        found.append(Match(Field.IP6_FRAGMENT, Equals(0), negated=fragment == "later"))
    return found
