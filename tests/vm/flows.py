"""
Real sockets between the stations of a `Lan`.

Each function makes one exchange and says how far it got, in an enum whose names a test can compare with. An answer takes
a millisecond, in the VM some ten; what has not come after `PATIENCE_S` was dropped.
"""

from __future__ import annotations

import errno
import itertools
import os
import select
import socket
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager
from enum import Enum, auto

from tests.vm.lan import Station

PATIENCE_S = 0.4
_fresh_port = itertools.count(20000)
_fresh_id = itertools.count(os.getpid() & 0x3FFF)


class Got(Enum):
    """How far an exchange got."""

    ANSWER = auto()  # there and back
    THERE = auto()  # the other side got it, its answer was lost
    RESET = auto()  # a TCP RST, or an ICMP error that means the same to the socket
    UNREACHABLE = auto()  # another ICMP error
    NOTHING = auto()


def fresh_port() -> int:
    """A port that no exchange has used yet, so that no tracked connection is met twice."""
    return next(_fresh_port)


def address(station: Station, version: int) -> str:
    """The station's address of this IP version."""
    return str(station.ip if version == 4 else station.ip6)


def _socket(station: Station, version: int, kind: int, protocol: int = 0) -> socket.socket:
    with station.inside():
        made = socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.settimeout(PATIENCE_S)
    return made


def _sort(error: OSError) -> Got:
    if isinstance(error, TimeoutError):
        return Got.NOTHING
    if error.errno in (errno.ECONNREFUSED, errno.ECONNRESET):
        return Got.RESET
    if error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EACCES, errno.EPROTO, errno.ENOPROTOOPT):
        return Got.UNREACHABLE
    raise error


@contextmanager
def tcp_connection(
    client: Station, server: Station, port: int, *, sport: int = 0, version: int = 4
) -> Iterator[tuple[socket.socket, socket.socket]]:
    """An open connection, as (client's socket, server's socket); OSError if it doesn't come about."""
    with (
        closing(_socket(server, version, socket.SOCK_STREAM)) as listener,
        closing(_socket(client, version, socket.SOCK_STREAM)) as near,
    ):
        listener.bind((address(server, version), port))
        listener.listen()
        near.bind((address(client, version), sport))
        near.connect((address(server, version), port))
        far, _ = listener.accept()
        far.settimeout(PATIENCE_S)
        with closing(far):
            yield near, far


def exchange(near: socket.socket, far: socket.socket) -> Got:
    """Send a byte from `near` to `far` and another one back, on connected sockets."""
    try:
        near.send(b"?")
        far.recv(100)
    except OSError as error:
        return _sort(error)
    try:
        far.send(b"!")
        near.recv(100)
    except TimeoutError:
        return Got.THERE
    return Got.ANSWER


def tcp(client: Station, server: Station, port: int = 0, *, sport: int = 0, version: int = 4) -> Got:
    """Connect, exchange a byte each way."""
    try:
        with tcp_connection(client, server, port or fresh_port(), sport=sport, version=version) as (near, far):
            return exchange(near, far)
    except OSError as error:
        return _sort(error)


def udp(client: Station, server: Station, port: int = 0, *, sport: int = 0, version: int = 4) -> Got:
    """Send one datagram and have it answered."""
    port = port or fresh_port()
    with (
        closing(_socket(server, version, socket.SOCK_DGRAM)) as far,
        closing(_socket(client, version, socket.SOCK_DGRAM)) as near,
    ):
        far.bind((address(server, version), port))
        near.bind((address(client, version), sport or fresh_port()))
        near.connect((address(server, version), port))
        try:
            near.send(b"?")
            _, sender = far.recvfrom(100)
        except TimeoutError:
            return _pending_error(near)
        far.sendto(b"!", sender)
        try:
            near.recv(100)
        except OSError as error:
            return Got.THERE if isinstance(error, TimeoutError) else _sort(error)
        return Got.ANSWER


def _pending_error(sock: socket.socket) -> Got:
    """What an ICMP error has left on the socket."""
    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    return _sort(OSError(code, "")) if code else Got.NOTHING


ECHO_REQUEST = {4: 8, 6: 128}
ECHO_REPLY = {4: 0, 6: 129}


def ping(client: Station, server: Station, *, version: int = 4) -> Got:
    """Send an echo request; the server's kernel answers. THERE is never returned."""
    protocol = socket.IPPROTO_ICMP if version == 4 else socket.IPPROTO_ICMPV6
    identity = next(_fresh_id)
    with closing(_socket(client, version, socket.SOCK_RAW, protocol)) as near:
        near.sendto(icmp(ECHO_REQUEST[version], identity=identity), (address(server, version), 0))
        while select.select([near], [], [], PATIENCE_S)[0]:
            packet = near.recv(2000)
            message = packet[(packet[0] & 15) * 4 :] if version == 4 else packet
            if message[0] == ECHO_REPLY[version] and struct.unpack_from("!H", message, 4)[0] == identity:
                return Got.ANSWER
    return Got.NOTHING


def icmp(kind: int, code: int = 0, *, identity: int = 1) -> bytes:
    """An ICMP message; the kernel fills in an ICMPv6 checksum itself."""
    body = struct.pack("!HH", identity, 1) + b"payload."
    head = struct.pack("!BBH", kind, code, 0)
    words = struct.unpack(f"!{len(head + body) // 2}H", head + body)
    total = sum(words)
    total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!BBH", kind, code, ~total & 0xFFFF) + body


def datagram(sender: Station, receiver: Station, protocol: int, payload: bytes, *, version: int = 4) -> Got:
    """Send one packet of any IP protocol through a raw socket: THERE if a raw socket of the receiver sees it."""
    with (
        closing(_socket(receiver, version, socket.SOCK_RAW, protocol)) as far,
        closing(_socket(sender, version, socket.SOCK_RAW, protocol)) as near,
    ):
        near.sendto(payload, (address(receiver, version), 0))
        while select.select([far], [], [], PATIENCE_S)[0]:
            packet, source = far.recvfrom(2000)
            if source[0] == address(sender, version) and packet.endswith(payload[4:]):
                return Got.THERE
    return Got.NOTHING
