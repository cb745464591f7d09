"""
Every attribute of the layer 2 elements, against real frames.

A case is one protocol element in a rule that drops what the guest sends: the frames it matches are gone, and
those that differ in just the attribute at hand pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import frames
from tests.support.domains import domain, interface
from tests.support.frames import (
    BROADCAST,
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
    neighbour_solicitation,
    ping6,
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


@dataclass(frozen=True)
class Case:
    """Protocol elements as XML, frames that they match, and frames that they don't."""

    xml: str
    matches: tuple[bytes, ...]
    differs: tuple[bytes, ...]


def case(xml: str, *matches: bytes, differs: tuple[bytes, ...]) -> Case:
    """A `Case`, the usual way round."""
    return Case(xml, matches, differs)


MAC_CASES = (
    case("<mac/>", *EVERY_KIND, differs=()),
    case("<mac srcmacaddr='52:54:00:00:00:99'/>", ether(src=OTHER), vlan(arp(src=OTHER)), differs=EVERY_KIND),
    case(
        "<mac match='no' srcmacaddr='52:54:00:00:00:01'/>",
        ether(src=OTHER),
        vlan(arp(src=OTHER)),
        differs=EVERY_KIND,
    ),
    case(
        "<mac srcmacaddr='52:54:00:00:00:80' srcmacmask='ff:ff:ff:ff:ff:80'/>",
        ether(src=OTHER),
        ether(src="52:54:00:00:00:ff"),
        differs=(ether(), ether(src="52:54:00:00:00:7f"), ether(src="52:54:00:00:01:80")),
    ),
    case(
        "<mac dstmacaddr='52:54:00:00:00:77'/>",
        ether(dst=THIRD),
        udp(dst=THIRD),
        differs=(ether(), udp(), arp()),
    ),
    case(
        "<mac dstmacaddr='01:00:00:00:00:00' dstmacmask='ff:00:00:00:00:00'/>",
        stp_bpdu(),
        ether(dst="01:00:5e:00:00:01"),
        differs=(ether(), arp(), ether(dst="03:00:00:00:00:00")),
    ),
    case("<mac protocolid='arp'/>", arp(), differs=(rarp_announce(), ipv4(), vlan(arp()))),
    case("<mac protocolid='0x806'/>", arp(), differs=(rarp_announce(), ipv4(), vlan(arp()))),
    case("<mac protocolid='2054'/>", arp(), differs=(rarp_announce(), ipv4())),
    case("<mac protocolid='rarp'/>", rarp_announce(), differs=(arp(), ipv4())),
    case("<mac protocolid='IPv4'/>", ipv4(), garbage(), differs=(arp(), ipv6(), vlan(ipv4()))),
    case("<mac protocolid='ipv6'/>", ipv6(), differs=(arp(), ipv4(), vlan(ipv6()))),
    case(
        "<mac protocolid='vlan'/>",
        vlan(arp()),
        vlan(ipv4()),
        vlan(ether(), 0),
        differs=(arp(), ipv4(), vlan(arp(), ethertype=0x88A8)),
    ),
    case("<mac protocolid='0x9000'/>", ether(), differs=(arp(), vlan(ether()))),
    case("<mac match='no' protocolid='arp'/>", ipv4(), ether(), vlan(arp()), vlan(ipv4()), differs=(arp(),)),
    case("<mac match='no' protocolid='ipv4'/>", arp(), vlan(ipv4()), stp_bpdu(), differs=(ipv4(),)),
    case("", *EVERY_KIND, differs=()),
)

