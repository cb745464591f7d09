"""Who has an address first on a bridge has it: no tap learns what was given to another, or what the host has."""

from __future__ import annotations

import ipaddress
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nwfilter_hook.base.addresses import link_local, parse_mac
from tests.support import frames
from tests.support.discovery import detect
from tests.support.domains import Parameters, device, domain, interface, key_of, learned_set
from tests.support.frames import GUEST, OTHER, arp, ipv4
from tests.support.learned import command, learned, shown
from tests.support.netns import BRIDGE, Wire
from tests.wire.test_dhcp import GIVEN_SERVER, SERVER, reply

pytestmark = pytest.mark.netns

X, Y, Z = "10.0.5.5", "10.0.5.6", "10.0.5.7"
X6, Y6, Z6 = "2001:db8::5", "2001:db8::6", "2001:db8::7"
MACS = {"vnet0": GUEST, "vnet1": OTHER}
GUESTS = {"vnet0": "web", "vnet1": "db"}
WATCHER = "vnet9"
IPV6 = ("CTRL_IPV6_LEARNING", "any")
DUAL = (IPV6,)


@pytest.fixture
def wire(able: None) -> Iterator[Wire]:
    """A bridge with the taps vnet0 and vnet1, and one that nobody filters."""
    with Wire(("vnet0", "vnet1", WATCHER)) as wire:
        yield wire


def guest_xml(tap: str, filter_name: str, parameters: Parameters = (), bridge: str = BRIDGE) -> str:
    """The guest at this tap."""
    return domain(GUESTS[tap], [interface(tap, filter_name, parameters, mac=MACS[tap], bridge=bridge)])


def start(wire: Wire, tap: str, *parameters: tuple[str, str], filter_name: str = "clean-traffic") -> None:
    """Start the guest at this tap; it learns what isn't given."""
    wire.start(GUESTS[tap], guest_xml(tap, filter_name, parameters))


def start_with_networks(wire: Wire, tap: str, *parameters: tuple[str, str]) -> None:
    """As `start`, by metadata: libvirt's own XML can't hold networks."""
    given = "".join(f"<parameter name='{name}' value='{value}'/>" for name, value in parameters)
    metadata = (
        f"<nwf:bindings xmlns:nwf='https://nwfilter-hook.org/xmlns/1'><nwf:interface mac='{MACS[tap]}'>"
        f"<filterref filter='clean-traffic'>{given}</filterref></nwf:interface></nwf:bindings>"
    )
    wire.start(GUESTS[tap], domain(GUESTS[tap], [interface(tap, None, mac=MACS[tap])], metadata=metadata))


def stop(wire: Wire, tap: str) -> None:
    """It ends."""
    wire.stop(GUESTS[tap], guest_xml(tap, "clean-traffic"))


def may_use(wire: Wire, tap: str, address: str, to: str = WATCHER) -> bool:
    """Does what the guest sends from this address arrive? In IPv4 and ARP alike."""
    mac = MACS[tap]
    if ":" in address:
        return wire.passes(frames.ping6(src=mac, src_ip=address), tap, to)
    packet, question = ipv4(src=mac, src_ip=address), arp(src=mac, sender=mac, sender_ip=address)
    found = {wire.passes(packet, tap, to), wire.passes(question, tap, to)}
    assert len(found) == 1
    return found.pop()


# --- given ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("filter_name", ["clean-traffic", "no-mac-spoofing"])
def test_a_given_address_is_never_learned(wire: Wire, filter_name: str) -> None:
    """By whatever filter the other guest has it; every other address can be learned, and stays the guest's."""
    start(wire, "vnet1", ("IP", X), ("IP", Y), filter_name=filter_name)
    start(wire, "vnet0")
    assert not may_use(wire, "vnet0", X)
    assert not may_use(wire, "vnet0", Y)
    assert may_use(wire, "vnet0", Z)
    assert not may_use(wire, "vnet0", X)
    assert (learned(wire, "vnet0"), may_use(wire, "vnet1", X)) == ([Z], True)


