"""CTRL_IP_LEARNING = dhcp: the guest has the address that a DHCP server acknowledged, and none before."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from tests.support import frames, wrapping
from tests.support.domains import Parameters, domain, interface
from tests.support.learned import command, learned, shown
from tests.support.netns import Wire

pytestmark = pytest.mark.netns

FIRST, SECOND, THIRD_IP = "10.0.5.5", "10.0.5.6", "10.0.5.7"
SERVER = frames.OTHER_IP
MODE = ("CTRL_IP_LEARNING", "dhcp")
GIVEN_SERVER = (MODE, ("DHCPSERVER", SERVER))

TYPE, SERVER_ID, LEASE = ("message-type", "ack"), ("server_id", SERVER), ("lease_time", 3600)


def reply(
    address: str = FIRST,
    options: Sequence[Any] = (TYPE, SERVER_ID, LEASE),
    *,
    kind: str | None = None,
    src: str = frames.OTHER,
    dst: str = frames.BROADCAST,
    src_ip: str = SERVER,
    client: str = frames.GUEST,
    op: int = 2,
    sport: int = 67,
    cookie: bytes = b"\x63\x82\x53\x63",
    **ip: Any,
) -> bytes:
    """What a server sends to a client: an ACK with these options, in their order."""
    if kind is not None:
        options = [("message-type", kind), SERVER_ID, LEASE]
    message = BOOTP(op=op, chaddr=bytes.fromhex(client.replace(":", "")), yiaddr=address, xid=1, options=cookie)
    packet = IP(src=src_ip, dst="255.255.255.255", **ip) / UDP(sport=sport, dport=68) / message
    return bytes(Ether(src=src, dst=dst, type=0x0800) / packet / DHCP(options=[*options, "end"]))


def clean(*parameters: tuple[str, str], tap: str | None = "vnet0") -> str:
    """A guest under clean-traffic with these parameters."""
    return domain("web", [interface(tap, "clean-traffic", parameters)])


def started(wire: Wire, parameters: Parameters = GIVEN_SERVER) -> Wire:
    """`wire` with a guest that waits for a lease."""
    wire.start("web", clean(*parameters))
    return wire


@pytest.fixture
def waiting(wire: Wire) -> Wire:
    """A guest under clean-traffic, its server known, before its first lease."""
    return started(wire)


def answers(wire: Wire, frame: bytes) -> bool:
    """Does an answer that the network sends reach the guest?"""
    return wire.passes(frame, "vnet1", "vnet0")


FORBIDDEN_OUT = {
    "ipv4": frames.ipv4(src_ip=FIRST),
    "udp": frames.udp(src_ip=FIRST),
    "tcp": frames.tcp(src_ip=FIRST),
    "ipv4-of-a-neighbour": frames.ipv4(src_ip=SECOND),
    "udp-from-nowhere": frames.udp(src_ip="0.0.0.0"),
    "arp": frames.arp(sender_ip=FIRST),
    "arp-probe": frames.arp_probe(),
    "ipv6": frames.ipv6(),
    "rarp": frames.rarp_announce(),
    "other": frames.ether(),
    "dhcp-under-another-mac": frames.dhcp_discover(src=frames.OTHER),
    "dhcp-in-a-tag": frames.vlan(frames.dhcp_discover()),
}

FORBIDDEN_IN = {
    "ipv4": frames.incoming(frames.ipv4, dst_ip=FIRST),
    "arp": frames.incoming_arp(),
    "ipv6": frames.incoming(frames.ipv6),
    "dhcp-of-a-stranger": reply(src_ip=SECOND),
    "dhcp-to-another-mac": reply(dst=frames.THIRD),
    "dhcp-from-another-port": reply(sport=66),
}


@pytest.mark.parametrize("name", FORBIDDEN_OUT)
def test_without_a_lease_the_guest_sends_only_dhcp(waiting: Wire, name: str) -> None:
    """Before its lease the guest can ask for one under its own MAC, and nothing else."""
    assert waiting.passes(frames.dhcp_discover())
    assert not waiting.passes(FORBIDDEN_OUT[name])


@pytest.mark.parametrize("name", FORBIDDEN_IN)
def test_without_a_lease_the_guest_gets_only_dhcp(waiting: Wire, name: str) -> None:
    """Before its lease only answers of the known servers reach the guest."""
    assert answers(waiting, reply(kind="offer"))
    assert not answers(waiting, FORBIDDEN_IN[name])
    assert learned(waiting) == []


@pytest.mark.parametrize("destination", [frames.BROADCAST, frames.GUEST])
def test_an_ack_teaches(waiting: Wire, destination: str) -> None:
    """The ACK arrives unchanged; from then on the guest has its address, and only that."""
    assert answers(waiting, reply(dst=destination))
    assert learned(waiting) == [FIRST]
    for build in (frames.ipv4, frames.udp, frames.tcp):
        assert waiting.passes(build(src_ip=FIRST))
        assert not waiting.passes(build(src_ip=SECOND))
    assert waiting.passes(frames.arp(sender_ip=FIRST))
    assert not waiting.passes(frames.arp(sender_ip=SECOND))
    assert waiting.passes(frames.incoming_arp(target_ip=FIRST), "vnet1", "vnet0")
    assert waiting.passes(frames.incoming(frames.tcp, dst_ip=FIRST), "vnet1", "vnet0")


OWN_QUESTION = {
    "discover": frames.dhcp_question("discover"),
    "request": frames.dhcp_question("request", options=[("requested_addr", FIRST)]),
    "decline": frames.dhcp_question("decline", options=[("requested_addr", FIRST)]),
}
OTHERS_QUESTION = {
    "release": frames.dhcp_question("release", client=frames.OTHER, own=SECOND),
    "release-in-its-own-name": frames.dhcp_question("release", own=SECOND),
    "release-from-its-address": frames.dhcp_question("release", client=frames.OTHER, own=FIRST, src_ip=FIRST),
    "discover": frames.dhcp_question("discover", client=frames.OTHER),
    "through-a-relay": frames.dhcp_question("discover", giaddr="10.0.6.1"),
    "as-a-relay": frames.dhcp_question("release", client=frames.OTHER, own=SECOND, sport=67),
    "from-another-port": frames.dhcp_question("release", client=frames.OTHER, own=SECOND, sport=1068),
    "another-hardware": frames.dhcp_question("request", htype=6),
    "a-longer-address": frames.dhcp_question("request", hlen=16),
    "no-address": frames.dhcp_question("request", hlen=0),
    "an-answer": frames.dhcp_question("ack", op=2),
    "in-bootp": frames.dhcp_question("discover", client=frames.OTHER)[: 14 + 20 + 8 + 236 + 64],
}


def test_a_guest_asks_in_no_other_name(wire: Wire, tmp_path: Path) -> None:
    """
    Before its lease and with it, a question that names another client or another's address doesn't leave, whatever it
    is wrapped in and whatever the filter allows; the guest's own does, and with its lease those that name its address.
    """
    own_filter(wire, tmp_path, "<rule action='drop' direction='out'><ip match='no' srcipaddr='$IP'/></rule>")
    (tmp_path / "open.xml").write_text(
        "<filter name='open'><rule action='accept' direction='out' priority='-900'><ip protocol='udp'/></rule>"
        "<filterref filter='own'/></filter>"
    )
    wire.start("web", domain("web", [interface("vnet0", "open", GIVEN_SERVER)]))
    forged = {
        f"{what} {how}": frame
        for what, message in OTHERS_QUESTION.items()
        for how, frame in {
            "": message,
            **wrapping.in_tags(message),
            **wrapping.in_ipv4(message),
            "in fragments": wrapping.fragmented(message, 32)[0],
            "first of two fragments": wrapping.fragmented(message, 128)[0],
        }.items()
    }
    renewal = frames.dhcp_question("request", own=FIRST, src_ip=FIRST, dst_ip=SERVER)
    assert [what for what, frame in forged.items() if wire.passes(frame)] == []
    assert [what for what, frame in OWN_QUESTION.items() if not wire.passes(frame)] == []
    assert not wire.passes(renewal)
    assert answers(wire, reply())
    assert [what for what, frame in forged.items() if wire.passes(frame)] == []
    assert [what for what, frame in OWN_QUESTION.items() if not wire.passes(frame)] == []
    release = frames.dhcp_question("release", own=FIRST, src_ip=FIRST, dst_ip=SERVER)
    for own in (
        renewal,
        release,
        frames.vlan(renewal),
        frames.udp(src_ip=FIRST),
        frames.vlan(frames.udp(src_ip=FIRST)),
    ):
        assert wire.passes(own)
    for part in wrapping.fragmented(frames.udp(src_ip=FIRST, payload=bytes(200))):
        assert wire.passes(part)
    assert answers(wire, reply(SECOND))  # another lease: what was the guest's is not
    assert not wire.passes(renewal)
    assert wire.passes(frames.dhcp_question("request", own=SECOND, src_ip=SECOND))


NO_LEASES = {
    "offer": reply(kind="offer"),
    "nak": reply("0.0.0.0", kind="nak"),
    "ack-to-an-inform": reply("0.0.0.0"),
    "multicast-address": reply("224.0.0.9"),
    "for-another-client": reply(client=frames.THIRD),
    "for-no-client": reply(client=frames.NO_MAC),
    "of-a-client": reply(op=1),
    "not-dhcp": reply(cookie=b"\x63\x82\x53\x64"),
    "of-a-stranger": reply(src_ip=SECOND),
    "to-another-mac": reply(dst=frames.THIRD),
    "in-a-tag": frames.vlan(reply()),
    "second-fragment": reply(frag=1),
    "cut-short": reply()[: 14 + 20 + 8 + 200],
}


@pytest.mark.parametrize("name", NO_LEASES)
def test_what_is_no_lease_teaches_nothing(waiting: Wire, name: str) -> None:
    """Only an ACK for this guest, by a known server, gives it an address."""
    answers(waiting, NO_LEASES[name])
    assert learned(waiting) == []
    assert not waiting.passes(frames.ipv4(src_ip=FIRST))
    answers(waiting, reply())
    assert learned(waiting) == [FIRST]


def test_the_guest_cannot_answer_itself(wire: Wire) -> None:
    """An ACK that the guest sends teaches nothing, not even where its port sends frames back."""
    started(wire, [MODE])
    wire.run("bridge", "link", "set", "dev", "vnet0", "hairpin", "on")
    forged = reply(src=frames.GUEST, dst=frames.BROADCAST)
    assert "vnet0" not in wire.arrivals(forged, "vnet0")
    assert learned(wire) == []
    assert answers(wire, reply())
    assert "vnet0" in wire.arrivals(frames.arp(sender_ip=FIRST), "vnet0")  # the port does send back
    assert "vnet0" not in wire.arrivals(reply(SECOND, src=frames.GUEST, src_ip=FIRST), "vnet0")
    assert learned(wire) == [FIRST]


def test_without_a_named_server_any_may_answer(wire: Wire) -> None:
    """Without DHCPSERVER whoever answers gives the lease; with it, a neighbour that answers first gives nothing."""
    started(wire, [MODE])
    assert answers(wire, reply(src_ip=SECOND))
    assert learned(wire) == [FIRST]


def test_several_servers(wire: Wire) -> None:
    """DHCPSERVER may be a list."""
    started(wire, [*GIVEN_SERVER, ("DHCPSERVER", "10.0.0.98")])
    assert not answers(wire, reply(src_ip="10.0.0.97"))
    assert answers(wire, reply(src_ip="10.0.0.98"))
    assert learned(wire) == [FIRST]
    assert answers(wire, reply(SECOND))
    assert learned(wire) == [SECOND]


def test_a_renewal_passes_and_changes_nothing(waiting: Wire) -> None:
    """A renewal leaves under the leased address, its ACK arrives, and the lease is as old as it was."""
    answers(waiting, reply())
    before = waiting.nft("list", "map", "bridge", "nwfilter", "since/br0")
    assert "expires" not in before
    time.sleep(1.1)  # nft lists whole seconds
    assert waiting.passes(frames.dhcp_question("request", own=FIRST, src_ip=FIRST, dst_ip=SERVER))
    assert waiting.passes(frames.dhcp_discover())
    assert answers(waiting, reply(dst=frames.GUEST))
    assert learned(waiting) == [FIRST]
    assert waiting.nft("list", "map", "bridge", "nwfilter", "since/br0") == before


def test_a_new_lease_replaces_the_old_one(waiting: Wire) -> None:
    """With each new address the one before is over, at once and as often as it happens, back to an old one too."""
    for address, old in ((FIRST, SECOND), (SECOND, FIRST), (THIRD_IP, SECOND), (FIRST, THIRD_IP), (SECOND, FIRST)):
        assert answers(waiting, reply(address))
        assert learned(waiting) == [address]
        assert waiting.passes(frames.ipv4(src_ip=address))
        assert waiting.passes(frames.arp(sender_ip=address))
        assert not waiting.passes(frames.ipv4(src_ip=old))
        assert not waiting.passes(frames.arp(sender_ip=old))


def test_a_flood_of_leases_fails_closed(waiting: Wire) -> None:
    """However fast addresses change, never more than the newest is the guest's."""
    addresses = [f"10.0.6.{number}" for number in range(1, 201)]
    for address in addresses:
        answers(waiting, reply(address))
    assert set(learned(waiting)) <= {addresses[-1]}
    assert not waiting.passes(frames.ipv4(src_ip=addresses[0]))


