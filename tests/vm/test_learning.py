"""Learned addresses in layer 3 rules, which need connection tracking in the bridge family."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.domains import Parameters, domain, interface
from tests.support.frames import GUEST, OTHER, arp, dhcp_discover, incoming, ipv4, ping6, tcp
from tests.support.learned import learned
from tests.support.netns import Wire
from tests.wire.test_dhcp import MODE, SERVER, reply

pytestmark = [pytest.mark.vm, pytest.mark.stock_kernel]

FIRST, SECOND = "10.0.5.5", "10.0.5.6"
FILTER = """\
<filter name='own' chain='root'>
<rule action='accept' direction='out'><tcp srcipaddr='$IP' dstportstart='80'/></rule>
<rule action='drop' direction='inout' priority='900'><all/></rule>
</filter>
"""


@pytest.fixture
def wire() -> Iterator[Wire]:
    """A bridge with the taps vnet0 and vnet1, a guest at the end of each."""
    with Wire() as wire:
        yield wire


def start(wire: Wire, directory: Path, parameters: Parameters) -> None:
    """Start a guest that may open connections to port 80 from its own address, and nothing else in IPv4."""
    (directory / "own.xml").write_text(FILTER)
    wire.configure(filter_dirs=[directory])
    wire.start("web", domain("web", [interface("vnet0", "own", parameters)]))


def exchange(wire: Wire, address: str) -> tuple[bool, bool]:
    """Whether a SYN from `address` leaves, and whether its answer arrives."""
    sent = wire.passes(tcp(src_ip=address, sport=40000))
    answer = incoming(tcp, dst_ip=address, sport=80, dport=40000, flags="SA", ack=1001)
    return sent, wire.passes(answer, "vnet1", "vnet0")


def test_a_layer_3_rule_with_a_learned_address(wire: Wire, tmp_path: Path) -> None:
    """The first packet teaches at layer 2 what layer 3 then compares with, both ways."""
    start(wire, tmp_path, [])
    assert exchange(wire, FIRST) == (True, True)
    assert exchange(wire, SECOND) == (False, False)
    assert learned(wire) == [FIRST]


def test_a_layer_3_rule_with_a_leased_address(wire: Wire, tmp_path: Path) -> None:
    """The first lease gets through a filter that allows no DHCP; a new one takes the place of the old in layer 3."""
    start(wire, tmp_path, [MODE, ("DHCPSERVER", SERVER)])
    assert wire.passes(dhcp_discover())
    assert exchange(wire, FIRST) == (False, False)
    assert wire.passes(reply(FIRST), "vnet1", "vnet0")
    assert learned(wire) == [FIRST]
    assert wire.passes(arp(sender_ip=FIRST))
    assert exchange(wire, FIRST) == (True, True)
    assert exchange(wire, SECOND) == (False, False)
    # the renewal is this filter's matter, and it allows none
    assert not wire.passes(reply(SECOND), "vnet1", "vnet0")


def test_who_has_an_address_first(wire: Wire) -> None:
    """What one guest has learned, or was given, another doesn't learn; what is over is free: here, too."""
    mine = domain("web", [interface("vnet0", "clean-traffic-dual", [("CTRL_IPV6_LEARNING", "any")])])
    neighbour = [interface("vnet1", "clean-traffic", [], mac=OTHER)]
    given = [interface("vnet1", "clean-traffic", [("IP", FIRST)], mac=OTHER)]
    wire.start("web", mine)
    assert wire.passes(ping6(src_ip="2001:db8::5"))
    wire.start("db", domain("db", neighbour))
    assert wire.passes(ipv4(src_ip=FIRST))
    for _ in range(3):
        assert not wire.passes(ipv4(src=OTHER, dst=GUEST, src_ip=FIRST), "vnet1", "vnet0")
    assert wire.hook("db", "start", domain("db", given)).returncode == 0
    assert not wire.passes(ipv4(src_ip=FIRST))
    assert wire.passes(ipv4(src_ip=SECOND))
    wire.start("db", domain("db", neighbour))
    assert not wire.passes(ipv4(src=OTHER, dst=GUEST, src_ip=SECOND), "vnet1", "vnet0")
    wire.stop("web", mine)
    assert wire.passes(ipv4(src=OTHER, dst=GUEST, src_ip=SECOND), "vnet1", "vnet0")
    wire.stop("db", domain("db", neighbour))
    assert "taken" not in wire.ruleset()
