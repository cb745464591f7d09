"""What is a way past a tap's filter, told from what stands around it."""

from __future__ import annotations

import pytest

from nwfilter_hook.base.dataclass import replace
from nwfilter_hook.network.links import Link, XdpProgram
from nwfilter_hook.network.surroundings import Surroundings
from nwfilter_hook.network.tables import BRIDGE, DeviceChain, Devices, Flowtable
from nwfilter_hook.network.traffic_control import Action, Filter
from nwfilter_hook.operations.bypasses import bypasses_of


def link(index: int, name: str, kind: str = "tun", *, master: int = 0, lower: int = 0) -> Link:
    """A device without programs."""
    return Link(index, name, kind, "52:54:00:00:00:01", master, lower, 0, ())


BR0, TAP, UPLINK, ROUTED = link(1, "br0", "bridge"), link(2, "vnet0", master=1), link(3, "eth0", ""), link(4, "tap4")
HOST = Surroundings(links=(BR0, TAP, UPLINK, ROUTED))


def ways(seen: Surroundings, tap: str = "vnet0") -> list[str]:
    """The names of what is found."""
    return [each.way for each in bypasses_of(tap, seen)]


def filtering(*actions: Action, kind: str = "flower", device: int = 2, program: int = 0) -> Filter:
    """A filter of traffic control."""
    return Filter(device, kind, 1, actions, program)


def test_nothing_around_is_no_bypass() -> None:
    """Devices alone; and a tap that isn't there has nothing on it, even if nothing could be read."""
    assert ways(HOST) == ways(HOST, "tap4") == ways(HOST, "vnet9") == []
    assert ways(replace(HOST, unreadable=("tcx: no",)), "vnet9") == []


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        (Action("redirect", 3, sends=True), ["tc-redirect"]),
        (Action("redirect", 99, sends=False), ["tc-redirect"]),
        (Action("mirror", 3, sends=True), ["tc-mirror"]),
        (Action("bpf"), ["tc-bpf"]),
        (Action("ct"), ["tc-connection"]),
        (Action("mirred"), ["tc-unknown"]),
        (Action("something-new"), ["tc-unknown"]),
        (Action("police"), []),
        (Action("gact"), []),
        (Action("pedit"), []),
    ],
)
def test_actions_at_the_ingress(action: Action, expected: list[str]) -> None:
    """What sends frames on is named, and what isn't known; what drops, marks, or changes frames first isn't."""
    seen = replace(HOST, ingress=(filtering(Action("police"), action),))
    assert ways(seen) == expected
    assert ways(replace(HOST, others=(filtering(action),))) == []


def test_filters_that_decide_by_themselves() -> None:
    """A BPF program, and a kind of filter that isn't known."""
    assert ways(replace(HOST, ingress=(filtering(kind="bpf", program=7),))) == ["tc-bpf"]
    assert ways(replace(HOST, ingress=(Filter(2, "new", 1, None),))) == ["tc-unknown"]
    (found,) = bypasses_of("vnet0", replace(HOST, ingress=(Filter(2, "new", 1, None, hardware=True),)))
    assert "(new 1, in hardware too)" in found.text


def test_filters_that_send_to_the_tap() -> None:
    """Wherever they stand; not those that let frames come in there, which the filter sees."""
    to_tap = filtering(Action("redirect", 2, sends=True), device=3)
    assert ways(replace(HOST, ingress=(to_tap,))) == ways(replace(HOST, others=(to_tap,))) == ["tc-redirect"]
    assert ways(replace(HOST, others=(to_tap,)), "tap4") == []
    assert ways(replace(HOST, others=(filtering(Action("redirect", 2, sends=False), device=3),))) == []


def test_programs_and_sockets() -> None:
    """Each on its own device."""
    seen = replace(
        HOST,
        links=(BR0, replace(TAP, xdp=(XdpProgram("generic", 5), XdpProgram("native", 6))), UPLINK, ROUTED),
        tcx=((2, (8, 9)), (4, ())),
        packet_sockets=frozenset({4}),
    )
    assert ways(seen) == ["xdp", "xdp", "tcx", "tcx"]
    assert ways(seen, "tap4") == ["packet-socket"]


@pytest.mark.parametrize(
    ("devices", "taps"),
    [
        (Devices(("vnet0",)), ["vnet0"]),
        (Devices(("br0", "eth0")), ["vnet0"]),
        (Devices(("eth0",)), []),
        (Devices((), ("vnet",)), ["vnet0"]),
        (Devices((), ("",)), ["vnet0", "tap4"]),
        (Devices(("vnet00", "vnet")), []),
    ],
)
def test_flowtables(devices: Devices, taps: list[str]) -> None:
    """By the tap's name or its bridge's, or by a prefix of them; hardware is told."""
    seen = replace(HOST, flowtables=(Flowtable("inet", "f", "ft", devices, hardware=True),))
    assert [each.tap for tap in ("vnet0", "tap4") for each in bypasses_of(tap, seen)] == taps
    assert all("(in hardware, too)" in each.text for tap in taps for each in bypasses_of(tap, seen))


def test_chains_that_forward() -> None:
    """Of a table that has a chain on the tap; in whatever chain of it."""
    detours = (((5, "x"), frozenset({"fwd", "dup"})), ((5, "y"), frozenset({"fwd"})))
    seen = replace(HOST, chains=(DeviceChain(5, "x", Devices(("vnet0",))),), detours=detours)
    assert ways(seen) == ["nft-dup", "nft-fwd"]
    assert ways(seen, "tap4") == []


def test_what_is_before_the_bridge() -> None:
    """A VLAN device on top of a port, and frames that are taken out of the bridge; neither where there is no bridge."""
    on_top = (
        link(7, "vnet0.5", "vlan", lower=2),
        link(8, "tap4.5", "vlan", lower=4),
        link(9, "mv", "macvlan", lower=2),
    )
    assert ways(replace(HOST, links=HOST.links + on_top)) == ["vlan"]
    assert ways(replace(HOST, links=HOST.links + on_top), "tap4") == []
    for seen in (
        replace(HOST, detours=(((BRIDGE, "b"), frozenset({"broute"})),)),
        replace(HOST, brouting_rules=2),
    ):
        assert ways(seen) == ["broute"]
        assert ways(seen, "tap4") == []


def test_what_cant_be_read_is_told() -> None:
    """For each tap that is there, or may be."""
    assert ways(replace(HOST, unreadable=("tcx: no", "flowtables: no"))) == ["unreadable", "unreadable"]
    assert ways(Surroundings(unreadable=("devices: no",))) == ["unreadable"]
