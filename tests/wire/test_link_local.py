"""The guest's link-local address is the one of its MAC, whoever gives or learns the others; what a start says of it."""

from __future__ import annotations

import pytest
from scapy.layers.inet6 import ICMPv6MLReport2, IPv6ExtHdrHopByHop

from tests.support import frames
from tests.support.discovery import advertise, detect, message, router_solicitation, solicit
from tests.support.domains import Parameters, domain, interface
from tests.support.learned import command, learned
from tests.support.netns import Wire

pytestmark = pytest.mark.netns

OWN, PRIVATE, ROUTER = "fe80::5054:ff:fe00:1", "fe80::a1b2:c3d4:e5f6:7", "fe80::1"
GIVEN = (("IP", frames.GUEST_IP), ("IPV6", frames.GUEST_IP6))
LEARNING = (("IP", frames.GUEST_IP), ("CTRL_IPV6_LEARNING", "any"))
SAID = (
    f"of link-local addresses the guest has {OWN} only, that of its MAC; "
    "if it makes another (RFC 7217: Windows, NetworkManager), give it as parameter LINK_LOCAL"
)


def guest(parameters: Parameters, filter_name: str = "clean-traffic-dual") -> str:
    """A guest at vnet0."""
    return domain("web", [interface("vnet0", filter_name, parameters)])


def life(address: str) -> dict[str, bytes]:
    """What a guest does with its link-local address."""
    return {
        "detects": detect(address),
        "router-solicitation": router_solicitation(src_ip=address),
        "solicits": solicit(src_ip=address),
        "solicits-without-mac": solicit(src_ip=address, mac=None),
        "advertises": advertise(address, src_ip=address),
        "advertises-without-mac": advertise(address, src_ip=address, mac=None),
        "joins-groups": message(IPv6ExtHdrHopByHop() / ICMPv6MLReport2(), src_ip=address, dst_ip="ff02::16"),
        "dhcpv6": frames.dhcpv6_solicit(src_ip=address),
        "dhcpv6-request": frames.dhcpv6_question(3, src_ip=address),
        "ping": frames.ping6(src_ip=address),
        "udp": frames.udp6(src_ip=address),
    }


def lives(wire: Wire, address: str) -> set[str]:
    """What of it passes."""
    return {what for what, frame in life(address).items() if wire.passes(frame)}


ALL = set(life(OWN))


def test_its_own_beside_a_given_address(wire: Wire) -> None:
    """With IPV6 given, all that the guest does with the address of its MAC passes; of no other link-local address."""
    assert lives(wire, ROUTER) == ALL
    finished = wire.hook("web", "start", guest(GIVEN))
    assert finished.returncode == 0
    assert lives(wire, OWN) == ALL
    assert lives(wire, ROUTER) == lives(wire, PRIVATE) == set()
    for answer in (
        frames.udp6(src_ip=ROUTER, sport=53),
        frames.udp6(src_ip=ROUTER, dst_ip="ff02::fb", sport=5353, dport=5353),
    ):
        assert not wire.passes(answer)
    assert wire.passes(frames.ping6())
    assert wire.passes(frames.incoming(frames.ping6, dst_ip=OWN, src_ip=ROUTER), "vnet1", "vnet0")
    assert wire.passes(frames.dhcpv6_reply(dst_ip=OWN), "vnet1", "vnet0")


@pytest.mark.parametrize("name", ["IPV6", "LINK_LOCAL"])
def test_a_guest_that_makes_another(wire: Wire, name: str) -> None:
    """Given as IPV6, it is the guest's beside that of its MAC; given as LINK_LOCAL, in its place."""
    wire.start("web", guest((*GIVEN, (name, PRIVATE))))
    assert lives(wire, PRIVATE) == ALL
    assert lives(wire, OWN) == (ALL if name == "IPV6" else set())
    assert lives(wire, ROUTER) == set()


def test_none_is_learned(wire: Wire) -> None:
    """Neither use nor duplicate address detection teaches one; others are learned as ever."""
    wire.start("web", guest(LEARNING))
    assert lives(wire, ROUTER) == set()
    assert lives(wire, OWN) == ALL
    assert learned(wire) == []
    assert wire.passes(detect(frames.GUEST_IP6))
    assert wire.passes(frames.ping6(src_ip="fec0::1"))  # not of fe80::/10 any more
    assert learned(wire) == [frames.GUEST_IP6, "fec0::1"]
    assert lives(wire, ROUTER) == set()


def test_one_is_learned_where_that_is_asked_for(wire: Wire) -> None:
    """With CTRL_IPV6_LINK_LOCAL=any it counts among the addresses that the guest has by using them."""
    parameters = (*LEARNING, ("CTRL_IPV6_LINK_LOCAL", "any"), ("CTRL_IPV6_LEARNING_MAX", "2"))
    wire.start("web", guest(parameters))
    assert lives(wire, PRIVATE) == ALL
    assert wire.passes(frames.ping6())
    assert learned(wire) == [frames.GUEST_IP6, PRIVATE]
    assert lives(wire, ROUTER) == set()
    assert lives(wire, OWN) == ALL


def test_a_start_says_so_once(wire: Wire) -> None:
    """A start with IPv6 addresses but no link-local one tells which the guest has: once, and at no other event."""
    for operation in ("prepare", "start", "reconnect", "attach"):
        finished = wire.hook("web", operation, guest(GIVEN))
        assert finished.returncode == 0
        expected = f"nwfilter-hook: web: vnet0: {SAID}\n" if operation == "start" else ""
        assert finished.stderr == expected
    assert "LINK_LOCAL" not in command(wire, "show")


@pytest.mark.parametrize(
    ("filter_name", "parameters"),
    [
        ("clean-traffic-dual", (*GIVEN, ("LINK_LOCAL", OWN))),
        ("clean-traffic-dual", (*GIVEN, ("IPV6", PRIVATE))),
        ("clean-traffic-dual", LEARNING),
        ("no-ipv6-spoofing", GIVEN),  # has no use for it
        ("clean-traffic", GIVEN),
    ],
)
def test_a_start_that_has_nothing_to_say(wire: Wire, filter_name: str, parameters: Parameters) -> None:
    """One is given, or they are learned, or the filter doesn't ask."""
    wire.start("web", guest(parameters, filter_name))
