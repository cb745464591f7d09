"""A guest that is gone leaves nothing, and its end concerns no other guest."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.libvirt.conftest import Guests, Host, Link
from tests.support.frames import GUEST, GUEST_IP, OTHER, OTHER_IP, THIRD, arp, udp
from tests.support.guest import filterref_xml, interface_xml
from tests.support.libvirtd import Wire, wait_for

pytestmark = pytest.mark.libvirt

CLEAN = interface_xml(GUEST, "<source bridge='br0'/>", reference=filterref_xml("clean-traffic", ("IP", GUEST_IP)))


def test_a_destroyed_guest_leaves_nothing(host: Host, guests: Guests) -> None:
    """After `virsh destroy` no chain, set, map element or record of the guest is left."""
    guest = guests.start("destroyed", CLEAN)
    tap = guest.tap
    assert host.kernel.chains(tap)
    assert host.record_path(guest.name).exists()
    host.libvirtd.virsh("destroy", guest.name)
    assert [event.operation for event in host.events(guest.name, since=3)] == ["stopped", "release"]
    assert host.traces(guest.name, tap) == []


def test_a_guest_that_powers_itself_off_leaves_nothing(host: Host, guests: Guests) -> None:
    """After the guest's own poweroff no chain, set, map element or record of it is left."""
    guest = guests.boot("powered-off", CLEAN)
    tap = guest.tap
    assert host.kernel.chains(tap)
    guest.shell.leave("poweroff -f")
    wait_for("release", lambda: [e.operation for e in host.events(guest.name, since=3)] == ["stopped", "release"])
    assert host.traces(guest.name, tap) == []


def test_the_end_of_one_guest_leaves_the_others_rules(host: Host, guests: Guests, wire: Wire) -> None:
    """Two guests started at once are filtered each by its own rules; one is destroyed, the other's don't move."""
    third_ip = "10.0.0.77"
    # One tap's name begins with the other's: ownership is by exact name.
    staying = ("staying", GUEST, GUEST_IP, "tap-web")
    going = ("going", THIRD, third_ip, "tap-web-2")
    with ThreadPoolExecutor() as pool:
        first, second = pool.map(
            lambda g: guests.boot(
                g[0],
                interface_xml(
                    g[1],
                    "<source bridge='br0'/>",
                    tap=g[3],
                    reference=filterref_xml("clean-traffic", ("IP", g[2])),
                ),
            ),
            (staying, going),
        )
    mine, other = (
        Link(first, wire),
        Link(second, wire, honest=arp(src=THIRD, sender=THIRD, sender_ip=third_ip)),
    )
    assert not mine.passes(udp(src_ip=third_ip))
    assert not other.passes(udp(src=THIRD, src_ip=GUEST_IP))
    assert not other.passes(arp(src=THIRD, sender=GUEST, sender_ip=GUEST_IP))

    before, record = host.kernel.rules("tap-web"), host.record_path("staying").read_bytes()
    assert before
    host.libvirtd.virsh("destroy", "going")

    assert host.traces("going", "tap-web-2") == []
    assert host.kernel.rules("tap-web") == before
    assert host.record_path("staying").read_bytes() == record
    assert mine.passes(udp())
    assert not mine.passes(udp(src=OTHER, src_ip=OTHER_IP))
