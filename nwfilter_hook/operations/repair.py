"""
Make kernel and records one again: what somebody has changed is put back from the records, libvirt isn't asked.

In:  a `Host`, and the taps to look at.
Out: a `Repair` for each difference.

The guard comes first: what has no rules then drops. All taps are put back in one transaction. It makes only what the
records say already, so nothing is written down before: killed on the way it leaves either, and the records true. What a
record can't put back, since the device is another by now or the rules aren't known, is compiled anew; where that fails
too, it is quarantined.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ..backend import Installed, subtract
from ..base.dataclass import dataclass, replace
from ..base.errors import NftError, NwfilterHookError, Source, quarantine_effect
from ..host import Host
from ..ruleset.model import Attachment
from ..storage.records import Binding, Record
from ..storage.tallies import REPAIRED
from .compile import CompiledTap, compile_quarantine, recompile
from .devices import Device, Whereabouts
from .guard import put_back
from .kernel import known_of, own
from .removal import sweep
from .transaction import GuestChange, carry_out, plan
from .verify import GUARD, Difference, find_differences, look_at_guard, records_of
from .zones import zones_for

PUT_BACK = "put back"
_SAME_DEVICE = (Whereabouts.THERE,)
_NO_DEVICE = (Whereabouts.GONE, Whereabouts.REPLACED)


@dataclass(frozen=True)
class Repair:
    """What became of a difference; `outcome` is "" where nothing was done about it."""

    difference: Difference
    outcome: str

    @property
    def failed(self) -> bool:
        """Whether it is still there."""
        return self.outcome.startswith("NOT repaired")

    @property
    def line(self) -> str:
        """For people."""
        guest = f"{self.difference.guest}: " if self.difference.guest else ""
        tap = "guard" if self.difference.tap == GUARD else self.difference.tap
        outcome = f"; {self.outcome}" if self.outcome else ""
        return f"{guest}{tap}: {'; '.join(self.difference.texts)}{outcome}"


def repair(host: Host, taps: Collection[str] | None = None) -> list[Repair]:
    """
    See that kernel, devices and records say the same.

    Args:
        taps: look at these only; `GUARD` among them for the guard.

    Raises:
        NftError: the kernel can't be asked. StateError: the lock can't be had.
    """
    with host.state.locked():
        guarded = [] if taps is not None and GUARD not in taps else _repair_guard(host)
        sweep(host)
        if taps is None:
            found = [each for each in find_differences(host) if each.tap != GUARD]
        else:
            found = find_differences(host, {each for each in taps if each != GUARD})
        return [*guarded, *(_repair(host, found) if found else ())]


def _repair_guard(host: Host) -> list[Repair]:
    found = look_at_guard(host)
    outcome = PUT_BACK
    try:
        if found:
            put_back(host)
    except NwfilterHookError as error:
        outcome = f"NOT repaired: {error}"
    return [Repair(each, outcome) for each in found]


def _repair(host: Host, found: Sequence[Difference]) -> list[Repair]:
    taps = [each.tap for each in found]
    records = {record.uuid: record for record in records_of(host, taps)}
    bindings = {
        each: binding
        for each in found
        if each.guest
        for binding in records[each.uuid].bindings
        if binding.tap == each.tap
    }
    whole = [each for each, binding in bindings.items() if each.where in _SAME_DEVICE and binding.installed.whole]
    outcomes = _put_back(host, records, {each: bindings[each] for each in whole})
    rest = [each for each in found if outcomes.get(each) != PUT_BACK]
    for uuid in dict.fromkeys(each.uuid for each in rest if each.guest):
        mine = [each for each in rest if each.uuid == uuid]
        outcomes.update(_make_anew(host, records[uuid], mine))
    outcomes.update({each: _remove_stranger(host, each) for each in rest if not each.guest})
    done = [Repair(each, outcomes[each]) for each in found]
    for result in {each.failed for each in done}:
        count = sum(each.failed is result for each in done)
        host.state.tallies.add(REPAIRED, "verify", "failed" if result else "done", count=count)
    return done


# --- put back ---------------------------------------------------------------------------------------------------------


def _put_back(host: Host, records: dict[str, Record], wanted: dict[Difference, Binding]) -> dict[Difference, str]:
    """All in one transaction; if nft refuses that, guest by guest, so that one guest's trouble is its own."""
    if not wanted:
        return {}
    try:
        _put_back_at_once(host, records, list(wanted.values()))
    except NftError as error:
        uuids = list(dict.fromkeys(each.uuid for each in wanted))
        if error.unsure:
            return dict.fromkeys(wanted, f"NOT repaired: {error}")
        if len(uuids) == 1:
            return {}
        outcomes: dict[Difference, str] = {}
        for uuid in uuids:
            outcomes.update(_put_back(host, records, {each: wanted[each] for each in wanted if each.uuid == uuid}))
        return outcomes
    return dict.fromkeys(wanted, PUT_BACK)


