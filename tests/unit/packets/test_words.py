"""Frames from words: scapy, which shares no code with us, reads what we build."""

from __future__ import annotations

from typing import Any

import pytest
from scapy.layers import dhcp, dhcp6, inet6  # noqa: F401  scapy knows what is imported
from scapy.layers.l2 import Ether

from nwfilter_hook.base.errors import PacketError
from nwfilter_hook.packets.given import KINDS, WORDS
from nwfilter_hook.packets.words import Guest, build
from nwfilter_hook.ruleset.evaluate import Way
from nwfilter_hook.ruleset.fields import Field
from nwfilter_hook.ruleset.frame import decode_frame

GUEST = Guest(0x525400000001, 0x0A000007, 0x20010DB8000000000000000000000077)
MAC = "52:54:00:00:00:01"


def frame(words: dict[str, Any], way: Way = Way.FROM_GUEST) -> Any:
    return Ether(build(words, GUEST, way).data)


EVERY_KIND: list[tuple[dict[str, Any], str]] = [
    ({"tcp": True}, "Ether / IP / TCP 10.0.0.7:40000 > 198.51.100.9:https S"),
    ({"tcp": True, "flags": "syn,ack", "src": ":80"}, "TCP 10.0.0.7:http > 198.51.100.9:https SA"),
    ({"tcp": True, "flags": "[P.]"}, "https PA"),
    ({"tcp": True, "flags": ["fin", "ack"]}, "https FA"),
    ({"tcp": True, "flags": "none"}, "https "),
    ({"tcp": None, "dst": "[2001:db8::5]:22"}, "IPv6 / TCP 2001:db8::77:40000 > 2001:db8::5:ssh S"),
    ({"udp": True, "dst": "192.0.2.1:9"}, "IP / UDP 10.0.0.7:40000 > 192.0.2.1:discard"),
    ({"udp": True, "ipv6": True, "dst": ":9"}, "IPv6 / UDP 2001:db8::77:40000 > 2001:db8:9::9:discard"),
    ({"sctp": True}, "10.0.0.7 > 198.51.100.9 sctp"),
    ({"icmp": 8}, "ICMP 10.0.0.7 > 198.51.100.9 echo-request 0"),
    ({"icmp": "3/1"}, "dest-unreach host-unreachable / IPerror / UDPerror"),
    ({"icmpv6": "echo-request"}, "ICMPv6 Echo Request"),
    ({"icmpv6": 135, "target": "2001:db8::9"}, "ICMPv6ND_NS"),
    ({"icmpv6": 136}, "ICMPv6ND_NA"),
    ({"icmpv6": "nd-router-solicit"}, "ICMPv6ND_RS"),
    ({"icmpv6": 134}, "ICMPv6ND_RA"),
    ({"icmpv6": 137}, "ICMPv6ND_Redirect"),
    ({"icmpv6": 131}, "ICMPv6MLReport"),
    ({"icmpv6": 2}, "ICMPv6PacketTooBig"),
    ({"protocol": "gre"}, "10.0.0.7 > 198.51.100.9 gre"),
    ({"arp": "request"}, "ARP who has 10.0.0.1 says 10.0.0.7"),
    ({"arp": "reply"}, f"ARP is at {MAC} says 10.0.0.7"),
    ({"arp": "probe"}, "ARP who has 10.0.0.7 says 0.0.0.0"),
    ({"arp": "gratuitous"}, "ARP who has 10.0.0.7 says 10.0.0.7"),
    ({"rarp": "announce"}, f"{MAC} > ff:ff:ff:ff:ff:ff (RARP)"),
    ({"dhcp": "discover"}, "BOOTP / DHCP Discover"),
    ({"dhcp": "ack"}, "BOOTP / DHCP Ack"),
    ({"dhcpv6": "solicit"}, "DHCP6_Solicit"),
    ({"dhcpv6": "reply"}, "DHCP6_Reply"),
    ({"stp": True}, "LLC / STP"),
    ({"ethertype": "lldp"}, "(LLDP)"),
    ({"ethertype": 0x9000, "vlan": 5}, "802.1q"),
    ({"tcp": True, "fragment": "later"}, "tcp frag:185"),
]


