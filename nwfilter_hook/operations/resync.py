"""
Guests as libvirt has them now, where no hook tells: hot-plugged and unplugged devices, changed filters, parameters and
bridges, changed metadata, guests that ran before the hook was there, guests that are gone.

In:  a `Host`, libvirt.
Out: for each guest what the hook does at `reconnect`; what belongs to guests that don't run is removed.

libvirt waits for a hook that waits for our lock: it is asked before we take that, never under it. So what it said may
be old news by then: the guest has stopped, its tap's name is another guest's. Under the lock we look whether the record
and the devices are the ones that were there before libvirt was asked; if not, it is asked again.
"""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Iterable, Mapping

from ..base.dataclass import dataclass, replace
from ..base.errors import LibvirtError, NwfilterHookError, Overtaken
from ..base.said import BYPASSED, Said
from ..domain.model import Domain
from ..guards import Guard
from ..host import Host
from ..libvirtd import Libvirt
from .bindings import OPERATION as BOUND_BY_HAND
from .bypasses import find_bypasses
from .dispatch import reconnect
from .removal import remove

OPERATION = "resync"
FOLLOWED, UNCHANGED, REMOVED, NOTHING, FAILED = "followed", "unchanged", "removed", "", "failed"
_TRIES = 5


@dataclass(frozen=True)
class Seen:
    """
    What a guest was followed by: as long as all of it is the same there is nothing to do.

    Attributes:
        xml: a digest. configuration: its text. guard: as it was before libvirt was asked.
        stamp: of the record.
        devices: the interfaces' taps with their devices' indexes, None for one that isn't there.
    """

    xml: bytes
    configuration: str | None
    guard: Guard | None
    stamp: tuple[int, ...]
    devices: tuple[tuple[str, int | None], ...]


@dataclass(frozen=True)
class Followed:
    """
    What became of one guest.

    Attributes:
        guest: its name; the UUID where none is known.
        outcome: FOLLOWED, UNCHANGED (since it was followed last), REMOVED, NOTHING (there is no such guest and no
            record), FAILED with the reason in `error`.
        notes: what its administrator should know.
        seen: None unless it was followed and there is nothing to note.
    """

    guest: str
    uuid: str
    outcome: str
    error: str = ""
    notes: tuple[str, ...] = ()
    seen: Seen | None = None


class _Asked:
    """What was known of a guest and of the devices of this host before libvirt was asked."""

    def __init__(self, host: Host, uuid: str, devices: Mapping[str, int] | None = None) -> None:
        self._host = host
        self._uuid = uuid
        self._stamp = host.state.stamp(uuid)
        self._devices = device_indexes() if devices is None else devices
        self._guard = host.guard
        self.taps: tuple[str, ...] = ()

    def narrow(self, domain: Domain) -> Domain:
        """Only what has a device: what is on its way has none yet, or none any more; its removal is told by no hook."""
        record = self._host.state.read(self._uuid)
        there = set(self._devices.values())
        renamed = {each.called for each in record.bindings if each.index in there} if record else set()
        self.taps = tuple(each.tap for each in domain.interfaces if each.tap)
        interfaces = (each for each in domain.interfaces if not each.tap or {each.tap} & (renamed | set(self._devices)))
        return replace(domain, interfaces=tuple(interfaces))

    def check(self) -> None:
        """Raises Overtaken if record or devices are others by now."""
        if self._host.state.stamp(self._uuid) != self._stamp or any(
            _index(tap) != self._devices.get(tap) for tap in self.taps
        ):
            raise Overtaken("the guest changes while libvirt is asked about it")

    def seen(self, xml: bytes, taps: Iterable[str], stamp: tuple[int, ...] | None = None) -> Seen:
        """As things were before libvirt was asked; with another `stamp` if the record was written since, by us."""
        devices = tuple((tap, self._devices.get(tap)) for tap in taps)
        digest = hashlib.sha256(xml).digest()
        return Seen(digest, self._host.config.text, self._guard, self._stamp if stamp is None else stamp, devices)


