"""
Real sockets between the stations of a `Lan`.

`tcp`, `udp`, `ping`, `raw` make one exchange and say how far it got. An answer takes some milliseconds in the VM;
what has not come after `PATIENCE_S` was dropped.
"""

from __future__ import annotations

import errno
import itertools
import select
import socket
import struct
from collections.abc import Callable, Hashable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from enum import Enum, auto
from ipaddress import ip_address
from typing import TypeVar

from tests.vm import packets
from tests.vm.lan import Station

PATIENCE_S = 0.6
ECHO_REQUEST = {4: 8, 6: 128}
ECHO_REPLY = {4: 0, 6: 129}
_ICMP = {4: socket.IPPROTO_ICMP, 6: socket.IPPROTO_ICMPV6}
_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
_REFUSED = (errno.ECONNREFUSED, errno.ECONNRESET)

Connection = tuple[socket.socket, socket.socket]
Name = TypeVar("Name", bound=Hashable)
Result = TypeVar("Result")
_numbers = itertools.count(20000)


class Got(Enum):
    """How far an exchange got."""

    ANSWER = auto()  # there and back
    THERE = auto()  # the other side got it, no answer came back
    REFUSED = auto()  # a TCP RST, or an ICMP error that means the same to the socket
    NOTHING = auto()


def fresh_port() -> int:
    """A number that no exchange has used yet, so that no tracked connection is met twice."""
    return next(_numbers)


def address(station: Station, version: int) -> str:
    """The station's address of this IP version."""
    return str(station.ip if version == 4 else station.ip6)


def open_socket(
    station: Station, version: int, kind: int, protocol: int = 0, *, patience_s: float = PATIENCE_S
) -> socket.socket:
    """A socket of the station."""
    with station.inside():
        made = socket.socket(_FAMILY[version], kind, protocol)
    made.settimeout(patience_s)
    if kind == socket.SOCK_STREAM:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return made


def _failure(error: OSError) -> Got:
    if error.errno in _REFUSED:
        return Got.REFUSED
    if isinstance(error, TimeoutError):
        return Got.NOTHING
    raise error


def at_once(attempts: Mapping[Name, Callable[[], Result]]) -> dict[Name, Result]:
    """Make all these attempts at the same time, so that those that fail share their patience; results by name."""
    with ThreadPoolExecutor(len(attempts)) as pool:
        futures = {name: pool.submit(attempt) for name, attempt in attempts.items()}
        return {name: future.result() for name, future in futures.items()}


# --- connections (TCP, SCTP)


def listen(server: Station, port: int, *, version: int = 4, protocol: int = 0) -> socket.socket:
    """A socket that connections can be made to."""
    listener = open_socket(server, version, socket.SOCK_STREAM, protocol)
    listener.bind((address(server, version), port))
    listener.listen()
    return listener


@contextmanager
def connected(
    client: Station, listener: socket.socket, *, sport: int = 0, patience_s: float = PATIENCE_S
) -> Iterator[Connection]:
    """An open connection, as (client's socket, server's socket); OSError if it doesn't come about."""
    version = 4 if listener.family == socket.AF_INET else 6
    with open_socket(client, version, socket.SOCK_STREAM, listener.proto, patience_s=patience_s) as near:
        near.bind((address(client, version), sport))
        near.connect(listener.getsockname()[:2])
        far, _ = listener.accept()
        far.settimeout(PATIENCE_S)
        with far:
            yield near, far


def exchange(near: socket.socket, far: socket.socket) -> Got:
    """Send a byte from `near` to `far` and another one back, on connected sockets."""
    try:
        near.send(b"?")
        far.recv(100)
    except OSError as error:
        return _failure(error)
    try:
        far.send(b"!")
        near.recv(100)
    except TimeoutError:
        return Got.THERE
    return Got.ANSWER


def knock(client: Station, listener: socket.socket, *, sport: int = 0, patience_s: float = PATIENCE_S) -> Got:
    """Connect to the listener, exchange a byte each way, close."""
    try:
        with connected(client, listener, sport=sport, patience_s=patience_s) as (near, far):
            return exchange(near, far)
    except OSError as error:
        return _failure(error)


def tcp(
    client: Station,
    server: Station,
    port: int = 0,
    *,
    sport: int = 0,
    version: int = 4,
    protocol: int = 0,
    patience_s: float = PATIENCE_S,
) -> Got:
    """Connect, exchange a byte each way."""
    with listen(server, port or fresh_port(), version=version, protocol=protocol) as listener:
        return knock(client, listener, sport=sport, patience_s=patience_s)


def sctp(client: Station, server: Station, port: int = 0, *, sport: int = 0, version: int = 4) -> Got:
    """As `tcp`."""
    return tcp(client, server, port, sport=sport, version=version, protocol=socket.IPPROTO_SCTP)


# --- datagrams


def udp(
    client: Station,
    server: Station,
    port: int = 0,
    *,
    sport: int = 0,
    version: int = 4,
    protocol: int = 0,
    size: int = 1,
    dscp: int = 0,
) -> Got:
    """Send one datagram of `size` bytes, marked with `dscp`, and have it answered by one like it."""
    port = port or fresh_port()
    with (
        open_socket(server, version, socket.SOCK_DGRAM, protocol) as far,
        open_socket(client, version, socket.SOCK_DGRAM, protocol) as near,
    ):
        for end in (near, far):
            _mark(end, version, dscp)
        far.bind((address(server, version), port))
        near.bind((address(client, version), sport or fresh_port()))
        near.connect((address(server, version), port))
        try:
            near.send(b"?" * size)
            _, sender = far.recvfrom(10000)
        except TimeoutError:
            code = near.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            return Got.REFUSED if code in _REFUSED else Got.NOTHING
        far.sendto(b"!" * size, sender)
        try:
            near.recv(10000)
        except TimeoutError:
            return Got.THERE
        return Got.ANSWER


