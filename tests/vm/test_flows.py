"""
The life of real flows under a guest's rules, to all that a guest talks with: guests, the host, and what is behind it.

`peer` is guest b, the host, or "far", two routers away. Most tests run without br_netfilter and with it; IPv4 and
IPv6 are tried at the same time, and so is all that is expected to fail, since that is a matter of patience.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest

from tests.vm import test_stateful
from tests.vm.flows import (
    Connection,
    Got,
    IcmpError,
    address,
    at_once,
    connected,
    exchange,
    fresh_port,
    icmp_error,
    knock,
    listen,
    ping,
    tcp,
    udp,
    udp_connected,
)
from tests.vm.lan import (
    BR_NETFILTER_MODES,
    Lan,
    Routed,
    Station,
    br_netfilter,
    delayed,
    forget_path_mtus,
    routed,
    run,
)
from tests.vm.test_stateful import Enforce, both_versions, drop_all, rule

pytestmark = pytest.mark.stock_kernel

enforce = test_stateful.enforce

VERSIONS = (4, 6)
DROP_ALL = tuple(drop_all(version) for version in VERSIONS)
EXCHANGES: dict[str, Callable[..., Got]] = {"tcp": tcp, "udp": udp, "ping": ping}
PORT_UNREACHABLE = {4: (3, 3), 6: (1, 4)}
AT_ONCE_S = 0.5  # a few milliseconds and what `delayed` adds, more on a busy machine; TCP tries again after a second

# scope: the tests of one mode are run together
every_mode = pytest.mark.parametrize("mode", BR_NETFILTER_MODES, indirect=True, scope="module")
both_modes = pytest.mark.parametrize("mode", ["absent", "on"], indirect=True, scope="module")


def dual(action: str, direction: str, element: str, options: str = "") -> tuple[str, ...]:
    """The same rule for IPv4 and for IPv6."""
    ipv6 = "icmpv6" if element == "icmp" else f"{element}-ipv6"
    return tuple(rule(action, direction, f"{name} {options}") for name in (element, ipv6))


@pytest.fixture(scope="module")
def behind(_lan: Lan) -> Iterator[Routed]:
    """The network behind the host."""
    with routed(_lan) as made:
        yield made


@pytest.fixture(params=["b", "host", "far"])
def peer(request: pytest.FixtureRequest, wire: Lan, behind: Routed) -> Station:
    """Whom guest a talks with."""
    stations: Mapping[str, Station] = {"b": wire.b, "host": wire.host, "far": behind.far}
    return stations[request.param]


@pytest.fixture(scope="module")
def mode(request: pytest.FixtureRequest, _lan: Lan) -> Iterator[str]:
    """What br_netfilter does where the bridge is."""
    with br_netfilter(_lan.host, request.param):
        yield request.param


def exchanges(client: Station, server: Station, *, port: int = 0) -> dict[str, Got]:
    """One of each kind, at once; on `port` only TCP and UDP, and both sides use it."""
    attempts: dict[str, Callable[[], Got]] = {}
    for version in VERSIONS:
        for name, try_ in EXCHANGES.items():
            if not port:
                attempts[f"{name} {version}"] = partial(try_, client, server, version=version)
            elif name != "ping":
                attempts[f"{name} {version}"] = partial(try_, client, server, port, sport=port, version=version)
    return at_once(attempts)


def all_of(got: Mapping[Any, object], expected: object) -> bool:
    """Whether every result is this one."""
    return dict(got) == dict.fromkeys(got, expected)


@every_mode
def test_br_netfilter_is_what_its_mode_says(wire: Lan, mode: str) -> None:
    """Only if it is on, bridged packets meet the host's own rules for IP."""
    wire.nft(script="table inet hosts { chain forward { type filter hook forward priority 0; policy drop; }\n}")
    got = at_once({version: partial(ping, wire.b, wire.a, version=version) for version in VERSIONS})
    assert all_of(got, Got.NOTHING if mode == "on" else Got.ANSWER)


# --- who may begin


