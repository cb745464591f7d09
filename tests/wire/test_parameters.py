"""What parameters mean for frames: networks, addresses besides those that are learned, several MACs, a floor."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.discovery import advertise, detect, solicit
from tests.support.domains import Parameters, domain, filterref, interface
from tests.support.frames import GUEST, arp, dhcp_discover, incoming, ipv4, ipv6, udp
from tests.support.learned import command, learned
from tests.support.netns import Wire

pytestmark = pytest.mark.netns


def by_metadata(filter_name: str, parameters: Parameters) -> str:
    """A guest whose reference is in its metadata."""
    reference = f'<nwf:interface mac="{GUEST}">{filterref(filter_name, parameters)}</nwf:interface>'
    metadata = f'<nwf:bindings xmlns:nwf="https://nwfilter-hook.org/xmlns/1">{reference}</nwf:bindings>'
    return domain("web", [interface("vnet0", None)], metadata=metadata)


def test_a_network_is_all_of_its_addresses(wire: Wire) -> None:
    """A guest with networks has all of their addresses, in IPv4, ARP, IPv6 and neighbour discovery; no others."""
    given = (("IP", "10.0.5.8/29"), ("IP", "10.0.6.1"), ("IPV6", "2001:db8:7::/64"), ("LINK_LOCAL", "fe80::1"))
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


def test_fixed_addresses_besides_the_first_used(wire: Wire) -> None:
    """They are the guest's at once, and don't count: the first other address that it uses is learned."""
    fixed = (("CTRL_IP_FIXED", "10.0.5.200"), ("CTRL_IP_FIXED", "10.0.6.0/30"))
    wire.start("web", by_metadata("clean-traffic", fixed))
    for address in ("10.0.5.200", "10.0.6.3"):
        assert wire.passes(arp(sender_ip=address))
        assert wire.passes(ipv4(src_ip=address))
    assert learned(wire) == []
    assert wire.passes(ipv4(src_ip="10.0.5.5"))
    assert learned(wire) == ["10.0.5.5"]
    mine = {"10.0.5.5", "10.0.5.200", "10.0.6.0", "10.0.6.3"}
    for address in (*sorted(mine), "10.0.5.6", "10.0.5.201", "10.0.6.4"):
        assert wire.passes(udp(src_ip=address)) is (address in mine)
        assert wire.passes(arp(sender_ip=address)) is (address in mine)


def test_fixed_ipv6_addresses(wire: Wire) -> None:
    """The same for IPv6: not learned by use nor by duplicate address detection, and the guest's at once."""
    given = (("IP", "10.0.5.5"), ("CTRL_IPV6_LEARNING", "any"), ("CTRL_IPV6_LEARNING_MAX", "1"))
    fixed = (("CTRL_IPV6_FIXED", "2001:db8::200"), ("CTRL_IPV6_FIXED", "2001:db8:7::/64"))
    wire.start("web", by_metadata("clean-traffic-dual", (*given, *fixed)))
    for address in ("2001:db8::200", "2001:db8:7::1"):
        assert wire.passes(detect(address))
        assert wire.passes(advertise(address, src_ip=address))
        assert wire.passes(ipv6(src_ip=address))
    assert learned(wire) == []
    assert wire.passes(detect("2001:db8::5"))
    assert learned(wire) == ["2001:db8::5"]
    for address in ("2001:db8::6", "2001:db8::201", "2001:db8:8::1"):
        assert not wire.passes(ipv6(src_ip=address))
        assert not wire.passes(advertise(address, src_ip="2001:db8::5"))


