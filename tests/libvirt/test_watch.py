"""
The service beside a real libvirtd: what it tells no hook of is followed, what is taken away is put back.

One guest for all, since booting takes long; each test leaves it as it was: eth0 on br0 under clean-traffic.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.libvirt.conftest import CONFIGURATION, REPOSITORY, STATE_DIR, Guest, Guests, Host, Image, Link, configuration
from tests.support.frames import GUEST, GUEST_IP, OTHER_IP, udp
from tests.support.guest import filterref_xml, guest_uuid, interface_xml, mark
from tests.support.libvirtd import Wire, wait_for

pytestmark = pytest.mark.libvirt

SECOND = "52:54:00:00:00:42"
BR0 = "<source bridge='br0'/>"
CLEAN = filterref_xml("clean-traffic", ("IP", GUEST_IP))
COMMAND = ["env", f"PYTHONPATH={REPOSITORY}", "JOURNAL_STREAM=8:1", sys.executable, "-m", "nwfilter_hook"]


class Watch:
    """The service on the private host."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._process: subprocess.Popen[bytes] | None = None
        self._log = host.path("/run/watch.log")

    def start(self) -> None:
        """Start it, and wait until it has looked at everything."""
        self._log.write_text("")
        with self._log.open("ab") as log:
            self._process = self._host.start_process([*COMMAND, "watch"], log)
        wait_for("the service", lambda: "watching: " in self.said() or self._ended())
        assert not self._ended(), self.said()

    def _ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def stop(self) -> None:
        """SIGTERM, or SIGKILL if it can't be had otherwise."""
        if self._process is not None and not self._ended():
            self._host.run("pkill", "-TERM", "-f", "nwfilter_hook watch")
            assert self._process.wait(30) == 0, self.said()

    def said(self) -> str:
        """All of its lines."""
        return self._log.read_text()

    def told(self) -> dict[str, Any]:
        """What it tells others."""
        found: dict[str, Any] = json.loads(self._host.path(f"{STATE_DIR}/watch.json").read_text())
        return found


@pytest.fixture(scope="module")
def watched(host: Host, image: Image) -> Iterator[tuple[Guest, Watch]]:
    """A guest that ran before there was any hook or record of it, and the service, which found it."""
    host.write(CONFIGURATION, configuration() + "[watch]\npoll_s = 3600\n")
    guests, watch = Guests(host, *image), Watch(host)
    try:
        guest = guests.boot("watched", interface_xml(GUEST, BR0, reference=CLEAN))
        host.run(*COMMAND, "replay", "watched", "stopped")
        assert host.traces("watched", guest.tap) == []
        watch.start()
        yield guest, watch
    finally:
        watch.stop()
        guests.remove()
        host.write(CONFIGURATION, configuration())


@pytest.fixture
def guest(watched: tuple[Guest, Watch]) -> Guest:
    """The guest."""
    return watched[0]


@pytest.fixture
def watch(watched: tuple[Guest, Watch]) -> Watch:
    """The service."""
    return watched[1]


def change(host: Host, guest: Guest, command: str, xml: str) -> None:
    """virsh attach-device, detach-device, update-device."""
    host.write("/run/device.xml", xml)
    host.libvirtd.virsh(command, guest.name, "/run/device.xml", "--live")


def soon(what: str, probe: Callable[[], object]) -> None:
    """It is so within a moment: far less than the slow poll takes."""
    wait_for(what, probe, 15)


def addresses(host: Host, tap: str) -> list[str]:
    """Which of the addresses that the tests give are in the tap's rules."""
    return host.kernel.addresses(tap, GUEST_IP, OTHER_IP)


def recorded(host: Host, guest: Guest) -> str:
    """The guest's record; "" without one."""
    path = host.record_path(guest.name)
    return path.read_text() if path.exists() else ""


def test_older_than_the_installation(host: Host, guest: Guest, watch: Watch, wire: Wire) -> None:
    """A guest that nothing was known of is filtered as soon as the service is there."""
    link = Link(guest, wire)
    assert link.passes(udp())
    assert not link.passes(udp(src_ip=OTHER_IP))
    assert f"watched: {guest.tap}: it was not filtered; now it is, by clean-traffic" in watch.said()
    assert (watch.told()["libvirt"], watch.told()["resynced"]["guests"]) == ("connected", 1)


