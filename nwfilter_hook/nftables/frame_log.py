"""
Whole frames, as a rule with `log group` hands them out.

In:  a group of the kernel's log, which nobody else has; a rule's prefix in it.
Out: the frame that has certain headers; what nobody has asked for.

linux/netfilter/nfnetlink_log.h; net/netfilter/nfnetlink_log.c: of a device's egress the payload begins with the
Ethernet header, elsewhere behind it, and a tag that the kernel has taken off is told by itself.
"""

from __future__ import annotations

import contextlib
import os
import select
import struct
import time
from collections import deque

from ..network.netlink import NETFILTER, Message, Netlink, Overrun, attribute, attributes, text
from .trace_messages import Headers

_ULOG = 4 << 8  # NFNL_SUBSYS_ULOG
_PACKET, _CONFIGURE = _ULOG | 0, _ULOG | 1
_COMMAND, _MODE, _THRESHOLD = 1, 2, 5
_BIND, _COPY_PACKET, _WHOLE = 1, 2, 0xFFFF
_HEADER, _PAYLOAD, _PREFIX, _HARDWARE, _TAG, _LINK = 1, 9, 10, 16, 20, 21
_NETDEV, _EGRESS = 5, 1
_GROUPS = range(0x7000, 0x8000)
_TRIES = 32
_BUFFER = 4 << 20
_HELD = 512


class FrameLog:
    """
    A group of the log.

    Attributes:
        group: its number.
    """

    def __init__(self) -> None:
        """Raises OSError: this kernel hands out no frames."""
        self._netlink = Netlink(NETFILTER)
        self._frames: deque[tuple[float, str, bytes]] = deque(maxlen=_HELD)
        try:
            self._netlink.enlarge(_BUFFER)
            self.group = self._bind()
        except OSError:
            self.close()
            raise

    @property
    def waiting(self) -> bool:
        """Whether there are frames that nobody has taken."""
        return bool(self._frames)

    def take(self, prefix: str, headers: Headers) -> bytes | None:
        """The first frame of this prefix that has the headers, and wasn't taken; None if there is none."""
        self._read()
        for position, (_, said, data) in enumerate(self._frames):
            if said == prefix and headers.are_of(data):
                del self._frames[position]
                return data
        return None

    def forsaken(self, patience_s: float) -> list[tuple[str, bytes]]:
        """Prefix and frame of what nobody has taken for so long; it goes."""
        self._read()
        late = []
        while self._frames and self._frames[0][0] <= time.monotonic() - patience_s:
            late.append(self._frames.popleft()[1:])
        return late

    def close(self) -> None:
        """The group is free."""
        self._netlink.__exit__()

    def _bind(self) -> int:
        first = os.getpid() % len(_GROUPS)
        for number in range(_TRIES):
            group = _GROUPS[(first + number) % len(_GROUPS)]
            try:
                self._configure(group, attribute(_COMMAND, bytes([_BIND])))
            except OSError:
                if number == _TRIES - 1:
                    raise
                continue  # somebody has it
            self._configure(group, attribute(_MODE, struct.pack("!IBB", _WHOLE, _COPY_PACKET, 0)))
            self._configure(group, attribute(_THRESHOLD, struct.pack("!I", 1)))  # each frame at once
            return group
        raise AssertionError

    def _configure(self, group: int, what: bytes) -> None:
        self._netlink.ask(_CONFIGURE, struct.pack("!BBH", 0, 0, group) + what)

    def _read(self) -> None:
        while select.select([self._netlink], [], [], 0)[0]:
            with contextlib.suppress(Overrun):
                for message in self._netlink.events():
                    if message.type == _PACKET:
                        found = attributes(message.payload, 4)
                        prefix, data = text(found.get(_PREFIX, b"")), _frame_of(message, found)
                        self._frames.append((time.monotonic(), prefix, data))


def _frame_of(message: Message, found: dict[int, bytes]) -> bytes:
    payload = found.get(_PAYLOAD, b"")
    hook = found.get(_HEADER, bytes(4))[2]
    front = found.get(_LINK, found.get(_HARDWARE, b""))
    data = payload if message.payload[0] == _NETDEV and hook == _EGRESS else front + payload
    tag = attributes(found.get(_TAG, b""))
    return data[:12] + tag[1] + tag[2] + data[12:] if 1 in tag and 2 in tag else data
