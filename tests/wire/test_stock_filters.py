"""
Each stock filter on a real bridge: what passes, what doesn't, and which filter of the tree decided.

A filter that only allows is tried under no-other-l2-traffic, or nothing would be dropped. Every frame that a
filter drops is first shown to pass without it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import frames, wrapping
from tests.support.discovery import advertise, detect, redirect, router_advertisement, router_solicitation, solicit
from tests.support.domains import domain, interface
from tests.support.frames import (
    GUEST,
    GUEST_IP,
    OTHER,
    OTHER_IP,
    THIRD,
    arp,
    arp_probe,
    dhcp_discover,
    dhcp_offer,
    dhcp_question,
    dhcpv6_question,
    dhcpv6_reply,
    dhcpv6_solicit,
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
from tests.support.netns import REPOSITORY, Wire

pytestmark = pytest.mark.netns

STOCK_FILTERS = REPOSITORY / "filters"
SECOND_IP = "10.0.0.2"
GUEST_LINK_LOCAL = "fe80::1"
OTHER_LINK_LOCAL = "fe80::99"
LINK_LOCAL = "fe80::5054:ff:fe00:1"
REST = "no-other-l2-traffic"


@dataclass(frozen=True)
class Case:
    """
    A frame, whether it passes, and which filter's rule decides that.

    Attributes:
        by: None where no rule decides, and the frame passes.
        incoming: sent to the guest, not by it.
    """

    frame: bytes
    passes: bool
    by: str | None
    incoming: bool


def passes(frame: bytes, *, by: str | None = None) -> Case:
    """The guest can send `frame`."""
    return Case(frame, True, by, False)


def drops(frame: bytes, *, by: str) -> Case:
    """The guest can't send `frame`."""
    return Case(frame, False, by, False)


def admits(frame: bytes, *, by: str | None = None) -> Case:
    """The guest receives `frame`."""
    return Case(frame, True, by, True)


def refuses(frame: bytes, *, by: str) -> Case:
    """The guest doesn't receive `frame`."""
    return Case(frame, False, by, True)


@dataclass(frozen=True)
class Spec:
    """
    What a stock filter does.

    Attributes:
        cases: one after the other, under one start of the guest.
        parameters: of the interface's filterref.
        beside: further filters in the tree, after it.
    """

    cases: tuple[Case, ...]
    parameters: tuple[tuple[str, str], ...] = ()
    beside: tuple[str, ...] = ()


ADDRESSES = (("IP", GUEST_IP), ("IP", SECOND_IP))
RARP_REPLY = 4

NOT_CLEAN = (
    drops(ipv4(src=OTHER), by="no-mac-spoofing"),
    drops(arp(src=OTHER), by="no-mac-spoofing"),
    drops(vlan(udp(src=OTHER)), by="no-mac-spoofing"),
    drops(dhcp_discover(src=OTHER), by="no-mac-spoofing"),
    drops(rarp_announce(src=OTHER), by="no-mac-spoofing"),
    drops(ipv4(src_ip="10.0.0.3"), by="no-ip-spoofing"),
    drops(tcp(src_ip=OTHER_IP), by="no-ip-spoofing"),
    drops(ipv4(src_ip="0.0.0.0"), by="no-ip-spoofing"),
    drops(tcp(src_ip="0.0.0.0"), by="no-ip-spoofing"),
    drops(arp(sender=OTHER), by="no-arp-mac-spoofing"),
    drops(arp(opcode=2, sender=OTHER), by="no-arp-mac-spoofing"),
    drops(arp(sender_ip="10.0.0.3"), by="no-arp-ip-spoofing"),
    drops(arp(opcode=2, sender_ip=OTHER_IP), by="no-arp-ip-spoofing"),
    drops(arp_probe(), by="no-arp-ip-spoofing"),
    drops(rarp_announce(opcode=RARP_REPLY), by="no-other-rarp-traffic"),
    drops(rarp_announce(THIRD, src=GUEST), by="no-other-rarp-traffic"),
    refuses(rarp_announce(OTHER), by="no-other-rarp-traffic"),
    drops(vlan(arp()), by=REST),
    drops(vlan(udp()), by=REST),
    drops(vlan(udp(), 0), by=REST),
    drops(vlan(arp(), 0), by=REST),
    drops(stp_bpdu(), by=REST),
    drops(frames.ether(), by=REST),
    drops(frames.garbage(), by="no-ip-spoofing"),
    drops(frames.garbage(20), by="no-ip-spoofing"),
    drops(arp()[:24], by="no-arp-mac-spoofing"),
    drops(arp()[:18] + b"\x08" + arp()[19:], by="no-arp-mac-spoofing"),
    refuses(stp_bpdu(src=OTHER), by=REST),
)
UNREADABLE = (vlan(udp(), ethertype=0x88A8), vlan(vlan(udp())), frames.snap(udp()), frames.snap(arp()))