PLACES = {
    "first": (TYPE, SERVER_ID, LEASE),
    "behind-an-address": (SERVER_ID, TYPE, LEASE),
    "behind-an-octet": (("NetBIOS_node_type", 8), TYPE, LEASE, SERVER_ID),
    "behind-a-number": (("max_dhcp_size", 1500), TYPE, LEASE, SERVER_ID),
    "behind-two-addresses": (LEASE, SERVER_ID, TYPE),
}


@pytest.mark.parametrize("place", PLACES)
def test_servers_that_order_their_options_otherwise(waiting: Wire, place: str) -> None:
    """The message type is found where servers put it, and an OFFER at the same place teaches nothing."""
    options = PLACES[place]
    offer = [("message-type", "offer") if option is TYPE else option for option in options]
    assert answers(waiting, reply(SECOND, offer))
    assert learned(waiting) == []
    assert answers(waiting, reply(FIRST, options))
    assert learned(waiting) == [FIRST]
    assert shown(waiting)["unread"] == []


def test_an_answer_that_cannot_be_read_is_shown(waiting: Wire) -> None:
    """An ACK whose type is out of reach teaches nothing; `show` says so, and `learn` helps."""
    late = (("hostname", b"a-rather-long-name"), SERVER_ID, LEASE, TYPE)
    assert answers(waiting, reply(FIRST, late))
    assert (learned(waiting), shown(waiting)["unread"]) == ([], [FIRST])
    assert f"DHCP answer with {FIRST} not understood" in command(waiting, "show")
    assert not waiting.passes(frames.ipv4(src_ip=FIRST))
    command(waiting, "learn", "vnet0", FIRST)
    assert (learned(waiting), shown(waiting)["unread"]) == ([FIRST], [])
    assert waiting.passes(frames.ipv4(src_ip=FIRST))


