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

import socket

from ..base.dataclass import dataclass, replace
from ..base.errors import NwfilterHookError, Overtaken
from ..domain.model import Domain
from ..host import Host
from ..libvirtd import Libvirt
from .bindings import OPERATION as BOUND_BY_HAND
from .dispatch import reconnect
from .lifecycle import remove

OPERATION = "resync"
FOLLOWED, REMOVED, NOTHING = "followed", "removed", ""
_TRIES = 5


class Asked:
    """What was known of a guest and of the devices of this host before libvirt was asked."""

    def __init__(self, host: Host, uuid: str) -> None:
        self._host = host
        self._uuid = uuid
        self._stamp = host.state.stamp(uuid)
        self._devices = _devices()
        self._wanted: frozenset[str] = frozenset()

    def narrow(self, domain: Domain) -> Domain:
        """Only what has a device: what is on its way has none yet, or none any more; its removal is told by no hook."""
        record = self._host.state.read(self._uuid)
        there = set(self._devices.values())
        renamed = {each.called for each in record.bindings if each.index in there} if record else set()
        self._wanted = frozenset(each.tap for each in domain.interfaces if each.tap)
        interfaces = (each for each in domain.interfaces if not each.tap or {each.tap} & (renamed | set(self._devices)))
        return replace(domain, interfaces=tuple(interfaces))

    def check(self) -> None:
        """Raises Overtaken if record or devices are others by now."""
        devices = _devices()
        if self._host.state.stamp(self._uuid) != self._stamp or any(
            devices.get(tap) != self._devices.get(tap) for tap in self._wanted
        ):
            raise Overtaken("the guest changes while libvirt is asked about it")


def _devices() -> dict[str, int]:
    """Every network device's index, by name."""
    return {name: index for index, name in socket.if_nameindex()}


def follow(host: Host, libvirt: Libvirt, uuid: str) -> str:
    """
    See that one guest has what its XML asks for now, or nothing if it doesn't run.

    Returns:
        FOLLOWED, REMOVED, or NOTHING if there is no such guest and no record.

    Raises:
        LibvirtError: libvirt can't be asked. NwfilterHookError: see reconnect.reconcile, lifecycle.remove.
    """
    for _ in range(_TRIES):
        try:
            return _follow(host, libvirt, uuid)
        except Overtaken as error:
            overtaken = error
    raise overtaken


def _follow(host: Host, libvirt: Libvirt, uuid: str) -> str:
    asked = Asked(host, uuid)
    found = libvirt.live_xml(uuid)
    if found is not None:
        name, xml = found
        reconnect(host, name, OPERATION, xml, narrow=asked.narrow, recheck=asked.check)
        return FOLLOWED
    records = host.state.read_everything(uuid)
    if not records or any(record.operation == BOUND_BY_HAND for record in records):
        return NOTHING
    remove(host, uuid, asked.check)
    return REMOVED


@dataclass(frozen=True)
class Followed:
    """
    What became of one guest.

    Attributes:
        outcome: FOLLOWED, REMOVED, NOTHING; "failed" with the reason in `error`.
        notes: what its administrator should know.
    """

    guest: str
    uuid: str
    outcome: str
    error: str
    notes: tuple[str, ...]


def guests_of(host: Host, libvirt: Libvirt) -> dict[str, str]:
    """UUID and name of every guest that runs, and of every one that was a libvirt guest's and has a record."""
    running = dict(libvirt.running())
    recorded = {each.uuid: each.guest for each in host.state.records() if each.operation != BOUND_BY_HAND}
    return {**recorded, **running}


def resync(host: Host, libvirt: Libvirt) -> list[Followed]:
    """
    Follow every guest; one guest's trouble is its own.

    Raises:
        LibvirtError: libvirt doesn't say which guests run, or the connection is lost.
    """
    return [_followed(host, libvirt, uuid, name) for uuid, name in guests_of(host, libvirt).items()]


def _followed(host: Host, libvirt: Libvirt, uuid: str, name: str) -> Followed:
    notes: list[str] = []

    def report(line: str) -> None:
        notes.append(line)
        host.report(f"{name}: {line}")

    try:
        return Followed(name, uuid, follow(replace(host, report=report), libvirt, uuid), "", tuple(notes))
    except NwfilterHookError as error:
        if getattr(error, "lost", False):
            raise
        host.report(f"{name}: {error}")
        return Followed(name, uuid, "failed", str(error), tuple(notes))
