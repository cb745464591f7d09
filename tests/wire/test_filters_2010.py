"""The filters of libvirt's documentation of May 2010, where they differ from today's: accepted, and exact."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.domains import domain, interface
from tests.support.frames import (
    BROADCAST,
    GUEST,
    GUEST_IP,
    OTHER,
    OTHER_IP,
    THIRD,
    arp,
    arp_probe,
    dhcp_discover,
    incoming,
    incoming_arp,
    ipv4,
    ipv6,
    rarp_announce,
    udp,
    vlan,
)
from tests.support.netns import Wire

pytestmark = pytest.mark.netns

FILTERS_2010 = Path(__file__).resolve().parents[1] / "data" / "filters-2010"
ANSWER = incoming_arp(opcode=2, dst=GUEST, target=GUEST)


def start(wire: Wire, name: str, *, learn: bool = False, configuration: str = "") -> None:
    """A guest at vnet0 under the filter of 2010."""
    wire.configure(configuration, filter_dirs=[FILTERS_2010])
    parameters = [] if learn else [("IP", GUEST_IP)]
    wire.start("web", domain("web", [interface("vnet0", name, parameters)]))


def receives(wire: Wire, frame: bytes) -> bool:
    """Does the guest at vnet0 receive `frame`?"""
    return wire.passes(frame, "vnet1", "vnet0")


def test_no_arp_spoofing(wire: Wire) -> None:
    """It lets out the guest's own requests and answers, and lets in what is meant for the guest."""
    outgoing = [
        arp(src=OTHER),
        arp(sender=OTHER),
        arp(sender_ip=OTHER_IP),
        arp_probe(),
        arp(opcode=8),
    ]
    arriving = [
        incoming_arp(opcode=2, target=THIRD),
        incoming_arp(target_ip="10.0.0.2"),
        incoming_arp(opcode=8),
    ]
    assert all(wire.passes(frame) for frame in outgoing)
    assert all(receives(wire, frame) for frame in arriving)
    start(wire, "no-arp-spoofing")
    assert wire.passes(arp())
    assert wire.passes(arp(opcode=2, target=OTHER))
    assert [wire.passes(frame) for frame in outgoing] == [False] * len(outgoing)
    assert receives(wire, incoming_arp())
    assert receives(wire, ANSWER)
    assert [receives(wire, frame) for frame in arriving] == [False] * len(arriving)
    # Only ARP is its business.
    assert wire.passes(ipv4(src=OTHER))
    assert wire.passes(vlan(arp(src=OTHER)))
    assert wire.passes(rarp_announce(OTHER))


def test_no_arp_spoofing_learns(wire: Wire) -> None:
    """Its negated $IP works with a learned address; until there is one, no ARP comes in."""
    start(wire, "no-arp-spoofing", learn=True)
    assert not receives(wire, incoming_arp())
    assert not wire.passes(arp(sender=OTHER, sender_ip=OTHER_IP))
    assert wire.passes(arp())
    assert receives(wire, incoming_arp())
    assert not receives(wire, incoming_arp(target_ip="10.0.0.2"))
    assert not wire.passes(arp(sender_ip="10.0.0.2"))


def test_no_ip_spoofing(wire: Wire) -> None:
    """One address and nothing else, not even a DHCP client's 0.0.0.0."""
    start(wire, "no-ip-spoofing")
    assert wire.passes(ipv4())
    assert not wire.passes(ipv4(src_ip=OTHER_IP))
    assert not wire.passes(dhcp_discover())
    assert wire.passes(vlan(ipv4(src_ip=OTHER_IP)))
    assert wire.passes(ipv6())
    assert receives(wire, incoming(ipv4))


def test_clean_traffic(wire: Wire) -> None:
    """ARP both ways, IPv4 to the guest; taken by the letter, it lets no IPv4 out."""
    start(wire, "clean-traffic")
    assert wire.passes(arp())
    assert wire.passes(rarp_announce())
    assert receives(wire, incoming_arp())
    assert receives(wire, incoming(udp))
    assert receives(wire, incoming(udp, dst=BROADCAST))
    for frame in (arp(src=OTHER), arp(sender_ip=OTHER_IP), ipv4(src_ip=OTHER_IP), ipv6(), vlan(arp())):
        assert not wire.passes(frame)
    assert not receives(wire, incoming(ipv6))
    assert not wire.passes(ipv4())


def test_clean_traffic_where_a_chain_ends_as_in_libvirt(wire: Wire) -> None:
    """It counts on that: what no-ip-spoofing doesn't drop goes out. Everything else is as before."""
    start(wire, "clean-traffic", configuration="[language]\nend_of_chain = accept")
    for frame in (arp(), rarp_announce(), ipv4(), udp()):
        assert wire.passes(frame)
    assert receives(wire, incoming_arp())
    assert receives(wire, incoming(udp))
    for frame in (arp(src=OTHER), arp(sender_ip=OTHER_IP), ipv4(src_ip=OTHER_IP), ipv4(src=OTHER), ipv6(), vlan(arp())):
        assert not wire.passes(frame)
    assert not receives(wire, incoming(ipv6))
