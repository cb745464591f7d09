"""
Compile running guests anew from their records, no libvirt and no domain XML needed, and put what changed into force in
one transaction.

In:  a `Host` whose library holds the filters as they shall be.
Out: a `Rebuild`: which taps change and the `Plan` that changes them all or none.

An update of a filter file and the kernel can't be one step, so a journal goes round it:

    1  NAME.xml's new text is written beside it; the journal names it; each guest's pending record is written
    2  nft takes the transaction
    3  the text is renamed to NAME.xml; the pending records are renamed; the journal goes

Whoever finds a journal (`recover_update`) throws away a text that was not renamed, compiles every guest with a pending
record from the files as they are, and applies that: old or new, in files and kernel alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from .errors import MissingFeature, NwfilterHookError, Source, UpdateError
from .frozen import dataclass
from .host import Host
from .model import Attachment, Carrier, Interface, PortKind
from .planning import Compiled, Plan, apply_plan, binding_of, compile_interface
from .render import Objects, Options, render_install, ruleset_digest, stale_objects
from .state import Binding, Record

Choice = Callable[[Binding], bool]


@dataclass(frozen=True)
class Change:
    """A tap whose rules change: before (None: it is in quarantine or its old filter is gone) and after."""

    guest: str
    binding: Binding
    compiled: Compiled


@dataclass(frozen=True)
class Rebuild:
    """What a change of filters means for the taps of this host."""

    changes: tuple[Change, ...]
    plan: Plan


def plan_rebuild(host: Host, chosen: Choice, *, force: Choice | None = None) -> Rebuild:
    """
    Compile every chosen tap and keep those whose rules differ from what its record says.

    Args:
        chosen: whether a tap is to be looked at.
        force: whether it is to be put into force even if nothing differs.

    Raises:
        UpdateError: a tap's rules can't be made; the message names guest, tap, filter and line.
    """
    changes: list[Change] = []
    touched: list[tuple[Record, list[Binding], list[Compiled]]] = []
    for record in host.state.records():
        compiled = []
        for binding in record.bindings:
            if not binding.filter or not chosen(binding):
                continue
            made = _compile(host, record, binding)
            differs = binding.quarantined or ruleset_digest(made.ruleset, host.config.counters) != binding.digest
            if differs or (force is not None and force(binding)):
                compiled.append(made)
                changes.append(Change(record.guest, binding, made))
        if compiled:
            touched.append((record, list(record.bindings), compiled))
    return Rebuild(tuple(changes), _plan(host, touched))


def _compile(host: Host, record: Record, binding: Binding) -> Compiled:
    try:
        return compile_interface(host, interface_of(binding, f"record of {record.guest}"))
    except (NwfilterHookError, MissingFeature) as error:
        raise UpdateError(f"guest {record.guest}, tap {binding.tap}, filter {binding.filter}: {error}") from error


def _plan(host: Host, touched: Iterable[tuple[Record, list[Binding], list[Compiled]]]) -> Plan:
    touched = list(touched)
    rulesets = [each.ruleset for _, _, compiled in touched for each in compiled]
    stale: list[tuple[Objects, ...]] = []
    for record, bindings, compiled in touched:
        taps = {each.ruleset.tap for each in compiled}
        pending = host.state.read_pending(record.uuid)
        known = [binding.objects for binding in bindings if binding.tap in taps]
        known += [objects for objects in (pending.objects() if pending else ()) if objects.tap in taps]
        stale.append(stale_objects(known, [each.ruleset for each in compiled]))
    script = render_install(
        rulesets,
        [objects for group in stale for objects in group],
        Options(counters=host.config.counters, fresh=False),
    )
    records = []
    for (record, bindings, compiled), gone in zip(touched, stale):
        anew = {each.ruleset.tap: binding_of(script, each) for each in compiled}
        kept = tuple(anew.get(binding.tap, binding) for binding in bindings)
        records.append(Record(record.guest, record.uuid, record.operation, kept, gone, script.digest))
    return Plan(script, tuple(records))


def interface_of(binding: Binding, place: str) -> Interface:
    """The interface that a record's binding was made for."""
    kinds = {Attachment.MACVTAP: PortKind.MACVTAP, Attachment.DEVICE: PortKind.OPENVSWITCH}
    reference = binding.reference(place)
    return Interface(
        type=binding.type,
        kind=kinds.get(binding.attachment, PortKind.BRIDGE),
        mac=binding.mac,
        tap=binding.tap,
        bridge=binding.bridge,
        reference=reference,
        carrier=Carrier(binding.carrier),
        source=Source(place, 1),
    )


def recover_update(host: Host) -> bool:
    """
    Finish an update that was cut off; the lock is held.

    Returns:
        Whether there was one.

    Raises:
        UpdateError, NftError, StateError: it can't be finished yet; the journal stays.
    """
    temporary = host.state.read_journal()
    if temporary is None:
        return False
    host.library.discard(temporary)
    unfinished = {record.uuid for record in host.state.records() if host.state.read_pending(record.uuid)}
    taps = {binding.tap for record in host.state.records() if record.uuid in unfinished for binding in record.bindings}
    rebuild = plan_rebuild(host, lambda binding: binding.tap in taps, force=lambda binding: True)
    apply_plan(host, rebuild.plan)
    host.state.delete_journal()
    return True
