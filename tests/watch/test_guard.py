"""The guard with libvirt and with the service: guests that run are known before it is on, and it comes back first."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from tests.support.domains import domain, interface, uuid_of
from tests.support.frames import OTHER, OTHER_IP, THIRD, ether, udp
from tests.support.libvirtd import wait_for
from tests.watch.conftest import DB, WEB, Hypervisor, Service

pytestmark = pytest.mark.netns

HONEST, SPOOFED = udp(), udp(src_ip=OTHER_IP)
FROM_DB = ether(src=OTHER, dst=THIRD)
BARE = interface("vnet1", None, mac=OTHER)
TABLE = "bridge nwfilter"
CATCH_ALL = "map from-guest-l2 has no element for interfaces that nobody has decided about"


@pytest.fixture(autouse=True)
def uplink(hypervisor: Hypervisor) -> Iterator[None]:
    """A port that no mode but strict claims."""
    hypervisor.wire.plug("uplink")
    return iter(())


def status(hypervisor: Hypervisor) -> dict[str, Any]:
    """What `guard status` tells programs."""
    found: dict[str, Any] = json.loads(hypervisor.command("guard", "status", "--json").stdout)
    return found


def passes(hypervisor: Hypervisor, frame: bytes, sender: str) -> bool:
    """Whether the uplink sees it."""
    return hypervisor.wire.passes(frame, sender, "uplink")


def told(service: Service, times: int) -> bool:
    """Whether it was said so often that somebody changed the guard."""
    return service.said().count("the rules of the guard were changed by nft (") == times


def test_on_asks_libvirt_first(hypervisor: Hypervisor) -> None:
    """Guests from before the hook are put under their filters or known without one, and none is cut off."""
    hypervisor.runs("web", [WEB])
    hypervisor.runs("db", [BARE])
    assert passes(hypervisor, SPOOFED, "vnet0")
    done = hypervisor.command("guard", "on")
    assert (done.returncode, done.stdout) == (0, "the guard is on, mode generated\n"), done
    assert done.stderr == "nwfilter-hook: web: vnet0: it was not filtered; now it is, by clean-traffic\n"
    assert passes(hypervisor, HONEST, "vnet0")
    assert not passes(hypervisor, SPOOFED, "vnet0")
    assert passes(hypervisor, FROM_DB, "vnet1")
    hypervisor.wire.plug("vnet2")
    assert not passes(hypervisor, FROM_DB, "vnet2")
    hypervisor.runs("db", [BARE, interface("vnet2", None, mac=THIRD)])
    hypervisor.resync()
    assert passes(hypervisor, FROM_DB, "vnet2")
    hypervisor.stops("db")
    hypervisor.resync()
    assert not passes(hypervisor, FROM_DB, "vnet1")
    assert [each["name"] for each in status(hypervisor)["unknown"]] == ["vnet1", "vnet2"]


def test_at_boot(hypervisor: Hypervisor) -> None:
    """libvirt, which waits for the unit, isn't asked; where its status directory tells of guests, it is."""
    hypervisor.runs("web", [WEB])
    conf = hypervisor.environment["NWFILTER_HOOK_CONF"]
    directory = hypervisor.directory / "status"
    with open(conf, "a") as file:
        file.write(f"[watch]\nstatus_dir = {directory}\n")
    done = hypervisor.command("guard", "on", "--yes", "--boot", FAKE_LIBVIRT="/nonexistent")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == "vnet0 on br0: is cut off, nobody has decided about it"
    assert not passes(hypervisor, HONEST, "vnet0")
    directory.mkdir()
    (directory / "web.xml").touch()
    assert hypervisor.command("guard", "on", "--yes", "--boot").returncode == 0
    assert passes(hypervisor, HONEST, "vnet0")


def test_libvirt_does_not_answer(hypervisor: Hypervisor) -> None:
    """It goes by what is recorded, says so, and lists the others."""
    hypervisor.runs("web", [WEB])
    hypervisor.resync()
    done = hypervisor.command("guard", "on", FAKE_LIBVIRT="/nonexistent")
    assert done.returncode == 1
    assert done.stderr.endswith("; going by what is recorded of guests\n")
    assert done.stdout.splitlines()[0] == "vnet1 on br0: would be cut off, nobody has decided about it"
    assert not status(hypervisor)["on"]
    assert passes(hypervisor, FROM_DB, "vnet1")
    assert hypervisor.command("guard", "on", "--yes", FAKE_LIBVIRT="/nonexistent").returncode == 0
    assert passes(hypervisor, HONEST, "vnet0")
    assert not passes(hypervisor, FROM_DB, "vnet1")


