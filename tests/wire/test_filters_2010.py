"""The clean-traffic of May 2010 counts on what libvirt does at the end of a chain; tests/conformance has the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.domains import domain, interface
from tests.support.frames import (
    GUEST_IP,
    OTHER,
    OTHER_IP,
    arp,
    incoming,
    incoming_arp,
    ipv4,
    ipv6,
    rarp_announce,
    udp,
    vlan,
)
from tests.support.netns import Wire

pytestmark = pytest.mark.netns

FILTERS_2010 = Path(__file__).resolve().parents[1] / "data" / "filters-2010"


@pytest.mark.parametrize("end_of_chain", ["accept", "return"])
def test_clean_traffic(wire: Wire, end_of_chain: str) -> None:
    """What no-ip-spoofing doesn't drop goes out only where a chain ends with accept; all else is the same."""
    wire.configure(f"[language]\nend_of_chain = {end_of_chain}", filter_dirs=[FILTERS_2010])
    wire.start("web", domain("web", [interface("vnet0", "clean-traffic", [("IP", GUEST_IP)])]))
    assert [wire.passes(frame) for frame in (ipv4(), udp())] == [end_of_chain == "accept"] * 2
    assert [wire.passes(frame) for frame in (arp(), rarp_announce())] == [True] * 2
    assert [wire.passes(frame, "vnet1", "vnet0") for frame in (incoming_arp(), incoming(udp))] == [True] * 2
    for frame in (arp(src=OTHER), arp(sender_ip=OTHER_IP), ipv4(src_ip=OTHER_IP), ipv4(src=OTHER), ipv6(), vlan(arp())):
        assert not wire.passes(frame)
    assert not wire.passes(incoming(ipv6), "vnet1", "vnet0")
