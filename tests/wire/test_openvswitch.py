"""
Ports of Open vSwitch's userspace datapath (datapath_type=netdev), which can't be filtered: a start is refused.

The process of the switch reads frames from the port with a packet socket, as tcpdump does, and the kernel gives frames
to those before any of its filters. (tests/vm/test_openvswitch.py has the kernel's datapath, which is filtered.)
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.domains import device, domain
from tests.support.frames import GUEST_IP, THIRD, incoming, udp
from tests.support.netns import Wire
from tests.support.openvswitch import BRIDGE, Switch, open_vswitch

pytestmark = pytest.mark.netns

TAP, NEIGHBOUR = "vnet0", "vnet1"
EVERYTHING = "add table netdev nwfilter\n" + "".join(
    f'add chain netdev nwfilter {hook} {{ type filter hook {hook} device "{TAP}" priority -300; policy drop; }}\n'
    for hook in ("ingress", "egress")
)


@pytest.fixture
def switch(able: None) -> Iterator[Switch]:
    """A bridge with two taps, a guest at the end of each."""
    with Wire(()) as wire:
        wire.plug(TAP, NEIGHBOUR, bridge=None)
        with open_vswitch(wire, "netdev") as switch:
            switch.add_ports(TAP, NEIGHBOUR)
            yield switch


def test_no_filter_of_the_kernel_sees_what_the_guest_sends(switch: Switch) -> None:
    """Why it is refused: a chain that drops everything at the tap drops only what comes to the guest."""
    assert switch.passes(udp(src=THIRD), TAP, NEIGHBOUR)
    assert switch.passes(incoming(udp), NEIGHBOUR, TAP)
    switch.wire.apply(EVERYTHING)
    assert switch.passes(udp(src=THIRD), TAP, NEIGHBOUR)
    assert switch.drops(incoming(udp), NEIGHBOUR, TAP)


@pytest.mark.parametrize("operation", ["start", "attach"])
def test_it_is_refused(switch: Switch, operation: str) -> None:
    """A start on such a port ends with an error that says what to change, and leaves nothing."""
    source = f"<source bridge='{BRIDGE}'/><virtualport type='openvswitch'/>"
    port = device("bridge", TAP, "clean-traffic", [("IP", GUEST_IP)], source=source)
    finished = switch.wire.hook("web", operation, domain("web", [port]))
    assert (finished.returncode, finished.stdout) == (1, "")
    assert f"{TAP} is a port of an Open vSwitch bridge with the userspace datapath" in finished.stderr
    assert finished.stderr.count("\n") == 1
    assert TAP not in switch.wire.ruleset()
    assert list(switch.wire.state_dir.glob("domains/*")) == []


def test_a_guest_that_runs_is_cut_off_as_far_as_possible(switch: Switch) -> None:
    """When libvirtd comes back, the guest lives, but nothing reaches it, and the administrator is told why."""
    source = f"<source bridge='{BRIDGE}'/><virtualport type='openvswitch'/>"
    port = device("bridge", TAP, "clean-traffic", [("IP", GUEST_IP)], source=source)
    assert switch.passes(incoming(udp), NEIGHBOUR, TAP)
    for words in ("quarantined", "still quarantined"):
        finished = switch.wire.hook("web", "reconnect", domain("web", [port]))
        assert finished.returncode == 0
        effect = "nothing passes in, but what the guest sends does pass"
        assert f"{TAP}: {words}, {effect}: " in finished.stderr
        assert "userspace datapath" in finished.stderr
        assert switch.drops(incoming(udp), NEIGHBOUR, TAP)