def test_a_given_address_ends_that_it_was_learned(wire: Wire) -> None:
    """Who has used it before loses it with the transaction that gives it to another, and can learn a new one."""
    start(wire, "vnet0")
    assert may_use(wire, "vnet0", X)
    assert give(wire, X) == f"db: vnet1: {X} is its own now; vnet0, of guest web, had learned it, and loses it"
    assert learned(wire, "vnet0") == []
    assert give(wire, X) == ""
    assert not may_use(wire, "vnet0", X)
    assert may_use(wire, "vnet1", X)
    assert may_use(wire, "vnet0", Y)
    assert not may_use(wire, "vnet0", X)


def give(wire: Wire, address: str) -> str:
    """Start the guest at vnet1 with this address; returns what that says."""
    finished = wire.hook("db", "start", guest_xml("vnet1", "clean-traffic", [("IP", address)]))
    assert (finished.returncode, finished.stdout) == (0, "")
    return finished.stderr.removeprefix("nwfilter-hook: ").rstrip("\n")


def wait_for(done: Any, seconds: float = 5) -> None:
    """Until it is true; it must be within some seconds."""
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_a_given_address_is_free_when_its_guest_has_ended(wire: Wire) -> None:
    """And not before the last of two guests that have it, as VRRP's address is."""
    start(wire, "vnet1", ("IP", X))
    wire.plug("vnet2")
    wire.start("vrrp", domain("vrrp", [interface("vnet2", "clean-traffic", [("IP", X), ("IP", Z)], mac=frames.THIRD)]))
    start(wire, "vnet0")
    stop(wire, "vnet1")
    assert not may_use(wire, "vnet0", X)
    wire.stop("vrrp", domain("vrrp", []))
    assert may_use(wire, "vnet0", X)


def test_a_given_network(wire: Wire) -> None:
    """All of its addresses are the other guest's; it comes and goes beside a larger one and single ones."""
    start_with_networks(wire, "vnet1", ("IP", "10.0.5.0/29"), ("IP", X), ("IP", "10.0.5.0/28"))
    start(wire, "vnet0", ("CTRL_IP_LEARNING_MAX", "4"))
    assert [may_use(wire, "vnet0", address) for address in ("10.0.5.1", X, "10.0.5.15")] == [False] * 3
    assert may_use(wire, "vnet0", "10.0.5.16")
    start_with_networks(wire, "vnet1", ("IP", "10.0.5.0/30"))
    assert may_use(wire, "vnet0", X)
    assert may_use(wire, "vnet0", "10.0.5.15")
    assert not may_use(wire, "vnet0", "10.0.5.3")


def test_addresses_besides_learned_ones(wire: Wire) -> None:
    """CTRL_IP_FIXED is the guest's own: no other learns it, and itself may use it."""
    start(wire, "vnet1", ("CTRL_IP_FIXED", X))
    start(wire, "vnet0")
    assert not may_use(wire, "vnet0", X)
    assert may_use(wire, "vnet1", X)
    assert may_use(wire, "vnet1", Y)
    assert not may_use(wire, "vnet0", Y)
    assert may_use(wire, "vnet0", Z)


def test_quarantine_gives_nothing_away(wire: Wire) -> None:
    """A running guest whose filter can't be made is cut off; its address stays its own."""
    broken = guest_xml("vnet1", "no-such-filter", [("IP", X)])
    assert wire.hook("db", "reconnect", broken).returncode == 0
    start(wire, "vnet0")
    assert shown(wire, "vnet1")["state"] == "quarantined"
    assert not may_use(wire, "vnet0", X)
    assert may_use(wire, "vnet0", Z)


# --- learned ----------------------------------------------------------------------------------------------------------


def test_the_first_holds(wire: Wire) -> None:
    """What one guest has learned no other learns, until it has ended or has been told to learn anew."""
    start(wire, "vnet0")
    start(wire, "vnet1")
    assert may_use(wire, "vnet0", X)
    assert not may_use(wire, "vnet1", X)
    assert may_use(wire, "vnet1", Y)
    assert not may_use(wire, "vnet0", Y)
    assert (learned(wire, "vnet0"), learned(wire, "vnet1")) == ([X], [Y])
    stop(wire, "vnet0")
    command(wire, "relearn", "vnet1")
    assert may_use(wire, "vnet1", X)
    start(wire, "vnet0")
    assert not may_use(wire, "vnet0", X)
    assert may_use(wire, "vnet0", Y)


