"""Packets that the host exempts from connection tracking (`notrack`), with real sockets; the filter is guest a's."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from functools import partial

import pytest

from tests.vm import packets, test_flows, test_stateful
from tests.vm.flows import Got, at_once, icmp, ping, raw, tcp, udp
from tests.vm.lan import Lan, Routed, Station
from tests.vm.test_flows import DROP_ALL, VERSIONS, all_of, dual
from tests.vm.test_stateful import Enforce

pytestmark = pytest.mark.stock_kernel

enforce = test_stateful.enforce
behind = test_flows.behind

HOSTS = "table inet raw { chain own { type filter hook output priority raw; notrack; }\n}"
"""All that the host itself sends."""
ROUTED = 'table inet raw { chain in { type filter hook prerouting priority raw; iifname "up0" notrack; }\n}'
BRIDGED = "table bridge raw { chain in { type filter hook prerouting priority -250; udp dport 0-65535 notrack; }\n}"
ESTABLISHED = (
    *dual("accept", "out", "udp", "dstportstart='53' state='NEW,ESTABLISHED'"),
    *dual("accept", "in", "all", "state='ESTABLISHED'"),
)


ADVERTISEMENT, AUTHENTICATION = 134, 51


def behind_ah(sender: Station, receiver: Station) -> bytes:
    """A router advertisement behind an Authentication header."""
    # next header, length in words without two, reserved, index, sequence, value to check: RFC 4302, 2
    header = struct.pack("!BBHIII", 58, 2, 0, 1, 1, 0)
    return header + packets.icmpv6(sender.ip6, receiver.ip6, ADVERTISEMENT)


def asks(client: Station, server: Station, port: int = 53, **options: int) -> dict[object, Got]:
    """A datagram to the port and one back, of each IP version."""
    attempts: Mapping[object, Callable[[], Got]] = {
        version: partial(udp, client, server, port, version=version, **options) for version in VERSIONS
    }
    return at_once(attempts)


@pytest.fixture(params=["pair", "states"])
def ask_only(request: pytest.FixtureRequest, enforce: Enforce) -> None:
    """The guest may ask name servers and nothing else, by the automatic states or by its filter's own."""
    pair = dual("accept", "out", "udp", "dstportstart='53'")
    enforce(*(pair if request.param == "pair" else ESTABLISHED), *DROP_ALL)


def test_a_service_of_the_host_answers(wire: Lan, ask_only: None) -> None:
    """The question is tracked, the answer isn't, however large; what no rule allows doesn't pass."""
    wire.nft(script=HOSTS)
    assert all_of(asks(wire.a, wire.host), Got.ANSWER)
    assert all_of(asks(wire.a, wire.host, size=4000), Got.ANSWER)
    assert all_of(asks(wire.a, wire.host, 54), Got.NOTHING)


def test_answers_that_the_host_routes(wire: Lan, behind: Routed, ask_only: None) -> None:
    """The same for what the host exempts on its way from elsewhere."""
    wire.nft(script=ROUTED)
    assert all_of(asks(wire.a, behind.far), Got.ANSWER)
    assert all_of(asks(wire.a, behind.far, 54), Got.NOTHING)


def test_packets_between_guests(wire: Lan, ask_only: None) -> None:
    """Question and answer are exempt."""
    wire.nft(script=BRIDGED)
    assert all_of(asks(wire.a, wire.b), Got.ANSWER)
    assert all_of(asks(wire.a, wire.b, 54), Got.NOTHING)


def test_each_half_of_a_rule_holds_the_way_it_stands(wire: Lan, enforce: Enforce) -> None:
    """What the host sends passes by the fields of an answer, or by a rule for its direction, and by nothing else."""
    enforce(
        *dual("accept", "out", "udp", "dstportstart='53'"), *dual("accept", "in", "udp", "dstportstart='9'"), *DROP_ALL
    )
    wire.nft(script=HOSTS)
    assert all_of(asks(wire.host, wire.a), Got.NOTHING)
    assert all_of(asks(wire.host, wire.a, 54, sport=53), Got.ANSWER)
    assert all_of(asks(wire.host, wire.a, 9), Got.THERE)  # the guest's own packet is tracked, and is new
    for version in VERSIONS:
        assert ping(wire.host, wire.a, version=version) is Got.NOTHING


def test_a_connection_that_is_exempt_on_the_bridge_too(wire: Lan, enforce: Enforce) -> None:
    """
    What a guest sends is tracked on the bridge before the host's `notrack` for IP sees it, and answers that nobody has
    seen make it invalid; with a rule in table bridge the host's exemption is whole.
    """
    services = dual("accept", "out", "tcp", "dstportstart='53'"), dual("accept", "in", "tcp", "dstportstart='22'")
    enforce(*services[0], *services[1], *DROP_ALL)
    wire.nft(script=HOSTS)
    attempts: dict[object, Callable[[], Got]] = {
        (port, version): partial(tcp, *ends, port, version=version)
        for port, ends in ((53, (wire.a, wire.host)), (22, (wire.host, wire.a)))
        for version in VERSIONS
    }
    assert all_of(at_once(attempts), Got.NOTHING)
    wire.nft(script=BRIDGED.replace("udp dport 0-65535", "meta pkttype host tcp dport 0-65535"))
    assert all_of(at_once(attempts), Got.ANSWER)
    others = {version: partial(tcp, wire.a, wire.host, 54, version=version) for version in VERSIONS}
    assert all_of(at_once(others), Got.NOTHING)


def test_drops_for_a_state_leave_them_alone(wire: Lan, enforce: Enforce) -> None:
    """A packet without a state is neither new nor invalid."""
    enforce(*dual("drop", "inout", "all", "state='INVALID'"), *dual("drop", "in", "all", "state='NEW'"))
    wire.nft(script=HOSTS)
    assert all_of(asks(wire.a, wire.host), Got.ANSWER)


def test_what_the_kernel_never_tracks_is_not_exempt(wire: Lan, enforce: Enforce) -> None:
    """A neighbour's router advertisement reaches nobody who may only open connections, behind AH neither."""
    attempts = {
        "plain": partial(icmp, wire.b, wire.a, ADVERTISEMENT, version=6),
        "behind AH": partial(raw, wire.b, wire.a, AUTHENTICATION, behind_ah(wire.b, wire.a), version=6),
    }
    assert all_of(at_once(attempts), Got.THERE)
    for element in ("all-ipv6", "icmpv6", "ah-ipv6"):
        accept = test_stateful.rule("accept", "out", element)
        enforce(accept, *dual("accept", "in", "all", "state='ESTABLISHED'"), *DROP_ALL)
        assert all_of(at_once(attempts), Got.NOTHING)


def test_tracking_looks_behind_a_header_that_nft_stops_at(wire: Lan) -> None:
    """So a packet of protocol 51 may be untracked though nobody exempts it."""
    rule = 'iifname "vnet1" meta l4proto 51 ct state untracked counter'
    wire.nft(script=f"table bridge facts {{ chain in {{ type filter hook prerouting priority -150; {rule}\n }}\n}}")
    assert raw(wire.b, wire.a, AUTHENTICATION, behind_ah(wire.b, wire.a), version=6) is Got.THERE
    assert "packets 1 " in wire.nft("list", "table", "bridge", "facts")
