"""
Compile running guests anew from their records, no libvirt and no domain XML needed, and put what changed into force in
one transaction.

In:  a `Host` whose library holds the filters as they shall be.
Out: `TapChanges`: which taps change and the `Plan` that changes them all or none.
"""

from __future__ import annotations

from collections.abc import Callable

from ..base.dataclass import dataclass
from ..base.errors import NwfilterHookError, UpdateError
from ..base.said import DEVICE, Said
from ..host import Host
from ..storage.records import Binding, Record
from .compile import CompiledTap, recompile
from .devices import Whereabouts, locate
from .kernel import own
from .transaction import GuestChange, Plan, carry_out, known_under, plan_under

Choice = Callable[[Binding], bool]


@dataclass(frozen=True)
class Change:
    """A tap whose rules change: as it is recorded, and as it will be."""

    guest: str
    before: Binding
    after: Binding


@dataclass(frozen=True)
class TapChanges:
    """What a change of filters means for the taps of this host."""

    changes: tuple[Change, ...]
    plan: Plan


def plan_update(host: Host, chosen: Choice) -> TapChanges:
    """
    Compile every chosen tap and keep those whose rules differ from what its record says.

    Guests whose last transaction was cut off are settled with them, all their taps: the chosen ones, or if an update
    was cut off all there are. A tap that is another guest's by now is that guest's.

    Raises:
        UpdateError: a tap's rules can't be made; the message names guest, tap, filter and line.
    """
    cut_off = host.state.read_journal() is not None
    guard = host.guard
    changes: list[Change] = []
    guests: list[GuestChange] = []
    for record in host.state.records():
        usable = [binding for binding in record.bindings if binding.filter]
        wanted = [binding for binding in usable if chosen(binding)]
        if not wanted and not cut_off:
            continue
        pending = host.state.read_pending(record.uuid)
        anew = []
        for binding in usable if pending else wanted:
            if host.state.owner(binding.tap) not in (record.uuid, None):
                continue
            where, _ = locate(binding.tap, binding.index, binding.attachment, binding.bridge)
            if where in (Whereabouts.RENAMED, Whereabouts.REPLACED, Whereabouts.GONE):
                text = f"{record.guest}: {binding.tap}: the device is {where.value}; its rules are left alone"
                host.report(Said(text, DEVICE, guest=record.guest, uuid=record.uuid, tap=binding.tap))
                continue
            made = known_under(host, guard, _recompile(host, record, binding))
            if pending or binding.quarantined or made.binding.installed != binding.installed:
                anew.append(made)
                changes.append(Change(record.guest, binding, made.binding))
        if anew or pending:
            guests.append(_change(host, record, tuple(anew), pending))
    return TapChanges(tuple(changes), plan_under(host, guard, guests))


def _change(host: Host, record: Record, anew: tuple[CompiledTap, ...], pending: Record | None) -> GuestChange:
    taps = {each.binding.tap for each in anew}
    staying = tuple(binding for binding in record.bindings if binding.tap not in taps)
    known = [binding.installed for binding in record.bindings if binding.tap in taps]
    if pending:
        kept = {binding.tap for binding in staying}
        known += [each for each in own(host, record.uuid, pending.installed()) if each.tap not in kept]
    return GuestChange(record.guest, record.uuid, record.operation, anew, staying, tuple(known))


def _recompile(host: Host, record: Record, binding: Binding) -> CompiledTap:
    place = f"guest {record.guest}, tap {binding.tap}"
    try:
        return recompile(host, binding, record.uuid)
    except NwfilterHookError as error:
        raise UpdateError(f"{place}: {error}") from error
    except RecursionError:
        raise UpdateError(f"{place}: filters refer to each other too deeply") from None


def recover(host: Host) -> None:
    """
    Finish an update that was cut off, if there is one; the lock is held.

    Raises:
        UpdateError, NftError, StateError: it can't be finished yet; journal and pending records stay.
    """
    host.state.drop_temporaries()
    temporary = host.state.read_journal()
    if temporary is None:
        return
    host.library.discard(temporary)
    carry_out(host, plan_update(host, lambda binding: False).plan, operation="recover")
    host.state.delete_journal()
