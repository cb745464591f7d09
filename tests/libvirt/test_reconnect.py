"""A restarted libvirtd repairs the filters of the guests it finds, and never kills one of them."""

from __future__ import annotations

import pytest

from tests.libvirt.conftest import Guests, Host, Link
from tests.support.frames import GUEST, GUEST_IP, OTHER, OTHER_IP, arp, udp
from tests.support.guest import filterref_xml, interface_xml, mark
from tests.support.libvirtd import Wire, wait_for

pytestmark = pytest.mark.libvirt


def test_a_flushed_table_is_repaired_and_the_guest_lives(host: Host, guests: Guests, wire: Wire) -> None:
    """With our table taken away before libvirtd starts again, the guest has the same rules afterwards."""
    reference = filterref_xml("clean-traffic", ("IP", GUEST_IP))
    guest = guests.boot("survivor", interface_xml(GUEST, "<source bridge='br0'/>", reference=reference))
    link = Link(guest, wire)
    assert not link.passes(udp(src_ip=OTHER_IP))
    tap, process, rules = guest.tap, guest.process(), host.kernel.rules(guest.tap)
    assert process
    assert rules

    host.restart_libvirtd()  # with everything in place: nothing to repair
    assert host.kernel.rules(tap) == rules

    host.kernel.flush()
    assert link.passes(udp(src_ip=OTHER_IP))  # the filter is really gone
    host.restart_libvirtd()
    assert (guest.tap, guest.process()) == (tap, process)
    assert host.kernel.rules(tap) == rules
    assert link.passes(udp())
    assert not link.passes(udp(src_ip=OTHER_IP))
    assert not link.passes(arp(sender=OTHER))

    host.libvirtd.virsh("destroy", guest.name)
    assert host.traces(guest.name, tap) == []


def test_only_the_damaged_guest_is_repaired(host: Host, guests: Guests) -> None:
    """Chains of one guest are emptied by hand: reconnect fills them again and leaves the other guest's as they were."""
    taps = []
    for name, mac in (("damaged", GUEST), ("healthy", OTHER)):
        reference = filterref_xml("clean-traffic", ("IP", GUEST_IP))
        taps.append(guests.start(name, interface_xml(mac, "<source bridge='br0'/>", reference=reference)).tap)
    damaged, healthy = (host.kernel.rules(tap) for tap in taps)
    host.run("nft", "flush", "chain", "bridge", "nwfilter", f"from/{taps[0]}")
    assert host.kernel.rules(taps[0]) != damaged
    host.restart_libvirtd()
    assert host.kernel.rules(taps[0]) == damaged
    assert host.kernel.rules(taps[1]) == healthy


def test_a_guest_that_cannot_be_filtered_any_more_is_cut_off_not_killed(host: Host, guests: Guests, wire: Wire) -> None:
    """
    Its filter is gone from library, kernel and records when libvirtd starts again: the guest lives, quarantined.

    Nothing passes its tap either way, until the filter is back and libvirtd starts once more.
    """
    source = host.add_filter("vanishing", "<filterref filter='clean-traffic'/>")
    reference = filterref_xml("vanishing", ("IP", GUEST_IP))
    guest = guests.boot("patient", interface_xml(GUEST, "<source bridge='br0'/>", reference=reference))
    link, process, tap = Link(guest, wire), guest.process(), guest.tap
    rules, filter_xml = host.kernel.rules(tap), source.read_text()
    assert link.passes(udp())

    source.unlink()
    host.record_path(guest.name).unlink()
    host.kernel.flush()
    host.restart_libvirtd()
    assert host.libvirtd.virsh("domstate", guest.name).stdout.strip() == "running"
    assert guest.process() == process
    for direction in ("from", "to"):
        verdicts = [rule["expr"][-1] for rule in host.kernel.rules(tap) if rule["chain"] == f"{direction}/{tap}"]
        assert verdicts == [{"drop": None}]

    at_tap = host.wire(tap)  # sees what the guest sends before any filter does
    sent, received = mark(udp()), mark(udp(src=OTHER, dst=GUEST, src_ip=OTHER_IP, dst_ip=GUEST_IP))
    guest.shell.send(sent)
    wait_for("the guest's frame at its tap", lambda: at_tap.heard(sent))
    wire.send(received)
    assert not wire.heard(sent)
    assert not guest.shell.heard(received)
    at_tap.close()

    source.write_text(filter_xml)
    host.restart_libvirtd()
    assert guest.process() == process
    assert host.kernel.rules(tap) == rules
    assert link.passes(udp())
    assert not link.passes(udp(src_ip=OTHER_IP))
    assert link.delivers(udp(src=OTHER, dst=GUEST, src_ip=OTHER_IP, dst_ip=GUEST_IP))
    # Later frames have arrived on the same way, so these never will.
    assert not wire.heard(sent)
    assert not guest.shell.heard(received)

    host.libvirtd.virsh("destroy", guest.name)
    assert host.traces(guest.name, tap) == []


def test_a_broken_record_does_not_kill_the_guest(host: Host, guests: Guests, wire: Wire) -> None:
    """The record is half written and the table gone: the guest lives, and its filter comes from the domain's XML."""
    reference = filterref_xml("clean-traffic", ("IP", GUEST_IP))
    guest = guests.boot("forgotten", interface_xml(GUEST, "<source bridge='br0'/>", reference=reference))
    process, record = guest.process(), host.record_path(guest.name)
    record.write_text(record.read_text()[:40])
    host.kernel.flush()
    host.restart_libvirtd()
    assert guest.process() == process
    assert host.kernel.chains(guest.tap)
    link = Link(guest, wire)
    assert link.passes(udp())
    assert not link.passes(udp(src_ip=OTHER_IP))
