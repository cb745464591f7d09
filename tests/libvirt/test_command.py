"""The command line beside a real libvirtd: it asks libvirt for a guest's XML and shows what is installed."""

from __future__ import annotations

import sys

import pytest

from tests.libvirt.conftest import REPOSITORY, Guests, Host
from tests.support.frames import GUEST, GUEST_IP
from tests.support.guest import filterref_xml, interface_xml

pytestmark = pytest.mark.libvirt

CLEAN = interface_xml(GUEST, "<source bridge='br0'/>", reference=filterref_xml("clean-traffic", ("IP", GUEST_IP)))


def command(host: Host, *arguments: str) -> str:
    """Run `nwfilter-hook` on the private host, as root there would; what it printed."""
    return host.run("env", f"PYTHONPATH={REPOSITORY}", sys.executable, "-m", "nwfilter_hook", *arguments).stdout


def test_replay_takes_the_xml_from_libvirt(host: Host, guests: Guests) -> None:
    """An event replayed by hand does what libvirt's call would, with the XML that libvirt has now."""
    guest = guests.start("replayed", CLEAN)
    tap = guest.tap
    rules = host.kernel.rules(tap)
    host.kernel.flush()
    command(host, "replay", guest.name, "reconnect")
    assert host.kernel.rules(tap) == rules

    script = command(host, "replay", guest.name, "stopped", "--dry-run")
    assert f"delete chain bridge nwfilter from/{tap}" in script
    assert host.kernel.rules(tap) == rules

    command(host, "replay", guest.name, "stopped")
    assert host.traces(guest.name, tap) == []

    command(host, "replay", guest.name, "start")
    assert host.kernel.rules(tap) == rules


def test_a_changed_parameter_is_put_in_force_by_attach(host: Host, guests: Guests) -> None:
    """After `virsh update-device` of a running guest, which fires no hook, `replay GUEST attach` does what is asked."""
    guest = guests.start("moved", CLEAN)

    def addresses() -> list[str]:
        return host.kernel.addresses(guest.tap, GUEST_IP, "10.0.0.77")

    def change(name: str, value: str) -> None:
        reference = filterref_xml("clean-traffic", (name, value))
        host.write("/run/changed.xml", interface_xml(GUEST, "<source bridge='br0'/>", reference=reference))
        host.libvirtd.virsh("update-device", guest.name, "/run/changed.xml", "--live")

    change("IP", "10.0.0.77")
    assert addresses() == [GUEST_IP]
    command(host, "replay", guest.name, "attach")
    assert addresses() == ["10.0.0.77"]
    change("IP", "10.0.0.777")
    with pytest.raises(AssertionError, match=r"'10.0.0.777' can't be srcipaddr"):
        command(host, "replay", guest.name, "attach")
    assert addresses() == ["10.0.0.77"]
