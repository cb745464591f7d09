"""Learned addresses wherever an address may stand, kept and forgotten when they should be, shown and set by hand."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet6 import (
    ICMPv6MLReport2,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6NDOptDstLLAddr,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
)

from tests.support import frames
from tests.support.discovery import (
    advertise,
    detect,
    message,
    redirect,
    router_advertisement,
    router_solicitation,
    solicit,
)
from tests.support.domains import Parameters, domain, interface
from tests.support.frames import GUEST, OTHER, arp, dhcp_discover, incoming, ipv4, rarp_announce, vlan
from tests.support.learned import command, learned, shown
from tests.support.netns import Wire

pytestmark = pytest.mark.netns

FIRST, SECOND, THIRD = "10.0.5.5", "10.0.5.6", "10.0.5.7"
MAX_2 = ("CTRL_IP_LEARNING_MAX", "2")


def guest(filter_name: str, parameters: Parameters = ()) -> str:
    """A guest at vnet0."""
    return domain("web", [interface("vnet0", filter_name, parameters)])


def start(wire: Wire, filter_name: str = "clean-traffic", parameters: Parameters = ()) -> None:
    """Start the guest under this filter."""
    wire.start("web", guest(filter_name, parameters))


@pytest.fixture
def rules(wire: Wire, tmp_path: Path) -> Any:
    """A function that starts the guest under a filter "own" of these rules."""

    def start_under(*texts: str, parameters: Parameters = (), chain: str = "root") -> None:
        content = "".join(texts)
        (tmp_path / "own.xml").write_text(f"<filter name='own' chain='{chain}'>{content}</filter>")
        wire.configure(filter_dirs=[tmp_path])
        start(wire, "own", parameters)

    return start_under


def rule(protocol: str, action: str = "accept", direction: str = "out", priority: int = 500) -> str:
    """One <rule>."""
    return f"<rule action='{action}' direction='{direction}' priority='{priority}'>{protocol}</rule>"


REST = rule("", "drop", "inout", 900)

# --- where an address may stand ---------------------------------------------------------------------------------------


def test_several_addresses(wire: Wire) -> None:
    """With CTRL_IP_LEARNING_MAX = 2 the first two addresses are the guest's, a third is not."""
    start(wire, parameters=[MAX_2])
    assert wire.passes(ipv4(src_ip=FIRST))
    assert wire.passes(arp(sender_ip=SECOND))
    assert not wire.passes(arp(sender_ip=THIRD))
    assert not wire.passes(ipv4(src_ip=THIRD))
    assert wire.passes(ipv4(src_ip=SECOND))
    assert wire.passes(arp(sender_ip=FIRST))
    assert learned(wire) == [FIRST, SECOND]


def test_a_negated_address(wire: Wire, rules: Any) -> None:
    """match='no' with a learned address means what it means with a given one: every other address."""
    rules(rule("<ip match='no' srcipaddr='$IP'/>", "drop"), rule("<arp match='no' arpsrcipaddr='$IP'/>", "drop"))
    assert wire.passes(ipv4(src_ip=FIRST))
    assert not wire.passes(ipv4(src_ip=SECOND))
    assert not wire.passes(arp(sender_ip=SECOND))
    assert wire.passes(arp(sender_ip=FIRST))


def test_an_address_under_a_mask(wire: Wire, rules: Any) -> None:
    """With a mask the learned address stands for its network, even if the address itself is used nowhere."""
    rules(rule("<ip srcipaddr='$IP' srcipmask='24'/>"), REST)
    assert wire.passes(ipv4(src_ip="10.0.5.5"))
    assert wire.passes(ipv4(src_ip="10.0.5.99"))
    assert not wire.passes(ipv4(src_ip="10.0.6.5"))
    assert not wire.passes(ipv4(src_ip="10.0.6.6"))


def test_a_mask_and_several_addresses(wire: Wire, rules: Any) -> None:
    """Two addresses of one network leave no room for a third in another network."""
    rules(rule("<ip srcipaddr='$IP' srcipmask='24'/>"), REST, parameters=[MAX_2])
    assert wire.passes(ipv4(src_ip="10.0.5.5"))
    assert wire.passes(ipv4(src_ip="10.0.5.6"))
    assert not wire.passes(ipv4(src_ip="10.0.6.5"))
    assert wire.passes(ipv4(src_ip="10.0.5.7"))