SPECS = {
    "allow-arp": Spec(
        (
            passes(arp(), by="allow-arp"),
            passes(arp(sender=OTHER, sender_ip=OTHER_IP), by="allow-arp"),
            passes(arp(src=OTHER), by="allow-arp"),
            admits(incoming_arp(), by="allow-arp"),
            drops(ipv4(), by=REST),
            drops(rarp_announce(), by=REST),
            drops(vlan(arp()), by=REST),
            refuses(incoming(ipv4), by=REST),
            refuses(vlan(incoming_arp()), by=REST),
        ),
        beside=(REST,),
    ),
    "allow-ipv4": Spec(
        (
            passes(ipv4(), by="allow-ipv4"),
            passes(udp(src_ip=OTHER_IP), by="allow-ipv4"),
            passes(frames.garbage(), by="allow-ipv4"),
            admits(incoming(ipv4), by="allow-ipv4"),
            drops(arp(), by=REST),
            drops(ipv6(), by=REST),
            drops(vlan(ipv4()), by=REST),
            refuses(incoming_arp(), by=REST),
            refuses(incoming(ipv6), by=REST),
            refuses(vlan(incoming(ipv4)), by=REST),
        ),
        beside=(REST,),
    ),
    "allow-ipv6": Spec(
        (
            passes(ipv6(), by="allow-ipv6"),
            passes(neighbour_solicitation(), by="allow-ipv6"),
            admits(incoming(ping6), by="allow-ipv6"),
            drops(ipv4(), by=REST),
            drops(vlan(ipv6()), by=REST),
            refuses(incoming(ipv4), by=REST),
            refuses(vlan(incoming(ipv6)), by=REST),
        ),
        beside=(REST,),
    ),
    "allow-incoming-ipv4": Spec(
        (
            admits(incoming(ipv4), by="allow-incoming-ipv4"),
            admits(incoming(udp, src_ip=GUEST_IP), by="allow-incoming-ipv4"),
            drops(ipv4(), by=REST),
            refuses(incoming_arp(), by=REST),
            refuses(vlan(incoming(ipv4)), by=REST),
        ),
        beside=(REST,),
    ),
    "allow-incoming-ipv6": Spec(
        (
            admits(incoming(ipv6), by="allow-incoming-ipv6"),
            drops(ipv6(), by=REST),
            refuses(incoming(ipv4), by=REST),
            refuses(vlan(incoming(ipv6)), by=REST),
        ),
        beside=(REST,),
    ),
    "allow-dhcp": Spec(
        (
            passes(dhcp_discover(), by="allow-dhcp"),
            drops(dhcp_discover(src_ip=GUEST_IP), by=REST),
            drops(dhcp_discover(dst_ip=OTHER_IP), by=REST),
            drops(udp(src_ip="0.0.0.0", dst_ip="255.255.255.255", sport=68, dport=68), by=REST),
            drops(udp(src_ip="0.0.0.0", dst_ip="255.255.255.255", sport=67, dport=67), by=REST),
            drops(vlan(dhcp_discover()), by=REST),
            drops(dhcp_offer(src=GUEST, src_ip=GUEST_IP), by=REST),
            admits(dhcp_offer(), by="allow-dhcp"),
            admits(dhcp_offer(dst=GUEST, src_ip="10.0.0.98"), by="allow-dhcp"),
            refuses(incoming(udp, sport=67, dport=67), by=REST),
            refuses(incoming(tcp, sport=67, dport=68), by=REST),
            refuses(dhcp_discover(src=OTHER), by=REST),
            refuses(vlan(dhcp_offer()), by=REST),
        ),
        beside=(REST,),
    ),
    "allow-dhcp-server": Spec(
        (
            passes(dhcp_discover(), by="allow-dhcp-server"),
            drops(dhcp_discover(src_ip=GUEST_IP), by=REST),
            drops(vlan(dhcp_discover()), by=REST),
            admits(dhcp_offer(), by="allow-dhcp-server"),
            admits(dhcp_offer(src_ip="10.0.0.98"), by="allow-dhcp-server"),
            refuses(dhcp_offer(src_ip="10.0.0.97"), by=REST),
            refuses(incoming(udp, sport=67, dport=67), by=REST),
        ),
        parameters=(("DHCPSERVER", OTHER_IP), ("DHCPSERVER", "10.0.0.98")),
        beside=(REST,),
    ),
    "allow-dhcpv6": Spec(
        (
            passes(dhcpv6_solicit(), by="allow-dhcpv6"),
            passes(dhcpv6_solicit(src_ip="febf::1"), by="allow-dhcpv6"),
            drops(dhcpv6_solicit(src_ip="fec0::1"), by=REST),
            drops(dhcpv6_solicit(dst_ip="ff02::1:3"), by=REST),
            drops(udp6(src_ip="fe80::1", dst_ip="ff02::1:2", sport=546, dport=546), by=REST),
            drops(vlan(dhcpv6_solicit()), by=REST),
            admits(dhcpv6_reply(), by="allow-dhcpv6"),
            admits(dhcpv6_reply(src_ip="2001:db8::5"), by="allow-dhcpv6"),
            refuses(incoming(udp6, sport=547, dport=547), by=REST),
            refuses(dhcpv6_solicit(src=OTHER), by=REST),
        ),
        beside=(REST,),
    ),
    "allow-dhcpv6-server": Spec(
        (
            passes(dhcpv6_solicit(), by="allow-dhcpv6-server"),
            drops(dhcpv6_solicit(src_ip="2001:db8::1"), by=REST),
            admits(dhcpv6_reply(), by="allow-dhcpv6-server"),
            refuses(dhcpv6_reply(src_ip="fe80::98"), by=REST),
            refuses(vlan(dhcpv6_reply()), by=REST),
        ),
        parameters=(("DHCPSERVER", OTHER_LINK_LOCAL),),
        beside=(REST,),
    ),
    "no-mac-spoofing": Spec(
        (
            passes(ipv4()),
            passes(arp(sender=OTHER, sender_ip=OTHER_IP)),
            passes(ipv6()),
            passes(stp_bpdu()),
            passes(vlan(ipv6())),
            drops(ipv4(src=OTHER), by="no-mac-spoofing"),
            drops(arp(src=OTHER), by="no-mac-spoofing"),
            drops(ipv6(src="52:54:00:00:00:00"), by="no-mac-spoofing"),
            drops(stp_bpdu(src=OTHER), by="no-mac-spoofing"),
            drops(vlan(ipv6(src=OTHER)), by="no-mac-spoofing"),
            drops(frames.garbage(src=OTHER), by="no-mac-spoofing"),
            admits(incoming(ipv4)),
            admits(incoming(ipv4, src=GUEST)),
        ),
    ),
    "no-mac-broadcast": Spec(
        (
            passes(udp()),
            passes(udp(dst="01:00:5e:00:00:01", dst_ip="224.0.0.1")),
            passes(arp()),
            passes(vlan(dhcp_discover())),
            drops(dhcp_discover(), by="no-mac-broadcast"),
            drops(udp(dst=frames.BROADCAST), by="no-mac-broadcast"),
            admits(dhcp_offer()),
        ),
    ),
    "no-ip-spoofing": Spec(
        (
            passes(ipv4()),
            passes(tcp(src_ip=SECOND_IP)),
            passes(dhcp_discover()),
            passes(udp(src_ip="0.0.0.0")),
            passes(arp(sender_ip=OTHER_IP)),
            passes(vlan(ipv4(src_ip=OTHER_IP))),
            passes(ipv6()),
            drops(ipv4(src_ip=OTHER_IP), by="no-ip-spoofing"),
            drops(udp(src_ip="10.0.0.3"), by="no-ip-spoofing"),
            drops(tcp(src_ip="0.0.0.0"), by="no-ip-spoofing"),
            drops(udp(src_ip="255.255.255.255"), by="no-ip-spoofing"),
            admits(incoming(ipv4)),
            admits(incoming(ipv4, src_ip=GUEST_IP)),
        ),
        parameters=ADDRESSES,
    ),
    "no-ipv6-spoofing": Spec(
        (
            passes(ipv6()),
            passes(ping6(src_ip=GUEST_LINK_LOCAL)),
            passes(neighbour_solicitation()),
            passes(dhcpv6_solicit(src_ip="fe80::77")),
            passes(ipv4(src_ip=OTHER_IP)),
            passes(vlan(ipv6(src_ip="2001:db8::3"))),
            drops(ipv6(src_ip="2001:db8::3"), by="no-ipv6-spoofing"),
            drops(udp6(src_ip="2001:db8::3"), by="no-ipv6-spoofing"),
            drops(ping6(src_ip="fe80::77"), by="no-ipv6-spoofing"),
            drops(neighbour_solicitation(src_ip="::"), by="no-ipv6-spoofing"),
            drops(dhcpv6_solicit(src_ip="fec0::1"), by="no-ipv6-spoofing"),
            admits(incoming(ipv6)),
            admits(incoming(ipv6, src_ip=frames.GUEST_IP6)),
        ),
        parameters=(("IPV6", frames.GUEST_IP6), ("IPV6", GUEST_LINK_LOCAL)),
    ),
    "no-ip-multicast": Spec(
        (
            passes(ipv4()),
            passes(udp(dst_ip="223.255.255.255")),
            passes(udp(dst_ip="240.0.0.1")),
            passes(vlan(udp(dst_ip="224.0.0.251"))),
            drops(udp(dst_ip="224.0.0.251"), by="no-ip-multicast"),
            drops(udp(dst_ip="239.255.255.255"), by="no-ip-multicast"),
            drops(ipv4(protocol=2, dst_ip="224.0.0.22"), by="no-ip-multicast"),
            admits(incoming(udp, dst_ip="224.0.0.251")),
        ),
    ),
    "no-ipv6-multicast": Spec(
        (
            passes(ipv6()),
            passes(ipv6(dst_ip="fe80::99")),
            passes(vlan(ipv6(dst_ip="ff02::1"))),
            drops(ipv6(dst_ip="ff02::1"), by="no-ipv6-multicast"),
            drops(neighbour_solicitation(), by="no-ipv6-multicast"),
            drops(dhcpv6_solicit(), by="no-ipv6-multicast"),
            admits(incoming(ipv6, dst_ip="ff02::1")),
        ),
    ),
    "no-arp-mac-spoofing": Spec(
        (
            passes(arp()),
            passes(arp(sender_ip=OTHER_IP)),
            passes(arp_probe()),
            passes(vlan(arp(sender=OTHER))),
            passes(rarp_announce(OTHER)),
            drops(arp(sender=OTHER), by="no-arp-mac-spoofing"),
            drops(arp(opcode=2, sender=OTHER, target=THIRD), by="no-arp-mac-spoofing"),
            admits(incoming_arp()),
            admits(incoming_arp(sender=THIRD)),
        ),
    ),
    "no-arp-ip-spoofing": Spec(
        (
            passes(arp()),
            passes(arp(sender_ip=SECOND_IP)),
            passes(arp(sender=OTHER)),
            passes(vlan(arp(sender_ip=OTHER_IP))),
            drops(arp(sender_ip=OTHER_IP), by="no-arp-ip-spoofing"),
            drops(arp(opcode=2, sender_ip="10.0.0.254"), by="no-arp-ip-spoofing"),
            drops(arp_probe(), by="no-arp-ip-spoofing"),
            admits(incoming_arp(sender_ip=GUEST_IP)),
        ),
        parameters=ADDRESSES,
    ),
    "no-arp-spoofing": Spec(
        (
            passes(arp()),
            passes(arp(opcode=2, sender_ip=SECOND_IP)),
            passes(ipv4(src_ip=OTHER_IP)),
            drops(arp(sender=OTHER), by="no-arp-mac-spoofing"),
            drops(arp(sender_ip=OTHER_IP), by="no-arp-ip-spoofing"),
            drops(arp(sender=OTHER, sender_ip=OTHER_IP), by="no-arp-mac-spoofing"),
            admits(incoming_arp(sender=THIRD, sender_ip=GUEST_IP)),
        ),
        parameters=ADDRESSES,
    ),
    "no-other-l2-traffic": Spec(
        (
            *(drops(frame, by=REST) for frame in (arp(), ipv4(), ipv6(), rarp_announce(), stp_bpdu())),
            *(drops(frame, by=REST) for frame in (frames.ether(), vlan(arp()), frames.garbage())),
            *(refuses(frame, by=REST) for frame in (incoming_arp(), incoming(ipv4), incoming(ipv6))),
            *(refuses(frame, by=REST) for frame in (stp_bpdu(src=OTHER), vlan(incoming_arp()))),
        ),
    ),
    "no-other-rarp-traffic": Spec(
        (
            passes(arp()),
            passes(ipv4()),
            passes(vlan(rarp_announce())),
            drops(rarp_announce(), by="no-other-rarp-traffic"),
            drops(rarp_announce(opcode=RARP_REPLY), by="no-other-rarp-traffic"),
            refuses(rarp_announce(OTHER), by="no-other-rarp-traffic"),
            admits(incoming_arp()),
        ),
    ),
    "qemu-announce-self-rarp": Spec(
        (
            passes(rarp_announce(), by="qemu-announce-self-rarp"),
            drops(rarp_announce(src=OTHER), by=REST),
            drops(rarp_announce(OTHER, src=GUEST), by=REST),
            drops(rarp_announce(dst=OTHER), by=REST),
            drops(rarp_announce(opcode=RARP_REPLY), by=REST),
            drops(rarp_announce(ip=GUEST_IP), by=REST),
            drops(vlan(rarp_announce()), by=REST),
            drops(arp(opcode=3, target=GUEST, sender_ip="0.0.0.0", target_ip="0.0.0.0"), by=REST),
            admits(rarp_announce(), by="qemu-announce-self-rarp"),
            admits(rarp_announce(src=OTHER), by="qemu-announce-self-rarp"),
            refuses(rarp_announce(OTHER), by=REST),
            refuses(rarp_announce(opcode=RARP_REPLY), by=REST),
        ),
        beside=(REST,),
    ),
    "qemu-announce-self": Spec(
        (
            passes(rarp_announce(), by="qemu-announce-self-rarp"),
            passes(frames.ether(ethertype=0x0835), by="qemu-announce-self"),
            drops(rarp_announce(opcode=RARP_REPLY), by="no-other-rarp-traffic"),
            drops(rarp_announce(src=OTHER), by="no-other-rarp-traffic"),
            drops(frames.ether(ethertype=0x0836), by=REST),
            admits(rarp_announce(), by="qemu-announce-self-rarp"),
            refuses(rarp_announce(OTHER), by="no-other-rarp-traffic"),
            refuses(frames.ether(src=OTHER, dst=GUEST, ethertype=0x0835), by=REST),
        ),
        beside=(REST,),
    ),
    "clean-traffic": Spec(
        (
            passes(ipv4(), by="clean-traffic"),
            passes(udp(src_ip=SECOND_IP, dst=THIRD), by="clean-traffic"),
            passes(udp(dst=frames.BROADCAST, dst_ip="255.255.255.255"), by="clean-traffic"),
            passes(udp(dst_ip="224.0.0.251"), by="clean-traffic"),
            passes(dhcp_discover(), by="clean-traffic"),
            passes(dhcp_offer(src=GUEST, src_ip=GUEST_IP), by="clean-traffic"),
            passes(arp(), by="clean-traffic"),
            passes(arp(opcode=2, sender_ip=SECOND_IP, target=OTHER), by="clean-traffic"),
            passes(rarp_announce(), by="qemu-announce-self-rarp"),
            passes(frames.ether(ethertype=0x0835), by="qemu-announce-self"),
            *NOT_CLEAN,
            *(drops(frame, by=REST) for frame in UNREADABLE),
            drops(ipv6(), by=REST),
            drops(vlan(ipv6()), by=REST),
            admits(incoming(ipv4), by="allow-incoming-ipv4"),
            admits(dhcp_offer(), by="allow-incoming-ipv4"),
            admits(incoming_arp(), by="clean-traffic"),
            admits(incoming_arp(opcode=2, sender=THIRD, sender_ip=GUEST_IP), by="clean-traffic"),
            admits(rarp_announce(src=OTHER), by="qemu-announce-self-rarp"),
            refuses(incoming(ipv6), by=REST),
            refuses(vlan(incoming(ipv4)), by=REST),
            refuses(vlan(incoming_arp()), by=REST),
            refuses(frames.ether(src=OTHER, dst=GUEST), by=REST),
        ),
        parameters=ADDRESSES,
    ),
    "clean-traffic-gateway": Spec(
        (
            passes(ipv4(), by="clean-traffic-gateway"),
            passes(tcp(src_ip=SECOND_IP), by="clean-traffic-gateway"),
            passes(ipv6(), by="clean-traffic-gateway"),
            passes(arp(), by="clean-traffic-gateway"),
            passes(arp(dst=THIRD, target=THIRD), by="clean-traffic-gateway"),
            passes(rarp_announce(), by="qemu-announce-self-rarp"),
            drops(ipv4(dst=THIRD), by=REST),
            drops(dhcp_discover(), by=REST),
            drops(ipv6(dst=THIRD), by=REST),
            drops(ipv4(src=THIRD), by="no-mac-spoofing"),
            drops(ipv4(src_ip="10.0.0.3"), by="no-ip-spoofing"),
            drops(ipv4(src_ip="10.0.0.3", dst=THIRD), by="no-ip-spoofing"),
            drops(arp(sender=OTHER), by="no-arp-mac-spoofing"),
            drops(arp(sender_ip="10.0.0.3"), by="no-arp-ip-spoofing"),
            admits(incoming(ipv4), by="clean-traffic-gateway"),
            admits(incoming(ipv6), by="clean-traffic-gateway"),
            admits(dhcp_offer(), by="clean-traffic-gateway"),
            admits(incoming_arp(src=THIRD, sender=THIRD), by="clean-traffic-gateway"),
            refuses(incoming(ipv4, src=THIRD), by=REST),
            refuses(incoming(ipv6, src=THIRD), by=REST),
        ),
        parameters=(*ADDRESSES, ("GATEWAY_MAC", OTHER)),
    ),
    "no-dhcp-server": Spec(
        (
            passes(dhcp_discover()),
            passes(dhcpv6_solicit()),
            passes(udp()),
            passes(vlan(udp())),
            drops(vlan(dhcp_offer(src=GUEST)), by="no-dhcp-server"),
            drops(vlan(vlan(dhcp_offer(src=GUEST))), by="no-unreadable-packets"),
            drops(dhcp_offer(src=GUEST, src_ip=GUEST_IP), by="no-dhcp-server"),
            drops(udp(sport=1067, dport=68), by="no-dhcp-server"),
            drops(udp(sport=67, dport=67), by="no-dhcp-server"),
            drops(dhcpv6_reply(src=GUEST, dst=OTHER), by="no-dhcp-server"),
            drops(udp6(sport=1547, dport=546), by="no-dhcp-server"),
            admits(dhcp_offer()),
            admits(dhcpv6_reply()),
        )
    ),
    "no-dhcp-spoofing": Spec(
        (
            passes(dhcp_question("discover")),
            passes(dhcp_question("request", own=GUEST_IP, src_ip=GUEST_IP, dst_ip=OTHER_IP)),
            passes(dhcp_question("release", own=SECOND_IP, src_ip=SECOND_IP)),
            passes(dhcp_question("inform", own=GUEST_IP, sport=40000)),
            passes(vlan(dhcp_question("request"))),
            passes(dhcp_offer(src=GUEST)),
            passes(udp()),
            passes(tcp(dport=67)),
            *(passes(dhcpv6_question(kind)) for kind in (1, 3, 4, 5, 6, 11, 36)),
            passes(dhcpv6_reply(src=GUEST, dst=OTHER)),
            drops(dhcp_question("release", client=OTHER, own=OTHER_IP), by="no-dhcp-spoofing-rules"),
            drops(dhcp_question("discover", client=OTHER), by="no-dhcp-spoofing-rules"),
            drops(dhcp_question("release", own=OTHER_IP), by="no-dhcp-spoofing-rules"),
            drops(dhcp_question("discover", giaddr="10.0.1.1"), by="no-dhcp-spoofing-rules"),
            drops(dhcp_question("request", htype=6), by="no-dhcp-spoofing-rules"),
            drops(dhcp_question("request", hlen=16), by="no-dhcp-spoofing-rules"),
            drops(dhcp_question("request", op=2), by="no-dhcp-spoofing-rules"),
            drops(dhcp_question("release", client=OTHER, own=OTHER_IP, sport=67), by="no-dhcp-spoofing-rules"),
            drops(vlan(dhcp_question("discover", client=OTHER)), by="no-dhcp-spoofing-rules"),
            drops(udp(dport=67), by="no-dhcp-spoofing-rules"),
            *(
                drops(dhcpv6_question(kind), by="no-dhcp-spoofing-rules")
                for kind in (2, 7, 8, 9, 10, 12, 13, 14, 20, 35, 37)
            ),
            admits(incoming(udp, dport=67)),
            admits(dhcp_offer()),
        ),
        parameters=ADDRESSES,
    ),
    "no-unreadable-packets": Spec(
        (
            passes(ipv4()),
            passes(arp()),
            passes(ipv6()),
            passes(ping6()),
            passes(vlan(ipv4())),
            passes(vlan(ipv6())),
            passes(stp_bpdu()),
            passes(frames.ether()),
            passes(vlan(frames.ether())),
            *(drops(frame, by="no-unreadable-packets") for frame in wrapping.in_two_tags(ping6()).values()),
            *(drops(frame, by="no-unreadable-packets") for frame in wrapping.in_two_tags(arp()).values()),
            *(drops(frame, by="no-unreadable-ipv6") for frame in wrapping.behind_unusual_headers(ping6()).values()),
            admits(vlan(vlan(incoming(ipv4)))),
            admits(frames.snap(incoming(ipv4))),
        )
    ),
    "no-unreadable-ipv6": Spec(
        (
            passes(ping6()),
            passes(wrapping.extended(ping6(), wrapping.HIP)),
            passes(vlan(ping6())),
            drops(vlan(wrapping.extended(ping6(), wrapping.HIP)), by="no-unreadable-ipv6"),
        ),
        parameters=(("TAGGED", "yes"),),
    ),
    "no-router-advertisements-rules": Spec(
        (
            passes(router_solicitation()),
            passes(vlan(router_advertisement())),
            drops(router_advertisement(), by="no-router-advertisements-rules"),
        ),
        parameters=(("TAGGED", "no"),),
    ),
    "no-ipv6-nd-spoofing-rules": Spec(
        (
            passes(advertise("2001:db8::3")),
            passes(vlan(advertise())),
            drops(vlan(advertise("2001:db8::3")), by="no-ipv6-nd-spoofing-rules"),
        ),
        parameters=(("TAGGED", "yes"), ("IPV6", frames.GUEST_IP6), ("IPV6", GUEST_LINK_LOCAL)),
    ),
    "no-dhcp-spoofing-rules": Spec(
        (
            passes(dhcp_question("request", own=SECOND_IP)),
            passes(vlan(dhcp_question("discover", client=OTHER))),
            drops(dhcp_question("discover", client=OTHER), by="no-dhcp-spoofing-rules"),
        ),
        parameters=(("TAGGED", "no"), *ADDRESSES),
    ),
    "no-encapsulation": Spec(
        (
            passes(ipv4()),
            passes(arp(sender=OTHER)),
            passes(ipv6()),
            passes(stp_bpdu()),
            passes(frames.ether()),
            drops(vlan(ipv4(src_ip=OTHER_IP), 0), by="no-encapsulation"),
            drops(vlan(arp()), by="no-encapsulation"),
            drops(vlan(frames.ether()), by="no-encapsulation"),
            drops(vlan(udp(), 0, ethertype=0x88A8), by="no-unreadable-packets"),
            drops(frames.snap(arp()), by="no-unreadable-packets"),
            admits(vlan(incoming(ipv4))),
        )
    ),
    "vlan-trunk": Spec(
        (
            passes(vlan(ipv4(), 7)),
            passes(vlan(arp(src=OTHER), 7)),
            passes(vlan(ipv6(), 4094)),
            passes(vlan(frames.snap(udp()), 7)),
            passes(vlan(udp(), 0xE007)),
            drops(vlan(ipv4(), 8), by="vlan-trunk"),
            drops(vlan(ipv4(), 0), by="vlan-trunk"),
            drops(ipv4(), by="vlan-trunk"),
            drops(arp(), by="vlan-trunk"),
            drops(stp_bpdu(), by="vlan-trunk"),
            drops(vlan(vlan(ipv4(), 7), 7), by="vlan-trunk"),
            drops(vlan(vlan(ipv4(), 8), 7), by="vlan-trunk"),
            drops(vlan(vlan(ipv4(), 7, ethertype=0x88A8), 7), by="vlan-trunk"),
            drops(vlan(ipv4(), 7, ethertype=0x88A8), by="vlan-trunk"),
            drops(vlan(vlan(ipv4(), 7), 7, ethertype=0x88A8), by="vlan-trunk"),
            admits(vlan(incoming(ipv4), 7)),
            admits(vlan(incoming_arp(), 4094)),
            refuses(vlan(incoming(ipv4), 8), by="vlan-trunk"),
            refuses(incoming(ipv4), by="vlan-trunk"),
            refuses(vlan(vlan(incoming(ipv4), 8), 7), by="vlan-trunk"),
            refuses(vlan(incoming(ipv4), 7, ethertype=0x88A8), by="vlan-trunk"),
        ),
        parameters=(("VLAN", "7"), ("VLAN", "4094")),
    ),
    "vdsm-no-mac-spoofing": Spec(
        (
            passes(ipv4(src_ip=OTHER_IP)),
            passes(arp(sender_ip=OTHER_IP)),
            passes(ipv6()),
            passes(vlan(ipv4())),
            drops(ipv4(src=OTHER), by="no-mac-spoofing"),
            drops(arp(sender=OTHER), by="no-arp-mac-spoofing"),
            admits(incoming(ipv4)),
            admits(incoming_arp()),
        )
    ),
    "nova-no-nd-reflection": Spec(
        (
            passes(detect()),
            admits(detect(src=OTHER)),
            admits(incoming(ipv6, src=GUEST)),
            refuses(detect(), by="nova-no-nd-reflection"),
        )
    ),
    "nova-nodhcp": Spec(
        (
            passes(ipv4()),
            passes(arp()),
            passes(ipv6()),
            drops(ipv4(src=OTHER), by="no-mac-spoofing"),
            drops(ipv4(src_ip=OTHER_IP), by="no-ip-spoofing"),
            drops(arp(sender_ip=OTHER_IP), by="no-arp-ip-spoofing"),
            admits(incoming(ipv4)),
            admits(dhcp_offer()),
            refuses(detect(), by="nova-no-nd-reflection"),
        ),
        parameters=ADDRESSES,
    ),
    "nova-base": Spec(
        (
            passes(ipv4()),
            passes(dhcp_discover(), by="allow-dhcp-server"),
            drops(ipv4(src=OTHER), by="no-mac-spoofing"),
            drops(ipv4(src_ip=OTHER_IP), by="no-ip-spoofing"),
            admits(dhcp_offer(), by="allow-dhcp-server"),
            admits(incoming(ipv4)),
            refuses(detect(), by="nova-no-nd-reflection"),
        ),
        parameters=(*ADDRESSES, ("DHCPSERVER", OTHER_IP)),
    ),
    "no-router-advertisements": Spec(
        (
            passes(router_solicitation()),
            passes(solicit()),
            passes(ping6()),
            passes(vlan(router_solicitation())),
            passes(vlan(udp6())),
            drops(router_advertisement(), by="no-router-advertisements-rules"),
            drops(redirect(), by="no-router-advertisements-rules"),
            drops(vlan(router_advertisement()), by="no-router-advertisements-rules"),
            drops(vlan(vlan(router_advertisement())), by="no-unreadable-packets"),
        )
    ),
    "no-ipv6-nd-spoofing": Spec(
        (
            passes(solicit()),
            passes(solicit(mac=None)),
            passes(advertise()),
            passes(advertise(mac=None)),
            passes(detect()),
            passes(detect(nonce=True)),
            passes(solicit(src_ip=LINK_LOCAL)),
            passes(advertise(LINK_LOCAL, src_ip=LINK_LOCAL)),
            passes(advertise(LINK_LOCAL, src_ip=LINK_LOCAL, mac=None)),
            passes(detect(LINK_LOCAL)),
            passes(vlan(advertise())),
            passes(router_solicitation()),
            passes(ipv6(src_ip="2001:db8::3")),
            drops(vlan(advertise("2001:db8::3")), by="no-ipv6-nd-spoofing-rules"),
            drops(advertise(LINK_LOCAL, mac=OTHER), by="no-ipv6-nd-spoofing-rules"),
            drops(advertise(OTHER_LINK_LOCAL), by="no-ipv6-nd-spoofing-rules"),
            drops(detect(OTHER_LINK_LOCAL), by="no-ipv6-nd-spoofing-rules"),
            drops(solicit(src_ip="2001:db8::3"), by="no-ipv6-nd-spoofing-rules"),
            drops(solicit(mac=OTHER), by="no-ipv6-nd-spoofing-rules"),
            drops(advertise("2001:db8::3"), by="no-ipv6-nd-spoofing-rules"),
            drops(advertise(mac=OTHER), by="no-ipv6-nd-spoofing-rules"),
            drops(detect("2001:db8::3"), by="no-ipv6-nd-spoofing-rules"),
        ),
        parameters=(("IPV6", frames.GUEST_IP6), ("IPV6", GUEST_LINK_LOCAL)),
    ),
    "no-ipv6-address-spoofing": Spec(
        (
            passes(ipv6()),
            passes(dhcpv6_solicit(src_ip=LINK_LOCAL)),
            passes(ping6(src_ip=LINK_LOCAL)),
            passes(ipv4(src_ip=OTHER_IP)),
            drops(dhcpv6_solicit(src_ip=OTHER_LINK_LOCAL), by="no-ipv6-address-spoofing"),
            drops(udp6(src_ip=OTHER_LINK_LOCAL), by="no-ipv6-address-spoofing"),
            drops(ping6(src_ip="2001:db8::3"), by="no-ipv6-address-spoofing"),
            drops(detect(), by="no-ipv6-address-spoofing"),
            admits(incoming(ipv6)),
        ),
        parameters=(("IPV6", frames.GUEST_IP6), ("LINK_LOCAL", LINK_LOCAL)),
    ),
    "clean-traffic-dual": Spec(
        (
            passes(ipv4(), by="clean-traffic-dual"),
            passes(arp(), by="clean-traffic-dual"),
            passes(ping6(), by="clean-traffic-dual"),
            passes(solicit(src_ip=GUEST_LINK_LOCAL), by="clean-traffic-dual"),
            passes(advertise(), by="clean-traffic-dual"),
            passes(detect(), by="clean-traffic-dual"),
            passes(router_solicitation(src_ip="::"), by="clean-traffic-dual"),
            passes(dhcpv6_solicit(), by="clean-traffic-dual"),
            passes(rarp_announce(), by="qemu-announce-self-rarp"),
            drops(ping6(src=OTHER), by="no-mac-spoofing"),
            *NOT_CLEAN,
            *(drops(frame, by=REST) for frame in UNREADABLE),
            *(drops(frame, by="no-unreadable-ipv6") for frame in wrapping.behind_unusual_headers(ping6()).values()),
            drops(ping6(src_ip="2001:db8::3"), by="no-ipv6-address-spoofing"),
            drops(ping6(src_ip="::"), by="no-ipv6-address-spoofing"),
            drops(dhcpv6_solicit(src_ip=OTHER_LINK_LOCAL), by="no-ipv6-address-spoofing"),
            drops(udp6(src_ip=OTHER_LINK_LOCAL, sport=53), by="no-ipv6-address-spoofing"),
            drops(dhcp_question("release", client=OTHER, own=OTHER_IP), by="no-dhcp-spoofing-rules"),
            drops(dhcpv6_question(8), by="no-dhcp-spoofing-rules"),
            drops(advertise("2001:db8::3"), by="no-ipv6-nd-spoofing-rules"),
            drops(detect("2001:db8::3"), by="no-ipv6-nd-spoofing-rules"),
            drops(router_advertisement(), by="no-router-advertisements-rules"),
            drops(vlan(ipv6()), by=REST),
            admits(incoming(ipv4), by="allow-incoming-ipv4"),
            admits(incoming(ipv6), by="allow-incoming-ipv6"),
            admits(incoming_arp(), by="clean-traffic-dual"),
            refuses(vlan(incoming(ipv6)), by=REST),
        ),
        parameters=(*ADDRESSES, ("IPV6", frames.GUEST_IP6), ("IPV6", GUEST_LINK_LOCAL)),
    ),
}


