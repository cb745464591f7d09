"""
A frame from words.

In:  words and values (given.py), the guest, and whether it sends or gets the frame.
Out: a `Packet`: the frame, and what was assumed of it, since nobody said it: what a legitimate frame has.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

from ..base.addresses import format_mac, link_local
from ..base.dataclass import dataclass
from ..ruleset.evaluate import Way
from ..ruleset.numbers import DHCP_CLIENT_PORT, DHCP_SERVER_PORT, EtherType, Protocol
from . import layout, names
from .given import Given, read_words
from .messages import Sides, dhcp_message, icmp_body, icmpv6_body, solicited_node

NEIGHBOUR_MAC = 0x020000000001
GUEST_IPV4, PEER_IPV4 = int(ipaddress.IPv4Address("192.0.2.7")), int(ipaddress.IPv4Address("198.51.100.9"))
GUEST_IPV6, PEER_IPV6 = int(ipaddress.IPv6Address("2001:db8::7")), int(ipaddress.IPv6Address("2001:db8:9::9"))
"""For documentation, RFC 5737 and 3849."""
_EPHEMERAL = 40000
_SERVICES = {"tcp": 443, "udp": 53, "sctp": 3868}
_PORTS = tuple(_SERVICES)
_PAYLOAD = b"nwfilter-hook"
_DHCPV6_CLIENT, _DHCPV6_SERVER = 546, 547
_ALL_DHCPV6_SERVERS = int(ipaddress.IPv6Address("ff02::1:2"))
_ALL_NODES, _ALL_ROUTERS = int(ipaddress.IPv6Address("ff02::1")), int(ipaddress.IPv6Address("ff02::2"))
_EVERYBODY = 0xFFFFFFFF
_SOLICITATION = 135


@dataclass(frozen=True)
class Guest:
    """
    Whose frame it is.

    Attributes:
        mac: 48 bits.
        ipv4, ipv6: an address that is the guest's; None if it has none that is known.
    """

    mac: int
    ipv4: int | None = None
    ipv6: int | None = None


@dataclass(frozen=True)
class Packet:
    """
    A frame, without its checksum.

    Attributes:
        assumed: "WORD VALUE (why)" for each thing that nobody said.
    """

    data: bytes
    assumed: tuple[str, ...]


def build(words: Mapping[str, Any], guest: Guest, way: Way) -> Packet:
    """
    The frame that `words` describe.

    Args:
        words: as WORDS in given.py names them: {"tcp": True, "dst": "198.51.100.9:443"}.
        way: whether the guest sends or gets it.

    Raises:
        PacketError: they describe none.
    """
    return _Builder(read_words(words), guest, way is Way.FROM_GUEST).packet()


class _Builder:
    """One packet on its way; notes down what it assumes."""

    def __init__(self, given: Given, guest: Guest, sends: bool) -> None:
        self.given, self.guest, self.sends = given, guest, sends
        self.assumed: list[str] = []

    def packet(self) -> Packet:
        """The frame."""
        kind = self.given.kind
        if kind in ("arp", "rarp"):
            data = self._arp()
        elif kind in ("stp", "ethertype"):
            data = self._other()
        else:
            data = self._ip()
        return Packet(data, tuple(self.assumed))

    def _assume(self, word: str, text: str, why: str) -> None:
        self.assumed.append(f"{word} {text} ({why})")

    # --- addresses ----------------------------------------------------------------------------------------------------

    def _own_side(self, word: str) -> bool:
        """Whether the end `word` is the guest's."""
        return (word == "src") is self.sends

    def _mac(self, word: str, default: int | None = None, why: str = "") -> int:
        """src-mac or dst-mac."""
        said: int | None = self.given.get(word)
        if said is not None:
            return said
        if default is None:
            own = self._own_side(word[:3])
            default, why = (self.guest.mac, "the guest's") if own else (NEIGHBOUR_MAC, "a neighbour's")
        self._assume(word, format_mac(default), why)
        return default

    def _host(self, word: str, version: int) -> tuple[int, str]:
        """An address for an end of which none was given, and whose it is."""
        known = self.guest.ipv4 if version == 4 else self.guest.ipv6
        if self._own_side(word):
            if known is not None:
                return known, "the guest's"
            return GUEST_IPV4 if version == 4 else GUEST_IPV6, "for documentation; the guest's isn't known"
        return PEER_IPV4 if version == 4 else PEER_IPV6, "a peer, for documentation"

    def _address(self, word: str, version: int, default: int | None = None, why: str = "") -> int:
        said = self.given.address(word)
        if said is not None:
            return said
        if default is None:
            default, why = self._host(word, version)
        self._assume(word, _written(default, version), why)
        return default

    def _neighbour(self, word: str) -> tuple[int, str]:
        """An address on the guest's own link, for ARP."""
        if self._own_side(word):
            return self._host(word, 4)
        other = self.given.address("src" if word == "dst" else "dst")
        near = other if other is not None else self._host("src" if self.sends else "dst", 4)[0]
        first = near & ~0xFF | 1
        return (first if first != near else first + 1), "a neighbour"

    # --- what isn't IP ------------------------------------------------------------------------------------------------

    def _arp(self) -> bytes:
        kind, of_arp = self.given.value, self.given.kind == "arp"
        opcode = names.ARP_OPCODES.get(kind, 1) if of_arp else names.RARP_OPCODES.get(kind, 3)
        to_all = kind != "reply"
        src_mac = self._mac("src-mac")
        dst_mac = self._mac("dst-mac", *((layout.BROADCAST, "to everybody") if to_all else (None, "")))
        if of_arp and kind == "probe":
            src = self._address("src", 4, 0, "a probe has none")
            own = self._host("src", 4) if self.sends else (self._neighbour("src")[0], "a neighbour's own")
            dst = self._address("dst", 4, *own)
        elif of_arp and kind == "gratuitous":
            src = self._address("src", 4, *(self._host("src", 4) if self.sends else self._neighbour("src")))
            dst = self._address("dst", 4, src, "the sender's own")
        elif not of_arp:
            src = self._address("src", 4, 0, "RARP has none")
            dst = self._address("dst", 4, 0, "RARP has none")
        else:
            src = self._address("src", 4, *self._neighbour("src"))
            dst = self._address("dst", 4, *self._neighbour("dst"))
        sender, target = self.given.get("arp-src-mac"), self.given.get("arp-dst-mac")
        sender = src_mac if sender is None else sender
        if target is None:
            target = sender if not of_arp else 0 if to_all else dst_mac
        message = layout.arp(opcode, sender, src, target, dst)
        return self._frame(src_mac, dst_mac, EtherType.ARP if of_arp else EtherType.RARP, message)

    def _other(self) -> bytes:
        if self.given.kind == "stp":
            src_mac = self._mac("src-mac")
            dst_mac = self._mac("dst-mac", layout.BRIDGE_GROUP, "every bridge")
            message = layout.stp(src_mac)
            return self._frame(src_mac, dst_mac, len(message), message)
        payload = self.given.get("payload")
        return self._frame(
            self._mac("src-mac"), self._mac("dst-mac"), self.given.value, _PAYLOAD if payload is None else payload
        )

    def _frame(self, src_mac: int, dst_mac: int, ether_type: int, payload: bytes) -> bytes:
        tag = None
        if self.given.get("vlan") is not None:
            ad = self.given.get("vlan-type") == "802.1ad"
            tag = (EtherType.VLAN_AD if ad else EtherType.VLAN, self.given.get("vlan"))
        return layout.ethernet(src_mac, dst_mac, ether_type, payload, tag)

    # --- IP -----------------------------------------------------------------------------------------------------------

    def _ip(self) -> bytes:
        given = self.given
        version = given.version
        if version is None:
            version = 4
            self.assumed.append("ipv4 (no address says IPv6)")
        sender_mac = given.get("src-mac")
        if sender_mac is None:
            sender_mac = self.guest.mac if self.sends else NEIGHBOUR_MAC
        src, dst = self._ends(version, sender_mac)
        src_mac = self._mac("src-mac")
        dst_mac = self._mac("dst-mac", *_group_mac(dst, version))
        protocol, body = self._transport(version, src, dst, src_mac, dst_mac)
        fragment = given.get("fragment") or ""
        make = layout.ipv4 if version == 4 else layout.ipv6
        packet = make(src, dst, protocol, body, dscp=given.get("dscp") or 0, fragment=fragment)
        return self._frame(src_mac, dst_mac, EtherType.IPV4 if version == 4 else EtherType.IPV6, packet)

    def _ends(self, version: int, sender_mac: int) -> tuple[int, int]:
        given, kind, value = self.given, self.given.kind, self.given.value
        if kind == "dhcp":
            if value in ("discover", "request", "decline"):
                return (
                    self._address("src", 4, 0, "a client without an address"),
                    self._address("dst", 4, _EVERYBODY, "to everybody"),
                )
            if value in ("offer", "ack", "nak") and given.get("offered") is not None:
                return self._address("src", 4), self._address("dst", 4, given.get("offered"), "as offered")
        if kind == "dhcpv6":
            own, far = link_local(self.guest.mac), link_local(NEIGHBOUR_MAC)
            src = self._address("src", 6, link_local(sender_mac), "link-local")
            if value in ("advertise", "reply", "reconfigure"):
                return src, self._address("dst", 6, far if self.sends else own, "link-local")
            return src, self._address("dst", 6, _ALL_DHCPV6_SERVERS, "all DHCPv6 servers")
        if kind == "icmpv6":
            return self._icmpv6_ends(value[0], sender_mac)
        return self._address("src", version), self._address("dst", version)

    def _icmpv6_ends(self, kind: int, sender_mac: int) -> tuple[int, int]:
        if kind in (134, 137) or 130 <= kind <= 133 or kind == 143:  # from a link-local address, RFC 4861, 3810
            src = self._address("src", 6, link_local(sender_mac), "link-local")
        else:
            src = self._address("src", 6)
        if kind == _SOLICITATION and self.given.address("dst") is None:
            target = self.given.get("target")
            if target is None:
                target = self._host("dst", 6)[0]
            return src, self._address("dst", 6, solicited_node(target), "the target's solicited-node group")
        everybody = {133: _ALL_ROUTERS, 134: _ALL_NODES, 130: _ALL_NODES, 131: _ALL_NODES, 132: _ALL_ROUTERS}
        if kind in everybody:
            return src, self._address("dst", 6, everybody[kind], "everybody whom it is for")
        return src, self._address("dst", 6)

    def _transport(self, version: int, src: int, dst: int, src_mac: int, dst_mac: int) -> tuple[int, bytes]:
        """The protocol's number, and what is behind the IP header."""
        given, kind = self.given, self.given.kind
        bits = 32 if version == 4 else 128
        payload = _PAYLOAD if given.get("payload") is None else given.get("payload")
        sides = Sides(src, dst, src_mac, dst_mac)
        protocol = _PROTOCOL_OF.get(kind, given.value)
        if given.get("fragment") == "later":
            return protocol, payload
        if kind in _PORTS:
            ports = self._port("src", _EPHEMERAL), self._port("dst", _SERVICES[kind])
            if kind == "tcp":
                return protocol, layout.tcp(
                    src, dst, bits, ports, self._flags(), given.get("tcp-option") or (), given.get("payload") or b""
                )
            if kind == "udp":
                return protocol, layout.udp(src, dst, bits, ports, payload)
            return protocol, layout.octets(ports[0], 16) + layout.octets(ports[1], 16) + bytes(8) + payload
        if kind == "icmp":
            number, code = given.value
            body = given.get("payload")
            return protocol, layout.icmp(number, code, icmp_body(number, sides) if body is None else body)
        if kind == "icmpv6":
            number, code = given.value
            body = given.get("payload")
            if body is None:
                body = icmpv6_body(number, sides, self._target(dst), given.get("nd-mac"))
            return protocol, layout.icmpv6(src, dst, number, code, body)
        if kind == "dhcp":
            return protocol, layout.udp(src, dst, bits, self._dhcp_ports(), self._dhcp(sides))
        if kind == "dhcpv6":
            message = bytes((names.DHCPV6_TYPES[given.value], 0, 0, 1)) + bytes.fromhex("0001000a00030001")
            return protocol, layout.udp(src, dst, bits, self._dhcp_ports(), message + layout.octets(src_mac, 48))
        return protocol, payload

    def _target(self, dst: int) -> int | None:
        """Of a neighbour solicitation to a group, whom it asks for."""
        said: int | None = self.given.get("target")
        if said is None and self.given.value[0] == _SOLICITATION and dst >> 120 == 0xFF:
            said, why = self._host("dst", 6)
            self._assume("target", _written(said, 6), why)
        return said

    def _port(self, word: str, default: int) -> int:
        said = self.given.port(word)
        if said is None:
            self._assume(word, f":{default}", "a port")
            return default
        return said

    def _flags(self) -> int:
        said: int | None = self.given.get("flags")
        if said is None:
            self._assume("flags", "syn", "opens a connection")
            return names.TCP_FLAGS["syn"]
        return said

    def _dhcp_ports(self) -> tuple[int, int]:
        client, server = (
            (DHCP_CLIENT_PORT, DHCP_SERVER_PORT) if self.given.kind == "dhcp" else (_DHCPV6_CLIENT, _DHCPV6_SERVER)
        )
        answers = self.given.value in ("offer", "ack", "nak", "advertise", "reply", "reconfigure")
        usual = (server, client) if answers else (client, server)
        said = self.given.port("src"), self.given.port("dst")
        return usual[0] if said[0] is None else said[0], usual[1] if said[1] is None else said[1]

    def _dhcp(self, sides: Sides) -> bytes:
        value, offered = self.given.value, self.given.get("offered")
        answers = value in ("offer", "ack", "nak")
        client = self.given.get("client-mac")
        if client is None:
            # of an answer to the guest the guest's, of what a client says the client's own
            to_whom = NEIGHBOUR_MAC if self.sends else self.guest.mac
            client = to_whom if answers else sides.src_mac
            self._assume("client-mac", format_mac(client), "the client's")
        if offered is None and answers and value != "nak":
            offered = sides.dst
            self._assume("offered", _written(offered, 4), "to whom it goes")
        return dhcp_message(value, client, offered, sides)


_PROTOCOL_OF = {
    "tcp": Protocol.TCP,
    "udp": Protocol.UDP,
    "sctp": Protocol.SCTP,
    "icmp": Protocol.ICMP,
    "icmpv6": Protocol.ICMPV6,
    "dhcp": Protocol.UDP,
    "dhcpv6": Protocol.UDP,
}


def _written(address: int, version: int) -> str:
    return str(ipaddress.IPv4Address(address) if version == 4 else ipaddress.IPv6Address(address))


def _group_mac(address: int, version: int) -> tuple[int | None, str]:
    """The MAC of everybody or of a group, RFC 1112 and 2464; (None, "") of a single host."""
    if version == 4:
        if address == _EVERYBODY:
            return layout.BROADCAST, "to everybody"
        if address >> 28 == 0xE:
            return 0x01005E000000 | address & 0x7FFFFF, "the group's"
    elif address >> 120 == 0xFF:
        return 0x333300000000 | address & 0xFFFFFFFF, "the group's"
    return None, ""