def test_a_lease_survives_what_is_not_a_start(waiting: Wire) -> None:
    """Re-apply and reconnect keep the lease; a start forgets it."""
    answers(waiting, reply())
    since = shown(waiting)["learned_since"]
    for operation in ("reconnect", "attach", "reconnect"):
        finished = waiting.hook("web", operation, clean(*GIVEN_SERVER))
        assert (finished.returncode, finished.stderr) == (0, "")  # nothing to repair
        assert waiting.passes(frames.ipv4(src_ip=FIRST))
    (kept,), (first,) = shown(waiting)["learned_since"].values(), since.values()
    age = datetime.fromisoformat(kept) - datetime.fromisoformat(first)
    assert abs(age.total_seconds()) <= 2  # told from what is left of the time, in whole seconds
    waiting.start("web", clean(*GIVEN_SERVER))
    assert learned(waiting) == []
    assert not waiting.passes(frames.ipv4(src_ip=FIRST))
    assert waiting.passes(frames.dhcp_discover())


def test_one_lease_whatever_the_maximum(wire: Wire) -> None:
    """With CTRL_IP_LEARNING_MAX=2, too, the current lease is the guest's address, and none from before."""
    started(wire, [*GIVEN_SERVER, ("CTRL_IP_LEARNING_MAX", "2")])
    for address in (FIRST, SECOND, FIRST, THIRD_IP):
        assert answers(wire, reply(address))
        assert learned(wire) == [address]
        assert [each for each in (FIRST, SECOND, THIRD_IP) if wire.passes(frames.ipv4(src_ip=each))] == [address]
        assert [each for each in (FIRST, SECOND, THIRD_IP) if wire.passes(frames.arp(sender_ip=each))] == [address]