def _index(tap: str) -> int | None:
    try:
        return socket.if_nametoindex(tap)
    except OSError:
        return None


def device_indexes() -> dict[str, int]:
    """Every network device's index, by name."""
    return {name: index for index, name in socket.if_nameindex()}


def follow(
    host: Host,
    libvirt: Libvirt,
    uuid: str,
    name: str = "",
    seen: Seen | None = None,
    devices: Mapping[str, int] | None = None,
) -> Followed:
    """
    See that one guest has what its XML asks for now, or nothing if it doesn't run. What is wrong is in the result; for
    ways past its filters, see `ways_past`.

    Args:
        name: what to call it until libvirt says.
        seen: by what it was followed last.
        devices: the devices' indexes of a moment ago; if it turns out that they are others by now, it is asked again.

    Raises:
        LibvirtError: the connection is lost.
    """
    notes: list[str] = []
    noting = replace(host, report=notes.append)
    found = Followed(name or uuid, uuid, FAILED)
    for _ in range(_TRIES):
        notes.clear()
        try:
            return _follow(noting, libvirt, found, seen, devices, notes)
        except Overtaken as error:
            devices = None
            found = replace(found, error=str(error))
        except NwfilterHookError as error:
            if isinstance(error, LibvirtError) and error.lost:
                raise
            return replace(found, error=str(error), notes=tuple(notes))
    return found


def _follow(
    host: Host,
    libvirt: Libvirt,
    found: Followed,
    seen: Seen | None,
    devices: Mapping[str, int] | None,
    notes: list[str],
) -> Followed:
    asked = _Asked(host, found.uuid, devices)
    live = libvirt.live_xml(found.uuid)
    if live is not None:
        name, xml = live
        if seen is not None and seen == asked.seen(xml, (tap for tap, _ in seen.devices)):
            return Followed(name, found.uuid, UNCHANGED, seen=seen)
        reconnect(host, name, OPERATION, xml, narrow=asked.narrow, recheck=asked.check, look_around=False)
        now = None if notes else asked.seen(xml, asked.taps, host.state.stamp(found.uuid))
        return Followed(name, found.uuid, FOLLOWED, notes=tuple(notes), seen=now)
    records = host.state.read_everything(found.uuid)
    if not records or any(record.operation == BOUND_BY_HAND or record.held for record in records):
        return replace(found, outcome=NOTHING, error="")
    remove(host, found.uuid, asked.check)
    return Followed(records[0].guest, found.uuid, REMOVED, notes=tuple(notes))


def guests_of(host: Host, libvirt: Libvirt) -> dict[str, str]:
    """
    UUID and name of every guest that runs, and of every one that was a libvirt guest's and has a record.

    Raises:
        LibvirtError: libvirt doesn't say.
    """
    running = dict(libvirt.running())
    recorded = {
        each.uuid: each.guest for each in host.state.records() if each.operation != BOUND_BY_HAND and not each.held
    }
    return {**recorded, **running}


def resync(host: Host, libvirt: Libvirt) -> list[Followed]:
    """
    Follow every guest; one guest's trouble is its own.

    Raises:
        LibvirtError: libvirt doesn't say which guests run, or the connection is lost.
    """
    guests = guests_of(host, libvirt)
    devices = device_indexes()
    followed = [follow(host, libvirt, uuid, name, devices=devices) for uuid, name in guests.items()]
    passed = ways_past(host)
    return [replace(each, notes=(*each.notes, *passed.get(each.uuid, ()))) for each in followed]


def ways_past(host: Host) -> dict[str, list[str]]:
    """By UUID, a line for each way past the filters of the guest's taps, in one look for all: that takes long."""
    owners = {tap.tap: record.uuid for record in host.state.records() for tap in record.bindings if not tap.unfiltered}
    found: dict[str, list[str]] = {}
    for bypass in find_bypasses(*owners):
        line = Said(f"{bypass.tap}: {bypass.text}", BYPASSED, tap=bypass.tap)
        found.setdefault(owners[bypass.tap], []).append(line)
    return found
