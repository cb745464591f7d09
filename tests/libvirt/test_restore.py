"""A guest comes back from a file under another tap name, with its filter and without the old one's remains."""

from __future__ import annotations

import pytest

from tests.libvirt.conftest import Guests, Host, Link
from tests.support.frames import GUEST, GUEST_IP, OTHER, OTHER_IP, THIRD, arp, udp
from tests.support.guest import filterref_xml, interface_xml
from tests.support.libvirtd import Wire

pytestmark = pytest.mark.libvirt


def test_a_restored_guest_is_filtered_under_its_new_tap_name(host: Host, guests: Guests, wire: Wire) -> None:
    """
    Saved, the guest leaves nothing; restored, it has the same rules on another tap.

    A guest that was started in between keeps its own.
    """
    reference = filterref_xml("clean-traffic", ("IP", GUEST_IP))
    guest = guests.boot("traveller", interface_xml(GUEST, "<source bridge='br0'/>", reference=reference))
    old = guest.tap
    rules = host.kernel.rules(old)
    guest.shell.check("echo remembered >/tmp/memory")

    host.libvirtd.virsh("save", guest.name, "/run/traveller.save")
    assert host.traces(guest.name, old) == []

    reference = filterref_xml("clean-traffic", ("IP", "10.0.0.77"))
    between = guests.start("between", interface_xml(THIRD, "<source bridge='br0'/>", reference=reference))
    between_rules = host.kernel.rules(between.tap)

    host.libvirtd.virsh("restore", "/run/traveller.save")
    operations = [event.operation for event in host.events(guest.name)]
    assert operations[-4:] == ["restore", "prepare", "start", "started"]
    guest.open_shell()
    assert guest.shell.check("cat /tmp/memory") == "remembered\n"
    new = guest.tap
    assert new not in (old, between.tap)
    assert _renamed(host.kernel.rules(new), new) == _renamed(rules, old)
    assert host.kernel.rules(between.tap) == between_rules
    assert host.kernel.traces(old) == []

    link = Link(guest, wire)
    assert link.passes(udp())
    assert not link.passes(udp(src_ip=OTHER_IP))
    assert not link.passes(arp(src=OTHER, sender=OTHER))


def test_a_restore_is_refused_while_the_filter_is_missing(host: Host, guests: Guests) -> None:
    """Without its filter the saved guest isn't restored, and its file is as good as before once the filter is back."""
    source = host.add_filter("traveller", "<filterref filter='clean-traffic'/>")
    reference = filterref_xml("traveller", ("IP", GUEST_IP))
    guest = guests.boot("waiting", interface_xml(GUEST, "<source bridge='br0'/>", reference=reference))
    host.libvirtd.virsh("save", guest.name, "/run/waiting.save")

    filter_xml = source.read_text()
    source.unlink()
    refused = host.libvirtd.virsh("restore", "/run/waiting.save", check=False)
    assert refused.returncode != 0
    assert "traveller" in refused.stderr
    assert host.libvirtd.virsh("domstate", guest.name).stdout.strip() == "shut off"
    assert not guest.process()

    source.write_text(filter_xml)
    host.libvirtd.virsh("restore", "/run/waiting.save")
    guest.open_shell()
    assert host.kernel.chains(guest.tap)


def _renamed(rules: list[dict[str, object]], tap: str) -> str:
    """The rules as text, with TAP for the tap's name."""
    return repr(rules).replace(f"/{tap}", "/TAP").replace(f"'{tap}'", "'TAP'")