VLAN_CASES = (
    case(
        "<vlan/>",
        vlan(arp()),
        vlan(ipv4(), 0),
        vlan(vlan(ipv4())),
        differs=(arp(), ipv4(), vlan(arp(), ethertype=0x88A8)),
    ),
    case("<vlan vlanid='7'/>", vlan(arp()), vlan(ipv4()), differs=(arp(), vlan(arp(), 8), vlan(arp(), 0))),
    case("<vlan vlanid='0x10'/>", vlan(arp(), 16), differs=(vlan(arp(), 10), vlan(arp()))),
    case("<vlan match='no' vlanid='7'/>", vlan(arp(), 8), vlan(arp(), 4094), differs=(vlan(arp()), arp())),
    case("<vlan encap-protocol='arp'/>", vlan(arp()), differs=(vlan(ipv4()), arp(), vlan(vlan(arp())))),
    case("<vlan encap-protocol='ipv4'/>", vlan(ipv4()), differs=(vlan(arp()), ipv4(), vlan(ipv6()))),
    case("<vlan encap-protocol='ipv6'/>", vlan(ipv6()), differs=(vlan(ipv4()), ipv6())),
    case("<vlan encap-protocol='0x9000'/>", vlan(ether()), differs=(vlan(ipv4()), ether())),
    case("<vlan encap-protocol='vlan'/>", vlan(vlan(arp())), differs=(vlan(arp()), arp())),
    case("<vlan match='no' encap-protocol='ipv4'/>", vlan(arp()), differs=(vlan(ipv4()), arp())),
    case(
        "<vlan vlanid='7' encap-protocol='ipv4'/>",
        vlan(ipv4()),
        differs=(vlan(ipv4(), 8), vlan(arp()), ipv4()),
    ),
    case(
        "<vlan srcmacaddr='52:54:00:00:00:99' vlanid='7'/>",
        vlan(arp(src=OTHER)),
        differs=(vlan(arp()), vlan(arp(src=OTHER), 8), arp(src=OTHER)),
    ),
    case("<vlan dstmacaddr='52:54:00:00:00:77'/>", vlan(udp(dst=THIRD)), differs=(vlan(udp()),)),
)

STP_CASES = (
    case(
        "<stp/>",
        stp_bpdu(),
        ether(dst=frames.BRIDGE_GROUP),
        differs=(ether(), arp(), ether(dst="01:00:5e:00:00:01")),
    ),
    case("<stp srcmacaddr='52:54:00:00:00:99'/>", stp_bpdu(src=OTHER), differs=(stp_bpdu(),)),
    case("<stp type='0'/>", stp_bpdu(), differs=(ether(dst=frames.BRIDGE_GROUP), ether())),
    case("<stp match='no' type='2'/>", stp_bpdu(), differs=(ether(dst=frames.BRIDGE_GROUP),)),
    case("<stp flags='0'/>", stp_bpdu(), differs=(ether(dst=frames.BRIDGE_GROUP),)),
    case("<stp root-priority='0x8000'/>", stp_bpdu(), differs=(ether(dst=frames.BRIDGE_GROUP),)),
    case("<stp root-priority='1' root-priority-hi='0x9000'/>", stp_bpdu(), differs=(ether(),)),
    case(
        "<stp root-address='52:54:00:00:00:99'/>",
        stp_bpdu(src=OTHER),
        differs=(stp_bpdu(), ether(dst=frames.BRIDGE_GROUP)),
    ),
    case(
        "<stp root-address='52:54:00:00:00:80' root-address-mask='ff:ff:ff:ff:ff:80'/>",
        stp_bpdu(src=OTHER),
        differs=(stp_bpdu(),),
    ),
    case("<stp sender-address='52:54:00:00:00:99'/>", stp_bpdu(src=OTHER), differs=(stp_bpdu(),)),
    case("<stp sender-priority='0x8000'/>", stp_bpdu(), differs=(ether(dst=frames.BRIDGE_GROUP),)),
    case("<stp port='0x8001'/>", stp_bpdu(), differs=(ether(dst=frames.BRIDGE_GROUP),)),
    case("<stp root-cost='0' root-cost-hi='10'/>", stp_bpdu(), differs=(ether(),)),
    case("<stp age='0'/>", stp_bpdu(), differs=(ether(dst=frames.BRIDGE_GROUP),)),
    case("<stp max-age='0x1400'/>", stp_bpdu(), differs=(ether(dst=frames.BRIDGE_GROUP),)),
    case("<stp hello-time='0x200'/>", stp_bpdu(), differs=(ether(dst=frames.BRIDGE_GROUP),)),
    case("<stp forward-delay='0xf00'/>", stp_bpdu(), differs=(ether(dst=frames.BRIDGE_GROUP),)),
)