def test_a_full_guest_takes_nothing_from_others(wire: Wire) -> None:
    """What it tries in vain isn't kept from the others."""
    start(wire, "vnet0")
    start(wire, "vnet1", ("CTRL_IP_LEARNING_MAX", "2"))
    assert may_use(wire, "vnet0", X)
    assert not may_use(wire, "vnet0", Y)
    assert may_use(wire, "vnet1", Y)
    assert may_use(wire, "vnet1", Z)


def test_another_way_of_learning_gives_the_addresses_back(wire: Wire) -> None:
    """A guest that begins to learn otherwise, or at a filter that needs no address, while it runs."""
    start(wire, "vnet0")
    start(wire, "vnet1", ("CTRL_IP_LEARNING_MAX", "3"))
    assert may_use(wire, "vnet0", X)
    more = guest_xml("vnet0", "clean-traffic", [("CTRL_IP_LEARNING_MAX", "2")])
    assert wire.hook("web", "attach", more).returncode == 0
    assert may_use(wire, "vnet1", X)
    assert may_use(wire, "vnet0", Y)
    assert wire.hook("web", "attach", guest_xml("vnet0", "no-mac-spoofing")).returncode == 0
    assert may_use(wire, "vnet1", Y)


def two_interfaces(wire: Wire, *taps: str, operation: str = "start", **guest: str) -> None:
    """A guest with these of its interfaces on the bridge; both learn."""
    macs = {"vnet1": OTHER, "vnet2": frames.THIRD}
    xml = domain("db", [interface(tap, "clean-traffic-dual", [*DUAL, *guest.items()], mac=macs[tap]) for tap in taps])
    assert wire.hook("db", operation, xml).returncode == 0


def from_second(wire: Wire, address: str) -> bool:
    """Does what the guest's second interface sends from it arrive? Use by the first is noted for a minute."""
    for version in ("", "6"):
        wire.nft("flush", "set", "bridge", "nwfilter", f"seen{version}/{BRIDGE}")
    if ":" in address:
        return wire.passes(frames.ping6(src=frames.THIRD, src_ip=address), "vnet2", WATCHER)
    return wire.passes(ipv4(src=frames.THIRD, src_ip=address), "vnet2", WATCHER)


def test_a_guest_moves_an_address_between_its_interfaces(wire: Wire) -> None:
    """What one of them has learned the other may learn, too; it is another guest's when both have gone, not before."""
    wire.plug("vnet2")
    two_interfaces(wire, "vnet1", "vnet2")
    start(wire, "vnet0", *DUAL, filter_name="clean-traffic-dual")
    for address in (X, X6):
        assert may_use(wire, "vnet1", address)
        assert from_second(wire, address)
        assert not may_use(wire, "vnet0", address)
    assert not from_second(wire, Y)  # it has one
    assert may_use(wire, "vnet0", Y)
    command(wire, "relearn", "vnet1")
    command(wire, "relearn", "vnet0")
    assert not may_use(wire, "vnet0", X)
    two_interfaces(wire, "vnet2", operation="attach")
    assert not may_use(wire, "vnet0", X)
    assert not may_use(wire, "vnet0", X6)
    assert (from_second(wire, X), from_second(wire, X6)) == (True, True)
    wire.stop("db", domain("db", []))
    assert key_of("db") not in wire.ruleset()
    assert may_use(wire, "vnet0", X)
    assert may_use(wire, "vnet0", X6)


def test_what_a_guest_has_lost_its_other_interface_does_not_take(wire: Wire) -> None:
    """An address that was forgotten, and that another guest has learned since, is that one's."""
    wire.plug("vnet2")
    two_interfaces(wire, "vnet1", "vnet2")
    start(wire, "vnet0")
    assert may_use(wire, "vnet1", X)
    command(wire, "relearn", "vnet1")
    assert may_use(wire, "vnet0", X)
    assert not from_second(wire, X)
    assert from_second(wire, Y)


