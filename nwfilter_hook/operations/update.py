"""
Compile running guests anew from their records, no libvirt and no domain XML needed, and put what changed into force in
one transaction.

In:  a `Host` whose library holds the filters as they shall be.
Out: a `Rebuild`: which taps change and the `Plan` that changes them all or none.

An update of a filter file and the kernel can't be one step, so a journal goes round it:

    1  the journal names the new text of NAME.xml; it is written beside that; so is each guest's pending record
    2  nft takes the transaction
    3  the text is renamed to NAME.xml; the pending records are renamed; the journal goes

Whoever finds a journal (`recover_update`) throws away a text that was not renamed, compiles every guest with a pending
record from the files as they are, and applies that: old or new, in files and kernel alike. Until that has succeeded,
journal and pending records stay.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..base.dataclass import dataclass
from ..base.errors import NwfilterHookError, Source, UpdateError
from ..domain.model import Carrier, Interface, PortKind
from ..host import Host
from ..nftables.names import Objects, stale_objects
from ..nftables.script import Options, render_install, ruleset_digest
from ..ruleset.model import Attachment
from ..storage.records import Binding, Record
from .compile import Compiled, compile_interface
from .transaction import Plan, binding_of, commit, own_objects

Choice = Callable[[Binding], bool]


@dataclass(frozen=True)
class Change:
    """A tap whose rules change: before (None: it is in quarantine or its old filter is gone) and after."""

    guest: str
    binding: Binding
    compiled: Compiled


@dataclass(frozen=True)
class Rebuild:
    """
    What a change of filters means for the taps of this host.

    Attributes:
        unfinished: whether it also settles guests whose last transaction was cut off.
    """

    changes: tuple[Change, ...]
    plan: Plan
    unfinished: bool


@dataclass(frozen=True)
class _Touched:
    """A guest with taps to change, and what a transaction that was cut off may have left in the kernel."""

    record: Record
    compiled: tuple[Compiled, ...]
    pending: Record | None


def plan_rebuild(host: Host, chosen: Choice) -> Rebuild:
    """
    Compile every chosen tap and keep those whose rules differ from what its record says.

    Guests whose last transaction was cut off are settled with them, all their taps: the chosen ones, or if an update
    was cut off all there are. A tap that is another guest's by now is that guest's.

    Raises:
        UpdateError: a tap's rules can't be made; the message names guest, tap, filter and line.
    """
    cut_off = host.state.read_journal() is not None
    changes: list[Change] = []
    touched: list[_Touched] = []
    for record in host.state.records():
        usable = [binding for binding in record.bindings if binding.filter]
        wanted = [binding for binding in usable if chosen(binding)]
        if not wanted and not cut_off:
            continue
        pending = host.state.read_pending(record.uuid)
        compiled = []
        for binding in usable if pending else wanted:
            if host.state.owner(binding.tap) not in (record.uuid, None):
                continue
            made = _compile(host, record, binding)
            differs = binding.quarantined or ruleset_digest(made.ruleset, host.config.counters) != binding.digest
            if differs or pending:
                compiled.append(made)
                changes.append(Change(record.guest, binding, made))
        if compiled or pending:
            touched.append(_Touched(record, tuple(compiled), pending))
    return Rebuild(tuple(changes), _plan(host, touched), cut_off or any(each.pending for each in touched))


def _compile(host: Host, record: Record, binding: Binding) -> Compiled:
    place = f"guest {record.guest}, tap {binding.tap}, filter {binding.filter}"
    try:
        return compile_interface(host, interface_of(binding, f"record of {record.guest}"))
    except NwfilterHookError as error:
        raise UpdateError(f"{place}: {error}") from error
    except RecursionError:
        raise UpdateError(f"{place}: filters refer to each other too deeply") from None


def _plan(host: Host, touched: Sequence[_Touched]) -> Plan:
    rulesets = [each.ruleset for guest in touched for each in guest.compiled]
    stale: list[tuple[Objects, ...]] = []
    for guest in touched:
        taps = {each.ruleset.tap for each in guest.compiled}
        kept = {binding.tap for binding in guest.record.bindings} - taps
        known = [binding.objects for binding in guest.record.bindings if binding.tap in taps]
        if guest.pending:
            left = own_objects(host, guest.record.uuid, guest.pending.objects())
            known += [objects for objects in left if objects.tap not in kept]
        stale.append(stale_objects(known, [each.ruleset for each in guest.compiled]))
    script = render_install(
        rulesets,
        [objects for group in stale for objects in group],
        Options(counters=host.config.counters, fresh=False),
    )
    records = []
    for guest, gone in zip(touched, stale):
        anew = {each.ruleset.tap: binding_of(script, each) for each in guest.compiled}
        bindings = tuple(anew.get(binding.tap, binding) for binding in guest.record.bindings)
        record = guest.record
        records.append(Record(record.guest, record.uuid, record.operation, bindings, gone, script.digest))
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


def announce_update(host: Host, planned: Plan) -> None:
    """
    Write down what is about to be in the kernel. Unlike planning.announce this takes nothing back if it fails.

    Raises:
        StateError: that can't be written.
    """
    for record in planned.records:
        host.state.write_pending(record)
        for binding in record.bindings:
            if host.state.owner(binding.tap) is None:
                host.state.set_owner(binding.tap, record.uuid)


def withdraw_update(host: Host, planned: Plan) -> None:
    """What `announce_update` wrote has not come true."""
    for record in planned.records:
        host.state.drop_pending(record.uuid)


def recover_update(host: Host) -> bool:
    """
    Finish an update that was cut off; the lock is held.

    Returns:
        Whether there was one.

    Raises:
        UpdateError, NftError, StateError: it can't be finished yet; journal and pending records stay.
    """
    host.state.drop_temporaries()
    temporary = host.state.read_journal()
    if temporary is None:
        return False
    host.library.discard(temporary)
    planned = plan_rebuild(host, lambda binding: False).plan
    announce_update(host, planned)
    if planned.records:
        host.nft.apply_script(planned.script)
    commit(host, planned)
    host.state.delete_journal()
    return True
