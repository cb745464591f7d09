"""show: each state that a tap can be in, for people and for programs."""

from __future__ import annotations

import json
import re

import pytest

from tests.support.domains import domain, interface
from tests.support.frames import THIRD
from tests.support.libvirtd import wait_for
from tests.watch.conftest import WEB, Hypervisor, Service

pytestmark = pytest.mark.netns

TABLE = "bridge nwfilter"
BARE = interface("vnet0", None)
NO_SUCH_FILTER = interface("vnet0", "no-such-filter")


def start(hypervisor: Hypervisor, xml: str = WEB) -> None:
    """vnet0's guest starts."""
    hypervisor.wire.start("web", domain("web", [xml]))


def in_force(hypervisor: Hypervisor) -> str:
    """As it should be."""
    start(hypervisor)
    return "in force"


def quarantined(hypervisor: Hypervisor) -> str:
    """It runs, and its filter can't be made."""
    done = hypervisor.wire.hook("web", "reconnect", domain("web", [NO_SUCH_FILTER]))
    assert "quarantined" in done.stderr
    return "quarantined"


def gone(hypervisor: Hypervisor) -> str:
    """Its device is."""
    start(hypervisor)
    hypervisor.wire.unplug("vnet0")
    return "gone"


def renamed(hypervisor: Hypervisor) -> str:
    """Its device is."""
    start(hypervisor)
    hypervisor.wire.ip("link set vnet0 down", "link set vnet0 name web0", "link set web0 up")
    return "renamed to web0"


def replaced(hypervisor: Hypervisor) -> str:
    """Another has its name."""
    gone(hypervisor)
    hypervisor.wire.plug("vnet0")
    return "replaced by another device"


def out_of_its_bridge(hypervisor: Hypervisor) -> str:
    """Nobody filters there as a bridge's port."""
    start(hypervisor)
    hypervisor.wire.ip("link set vnet0 nomaster")
    return "out of its bridge"


def in_another_bridge(hypervisor: Hypervisor) -> str:
    """It was moved."""
    start(hypervisor)
    hypervisor.wire.add_bridge("br1")
    hypervisor.wire.ip("link set vnet0 master br1")
    return "in another bridge"


def missing(hypervisor: Hypervisor) -> str:
    """Somebody has taken its rules."""
    start(hypervisor)
    hypervisor.wire.apply("flush ruleset")
    return "missing"


def without_a_filter(hypervisor: Hypervisor) -> str:
    """The guard is on, and it is known."""
    assert hypervisor.command("guard", "on", "--yes", "--boot").returncode == 0
    start(hypervisor, BARE)
    return "passes all: it names no filter"


def no_filter_no_network(hypervisor: Hypervisor) -> str:
    """The guard is on, and the configuration wants it so."""
    hypervisor.wire.configure("[guard]\nunfiltered = drop\n[watch]\nuri = none\n")
    hypervisor.wire.hook_environment()
    assert hypervisor.command("guard", "on", "--yes", "--boot").returncode == 0
    start(hypervisor, BARE)
    return "cut off: it names no filter"


STATES = (
    in_force,
    quarantined,
    gone,
    renamed,
    replaced,
    out_of_its_bridge,
    in_another_bridge,
    missing,
    without_a_filter,
    no_filter_no_network,
)


@pytest.mark.parametrize("make", STATES)
def test_a_state(hypervisor: Hypervisor, make: object) -> None:
    """In the table with since when and by which event, and in JSON."""
    assert callable(make)
    state = make(hypervisor)
    (shown,) = json.loads(hypervisor.command("show", "web", "--json").stdout)
    assert shown["state"] == state.removesuffix(" to web0")
    assert (shown["device"] or "") == {"gone": "", "renamed to web0": "web0"}.get(state, "vnet0")
    event = "reconnect" if make is quarantined else "start"
    assert shown["event"] == event
    (line,) = (each for each in hypervisor.command("show").stdout.splitlines() if each.startswith("web "))
    assert re.search(rf" vnet0 .* {re.escape(state)}  +20[0-9: -]+ by {event} ", line), line


def test_what_nobody_has_decided_about(hypervisor: Hypervisor) -> None:
    """A port that the guard cuts off stands in the table, with how many of its frames were dropped."""
    wire = hypervisor.wire
    start(hypervisor)
    assert hypervisor.command("guard", "on", "--yes", "--boot").returncode == 0
    wire.plug("vnet2")
    wire.guests["vnet2"].send(bytes.fromhex(f"ffffffffffff {THIRD.replace(':', '')} 9000"))
    found = json.loads(hypervisor.command("show", "--json", "--host").stdout)["guard"]["unknown"]
    assert {each["name"]: each["refused"]["sent"] for each in found} == {"vnet1": 0, "vnet2": 1}
    lines = [line.split() for line in hypervisor.command("show").stdout.splitlines()]
    assert ["-", "vnet2", "-", "-", "unknown:", "dropped", "-", "-", "0", "1"] in lines


def test_refused_by_its_filter(hypervisor: Hypervisor) -> None:
    """The new filter can't be made, the old one stays, and the service tells; without it nobody knows."""
    start(hypervisor)
    hypervisor.runs("web", [NO_SUCH_FILTER])

    def state() -> str:
        (shown,) = json.loads(hypervisor.command("show", "web", "--json").stdout)
        return str(shown["state"])

    with Service(hypervisor, "qemu:///system") as service:
        service.wait_until_said("the old rules stay in force")
        wait_for("shown", lambda: state() == "in force, but its filter is refused now")
        assert " in force, but its filter is refused now " in hypervisor.command("show").stdout
        assert service.end() == 0
    assert state() == "in force"
