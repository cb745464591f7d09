"""The wire itself: what these tests build on, shown with nft scripts written by hand."""

from __future__ import annotations

import pytest

from tests.support import frames
from tests.support.netns import Fate, Wire

pytestmark = pytest.mark.netns

ALL_KINDS = {
    "ether": frames.ether(),
    "arp": frames.arp(),
    "arp-probe": frames.arp_probe(),
    "rarp": frames.rarp_announce(),
    "ipv4": frames.ipv4(),
    "udp": frames.udp(),
    "tcp": frames.tcp(),
    "icmp": frames.icmp(),
    "dhcp-discover": frames.dhcp_discover(),
    "dhcp-offer": frames.dhcp_offer(),
    "ipv6": frames.ipv6(),
    "udp6": frames.udp6(),
    "ping6": frames.ping6(),
    "neighbour-solicitation": frames.neighbour_solicitation(),
    "dhcpv6-solicit": frames.dhcpv6_solicit(),
    "dhcpv6-reply": frames.dhcpv6_reply(),
    "stp": frames.stp_bpdu(),
    "garbage": frames.garbage(),
    "short": frames.garbage(20),
}

# The layout of our table: maps by interface name, a chain per tap and direction, a sub-chain per nwfilter
# chain.
ONE_GUEST = """
table bridge nwfilter {
  map from-guest-l2 { type ifname : verdict; }
  map to-guest-l2 { type ifname : verdict; }
  chain l2-prerouting {
    type filter hook prerouting priority -300; policy accept;
    iifname vmap @from-guest-l2;
  }
  chain l2-postrouting {
    type filter hook postrouting priority 300; policy accept;
    oifname vmap @to-guest-l2;
  }
  chain from/vnet0/arp-mac {
    arp saddr ether 52:54:00:00:00:01 counter return comment "no-arp-mac-spoofing:16"
    counter drop comment "no-arp-mac-spoofing:21"
  }
  chain from/vnet0 {
    ether saddr != 52:54:00:00:00:01 counter drop comment "no-mac-spoofing:15"
    ether type arp jump from/vnet0/arp-mac
    ether type arp counter accept comment "clean-traffic:33"
    counter drop comment "no-other-l2-traffic:12"
  }
  chain to/vnet0 {
    ether type arp accept
    drop
  }
}
add element bridge nwfilter from-guest-l2 { "vnet0" : jump from/vnet0 }
add element bridge nwfilter to-guest-l2 { "vnet0" : jump to/vnet0 }
"""


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_a_bare_wire_passes_everything(wire: Wire, kind: str) -> None:
    """Without a table, every kind of frame reaches the other guest byte for byte, in any VLAN tag too."""
    frame = ALL_KINDS[kind]
    assert wire.passes(frame)
    assert wire.passes(frames.vlan(frame))
    assert wire.passes(frames.vlan(frame, ethertype=0x88A8))


def test_what_a_guest_sends_has_arrived_when_it_is_sent(wire: Wire) -> None:
    """A frame that passes can be read as soon as it is written: a verdict needs no waiting."""
    frame = frames.udp()
    assert all(wire.passes(frame + number.to_bytes(4, "big")) for number in range(2000))


def test_frames_come_out_everywhere_else(wire: Wire) -> None:
    """The bridge floods: every guest but the sender receives the frame, however often it was seen."""
    wire.plug("vnet2")
    for _ in range(2):
        assert wire.arrivals(frames.arp()) == {"vnet1", "vnet2"}


def test_rules_of_a_tap_judge_its_frames(wire: Wire) -> None:
    """A script in the layout of our table drops forged frames and lets honest ones pass."""
    forged_sender = frames.arp(sender=frames.OTHER)
    forged_source = frames.arp(src=frames.OTHER)
    for frame in (forged_sender, forged_source, frames.vlan(frames.arp())):
        assert wire.passes(frame)
    wire.apply(ONE_GUEST)
    assert wire.passes(frames.arp())
    assert not wire.passes(forged_sender)
    assert not wire.passes(forged_source)
    assert not wire.passes(frames.vlan(frames.arp()))
    # The other guest's frames aren't judged by them, unless they are for this one.
    assert wire.passes(forged_source, sender="vnet1", to="vnet0")
    wire.plug("vnet2")
    assert wire.arrivals(frames.udp(), sender="vnet1") == {"vnet2"}


def test_counters_tell_which_rule_decided(wire: Wire) -> None:
    """The rule that decided is the one with a final verdict whose counter moves."""
    wire.apply(ONE_GUEST)
    assert wire.fate(frames.arp()) == Fate(True, ("clean-traffic:33",))
    assert wire.fate(frames.arp(sender=frames.OTHER)) == Fate(False, ("no-arp-mac-spoofing:21",))
    assert wire.fate(frames.vlan(frames.arp())) == Fate(False, ("no-other-l2-traffic:12",))
    assert wire.fate(frames.ether(), "vnet1", "vnet0") == Fate(False, ())


def test_a_tap_leaves_with_its_guest_and_may_come_back(wire: Wire) -> None:
    """Rules by name outlive the tap: a new tap of that name meets them."""
    wire.apply(ONE_GUEST)
    wire.unplug("vnet0")
    wire.plug("vnet0")
    assert wire.passes(frames.arp())
    assert not wire.passes(frames.udp())


def test_nothing_leaks_between_wires(wire: Wire) -> None:
    """Each wire has a network of its own, and the process that lays it stays where it was."""
    wire.apply(ONE_GUEST)
    with Wire() as other:
        assert other.ruleset() == ""
        assert other.passes(frames.udp())
    assert "vnet0" in wire.ruleset()