def test_plug_and_unplug(host: Host, guest: Guest, wire: Wire) -> None:
    """A device that is plugged gets its filter, and loses it when it is unplugged; the other one's isn't touched."""
    first = guest.tap
    rules = host.kernel.rules(first)
    plugged = interface_xml(SECOND, BR0, reference=filterref_xml("clean-traffic", ("IP", OTHER_IP)))
    change(host, guest, "attach-device", plugged)
    (second,) = set(guest.taps()) - {first}
    soon("rules of the second", lambda: addresses(host, second) == [OTHER_IP])
    guest.shell.check("until test -e /sys/class/net/eth1; do sleep 0.1; done; ip link set eth1 up")
    link = Link(guest, wire, device="eth1", honest=udp(src=SECOND, src_ip=OTHER_IP))
    assert not link.passes(udp(src=SECOND, src_ip=GUEST_IP))
    change(host, guest, "detach-device", plugged)
    soon("the second is gone", lambda: host.kernel.traces(second) == [] and len(guest.taps()) == 1)
    assert host.kernel.rules(first) == rules


def test_a_plug_that_fails(host: Host, guest: Guest, watch: Watch) -> None:
    """QEMU refuses the device after its tap was made: nothing of it is anywhere, and nothing is said of it."""
    taps, rules, before, said = guest.taps(), host.kernel.rules(guest.tap), recorded(host, guest), watch.said()
    broken = interface_xml(SECOND, BR0, reference=CLEAN).replace("</interface>", "<rom file='/nowhere'/></interface>")
    host.write("/run/device.xml", broken)
    refused = host.libvirtd.virsh("attach-device", guest.name, "/run/device.xml", "--live", check=False)
    assert (refused.returncode, "/nowhere" in refused.stderr) == (1, True), refused
    host.run(*COMMAND, "verify")
    assert (guest.taps(), host.kernel.rules(guest.tap), recorded(host, guest)) == (taps, rules, before)
    assert watch.told()["refused"] == []
    assert watch.said() == said


def test_plugged_under_the_guard(host: Host, guest: Guest, watch: Watch, wire: Wire) -> None:
    """With the service gone a plugged device is cut off, and its guest's other one isn't; with it, it is filtered."""
    first = guest.tap
    plugged = interface_xml(SECOND, BR0, reference=filterref_xml("clean-traffic", ("IP", OTHER_IP)))
    host.run(*COMMAND, "guard", "on", "--yes")
    watch.stop()
    try:
        change(host, guest, "attach-device", plugged)
        (second,) = set(guest.taps()) - {first}
        guest.shell.check("until test -e /sys/class/net/eth1; do sleep 0.1; done; ip link set eth1 up")
        honest = udp(src=SECOND, src_ip=OTHER_IP)
        link = Link(guest, wire)
        asked = mark(honest)
        guest.shell.send(asked, "eth1")
        assert link.passes(udp())  # the twin, later, by the other device
        assert not wire.heard(asked)
        assert json.loads(host.run(*COMMAND, "guard", "status", "--json").stdout)["unknown"][0]["name"] == second
    finally:
        watch.start()
    soon("rules of the second", lambda: addresses(host, second) == [OTHER_IP])
    assert not Link(guest, wire, device="eth1", honest=honest).passes(udp(src=SECOND, src_ip=GUEST_IP))
    change(host, guest, "detach-device", plugged)
    soon("the second is gone", lambda: not host.kernel.chains(second) and len(guest.taps()) == 1)
    host.run(*COMMAND, "guard", "off")


def test_what_changes_no_filter(host: Host, guest: Guest, watch: Watch) -> None:
    """Paused, resumed, a link taken down and up: the rules stay as they are, and nobody is told of anything."""
    tap = guest.tap
    rules, said = host.kernel.rules(tap), watch.said()
    for command in (
        ("suspend", guest.name),
        ("resume", guest.name),
        ("domif-setlink", guest.name, tap, "down"),
        ("domif-setlink", guest.name, tap, "up"),
    ):
        host.libvirtd.virsh(*command)
        host.run(*COMMAND, "verify")
        assert host.kernel.rules(tap) == rules
    assert watch.said() == said


def test_update_device(host: Host, guest: Guest) -> None:
    """Another parameter, another filter, none, another bridge: no event of libvirt's tells, and each is followed."""
    tap = guest.tap
    other = filterref_xml("clean-traffic", ("IP", OTHER_IP))
    change(host, guest, "update-device", interface_xml(GUEST, BR0, reference=other))
    soon("another address", lambda: addresses(host, tap) == [OTHER_IP])
    change(host, guest, "update-device", interface_xml(GUEST, BR0, reference=filterref_xml("no-mac-spoofing")))
    soon("another filter", lambda: addresses(host, tap) == [] and host.kernel.rules(tap))
    change(host, guest, "update-device", interface_xml(GUEST, BR0))
    soon("no filter", lambda: host.kernel.traces(tap) == [])
    change(host, guest, "update-device", interface_xml(GUEST, "<source bridge='virbr7'/>", reference=CLEAN))
    soon("another bridge", lambda: '"bridge":"virbr7"' in recorded(host, guest))
    change(host, guest, "update-device", interface_xml(GUEST, BR0, reference=CLEAN))
    soon("back", lambda: '"bridge":"br0"' in recorded(host, guest))
    soon("as it was", lambda: addresses(host, tap) == [GUEST_IP])
    host.run(*COMMAND, "verify")


