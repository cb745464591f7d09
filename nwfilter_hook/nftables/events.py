"""
What others and we change in nf_tables, as the kernel tells it while it happens.

In:  the events of the kernel's group for nf_tables.
Out: a `Commit` for each transaction that touches a table of ours: whose rules, and who did it.

A transaction's messages end with one that holds its generation, and the name and thread id of the process that made it.
What the packet path puts into sets (learned addresses) makes no event.

linux/netfilter/nfnetlink.h (NFNLGRP_NFTABLES), nf_tables.h
"""

from __future__ import annotations

import errno
import select
import struct

from ..base.errors import NftError
from ..commits import Commit, Monitor
from ..network.netlink import NETFILTER, Message, Netlink, Overrun, attribute_list, attributes, number, text
from .names import MAPS, TABLE

_GROUP = 7
_SUBSYSTEM = 10  # NFNL_SUBSYS_NFTABLES
_DEL_TABLE, _CHAINS, _RULES, _ELEMENTS, _NEW_GENERATION = 2, (3, 5), (6, 8), (12, 14), 15
_FAMILIES = (7, 5, 1, 3)  # bridge, netdev, inet, arp
_MANY = 16
"""Of more taps there is no list: reading it would take longer than looking at all."""
_GENERIC = 4  # struct nfgenmsg
_BUFFER = 8 << 20
"""What a flush of thousands of rules says at once has room in it; the kernel takes the memory when it is used."""


class NftMonitor(Monitor):
    """See backend.Monitor."""

    def __init__(self) -> None:
        try:
            self._netlink = Netlink(NETFILTER, (_GROUP,))
        except OSError as error:
            raise NftError(f"the kernel doesn't tell of changes of its ruleset: {error.strerror}") from error
        self._netlink.enlarge(_BUFFER)
        self._begin()

    def _begin(self) -> None:
        self._taps: set[str] = set()
        self._shared = self._everything = False

    def fileno(self) -> int:
        return self._netlink.fileno()

    def read(self) -> list[Commit]:
        found: list[Commit] = []
        while not (self._touched or found) and select.select([self], [], [], 0)[0]:
            try:
                messages = self._netlink.events()
            except Overrun:
                self._everything = True
                found.append(self._commit(0, "", 0))
                continue
            except OSError as error:
                if error.errno != errno.EMSGSIZE:
                    raise NftError(f"the kernel's ruleset can't be watched: {error.strerror}") from error
                self._everything = True
                continue
            for message in messages:
                if message.type >> 8 == _SUBSYSTEM:
                    found += self._read(message)
        if self._touched:  # its end is still to come, so it is a large one; what it does is done
            self._everything = True
            found.append(self._commit(0, "", 0))
        return found

    @property
    def _touched(self) -> bool:
        return bool(self._taps or self._shared or self._everything)

    def _read(self, message: Message) -> list[Commit]:
        kind, payload = message.type & 0xFF, message.payload
        if kind == _NEW_GENERATION:
            said = attributes(payload, _GENERIC)
            generation, thread = (number(said.get(key, b""), network_order=True) for key in (1, 2))
            return [self._commit(generation, text(said.get(3, b"")), thread)]
        if self._everything or payload[:1] not in _OURS:
            return []
        parts = attribute_list(payload, _GENERIC)
        if text(next(parts, (0, b""))[1]) != TABLE:
            return []
        if kind == _DEL_TABLE:
            self._everything = True
        elif kind in _CHAINS or kind in _RULES:
            chain = attributes(payload, _GENERIC).get(3 if kind in _CHAINS else 2, b"")
            self._touch(text(chain))
        elif kind in _ELEMENTS:
            said = attributes(payload, _GENERIC)
            if text(said.get(2, b"")) in MAPS:
                for _, element in attribute_list(said.get(3, b"")):
                    key = attributes(attributes(element).get(1, b"")).get(1, b"")
                    self._touch(f"/{text(key)}")
        return []

    def _touch(self, name: str) -> None:
        """A chain, or /TAP."""
        tap = [*name.split("/"), ""][1]
        if tap:
            self._taps.add(tap)
            self._everything |= len(self._taps) > _MANY
        else:
            self._shared = True

    def _commit(self, generation: int, process: str, thread: int) -> Commit:
        made = Commit(generation, process, thread, frozenset(self._taps), self._shared, self._everything)
        self._begin()
        return made

    def close(self) -> None:
        self._netlink.__exit__()


_OURS = tuple(struct.pack("=B", family) for family in _FAMILIES)
