"""What root has put onto a tap that takes frames past its filter is named; what doesn't isn't."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator

import pytest

from nwfilter_hook.network.links import (
    DELLINK,
    LINK_GROUP,
    NEWLINK,
    UP,
    Link,
    find_link,
    list_links,
    open_route,
    parse_link,
)
from nwfilter_hook.network.netlink import ROUTE, Netlink, Overrun
from nwfilter_hook.operations.bypasses import Bypass, connections_that_go_on, find_bypasses
from tests.support import bpf
from tests.support.frames import udp
from tests.support.netns import Wire

pytestmark = pytest.mark.netns

U32 = "protocol all u32 match u32 0 0"


@pytest.fixture
def wire() -> Iterator[Wire]:
    """A bridge with vnet0 and vnet1, a neighbour of the host's at the end of a veth, nothing on any of them."""
    with Wire() as wire:
        wire.ip("link add out0 type veth peer name out1", "link set out0 up", "link set out1 up")
        assert found(wire) == []
        yield wire


def found(wire: Wire, *taps: str) -> list[Bypass]:
    """What is found, of both taps unless others are named."""
    with wire.inside():
        return list(find_bypasses(*(taps or ("vnet0", "vnet1"))))


def ways(wire: Wire) -> list[tuple[str, str]]:
    """Tap and way of each."""
    return [(each.tap, each.way) for each in found(wire)]


def tc(wire: Wire, *lines: str) -> None:
    """Carry out lines of `tc`."""
    wire.run("tc", "-batch", "-", stdin="\n".join(lines) + "\n")


def index(wire: Wire, name: str) -> int:
    """The index of a device."""
    with wire.inside():
        return socket.if_nametoindex(name)


def test_nothing_is_asked_for_nothing(wire: Wire) -> None:
    """Without taps nobody looks; a tap that isn't there has nothing on it."""
    assert find_bypasses() == ()
    assert connections_that_go_on() == ()
    assert found(wire, "vnet9", "a-name-too-long-for-a-device") == []


# --- devices ----------------------------------------------------------------------------------------------------------


def test_devices_are_read_as_ip_reads_them(wire: Wire) -> None:
    """Index, name, MAC, bridge, flags, and what kind of device it is."""
    wire.ip("link set vnet1 down", "link set vnet0 nomaster")
    listed = json.loads(wire.run("ip", "-details", "-json", "link").stdout)
    names = {each["ifindex"]: each["ifname"] for each in listed}
    with wire.inside(), open_route() as route:
        links = list_links(route)
        assert [link.index for name in names.values() for link in [find_link(route, name)] if link] == list(names)
        assert find_link(route, "nowhere") is None
        assert find_link(route, "a-name-too-long-for-a-device") is None
    seen = [(it.index, it.name, it.mac, names.get(it.master), it.kind, bool(it.flags & UP)) for it in links]
    assert seen == [
        (
            each["ifindex"],
            each["ifname"],
            each["address"],
            each.get("master"),
            each.get("linkinfo", {}).get("info_kind", ""),
            "UP" in each["flags"],
        )
        for each in listed
    ]
    assert {it.name: it.kind for it in links} == {
        **{"lo": "", "br0": "bridge", "vnet0": "tun", "vnet1": "tun", "out0": "veth", "out1": "veth"}
    }


def test_devices_are_heard_of(wire: Wire) -> None:
    """A device that comes, moves and goes is told of, to whom asks for that."""
    with wire.inside():
        route = open_route(LINK_GROUP)
    with route:
        wire.plug("vnet2")
        wire.ip("link set vnet2 nomaster")
        wire.unplug("vnet2")
        heard: list[tuple[int, Link]] = []
        while not heard or heard[-1][0] != DELLINK:
            heard += [(each.type, parse_link(each)) for each in route.events()]
    of_tap = [(kind, link) for kind, link in heard if link.name == "vnet2"]
    assert {kind for kind, _ in of_tap} == {NEWLINK, DELLINK}
    assert {link.master for _, link in of_tap} == {0, index(wire, "br0")}


def test_lost_events_are_told(wire: Wire) -> None:
    """When events come faster than they are read, the reader is told to look at everything."""
    with wire.inside():
        route = Netlink(ROUTE, [LINK_GROUP])
    with route:
        wire.ip(*(f"link set vnet0 {state}" for _ in range(200) for state in ("down", "up")))
        with pytest.raises(Overrun):
            list(iter(route.events, None))