def _put_back_at_once(host: Host, records: dict[str, Record], bindings: Sequence[Binding]) -> None:
    there = host.backend.taps()  # of the others there is no count to keep
    installed = [
        host.backend.with_counts(binding.installed) if binding.tap in there else binding.installed
        for binding in bindings
    ]
    before = host.backend.generation()
    stale = [each for record in records.values() for each in _cut_off(host, record)]
    zones = zones_for(host, bindings)
    changes = host.backend.apply(host.backend.install(put_back=installed, stale=stale, zones=zones, guard=host.guard))
    found = host.backend.fingerprints([binding.installed for binding in bindings])
    if host.backend.generation() != before + changes:
        return
    changed = {binding.tap: found[binding.tap] for binding in bindings if found[binding.tap] != binding.fingerprint}
    for record in records.values():
        if any(binding.tap in changed for binding in record.bindings):
            _note_fingerprints(host, record, changed)


def _cut_off(host: Host, record: Record) -> Sequence[Installed]:
    """What a transaction that was cut off may have left beside what is recorded."""
    pending = host.state.read_pending(record.uuid)
    if pending is None:
        return ()
    return subtract(own(host, record.uuid, pending.installed()), (each.installed for each in record.bindings))


def _note_fingerprints(host: Host, record: Record, changed: dict[str, str]) -> None:
    """The same rules have another form in the kernel than before: they were never compared, or nft is another."""
    bindings = tuple(
        replace(binding, fingerprint=changed.get(binding.tap, binding.fingerprint)) for binding in record.bindings
    )
    host.state.commit(record.uuid, replace(record, bindings=bindings))


# --- make anew --------------------------------------------------------------------------------------------------------


def _make_anew(host: Host, record: Record, differences: Sequence[Difference]) -> dict[Difference, str]:
    """Compile what the devices are now; forget those that are gone."""
    by_tap = {each.tap: each for each in differences}
    anew: list[CompiledTap] = []
    staying: list[Binding] = []
    outcomes: dict[Difference, str] = {}
    for binding in record.bindings:
        difference = by_tap.get(binding.tap)
        if difference is None:
            staying.append(binding)
        elif difference.where in _NO_DEVICE:
            outcomes[difference] = "its rules are removed"
        else:
            made, outcomes[difference] = _compile(host, binding, record.uuid, difference.device)
            anew.append(made)
    taps = [each.binding.tap for each in anew] + list(by_tap)
    known = tuple(known_of(host, record.uuid, list(dict.fromkeys(taps))))
    change = GuestChange(record.guest, record.uuid, record.operation, tuple(anew), tuple(staying), known)
    try:
        carry_out(host, plan(host, [change]))
    except NwfilterHookError as error:
        return dict.fromkeys(differences, f"NOT repaired: {error}")
    return outcomes


def _compile(host: Host, binding: Binding, uuid: str, device: Device | None) -> tuple[CompiledTap, str]:
    wanted = binding
    if device is not None:
        attachment = binding.attachment
        if attachment is not Attachment.MACVTAP:
            attachment = Attachment.BRIDGE_PORT if device.bridge else Attachment.DEVICE
        wanted = replace(
            binding,
            tap=device.name,
            index=device.index,
            attachment=attachment,
            bridge=device.bridge or binding.bridge,
        )
    try:
        return recompile(host, wanted, uuid), "made anew"
    except NwfilterHookError as error:
        closed = compile_quarantine(host, wanted, Source("record", 0))
        return closed, f"quarantined, {quarantine_effect(error)}: {error}"


def _remove_stranger(host: Host, difference: Difference) -> str:
    installed = host.backend.find(difference.tap)
    try:
        if installed:
            host.backend.apply(host.backend.remove([installed]))
    except NwfilterHookError as error:
        return f"NOT repaired: {error}"
    return "removed"