NO_STP_CASES = (
    "<stp type='1'/>",
    "<stp flags='1'/>",
    "<stp root-priority='0x8001'/>",
    "<stp root-priority='1' root-priority-hi='0x7fff'/>",
    "<stp sender-priority='1'/>",
    "<stp port='1' port-hi='0x8000'/>",
    "<stp root-cost='1' root-cost-hi='10'/>",
    "<stp age='1' age-hi='9'/>",
    "<stp msg-age='1' msg-age-hi='9'/>",
    "<stp max-age='20'/>",
    "<stp hello-time='2'/>",
    "<stp forward-delay='15'/>",
    "<stp match='no' root-priority='0x8000'/>",
    "<stp match='no' root-cost='0' root-cost-hi='10'/>",
    "<stp match='no' sender-address='52:54:00:00:00:01'/>",
)

ANNOUNCED = arp(target_ip=GUEST_IP)
ARP_CASES = (
    case("<arp/>", arp(), arp(opcode=2), arp_probe(), differs=(rarp_announce(), ipv4(), vlan(arp()))),
    case("<arp srcmacaddr='52:54:00:00:00:99'/>", arp(src=OTHER), differs=(arp(), ipv4(src=OTHER))),
    case("<arp match='no' dstmacaddr='ff:ff:ff:ff:ff:ff'/>", arp(dst=OTHER), differs=(arp(), ipv4())),
    case("<arp opcode='Request'/>", arp(), differs=(arp(opcode=2), rarp_announce(opcode=1))),
    case("<arp opcode='reply'/>", arp(opcode=2), differs=(arp(),)),
    case("<arp opcode='8'/>", arp(opcode=8), differs=(arp(),)),
    case("<arp match='no' opcode='Request'/>", arp(opcode=2), differs=(arp(), ipv4())),
    case("<arp hwtype='1'/>", arp(), differs=(rarp_announce(),)),
    case("<arp match='no' hwtype='6'/>", arp(), differs=(ipv4(),)),
    case("<arp protocoltype='0x800'/>", arp(), differs=(ipv4(),)),
    case("<arp arpsrcmacaddr='52:54:00:00:00:99'/>", arp(sender=OTHER), differs=(arp(), arp(src=OTHER))),
    case("<arp match='no' arpsrcmacaddr='52:54:00:00:00:01'/>", arp(sender=OTHER), differs=(arp(),)),
    case("<arp arpdstmacaddr='52:54:00:00:00:99'/>", arp(target=OTHER), differs=(arp(), arp(dst=OTHER))),
    case("<arp arpsrcipaddr='10.0.0.99'/>", arp(sender_ip=OTHER_IP), differs=(arp(),)),
    case("<arp match='no' arpsrcipaddr='10.0.0.1'/>", arp_probe(), differs=(arp(), ipv4())),
    case(
        "<arp arpsrcipaddr='10.0.0.0' arpsrcipmask='30'/>",
        arp(sender_ip="10.0.0.3"),
        arp(),
        differs=(arp(sender_ip="10.0.0.4"),),
    ),
    case(
        "<arp arpsrcipaddr='10.0.0.0' arpsrcipmask='255.255.255.252'/>",
        arp(sender_ip="10.0.0.3"),
        differs=(arp(sender_ip="10.0.0.4"),),
    ),
    case("<arp arpdstipaddr='10.0.0.77'/>", arp(target_ip="10.0.0.77"), differs=(arp(),)),
    case(
        "<arp match='no' arpdstipaddr='10.0.0.64' arpdstipmask='26'/>",
        arp(target_ip="10.0.0.128"),
        differs=(arp(target_ip="10.0.0.127"), arp()),
    ),
    case("<arp gratuitous='true'/>", ANNOUNCED, arp(opcode=2, target_ip=GUEST_IP), differs=(arp(), arp_probe())),
    case("<arp match='no' gratuitous='true'/>", arp(), arp_probe(), differs=(ANNOUNCED,)),
    case(
        "<arp opcode='Reply'/><arp match='no' arpdstmacaddr='52:54:00:00:00:99'/>",
        arp(opcode=2, target=THIRD),
        differs=(arp(opcode=2, target=OTHER), arp(target=THIRD)),
    ),
)