def test_old_news(hypervisor: Hypervisor) -> None:
    """A guest that stops while libvirt is asked, and whose tap's name is another's by then, leaves that unknown."""
    hypervisor.runs("db", [BARE])
    xml = hypervisor.directory / f"{uuid_of('db')}.xml"
    again = f"ip link del vnet1; ip tuntap add vnet1 mode tap; ip link set vnet1 master br0 up; rm {xml}"
    # it is asked twice: what the guest's filters are, and which interfaces have none
    hypervisor.meanwhile(f"printf '%s' '{again}' >{hypervisor.directory}/meanwhile")
    done = hypervisor.command("guard", "on", "--yes")
    assert done.returncode == 0, done
    assert [each["name"] for each in status(hypervisor)["unknown"]] == ["vnet0", "vnet1"]


def test_drift(hypervisor: Hypervisor) -> None:
    """The service sees a missing guard, with guests and without, and puts it back."""
    wire = hypervisor.wire
    hypervisor.command("guard", "on", "--yes", "--boot")
    with Service(hypervisor) as service:
        changes = (
            f"delete element {TABLE} from-guest-l2 {{ * }}",
            f"flush chain {TABLE} guard-to",
            f"delete table {TABLE}",
            "delete table inet nwfilter",
            "flush chain arp nwfilter guard-reserved",
            "flush ruleset",
        )
        for number, change in enumerate(changes, 1):
            wire.apply(change)
            wait_for(change, partial(told, service, number), 10)
            assert status(hypervisor)["faults"] == []
            assert not passes(hypervisor, FROM_DB, "vnet1")
        assert f"guard: {CATCH_ALL}; put back" in service.said()
    wire.start("web", domain("web", [WEB]))
    wire.start("db", domain("db", [DB]))
    with Service(hypervisor) as service:
        wire.apply("flush ruleset")
        wait_for("all", lambda: "the guard and the rules of 2 taps were changed by nft (" in service.said(), 10)
        assert passes(hypervisor, HONEST, "vnet0")
        assert not passes(hypervisor, SPOOFED, "vnet0")
        assert hypervisor.command("verify").stdout == ""
        shown = json.loads(hypervisor.command("show", "--json", "--host").stdout)
        assert (shown["guard"]["on"], shown["guard"]["unknown"], shown["watch"]["drifted"]["taps"]) == (True, [], 2)
        # a guard that is taken off by its command is no drift
        said = len(service.said())
        assert hypervisor.command("guard", "off").returncode == 0
        assert service.end() == 0
        assert "changed" not in service.said()[said:]


def test_plugged_under_the_service(hypervisor: Hypervisor) -> None:
    """An interface without a filter that is plugged while the guard is on: followed, although nothing else changed."""
    wire = hypervisor.wire
    hypervisor.runs("db", [BARE])
    with Service(hypervisor, "qemu:///system"):
        assert passes(hypervisor, FROM_DB, "vnet1")
        done = hypervisor.command("guard", "on", "--yes", FAKE_LIBVIRT="/nonexistent")
        assert done.returncode == 0
        assert not passes(hypervisor, FROM_DB, "vnet1")
    with Service(hypervisor, "qemu:///system"):
        wait_for("known", lambda: passes(hypervisor, FROM_DB, "vnet1"), 10)
        wire.unplug("vnet1")
        wait_for("unknown", lambda: '"vnet1"' not in wire.ruleset(), 10)


def test_unknown_ports_are_told(hypervisor: Hypervisor) -> None:
    """Once each, those that were there and one that comes; not those that somebody has decided about."""
    wire = hypervisor.wire
    wire.start("web", domain("web", [WEB]))
    assert hypervisor.command("guard", "on", "--yes", "--boot").returncode == 0
    with Service(hypervisor) as service:
        line = "nobody has decided about it: the guard drops its frames"
        service.wait_until_said(f"vnet1 on br0: {line}")
        wire.plug("vnet2", "vnet3")
        wire.start("db", domain("db", [interface("vnet3", None)]))
        service.wait_until_said(f"vnet2 on br0: {line}")
        wire.start("new", domain("new", [DB]))
        assert service.end() == 0
        assert service.said().count(line) == 2
