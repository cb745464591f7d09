"""floor.BRIDGE in the configuration: what counts for every interface there, whatever the guest's XML says."""

from __future__ import annotations

import json

import pytest

from tests.support.domains import domain, interface
from tests.support.host import GUEST, HOOK, OWN_SYSFS, TAP, Sandbox, guest_xml

pytestmark = pytest.mark.hook

FLOOR = "[defaults]\nfloor.br* = no-mac-spoofing\nfloor.br0 = never\n"
OPEN = "<rule action='accept' direction='inout' priority='-1000'/>"


def filters_of(box: Sandbox, tap: str = TAP) -> list[str]:
    """The filters whose rules the tap has, in the order in which a frame of the guest meets them."""
    rules = [json.loads(line)["rule"] for line in box.kernel(tap) if '"rule"' in line]
    found = [rule["comment"].rpartition(":")[0] for rule in rules if rule["chain"] == f"from/{tap}"]
    return list(dict.fromkeys(found))


def test_it_comes_first_whatever_the_guest_names(box: Sandbox) -> None:
    """Before a filter that accepts all at the lowest priority, before a default, and alone where nothing is named."""
    box.write_filter("open", OPEN)
    box.configure(FLOOR + "bridge.br1 = open\n")
    guest = domain(
        GUEST,
        [
            interface(TAP, "open"),
            interface("vnet1", None, bridge="br1", mac="52:54:00:00:00:02"),
            interface("vnet2", None, mac="52:54:00:00:00:03"),
            interface("vnet3", "no-mac-spoofing", mac="52:54:00:00:00:04"),
            interface("vnet4", "open", mac="52:54:00:00:00:05", bridge="other0"),
            interface("vnet5", None, mac="52:54:00:00:00:06", bridge="other0"),
        ],
    )
    box.hook(GUEST, "prepare", guest).fine()
    box.hook(GUEST, "start", guest).fine()
    assert {tap: filters_of(box, tap) for tap in (TAP, "vnet1", "vnet2", "vnet3", "vnet4", "vnet5")} == {
        TAP: ["no-mac-spoofing", "open"],
        "vnet1": ["no-mac-spoofing", "open"],
        "vnet2": ["no-mac-spoofing"],
        "vnet3": ["no-mac-spoofing"],
        "vnet4": ["open"],
        "vnet5": [],
    }
    with box.unchanged():
        box.hook(GUEST, "reconnect", guest).fine()
    box.stop()
    box.assert_nothing_left(GUEST, TAP, "vnet1", "vnet2", "vnet3", "vnet4")


def test_the_guests_parameters_mean_nothing_to_it(box: Sandbox) -> None:
    """A MAC that the reference gives is its own filter's; the floor's is the interface's, its parameters its own."""
    box.write_filter("ports", "<rule action='drop' direction='out'><ip protocol='udp' dstportstart='$PORT'/></rule>")
    box.configure("[defaults]\nfloor.br0 = ports PORT=53 PORT=67\n")
    parameters = [("MAC", "52:54:00:00:00:99"), ("PORT", "1")]
    box.hook(GUEST, "start", guest_xml(filter_name="no-mac-spoofing", parameters=parameters)).fine()
    text = "\n".join(box.kernel(TAP))
    assert [port for port in (1, 53, 67) if f'"right": {port}}}' in text] == [53, 67]
    assert box.record()["bindings"][0]["floor"] == "ports PORT=53 PORT=67"


@pytest.mark.parametrize("operation", ["prepare", "start"])
def test_one_that_cant_be_made_refuses_the_guest(box: Sandbox, operation: str) -> None:
    """A floor that isn't there, or lacks a parameter, stops those it is for, at the configuration's line."""
    for text, words in (("no-such-filter", "no filter 'no-such-filter'"), ("allow-dhcp-server", "$DHCPSERVER")):
        box.configure(f"[defaults]\nfloor.br0 = {text}\n")
        with box.unchanged():
            for xml in (guest_xml(), guest_xml(filter_name=None)):
                box.hook(GUEST, operation, xml).refused(f"{box.conf}:6: ", words)
            box.hook(GUEST, operation, guest_xml(filter_name=None, bridge="other0")).fine()


def test_a_floor_that_comes_or_goes_while_the_guest_runs(box: Sandbox) -> None:
    """reconnect puts it into force, and takes it away; a configuration that is broken takes nothing away."""
    xml = box.start(filter_name="allow-arp")
    box.configure(FLOOR)
    box.hook(GUEST, "reconnect", xml).excused(TAP, "changed to what the guest asks for now")
    assert filters_of(box) == ["no-mac-spoofing", "allow-arp"]
    (box.state_dir / "configuration").unlink()
    box.configure("[defaults]\nfloor.br0 = no mac spoofing\n")
    before = box.kernel(TAP)
    box.hook(GUEST, "reconnect", xml).excused("going by the lines of it that are right")
    assert box.kernel(TAP) == before
    box.configure()
    box.hook(GUEST, "reconnect", xml).excused(TAP, "changed to what the guest asks for now")
    assert filters_of(box) == ["allow-arp"]


def test_a_device_in_a_bridge_that_the_xml_doesnt_name(box: Sandbox) -> None:
    """An `ethernet` device is asked which bridge it is a port of."""
    box.configure(FLOOR)
    box.run("ip", "link", "add", "br7", "type", "bridge")
    box.plug("tap7")
    box.run("ip", "link", "set", "tap7", "master", "br7")
    device = "<interface type='ethernet'><mac address='52:54:00:00:00:01'/><target dev='tap7'/>{}</interface>"
    for reference, expected in (
        ("", ["no-mac-spoofing"]),
        ("<filterref filter='allow-arp'/>", ["no-mac-spoofing", "allow-arp"]),
    ):
        box.hook(GUEST, "start", domain(GUEST, [device.format(reference)]), command=(*OWN_SYSFS, HOOK)).fine()
        assert filters_of(box, "tap7") == expected
