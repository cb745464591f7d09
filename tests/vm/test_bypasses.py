"""
What takes frames past a filter and a custom-built kernel may lack, on Debian's: flowtables, VLAN devices, ebtables'
broute, and kinds of filters and actions of traffic control.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from nwfilter_hook.operations.bypasses import connections_that_go_on
from tests.support.netns import Wire
from tests.wire.test_bypasses import found, tc, ways

pytestmark = pytest.mark.stock_kernel

BROUTE = ("ebtables-legacy", "-t", "broute")


@pytest.fixture
def wire() -> Iterator[Wire]:
    """A bridge with vnet0 and vnet1, a neighbour at the end of a veth, nothing on any of them."""
    with Wire() as wire:
        wire.ip("link add out0 type veth peer name out1", "link set out0 up", "link set out1 up")
        assert found(wire) == []
        yield wire


def test_filters_and_actions(wire: Wire) -> None:
    """Of every kind that Debian's kernel has: those that send frames on are named, those that shape or mark aren't."""
    wire.ip("link add ifb9 type ifb", "link set ifb9 up")
    redirect = "action mirred egress redirect dev"
    cases = (
        # what libvirt makes of <bandwidth><outbound average=…/>
        ("all", "u32 match u32 0 0 police rate 1000kbit burst 10k mtu 64kb drop flowid :1", None),
        ("ip", "flower dst_ip 10.0.0.1 action drop", None),
        ("ip", "matchall action skbedit mark 7 pipe action pedit munge ip ttl set 3 pipe action csum ip", None),
        ("802.1Q", "flower vlan_id 5 action vlan pop", None),
        ("ip", f"matchall {redirect} out0", "tc-redirect"),
        ("ip", f"flower indev vnet0 action skbedit mark 7 pipe {redirect} out0", "tc-redirect"),
        ("ip", f"handle 7 fw {redirect} out0", "tc-redirect"),
        ("ip", f"basic match 'meta(priority eq 0)' {redirect} out0", "tc-redirect"),
        ("ip", "matchall action ct commit", "tc-connection"),
        ("ip", "matchall action mirred ingress mirror dev out0", "tc-mirror"),
        ("ip", f"matchall {redirect} ifb9", "tc-redirect"),
    )
    lines = [
        f"filter add dev vnet0 ingress pref {number} protocol {protocol} {what}"
        for number, (protocol, what, _) in enumerate(cases, 1)
    ]
    tc(wire, "qdisc add dev vnet0 clsact", *lines)
    seen = {int(each.text.split(")")[0].split()[-1]): each for each in found(wire)}
    assert {number: each.way for number, each in seen.items()} == {
        number: way for number, (_, _, way) in enumerate(cases, 1) if way
    }
    assert "come back behind chains on vnet0 itself, before the bridge's" in seen[len(cases)].text


def test_a_block_that_devices_share(wire: Wire) -> None:
    """Its filters are those of each device on it."""
    tc(
        wire,
        "qdisc add dev out0 ingress_block 22 clsact",
        "filter add block 22 pref 1 matchall action mirred egress redirect dev out1",
    )
    assert ways(wire) == []
    tc(wire, "qdisc add dev vnet0 ingress_block 22 clsact")
    assert ways(wire) == [("vnet0", "tc-redirect")]


def test_filters_of_classes_that_send_to_a_tap(wire: Wire) -> None:
    """On a discipline with classes, where a device sends."""
    tc(
        wire,
        "qdisc add dev out0 root handle 1: htb",
        "filter add dev out0 parent 1: pref 3 matchall action mirred egress mirror dev vnet1",
    )
    assert ways(wire) == [("vnet1", "tc-mirror")]


@pytest.mark.parametrize(
    ("devices", "taps"), [("vnet0, out0", ["vnet0"]), ("br0, out0", ["vnet0", "vnet1"]), ("out0", [])]
)
def test_flowtables(wire: Wire, devices: str, taps: list[str]) -> None:
    """One that carries a tap or its bridge is named, and after a change of rules said to go on."""
    wire.apply(f"table inet f {{ flowtable ft {{ hook ingress priority 0; devices = {{ {devices} }}; }}; }}")
    assert ways(wire) == [(tap, "flowtable") for tap in taps]
    with wire.inside():
        notes = connections_that_go_on("vnet0", "vnet1")
    if not taps:
        assert notes == ()
        return
    carried = "br0" if "br0" in devices else "vnet0"
    meaning = "come to the guest without the state that rules look at" if "br0" in devices else "pass no filter"
    text = f"flowtable inet f ft carries {carried}: connections that it has taken over {meaning}"
    assert {each.text for each in found(wire)} == {text}
    (note,) = notes
    assert note.startswith(
        f"flowtable inet f ft may go on with connections that it has taken over from {', '.join(taps)},"
    )


def test_a_vlan_device_on_a_tap(wire: Wire) -> None:
    """It takes its frames before the bridge; one on the bridge, or on a tap outside of one, doesn't."""
    wire.ip("link add link br0 name br0.5 type vlan id 5", "link add link vnet1 name in5 type vlan id 5")
    assert ways(wire) == [("vnet1", "vlan")]
    wire.ip("link set vnet1 nomaster")
    assert ways(wire) == []


def test_broute(wire: Wire) -> None:
    """ebtables' table that takes frames out of the bridge; empty it does nothing."""
    assert ways(wire) == []
    wire.run(*BROUTE, "-L")  # loads it
    assert ways(wire) == []
    wire.run(*BROUTE, "-A", "BROUTING", "-i", "vnet0", "-j", "DROP")
    assert ways(wire) == [("vnet0", "broute"), ("vnet1", "broute")]
    wire.ip("link set vnet1 nomaster")
    assert ways(wire) == [("vnet0", "broute")]
    wire.run(*BROUTE, "-F")
    assert ways(wire) == []
