"""
Neighbour discovery as bytes: what IPv6 has in place of ARP, honest or forged. RFC 4861, 4862.

A message is from GUEST at GUEST_IP6 unless a test says otherwise; its hop limit is 255, or nobody would believe it.
"""

from __future__ import annotations

from typing import Any

from scapy.layers.inet6 import (
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_Redirect,
    ICMPv6ND_RS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    ICMPv6NDOptUnknown,
    IPv6,
)
from scapy.layers.l2 import Ether

from tests.support.frames import GUEST, GUEST_IP6, OTHER_IP6


def message(payload: Any, *, src_ip: str = GUEST_IP6, dst_ip: str = "ff02::1", src: str = GUEST) -> bytes:
    """An IPv6 packet to all nodes, by default."""
    packet = IPv6(src=src_ip, dst=dst_ip, hlim=255) / payload
    return bytes(Ether(src=src, dst="33:33:00:00:00:01", type=0x86DD) / packet)


def solicit(target: str = OTHER_IP6, *, src_ip: str = GUEST_IP6, mac: str | None = GUEST) -> bytes:
    """A neighbour solicitation, with the sender's MAC unless that is None."""
    asked = ICMPv6ND_NS(tgt=target)
    return message(asked / ICMPv6NDOptSrcLLAddr(lladdr=mac) if mac else asked, src_ip=src_ip)


def detect(target: str = GUEST_IP6, *, nonce: bool = False, src: str = GUEST) -> bytes:
    """Duplicate address detection; with a nonce as RFC 7527 has it."""
    asked = ICMPv6ND_NS(tgt=target)
    payload = asked / ICMPv6NDOptUnknown(type=14, len=1, data=b"nonce!") if nonce else asked
    return message(payload, src_ip="::", src=src)


def advertise(target: str = GUEST_IP6, *, src_ip: str = GUEST_IP6, mac: str | None = GUEST) -> bytes:
    """A neighbour advertisement, with the sender's MAC unless that is None."""
    told = ICMPv6ND_NA(tgt=target, R=0, S=1, O=1)
    return message(told / ICMPv6NDOptDstLLAddr(lladdr=mac) if mac else told, src_ip=src_ip)


def router_advertisement(*, src_ip: str = GUEST_IP6) -> bytes:
    """A router tells about itself."""
    return message(ICMPv6ND_RA(), src_ip=src_ip)


def router_solicitation(*, src_ip: str = GUEST_IP6) -> bytes:
    """A host looks for a router."""
    return message(ICMPv6ND_RS(), src_ip=src_ip, dst_ip="ff02::2")


def redirect(*, src_ip: str = GUEST_IP6) -> bytes:
    """A router sends a neighbour elsewhere."""
    return message(ICMPv6ND_Redirect(tgt=GUEST_IP6, dst=OTHER_IP6), src_ip=src_ip)