def test_as_destination(wire: Wire, rules: Any) -> None:
    """The learned address can be asked of what the guest gets."""
    rules(rule("<ip dstipaddr='$IP'/>", direction="in"), rule("", "drop", "in", 900))
    assert not wire.passes(incoming(ipv4, dst_ip=FIRST), "vnet1", "vnet0")
    assert wire.passes(ipv4(src_ip=FIRST))
    assert wire.passes(incoming(ipv4, dst_ip=FIRST), "vnet1", "vnet0")
    assert not wire.passes(incoming(ipv4, dst_ip=SECOND), "vnet1", "vnet0")


def test_in_rarp(wire: Wire, rules: Any) -> None:
    """The learned address can stand in RARP, which teaches nothing itself; under a mask and negated too."""
    rules(
        rule("<rarp arpsrcipaddr='$IP'/>"),
        rule("<rarp match='no' arpdstipaddr='$IP' arpdstipmask='24'/>", "drop", priority=600),
        rule("<rarp/>", "drop", priority=700),
    )
    assert not wire.passes(rarp_announce(ip=FIRST))
    assert wire.passes(arp(sender_ip=FIRST))
    assert wire.passes(rarp_announce(ip=FIRST))
    assert not wire.passes(rarp_announce(ip=SECOND))


# --- kept and forgotten -----------------------------------------------------------------------------------------------


def test_it_survives_what_is_not_a_start(wire: Wire, tmp_path: Path) -> None:
    """Re-apply, reconnect and a redefined filter keep the address and its age; a start forgets it."""
    content = rule("<ip srcipaddr='$IP'/>")
    for text in (content + REST, content + rule("<arp/>") + REST):
        (tmp_path / "own.xml").write_text(f"<filter name='own'>{text}</filter>")
        wire.configure(filter_dirs=[tmp_path])
        if not wire.rules():
            start(wire, "own")
            assert wire.passes(ipv4(src_ip=FIRST))
            since = shown(wire)["learned_since"]
        command(wire, "reload")
        for operation in ("attach", "reconnect"):
            assert wire.hook("web", operation, guest("own")).returncode == 0
        assert wire.passes(ipv4(src_ip=FIRST))
        assert not wire.passes(ipv4(src_ip=SECOND))
    assert wire.passes(arp(sender_ip=FIRST))  # the redefined filter is in force
    assert list(since) == [FIRST]
    assert list(shown(wire)["learned_since"]) == [FIRST]
    assert _seconds_between(since[FIRST], shown(wire)["learned_since"][FIRST]) <= 1
    start(wire, "own")
    assert learned(wire) == []


def _seconds_between(one: str, other: str) -> float:
    return abs((datetime.fromisoformat(one) - datetime.fromisoformat(other)).total_seconds())


def test_show_tells_since_when(wire: Wire) -> None:
    """`show` prints the address and the time of the frame that taught it, whatever is sent later."""
    start(wire)
    assert shown(wire)["learned_since"] == {}
    before = datetime.now(timezone.utc)
    wire.passes(ipv4(src_ip=FIRST))
    first = shown(wire)["learned_since"][FIRST]
    assert abs((datetime.fromisoformat(first) - before).total_seconds()) <= 3
    wire.passes(ipv4(src_ip=FIRST))
    assert _seconds_between(shown(wire)["learned_since"][FIRST], first) <= 1
    local = datetime.fromisoformat(first).astimezone().strftime("%Y-%m-%d %H:%M")
    assert f"{FIRST} since {local}" in command(wire, "show")


def test_learn(wire: Wire) -> None:
    """`learn` sets the address by hand, whatever was learned before."""
    start(wire)
    assert command(wire, "learn", "vnet0", SECOND) == f"vnet0: {SECOND}\n"
    assert not wire.passes(ipv4(src_ip=FIRST))
    assert wire.passes(ipv4(src_ip=SECOND))
    command(wire, "learn", "vnet0", FIRST)
    assert learned(wire) == [FIRST]
    assert not wire.passes(ipv4(src_ip=SECOND))
    assert "learned" in wire.ruleset()