def test_two_bridges_have_nothing_to_do_with_each_other(wire: Wire) -> None:
    """The same address may be learned on both, and be given on the one and learned on the other."""
    wire.add_bridge("br1")
    wire.plug("vnet2", "vnet3", "vnet8", bridge="br1")
    start(wire, "vnet0")
    start(wire, "vnet1", ("IP", Y))
    there = [
        interface(tap, "clean-traffic", given, mac=mac, bridge="br1")
        for tap, given, mac in (("vnet2", [("IP", X)], GUEST), ("vnet3", [], OTHER))
    ]
    wire.start("elsewhere", domain("elsewhere", there))
    assert may_use(wire, "vnet0", X)
    assert wire.passes(ipv4(src_ip=X), "vnet2", "vnet8")
    assert not wire.passes(ipv4(src=OTHER, src_ip=X), "vnet3", "vnet8")
    assert wire.passes(ipv4(src=OTHER, src_ip=Y), "vnet3", "vnet8")
    assert may_use(wire, "vnet1", Y)


def test_macvtaps_of_one_device(wire: Wire) -> None:
    """They share their device as others share a bridge."""
    source = "<source dev='lower0' mode='bridge'/>"
    guests = []
    for tap, mac, parameters in (("mv0", GUEST, []), ("mv1", OTHER, []), ("mv2", frames.THIRD, [("IP", Y)])):
        wire.plug_macvtap(tap, mac, "lower0")
        guests.append(device("direct", tap, "clean-traffic", parameters, mac=mac, source=source))
    wire.start("web", domain("web", guests))
    out = "52:54:00:00:00:55"
    assert wire.passes(ipv4(dst=out, src_ip=X), "mv0", "lower0")
    for address, passes in ((X, False), (Y, False), (Z, True)):
        assert wire.passes(ipv4(src=OTHER, dst=out, src_ip=address), "mv1", "lower0") is passes
    wire.stop("web", domain("web", []))
    assert "netdev nwfilter" not in wire.ruleset() or "taken" not in wire.ruleset()


# --- the host ---------------------------------------------------------------------------------------------------------


def test_the_hosts_own_address(wire: Wire) -> None:
    """Nobody learns what the host has on the bridge, nor what the configuration names."""
    with wire.inside():
        Path(f"/proc/sys/net/ipv6/conf/{BRIDGE}/disable_ipv6").write_text("0")
    wire.ip(f"addr add {X}/24 dev {BRIDGE}", f"addr add {X6}/64 dev {BRIDGE} nodad")
    wire.configure(f"[learning]\nnever = {Y}, 10.0.6.0/24 {Y6}\n")
    start(wire, "vnet0", ("CTRL_IP_LEARNING_MAX", "8"), *DUAL, filter_name="clean-traffic-dual")
    for address in (X, Y, "10.0.6.1", "10.0.6.255", X6, Y6):
        assert not may_use(wire, "vnet0", address), address
    for address in (Z, "10.0.7.1", Z6):
        assert may_use(wire, "vnet0", address), address


def test_what_the_configuration_names_later(wire: Wire) -> None:
    """`reload` puts it into force; a guest that has learned it loses it."""
    start(wire, "vnet0")
    assert may_use(wire, "vnet0", X)
    wire.configure(f"[learning]\nnever = {X}\n")
    assert "1 tap changed" in command(wire, "reload")
    assert not may_use(wire, "vnet0", X)
    wire.configure("")
    command(wire, "reload")
    wait_for(lambda: may_use(wire, "vnet0", X))


@pytest.mark.parametrize("address", ["127.0.0.1", "127.1.2.3", "169.254.7.7"])
def test_addresses_for_no_good(wire: Wire, address: str) -> None:
    """Loopback never, and not what a host takes until it gets an address: it would be held to it ever after."""
    start(wire, "vnet0")
    assert not may_use(wire, "vnet0", address)
    assert may_use(wire, "vnet0", X)


# --- IPv6 -------------------------------------------------------------------------------------------------------------


