"""
Devices that no guard in a bridge sees: closed from when they come until somebody has decided about them.

A guest's macvtap stands on lower0, whose guest is the network outside.
"""

from __future__ import annotations

import json
import signal
from functools import partial
from typing import Any

import pytest

from tests.support.domains import device, domain, uuid_of
from tests.support.frames import GUEST, GUEST_IP, OTHER, OTHER_IP, THIRD, incoming, udp
from tests.support.libvirtd import wait_for
from tests.watch.conftest import Hypervisor, Service

pytestmark = pytest.mark.netns

TAP, LOWER, ROUTED = "macvtap0", "lower0", "vnet7"
SOURCE = f"<source dev='{LOWER}' mode='bridge'/>"
FILTERED = device("direct", TAP, "clean-traffic", [("IP", GUEST_IP)], source=SOURCE)
BARE = device("direct", TAP, None, source=SOURCE)
HELD = "nobody has decided about it: nothing passes until then"


@pytest.fixture
def guarded(hypervisor: Hypervisor) -> Hypervisor:
    """The guard is on, mode generated."""
    hypervisor.wire.plug(LOWER, bridge=None)
    assert hypervisor.command("guard", "on", "--yes").returncode == 0
    return hypervisor


def passing(hypervisor: Hypervisor, tap: str = TAP, mac: str = GUEST) -> tuple[bool, bool, bool]:
    """Whether an honest and a forged frame of the guest's get out, and one gets in."""
    honest, forged, coming = udp(src=mac), udp(src=mac, src_ip=OTHER_IP), incoming(udp, dst=mac)
    passes = hypervisor.wire.passes
    return passes(honest, tap, LOWER), passes(forged, tap, LOWER), passes(coming, LOWER, tap)


def states(hypervisor: Hypervisor) -> dict[str, str]:
    """By device that is there, what `show` says."""
    shown: list[dict[str, Any]] = json.loads(hypervisor.command("show", "--json").stdout)
    return {each["tap"]: each["state"] for each in shown if each["device"]}


def event(hypervisor: Hypervisor, name: str) -> None:
    """libvirt tells of the guest."""
    (hypervisor.directory / "new").write_text(uuid_of(name))
    (hypervisor.directory / "new").rename(hypervisor.directory / "events")


def closed(hypervisor: Hypervisor, service: Service, tap: str = TAP) -> None:
    """The device has come, and let nothing through since it was seen."""
    wait_for("closed", lambda: states(hypervisor).get(tap) == "held: nobody has decided about it")
    service.wait_until_said(f"{tap}: {HELD}")


@pytest.mark.parametrize("reference", [FILTERED, BARE])
def test_until_libvirt_tells(guarded: Hypervisor, reference: str) -> None:
    """A macvtap that is plugged: nothing passes before libvirt's event, then what its filter lets, or all."""
    wire = guarded.wire
    with Service(guarded, "qemu:///system") as service:
        wire.plug_macvtap(TAP, GUEST, LOWER)
        closed(guarded, service)
        assert passing(guarded) == (False, False, False)
        assert f"{TAP}: nobody" in wait_for("said", service.said)
        status = json.loads(guarded.command("guard", "status", "--json").stdout)
        (unknown,) = (each for each in status["unknown"] if not each["bridge"])
        assert unknown["name"] == TAP
        assert unknown["refused"]["sent"] > 0
        guarded.runs("web", [reference])
        event(guarded, "web")
        wait_for("opened", lambda: passing(guarded) == (True, reference is BARE, True))
        assert guarded.command("verify").stdout == ""
        assert states(guarded) == {TAP: "in force" if reference is FILTERED else "passes all: it names no filter"}
        wire.unplug(TAP)
        wire.ip(f"link del {TAP}")
        guarded.stops("web")
        event(guarded, "web")
        wait_for(
            "nothing is left", lambda: not any(TAP in each for each in (wire.ruleset(), *map(str, records(guarded))))
        )
        assert service.end() == 0


def records(hypervisor: Hypervisor) -> list[str]:
    """All that is written down."""
    return [path.read_text() for path in (hypervisor.state_dir / "domains").iterdir()]


@pytest.mark.parametrize("reference", [FILTERED, BARE])
def test_the_hook_takes_it_over(guarded: Hypervisor, reference: str) -> None:
    """A guest that starts: its device was there, and closed, before its hook runs."""
    wire = guarded.wire
    with Service(guarded) as service:
        wire.plug_macvtap(TAP, GUEST, LOWER)
        closed(guarded, service)
        wire.start("web", domain("web", [reference]))
        assert passing(guarded) == (True, reference is BARE, True)
        assert "(nobody)" not in "".join(each for each in records(guarded) if TAP in each)
        wire.stop("web", domain("web", [reference]))
        assert passing(guarded) == (True, True, True)  # the guest is gone, and its device is with it
        assert service.end() == 0