@every_mode
def test_only_the_side_that_a_rule_names_opens_connections(
    wire: Lan, enforce: Enforce, peer: Station, mode: str
) -> None:
    """TCP, UDP and ping are answered by the stateful pair, and the other side can't begin; no other table helps."""
    guest_first = partial(exchanges, wire.a, peer)
    peer_first = partial(exchanges, peer, wire.a)
    enforce(*dual("accept", "out", "all"), *DROP_ALL)
    assert all_of(guest_first(), Got.ANSWER)
    assert all_of(peer_first(), Got.NOTHING)
    enforce(*dual("accept", "in", "all"), *DROP_ALL)
    assert all_of(peer_first(), Got.ANSWER)
    assert all_of(guest_first(), Got.NOTHING)
    assert wire.nft("list", "tables").splitlines() == ["table netdev nwfilter", "table bridge nwfilter"]


def test_large_datagrams_pass_rules_on_ports_through_routers(wire: Lan, enforce: Enforce, behind: Routed) -> None:
    """What the host routes comes in fragments, of which only the first has ports."""
    enforce(*dual("accept", "in", "udp", "dstportstart='9'"), *DROP_ALL)
    for version in VERSIONS:
        # the answer is too large for the path at first
        assert udp(behind.far, wire.a, 9, size=4000, version=version) in (Got.THERE, Got.ANSWER)
        assert udp(behind.far, wire.a, 10, size=4000, version=version) is Got.NOTHING


@pytest.mark.parametrize("action", ["drop", "reject"])
def test_the_other_half_of_a_one_way_drop_is_for_bridged_packets(
    wire: Lan, behind: Routed, enforce: Enforce, action: str
) -> None:
    """The host, and whom it routes for, open connections to a guest that may open none; a rule for that way counts."""
    answers = dual("accept", "out", "all", "state='ESTABLISHED'")
    enforce(*answers, *dual(action, "out", "all"))
    assert all_of(exchanges(wire.host, wire.a), Got.ANSWER)
    assert all_of(exchanges(behind.far, wire.a), Got.ANSWER)
    assert all_of(exchanges(wire.b, wire.a), Got.NOTHING)
    assert not {Got.ANSWER, Got.THERE}.intersection(exchanges(wire.a, wire.host).values())
    for direction in ("in", "inout"):
        enforce(*answers, *dual(action, direction, "all"))
        for peer in (wire.host, behind.far, wire.b):
            assert all_of(exchanges(peer, wire.a), Got.NOTHING)


# --- how long a connection lives


@both_modes
def test_a_connection_ends_with_its_rule(wire: Lan, enforce: Enforce, peer: Station, mode: str) -> None:
    """And only then: not with the same rules loaded again, nor with the rule of the connection beside it."""
    accept_out, accept_in = dual("accept", "out", "all"), dual("accept", "in", "all")
    enforce(*accept_out, *accept_in, *DROP_ALL)
    with ExitStack() as stack:
        guests = _connections(stack, wire.a, peer)
        peers = _connections(stack, peer, wire.a)
        assert all_of(_talk(guests) | _talk(peers), Got.ANSWER)
        enforce(*accept_out, *accept_in, *DROP_ALL, beside=True)
        assert all_of(_talk(guests) | _talk(peers), Got.ANSWER)
        enforce(*accept_in, *DROP_ALL, beside=True)
        assert all_of(_talk(peers), Got.ANSWER)
        assert all_of(_talk(guests, both_ways=True), Got.NOTHING)
        enforce(*DROP_ALL, beside=True)
        assert all_of(_talk(peers, both_ways=True), Got.NOTHING)


def _connections(stack: ExitStack, client: Station, server: Station) -> dict[str, Connection]:
    """Open one of TCP and of UDP for each IP version."""
    made = {}
    for version in VERSIONS:
        door = stack.enter_context(listen(server, fresh_port(), version=version))
        made[f"{client} tcp {version}"] = stack.enter_context(connected(client, door))
        made[f"{client} udp {version}"] = stack.enter_context(udp_connected(client, server, version=version))
    return made


def _talk(connections: Mapping[str, Connection], *, both_ways: bool = False) -> dict[str, Got]:
    """Have the client say something in each, and with `both_ways` the server too."""
    attempts = {f"{name} client": partial(exchange, near, far) for name, (near, far) in connections.items()}
    if both_ways:
        attempts |= {f"{name} server": partial(exchange, far, near) for name, (near, far) in connections.items()}
    return at_once(attempts)