def test_ipv6(wire: Wire) -> None:
    """By use and by duplicate address detection; given and learned; and each guest has its own link-local address."""
    start(wire, "vnet0", *DUAL, filter_name="clean-traffic-dual")
    start(wire, "vnet1", *DUAL, filter_name="clean-traffic-dual")
    wire.plug("vnet2")
    given = [interface("vnet2", "clean-traffic-dual", [("IP", Z), ("IPV6", Z6)], mac=frames.THIRD)]
    assert wire.hook("given", "start", domain("given", given)).returncode == 0
    assert wire.passes(detect(X6), "vnet0", WATCHER)
    assert not wire.passes(detect(X6, src=OTHER), "vnet1", WATCHER)
    assert not may_use(wire, "vnet1", X6)
    assert may_use(wire, "vnet1", Y6)
    for address in (Y6, Z6):
        assert not wire.passes(detect(address), "vnet0", WATCHER)
        assert not may_use(wire, "vnet0", address)
    assert may_use(wire, "vnet0", X6)
    assert (learned(wire, "vnet0"), learned(wire, "vnet1")) == ([X6], [Y6])


def test_link_local_addresses_that_are_asked_for(wire: Wire) -> None:
    """One that follows from a neighbour's MAC is the neighbour's, even if it has never used it."""
    own = {tap: str(ipaddress.IPv6Address(link_local(parse_mac(mac)))) for tap, mac in MACS.items()}
    for tap in MACS:
        start(wire, tap, *DUAL, ("CTRL_IPV6_LINK_LOCAL", "any"), filter_name="clean-traffic-dual")
    assert not may_use(wire, "vnet0", own["vnet1"])
    assert may_use(wire, "vnet0", own["vnet0"])
    assert may_use(wire, "vnet0", "fe80::1234")
    assert not may_use(wire, "vnet1", "fe80::1234")
    assert may_use(wire, "vnet1", own["vnet1"])


# --- leases -----------------------------------------------------------------------------------------------------------


def answer(wire: Wire, address: str, tap: str = "vnet0") -> None:
    """The server acknowledges this address to the guest."""
    wire.passes(reply(address, src=frames.THIRD, client=MACS[tap]), WATCHER, tap)


@pytest.mark.parametrize("whose", ["given", "learned", "the-hosts", "leased"])
def test_a_lease_of_what_is_anothers(wire: Wire, whose: str) -> None:
    """It isn't the guest's, whatever the server says; the lease before is over all the same."""
    if whose == "the-hosts":
        wire.ip(f"addr add {X}/24 dev {BRIDGE}")
    elif whose == "leased":
        start(wire, "vnet1", *GIVEN_SERVER)
        answer(wire, X, "vnet1")
        assert may_use(wire, "vnet1", X)
    else:
        start(wire, "vnet1", *([("IP", X)] if whose == "given" else ()))
        assert may_use(wire, "vnet1", X)
    start(wire, "vnet0", *GIVEN_SERVER)
    answer(wire, Y)
    assert may_use(wire, "vnet0", Y)
    answer(wire, X)
    assert not may_use(wire, "vnet0", X)
    assert not may_use(wire, "vnet0", Y)
    assert learned(wire, "vnet0") == []
    answer(wire, Z)
    assert may_use(wire, "vnet0", Z)
    assert whose == "the-hosts" or may_use(wire, "vnet1", X)


def test_an_ended_lease_is_free(wire: Wire) -> None:
    """A guest that gets another address leaves the one before to others; given to another, it is lost at once."""
    start(wire, "vnet0", *GIVEN_SERVER)
    answer(wire, X)
    assert may_use(wire, "vnet0", X)
    start(wire, "vnet1", ("CTRL_IP_LEARNING_MAX", "2"))
    assert not may_use(wire, "vnet1", X)
    answer(wire, Y)
    assert may_use(wire, "vnet1", X)
    assert may_use(wire, "vnet0", Y)
    assert f"{Y} is its own now; vnet0, of guest web" in give(wire, Y)
    assert not may_use(wire, "vnet0", Y)
    assert SERVER not in learned(wire, "vnet0")


# --- by hand ----------------------------------------------------------------------------------------------------------