# --- traffic control --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("discipline", ["ingress", "clsact"])
def test_a_redirect_is_named(wire: Wire, discipline: str) -> None:
    """A tc filter at a tap's ingress that redirects or copies frames takes them past the filter; a frame shows it."""
    wire.apply("table bridge t { chain c { type filter hook prerouting priority -300; drop; }; }")
    with wire.inside(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as out:
        out.bind(("out1", 0))
        out.setblocking(False)
        tc(wire, f"qdisc add dev vnet0 {discipline}")
        assert ways(wire) == []
        tc(wire, f"filter add dev vnet0 ingress pref 7 {U32} action mirred egress redirect dev out0")
        wire.guests["vnet0"].send(udp())
        assert out.recv(2048) == udp()
    (bypass,) = found(wire)
    text = "a tc filter (u32 7) at the ingress of vnet0 redirects frames to out0 before the filter sees them"
    assert bypass == Bypass("vnet0", "tc-redirect", text)
    tc(wire, f"filter replace dev vnet0 ingress pref 7 {U32} action mirred egress mirror dev out0")
    assert ("vnet0", "tc-mirror") in ways(wire)


def test_frames_that_are_sent_to_a_tap_are_named(wire: Wire) -> None:
    """A filter on another device, at its ingress or its egress, that sends frames by the tap: the guest gets them."""
    tc(wire, "qdisc add dev out0 clsact")
    tc(wire, f"filter add dev out0 ingress pref 1 {U32} action mirred egress redirect dev vnet0")
    tc(wire, f"filter add dev out0 egress pref 2 {U32} action mirred egress mirror dev vnet1")
    tc(
        wire, f"filter add dev out0 egress pref 3 {U32} action mirred ingress redirect dev vnet1"
    )  # as if vnet1 had sent it
    assert [(each.tap, each.way, each.text) for each in found(wire)] == [
        ("vnet0", "tc-redirect", "a tc filter (u32 1) on out0 sends frames to vnet0 that no filter has seen"),
        ("vnet1", "tc-mirror", "a tc filter (u32 2) on out0 sends frames to vnet1 that no filter has seen"),
    ]


def test_what_only_sorts_is_no_bypass(wire: Wire) -> None:
    """A filter without an action, one that drops, and redirects on devices that are no taps of ours."""
    tc(wire, "qdisc add dev vnet0 clsact", "qdisc add dev out0 clsact")
    tc(wire, f"filter add dev vnet0 ingress pref 1 {U32} flowid 1:1")
    tc(wire, f"filter add dev out0 ingress pref 2 {U32} action mirred egress redirect dev out1")
    tc(
        wire, f"filter add dev vnet0 egress pref 3 {U32} action mirred egress redirect dev out0"
    )  # it has seen the filter
    tc(wire, 'filter add dev vnet0 ingress pref 4 bpf bytecode "1,6 0 0 0" flowid 1:1')
    assert ways(wire) == []


# --- programs, sockets, other tables ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "name"), [(bpf.GENERIC, "generic"), (bpf.NATIVE, "native")])
def test_an_xdp_program_is_named(wire: Wire, mode: int, name: str) -> None:
    """Whether the driver runs it or the kernel; by its number and how it runs."""
    with wire.inside():
        bpf.attach_xdp(socket.if_nametoindex("vnet0"), mode)
    (bypass,) = found(wire)
    assert (bypass.tap, bypass.way) == ("vnet0", "xdp")
    assert f"({name}) gets the frames of vnet0 first and may send them on" in bypass.text


def test_a_program_of_traffic_control_is_named(wire: Wire) -> None:
    """A BPF program that decides by itself where frames go."""
    tc(wire, "qdisc add dev vnet0 clsact")
    with wire.inside():
        bpf.attach_tc(socket.if_nametoindex("vnet0"))
    assert ways(wire) == [("vnet0", "tc-bpf")]


def test_a_program_of_tcx_is_named(wire: Wire) -> None:
    """Traffic control's newer place for programs, which netlink doesn't show; kernels before 6.6 have none."""
    major, minor = (int(part) for part in os.uname().release.split(".")[:2])
    if (major, minor) < (6, 6):
        pytest.skip("tcx came with kernel 6.6")
    with wire.inside():
        held = bpf.attach_tcx(socket.if_nametoindex("vnet0"))
    assert ways(wire) == [("vnet0", "tcx")]
    os.close(held)
    assert ways(wire) == []


def test_a_packet_socket_is_named(wire: Wire) -> None:
    """A process that reads the tap's frames itself; not one that reads another device's, or all devices'."""
    for device, expected in (("vnet0", [("vnet0", "packet-socket")]), ("out0", []), ("", [])):
        with wire.inside(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as raw:
            if device:
                raw.bind((device, 0))
            assert ways(wire) == expected


def test_chains_that_forward_are_named(wire: Wire) -> None:
    """A foreign table with a chain on the tap and a statement that sends frames elsewhere, wherever that stands."""
    wire.apply(
        "table netdev x { chain c { type filter hook ingress devices = { vnet0, out0 } priority 0; counter; }; }"
    )
    assert ways(wire) == []
    wire.apply("table netdev x { chain d { meta mark 7 fwd to out0; }; }")
    assert found(wire) == [
        Bypass(
            "vnet0",
            "nft-fwd",
            "table netdev x has a chain on vnet0 and may send frames elsewhere (fwd) before the filter sees them",
        )
    ]
    wire.apply("flush chain netdev x d; add rule netdev x d dup to out0")
    assert ways(wire) == [("vnet0", "nft-dup")]
    wire.nft("delete", "table", "netdev", "x")
    wire.apply("table netdev y { chain c { type filter hook ingress device out0 priority 0; fwd to out1; }; }")
    assert ways(wire) == []


def test_who_may_not_ask_says_so(wire: Wire) -> None:
    """What can't be looked at is no reason to be silent."""
    code = (
        "import os; from nwfilter_hook.operations.bypasses import find_bypasses; os.setuid(65534); "
        "print(*(each.way + ' ' + each.text for each in find_bypasses('vnet0')), sep='\\n')"
    )
    said = wire.run("/usr/bin/python3", "-Ic", f"import sys; sys.path.insert(0, {os.getcwd()!r}); {code}").stdout
    assert "unreadable can't tell whether frames pass the filter by: flowtables: Operation not permitted" in said
