"""A floor of the configuration among the commands: it is in use, it is updated, it is shown."""

from __future__ import annotations

import json

import pytest

from tests.support.host import Sandbox, drop_udp, filter_xml, reference

pytestmark = pytest.mark.netns


def test_a_floor_is_a_filter_in_use(site: Sandbox) -> None:
    """`list` counts its taps, `undefine` refuses, `define` updates them, `show` names it."""
    site.define(filter_xml("inner", drop_udp(53))).fine()
    site.define(filter_xml("low", reference("inner"))).fine()
    site.configure("[defaults]\nfloor.br0 = low")
    site.start("web", "vnet0", "allow-arp")
    site.start("db", "vnet1", "allow-arp", bridge="br1")
    taps = {each["name"]: each["taps"] for each in site.cli("list", "--json").json}
    assert (taps["low"], taps["inner"], sorted(taps["allow-arp"])) == (["vnet0"], ["vnet0"], ["vnet0", "vnet1"])
    site.cli("undefine", "low").refused("'low' is in use by web (vnet0)")
    ran = site.define(filter_xml("inner", drop_udp(67)))
    assert "changed: web vnet0\n" in ran.out
    assert "changed: db" not in ran.out
    assert "udp dport 67" in site.rules()
    shown = {each["tap"]: each["floor"] for each in json.loads(site.cli("show", "--json").out)}
    assert shown == {"vnet0": "low", "vnet1": ""}
    assert "allow-arp on low" in site.cli("show").out
    site.check()


def test_reload_puts_another_floor_into_force(site: Sandbox) -> None:
    """After the configuration has changed, for taps that are there already; and what it leaves behind is a warning."""
    site.start("web", "vnet0", "allow-arp")
    site.define(filter_xml("low", drop_udp(53))).fine()
    site.configure("[defaults]\nfloor.br0 = low")
    assert "changed: web vnet0\n" in site.cli("reload").out
    assert "udp dport 53" in site.rules()
    site.configure("")
    assert "changed: web vnet0\n" in site.cli("reload").out
    assert "udp dport 53" not in site.rules()
    site.configure("[defaults]\nfloor.br0 = low")
    ran = site.cli("undefine", "low")
    assert "still referred to by the configuration's floor.br0" in ran.err