def test_by_hand(wire: Wire) -> None:
    """`learn` says whose the address is; one that it gave holds, and is free after `relearn`."""
    wire.ip(f"addr add 10.0.5.1/24 dev {BRIDGE}")
    wire.plug("vnet2")
    wire.start("vrrp", domain("vrrp", [interface("vnet2", "clean-traffic", [("IP", Y)], mac=frames.THIRD)]))
    start(wire, "vnet0")
    start(wire, "vnet1")
    assert may_use(wire, "vnet0", X)
    for address, words in (
        (X, f"{X} is learned by vnet0, of guest web; nwfilter-hook relearn vnet0 frees it"),
        (Y, f"{Y} was given to vnet2, of guest vrrp, on the same bridge"),
        ("10.0.5.1", "10.0.5.1: the host has it, or [learning] never in the configuration names it"),
        ("127.0.0.1", "127.0.0.1: no host can have this address"),
    ):
        assert command(wire, "learn", "vnet1", address, check=False) == words
    command(wire, "learn", "vnet1", Z)
    assert not may_use(wire, "vnet0", Z)
    command(wire, "learn", "vnet1", Z)  # twice is once
    assert may_use(wire, "vnet1", Z)
    command(wire, "relearn", "vnet1")
    command(wire, "learn", "vnet0", Z)
    assert not may_use(wire, "vnet1", Z)
    assert may_use(wire, "vnet1", X)


# --- when it is full --------------------------------------------------------------------------------------------------

DAY_S = 86400


def elements(wire: Wire, name: str) -> dict[int, int | None]:
    """What is in a set, and how long it stays."""
    listing = json.loads(wire.nft("--json", "list", "set", "bridge", "nwfilter", name))
    (found,) = [item["set"].get("elem", []) for item in listing["nftables"] if "set" in item]
    pairs = [
        (each["elem"]["val"], each["elem"].get("expires")) if isinstance(each, dict) else (each, None) for each in found
    ]
    return {int(str(value), 0): left for value, left in pairs}


def test_what_was_not_used_for_a_day_gives_way(wire: Wire) -> None:
    """The ninth address waits until one of eight wasn't used for a day; those that are used stay."""
    start(wire, "vnet0", *DUAL, filter_name="clean-traffic-dual")
    addresses = [f"2001:db8::{number}" for number in range(1, 10)]
    assert [may_use(wire, "vnet0", address) for address in addresses] == [True] * 8 + [False]
    name = learned_set("web", "vnet0", version="6")
    known = elements(wire, name)
    own = link_local(parse_mac(GUEST))
    assert known.pop(own) is None  # for ever
    assert all(left is not None and DAY_S - 60 < left <= DAY_S for left in known.values())
    # a day later: the first has a second left, the others have been used
    number = int(ipaddress.IPv6Address(addresses[0]))
    wire.apply(
        f"delete element bridge nwfilter {name} {{ {number:#x} }}\n"
        f"add element bridge nwfilter {name} {{ {number:#x} timeout 1s }}\n"
        f"delete element bridge nwfilter taken6/{BRIDGE} {{ {number:#x} }}\n"
        f"add element bridge nwfilter taken6/{BRIDGE} {{ {number:#x} timeout 1s }}\n"
    )
    wait_for(lambda: may_use(wire, "vnet0", addresses[8]))
    assert [may_use(wire, "vnet0", address) for address in addresses] == [False] + [True] * 8


def test_use_keeps_an_address(wire: Wire) -> None:
    """Whenever it is used its day begins anew, at most once a minute; since when it is known stays."""
    start(wire, "vnet0", *DUAL, filter_name="clean-traffic-dual")
    assert may_use(wire, "vnet0", X6)
    since = shown(wire, "vnet0")["learned_since"][X6]
    number = int(ipaddress.IPv6Address(X6))
    name = learned_set("web", "vnet0", version="6")
    wire.apply(
        f"delete element bridge nwfilter {name} {{ {number:#x} }}\n"
        f"add element bridge nwfilter {name} {{ {number:#x} timeout 1h }}\n"
    )
    assert may_use(wire, "vnet0", X6)
    assert elements(wire, name)[number] in range(3500, 3601)  # seen within the last minute: nothing is done
    wire.nft("flush", "set", "bridge", "nwfilter", f"seen6/{BRIDGE}")
    assert may_use(wire, "vnet0", X6)
    assert elements(wire, name)[number] in range(DAY_S - 60, DAY_S + 1)
    assert shown(wire, "vnet0")["learned_since"] == {X6: since}