@pytest.mark.parametrize(
    ("arguments", "refusal"),
    [
        (("learn", "vnet0", FIRST, SECOND), "vnet0: 2 IPv4 addresses, but it may have 1"),
        (("learn", "vnet0", "2001:db8::1"), "vnet0: no IPv6 address is learned for it; its filter is clean-traffic"),
        (("learn", "vnet0", "224.0.0.1"), "224.0.0.1: no host can have this address"),
        (("learn", "vnet0", "10.0.0"), "'10.0.0' is not an IP address"),
        (("learn", "vnet9", FIRST), "tap 'vnet9' has no filter"),
        (("relearn", "vnet9"), "tap 'vnet9' has no filter"),
    ],
)
def test_what_cannot_be_learned(wire: Wire, arguments: tuple[str, ...], refusal: str) -> None:
    """An address too many, of a family that isn't learned, or no address at all: nothing changes."""
    start(wire)
    assert wire.passes(ipv4(src_ip=THIRD))
    assert command(wire, *arguments, check=False) == refusal
    assert learned(wire) == [THIRD]


def test_nothing_to_learn(wire: Wire) -> None:
    """A tap whose addresses are given has nothing to forget."""
    start(wire, parameters=[("IP", FIRST)])
    refusal = "vnet0: no address is learned for it; its filter is clean-traffic"
    assert command(wire, "relearn", "vnet0", check=False) == refusal
    assert command(wire, "learn", "vnet0", FIRST, check=False) == refusal


def test_nothing_is_left(wire: Wire) -> None:
    """When the guest ends, its sets and maps go with it."""
    for parameters in ([], [MAX_2], [("CTRL_IP_LEARNING", "dhcp")], [("CTRL_IP_LEARNING", "dhcp"), MAX_2]):
        start(wire, parameters=parameters)
        wire.stop("web", domain("web", [interface(None, "clean-traffic", parameters)]))
        for word in ("learned", "leased", "unread", "vnet0"):
            assert word not in wire.ruleset()


def test_another_way_of_learning_starts_anew(wire: Wire) -> None:
    """A running guest that is given another mode or maximum learns anew; nothing of the old is left."""
    for parameters in ([], [MAX_2], [("CTRL_IP_LEARNING", "dhcp")], []):
        assert wire.hook("web", "attach", guest("clean-traffic", parameters)).returncode == 0
        assert learned(wire) == []
        wire.passes(ipv4(src_ip=FIRST))
    assert "leased" not in wire.ruleset()


# --- IPv6 -------------------------------------------------------------------------------------------------------------

ANY6 = ("CTRL_IPV6_LEARNING", "any")
OWN = "fe80::5054:ff:fe00:1"
GLOBAL, PRIVATE, TEMPORARY = "2001:db8::1", "2001:db8::2", "2001:db8::3"
VICTIM = "2001:db8::99"


@pytest.fixture
def dual(wire: Wire) -> Wire:
    """A guest under clean-traffic-dual that learns all its addresses, up to three for IPv6."""
    start(wire, "clean-traffic-dual", [ANY6, ("CTRL_IPV6_LEARNING_MAX", "3")])
    return wire


def test_ipv6_addresses_are_learned(dual: Wire) -> None:
    """Source addresses teach up to the maximum; the link-local address of the MAC needs no lesson."""
    assert dual.passes(frames.ping6(src_ip=OWN))
    assert learned(dual) == []
    for address in (GLOBAL, PRIVATE, TEMPORARY):
        assert dual.passes(frames.ping6(src_ip=address))
    assert learned(dual) == [GLOBAL, PRIVATE, TEMPORARY]
    assert not dual.passes(frames.ping6(src_ip=VICTIM))
    for address in (OWN, GLOBAL, PRIVATE, TEMPORARY):
        assert dual.passes(frames.ping6(src_ip=address))
    assert dual.passes(ipv4(src_ip=FIRST))
    assert not dual.passes(ipv4(src_ip=SECOND))


@pytest.mark.parametrize(
    "frame",
    [
        frames.ping6(src=OTHER, src_ip=VICTIM),
        frames.ping6(src_ip="ff02::1"),
        frames.ping6(src_ip="::1"),
        vlan(frames.ping6(src_ip=VICTIM)),
        detect(VICTIM, src=OTHER),
        message(IPv6ExtHdrFragment(m=1) / ICMPv6ND_NS(tgt=VICTIM), src_ip="::"),
    ],
    ids=["another-mac", "multicast", "loopback", "in-a-tag", "dad-of-another-mac", "dad-in-a-fragment"],
)
def test_what_teaches_no_ipv6_address(dual: Wire, frame: bytes) -> None:
    """Another's MAC, addresses that no host has and tagged frames teach nothing and don't pass."""
    assert not dual.passes(frame)
    assert learned(dual) == []
    assert dual.passes(frames.ping6(src_ip=GLOBAL))


