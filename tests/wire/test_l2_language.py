"""
Elements of layer 2 against real frames, beyond one attribute at a time (test_language): several attributes and nodes,
both ends of a range, masks, frames of other kinds, and both directions.
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
    THIRD,
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
    udp6,
    vlan,
)
from tests.support.netns import Wire

pytestmark = pytest.mark.netns

EVERY_KIND = (arp(), rarp_announce(), ipv4(), ipv6(), ether(), vlan(arp()), stp_bpdu())
FROM_OTHER = (ether(src=OTHER), vlan(arp(src=OTHER)))
Frames = tuple[bytes, ...]

CASES: dict[str, tuple[Frames, Frames]] = {
    "": (EVERY_KIND, ()),
    "<mac/>": (EVERY_KIND, ()),
    "<mac srcmacaddr='52:54:00:00:00:99'/>": (FROM_OTHER, EVERY_KIND),
    "<mac match='no' srcmacaddr='52:54:00:00:00:01'/>": (FROM_OTHER, EVERY_KIND),
    "<mac dstmacaddr='01:00:00:00:00:00' dstmacmask='ff:00:00:00:00:00'/>": (
        (stp_bpdu(), ether(dst="01:00:5e:00:00:01")),
        (ether(), arp(), ether(dst="03:00:00:00:00:00")),
    ),
    "<mac protocolid='IPv4'/>": ((ipv4(), garbage()), (arp(), ipv6(), vlan(ipv4()))),
    "<mac protocolid='vlan'/>": (
        (vlan(arp()), vlan(ipv4()), vlan(ether(), 0)),
        (arp(), ipv4(), vlan(arp(), ethertype=0x88A8)),
    ),
    "<mac match='no' protocolid='arp'/>": ((ipv4(), ether(), vlan(arp()), vlan(ipv4())), (arp(),)),
    "<vlan/>": ((vlan(arp()), vlan(ipv4(), 0), vlan(vlan(ipv4()))), (arp(), ipv4(), vlan(arp(), ethertype=0x88A8))),
    "<vlan match='no' vlanid='7'/>": ((vlan(arp(), 8), vlan(arp(), 4094)), (vlan(arp()), arp())),
    "<vlan encap-protocol='vlan'/>": ((vlan(vlan(arp())),), (vlan(arp()), arp())),
    "<vlan vlanid='7' encap-protocol='ipv4'/>": ((vlan(ipv4()),), (vlan(ipv4(), 8), vlan(arp()), ipv4())),
    "<vlan srcmacaddr='52:54:00:00:00:99' vlanid='7'/>": (
        (vlan(arp(src=OTHER)),),
        (vlan(arp()), vlan(arp(src=OTHER), 8), arp(src=OTHER)),
    ),
    "<stp/>": (
        (stp_bpdu(), ether(dst=frames.BRIDGE_GROUP)),
        (ether(), arp(), ether(dst="01:00:5e:00:00:01")),
    ),
    "<stp match='no' type='2'/>": ((stp_bpdu(),), (ether(dst=frames.BRIDGE_GROUP),)),
    "<stp root-priority='1' root-priority-hi='0x7fff'/>": ((), (stp_bpdu(), ether())),
    "<arp/>": ((arp(), arp(opcode=2), arp_probe()), (rarp_announce(), ipv4(), vlan(arp()))),
    "<arp match='no' dstmacaddr='ff:ff:ff:ff:ff:ff'/>": ((arp(dst=OTHER),), (arp(), ipv4())),
    "<arp match='no' arpsrcipaddr='10.0.0.1'/>": ((arp_probe(),), (arp(), ipv4())),
    "<arp arpsrcipaddr='10.0.0.0' arpsrcipmask='30'/>": (
        (arp(sender_ip="10.0.0.3"), arp()),
        (arp(sender_ip="10.0.0.4"),),
    ),
    "<arp gratuitous='true'/>": (
        (arp(target_ip=GUEST_IP), arp(opcode=2, target_ip=GUEST_IP)),
        (arp(), arp_probe()),
    ),
    "<arp opcode='Reply'/><arp match='no' arpdstmacaddr='52:54:00:00:00:99'/>": (
        (arp(opcode=2, target=THIRD),),
        (arp(opcode=2, target=OTHER), arp(target=THIRD)),
    ),
    "<rarp/>": ((rarp_announce(), rarp_announce(opcode=4)), (arp(), vlan(rarp_announce()))),
    "<rarp hwtype='1' protocoltype='0x800'/>": ((rarp_announce(),), (arp(),)),
    "<ip/>": ((ipv4(), udp(), tcp()), (arp(), ipv6(), vlan(ipv4()), vlan(ipv4(), ethertype=0x88A8))),
    "<ip srcipaddr='0.0.0.0' srcipmask='0'/>": ((ipv4(),), (arp(),)),
    "<ip match='no' protocol='tcp'/>": ((udp(), ipv4()), (tcp(), arp())),
    "<ip protocol='udp' dstportstart='53' dstportend='60'/>": (
        (udp(dport=53), udp(dport=60)),
        (udp(dport=52), udp(dport=61), tcp(dport=55), udp(sport=55)),
    ),
    "<ip protocol='udp'/><ip match='no' dstportstart='53' dstportend='60'/>": (
        (udp(), udp(dport=61)),
        (udp(dport=53), udp(dport=60), tcp()),
    ),
    "<ip dscp='46'/>": ((ipv4(tos=0xB8), ipv4(tos=0xB9)), (ipv4(), ipv4(tos=46))),
    "<ip match='no' srcipaddr='10.0.0.1' dstipaddr='10.0.0.99'/>": (
        (ipv4(src_ip="10.0.0.2", dst_ip="10.0.0.3"),),
        (ipv4(), ipv4(src_ip="10.0.0.2"), ipv4(dst_ip="10.0.0.3")),
    ),
    "<ipv6/>": ((ipv6(), frames.ping6()), (ipv4(), arp(), vlan(ipv6()))),
    "<ipv6 srcipaddr='fe80::' srcipmask='10'/>": (
        (ipv6(src_ip="febf:ffff::1"),),
        (ipv6(), ipv6(src_ip="fec0::")),
    ),
    "<ipv6 protocol='udp' srcportstart='10' srcportend='20'/>": (
        (udp6(sport=10), udp6(sport=20)),
        (udp6(sport=9), udp6(sport=21)),
    ),
    "<ipv6 protocol='icmpv6' type='133' typeend='137'/>": (
        (frames.neighbour_solicitation(),),
        (frames.ping6(), udp6()),
    ),
}
"""Elements of a rule to frames that they match, and frames that they don't."""

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


@pytest.mark.parametrize("xml", CASES)
def test_element_matches(wire: Wire, tmp_path: Path, xml: str) -> None:
    """A rule drops the frames its element matches, and no frame that differs."""
    matches, differs = CASES[xml]
    assert all(wire.passes(frame) for frame in matches + differs)
    start(wire, tmp_path, "out", xml)
    verdicts = [wire.passes(frame) for frame in matches + differs]
    assert verdicts == [False] * len(matches) + [True] * len(differs)


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
