"""One guest with an interface of every kind, each filtered where its frames pass."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.libvirt.conftest import Guest, Guests, Host, Image, Link
from tests.support.frames import BROADCAST, OTHER, OTHER_IP, arp, udp
from tests.support.guest import filterref_xml, interface_xml
from tests.support.libvirtd import wait_for

pytestmark = pytest.mark.libvirt

BRIDGED, NETWORKED, ROUTED, MACVTAP, PLAIN = (f"52:54:00:00:00:0{number}" for number in range(1, 6))
LEARNED_IP = "192.168.77.5"

INTERFACES = (
    interface_xml(
        BRIDGED,
        "<source bridge='br0'/>",
        reference=filterref_xml("clean-traffic", ("IP", "10.0.0.1"), ("IP", "10.0.0.2")),
    ),
    interface_xml(NETWORKED, "<source network='isolated'/>", kind="network", reference=filterref_xml("clean-traffic")),
    interface_xml(ROUTED, "", kind="ethernet", tap="tap-eth0", reference=filterref_xml("no-mac-spoofing")),
    # libvirt drops the element of a "direct" interface, so the metadata carries it.
    interface_xml(MACVTAP, "<source dev='low0' mode='bridge'/>", kind="direct"),
    interface_xml(PLAIN, "<source bridge='br0'/>", tap="web-01-plain"),
)
METADATA = (
    "<app:owner xmlns:app='http://example.org/app'>team-a</app:owner>"
    "<nwf:bindings xmlns:nwf='https://nwfilter-hook.org/xmlns/1'>"
    f"<nwf:interface mac='{MACVTAP}'>{filterref_xml('no-mac-spoofing')}</nwf:interface>"
    "</nwf:bindings>"
)


@pytest.fixture(scope="module")
def web(host: Host, image: Image) -> Iterator[Guest]:
    """The guest, running for the whole module."""
    guests = Guests(host, *image)
    try:
        yield guests.boot("web-01", *INTERFACES, metadata=METADATA)
    finally:
        guests.remove()


def test_every_reference_has_chains_and_no_other_interface(host: Host, web: Guest) -> None:
    """Bridge ports are in table bridge, and at their ingress; the others in netdev; without a reference nowhere."""
    bridged, networked, routed, macvtap, plain = web.taps()
    assert (routed, plain) == ("tap-eth0", "web-01-plain")
    families = {
        tap: {o["family"] for o in host.kernel.objects() if o["type_"] == "rule" and tap in o["chain"].split("/")}
        for tap in (bridged, networked, routed, macvtap, plain)
    }
    assert families == {
        bridged: {"bridge", "netdev"},
        networked: {"bridge", "netdev"},
        routed: {"netdev"},
        macvtap: {"netdev"},
        plain: set(),
    }
    assert host.kernel.traces(plain) == []


def test_bridge(host: Host, web: Guest) -> None:
    """Each address of the list is the guest's own, no other is."""
    wire = host.wire("watch")
    link = Link(web, wire)
    assert link.passes(udp(src_ip="10.0.0.1"))
    assert link.passes(udp(src_ip="10.0.0.2"))
    assert not link.passes(udp(src_ip="10.0.0.3"))
    wire.close()


def test_network_with_a_learned_address(host: Host, web: Guest) -> None:
    """Without IP, the first address that the guest uses under its own MAC is its own, and no later one."""
    wire = host.wire("watch7")
    mine = arp(src=NETWORKED, sender=NETWORKED, sender_ip=LEARNED_IP)
    link = Link(web, wire, device="eth1", honest=mine)
    assert link.passes(udp(src=NETWORKED, src_ip=LEARNED_IP))
    assert not link.passes(udp(src=NETWORKED, src_ip="192.168.77.6"))
    assert not link.passes(arp(src=NETWORKED, sender=NETWORKED, sender_ip="192.168.77.6"))
    assert not link.passes(udp(src=OTHER, src_ip=LEARNED_IP))
    wire.close()


def test_ethernet_that_is_routed(host: Host, web: Guest) -> None:
    """The host takes the guest's own frames from the tap, and none under another MAC."""
    host.ip("addr add 10.0.3.254/24 dev tap-eth0")
    listener = host.listener("tap-eth0", 9)
    forged = udp(src=OTHER, dst=BROADCAST, src_ip="10.0.3.1", dst_ip="10.0.3.254", sport=41001)
    honest = udp(src=ROUTED, dst=BROADCAST, src_ip="10.0.3.1", dst_ip="10.0.3.254", sport=41002)
    web.shell.send(forged, "eth2")
    web.shell.send(honest, "eth2")
    wait_for("the honest datagram", lambda: listener.heard(41002))
    assert not listener.heard(41001)
    listener.close()


def test_macvtap(host: Host, web: Guest) -> None:
    """What the guest sends through a macvtap leaves the lower device under its own MAC only."""
    wire = host.wire("low1")
    link = Link(
        web,
        wire,
        device="eth3",
        honest=arp(src=MACVTAP, sender=MACVTAP),
        welcome=udp(src=OTHER, dst=MACVTAP, src_ip=OTHER_IP),
    )
    assert link.passes(udp(src=MACVTAP))
    assert not link.passes(udp(src=OTHER))
    assert link.delivers(arp(src=OTHER, sender=OTHER, dst=MACVTAP))
    wire.close()


def test_interface_without_a_reference(host: Host, web: Guest) -> None:
    """Whatever it sends passes: what the other interfaces drop is dropped by their filters, not by the bridge."""
    wire = host.wire("watch")
    link = Link(web, wire, device="eth4", honest=arp(src=PLAIN, sender=PLAIN))
    assert link.passes(udp(src=OTHER, src_ip=OTHER_IP))
    assert link.passes(arp(src=OTHER, sender=OTHER))
    wire.close()


def test_all_kinds_are_repaired_at_reconnect(host: Host, web: Guest) -> None:
    """Both tables are taken away and libvirtd restarted: every interface has its rules again."""
    taps, process = web.taps(), web.process()
    rules = {tap: host.kernel.rules(tap) for tap in taps}
    host.kernel.flush()
    host.restart_libvirtd()
    assert web.process() == process
    assert {tap: host.kernel.rules(tap) for tap in taps} == rules


def test_all_kinds_leave_nothing(host: Host, web: Guest) -> None:
    """After destroy there is no trace of any of the five; by then their names are not in the XML any more."""
    taps = web.taps()
    host.libvirtd.virsh("destroy", web.name)
    assert host.traces(web.name, *taps) == []
    last = host.events(web.name)[-1]
    assert last.operation == "release"
    assert not any(f"dev='{tap}'" in last.xml for tap in taps if tap.startswith(("vnet", "macvtap")))
