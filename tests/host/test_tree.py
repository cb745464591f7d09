"""The tree of a tap: what it was given and has learned, and what its rules have counted."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.frames import GUEST, OTHER_IP, udp
from tests.support.host import Sandbox

pytestmark = pytest.mark.netns


def steps_of(found: dict[str, Any], rule: str) -> list[dict[str, Any]]:
    """All steps of a rule, by FILTER:LINE."""

    def walk(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [each for step in steps for each in (step, *walk(step["below"]))]

    return [each for place in found["places"] for each in walk(place["steps"]) if each["rule"] == rule]


def test_given_addresses_and_counters(site: Sandbox) -> None:
    """They stand in the rules, and the packets that a rule has dropped beside it."""
    site.start("web", "vnet0", "clean-traffic", [("IP", "10.0.0.1")], mac=GUEST)
    for _ in range(3):
        assert not site.wire.passes(udp(src_ip=OTHER_IP))
    found = site.cli("tree", "vnet0", "--json").fine().json
    assert (found["tap"], found["guest"], found["values"]) == ("vnet0", "web", {"MAC": GUEST, "IP": "10.0.0.1"})
    (dropped,) = steps_of(found, "no-ip-spoofing:25")
    assert dropped["packets"] == 3
    (own,) = steps_of(found, "no-ip-spoofing:20")
    assert (own["text"], own["packets"]) == ("ip srcipaddr=10.0.0.1", None)
    said = site.cli("tree", "vnet0").fine().out
    assert said.startswith(f"tap vnet0 of web: clean-traffic  MAC={GUEST}  IP=10.0.0.1\n")
    assert "no-ip-spoofing:25  3 packets\n" in said


def test_learned_addresses(site: Sandbox) -> None:
    """Before and after the guest has shown one."""
    site.start("web", "vnet0", "clean-traffic", mac=GUEST)
    before, after = "ip srcipaddr=(not learned yet)", "ip srcipaddr=10.0.0.1 (learned)"
    found = site.cli("tree", "vnet0", "--json").fine().json
    assert [each["text"] for each in steps_of(found, "no-ip-spoofing:20") if each["kind"] == "rule"] == [before]
    assert site.wire.passes(udp(src_ip="10.0.0.1"))
    found = site.cli("tree", "vnet0", "--json").fine().json
    assert [each["text"] for each in steps_of(found, "no-ip-spoofing:20") if each["kind"] == "rule"] == [after]
    assert found["values"] == {"MAC": GUEST, "IP": "10.0.0.1 (learned)"}


def test_rules_that_somebody_has_changed(site: Sandbox) -> None:
    """The tree is the record's, says so, and has no figures."""
    site.start("web", "vnet0", "clean-traffic", [("IP", "10.0.0.1")], mac=GUEST)
    site.wire.apply("flush chain bridge nwfilter from/vnet0")
    said = site.cli("tree", "vnet0").fine().out
    assert "note: this is as recorded; it isn't what there is, and counts nothing: nwfilter-hook verify vnet0\n" in said
    assert "packets\n" not in said


def test_a_tap_and_a_filter_of_one_name(site: Sandbox) -> None:
    """The tap comes first; who gives parameters means the filter; what is neither is refused."""
    site.place("vnet0", "<filter name='vnet0'><rule action='drop' direction='in'/></filter>")
    site.start("web", "vnet0", "clean-traffic", [("IP", "10.0.0.1")], mac=GUEST)
    assert site.cli("tree", "vnet0").fine().out.startswith("tap vnet0 of web")
    assert site.cli("tree", "vnet0", "-p", "IP=10.0.0.9").fine().out.startswith("filter vnet0")
    site.cli("tree", "vnet9").refused("no filter 'vnet9'")


def test_a_floor_is_there_too(site: Sandbox) -> None:
    """Its filter is referred to, first, and its rules decide first."""
    site.place("below", "<filter name='below'><rule action='drop' direction='in' priority='-999'/></filter>")
    site.configure("[defaults]\nfloor.br0 = below")
    site.start("web", "vnet0", "clean-traffic", [("IP", "10.0.0.1")], mac=GUEST)
    found = site.cli("tree", "vnet0", "--json").fine().json
    assert [each["filter"] for each in found["references"]] == ["below", "clean-traffic"]
    assert steps_of(found, "below:1")
