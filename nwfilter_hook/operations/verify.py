"""
Whether kernel and devices are what the records say, for all taps in one look.

In:  a `Host`. Out: what differs.
"""

from __future__ import annotations

from collections.abc import Collection

from ..base.dataclass import dataclass
from ..host import Host
from ..storage.records import Binding, Record
from .devices import Device, Whereabouts, locate

GUARD = "*"
"""No tap has this name."""


@dataclass(frozen=True)
class Difference:
    """
    A tap of which the kernel has something else than its record says, or whose device isn't the one that it was.

    Attributes:
        guest, uuid: "" for a tap that is in our tables and in no record, and for the guard.
        tap: `GUARD` stands for the guard.
        texts: sentences, at least one.
        altered: the rules, or what leads to them, are others.
        where: what became of the device; `device`: what it is now.
    """

    guest: str
    uuid: str
    tap: str
    texts: tuple[str, ...]
    altered: bool
    where: Whereabouts = Whereabouts.THERE
    device: Device | None = None


def find_differences(host: Host, taps: Collection[str] | None = None) -> list[Difference]:
    """
    What differs, by guest, in one look at the kernel. Without the lock this may be what another process is about to do:
    look again under it.

    Args:
        taps: look at these only; `GUARD` among them for the guard.

    Raises:
        NftError: the kernel can't be asked.
    """
    of_guard = () if taps is not None and GUARD not in taps else look_at_guard(host)
    taps = None if taps is None else {each for each in taps if each != GUARD}
    records = records_of(host, taps)
    known = [
        (record, binding)
        for record in records
        for binding in record.bindings
        if (taps is None or binding.tap in taps) and host.state.owner(binding.tap) in (record.uuid, None)
    ]
    texts = host.backend.compare([(binding.installed, binding.fingerprint) for _, binding in known])
    found = [_difference(record, binding, texts.get(binding.tap)) for record, binding in known]
    return [
        *of_guard,
        *(each for each in found if each),
        *_strangers(host, records, taps),
    ]


def look_at_guard(host: Host) -> list[Difference]:
    """What the kernel has otherwise of the guard, if it is on: one or nothing. Raises NftError."""
    guard = host.guard
    texts = host.backend.guard.faults(guard) if guard and guard.carried else ()
    return [Difference("", "", GUARD, texts, True)] if texts else []


def records_of(host: Host, taps: Collection[str] | None) -> list[Record]:
    """The records of these taps, and of others if one of them is nobody's; of all taps without them."""
    owners = [None] if taps is None else [host.state.owner(tap) for tap in taps]
    if None in owners:
        return host.state.records()
    return [record for record in map(host.state.read, sorted({each for each in owners if each})) if record]


def _difference(record: Record, binding: Binding, texts: tuple[str, ...] | None) -> Difference | None:
    where, device = locate(binding.tap, binding.index, binding.attachment, binding.bridge)
    said = list(texts or ())
    if texts == ():
        rules = "not those that were put there" if binding.fingerprint else "not known to be those that were put there"
        said.append(f"the rules in the kernel are {rules}")
    if where is not Whereabouts.THERE:
        said.append(f"the device is {where.value}{_now(where, device)}")
    if not said:
        return None
    return Difference(record.guest, record.uuid, binding.tap, tuple(said), texts is not None, where, device)


def _now(where: Whereabouts, device: Device | None) -> str:
    if device is None:
        return ""
    if where is Whereabouts.RENAMED:
        return f" to {device.name}"
    return f", {device.bridge or 'none'}" if where is Whereabouts.MOVED else ""


def _strangers(host: Host, records: list[Record], taps: Collection[str] | None) -> list[Difference]:
    """Taps that our tables lead somewhere although no guest has them."""
    if taps is not None and all(host.state.owner(tap) for tap in taps):
        return []
    known = {each.tap for record in records for each in record.installed()}
    return [
        Difference("", "", tap, ("no record knows of this tap, but our table has an element for it",), True)
        for tap in sorted(host.backend.taps() - known)
        if (taps is None or tap in taps) and host.state.owner(tap) is None
    ]
