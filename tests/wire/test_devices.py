"""A filter is the device's, not the name's: taken names, renamed taps, taps out of their bridge, ways past hooks."""

from __future__ import annotations

import pytest

from tests.support.domains import domain, interface
from tests.support.frames import GUEST, THIRD, arp, udp
from tests.support.learned import command, shown
from tests.support.netns import BRIDGE, Wire

pytestmark = pytest.mark.netns

FORGED = udp(src=THIRD)
WEB = domain("web", [interface("vnet0", "clean-traffic", mac=GUEST)])
DB = domain("db", [interface("vnet0", "clean-traffic", mac=GUEST)])


def state(wire: Wire) -> str:
    """What `show` says of the one tap under filter."""
    return str(shown(wire)["state"])


def filtered(wire: Wire, tap: str = "vnet0") -> bool:
    """Whether the guest at the tap is held to its own MAC, and can speak under it."""
    honest, forged = wire.guests[tap], FORGED
    assert honest
    passes = wire.passes(arp(), tap), wire.passes(forged, tap)
    return passes == (True, False)


# --- whose tap it is --------------------------------------------------------------------------------------------------


def test_a_tap_of_a_running_guest_is_taken(wire: Wire) -> None:
    """Another guest's start on it is refused, naming both; the first one's end is what frees it."""
    wire.start("web", WEB)
    refused = wire.hook("db", "start", DB)
    assert refused.returncode == 1
    assert "db can't have the tap vnet0: web runs with it" in refused.stderr
    assert "nwfilter-hook replay web stopped" in refused.stderr
    assert filtered(wire)
    wire.stop("web", WEB)
    wire.start("db", DB)
    assert filtered(wire)


def test_a_tap_whose_device_is_gone_is_free(wire: Wire) -> None:
    """The first guest's end was never heard of, but the kernel shows that its device isn't there any more."""
    wire.start("web", WEB)
    wire.unplug("vnet0")
    wire.plug("vnet0")
    wire.start("db", DB)
    assert filtered(wire)
    wire.stop("web", WEB)
    assert filtered(wire)


# --- what it is called ------------------------------------------------------------------------------------------------


def rename(wire: Wire) -> None:
    wire.ip("link set vnet0 down", "link set vnet0 name web0", "link set web0 up")
    wire.guests["web0"] = wire.guests.pop("vnet0")


def test_a_renamed_tap(wire: Wire) -> None:
    """`show` says so, and the next event filters the device under its new name, as long as the guest runs."""
    wire.start("web", WEB)
    rename(wire)
    assert not filtered(wire, "web0")
    assert state(wire) == "renamed"
    assert "vnet0: this device is called web0 now" in wire.hook("web", "reconnect", WEB).stderr
    assert filtered(wire, "web0")
    assert state(wire) == "in force"
    assert "vnet0" not in wire.ruleset()
    assert wire.hook("web", "reconnect", WEB).stderr == ""
    assert filtered(wire, "web0")
    wire.stop("web", WEB)
    assert "web0" not in wire.ruleset()
    assert not list(wire.state_dir.glob("taps/*"))


def test_another_device_under_the_old_name(wire: Wire) -> None:
    """It is not the guest's: the guest's device is found by what it was."""
    wire.start("web", WEB)
    rename(wire)
    wire.plug("vnet0")
    assert state(wire) == "renamed"
    wire.hook("web", "reconnect", WEB)
    assert filtered(wire, "web0")
    assert wire.passes(FORGED, "vnet0")


def test_a_device_made_anew_under_the_same_name(wire: Wire) -> None:
    """It has the rules by its name; `show` says that it is another, and reconnect takes it for the guest's."""
    wire.start("web", WEB)
    wire.unplug("vnet0")
    assert state(wire) == "gone"
    wire.plug("vnet0")
    assert state(wire) == "replaced by another device"
    assert "vnet0: it is replaced by another device" in wire.hook("web", "reconnect", WEB).stderr
    assert (state(wire), filtered(wire)) == ("in force", True)