def _mark(sock: socket.socket, version: int, dscp: int) -> None:
    level, option = (socket.IPPROTO_IP, socket.IP_TOS) if version == 4 else (socket.IPPROTO_IPV6, socket.IPV6_TCLASS)
    sock.setsockopt(level, option, dscp << 2)


@contextmanager
def udp_connected(client: Station, server: Station, *, version: int = 4) -> Iterator[Connection]:
    """Two UDP sockets that talk with each other only, as (client's socket, server's socket); nothing is sent yet."""
    with (
        open_socket(client, version, socket.SOCK_DGRAM) as near,
        open_socket(server, version, socket.SOCK_DGRAM) as far,
    ):
        for end, station in ((near, client), (far, server)):
            end.bind((address(station, version), fresh_port()))
        near.connect(far.getsockname()[:2])
        far.connect(near.getsockname()[:2])
        yield near, far


def udplite(client: Station, server: Station, port: int = 0, *, version: int = 4) -> Got:
    """As `udp`."""
    return udp(client, server, port, version=version, protocol=socket.IPPROTO_UDPLITE)


def closed_port(client: Station, server: Station, port: int, *, version: int = 4) -> Got:
    """Send a datagram to a port that nobody listens on: REFUSED if the ICMP error comes back."""
    with open_socket(client, version, socket.SOCK_DGRAM) as near:
        near.connect((address(server, version), port))
        near.send(b"?")
        try:
            near.recv(1)
        except OSError as error:
            return _failure(error)
    raise AssertionError("there was an answer")


# Not in Python's socket module; include/uapi/linux/in.h, in6.h, errqueue.h.
_LEVEL = {4: socket.IPPROTO_IP, 6: socket.IPPROTO_IPV6}
_TTL = {4: socket.IP_TTL, 6: socket.IPV6_UNICAST_HOPS}
_MTU_DISCOVER = {4: 10, 6: 23}
_PMTUDISC_PROBE = 3  # DF is set, and what was learned of the path's MTU isn't used
_RECVERR = {4: 11, 6: 25}
_ORIGIN_ICMP = {4: 2, 6: 3}

IcmpError = tuple[int, int, str]


def icmp_error(
    client: Station, destination: str, port: int, *, size: int = 1, hops: int = 64, version: int = 4
) -> IcmpError | None:
    """
    Send one datagram of `size` bytes that no router may cut, and wait for the ICMP error that it causes.

    Returns:
        Type, code and sender of the error that the client's socket is told of; None if there was none.
    """
    level = _LEVEL[version]
    with open_socket(client, version, socket.SOCK_DGRAM) as near:
        near.setsockopt(level, _TTL[version], hops)
        near.setsockopt(level, _MTU_DISCOVER[version], _PMTUDISC_PROBE)
        near.setsockopt(level, _RECVERR[version], 1)
        near.bind((address(client, version), fresh_port()))
        near.connect((destination, port))
        near.send(b"?" * size)
        try:
            near.recv(1)
        except TimeoutError:
            return None
        except OSError:
            _, [(_, _, data), *_], _, _ = near.recvmsg(2000, 500, socket.MSG_ERRQUEUE)
            _, origin, kind, code = struct.unpack_from("IBBB", data)
            assert origin == _ORIGIN_ICMP[version], origin
            # struct sock_extended_err has 16 bytes, then comes a struct sockaddr_in or sockaddr_in6
            sender = data[20:24] if version == 4 else data[24:40]
            return kind, code, str(ip_address(sender))
    raise AssertionError("there was an answer")


def ping(client: Station, server: Station, *, version: int = 4) -> Got:
    """Send an echo request that the server's kernel answers."""
    identity = fresh_port()
    with open_socket(client, version, socket.SOCK_RAW, _ICMP[version]) as near:
        # The kernel fills in the checksum of ICMPv6 itself.
        near.sendto(packets.icmp(ECHO_REQUEST[version], identity=identity), (address(server, version), 0))
        for message in _icmp_messages(near, version):
            if message[0] == ECHO_REPLY[version] and struct.unpack_from("!H", message, 4)[0] == identity:
                return Got.ANSWER
    return Got.NOTHING


def _icmp_messages(sock: socket.socket, version: int) -> Iterator[bytes]:
    while select.select([sock], [], [], PATIENCE_S)[0]:
        packet = sock.recv(2000)
        yield packet[(packet[0] & 15) * 4 :] if version == 4 else packet


def raw(sender: Station, receiver: Station, protocol: int, payload: bytes, *, version: int = 4) -> Got:
    """Send one packet of any IP protocol: THERE if a raw socket of the receiver sees it."""
    with (
        open_socket(receiver, version, socket.SOCK_RAW, protocol) as far,
        open_socket(sender, version, socket.SOCK_RAW, protocol) as near,
    ):
        near.sendto(payload, (address(receiver, version), 0))
        while select.select([far], [], [], PATIENCE_S)[0]:
            packet, source = far.recvfrom(2000)
            # Its checksum, if it has one, is the kernel's own.
            if source[0] == address(sender, version) and packet.endswith(payload[4:]):
                return Got.THERE
    return Got.NOTHING


def icmp(sender: Station, receiver: Station, kind: int, code: int = 0, *, version: int = 4) -> Got:
    """Send one ICMP message of any type: THERE if the receiver gets it."""
    return raw(sender, receiver, _ICMP[version], packets.icmp(kind, code, identity=fresh_port()), version=version)