# --- reject


@both_modes
def test_reject_refuses_the_guest_at_once(wire: Lan, enforce: Enforce, peer: Station, mode: str) -> None:
    """With a port unreachable in the name of whom the guest asked, which for a TCP socket is a refused connection."""
    enforce(*(xml for name in ("tcp", "udp") for xml in dual("reject", "out", name, "dstportstart='9'")))
    with delayed(wire.a):
        for version in VERSIONS:
            started = time.monotonic()
            assert tcp(wire.a, peer, 9, version=version) is Got.REFUSED
            after_tcp = time.monotonic()
            error = icmp_error(wire.a, address(peer, version), 9, version=version)
            after_udp = time.monotonic()
            assert error == (*PORT_UNREACHABLE[version], address(peer, version))
            assert max(after_tcp - started, after_udp - after_tcp) < AT_ONCE_S
    assert all_of(exchanges(wire.a, peer, port=10), Got.ANSWER)


def test_reject_in_is_silent_for_the_sender(wire: Lan, enforce: Enforce, peer: Station) -> None:
    """A packet to the guest is dropped; the guest's packets that the rule means, exchanged, are rejected."""
    enforce(*(xml for name in ("tcp", "udp") for xml in dual("reject", "in", name, "dstportstart='9'")))
    assert all_of(exchanges(peer, wire.a, port=9), Got.NOTHING)
    assert all_of(exchanges(peer, wire.a, port=10), Got.ANSWER)
    with delayed(wire.a):
        for version in VERSIONS:
            assert tcp(wire.a, peer, 10, sport=9, version=version) is Got.REFUSED
            assert udp(wire.a, peer, 10, sport=9, version=version) is Got.REFUSED


# --- ICMP errors about a connection, and what depends on them


@both_modes
@both_versions
def test_related_lets_icmp_errors_about_a_connection_in(
    wire: Lan, behind: Routed, enforce: Enforce, mode: str, version: int
) -> None:
    """Packet too big, time exceeded, destination unreachable, from the host and from beyond; without it, none."""
    hosts = wire.host.ip if version == 4 else wire.host.ip6
    routers = behind.router.ip if version == 4 else behind.router.ip6
    far = address(behind.far, version)
    too_big, exceeded, no_route = {4: ((3, 4), (11, 0), (3, 0)), 6: ((2, 0), (3, 0), (1, 0))}[version]
    unreachable = PORT_UNREACHABLE[version]
    send = partial(icmp_error, wire.a, version=version)
    provoked: dict[IcmpError, Callable[[], IcmpError | None]] = {
        (*too_big, str(hosts)): partial(send, far, fresh_port(), size=1420),
        (*too_big, str(routers)): partial(send, far, fresh_port(), size=1320),
        (*exceeded, str(hosts)): partial(send, far, fresh_port(), hops=1),
        (*exceeded, str(routers)): partial(send, far, fresh_port(), hops=2),
        (*no_route, str(routers)): partial(send, behind.nowhere[version], fresh_port()),
        (*unreachable, far): partial(send, far, fresh_port()),
        (*unreachable, str(hosts)): partial(send, str(hosts), fresh_port()),
        (*unreachable, address(wire.b, version)): partial(send, address(wire.b, version), fresh_port()),
    }
    accept_out = dual("accept", "out", "udp")
    enforce(*accept_out, *DROP_ALL)
    assert at_once(provoked) == dict.fromkeys(provoked)
    for element in ("icmp", "all"):
        enforce(*accept_out, *dual("accept", "in", element, "state='RELATED'"), *DROP_ALL)
        assert at_once(provoked) == {error: error for error in provoked}


def test_related_lets_the_guests_icmp_errors_out(wire: Lan, behind: Routed, enforce: Enforce) -> None:
    """A peer learns that a port of the guest is closed; without RELATED it learns nothing."""
    expected: dict[tuple[Station, int], IcmpError | None] = {}
    provoked: dict[tuple[Station, int], Callable[[], IcmpError | None]] = {}
    for version in VERSIONS:
        guest = address(wire.a, version)
        for peer in (wire.b, wire.host, behind.far):
            expected[peer, version] = (*PORT_UNREACHABLE[version], guest)
            provoked[peer, version] = partial(icmp_error, peer, guest, fresh_port(), version=version)
    accept_in = dual("accept", "in", "udp")
    enforce(*accept_in, *DROP_ALL)
    assert all_of(at_once(provoked), None)
    enforce(*accept_in, *dual("accept", "out", "icmp", "state='RELATED'"), *DROP_ALL)
    assert at_once(provoked) == expected


