"""watch: what goes wrong around it, and the service itself, leaves no guest open and none waiting."""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from pathlib import Path

import pytest

from tests.support.domains import domain, interface, uuid_of
from tests.support.frames import OTHER_IP, udp
from tests.support.libvirtd import wait_for
from tests.support.netns import REPOSITORY
from tests.watch.conftest import DB, WEB, Hypervisor, Service
from tests.watch.killer import listing
from tests.watch.test_service import CHANGES

pytestmark = pytest.mark.netns

FIRST, SECOND = WEB, interface("vnet0", "clean-traffic", [("IP", "10.0.0.3")])
KILLS = 200
GUESTS = [f"guest{number}" for number in range(10)]
EVENTS = 300
HOOKS = 3


Listing = dict[str, list[str]]


def listed(hypervisor: Hypervisor) -> Listing:
    """The kernel's ruleset as the killer tells it."""
    with hypervisor.wire.inside():
        return listing()


def test_killed_at_any_moment(hypervisor: Hypervisor) -> None:
    """
    It is killed wherever it is: rules are as they were, or as they should be, and never anything else; the next service
    sees to the rest, and no file is left over.
    """
    wire = hypervisor.wire
    hypervisor.runs("db", [DB])
    whole = []
    for web in (FIRST, SECOND):
        hypervisor.runs("web", [web])
        hypervisor.resync()
        whole.append(listed(hypervisor))
    files = sorted(path.relative_to(wire.state_dir) for path in wire.state_dir.rglob("*"))
    path = hypervisor.directory / f"{uuid_of('web')}.xml"
    given = {
        "seed": 12,
        "times": KILLS,
        "damages": [change.replace("; ", "\n") for change in CHANGES.values()],
        "xml": str(path),
        "variants": [domain("web", [FIRST]), domain("web", [SECOND])],
    }
    Service(hypervisor, "qemu:///system")  # writes the configuration
    path_of_modules = f"{hypervisor.environment['PYTHONPATH']}:{REPOSITORY}"
    environment = {**hypervisor.environment, "FAKE_LIBVIRT_LOCK": "", "PYTHONPATH": path_of_modules}
    done = wire.run(
        sys.executable,
        Path(__file__).with_name("killer.py"),
        stdin=json.dumps(given),
        environment=environment,
        own_sysfs=True,
        timeout_s=300,
    )
    seen = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(seen) == KILLS
    for each in seen:
        for tap, found in each["after"].items():
            expected = (each["before"][tap], *(every[tap] for every in whole))
            assert found in expected, (tap, [sorted(set(found) ^ set(other)) for other in expected])
    ends = [next((n for n, every in enumerate(whole) if every == each["after"]), -1) for each in seen]
    assert {-1} < set(ends)  # moments before, between and after the changes were met
    with Service(hypervisor, "qemu:///system") as service:
        assert hypervisor.command("verify").stdout == ""
        assert listed(hypervisor) == whole[1]
        assert service.end() == 0
    left = {path.relative_to(wire.state_dir) for path in wire.state_dir.rglob("*")} - set(files)
    assert {str(path) for path in left} <= {"watch.json", "watch.lock"}


def test_hooks_and_events_at_once(hypervisor: Hypervisor) -> None:
    """
    300 events and redefinitions while hooks of the same guests run, each with its guest's job in libvirt held as
    libvirt holds it: who waits for libvirt under our lock would wait for ever. At the end every guest has its rules.
    """
    wire = hypervisor.wire
    taps = [f"tap{number}" for number in range(len(GUESTS))]
    wire.plug(*taps)
    for number, (guest, tap) in enumerate(zip(GUESTS, taps, strict=True)):
        reference = interface(tap, "clean-traffic", [("IP", f"10.0.1.{number}")])
        hypervisor.runs(guest, [reference])
        (hypervisor.directory / f"{uuid_of(guest)}.job").touch()
    with Service(hypervisor, "qemu:///system") as service:
        (hypervisor.directory / "new").write_text("\n".join(uuid_of(GUESTS[n % 10]) for n in range(EVENTS)))
        said = (wire.directory / "hooks.log").read_text
        running = [
            wire.start_process(
                *("sh", "-ec", f'for n in {" ".join(map(str, range(HOOKS)))}; do flock "$0.job" "$@" <"$0.xml"; done'),
                hypervisor.directory / uuid_of(guest),
                *(REPOSITORY / "hooks/qemu", guest, "start", "begin", "-"),
                environment=hypervisor.environment,
                output=wire.directory / "hooks.log",
            )
            for guest in GUESTS
        ]
        (hypervisor.directory / "new").rename(hypervisor.directory / "events")
        for _ in range(HOOKS):
            assert hypervisor.command("reload", FAKE_LIBVIRT_LOCK="").returncode == 0
        assert [each.wait(60) for each in running] == [0] * len(GUESTS), said()
        wait_for("all events", lambda: not (hypervisor.directory / "events").exists())
        wait_for("no difference", lambda: hypervisor.command("verify").stdout == "")
        assert hypervisor.filtered() == set(taps)
        assert said() == ""
        assert "Traceback" not in service.said()
        assert service.told()["refused"] == []
        assert service.end() == 0


@pytest.mark.parametrize("shift_s", [-86400, 86400])
def test_the_clock_is_another(hypervisor: Hypervisor, shift_s: int) -> None:
    """libvirt's files are of yesterday or of tomorrow: that they change is seen all the same, once each time."""
    wire = hypervisor.wire
    status = wire.directory / "status"
    status.mkdir()
    hypervisor.runs("web", [FIRST])
    wire_passes = partial(wire.passes, udp())
    with Service(hypervisor, "qemu:///system", status_dir=str(status)) as service:
        for number, (reference, passes) in enumerate(((SECOND, False), (FIRST, True))):
            hypervisor.runs("web", [reference])
            path = status / "web.xml"
            path.with_suffix(".new").touch()
            path.with_suffix(".new").rename(path)
            os.utime(status, ns=(0, (1_700_000_000 + shift_s * (number + 1)) * 1_000_000_000))
            wait_for("followed", wire_passes if passes else lambda: not wire_passes(), 15)
            assert not wire.passes(udp(src_ip=OTHER_IP))
        assert "Traceback" not in service.said()
        assert service.end() == 0


def test_no_status_directory(hypervisor: Hypervisor) -> None:
    """It isn't there, comes, and goes: what changes while it is there is seen, and nothing is said of it."""
    wire = hypervisor.wire
    status = wire.directory / "status"
    hypervisor.runs("web", [FIRST])
    with Service(hypervisor, "qemu:///system", status_dir=str(status)) as service:
        status.mkdir()
        hypervisor.runs("web", [SECOND])
        (status / "web.xml").touch()
        wait_for("followed", lambda: not wire.passes(udp()), 15)
        (status / "web.xml").unlink()
        status.rmdir()
        wire.apply("flush ruleset")
        wait_for("put back", lambda: not wire.passes(udp()))
        assert "status" not in service.said()
        assert "Traceback" not in service.said()
        assert service.end() == 0