def test_a_routed_tap(guarded: Hypervisor) -> None:
    """A tap in no bridge, too, and a bridge's tap by the guard alone; one of another name is somebody else's."""
    wire = guarded.wire
    wire.run("ip", "addr", "add", "10.0.0.254/24", "dev", LOWER)
    with Service(guarded) as service:
        wire.plug(ROUTED, "tun7", bridge=None)
        wire.plug("vnet8")
        closed(guarded, service, ROUTED)
        assert set(states(guarded)) == {ROUTED}
        before = received(guarded, ROUTED)
        wire.guests[ROUTED].send(udp())
        assert received(guarded, ROUTED) == before
        wire.apply("delete table netdev sees")
        wire.unplug(ROUTED)
        wait_for("forgotten", lambda: ROUTED not in wire.ruleset() and ROUTED not in "".join(records(guarded)))
        assert service.end() == 0


def received(hypervisor: Hypervisor, tap: str) -> int:
    """How many frames of it the layers above have had."""
    if "netdev sees" not in hypervisor.wire.ruleset():
        hook = f"{{ type filter hook ingress device {tap} priority 10; }}"
        hypervisor.wire.apply(
            f"add table netdev sees\nadd chain netdev sees c {hook}\nadd rule netdev sees c counter\n"
        )
    listing = json.loads(hypervisor.wire.nft("--json", "list", "table", "netdev", "sees"))["nftables"]
    (rule,) = (each["rule"] for each in listing if "rule" in each)
    return int(rule["expr"][0]["counter"]["packets"])


def test_nothing_opens(guarded: Hypervisor) -> None:
    """A flush, the service's death, a resync that knows nothing of it: it stays closed; `guard off` opens it."""
    wire = guarded.wire
    with Service(guarded) as service:
        wire.plug_macvtap(TAP, GUEST, LOWER)
        closed(guarded, service)
        wire.apply("flush ruleset")
        wait_for("put back", lambda: guarded.command("verify").stdout == "")
        assert passing(guarded) == (False, False, False)
        assert service.end(signal.SIGKILL) == -signal.SIGKILL
    guarded.wire.configure("[watch]\nuri = qemu:///system\n")
    guarded.wire.hook_environment()
    guarded.resync()
    assert guarded.command("guard", "on", "--yes").returncode == 0
    assert passing(guarded) == (False, False, False)
    guarded.runs("web", [FILTERED])
    guarded.resync()
    assert passing(guarded) == (True, False, True)
    guarded.stops("web")
    guarded.resync()
    with Service(guarded):
        wire.unplug(TAP)
        wire.ip(f"link del {TAP}")
        wire.plug_macvtap("macvtap1", GUEST, LOWER)
        wait_for("closed", lambda: "macvtap1" in states(guarded))
        assert guarded.command("guard", "off").returncode == 0
        assert passing(guarded, "macvtap1") == (True, True, True)
        assert "(nobody)" not in "".join(records(guarded))


def test_what_was_there_before_is_left_alone(guarded: Hypervisor) -> None:
    """Its guest may run, and libvirt doesn't tell; with `allow` what comes is left alone, too."""
    wire = guarded.wire
    wire.plug_macvtap(TAP, GUEST, LOWER)
    with Service(guarded) as service:
        wire.plug_macvtap("macvtap5", THIRD, LOWER)
        closed(guarded, service, "macvtap5")
        assert passing(guarded) == (True, True, True)
        wire.configure("[guard]\nallow = macvtap*\n[watch]\nuri = none\n")
        wire.hook_environment()
        assert guarded.command("guard", "on", "--yes").returncode == 0
        assert passing(guarded, "macvtap5", THIRD) == (True, True, True)


def stands(hypervisor: Hypervisor, word: str) -> bool:
    """Whether it is in the kernel's rules."""
    return word in hypervisor.wire.ruleset()


def test_before_it_is_there(guarded: Hypervisor) -> None:
    """Where the kernel takes chains for devices to come, the next macvtaps are closed before there are any."""
    wire = guarded.wire
    with Service(guarded) as service:
        assert not stands(guarded, "macvtap")
        wire.plug_macvtap(TAP, GUEST, LOWER)
        wait_for("closed beforehand", partial(stands, guarded, '"macvtap1"'))
        for number, mac in ((1, OTHER), (2, THIRD)):
            wire.plug_macvtap(f"macvtap{number}", mac, LOWER)
            assert passing(guarded, f"macvtap{number}", mac) == (False, False, False)
            following = f'"macvtap{number + 2}"'
            wait_for("the next", partial(stands, guarded, following))
        text = guarded.command("show").stdout
        assert "held: it isn't there yet" in text
        assert service.end() == 0