@pytest.mark.parametrize(("words", "summary"), EVERY_KIND, ids=lambda value: str(value)[:40])
def test_every_kind(words: dict[str, Any], summary: str) -> None:
    """It is what it was called, either way; checksums are those that scapy computes."""
    assert summary in frame(words).summary()
    for way in Way:
        found = frame(words, way)
        for layer in ("IP", "TCP", "UDP", "ICMP"):
            if layer in found and words.get("fragment") != "later":
                given = found[layer].chksum
                del found[layer].chksum
                found = Ether(bytes(found))
                assert found[layer].chksum == given, (layer, way)


def test_all_kinds_are_tried() -> None:
    assert {kind for words, _ in EVERY_KIND for kind in words} >= set(KINDS)


def test_to_the_guest() -> None:
    """Ends are exchanged: the guest's addresses are the destination."""
    found = frame({"tcp": True}, Way.TO_GUEST)
    assert (found.dst, found["IP"].dst, found["IP"].src) == (MAC, "10.0.0.7", "198.51.100.9")
    assert frame({"arp": "request"}, Way.TO_GUEST).summary() == "Ether / ARP who has 10.0.0.7 says 10.0.0.1"


def test_what_was_said_is_not_assumed() -> None:
    """Everything that nobody said is told, and nothing else."""
    words = {"tcp": True, "src": "10.0.0.7:1", "dst": "10.0.0.9:2", "flags": "syn", "src-mac": MAC, "dst-mac": MAC}
    assert build(words, GUEST, Way.FROM_GUEST).assumed == ()
    assert build({**words, "dst": "10.0.0.9"}, GUEST, Way.FROM_GUEST).assumed == ("dst :443 (a port)",)
    assumed = build({"icmp": 8}, Guest(0x525400000001), Way.FROM_GUEST).assumed
    assert "src 192.0.2.7 (for documentation; the guest's isn't known)" in assumed


@pytest.mark.parametrize(
    ("words", "field", "value"),
    [
        ({"tcp": True, "src-mac": "52:54:00:00:00:09"}, Field.ETHER_SRC, 0x525400000009),
        ({"udp": True, "dst": "224.0.0.251"}, Field.ETHER_DST, 0x01005E0000FB),
        ({"udp": True, "dst": "255.255.255.255"}, Field.ETHER_DST, 0xFFFFFFFFFFFF),
        ({"udp": True, "dst": "ff02::fb"}, Field.ETHER_DST, 0x3333000000FB),
        ({"icmp": 8, "vlan": "7"}, Field.VLAN_ID, 7),
        ({"icmp": 8, "vlan": 7, "vlan-type": "802.1ad"}, Field.ETHER_TYPE, 0x88A8),
        ({"tcp": True, "dscp": 46}, Field.IP_DSCP, 46),
        ({"tcp": True, "ipv6": True, "dscp": 46}, Field.IP6_DSCP, 46),
        ({"tcp": True, "flags": "syn,ece"}, Field.TCP_FLAGS, 0x42),
        ({"arp": "reply", "arp-src-mac": "02:00:00:00:00:09"}, Field.ARP_SRC_MAC, 0x020000000009),
        ({"arp": "reply", "arp-dst-mac": "02:00:00:00:00:09"}, Field.ARP_DST_MAC, 0x020000000009),
        ({"icmpv6": 136, "target": "2001:db8::9"}, Field.ND_TARGET, 0x20010DB8000000000000000000000009),
        ({"icmpv6": 136, "nd-mac": "02:00:00:00:00:09"}, Field.ND_MAC, 0x020000000009),
        ({"icmpv6": 135}, Field.ND_TARGET, 0x20010DB8000900000000000000000009),
        ({"dhcp": "ack", "offered": "10.0.0.8"}, Field.DHCP_ADDRESS, 0x0A000008),
        ({"dhcp": "discover", "client-mac": "02:00:00:00:00:09"}, Field.DHCP_CLIENT, 0x020000000009),
        ({"dhcp": "release"}, Field.DHCP_OWN, 0x0A000007),
        ({"dhcp": "offer", "src": ":6767"}, Field.SRC_PORT, 6767),
        ({"dhcpv6": "renew"}, Field.DHCP6_TYPE, 5),
        ({"tcp": True, "ipv6": True, "fragment": "later"}, Field.IP6_FRAGMENT, 185),
        ({"protocol": 132, "ipv6": True}, Field.L4_PROTOCOL, 132),
        ({"stp": True}, Field.STP_SENDER_ADDRESS, 0x525400000001),
    ],
)
def test_a_word_is_its_field(words: dict[str, Any], field: Field, value: int) -> None:
    assert decode_frame(build(words, GUEST, Way.FROM_GUEST).data).value(field) == value