def test_relearn_and_learn_ipmessage(dual: Wire) -> None:
    """Both commands work on IPv6 addresses; the guest's link-local address stays."""
    assert dual.passes(frames.ping6(src_ip=GLOBAL))
    command(dual, "learn", "vnet0", PRIVATE, TEMPORARY)
    assert learned(dual) == [PRIVATE, TEMPORARY]
    assert dual.passes(frames.ping6(src_ip=OWN))
    command(dual, "relearn", "vnet0")
    assert learned(dual) == []
    assert dual.passes(solicit(src_ip=OWN))
    assert dual.passes(detect(OWN))
    assert dual.passes(frames.ping6(src_ip=GLOBAL))
    assert learned(dual) == [GLOBAL]


def test_an_address_is_learned_when_the_guest_asks_whether_it_is_taken(dual: Wire) -> None:
    """Duplicate address detection passes and teaches; when the guest has enough addresses it doesn't."""
    for address in (GLOBAL, PRIVATE, TEMPORARY):
        assert dual.passes(detect(address, nonce=address == PRIVATE))
    assert learned(dual) == [GLOBAL, PRIVATE, TEMPORARY]
    assert not dual.passes(detect(VICTIM))
    assert dual.passes(detect(GLOBAL))


SPOOFED_ND = {
    "solicits-from-another": (solicit(src_ip=VICTIM), solicit()),
    "solicits-with-another-mac": (solicit(mac=OTHER), solicit()),
    "advertises-another": (advertise(VICTIM), advertise()),
    "advertises-another-without-mac": (advertise(VICTIM, mac=None), advertise(mac=None)),
    "advertises-another-mac": (advertise(mac=OTHER), advertise()),
    "a-second-option": (
        message(ICMPv6ND_NA(tgt=GLOBAL) / ICMPv6NDOptDstLLAddr(lladdr=GUEST) / ICMPv6NDOptDstLLAddr(lladdr=OTHER)),
        advertise(),
    ),
    "behind-an-extension": (
        message(IPv6ExtHdrHopByHop() / ICMPv6ND_NA(tgt=GLOBAL) / ICMPv6NDOptDstLLAddr(lladdr=OTHER)),
        advertise(),
    ),
    "in-a-fragment": (
        message(IPv6ExtHdrFragment(m=1) / ICMPv6ND_NA(tgt=GLOBAL)) + bytes.fromhex("0201525400000001"),
        advertise(),
    ),
    "router-advertisement": (router_advertisement(src_ip=OWN), router_solicitation(src_ip=OWN)),
    "redirect": (redirect(src_ip=OWN), router_solicitation(src_ip=OWN)),
}


@pytest.mark.parametrize("name", SPOOFED_ND)
def test_the_guest_speaks_for_itself_only(dual: Wire, name: str) -> None:
    """Neighbour discovery for others, with another's MAC, or as a router doesn't leave; the honest one does."""
    command(dual, "learn", "vnet0", GLOBAL, PRIVATE, TEMPORARY)
    spoofed, honest = SPOOFED_ND[name]
    assert dual.passes(honest)
    assert not dual.passes(spoofed)


def test_spoofed_discovery_passes_without_the_filter(wire: Wire) -> None:
    """Each of the frames above passes where no filter is."""
    assert all(wire.passes(spoofed) for spoofed, _ in SPOOFED_ND.values())


def test_a_guest_that_comes_up(dual: Wire) -> None:
    """What a guest sends before it has an address leaves: its groups, its search for a router."""
    reports = message(IPv6ExtHdrHopByHop() / ICMPv6MLReport2(), src_ip="::", dst_ip="ff02::16")
    for frame in (reports, detect(OWN), router_solicitation(src_ip="::"), dhcp_discover()):
        assert dual.passes(frame)
    assert not dual.passes(frames.ping6(src_ip="::"))
    assert dual.passes(frames.dhcpv6_solicit(src_ip=OWN))