def test_every_stock_filter_is_tried() -> None:
    """No filter of ours goes without frames that pass and frames that don't."""
    assert set(SPECS) == {path.stem for path in STOCK_FILTERS.glob("*.xml")}
    for name, spec in SPECS.items():
        verdicts = {case.passes for case in spec.cases}
        assert verdicts == ({False} if name == REST else {True, False}), name


@pytest.mark.parametrize("name", SPECS)
def test_stock_filter(wire: Wire, tmp_path: Path, name: str) -> None:
    """The filter decides about each frame as its comment says, by the rule it should."""
    spec = SPECS[name]
    assert [case for case in spec.cases if not _arrives(wire, case)] == []

    references = "".join(f"<filterref filter='{one}'/>" for one in (name, *spec.beside))
    (tmp_path / "tried.xml").write_text(f"<filter name='tried'>{references}</filter>")
    wire.configure(filter_dirs=[tmp_path], counters="all")
    wire.start("web", domain("web", [interface("vnet0", "tried", spec.parameters)]))

    expected = [(case, case.passes, [case.by] if case.by else []) for case in spec.cases]
    assert [(case, *_fate(wire, case)) for case in spec.cases] == expected


def _route(case: Case) -> tuple[str, str]:
    return ("vnet1", "vnet0") if case.incoming else ("vnet0", "vnet1")


def _arrives(wire: Wire, case: Case) -> bool:
    sender, to = _route(case)
    return wire.passes(case.frame, sender, to)


def _fate(wire: Wire, case: Case) -> tuple[bool, list[str]]:
    """Does it arrive, and the rules of which filters decided?"""
    sender, to = _route(case)
    fate = wire.fate(case.frame, sender, to)
    return fate.passed, [comment.rpartition(":")[0] for comment in fate.decided_by]
