"""Guests come and go through hooks/qemu, and frames show whose rules are in force."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import frames
from tests.support.domains import domain, interface
from tests.support.netns import Wire

pytestmark = pytest.mark.netns

FORGED = frames.udp(src=frames.THIRD)


def guest_xml(name: str, tap: str | None, *, mac: str = frames.GUEST, filter_name: str = "no-mac-spoofing") -> str:
    """A guest with one interface."""
    return domain(name, [interface(tap, filter_name, mac=mac)])


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


def ethernet_guest(tap: str | None) -> str:
    """A guest whose interface is of type `ethernet`."""
    xml = guest_xml("web", tap, filter_name="clean-traffic")
    return xml.replace("type='bridge'", "type='ethernet'").replace('<source bridge="br0"/>', "")