RARP_CASES = (
    case("<rarp/>", rarp_announce(), rarp_announce(opcode=4), differs=(arp(), vlan(rarp_announce()))),
    case("<rarp opcode='Request_Reverse'/>", rarp_announce(), differs=(rarp_announce(opcode=4), arp(opcode=3))),
    case("<rarp match='no' opcode='3'/>", rarp_announce(opcode=4), differs=(rarp_announce(), arp())),
    case("<rarp hwtype='1' protocoltype='0x800'/>", rarp_announce(), differs=(arp(),)),
    case("<rarp match='no' hwtype='1'/>", differs=(rarp_announce(), arp())),
    case("<rarp arpsrcmacaddr='52:54:00:00:00:99'/>", rarp_announce(OTHER), differs=(rarp_announce(),)),
    case(
        "<rarp match='no' arpdstmacaddr='52:54:00:00:00:01'/>",
        rarp_announce(OTHER),
        differs=(rarp_announce(),),
    ),
    case("<rarp arpsrcipaddr='10.0.0.1'/>", rarp_announce(ip=GUEST_IP), differs=(rarp_announce(),)),
    case(
        "<rarp arpdstipaddr='10.0.0.0' arpdstipmask='24'/>",
        rarp_announce(ip=GUEST_IP),
        rarp_announce(ip="10.0.0.255"),
        differs=(rarp_announce(), rarp_announce(ip="10.0.1.0")),
    ),
    case("<rarp gratuitous='yes'/>", rarp_announce(), rarp_announce(ip=GUEST_IP), differs=(arp(),)),
)

PORTS = "protocol='udp'"
IP_CASES = (
    case("<ip/>", ipv4(), udp(), tcp(), differs=(arp(), ipv6(), vlan(ipv4()), vlan(ipv4(), ethertype=0x88A8))),
    case("<ip srcmacaddr='52:54:00:00:00:99'/>", ipv4(src=OTHER), differs=(ipv4(), arp(src=OTHER))),
    case("<ip dstmacaddr='ff:ff:ff:ff:ff:ff'/>", ipv4(dst=BROADCAST), differs=(ipv4(), arp())),
    case("<ip srcipaddr='10.0.0.99'/>", ipv4(src_ip=OTHER_IP), differs=(ipv4(), vlan(ipv4(src_ip=OTHER_IP)))),
    case("<ip match='no' srcipaddr='10.0.0.1'/>", ipv4(src_ip=OTHER_IP), differs=(ipv4(), arp(), ipv6())),
    case("<ip dstipaddr='10.0.0.0' dstipmask='25'/>", ipv4(), differs=(ipv4(dst_ip="10.0.0.128"),)),
    case(
        "<ip match='no' dstipaddr='10.0.0.0' dstipmask='255.255.255.128'/>",
        ipv4(dst_ip="10.0.0.128"),
        differs=(ipv4(),),
    ),
    case("<ip srcipaddr='0.0.0.0' srcipmask='0'/>", ipv4(), differs=(arp(),)),
    case("<ip protocol='udp'/>", udp(), differs=(tcp(), ipv4(), udp6())),
    case("<ip protocol='253'/>", ipv4(), differs=(udp(),)),
    case("<ip match='no' protocol='tcp'/>", udp(), ipv4(), differs=(tcp(), arp())),
    case("<ip protocol='udp' srcportstart='53'/>", udp(sport=53), differs=(udp(dport=53), tcp(sport=53))),
    case(
        "<ip protocol='udp' dstportstart='53' dstportend='60'/>",
        udp(dport=53),
        udp(dport=60),
        differs=(udp(dport=52), udp(dport=61), tcp(dport=55), udp(sport=55)),
    ),
    case("<ip protocol='tcp' dstportstart='80'/>", tcp(), differs=(tcp(dport=81), udp(dport=80))),
    case(
        "<ip protocol='udp'/><ip match='no' dstportstart='53' dstportend='60'/>",
        udp(),
        udp(dport=61),
        differs=(udp(dport=53), udp(dport=60), tcp()),
    ),
    case("<ip dscp='46'/>", ipv4(tos=0xB8), ipv4(tos=0xB9), differs=(ipv4(), ipv4(tos=46))),
    case("<ip match='no' dscp='0'/>", ipv4(tos=0xB8), differs=(ipv4(), ipv4(tos=3))),
    case(
        "<ip match='no' srcipaddr='10.0.0.1' dstipaddr='10.0.0.99'/>",
        ipv4(src_ip="10.0.0.2", dst_ip="10.0.0.3"),
        differs=(ipv4(), ipv4(src_ip="10.0.0.2"), ipv4(dst_ip="10.0.0.3")),
    ),
)

