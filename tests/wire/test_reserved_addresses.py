"""
What a guest sends to 01:80:c2:00:00:0x, which a bridge takes for itself before any hook of its own, or past it: the
rules of layer 2 decide about it before the bridge learns from it, the host gets it, or spanning tree acts on it.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.domains import domain, interface
from tests.support.frames import GUEST, OTHER, ether, ipv6, stp_bpdu, udp
from tests.support.netns import BRIDGE, Wire

pytestmark = pytest.mark.netns

EVERY = [f"01:80:c2:00:00:{number:02x}" for number in range(16)]
LLDP = 0x88CC
FILTERS = {
    "nothing": "<rule action='drop' direction='inout' priority='1000'/>",
    "layer-3-nothing": "<rule action='drop' direction='inout'><all/></rule>"
    "<rule action='drop' direction='inout'><all-ipv6/></rule>",
    "neighbours": "<filterref filter='no-mac-spoofing'/>"
    "<rule action='accept' direction='out'><stp/></rule>"
    f"<rule action='accept' direction='out'><mac protocolid='{LLDP:#x}'/></rule>"
    "<rule action='drop' direction='out' priority='1000'/>",
}


@pytest.fixture
def wire(wire: Wire, tmp_path: Path) -> Wire:
    """A bridge that learns, with the filters above."""
    for name, rules in FILTERS.items():
        (tmp_path / f"{name}.xml").write_text(f"<filter name='{name}'>{rules}</filter>")
    wire.configure(filter_dirs=[tmp_path])
    wire.ip(f"link set {BRIDGE} type bridge ageing_time 30000")
    return wire


def start(wire: Wire, filter_name: str | None) -> None:
    """The guest of vnet0 runs under a filter, or under none."""
    wire.start("web", domain("web", [interface("vnet0", filter_name, mac=GUEST)]))


def learned(wire: Wire, tap: str = "vnet0") -> set[str]:
    """The MACs that the bridge has learned at the tap's port."""
    lines = wire.run("bridge", "fdb", "show", "br", BRIDGE, "brport", tap).stdout.splitlines()
    return {line.split()[0] for line in lines if "permanent" not in line and "self" not in line}


def sends(wire: Wire, frame: bytes) -> None:
    """The guest of vnet0 sends a frame."""
    wire.guests["vnet0"].send(frame)


class Host:
    """
    What the host's protocols get from the bridge's ports: a bridge that keeps a frame gives it to them, as coming from
    the port. A socket for one EtherType is such a protocol; what the host gets is there when the guest has sent it.
    """

    def __init__(self, wire: Wire, ether_type: int) -> None:
        with wire.inside():
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ether_type))
            self._socket.bind(("vnet0", ether_type))
        self._socket.setblocking(False)
        self._wire = wire

    def gets(self, frame: bytes) -> bool:
        """Whether a frame that the guest of vnet0 sends comes to the host."""
        sends(self._wire, frame)
        with contextlib.suppress(BlockingIOError):
            while True:
                if self._socket.recv(2000) == frame:
                    return True
        return False


IPV4, IPV6, LLC = 0x0800, 0x86DD, 4  # linux/if_ether.h


def test_the_bridge_learns_nothing_that_the_filter_drops(wire: Wire) -> None:
    """A neighbour's MAC as the source, under clean-traffic: the neighbour's traffic isn't moved to the guest."""
    for destination in EVERY:
        sends(wire, ether(src=OTHER, dst=destination, ethertype=LLDP))
    assert learned(wire) == {OTHER}, "the bridge doesn't learn, so this says nothing"
    wire.run("bridge", "fdb", "del", OTHER, "dev", "vnet0", "master")
    start(wire, "clean-traffic")
    for destination in EVERY:
        sends(wire, ether(src=OTHER, dst=destination, ethertype=LLDP))
        assert learned(wire) == set(), destination


@pytest.mark.parametrize(("build", "ether_type"), [(udp, IPV4), (ipv6, IPV6)], ids=("ipv4", "ipv6"))
def test_no_ip_reaches_the_host_that_way(wire: Wire, build: Callable[..., bytes], ether_type: int) -> None:
    """Under filters that drop everything, everything of layer 3, or what isn't the guest's own."""
    host = Host(wire, ether_type)
    assert [destination for destination in EVERY if host.gets(build(dst=destination))] != []
    for filter_name in ("nothing", "layer-3-nothing", "clean-traffic"):
        start(wire, filter_name)
        assert [destination for destination in EVERY if host.gets(build(dst=destination))] == [], filter_name


def test_a_quarantine_is_closed_there_too(wire: Wire) -> None:
    """A guest whose filter can't be made."""
    frame = ether(dst="01:80:c2:00:00:03", ethertype=LLDP)
    host = Host(wire, LLDP)
    assert host.gets(frame)
    wire.run("bridge", "fdb", "del", GUEST, "dev", "vnet0", "master")
    assert wire.hook("web", "reconnect", domain("web", [interface("vnet0", "gone", mac=GUEST)])).returncode == 0
    assert not host.gets(frame)
    sends(wire, ether(src=OTHER, dst="01:80:c2:00:00:0e", ethertype=LLDP))
    assert learned(wire) == set()


def test_what_a_filter_allows_arrives(wire: Wire) -> None:
    """LLDP under the guest's own MAC reaches the host, and the bridge learns that MAC; under another it doesn't."""
    start(wire, "neighbours")
    host = Host(wire, LLDP)
    assert host.gets(ether(dst="01:80:c2:00:00:03", ethertype=LLDP))
    assert learned(wire) == {GUEST}
    assert not host.gets(ether(src=OTHER, dst="01:80:c2:00:00:03", ethertype=LLDP))
    assert not Host(wire, 0x888E).gets(ether(dst="01:80:c2:00:00:03", ethertype=0x888E))
    assert learned(wire) == {GUEST}


@pytest.mark.parametrize(("filter_name", "allowed"), [("clean-traffic", False), ("neighbours", True), (None, True)])
def test_whose_bpdus_reach_spanning_tree(wire: Wire, filter_name: str | None, allowed: bool) -> None:
    """What could make the guest the root of the tree, only if its filter allows STP."""
    wire.ip(f"link set {BRIDGE} type bridge stp_state 1")
    start(wire, filter_name)
    assert Host(wire, LLC).gets(stp_bpdu()) is allowed


def test_what_is_recorded_goes_with_the_guest(wire: Wire) -> None:
    """And comes back with a reconnect, if somebody has taken it away."""
    start(wire, "clean-traffic")
    wire.nft("delete", "table", "netdev", "nwfilter")
    frame = ether(src=OTHER, dst="01:80:c2:00:00:0e", ethertype=LLDP)
    xml = domain("web", [interface("vnet0", "clean-traffic", mac=GUEST)])
    assert "repaired" in wire.hook("web", "reconnect", xml).stderr
    sends(wire, frame)
    assert learned(wire) == set()
    wire.stop("web", xml)
    assert "vnet0" not in wire.ruleset()