def test_metadata(host: Host, guest: Guest, watch: Watch) -> None:
    """Metadata that are set win, broken ones change nothing and are told, and without them the <filterref> counts."""
    uri = "https://nwfilter-hook.org/xmlns/1"

    def metadata(*more: str) -> None:
        host.libvirtd.virsh("metadata", guest.name, uri, "--live", *more)

    def binding(reference: str) -> str:
        return f"<bindings><interface mac='{GUEST}'>{reference}</interface></bindings>"

    metadata("--key", "nwf", "--set", binding(filterref_xml("clean-traffic", ("IP", OTHER_IP))))
    soon("from metadata", lambda: addresses(host, guest.tap) == [OTHER_IP])
    metadata("--key", "nwf", "--set", binding(filterref_xml("no-such-filter")))
    soon("told", lambda: any("no-such-filter" in line for line in watch.told()["refused"]))
    assert addresses(host, guest.tap) == [OTHER_IP]
    metadata("--remove")
    soon("from the interface", lambda: addresses(host, guest.tap) == [GUEST_IP])
    soon("forgotten", lambda: watch.told()["refused"] == [])


def test_flush_and_restart(host: Host, guest: Guest, watch: Watch, wire: Wire) -> None:
    """With libvirtd gone a flush is healed all the same; what is changed while it was away is seen when it is back."""
    tap = guest.tap
    rules = host.kernel.rules(tap)
    host.libvirtd.stop()
    soon("the connection is closed", lambda: watch.told()["libvirt"] != "connected")
    host.run("nft", "flush", "ruleset")
    soon("put back", lambda: host.kernel.rules(tap) == rules)
    soon("told", lambda: "were changed by nft (" in watch.said())
    link = Link(guest, wire)
    assert not link.passes(udp(src_ip=OTHER_IP))
    host.libvirtd.start()
    soon("connected", lambda: watch.told()["libvirt"] == "connected")
    change(host, guest, "attach-device", interface_xml(SECOND, BR0, reference=CLEAN))
    soon("events are heard again", lambda: all(host.kernel.rules(each) for each in guest.taps()))
    change(host, guest, "detach-device", interface_xml(SECOND, BR0, reference=CLEAN))
    soon("unplugged", lambda: len(guest.taps()) == 1)


def test_libvirtd_hangs(host: Host, guest: Guest, watch: Watch) -> None:
    """It is there, and doesn't answer: a flush is healed, the connection is given up, and a new one is made in time."""
    tap = guest.tap
    rules = host.kernel.rules(tap)
    pid = host.path(host.libvirtd.PID_FILE).read_text().strip()
    host.run("kill", "-STOP", pid)
    try:
        host.run("nft", "flush", "ruleset")
        soon("put back", lambda: host.kernel.rules(tap) == rules)
        # three questions, five seconds each
        wait_for("the connection is given up", lambda: watch.told()["libvirt"] != "connected")
    finally:
        host.run("kill", "-CONT", pid)
    soon("connected", lambda: watch.told()["libvirt"] == "connected")
    change(
        host,
        guest,
        "update-device",
        interface_xml(GUEST, BR0, reference=filterref_xml("clean-traffic", ("IP", OTHER_IP))),
    )
    soon("another address", lambda: addresses(host, tap) == [OTHER_IP])
    change(host, guest, "update-device", interface_xml(GUEST, BR0, reference=CLEAN))
    soon("as it was", lambda: addresses(host, tap) == [GUEST_IP])


def test_the_guest_ends(host: Host, guest: Guest, watch: Watch) -> None:
    """Nothing is left of a guest that is destroyed, and nothing of it was taken for drift."""
    tap, said = guest.tap, watch.said()
    host.libvirtd.virsh("destroy", guest.name)
    soon("nothing is left", lambda: host.traces(guest.name, tap) == [])
    assert "were changed" not in watch.said()[len(said) :]
    assert guest_uuid(guest.name) not in "".join(watch.told()["refused"])