def test_other_fixed_addresses_for_a_running_guest(wire: Wire) -> None:
    """`attach` with other ones keeps what is learned; one that is left out is no longer the guest's."""
    wire.start("web", by_metadata("clean-traffic", (("CTRL_IP_FIXED", "10.0.5.200"),)))
    assert wire.passes(ipv4(src_ip="10.0.5.5"))
    finished = wire.hook("web", "attach", by_metadata("clean-traffic", (("CTRL_IP_FIXED", "10.0.5.201"),)))
    assert (finished.returncode, finished.stderr) == (0, "")
    assert learned(wire) == ["10.0.5.5"]
    found = [each for each in ("10.0.5.5", "10.0.5.200", "10.0.5.201") if wire.passes(ipv4(src_ip=each))]
    assert found == ["10.0.5.5", "10.0.5.201"]


def test_a_floor_and_a_filter(wire: Wire, tmp_path: Path) -> None:
    """What the floor drops is dropped though the guest's filter accepts all; what the floor accepts is still judged."""
    rules = "<rule action='drop' direction='out'><ip protocol='udp' dstportstart='9'/></rule>"
    rules += "<rule action='accept' direction='inout' priority='-1000'><mac protocolid='arp'/></rule>"
    (tmp_path / "own.xml").write_text(f"<filter name='own'>{rules}</filter>")
    floor = "[defaults]\nfloor.br0 = clean-traffic IP=10.0.5.5\n"
    wire.configure(floor, filter_dirs=[tmp_path])
    wire.start("web", domain("web", [interface("vnet0", "own", [("IP", "10.0.5.6")])]))
    frames = {
        "own address": (udp(src_ip="10.0.5.5", dport=10), True),
        "its port": (udp(src_ip="10.0.5.5", dport=9), False),
        "another address": (udp(src_ip="10.0.5.6", dport=10), False),
        "arp": (arp(sender_ip="10.0.5.5"), True),
        "another's arp": (arp(sender_ip="10.0.5.6"), False),
        "ipv6": (ipv6(), False),
    }
    assert {name: wire.passes(frame) for name, (frame, _) in frames.items()} == {
        name: passes for name, (_, passes) in frames.items()
    }
    assert wire.passes(incoming(udp), "vnet1", "vnet0")
    assert not wire.passes(incoming(ipv6), "vnet1", "vnet0")


def test_guests_within_a_guest(wire: Wire) -> None:
    """The first MACs that a nested host uses are held, in DHCP and neighbour discovery too; `relearn` forgets them."""
    inner = [f"52:54:00:00:01:0{number}" for number in (1, 2, 3)]
    addresses = (("IP", "10.0.5.0/24"), ("IPV6", "2001:db8:7::/64"), ("LINK_LOCAL", "fe80::1"))
    given = (("CTRL_MAC_LEARNING_MAX", "2"), *addresses)
    wire.start("web", by_metadata("clean-traffic-dual", given))
    for _ in range(2):
        assert wire.passes(udp(src_ip="10.0.5.1"))
        for mac, passes in zip(inner, (True, True, False)):
            assert wire.passes(udp(src=mac, src_ip="10.0.5.2")) is passes
            assert wire.passes(arp(src=mac, sender=mac, sender_ip="10.0.5.2")) is passes
            assert wire.passes(dhcp_discover(src=mac)) is passes
            assert wire.passes(ipv6(src=mac, src_ip="2001:db8:7::2")) is passes
        asked = solicit("2001:db8:7::3", src_ip="2001:db8:7::2", mac=inner[0])
        assert wire.passes(from_mac(asked, inner[0]))
        assert not wire.passes(from_mac(asked, inner[1]))
        assert learned(wire) == inner[:2]
        command(wire, "relearn", "vnet0")
        assert learned(wire) == []
    assert wire.passes(udp(src=inner[2], src_ip="10.0.5.2"))
    wire.start("web", by_metadata("clean-traffic-dual", addresses))
    assert not wire.passes(udp(src=inner[2], src_ip="10.0.5.2"))


def from_mac(frame: bytes, mac: str) -> bytes:
    """`frame` with another source."""
    return frame[:6] + bytes.fromhex(mac.replace(":", "")) + frame[12:]
