"""Guests come and go through hooks/qemu, and frames show whose rules are in force."""

from __future__ import annotations

import errno
import json
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.support import frames
from tests.support.domains import domain, interface, uuid_of
from tests.support.netns import Wire

pytestmark = pytest.mark.netns

FORGED = frames.udp(src=frames.THIRD)


def guest_xml(name: str, tap: str | None, *, mac: str = frames.GUEST, filter_name: str = "no-mac-spoofing") -> str:
    """A guest with one interface."""
    return domain(name, [interface(tap, filter_name, mac=mac)])


def record_of(wire: Wire, name: str) -> dict[str, Any]:
    """What the state directory says about the guest."""
    record: dict[str, Any] = json.loads((wire.state_dir / "domains" / f"{uuid_of(name)}.json").read_text())
    return record


def is_filtered(wire: Wire, tap: str, to: str, *, mac: str = frames.GUEST) -> bool:
    """Is the guest at `tap` held to its MAC? Its honest frames must pass anyhow."""
    assert wire.passes(frames.udp(src=mac), tap, to)
    return not wire.passes(FORGED, tap, to)


def test_rules_come_with_the_start_and_go_with_the_stop(wire: Wire) -> None:
    """From start to stopped the guest is held to its filter; afterwards nothing of it is left."""
    assert not is_filtered(wire, "vnet0", "vnet1")
    assert wire.hook("web", "prepare", guest_xml("web", None)).returncode == 0
    assert not is_filtered(wire, "vnet0", "vnet1")
    wire.start("web", guest_xml("web", "vnet0"))
    assert is_filtered(wire, "vnet0", "vnet1")
    assert wire.hook("web", "started", guest_xml("web", "vnet0")).returncode == 0
    assert is_filtered(wire, "vnet0", "vnet1")
    wire.stop("web", guest_xml("web", None))
    assert not is_filtered(wire, "vnet0", "vnet1")
    assert "vnet0" not in wire.ruleset()
    assert list(wire.state_dir.glob("domains/*")) == []


def test_starting_twice_changes_nothing(wire: Wire) -> None:
    """A repeated start leaves the same rules and the same record."""
    xml = guest_xml("web", "vnet0", filter_name="clean-traffic")
    wire.start("web", xml)
    first, record = wire.ruleset(), record_of(wire, "web")
    wire.start("web", xml)
    assert wire.ruleset() == first
    assert record_of(wire, "web") == record
    assert wire.passes(frames.arp())
    assert not wire.passes(FORGED)


def test_stopping_twice_is_fine(wire: Wire) -> None:
    """stopped and release may come again, or without a start."""
    wire.stop("web", guest_xml("web", None))
    wire.start("web", guest_xml("web", "vnet0"))
    wire.stop("web", guest_xml("web", None))
    wire.stop("web", guest_xml("web", None))
    assert "vnet0" not in wire.ruleset()


def test_rules_change_with_the_filter(wire: Wire) -> None:
    """A start under another filter leaves nothing of the old one."""
    wire.start("web", guest_xml("web", "vnet0", filter_name="clean-traffic"))
    assert not wire.passes(frames.ipv6())
    wire.start("web", guest_xml("web", "vnet0"))
    assert wire.passes(frames.ipv6())
    assert is_filtered(wire, "vnet0", "vnet1")
    assert "clean-traffic" not in wire.ruleset()
    assert "arp operation" not in wire.ruleset()
    assert "/arp" not in wire.ruleset()
    wire.stop("web", guest_xml("web", None))
    assert "vnet0" not in wire.ruleset()
    assert not is_filtered(wire, "vnet0", "vnet1")


def test_a_guest_comes_back_on_another_tap(wire: Wire) -> None:
    """After a restore the rules are at the new tap, and the old name has none."""
    wire.start("web", guest_xml("web", "vnet0"))
    wire.stop("web", guest_xml("web", None))
    wire.unplug("vnet0")
    wire.plug("vnet2")
    assert wire.hook("web", "restore", guest_xml("web", None)).returncode == 0
    wire.start("web", guest_xml("web", "vnet2"))
    assert is_filtered(wire, "vnet2", "vnet1")
    wire.plug("vnet0")
    assert not is_filtered(wire, "vnet0", "vnet1")


