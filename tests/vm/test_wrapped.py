"""Guards whatever a message is wrapped in, and VLANs, on Debian's kernel."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.domains import domain, interface
from tests.support.frames import GUEST, GUEST_IP, OTHER, OTHER_IP, arp, ipv4, vlan
from tests.support.netns import Wire
from tests.wire.test_wrapped import check_guard

pytestmark = [pytest.mark.vm, pytest.mark.stock_kernel]


@pytest.fixture
def wire() -> Iterator[Wire]:
    """A bridge with the taps vnet0 and vnet1, a guest at the end of each."""
    with Wire() as wire:
        yield wire


@pytest.mark.parametrize("name", ["no-ipv6-nd-spoofing", "no-dhcp-spoofing"])
def test_no_wrapping_passes_a_guard(wire: Wire, name: str) -> None:
    """As on the kernel at hand."""
    check_guard(wire, name)


def test_a_guest_behind_a_bridge_with_vlans(wire: Wire) -> None:
    """
    Where the bridge filters VLANs, a guest whose port has one untagged needs nothing of its own: every filter sees
    plain frames, whatever the other ports have.
    """
    wire.ip("link set br0 type bridge vlan_filtering 1 vlan_default_pvid 0")
    for tap in ("vnet0", "vnet1"):
        wire.run("bridge", "vlan", "add", "dev", tap, "vid", "7", "pvid", "untagged")
    wire.start("web", domain("web", [interface("vnet0", "clean-traffic", [("IP", GUEST_IP)])]))
    assert wire.passes(ipv4())
    assert wire.passes(arp())
    assert not wire.passes(ipv4(src_ip=OTHER_IP))
    assert not wire.passes(vlan(ipv4()))
    to_guest = ipv4(src=OTHER, dst=GUEST, src_ip=OTHER_IP, dst_ip=GUEST_IP)
    assert wire.passes(to_guest, "vnet1", "vnet0")
    wire.run("bridge", "vlan", "add", "dev", "vnet1", "vid", "7")  # a trunk: with its tag
    wire.guests["vnet0"].send(ipv4())
    assert vlan(ipv4()) in wire.guests["vnet1"].receive()
    wire.guests["vnet1"].send(vlan(to_guest))
    assert to_guest in wire.guests["vnet0"].receive()