def test_tcp_options() -> None:
    found = decode_frame(build({"tcp": True, "tcp-option": "8,2"}, GUEST, Way.FROM_GUEST).data)
    assert found.tcp_options() == frozenset({2, 8})


def test_payload() -> None:
    assert build({"udp": True, "payload": "00 ff"}, GUEST, Way.FROM_GUEST).data.endswith(b"\x00\xff")
    assert build({"ethertype": 0x9000, "payload": "ab"}, GUEST, Way.FROM_GUEST).data[14:] == b"\xab"


def test_false_is_not_said() -> None:
    """As YAML has it: `ipv6: false`."""
    words = {"tcp": True, "udp": False, "ipv6": False}
    assert build(words, GUEST, Way.FROM_GUEST) == build({"tcp": True}, GUEST, Way.FROM_GUEST)


@pytest.mark.parametrize(
    ("words", "word", "message"),
    [
        ({}, "", "what packet? one of tcp, udp, sctp, "),
        ({"src": "192.0.2.7"}, "", "what packet?"),
        ({"tpc": True}, "tpc", "'tpc' is no word of a packet; did you mean 'tcp'?"),
        ({7: True}, "7", "7 is no word of a packet"),
        ({"tcp": True, "udp": True}, "udp", "a packet is one of tcp, udp, not all"),
        ({"udp": True, "flags": "syn"}, "flags", "flags can't be said of udp, only of tcp"),
        ({"icmp": 8, "dst": ":443"}, "dst", "dst: icmp has no ports"),
        ({"tcp": "yes"}, "tcp", "tcp: 'yes' is not nothing behind it (in YAML: true)"),
        ({"tcp": True, "src": "192.0.2"}, "src", "src: '192.0.2' is not an address, a port or both"),
        ({"tcp": True, "src": "192.0.2.7:65536"}, "src", "'192.0.2.7:65536' is not a port from 0 to 65535"),
        ({"tcp": True, "src": ""}, "src", "src: '' is not an address"),
        ({"tcp": True, "src": ":"}, "src", "is not a port"),
        ({"tcp": True, "src": "[]:1"}, "src", "is not an address"),
        ({"tcp": True, "src": "[2001:db8::7"}, "src", "is not an address"),
        ({"tcp": True, "src": "[2001:db8::7]443"}, "src", "is not an address"),
        ({"tcp": True, "src": "fe80::1%eth0"}, "src", "is not an address"),
        ({"tcp": True, "src": 443}, "src", "src: 443 is not an address"),
        ({"tcp": True, "src": "192.0.2.7", "dst": "2001:db8::1"}, "dst", "src is of IPv4, dst of IPv6"),
        ({"tcp": True, "ipv4": True, "ipv6": True}, "ipv6", "ipv4 is of IPv4, ipv6 of IPv6"),
        ({"icmp": 8, "dst": "2001:db8::1"}, "dst", "icmp is of IPv4, dst of IPv6"),
        ({"arp": "request", "dst": "2001:db8::1"}, "dst", "arp is of IPv4, dst of IPv6"),
        ({"dhcpv6": "solicit", "src": "10.0.0.1"}, "dhcpv6", "src is of IPv4, dhcpv6 of IPv6"),
        ({"tcp": True, "flags": "sin"}, "flags", "did you mean 'syn'?"),
        ({"tcp": True, "flags": []}, "flags", "is not some of fin, syn"),
        ({"tcp": True, "flags": [7]}, "flags", "is not some of fin, syn"),
        ({"tcp": True, "tcp-option": "0"}, "tcp-option", "from 1 to 254"),
        ({"tcp": True, "tcp-option": ",".join("12345678901")}, "tcp-option", "ten at most"),
        ({"icmp": 256}, "icmp", "each from 0 to 255"),
        ({"icmp": True}, "icmp", "each from 0 to 255"),
        ({"icmp": "8/"}, "icmp", "each from 0 to 255"),
        ({"icmp": "echo"}, "icmp", "types have names: echo-reply"),
        ({"arp": "who-has"}, "arp", "one of request, reply, probe, gratuitous"),
        ({"dhcp": "discovery"}, "dhcp", "did you mean 'discover'?"),
        ({"dhcp": 1}, "dhcp", "one of discover"),
        ({"protocol": "tpc"}, "protocol", "a number from 0 to 255, or one of"),
        ({"protocol": "１"}, "protocol", "a number from 0 to 255"),
        ({"ethertype": 0x5FF}, "ethertype", "a number from 1536 to 65535"),
        ({"tcp": True, "vlan": 4095}, "vlan", "a number from 0 to 4094"),
        ({"tcp": True, "vlan": True}, "vlan", "a number from 0 to 4094"),
        ({"tcp": True, "vlan-type": "802.1ad"}, "vlan-type", "vlan-type needs vlan"),
        ({"tcp": True, "dscp": 64}, "dscp", "a number from 0 to 63"),
        ({"tcp": True, "fragment": "later", "dst": ":1"}, "fragment", "a later fragment has no ports"),
        ({"tcp": True, "src-mac": "52:54"}, "src-mac", "is not a MAC address"),
        ({"tcp": True, "src-mac": 1}, "src-mac", "in YAML it needs quotes"),
        ({"icmpv6": 135, "target": "10.0.0.1"}, "target", "is not an IPv6 address"),
        ({"dhcp": "ack", "offered": "fe80::1"}, "offered", "is not an IPv4 address"),
        ({"udp": True, "payload": "0"}, "payload", "hexadecimal digits"),
        ({"udp": True, "payload": 10}, "payload", "in YAML in quotes"),
        ({"udp": True, "payload": "00" * 9001}, "payload", "9000 octets at most"),
    ],
)
def test_what_makes_no_packet(words: dict[str, Any], word: str, message: str) -> None:
    with pytest.raises(PacketError) as raised:
        build(words, GUEST, Way.FROM_GUEST)
    assert raised.value.word == word
    assert message in str(raised.value)


def test_a_packet_says_nothing_that_is_no_text() -> None:
    """A word's value comes from files of others."""
    with pytest.raises(PacketError) as raised:
        build({"tcp": True, "src": "\x1b[2J\n"}, GUEST, Way.FROM_GUEST)
    assert str(raised.value).isprintable()


def test_words_are_described() -> None:
    """Each has a line for --help, and what takes a value says which."""
    assert all(word.help.endswith((".", "…")) for word in WORDS.values())
    assert {word.name for word in WORDS.values() if not word.value} == {"tcp", "udp", "sctp", "stp", "ipv4", "ipv6"}
