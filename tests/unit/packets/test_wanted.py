"""Frames that words ask for: those that the same words make, and not those that other words make."""

from __future__ import annotations

from typing import Any

import pytest

from nwfilter_hook.base.errors import NOWHERE, PacketError
from nwfilter_hook.packets.given import WORDS
from nwfilter_hook.packets.wanted import read_wanted
from nwfilter_hook.packets.words import Guest, build
from nwfilter_hook.ruleset.evaluate import NO_CONTEXT, Way, failing
from nwfilter_hook.ruleset.frame import decode_frame
from nwfilter_hook.ruleset.model import Rule, Verdict

GUEST = Guest(0x525400000001, 0x0A000007, 0x20010DB8000000000000000000000077)

ASKED: tuple[tuple[dict[str, Any], dict[str, Any]], ...] = (
    ({"tcp": True}, {"udp": True}),
    ({"tcp": True, "dst": ":443"}, {"tcp": True, "dst": ":80"}),
    ({"tcp": True, "dst": "192.0.2.1:443"}, {"tcp": True, "dst": "[2001:db8::1]:443"}),
    ({"tcp": True, "src": "[2001:db8::1]:5"}, {"tcp": True, "src": "[2001:db8::2]:5"}),
    ({"tcp": True, "flags": "syn"}, {"tcp": True, "flags": "syn,ack"}),
    ({"tcp": True, "tcp-option": "8"}, {"tcp": True}),
    ({"udp": True, "ipv6": True}, {"udp": True}),
    ({"udp": True, "ipv4": True, "dscp": "46"}, {"udp": True, "ipv4": True}),
    ({"udp": True, "ipv6": True, "dscp": "46"}, {"udp": True, "ipv6": True}),
    ({"udp": True, "dscp": "46"}, {"udp": True}),
    ({"udp": True, "fragment": "first"}, {"udp": True, "fragment": "later"}),
    ({"udp": True, "fragment": "later"}, {"udp": True}),
    ({"udp": True, "ipv6": True, "fragment": "later"}, {"udp": True, "ipv6": True, "fragment": "first"}),
    ({"sctp": True}, {"tcp": True}),
    ({"icmp": "8"}, {"icmp": "0"}),
    ({"icmp": "3/1"}, {"icmp": "3/3"}),
    ({"icmpv6": "135", "target": "2001:db8::5"}, {"icmpv6": "135", "target": "2001:db8::6"}),
    ({"icmpv6": "136", "nd-mac": "52:54:00:00:00:09"}, {"icmpv6": "136"}),
    ({"protocol": "gre"}, {"protocol": "esp"}),
    ({"arp": "request"}, {"arp": "reply"}),
    ({"arp": "probe"}, {"arp": "request"}),
    ({"arp": "gratuitous"}, {"arp": "request"}),
    ({"arp": "request", "src": "192.0.2.1"}, {"arp": "request", "src": "192.0.2.2"}),
    ({"arp": "reply", "arp-dst-mac": "52:54:00:00:00:09"}, {"arp": "reply"}),
    ({"arp": "reply", "arp-src-mac": "52:54:00:00:00:09"}, {"arp": "reply"}),
    ({"rarp": "announce"}, {"arp": "request"}),
    ({"rarp": "request"}, {"rarp": "reply"}),
    ({"dhcp": "discover"}, {"dhcp": "request"}),
    ({"dhcp": "ack", "offered": "192.0.2.1"}, {"dhcp": "ack", "offered": "192.0.2.2"}),
    ({"dhcp": "ack", "client-mac": "52:54:00:00:00:09"}, {"dhcp": "ack"}),
    ({"dhcpv6": "solicit"}, {"dhcpv6": "request"}),
    ({"stp": True}, {"ethertype": "lldp"}),
    ({"ethertype": "0x88cc"}, {"ethertype": "0x88cd"}),
    ({"tcp": True, "vlan": "5"}, {"tcp": True}),
    ({"arp": "request", "vlan": "5"}, {"arp": "request", "vlan": "6"}),
    ({"tcp": True, "src-mac": "52:54:00:00:00:09"}, {"tcp": True}),
    ({"tcp": True, "dst-mac": "52:54:00:00:00:09"}, {"tcp": True}),
)


def meets(words: dict[str, Any], made: dict[str, Any], way: Way) -> bool:
    # a DHCP message is as short as it can be: see operations/trace.py
    frame = decode_frame(build(made, GUEST, way).data + bytes(16))
    groups = read_wanted(words)
    return any(not failing(Rule(group, Verdict.CONTINUE, "", NOWHERE), frame, NO_CONTEXT) for group in groups)


@pytest.mark.parametrize(("words", "others"), ASKED, ids=[str(words) for words, _ in ASKED])
def test_words_ask_for_what_they_make(words: dict[str, Any], others: dict[str, Any]) -> None:
    """Both ways."""
    for way in Way:
        assert meets(words, words, way)
        assert not meets(words, others, way)


def test_every_word_can_be_asked_for() -> None:
    """But for those that are refused."""
    assert {word for words, _ in ASKED for word in words} == set(WORDS) - {"payload", "vlan-type"}


def test_what_nobody_says_may_be_anything() -> None:
    """Tagged or not, of either version, with any code; no words are all frames."""
    for made in ({"tcp": True, "ipv6": True}, {"tcp": True, "vlan": "7"}, {"tcp": True, "flags": "ack"}):
        assert meets({"tcp": True}, made, Way.FROM_GUEST)
    assert meets({"icmp": "3"}, {"icmp": "3/13"}, Way.TO_GUEST)
    assert not meets({"icmp": "3/0"}, {"icmp": "3/13"}, Way.TO_GUEST)
    assert meets({"arp": "request"}, {"arp": "request", "vlan": "7"}, Way.FROM_GUEST)
    assert read_wanted({}) == ()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"udp": True, "payload": "00"}, "payload can't be asked for"),
        ({"udp": True, "vlan": "5", "vlan-type": "802.1ad"}, "--ethertype 0x88a8"),
        ({"dst": ":443"}, "what packet?"),
        ({"tcp": True, "src": "192.0.2.1", "dst": "2001:db8::1"}, "IPv6"),
    ],
)
def test_what_cant_be_asked_for(words: dict[str, Any], said: str) -> None:
    """It is said."""
    with pytest.raises(PacketError) as caught:
        read_wanted(words)
    assert said in str(caught.value)
