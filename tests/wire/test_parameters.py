"""What parameters mean for frames: networks as addresses."""

from __future__ import annotations

import pytest

from tests.support.discovery import advertise, detect, solicit
from tests.support.domains import Parameters, domain, filterref, interface
from tests.support.frames import GUEST, arp, ipv4, ipv6, udp
from tests.support.netns import Wire

pytestmark = pytest.mark.netns


def by_metadata(filter_name: str, parameters: Parameters) -> str:
    """A guest whose reference is in its metadata."""
    reference = f'<nwf:interface mac="{GUEST}">{filterref(filter_name, parameters)}</nwf:interface>'
    metadata = f'<nwf:bindings xmlns:nwf="https://nwfilter-hook.org/xmlns/1">{reference}</nwf:bindings>'
    return domain("web", [interface("vnet0", None)], metadata=metadata)


def test_a_network_is_all_of_its_addresses(wire: Wire) -> None:
    """A guest with networks has all of their addresses, in IPv4, ARP, IPv6 and neighbour discovery; no others."""
    given = (("IP", "10.0.5.8/29"), ("IP", "10.0.6.1"), ("IPV6", "2001:db8:7::/64"))
    wire.start("web", by_metadata("clean-traffic-dual", given))
    for address in ("10.0.5.8", "10.0.5.15", "10.0.6.1"):
        assert wire.passes(udp(src_ip=address))
        assert wire.passes(arp(sender_ip=address))
    for address in ("10.0.5.7", "10.0.5.16", "10.0.6.2", "10.0.6.0"):
        assert not wire.passes(udp(src_ip=address))
        assert not wire.passes(ipv4(src_ip=address))
        assert not wire.passes(arp(sender_ip=address))
    for address, passes in (("2001:db8:7::1", True), ("2001:db8:7:0:ffff::9", True), ("2001:db8:7:1::1", False)):
        assert wire.passes(ipv6(src_ip=address)) is passes
        assert wire.passes(detect(address)) is passes
        assert wire.passes(solicit(src_ip=address)) is passes
        assert wire.passes(advertise(address, src_ip="2001:db8:7::1")) is passes
