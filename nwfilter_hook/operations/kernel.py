"""
What may be in the kernel of a guest, by all that is written down of it; and its removal.

In:  a `Host`, a guest's UUID. Out: `Installed`s.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from ..backend import Installed
from ..base.errors import NftError
from ..host import Host
from ..storage.tallies import TRANSACTIONS
from .noted import note_removed


def own(host: Host, uuid: str, installed: Iterable[Installed]) -> list[Installed]:
    """`installed` without what is of taps that are another guest's by now; see `_now`."""
    return [now for each in installed if host.state.owner(each.tap) in (uuid, None) for now in _now(host, each)]


def _now(host: Host, installed: Installed) -> list[Installed]:
    """`installed`; of what is known by name only, what the kernel shows now."""
    if installed.whole:
        return [installed]
    found = host.backend.find(installed.tap)
    return [found] if found else []


def known_of(host: Host, uuid: str, taps: Sequence[str]) -> list[Installed]:
    """What may be in the kernel of this guest, and of others under tap names that are this guest's now."""
    records = host.state.read_everything(uuid)
    found = own(host, uuid, (each for record in records for each in record.installed()))
    for tap in taps:
        owner = host.state.owner(tap)
        if owner is not None and owner != uuid:
            others = (each for record in host.state.read_everything(owner) for each in record.installed())
            found += [now for each in others if each.tap == tap for now in _now(host, each)]
    return found + unrecorded(host, uuid, taps, found)


def held_by_nobody(host: Host, guests: Collection[str], taps: Iterable[str]) -> set[str]:
    """UUIDs of the records of taps that nobody has decided about (held.py), of those that aren't these guests'."""
    owners = {owner for tap in taps if (owner := host.state.owner(tap)) and owner not in guests}
    return {record.uuid for record in map(host.state.read, owners) if record and record.held}


def unrecorded(host: Host, uuid: str, taps: Iterable[str], known: Iterable[Installed]) -> list[Installed]:
    """
    What the kernel lists under the names of taps that somebody had, or the guest has, but that no readable record
    tells of: the record was damaged and moved aside.
    """
    recorded = {each.tap for each in known}
    owned = {tap for tap in taps if host.state.owner(tap) is not None} | set(host.state.taps_of(uuid))
    found = (host.backend.find(tap) for tap in sorted(owned - recorded))
    return [each for each in found if each]


def remove_installed(host: Host, uuid: str, installed: Iterable[Installed]) -> None:
    """
    Take what is the guest's own of `installed` out of the kernel.

    Raises:
        NftError: nothing has changed.
    """
    mine = own(host, uuid, installed)
    if mine:
        with host.state.tallies.measured(TRANSACTIONS, "remove"):
            before = _generation(host)
            changes = host.backend.apply(host.backend.remove(mine, host.guard))
        if before is not None and _generation(host) == before + changes:
            note_removed(host, uuid, before, before + changes)
    for each in mine:
        host.state.clear_owner(each.tap)


def _generation(host: Host) -> int | None:
    """None if the kernel doesn't tell: then nothing is noted, which is no reason to leave rules where they are."""
    try:
        return host.backend.generation()
    except NftError:
        return None
