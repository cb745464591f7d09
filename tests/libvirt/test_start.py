"""A guest that libvirt starts sends what its filter allows and nothing else, from its first frame on."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.libvirt.conftest import Guest, Guests, Host, Image, Link
from tests.support import frames
from tests.support.guest import filterref_xml, interface_xml

pytestmark = pytest.mark.libvirt

# The administrator's own: a tenant is no DHCP server, and otherwise as clean as the stock filter wants it.
TENANT = """\
<rule action='drop' direction='out' priority='-660'>
  <ip protocol='udp' srcportstart='67' dstportstart='68'/>
</rule>
<filterref filter='clean-traffic'/>
"""

# What the guest forges, beside the honest frame that differs in nothing else.
FORGED = {
    "source-mac": (frames.udp(src=frames.OTHER), frames.udp()),
    "arp-sender-ip": (frames.arp(sender_ip=frames.OTHER_IP), frames.arp()),
    "source-ip": (frames.udp(src_ip=frames.OTHER_IP), frames.udp()),
    "vlan-tag": (frames.vlan(frames.udp()), frames.udp()),
    "dhcp-server": (
        frames.dhcp_offer(src=frames.GUEST, src_ip=frames.GUEST_IP, dst=frames.OTHER, client=frames.OTHER),
        frames.dhcp_discover(),
    ),
    "announcement-of-another": (frames.rarp_announce(frames.OTHER), frames.rarp_announce()),
    "ipv6": (frames.ipv6(), frames.udp()),
}


@pytest.fixture(scope="module")
def tenant(host: Host, image: Image) -> Iterator[Guest]:
    """A running guest GUEST at GUEST_IP with the filter above, for the whole module."""
    host.add_filter("tenant", TENANT)
    guests = Guests(host, *image)
    try:
        reference = filterref_xml("tenant", ("IP", frames.GUEST_IP))
        yield guests.boot("tenant-1", interface_xml(frames.GUEST, "<source bridge='br0'/>", reference=reference))
    finally:
        guests.remove()


@pytest.fixture(scope="module")
def link(host: Host, tenant: Guest) -> Iterator[Link]:
    """The tenant's interface."""
    wire = host.wire("watch")
    yield Link(tenant, wire)
    wire.close()


def test_libvirt_calls_the_hook_in_the_order_it_relies_on(host: Host, tenant: Guest) -> None:
    """libvirt calls prepare, start, started; the tap's name is known from start on."""
    events = host.events(tenant.name)
    assert [event.operation for event in events] == ["prepare", "start", "started"]
    assert [f"<target dev='{tenant.tap}'/>" in event.xml for event in events] == [False, True, True]


def test_the_filter_is_in_force_before_qemu_runs(host: Host, tenant: Guest) -> None:
    """When `start` has been answered there is no QEMU yet, but the tap's chains are there and in the maps."""
    prepare, start, started = host.events(tenant.name)
    assert tenant.tap not in prepare.table
    assert not start.qemu_runs
    assert started.qemu_runs
    for event in (start, started):
        assert f"chain from/{tenant.tap} " in event.table
        assert f"chain to/{tenant.tap} " in event.table
        assert f'"{tenant.tap}" : jump from/{tenant.tap}' in event.table
        assert f'"{tenant.tap}" : jump to/{tenant.tap}' in event.table


def test_libvirts_own_driver_adds_no_rules(host: Host, tenant: Guest) -> None:
    """libvirt knows the reference, holds a twin without rules, and leaves the filtering to us."""
    assert tenant.tap in host.libvirtd.virsh("nwfilter-binding-list").stdout
    listed = json.loads(host.run("nft", "-j", "list", "ruleset").stdout)["nftables"]
    foreign = [
        rule
        for entry in listed
        for rule in (entry.get("rule") or entry.get("chain"),)
        if rule and rule["table"] != "nwfilter" and tenant.tap in json.dumps(rule)
    ]
    assert foreign == []


def test_the_guests_own_network_works(tenant: Guest) -> None:
    """The guest's own kernel resolves the host's address and has its ping answered."""
    tenant.shell.check(f"ip addr add {frames.GUEST_IP}/24 dev eth0")
    tenant.shell.check("ping -c 1 -W 20 10.0.0.254")


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_frame_does_not_leave_the_guest(link: Link, name: str) -> None:
    """What the guest forges never reaches the bridge; the honest frame beside it does."""
    forged, honest = FORGED[name]
    assert link.passes(honest)
    assert not link.passes(forged)


def test_only_ipv4_and_arp_reach_the_guest(link: Link) -> None:
    """Toward the guest IPv4 and ARP pass, whoever they are from; IPv6, tagged and unknown frames don't."""
    assert link.delivers(frames.udp(src=frames.THIRD, dst=frames.GUEST, src_ip="198.51.100.7", dst_ip=frames.GUEST_IP))
    assert link.delivers(
        frames.arp(src=frames.OTHER, sender=frames.OTHER, sender_ip=frames.OTHER_IP, target_ip=frames.GUEST_IP)
    )
    assert not link.delivers(frames.ipv6(src=frames.OTHER, dst=frames.GUEST))
    assert not link.delivers(frames.ether(src=frames.OTHER, dst=frames.GUEST))
    assert not link.delivers(
        frames.vlan(frames.udp(src=frames.OTHER, dst=frames.GUEST, src_ip=frames.OTHER_IP, dst_ip=frames.GUEST_IP))
    )
