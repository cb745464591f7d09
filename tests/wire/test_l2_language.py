"""
Elements of layer 2 against real frames, beyond one attribute at a time (test_language): frames of every other kind, and
both directions.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import frames
from tests.support.domains import domain, interface
from tests.support.frames import (
    GUEST_IP,
    NO_MAC,
    OTHER,
    OTHER_IP,
    arp,
    arp_probe,
    ether,
    garbage,
    incoming,
    incoming_arp,
    ipv4,
    ipv6,
    rarp_announce,
    stp_bpdu,
    tcp,
    udp,
    vlan,
)
from tests.support.netns import Wire

pytestmark = pytest.mark.netns

KINDS = {
    "arp": arp(),
    "arp-reply": arp(opcode=2),
    "arp-probe": arp_probe(),
    "rarp": rarp_announce(),
    "ipv4": ipv4(),
    "udp": udp(),
    "tcp": tcp(),
    "nonsense": garbage(),
    "ipv6": ipv6(),
    "ping6": frames.ping6(),
    "bpdu": stp_bpdu(),
    "to-bridges": ether(dst=frames.BRIDGE_GROUP),
    "other": ether(),
    "vlan-arp": vlan(arp()),
    "vlan-ipv4": vlan(ipv4()),
    "vlan-0": vlan(ether(), 0),
    "vlan-vlan": vlan(vlan(arp())),
    "vlan-802.1ad": vlan(arp(), ethertype=0x88A8),
}
VLANS = {"vlan-arp", "vlan-ipv4", "vlan-0", "vlan-vlan"}
CASES: dict[str, set[str]] = {
    "": {*KINDS},
    "<mac/>": {*KINDS},
    "<mac protocolid='IPv4'/>": {"ipv4", "udp", "tcp", "nonsense"},
    "<mac protocolid='vlan'/>": VLANS,
    "<mac match='no' protocolid='arp'/>": KINDS.keys() - {"arp", "arp-reply", "arp-probe"},
    "<vlan/>": VLANS,
    "<vlan match='no' vlanid='7'/>": {"vlan-0"},
    "<vlan vlanid='7' encap-protocol='ipv4'/>": {"vlan-ipv4"},
    "<stp/>": {"bpdu", "to-bridges"},
    "<stp match='no' type='2'/>": {"bpdu"},
    "<stp root-priority='1' root-priority-hi='0x7fff'/>": set(),
    "<arp/>": {"arp", "arp-reply", "arp-probe"},
    "<arp opcode='Reply'/><arp match='no' arpsrcipaddr='10.0.0.9'/>": {"arp-reply"},
    "<arp match='no' arpsrcipaddr='10.0.0.1'/>": {"arp-probe"},
    "<rarp/>": {"rarp"},
    "<ip/>": {"ipv4", "udp", "tcp", "nonsense"},
    "<ip srcipaddr='10.0.0.1' srcipmask='0'/>": {"ipv4", "udp", "tcp", "nonsense"},
    "<ip match='no' protocol='tcp' srcipaddr='10.0.0.9'/>": {"ipv4", "udp", "nonsense"},
    "<ipv6/>": {"ipv6", "ping6"},
    "<ipv6 type='128' typeend='137'/>": {"ping6"},
}
"""Elements of a rule to the frames that they match; no other one does."""

INOUT_CASES = (
    ("<ip srcipaddr='10.0.0.99'/>", incoming(ipv4), ipv4(dst_ip=OTHER_IP)),
    ("<ip dstipaddr='10.0.0.1'/>", incoming(ipv4), ipv4()),
    ("<ip protocol='udp' dstportstart='53'/>", incoming(udp, dport=53), udp(sport=53)),
    ("<ip protocol='udp' srcportstart='53'/>", incoming(udp, sport=53), udp(dport=53)),
    ("<mac srcmacaddr='52:54:00:00:00:99'/>", incoming(udp), udp(dst=OTHER)),
    ("<mac dstmacaddr='52:54:00:00:00:01'/>", incoming(udp), udp()),
    (
        "<arp arpsrcipaddr='10.0.0.99' arpdstipaddr='10.0.0.1'/>",
        incoming_arp(),
        arp(sender_ip=GUEST_IP, target_ip=OTHER_IP),
    ),
    (
        "<arp arpsrcmacaddr='52:54:00:00:00:99'/>",
        incoming_arp(target=NO_MAC),
        arp(target=OTHER),
    ),
    ("<ipv6 srcipaddr='2001:db8::99'/>", incoming(ipv6), ipv6(dst_ip="2001:db8::99")),
)


def start(wire: Wire, directory: Path, direction: str, xml: str) -> None:
    """Put a filter in force at vnet0 that drops what `xml` matches in `direction`, and nothing else."""
    rule = f"<rule action='drop' direction='{direction}'>{xml}</rule>"
    (directory / "tried.xml").write_text(f"<filter name='tried'>{rule}</filter>")
    wire.configure(filter_dirs=[directory])
    wire.start("web", domain("web", [interface("vnet0", "tried")]))


def test_what_an_element_is_about(wire: Wire, tmp_path: Path) -> None:
    """A rule drops the frames that its element matches, and no other kind of frame."""
    for xml, matches in CASES.items():
        start(wire, tmp_path, "out", xml)
        assert {kind for kind, frame in KINDS.items() if not wire.passes(frame)} == matches, xml


@pytest.mark.parametrize(("xml", "to_guest", "from_guest"), INOUT_CASES, ids=[xml for xml, *_ in INOUT_CASES])
def test_inout_is_exchanged_for_what_the_guest_sends(
    wire: Wire, tmp_path: Path, xml: str, to_guest: bytes, from_guest: bytes
) -> None:
    """An `inout` rule describes frames to the guest; of those it sends, source and destination swap."""
    assert wire.passes(to_guest, "vnet1", "vnet0")
    assert wire.passes(from_guest)
    start(wire, tmp_path, "inout", xml)
    assert not wire.passes(to_guest, "vnet1", "vnet0")
    assert not wire.passes(from_guest)
    assert wire.passes(from_guest, "vnet1", "vnet0")
    assert wire.passes(to_guest)


@pytest.mark.parametrize("direction", ["in", "out"])
def test_one_direction_leaves_the_other_alone(wire: Wire, tmp_path: Path, direction: str) -> None:
    """A rule for one direction says nothing about the other, and compares addresses as they are written."""
    mine, theirs = ipv4(), incoming(ipv4)
    start(wire, tmp_path, direction, "<ip srcipaddr='10.0.0.1'/>")
    spoofed = incoming(ipv4, src_ip=GUEST_IP)
    assert wire.passes(mine) == (direction == "in")
    assert wire.passes(spoofed, "vnet1", "vnet0") == (direction == "out")
    assert wire.passes(theirs, "vnet1", "vnet0")
    assert wire.passes(ipv4(src_ip=OTHER_IP))