@both_modes
def test_tcp_finds_the_mtu_of_its_path_if_related_may_come_in(
    wire: Lan, behind: Routed, enforce: Enforce, mode: str
) -> None:
    """
    Without RELATED what the guest sends stalls, whoever opened the connection; the same transfer goes on once a rule
    accepts the errors of the host and the router.
    """
    data = bytes(range(250)) * 800
    accept = dual("accept", "out", "tcp") + dual("accept", "in", "tcp")
    forget_path_mtus(wire.a)
    enforce(*accept, *DROP_ALL)
    with ExitStack() as stack:
        guests, peers = [], {}
        for version in VERSIONS:
            for client, server in ((wire.a, behind.far), (behind.far, wire.a)):
                door = stack.enter_context(listen(server, fresh_port(), version=version))
                connection = stack.enter_context(connected(client, door))
                assert exchange(*connection) is Got.ANSWER
                guest, far = connection if client is wire.a else reversed(connection)
                guest.settimeout(10)
                guests.append(guest)
                peers[f"opened by {client}, {version}"] = far
        sending = stack.enter_context(ThreadPoolExecutor(len(guests)))
        for guest in guests:
            sending.submit(guest.sendall, data)
        receive = {name: partial(_received, far, len(data)) for name, far in peers.items()}
        assert all_of(at_once(receive), b"")
        enforce(*accept, *dual("accept", "in", "all", "state='RELATED'"), *DROP_ALL, beside=True)
        for far in peers.values():
            far.settimeout(10)  # until TCP tries again, for which it waits longer each time
        assert all_of(at_once(receive), data)


def _received(sock: socket.socket, size: int) -> bytes:
    """What comes, until it is so much or there has been nothing for as long as the socket's timeout."""
    data = b""
    while len(data) < size:
        try:
            data += sock.recv(size)
        except TimeoutError:
            break
    return data


# --- a helper's expectations


FTP_HELPER = """
table {family} helpers {{
    ct helper ftp {{ type "ftp" protocol tcp; }}
    chain assign {{
        type filter hook {hook} priority -160;
        tcp dport 21 ct helper set "ftp"
    }}
}}"""
"""An administrator's own table that says which connections are FTP; it must do so where they are first seen."""
FIRST_SEEN = {"b": ("bridge", "prerouting"), "host": ("ip", "output"), "far": ("ip", "prerouting")}


def test_document_ftp_server(wire: Lan, enforce: Enforce, peer: Station) -> None:
    """Solution 1 of the document: the data connection that a client asks for is related, and no other one is."""
    run("modprobe", "nf_conntrack_ftp")
    enforce(
        rule("accept", "in", "tcp dstportstart='21'"),
        rule("accept", "out", "tcp srcportstart='20' state='RELATED,ESTABLISHED'"),
        rule("accept", "in", "tcp dstportstart='20' state='ESTABLISHED'"),
        drop_all(),
    )
    family, hook = FIRST_SEEN[repr(peer)]
    wire.nft(script=FTP_HELPER.format(family=family, hook=hook))
    with ExitStack() as stack:
        control = stack.enter_context(listen(wire.a, 21))
        data, other = (stack.enter_context(listen(peer, fresh_port())) for _ in range(2))
        near, far = stack.enter_context(connected(peer, control))
        near.send(b"USER anonymous\r\n")  # the helper begins to read after a first line
        assert far.recv(100)
        host, port = data.getsockname()
        assert knock(wire.a, data, sport=20) is Got.NOTHING
        near.send(f"PORT {host.replace('.', ',')},{port >> 8},{port & 255}\r\n".encode())
        assert far.recv(100)
        assert knock(wire.a, other, sport=20) is Got.NOTHING
        assert knock(wire.a, data, sport=20) is Got.ANSWER