IPV6_CASES = (
    case("<ipv6/>", ipv6(), ping6(), differs=(ipv4(), arp(), vlan(ipv6()))),
    case("<ipv6 dstmacaddr='52:54:00:00:00:77'/>", ipv6(dst=THIRD), differs=(ipv6(), ipv4(dst=THIRD))),
    case("<ipv6 srcipaddr='2001:db8::99'/>", ipv6(src_ip="2001:db8::99"), differs=(ipv6(),)),
    case("<ipv6 match='no' srcipaddr='2001:db8::1'/>", ipv6(src_ip="2001:db8::2"), differs=(ipv6(), ipv4())),
    case(
        "<ipv6 srcipaddr='fe80::' srcipmask='10'/>",
        ipv6(src_ip="febf:ffff::1"),
        differs=(ipv6(), ipv6(src_ip="fec0::")),
    ),
    case(
        "<ipv6 dstipaddr='2001:db8::' dstipmask='ffff:ffff::'/>",
        ipv6(),
        differs=(ipv6(dst_ip="2001:db9::"),),
    ),
    case("<ipv6 protocol='udp'/>", udp6(), differs=(ping6(), ipv6(), udp())),
    case("<ipv6 protocol='icmpv6'/>", ping6(), neighbour_solicitation(), differs=(udp6(),)),
    case("<ipv6 match='no' protocol='udp'/>", ping6(), ipv6(), differs=(udp6(), udp())),
    case("<ipv6 protocol='udp' dstportstart='53'/>", udp6(dport=53), differs=(udp6(), udp6(sport=53))),
    case(
        "<ipv6 protocol='udp' srcportstart='10' srcportend='20'/>",
        udp6(sport=10),
        udp6(sport=20),
        differs=(udp6(sport=9), udp6(sport=21)),
    ),
    case("<ipv6 protocol='icmpv6' type='128'/>", ping6(), differs=(neighbour_solicitation(), udp6())),
    case(
        "<ipv6 protocol='icmpv6' type='133' typeend='137'/>",
        neighbour_solicitation(),
        differs=(ping6(), udp6()),
    ),
    case(
        "<ipv6 protocol='icmpv6' type='128' code='0' codeend='3'/>",
        ping6(),
        differs=(neighbour_solicitation(),),
    ),
    case("<ipv6 protocol='icmpv6' type='128' code='1'/>", differs=(ping6(), neighbour_solicitation())),
    case(
        "<ipv6 protocol='icmpv6'/><ipv6 match='no' type='128'/>",
        neighbour_solicitation(),
        differs=(ping6(), udp6()),
    ),
)

CASES = (
    *MAC_CASES,
    *VLAN_CASES,
    *STP_CASES,
    *(case(xml, differs=(stp_bpdu(), ether())) for xml in NO_STP_CASES),
    *ARP_CASES,
    *RARP_CASES,
    *IP_CASES,
    *IPV6_CASES,
)

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


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.xml or "no-element")
def test_element_matches(wire: Wire, tmp_path: Path, case: Case) -> None:
    """A rule drops the frames its element matches, and no frame that differs."""
    everything = case.matches + case.differs
    assert [wire.passes(frame) for frame in everything] == [True] * len(everything)
    start(wire, tmp_path, "out", case.xml)
    verdicts = [wire.passes(frame) for frame in everything]
    assert verdicts == [False] * len(case.matches) + [True] * len(case.differs)


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
