"""$IP without a value: the kernel learns it from the first honest frame, and holds the guest to it."""

from __future__ import annotations

import pytest

from tests.support import frames
from tests.support.domains import domain, interface
from tests.support.learned import learned
from tests.support.netns import Wire

pytestmark = pytest.mark.netns

FIRST, SECOND = "10.0.5.5", "10.0.5.6"


@pytest.fixture
def learning(wire: Wire) -> Wire:
    """A wire with a guest at vnet0 under clean-traffic, its address unknown."""
    wire.start("web", domain("web", [interface("vnet0", "clean-traffic")]))
    return wire


LESSONS = {
    "ipv4": frames.ipv4(src_ip=FIRST),
    "udp": frames.udp(src_ip=FIRST),
    "tcp": frames.tcp(src_ip=FIRST),
    "arp-request": frames.arp(sender_ip=FIRST),
    "arp-reply": frames.arp(opcode=2, sender_ip=FIRST),
    "arp-announcement": frames.arp(sender_ip=FIRST, target_ip=FIRST),
}

NO_LESSONS = {
    "arp-probe": (frames.arp_probe(target_ip=SECOND), False),
    "dhcp-request": (frames.dhcp_discover(), True),
    "ipv4-from-nowhere": (frames.ipv4(src_ip="0.0.0.0"), False),
    "ipv4-under-another-mac": (frames.ipv4(src=frames.OTHER, src_ip=SECOND), False),
    "arp-under-another-mac": (frames.arp(src=frames.OTHER, sender_ip=SECOND), False),
    "arp-naming-another-mac": (frames.arp(sender=frames.OTHER, sender_ip=SECOND), False),
    "ipv4-in-a-tag": (frames.vlan(frames.ipv4(src_ip=SECOND)), False),
    "arp-in-a-tag": (frames.vlan(frames.arp(sender_ip=SECOND)), False),
    "ipv6": (frames.ipv6(), False),
    "rarp": (frames.rarp_announce(), True),
}


@pytest.mark.parametrize("kind", LESSONS)
def test_the_first_honest_frame_teaches(learning: Wire, kind: str) -> None:
    """IPv4 and ARP under the guest's own MAC pass, and from then on it may use that address only."""
    assert learned(learning) == []
    assert learning.passes(LESSONS[kind])
    assert learned(learning) == [FIRST]
    for honest in LESSONS.values():
        assert learning.passes(honest)
    assert not learning.passes(frames.ipv4(src_ip=SECOND))
    assert not learning.passes(frames.tcp(src_ip=SECOND))
    assert not learning.passes(frames.arp(sender_ip=SECOND))
    assert not learning.passes(frames.arp(opcode=2, sender_ip=SECOND))
    assert learned(learning) == [FIRST]


@pytest.mark.parametrize("kind", NO_LESSONS)
def test_other_frames_teach_nothing(learning: Wire, kind: str) -> None:
    """What isn't the guest's own address teaches nothing, passing or not; the next frame teaches."""
    frame, passes = NO_LESSONS[kind]
    assert learning.passes(frame) == passes
    assert learned(learning) == []
    assert learning.passes(frames.arp(sender_ip=FIRST))
    assert learned(learning) == [FIRST]


@pytest.mark.parametrize("source", ["224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255"])
def test_an_address_no_host_can_have_teaches_nothing(learning: Wire, source: str) -> None:
    """A multicast or reserved source address isn't learned, and not let out."""
    assert not learning.passes(frames.ipv4(src_ip=source))
    assert not learning.passes(frames.arp(sender_ip=source))
    assert learned(learning) == []
    assert learning.passes(frames.ipv4(src_ip=FIRST))


def test_frames_to_the_guest_teach_nothing(learning: Wire) -> None:
    """Neighbours can't make up the guest's address, by ARP, IPv4 or a DHCP answer."""
    assert learning.passes(frames.incoming(frames.ipv4, dst_ip=SECOND), "vnet1", "vnet0")
    assert learning.passes(frames.incoming(frames.ipv4, src=frames.GUEST, src_ip=SECOND), "vnet1", "vnet0")
    assert learning.passes(frames.incoming_arp(sender=frames.GUEST, sender_ip=SECOND), "vnet1", "vnet0")
    assert learning.passes(frames.dhcp_offer(offered=SECOND, kind="ack"), "vnet1", "vnet0")
    assert learned(learning) == []
    assert learning.passes(frames.arp(sender_ip=FIRST))
    assert learned(learning) == [FIRST]


def test_a_lesson_costs_no_frame(learning: Wire) -> None:
    """The frame that teaches arrives, and so does the next one: there is no moment without an address."""
    sent = [frames.udp(src_ip=FIRST, sport=port) for port in range(40000, 40050)]
    assert [learning.passes(frame) for frame in sent] == [True] * len(sent)


def test_a_probing_guest_learns_by_its_announcement(learning: Wire) -> None:
    """Probes for an address are dropped and teach nothing; claiming it teaches."""
    for _ in range(3):
        assert not learning.passes(frames.arp_probe(target_ip=FIRST))
    assert learning.passes(frames.arp(sender_ip=FIRST, target_ip=FIRST))
    assert learned(learning) == [FIRST]


def test_learning_under_another_filter(wire: Wire) -> None:
    """Under no-arp-spoofing alone IPv4 teaches too, but only ARP is held to the learning_rule."""
    wire.start("web", domain("web", [interface("vnet0", "no-arp-spoofing")]))
    assert not wire.passes(frames.arp(sender=frames.THIRD, sender_ip=SECOND))
    assert wire.passes(frames.ipv4(src=frames.OTHER, src_ip=SECOND))
    assert learned(wire) == []
    assert wire.passes(frames.ipv4(src_ip=FIRST))
    assert learned(wire) == [FIRST]
    assert wire.passes(frames.arp(sender_ip=FIRST))
    assert not wire.passes(frames.arp(sender_ip=SECOND))
    assert wire.passes(frames.ipv4(src_ip=SECOND))
