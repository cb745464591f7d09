"""
Plugged under a flood, from the guest and from the wire, a hundred times: whatever the service does or doesn't, no frame
passes that no filter has decided about, and none that the filter forbids.
"""

from __future__ import annotations

import contextlib
import random
import signal
import threading
from collections.abc import Iterator
from functools import partial

import pytest

from tests.support.domains import interface, uuid_of
from tests.support.frames import GUEST, GUEST_IP, OTHER, OTHER_IP, ether, udp
from tests.support.libvirtd import wait_for
from tests.support.netns import BRIDGE, Guest, Wire
from tests.watch.conftest import Hypervisor, Service

pytestmark = pytest.mark.netns

TAP, UPLINK = "vnet7", "uplink"
PLUGS = 25
SETTLES_S = 0.1
HONEST = udp()
FORBIDDEN_OUT = (udp(src_ip=OTHER_IP), ether(src=GUEST))
FORBIDDEN_IN = ether(src=OTHER, dst=GUEST)
REFERENCE = interface(TAP, "clean-traffic", [("IP", GUEST_IP)], mac=GUEST)


class Flood:
    """
    Both ends send all the time, what is forbidden and what isn't.

    Attributes:
        leaked: how many forbidden frames came through. honest: how many others.
        sent: how many the tap's guest could send.
    """

    def __init__(self, wire: Wire, tap: Guest) -> None:
        self._ends = wire.guests[UPLINK], tap
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.leaked = self.honest = self.sent = 0

    def _run(self) -> None:
        uplink, tap = self._ends
        while not self._stop.is_set():
            with contextlib.suppress(OSError):  # a device that isn't up yet
                for frame in (*FORBIDDEN_OUT, HONEST):
                    tap.send(frame)
                    self.sent += 1
            uplink.send(FORBIDDEN_IN)
            self._count()

    def _count(self) -> None:
        uplink, tap = self._ends
        seen = uplink.receive()
        self.honest += seen.count(HONEST)
        self.leaked += sum(seen.count(frame) for frame in FORBIDDEN_OUT)
        with contextlib.suppress(OSError):
            self.leaked += tap.receive().count(FORBIDDEN_IN)

    def __enter__(self) -> Flood:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._count()


@contextlib.contextmanager
def plugged(wire: Wire) -> Iterator[Flood]:
    """The tap comes as libvirt makes it, and goes; its guest sends from before it is in a bridge."""
    with wire.inside():
        tap = wire.guests[TAP] = Guest(TAP)
    with Flood(wire, tap) as flood:
        wire.run("ip", "link", "set", TAP, "master", BRIDGE)
        wire.run("ip", "link", "set", TAP, "up")
        yield flood
    wire.unplug(TAP)


def told(hypervisor: Hypervisor) -> None:
    """libvirt has the device, and tells of it."""
    hypervisor.runs("web", [REFERENCE])
    (hypervisor.directory / "new").write_text(uuid_of("web"))
    (hypervisor.directory / "new").rename(hypervisor.directory / "events")


def passed(flood: Flood) -> bool:
    """Whether what is honest passes."""
    return flood.honest > 10


def flooded(flood: Flood) -> bool:
    """Whether enough was sent."""
    return flood.sent > 300


@pytest.fixture
def guarded(hypervisor: Hypervisor) -> Hypervisor:
    """A bridge with an uplink; without the guard, what is plugged is open."""
    hypervisor.wire.plug(UPLINK)
    with plugged(hypervisor.wire) as flood:
        wait_for("an open tap", lambda: flood.leaked > 100)
    hypervisor.wire.guests[UPLINK].receive(SETTLES_S)
    assert hypervisor.command("guard", "on", "--yes").returncode == 0
    return hypervisor


def told_and_flooded(hypervisor: Hypervisor, late_s: float, times: int) -> None:
    """The device is plugged, and libvirt tells so much later."""
    wire = hypervisor.wire
    with Service(hypervisor, "qemu:///system") as service:
        for number in range(times):
            with plugged(wire) as flood:
                threading.Event().wait(late_s)
                told(hypervisor)
                wait_for(f"filtered, the {number}th time", partial(passed, flood))
            assert (number, flood.leaked, flood.sent > 0) == (number, 0, True)
            wait_for("forgotten", lambda: TAP not in wire.ruleset())
        assert service.end() == 0


@pytest.mark.parametrize("late_s", [0.0, 0.2])
def test_the_service_is_up(guarded: Hypervisor, late_s: float) -> None:
    """It decides as soon as libvirt tells, at once or late; then what is honest passes."""
    told_and_flooded(guarded, late_s, PLUGS)


def test_the_service_is_stopped(guarded: Hypervisor) -> None:
    """Nothing passes at all until somebody has decided."""
    wire = guarded.wire
    for _ in range(PLUGS):
        with plugged(wire) as flood:
            guarded.runs("web", [REFERENCE])
            wait_for("a flood", partial(flooded, flood))
        assert (flood.leaked, flood.honest) == (0, 0)
    with plugged(wire) as flood:
        guarded.resync()
        wait_for("filtered", partial(passed, flood))
    assert flood.leaked == 0


def test_the_service_is_killed(guarded: Hypervisor) -> None:
    """Wherever it was: all of the filter stands, or nothing passes."""
    chance = random.Random(7)
    decided = set()
    for _ in range(PLUGS):
        with Service(guarded, "qemu:///system") as service, plugged(guarded.wire) as flood:
            told(guarded)
            threading.Event().wait(chance.uniform(0, SETTLES_S))
            service.end(signal.SIGKILL)
            threading.Event().wait(SETTLES_S)
        assert flood.leaked == 0
        decided.add(flood.honest > 0)
        guarded.stops("web")
        guarded.resync()
    assert decided == {False, True}