def test_fixed_addresses_besides_the_lease(wire: Wire) -> None:
    """CTRL_IP_FIXED is the guest's besides its lease, the current one; it waits for the first like everything else."""
    shared, secondary = "10.0.5.200", "10.0.6.9"
    started(wire, [*GIVEN_SERVER, ("CTRL_IP_FIXED", shared), ("CTRL_IP_FIXED", secondary)])
    assert not wire.passes(frames.ipv4(src_ip=shared))
    assert wire.passes(frames.dhcp_discover())
    for address in (FIRST, SECOND, shared, THIRD_IP):  # a lease may be one of the fixed ones, and end
        assert answers(wire, reply(address))
        assert learned(wire) == [address]
        mine = {address, shared, secondary}
        for each in (FIRST, SECOND, THIRD_IP, shared, secondary, "10.0.6.8"):
            assert wire.passes(frames.udp(src_ip=each)) is (each in mine)
            assert wire.passes(frames.arp(sender_ip=each)) is (each in mine)
            assert wire.passes(frames.arp(opcode=2, sender_ip=each, target_ip=each)) is (each in mine)


def own_filter(wire: Wire, tmp_path: Path, *rules: str) -> None:
    """Make the filter "own" of these rules."""
    (tmp_path / "own.xml").write_text(f"<filter name='own' chain='root'>{''.join(rules)}</filter>")
    wire.configure(filter_dirs=[tmp_path])