def test_a_lost_stop_is_made_good_by_the_next_start(wire: Wire) -> None:
    """Rules at a tap that the guest no longer has go when it starts elsewhere."""
    wire.start("web", guest_xml("web", "vnet0"))
    wire.plug("vnet2")
    wire.start("web", guest_xml("web", "vnet2"))
    assert is_filtered(wire, "vnet2", "vnet1")
    assert not is_filtered(wire, "vnet0", "vnet1")
    assert "vnet0" not in wire.ruleset()


@pytest.mark.parametrize(
    ("stays", "goes"),
    [
        ("vnet1", "vnet0"),
        ("vnet10", "vnet1"),
        ("tap-web-2", "tap-web"),
        ("tap-web", "tap-web-2"),
        ("tap.web", "tap-web"),
        ("0tap", "0"),
        ("TAP", "tap"),
    ],
)
def test_one_guest_stops_and_the_other_keeps_its_rules(wire: Wire, stays: str, goes: str) -> None:
    """Rules belong to exactly one tap, however alike the names."""
    wire.unplug("vnet0", "vnet1")
    wire.plug(stays, goes, "outside")
    wire.start("stays", guest_xml("stays", stays, filter_name="clean-traffic"))
    alone = wire.ruleset()
    wire.start("goes", guest_xml("goes", goes, mac=frames.OTHER, filter_name="clean-traffic"))
    assert wire.passes(frames.arp(), stays, "outside")
    assert wire.passes(frames.arp(src=frames.OTHER, sender=frames.OTHER, sender_ip=frames.OTHER_IP), goes, "outside")
    assert not wire.passes(frames.arp(src=frames.OTHER, sender=frames.OTHER), stays, "outside")
    assert not wire.passes(frames.arp(), goes, "outside")
    wire.stop("goes", guest_xml("goes", None, mac=frames.OTHER))
    assert wire.ruleset() == alone
    assert wire.passes(frames.arp(), stays, "outside")
    assert not wire.passes(frames.arp(src=frames.OTHER, sender=frames.OTHER), stays, "outside")
    assert wire.passes(frames.arp(), goes, "outside")


@pytest.mark.parametrize(
    "tap",
    [
        "tap-of-15-chars",
        "0",
        "0123456789abcde",
        "52vnet",
        "tap.1",
        "...",
        "tap_1",
        "-tap",
        "mac",
        "arp",
        "ip",
        "ip6",
        "vlan",
        "drop",
        "accept",
        "inet",
    ],
)
def test_odd_names_of_taps(wire: Wire, tap: str) -> None:
    """A name that libvirt and the kernel take, nft keyword or not, is filtered like any other."""
    wire.plug(tap)
    wire.start("web", guest_xml("web", tap, filter_name="clean-traffic"))
    assert wire.passes(frames.arp(), tap, "vnet1")
    assert not wire.passes(frames.arp(src=frames.OTHER), tap, "vnet1")
    assert not wire.passes(frames.arp(sender=frames.OTHER), tap, "vnet1")
    assert not wire.passes(frames.vlan(frames.arp()), tap, "vnet1")
    assert wire.passes(frames.incoming_arp(), "vnet1", tap)
    assert not wire.passes(frames.incoming(frames.ipv6), "vnet1", tap)
    wire.stop("web", guest_xml("web", None))
    assert wire.passes(frames.arp(src=frames.OTHER), tap, "vnet1")
    assert not any(tap in rule.chain.split("/") for rule in wire.rules())


@pytest.mark.parametrize("tap", [*(f"a{mark}b" for mark in "\"';{}$\\#`@=+,*!?<>()[]|&^~"), "ä"])
def test_names_that_nft_might_misread(wire: Wire, tap: str) -> None:
    """Such a tap is filtered, or the guest is refused with one line; never started without its filter."""
    wire.plug(tap)
    finished = wire.hook("web", "start", guest_xml("web", tap))
    assert finished.stdout == ""
    if finished.returncode == 0:
        assert is_filtered(wire, tap, "vnet1")
    else:
        assert finished.returncode == 1
        assert len(finished.stderr.splitlines()) == 1
        assert not is_filtered(wire, tap, "vnet1")