def test_an_only_address_stays(wire: Wire) -> None:
    """A guest with one address is held to it, however long it is silent."""
    start(wire, "vnet0")
    assert may_use(wire, "vnet0", X)
    assert list(elements(wire, learned_set("web", "vnet0")).values()) == [None]
    assert list(elements(wire, f"taken/{BRIDGE}").values()) == [None]
    assert re.fullmatch(r"2\d{3}-.*\+00:00", shown(wire, "vnet0")["learned_since"][X])


def test_a_full_segment_is_closed_for_new_addresses(wire: Wire) -> None:
    """With 65,535 addresses learned on a bridge nobody learns another; who has one has it."""
    start(wire, "vnet0")
    start(wire, "vnet1")
    assert may_use(wire, "vnet0", X)
    many = ", ".join(f"{0x0B000000 + number:#x}" for number in range(65534))
    wire.apply(f"add element bridge nwfilter taken/{BRIDGE} {{ {many} }}\n")
    assert not may_use(wire, "vnet1", Y)
    assert may_use(wire, "vnet0", X)
    assert learned(wire, "vnet1") == []


def test_unread_answers_of_the_last_day(wire: Wire) -> None:
    """The ninth isn't shown until one of eight wasn't repeated for a day."""
    start(wire, "vnet0", *GIVEN_SERVER)
    late = (("hostname", b"a-rather-long-name"), ("server_id", SERVER), ("message-type", "ack"))
    for number in range(1, 10):
        wire.passes(reply(f"10.0.7.{number}", late, src=frames.THIRD), WATCHER, "vnet0")
    assert sorted(shown(wire, "vnet0")["unread"]) == [f"10.0.7.{number}" for number in range(1, 9)]
    left = elements(wire, "unread/vnet0")
    assert all(value is not None and DAY_S - 60 < value <= DAY_S for value in left.values())


# --- what is left -----------------------------------------------------------------------------------------------------


def test_nothing_is_left_when_the_last_has_ended(wire: Wire) -> None:
    """The sets of a bridge go with its last guest."""
    start(wire, "vnet0", *DUAL, filter_name="clean-traffic-dual")
    start_with_networks(wire, "vnet1", ("IP", Y), ("IP", "10.0.6.0/24"), ("IPV6", Y6))
    assert may_use(wire, "vnet0", X)
    assert may_use(wire, "vnet0", X6)
    stop(wire, "vnet0")
    assert f"reserved/{BRIDGE}" in wire.ruleset()
    assert elements(wire, f"taken/{BRIDGE}") == elements(wire, f"taken6/{BRIDGE}") == {}
    stop(wire, "vnet1")
    assert BRIDGE not in wire.ruleset()


def test_after_somebody_has_flushed_everything(wire: Wire) -> None:
    """`reconnect` puts back what was given; learning begins anew."""
    start(wire, "vnet0")
    start(wire, "vnet1", ("IP", Y))
    assert may_use(wire, "vnet0", X)
    wire.nft("flush", "ruleset")
    for tap, given in (("vnet1", [("IP", Y)]), ("vnet0", [])):
        assert wire.hook(GUESTS[tap], "reconnect", guest_xml(tap, "clean-traffic", given)).returncode == 0
    assert not may_use(wire, "vnet0", Y)
    assert may_use(wire, "vnet0", Z)
    assert may_use(wire, "vnet1", Y)


def test_a_start_after_a_lost_stop(wire: Wire) -> None:
    """What the life before has learned is nobody's any more."""
    start(wire, "vnet0")
    start(wire, "vnet1")
    assert may_use(wire, "vnet0", X)
    start(wire, "vnet0")
    assert may_use(wire, "vnet1", X)
    assert may_use(wire, "vnet0", Y)
