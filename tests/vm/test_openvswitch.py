"""Guests on ports of Open vSwitch's kernel datapath, which Debian's kernel has: both ways, with frames."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.domains import device, domain
from tests.support.frames import (
    GUEST_IP,
    THIRD,
    arp,
    incoming,
    incoming_arp,
    ipv4,
    ping6,
    udp,
    vlan,
)
from tests.support.netns import Wire
from tests.support.openvswitch import BRIDGE, Switch, open_vswitch

pytestmark = [pytest.mark.vm, pytest.mark.stock_kernel]

TAP, NEIGHBOUR = "vnet0", "vnet1"
UNWANTED = "10.0.0.66"
FILTER = f"""\
<filter name='own' chain='root'>
<rule action='drop' direction='in' priority='-1000'><ip srcipaddr='{UNWANTED}'/></rule>
<filterref filter='clean-traffic'/>
</filter>
"""
HONEST = {"udp": udp(), "ipv4": ipv4(), "arp": arp()}
FORGED = {
    "mac": udp(src=THIRD),
    "ip": udp(src_ip="10.0.0.9"),
    "arp-mac": arp(sender=THIRD),
    "arp-ip": arp(sender_ip="10.0.0.9"),
    "ipv6": ping6(),
    "tagged": vlan(udp()),
}
WELCOME = {"udp": incoming(udp), "arp": incoming_arp()}
UNWELCOME = {
    "ip": incoming(udp, src_ip=UNWANTED),
    "ipv6": incoming(ping6),
    "tagged": vlan(incoming(udp)),
}


@pytest.fixture(scope="module")
def switch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Switch]:
    """A bridge of Open vSwitch with two taps, a guest at the end of each."""
    with Wire(()) as wire:
        wire.plug(TAP, NEIGHBOUR, bridge=None)
        with open_vswitch(wire) as switch:
            directory = tmp_path_factory.mktemp("filters")
            (directory / "own.xml").write_text(FILTER)
            wire.configure(filter_dirs=[directory])
            switch.add_ports(TAP, NEIGHBOUR)
            yield switch


def web(tap: str | None = TAP, filter_name: str = "own") -> str:
    """A guest as libvirt describes it."""
    source = f"<source bridge='{BRIDGE}'/><virtualport type='openvswitch'/>"
    return domain("web", [device("bridge", tap, filter_name, [("IP", GUEST_IP)], source=source)])


def sent(switch: Switch, frames: dict[str, bytes]) -> list[str]:
    """Which of the guest's frames its neighbour gets; all are expected."""
    return [kind for kind, frame in frames.items() if switch.passes(frame, TAP, NEIGHBOUR)]


def got(switch: Switch, frames: dict[str, bytes]) -> list[str]:
    """Which of its neighbour's frames the guest gets; all are expected."""
    return [kind for kind, frame in frames.items() if switch.passes(frame, NEIGHBOUR, TAP)]


def test_it_is_the_kernels_datapath(switch: Switch) -> None:
    """The wire is what these tests say it is: the taps belong to the switch, and to no bridge of Linux."""
    links = switch.wire.run("ip", "-oneline", "link", "show", "master", "ovs-system").stdout
    assert TAP in links
    assert NEIGHBOUR in links


def test_both_ways(switch: Switch) -> None:
    """
    From start to stop a guest speaks for itself only, and isn't told what its filter keeps from it; also after its tap
    has gone without a word, and come back.
    """
    wire = switch.wire
    assert sent(switch, HONEST | FORGED) == [*(HONEST | FORGED)]
    assert got(switch, WELCOME | UNWELCOME) == [*(WELCOME | UNWELCOME)]
    wire.start("web", web())
    assert not wire.rules("bridge")
    assert_filtered(switch)
    switch.vsctl("del-port", BRIDGE, TAP)
    wire.unplug(TAP)
    wire.plug(TAP, bridge=None)
    switch.add_ports(TAP)
    wire.start("web", web())
    assert_filtered(switch)
    wire.stop("web", web(tap=None))
    assert TAP not in wire.ruleset()
    assert sent(switch, FORGED) == [*FORGED]
    assert got(switch, UNWELCOME) == [*UNWELCOME]


def assert_filtered(switch: Switch) -> None:
    """The guest is held to its filter, both ways."""
    assert [kind for kind, frame in FORGED.items() if not switch.drops(frame, TAP, NEIGHBOUR)] == []
    assert sent(switch, HONEST) == [*HONEST]
    assert [kind for kind, frame in UNWELCOME.items() if not switch.drops(frame, NEIGHBOUR, TAP)] == []
    assert got(switch, WELCOME) == [*WELCOME]


def test_layer_3_rules_are_refused(switch: Switch, tmp_path: Path) -> None:
    """Though this kernel tracks connections in bridges: not on a port of Open vSwitch. Nothing is left."""
    wire = switch.wire
    (tmp_path / "l3.xml").write_text("<filter name='l3'><rule action='drop' direction='in'><tcp/></rule></filter>")
    wire.configure(filter_dirs=[tmp_path])
    finished = wire.hook("web", "start", web(filter_name="l3"))
    assert (finished.returncode, finished.stdout) == (1, "")
    assert finished.stderr.startswith(
        f"nwfilter-hook: web: {tmp_path}/l3.xml:1: <tcp> can't be enforced on {TAP}, which is not a bridge port; "
        "only mac, vlan, stp, arp, rarp, ip, ipv6 can: <ip"
    )
    assert finished.stderr.count("\n") == 1
    assert TAP not in wire.ruleset()
    assert switch.passes(FORGED["mac"], TAP, NEIGHBOUR)