def test_a_refused_start_leaves_nothing(wire: Wire) -> None:
    """If one interface can't be filtered, none is, and the guest has no record."""
    interfaces = [interface("vnet0", "no-mac-spoofing"), interface("vnet1", "no-such-filter", mac=frames.OTHER)]
    finished = wire.hook("web", "start", domain("web", interfaces))
    assert (finished.returncode, finished.stdout) == (1, "")
    assert "no-such-filter" in finished.stderr
    assert len(finished.stderr.splitlines()) == 1
    assert not is_filtered(wire, "vnet0", "vnet1")
    assert list(wire.state_dir.glob("domains/*")) == []


def test_a_refused_restart_leaves_the_old_rules(wire: Wire) -> None:
    """A failed update of one guest touches neither its rules nor those of another."""
    wire.start("web", guest_xml("web", "vnet0"))
    wire.start("other", guest_xml("other", "vnet1", mac=frames.OTHER))
    before = wire.ruleset()
    finished = wire.hook("web", "start", guest_xml("web", "vnet0", filter_name="no-such-filter"))
    assert finished.returncode == 1
    assert wire.ruleset() == before
    assert is_filtered(wire, "vnet0", "vnet1")
    assert is_filtered(wire, "vnet1", "vnet0", mac=frames.OTHER)


def test_reconnect_repairs_what_was_flushed(wire: Wire) -> None:
    """When libvirtd restarts, rules that somebody flushed come back."""
    wire.start("web", guest_xml("web", "vnet0", filter_name="clean-traffic"))
    before = wire.ruleset()
    wire.nft("flush", "ruleset")
    assert not is_filtered(wire, "vnet0", "vnet1")
    finished = wire.hook("web", "reconnect", guest_xml("web", "vnet0", filter_name="clean-traffic"))
    assert (finished.returncode, finished.stdout) == (0, "")
    assert wire.ruleset() == before
    assert is_filtered(wire, "vnet0", "vnet1")


def test_reconnect_repairs_a_single_rule(wire: Wire) -> None:
    """Not only a missing table is noticed: a chain that lost its rules is filled again."""
    wire.start("web", guest_xml("web", "vnet0", filter_name="clean-traffic"))
    before = wire.ruleset()
    wire.nft("flush", "chain", "bridge", "nwfilter", "from/vnet0")
    assert wire.ruleset() != before
    assert wire.hook("web", "reconnect", guest_xml("web", "vnet0", filter_name="clean-traffic")).returncode == 0
    assert wire.ruleset() == before


def test_reconnect_keeps_what_was_learned(wire: Wire) -> None:
    """A restart of libvirtd doesn't open the way to another address."""
    xml = guest_xml("web", "vnet0", filter_name="clean-traffic")
    wire.start("web", xml)
    assert wire.passes(frames.ipv4(src_ip="10.0.0.5"))
    assert wire.hook("web", "reconnect", xml).returncode == 0
    assert not wire.passes(frames.ipv4(src_ip="10.0.0.6"))
    assert wire.passes(frames.ipv4(src_ip="10.0.0.5"))


def test_a_guest_that_cannot_be_repaired_is_quarantined(wire: Wire, tmp_path: Path) -> None:
    """If rules are gone and can't be made again, nor put back, the guest runs on but no frame passes, either way."""
    own = tmp_path / "own.xml"
    good = "<filter name='own'><filterref filter='clean-traffic'/></filter>"
    own.write_text(good)
    wire.configure(filter_dirs=[tmp_path])
    xml = guest_xml("web", "vnet0", filter_name="own")
    wire.start("web", xml)
    wire.start("other", guest_xml("other", "vnet1", mac=frames.OTHER))
    assert wire.passes(frames.arp())

    wire.nft("delete", "table", "bridge", "nwfilter")
    own.write_text("<filter name='own'><rule/></filter>")
    next(path for path in wire.state_dir.glob("domains/*") if '"guest":"web"' in path.read_text()).unlink()
    finished = wire.hook("web", "reconnect", xml)
    assert (finished.returncode, finished.stdout) == (0, "")
    assert finished.stderr
    for frame in (frames.arp(), frames.ipv4(), frames.ipv6(), frames.vlan(frames.arp()), FORGED):
        assert not wire.passes(frame)
    for frame in (frames.incoming_arp(), frames.incoming(frames.ipv4), frames.incoming(frames.ipv6)):
        assert not wire.passes(frame, "vnet1", "vnet0")

    # The other guest is repaired by its own reconnect, and not cut off by the trouble of this one.
    assert wire.hook("other", "reconnect", guest_xml("other", "vnet1", mac=frames.OTHER)).returncode == 0
    wire.plug("vnet2")
    assert is_filtered(wire, "vnet1", "vnet2", mac=frames.OTHER)

    own.write_text(good)
    assert wire.hook("web", "reconnect", xml).returncode == 0
    assert wire.passes(frames.arp())
    assert is_filtered(wire, "vnet0", "vnet1")
    wire.stop("web", guest_xml("web", None))
    assert "vnet0" not in wire.ruleset()


