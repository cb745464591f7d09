"""
Netlink sockets: questions, their answers, and events.

In:  a protocol (`ROUTE`, `NETFILTER`), a message type, its payload.
Out: `Message`s; `attributes` takes a payload apart.

A raw socket, as libvirtd's AppArmor profile allows ("network netlink raw").
https://docs.kernel.org/userspace-api/netlink/intro.html; include/uapi/linux/netlink.h
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterable, Iterator

from ..base.dataclass import dataclass
from .door import Door

ROUTE = 0
NETFILTER = 12

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence number, port
_ATTRIBUTE = struct.Struct("=HH")  # length, type
_REQUEST, _ACK, _INTERRUPTED, _DUMP = 0x1, 0x4, 0x10, 0x300  # flags
_NOOP, _ERROR, _DONE = 1, 2, 3  # types
_NESTED_OR_NETWORK_ORDER = 0xC000
_LARGEST = 1 << 17
_TRUNCATED = 0x20  # MSG_TRUNC
_TRIES = 5
"""A dump that the kernel says was changed meanwhile is asked for again, this often in all."""


@dataclass(frozen=True)
class Message:
    """One message: its type, and what follows the header."""

    type: int
    payload: bytes


class Interrupted(OSError):
    """What was listed changed while it was; each time it was asked for."""


class Overrun(OSError):
    """Events came faster than they were read, and some are lost."""


class Netlink:
    """
    One socket.

    Args:
        groups: numbers of the groups whose events `events` returns (RTNLGRP_LINK is 1).

    Raises:
        OSError: there is no such protocol here.
    """

    def __init__(self, protocol: int, groups: Iterable[int] = ()) -> None:
        self._socket = Door(protocol)
        try:
            self._socket.bind((0, 0))
            for group in groups:
                self._socket.setsockopt(270, 1, group)  # SOL_NETLINK, NETLINK_ADD_MEMBERSHIP
        except OSError:
            self._socket.close()
            raise
        self._sequence = 0

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def enlarge(self, octets: int) -> None:
        """Room for so many octets of events that wait to be read, whatever net.core.rmem_max says. Raises OSError."""
        self._socket.setsockopt(1, 33, octets)  # SOL_SOCKET, SO_RCVBUFFORCE

    def fileno(self) -> int:
        """For select and its like."""
        return self._socket.fileno()

    def ask(self, message_type: int, payload: bytes, *, dump: bool = False) -> list[Message]:
        """
        The answer to one question: one message, or with `dump` everything that fits.

        Raises:
            OSError: the kernel's errno: ENODEV, EOPNOTSUPP, EPERM …
        """
        for _ in range(_TRIES):
            answer = self._ask(message_type, payload, dump)
            if answer is not None:
                return answer
        raise Interrupted(errno.EINTR, f"message {message_type}: changed while it was listed")

    def events(self) -> list[Message]:
        """
        What has happened, of the groups that were asked for; waits for it.

        Raises:
            Overrun: some of it is lost: look at everything.
        """
        try:
            return [Message(kind, payload) for kind, _, _, payload in self._receive()]
        except OSError as error:
            if error.errno == errno.ENOBUFS:
                raise Overrun(error.errno, os.strerror(error.errno)) from error
            raise

    def _ask(self, message_type: int, payload: bytes, dump: bool) -> list[Message] | None:
        self._sequence += 1
        flags = _REQUEST | (_DUMP if dump else _ACK)
        header = _HEADER.pack(_HEADER.size + len(payload), message_type, flags, self._sequence, 0)
        self._socket.sendto(header + payload, (0, 0))
        found: list[Message] = []
        whole = True
        while True:
            for kind, flags, sequence, answer in self._receive():
                if sequence != self._sequence:
                    continue  # what an event or an interrupted question left
                whole = whole and not flags & _INTERRUPTED
                if kind in (_ERROR, _DONE):
                    number = int.from_bytes(answer[:4], "little" if _LITTLE else "big", signed=True)
                    if number < 0:
                        raise OSError(-number, os.strerror(-number))
                    return found if whole else None
                if kind != _NOOP:
                    found.append(Message(kind, answer))

    def _receive(self) -> Iterator[tuple[int, int, int, bytes]]:
        data, _, flags, sender = self._socket.recvmsg(_LARGEST)
        if flags & _TRUNCATED:
            raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
        if sender[0] != 0:
            return  # not the kernel
        offset = 0
        while offset + _HEADER.size <= len(data):
            length, kind, message_flags, sequence, _ = _HEADER.unpack_from(data, offset)
            if length < _HEADER.size:
                return
            yield kind, message_flags, sequence, data[offset + _HEADER.size : offset + length]
            offset += _padded(length)


_LITTLE = struct.pack("=H", 1) == b"\1\0"


def attributes(data: bytes, start: int = 0) -> dict[int, bytes]:
    """The attributes from `start` on, by type; of one that is there twice, the last."""
    return dict(attribute_list(data, start))


def attribute_list(data: bytes, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """The attributes from `start` on, in their order; what is cut short is left out."""
    while start + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, start)
        if length < _ATTRIBUTE.size or start + length > len(data):
            return
        yield kind & ~_NESTED_OR_NETWORK_ORDER, data[start + _ATTRIBUTE.size : start + length]
        start += _padded(length)


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, for a question."""
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, kind) + value + bytes(_padded(length) - length)


def text(value: bytes) -> str:
    """A string as the kernel writes it."""
    return value.partition(b"\0")[0].decode(errors="surrogateescape")


def number(value: bytes, *, network_order: bool = False) -> int:
    """A number as the kernel writes it; 0 if there is none."""
    return int.from_bytes(value, "big" if network_order or not _LITTLE else "little")


def _padded(length: int) -> int:
    return (length + 3) & ~3