def test_a_leased_address_under_a_mask(wire: Wire, tmp_path: Path) -> None:
    """A mask on $IP is applied to the leased address, and to the next one."""
    own_filter(
        wire,
        tmp_path,
        "<rule action='accept' direction='out'><ip srcipaddr='$IP' srcipmask='24'/></rule>",
        "<rule action='drop' direction='out' priority='600'/>",
    )
    wire.start("web", domain("web", [interface("vnet0", "own", GIVEN_SERVER)]))
    answers(wire, reply("10.0.5.5"))
    assert wire.passes(frames.ipv4(src_ip="10.0.5.200"))
    assert not wire.passes(frames.ipv4(src_ip="10.0.6.200"))
    answers(wire, reply("10.0.6.5"))
    assert wire.passes(frames.ipv4(src_ip="10.0.6.200"))
    assert not wire.passes(frames.ipv4(src_ip="10.0.5.200"))


def test_before_a_lease_a_strict_filter_lets_dhcp_through(wire: Wire, tmp_path: Path) -> None:
    """A filter that allows no DHCP can still get its first lease; the rest is the filter's own matter."""
    own_filter(
        wire,
        tmp_path,
        "<rule action='accept' direction='out'><ip srcipaddr='$IP'/></rule>",
        "<rule action='drop' direction='inout' priority='600'/>",
    )
    wire.start("web", domain("web", [interface("vnet0", "own", GIVEN_SERVER)]))
    assert wire.passes(frames.dhcp_discover())
    assert answers(wire, reply())
    assert learned(wire) == [FIRST]
    assert wire.passes(frames.ipv4(src_ip=FIRST))
    assert not wire.passes(frames.dhcp_discover())
    assert not answers(wire, reply())


def test_a_device_that_is_no_bridge_port(wire: Wire) -> None:
    """A macvtap learns its lease too, and a new one replaces the old."""
    wire.plug_macvtap("macvtap0", frames.GUEST, "lower0")
    direct = (
        f"<interface type='direct'><mac address='{frames.GUEST}'/><source dev='lower0' mode='bridge'/>"
        "<target dev='macvtap0'/><filterref filter='clean-traffic'>"
        "<parameter name='CTRL_IP_LEARNING' value='dhcp'/></filterref></interface>"
    )
    wire.start("web", domain("web", [direct]))
    assert wire.passes(frames.dhcp_discover(), "macvtap0", "lower0")
    assert not wire.passes(frames.ipv4(src_ip=FIRST), "macvtap0", "lower0")
    assert not wire.passes(frames.rarp_announce(), "macvtap0", "lower0")
    for address, other in ((FIRST, SECOND), (SECOND, FIRST)):
        assert wire.passes(reply(address, dst=frames.GUEST), "lower0", "macvtap0")
        assert learned(wire) == [address]
        assert wire.passes(frames.ipv4(src_ip=address), "macvtap0", "lower0")
        assert not wire.passes(frames.ipv4(src_ip=other), "macvtap0", "lower0")
