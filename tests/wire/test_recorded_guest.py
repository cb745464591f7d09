"""The events libvirt really sent for a guest with five interfaces, from its first start to its last stop."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import frames
from tests.support.domains import HOOK_EVENTS, recorded
from tests.support.frames import arp, incoming, ipv4, ping6, udp, vlan
from tests.support.netns import Wire

pytestmark = pytest.mark.netns

GUEST = "web-01"
MAC_2, MAC_3, MAC_4 = (f"52:54:00:00:00:0{number}" for number in (2, 3, 4))
STRANGER = frames.THIRD
FIRST_LIFE, SECOND_LIFE = ("vnet0", "vnet1"), ("vnet2", "vnet3")


@pytest.fixture
def host(able: None) -> Iterator[Wire]:
    """The recorded host: two bridges, the guest's five taps, a neighbour on each network."""
    with Wire(("tap-eth0", "web-01-plain", "neighbour")) as wire:
        wire.add_bridge("virbr7")
        wire.plug("neighbour-7", bridge="virbr7")
        plug(wire, *FIRST_LIFE)
        wire.plug_macvtap("macvtap0", MAC_4, "low0")
        yield wire


def plug(wire: Wire, first: str, second: str) -> None:
    """Create the taps whose names libvirt generates."""
    wire.plug(first)
    wire.plug(second, bridge="virbr7")


def must(wire: Wire, number: int) -> None:
    """Feed the hook the recorded event `number`; it must succeed without a word."""
    (path,) = HOOK_EVENTS.glob(f"{number:02}.qemu.*.xml")
    _, _, _, operation, suboperation, _ = path.name.split(".")
    finished = wire.hook(GUEST, operation, recorded(number), suboperation=suboperation)
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "", "")


def assert_filtered(wire: Wire, first: str, second: str) -> None:
    """Each interface is held to its own filter, and those without one to none."""
    # Two addresses given.
    for source in ("10.0.0.1", "10.0.0.2"):
        assert wire.passes(udp(src_ip=source), first, "neighbour")
        assert wire.passes(arp(sender_ip=source), first, "neighbour")
    for frame in (udp(src_ip="10.0.0.3"), arp(sender_ip="10.0.0.3"), udp(src=STRANGER), vlan(udp()), ping6()):
        assert not wire.passes(frame, first, "neighbour")
    assert wire.passes(incoming(udp), "neighbour", first)
    assert not wire.passes(incoming(ping6), "neighbour", first)
    # None given: learned.
    assert wire.passes(arp(src=MAC_2, sender=MAC_2, sender_ip="10.7.0.5"), second, "neighbour-7")
    assert wire.passes(ipv4(src=MAC_2, src_ip="10.7.0.5"), second, "neighbour-7")
    assert not wire.passes(ipv4(src=MAC_2, src_ip="10.7.0.6"), second, "neighbour-7")
    # Only the MAC.
    assert wire.passes(ping6(src=MAC_3), "tap-eth0", "neighbour")
    assert not wire.passes(ping6(src=STRANGER), "tap-eth0", "neighbour")
    # No filter.
    assert wire.passes(ping6(src=STRANGER), "web-01-plain", "neighbour")
    assert wire.passes(ping6(src=STRANGER), "macvtap0", "low0")


def assert_free(wire: Wire, *taps: str) -> None:
    """Nothing of the guest is left, in the kernel or on disk."""
    ruleset = wire.nft("list", "ruleset")
    assert [tap for tap in (*taps, "tap-eth0", "web-01-plain", "macvtap0") if tap in ruleset] == []
    assert list(wire.state_dir.glob("domains/*")) == []


def test_start_and_stop(host: Wire) -> None:
    """prepare, start and started put the filters in place; stopped and release take them away."""
    must(host, 3)
    assert host.ruleset() == ""
    must(host, 5)
    assert_filtered(host, *FIRST_LIFE)
    must(host, 6)
    assert_filtered(host, *FIRST_LIFE)
    must(host, 7)
    assert_free(host, *FIRST_LIFE)
    assert host.passes(udp(src=STRANGER), "vnet0", "neighbour")
    must(host, 9)
    assert_free(host, *FIRST_LIFE)


def test_save_and_restore_under_other_names(host: Wire) -> None:
    """A restored guest has other taps, and the filters follow it; a restart of libvirtd changes nothing."""
    for number in (3, 5, 6):
        must(host, number)
    assert_filtered(host, *FIRST_LIFE)
    host.unplug(*FIRST_LIFE)
    for number in (7, 9, 10, 11):
        must(host, number)
    plug(host, *SECOND_LIFE)
    for number in (13, 14):
        must(host, number)
    assert_filtered(host, *SECOND_LIFE)
    assert "vnet0" not in host.ruleset()
    before = host.ruleset()
    must(host, 16)
    assert host.ruleset() == before
    assert_filtered(host, *SECOND_LIFE)
    for number in (19, 21):
        must(host, number)
    assert_free(host, *FIRST_LIFE, *SECOND_LIFE)


def test_release_alone_cleans_up(host: Wire) -> None:
    """If the call at `stopped` got lost, the one at `release` does its work."""
    must(host, 5)
    must(host, 9)
    assert_free(host, *FIRST_LIFE)


def test_reconnect_after_a_flush(host: Wire) -> None:
    """All five interfaces are repaired when libvirtd comes back and the table is gone."""
    plug(host, *SECOND_LIFE)
    must(host, 13)
    before = host.ruleset()
    host.nft("flush", "ruleset")
    finished = host.hook(GUEST, "reconnect", recorded(16))
    assert (finished.returncode, finished.stdout) == (0, "")
    assert host.ruleset() == before
    assert_filtered(host, *SECOND_LIFE)


def test_reference_in_the_metadata(host: Wire) -> None:
    """A macvtap interface, whose filterref libvirt drops, is filtered by what the metadata say."""
    reference = (
        '<nwf:bindings xmlns:nwf="https://nwfilter-hook.org/xmlns/1">'
        f'<nwf:interface mac="{MAC_4}"><filterref filter="clean-traffic">'
        '<parameter name="IP" value="10.0.0.4"/></filterref></nwf:interface></nwf:bindings>'
    )
    host.start(GUEST, recorded(5).replace("</metadata>", f"{reference}</metadata>"))
    honest = ipv4(src=MAC_4, src_ip="10.0.0.4")
    assert host.passes(honest, "macvtap0", "low0")
    assert host.passes(arp(src=MAC_4, sender=MAC_4, sender_ip="10.0.0.4"), "macvtap0", "low0")
    for frame in (
        ipv4(src=STRANGER, src_ip="10.0.0.4"),
        ipv4(src=MAC_4, src_ip="10.0.0.5"),
        arp(src=MAC_4, sender=STRANGER, sender_ip="10.0.0.4"),
        arp(src=MAC_4, sender=MAC_4, sender_ip="10.0.0.5"),
        ping6(src=MAC_4),
        vlan(honest),
    ):
        assert not host.passes(frame, "macvtap0", "low0")
    assert host.passes(incoming(ipv4, dst=MAC_4), "low0", "macvtap0")
    assert not host.passes(incoming(ping6, dst=MAC_4), "low0", "macvtap0")
    assert not host.passes(vlan(incoming(ipv4, dst=MAC_4)), "low0", "macvtap0")
    host.stop(GUEST, recorded(7))
    assert_free(host, *FIRST_LIFE)
    assert host.passes(ipv4(src=STRANGER), "macvtap0", "low0")