def test_an_ethernet_tap_in_a_bridge(wire: Wire) -> None:
    """A tap of type `ethernet` that is a bridge port is filtered as one."""
    wire.start("web", ethernet_guest("vnet0"))
    assert is_filtered(wire, "vnet0", "vnet1")
    assert wire.rules("bridge")
    assert {rule.chain for rule in wire.rules("netdev")} == {"ingress/vnet0"}


def test_a_routed_ethernet_tap(wire: Wire) -> None:
    """A tap of type `ethernet` that is in no bridge is filtered on the device, both ways."""
    wire.run("ip", "link", "set", "vnet0", "nomaster")
    with wire.inside():
        host = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
    with host:
        host.bind(("vnet0", 0x0800))
        host.setblocking(False)
        assert routed_passes(wire, host, frames.udp())
        assert routed_passes(wire, host, FORGED)
        assert routed_arrives(wire, host, frames.incoming(frames.ipv6))
        wire.start("web", ethernet_guest("vnet0"))
        assert routed_passes(wire, host, frames.udp())
        assert not routed_passes(wire, host, FORGED)
        assert not routed_passes(wire, host, frames.udp(src_ip="10.0.0.9"))
        assert routed_arrives(wire, host, frames.incoming(frames.ipv4))
        assert not routed_arrives(wire, host, frames.incoming(frames.ipv6))
        wire.stop("web", ethernet_guest(None))
        assert routed_passes(wire, host, FORGED)
        assert routed_arrives(wire, host, frames.incoming(frames.ipv6))
    assert not wire.rules("netdev")
    assert not wire.rules("bridge")


def ethernet_guest(tap: str | None) -> str:
    """A guest whose interface is of type `ethernet`."""
    xml = guest_xml("web", tap, filter_name="clean-traffic")
    return xml.replace("type='bridge'", "type='ethernet'").replace('<source bridge="br0"/>', "")


def routed_passes(wire: Wire, host: socket.socket, frame: bytes) -> bool:
    """Does the IPv4 frame come in through the guest's tap, as far as the host's IP stack?"""
    wire.guests["vnet0"].send(frame)
    try:
        return host.recv(65535) == frame
    except BlockingIOError:
        return False


def routed_arrives(wire: Wire, host: socket.socket, frame: bytes) -> bool:
    """Does the guest receive what the host sends out of its tap?"""
    try:
        host.send(frame)
    except OSError as error:
        # So the kernel tells a sender about a drop on the way out.
        if error.errno != errno.ENOBUFS:
            raise
    return frame in wire.guests["vnet0"].receive()


def test_foreign_tables_are_left_alone(wire: Wire) -> None:
    """Whatever else is in nftables stays as it was."""
    foreign = """
        table bridge filter { chain from/vnet0 { counter; }; }
        table inet nwfilter { chain from/vnet0 { counter; }; }
    """
    wire.apply(foreign)
    before = wire.nft("list", "ruleset")
    wire.start("web", guest_xml("web", "vnet0"))
    assert is_filtered(wire, "vnet0", "vnet1")
    wire.stop("web", guest_xml("web", None))
    after = wire.nft("list", "ruleset")
    assert before in after
    assert not is_filtered(wire, "vnet0", "vnet1")