# --- where it is ------------------------------------------------------------------------------------------------------


def test_a_tap_out_of_its_bridge(wire: Wire) -> None:
    """Its layer 2 rules go to the device itself."""
    wire.start("web", WEB)
    wire.ip("link set vnet0 nomaster")
    assert state(wire) == "out of its bridge"
    assert "out of its bridge, and filtered on the device" in wire.hook("web", "reconnect", WEB).stderr
    assert state(wire) == "in force"
    assert {rule.chain for rule in wire.rules("netdev")} >= {"from/vnet0", "to/vnet0"}
    assert not [rule for rule in wire.rules("bridge") if rule.tap == "vnet0"]
    wire.ip(f"link set vnet0 master {BRIDGE}")
    assert wire.hook("web", "reconnect", WEB).returncode == 0
    assert (state(wire), filtered(wire)) == ("in force", True)


def test_rules_of_layer_3_out_of_a_bridge(wire: Wire) -> None:
    """They can't be enforced there, and those of before don't see its frames any more: the tap is cut off."""
    text = "<filter name='three'><rule action='drop' direction='in'><all srcipaddr='192.0.2.1'/></rule></filter>"
    (wire.state_dir.parent / "three.xml").write_text(text)
    wire.configure(filter_dirs=[wire.state_dir.parent])
    xml = domain("web", [interface("vnet0", "three", mac=GUEST)])
    wire.start("web", xml)
    wire.ip("link set vnet0 nomaster")
    said = wire.hook("web", "reconnect", xml).stderr
    assert "quarantined" in said
    assert "not a bridge port" in said
    assert state(wire) == "quarantined"


def test_a_tap_in_another_bridge(wire: Wire) -> None:
    """The rules go with the tap; the record follows at the next event."""
    wire.start("web", WEB)
    wire.add_bridge("br1")
    wire.ip("link set vnet0 master br1")
    assert state(wire) == "in another bridge"
    assert "vnet0: it is in another bridge, br1" in wire.hook("web", "reconnect", WEB).stderr
    assert state(wire) == "in force"


def test_a_definition_leaves_alone_what_is_gone(wire: Wire) -> None:
    """One guest's vanished device keeps no other guest's rules from changing."""
    own = wire.state_dir.parent / "own.xml"
    own.write_text("<filter name='own'><filterref filter='clean-traffic'/></filter>")
    wire.configure(filter_dirs=[own.parent])
    for guest, tap in (("web", "vnet0"), ("db", "vnet1")):
        wire.start(guest, domain(guest, [interface(tap, "own", mac=GUEST)]))
    wire.unplug("vnet0")
    wire.plug("vnet2")
    assert wire.passes(arp(), "vnet1", "vnet2")
    own.write_text("<filter name='own'><rule action='drop' direction='inout'/></filter>")
    assert "changed: db vnet1" in command(wire, "reload")
    assert not wire.passes(arp(), "vnet1", "vnet2")


# --- ways past the hooks ----------------------------------------------------------------------------------------------


def test_a_way_past_the_filter_is_named(wire: Wire) -> None:
    """By `show`, to people and programs, and by reconnect."""
    wire.start("web", WEB)
    assert shown(wire)["bypasses"] == []
    wire.run("tc", "qdisc", "add", "dev", "vnet0", "clsact")
    redirect = "filter add dev vnet0 ingress protocol all u32 match u32 0 0 action mirred egress redirect dev vnet1"
    wire.run("tc", *redirect.split())
    (bypass,) = shown(wire)["bypasses"]
    assert (bypass["way"], "vnet1" in bypass["text"]) == ("tc-redirect", True)
    assert "bypassed: tc-redirect" in command(wire, "show")
    said = wire.hook("web", "reconnect", WEB)
    assert (said.returncode, bypass["text"] in said.stderr) == (0, True)
