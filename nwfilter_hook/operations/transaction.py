"""
One transaction: worked out, written down as pending, applied, and then committed or rolled back.

In:  a `Host`, and for each guest what its taps shall have.
Out: a `Plan`; `carry_out` makes it true in the kernel and in the records, or changes nothing.

    1  if a filter file changes along: the journal names its new text, which is written beside it
    2  each guest's pending record
    3  nft takes the transaction
    4  the filter file's new text, or its removal
    5  the pending records are renamed; the journal goes

A process killed on the way leaves pending records, which say what may be in the kernel beside what the records say;
each guest's next event settles its own. Whoever finds a journal (update.recover) throws away a text that was not
renamed and settles all guests with a pending record by the files as they are: old or new, in files and kernel alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from ..backend import Installed, Rendered, Transaction, subtract
from ..base.dataclass import dataclass, replace
from ..base.errors import NftError, NwfilterHookError, StateError
from ..base.said import LEARNED, Said
from ..domain.model import Domain
from ..guards import Guard
from ..host import Host
from ..storage.records import Binding, Record
from ..storage.tallies import TRANSACTIONS
from .compile import CompiledGuest, CompiledTap
from .kernel import held_by_nobody, known_of
from .noted import note_applied
from .told import log_installed
from .zones import zones_for

REPAIR = "repair"


@dataclass(frozen=True)
class GuestChange:
    """
    What a transaction does with one guest.

    Attributes:
        anew: taps that get these rules.
        staying: taps that keep what is recorded.
        known: everything that may be in the kernel of the guest and its taps.
    """

    guest: str
    uuid: str
    operation: str
    anew: tuple[CompiledTap, ...]
    staying: tuple[Binding, ...]
    known: tuple[Installed, ...]


@dataclass(frozen=True)
class Plan:
    """
    What an operation is going to do: the transaction and the records that it makes true.

    Attributes:
        settled: taps that the transaction puts in force.
        failed: taps that get a quarantine, or keep what they have, instead of their filter, with the reason.
    """

    transaction: Transaction
    records: tuple[Record, ...]
    settled: frozenset[str]
    failed: tuple[tuple[str, NwfilterHookError], ...] = ()

    @property
    def record(self) -> Record:
        """The record, of a plan for one guest."""
        (record,) = self.records
        return record


@dataclass(frozen=True)
class FileChange:
    """
    A filter file that changes along with the kernel.

    Attributes:
        temporary: path of its new text, "" if the file is to go.
        prepare: writes that.
        commit: puts it in the file's place, or removes the file.
    """

    temporary: str
    prepare: Callable[[], None]
    commit: Callable[[], None]


# --- plan -------------------------------------------------------------------------------------------------------------


def plan_domain(
    host: Host,
    domain: Domain,
    compiled: CompiledGuest,
    operation: str,
    *,
    fresh: bool,
    kept: Mapping[str, Binding] | None = None,
) -> Plan:
    """
    The transaction that puts exactly `compiled` in force, whatever an earlier one left.

    Args:
        compiled: see compile_domain.
        fresh: forget learned addresses.
        kept: by tap, recorded bindings that are put back if the tap's filter can't be compiled.
    """
    staying = tuple(kept[tap] for tap, _ in compiled.failed if kept and tap in kept)
    taps = {binding.tap for binding in staying}
    anew = tuple(each for each in compiled.taps if each.binding.tap not in taps)
    every_tap = [interface.tap for interface in domain.interfaces if interface.tap]
    known = known_of(host, domain.uuid, list(dict.fromkeys(every_tap)))
    change = GuestChange(domain.name, domain.uuid, operation, anew, staying, tuple(known))
    return plan(host, [change], fresh=fresh, put_back=True, failed=compiled.failed)


def plan(
    host: Host,
    changes: Sequence[GuestChange],
    *,
    fresh: bool = False,
    put_back: bool = False,
    failed: Iterable[tuple[str, NwfilterHookError]] = (),
) -> Plan:
    """
    One transaction for all of `changes`, under the guard as it is.

    Args:
        put_back: put what is staying into the kernel again; else it isn't touched.
    """
    return plan_under(host, host.guard, changes, fresh=fresh, put_back=put_back, failed=failed)


def plan_under(
    host: Host,
    guard: Guard | None,
    changes: Sequence[GuestChange],
    *,
    fresh: bool = False,
    put_back: bool = False,
    failed: Iterable[tuple[str, NwfilterHookError]] = (),
) -> Plan:
    """As `plan`, under this guard or without one: what is staying gets or loses what tells that it is known."""
    records, anew, returning, settled = [], [], [], []
    for change in changes:
        made = [known_under(host, guard, each) for each in change.anew if guard or not each.binding.unfiltered]
        staying = []
        for binding in change.staying:
            now = _amended(host, change.uuid, binding, guard)
            if guard or not binding.unfiltered:
                staying.append(now)
            if put_back or now.installed.rules != binding.installed.rules:
                returning.append(host.backend.with_counts(now.installed))
            elif now is not binding:
                returning += subtract([now.installed], [binding.installed])
            if put_back or now is not binding:
                settled.append(now)
        bindings = (*(each.binding for each in made), *staying)
        known = (*change.known, *(binding.installed for binding in change.staying))
        stale = subtract(known, (binding.installed for binding in bindings))
        records.append(Record(change.guest, change.uuid, change.operation, bindings, stale))
        anew += made
    settling = [*(each.binding for each in anew), *settled]
    transaction = host.backend.install(
        [each.rendered for each in anew],
        put_back=returning,
        stale=[installed for record in records for installed in record.stale],
        fresh=fresh,
        zones=zones_for(host, settling),
        guard=guard,
    )
    return Plan(transaction, tuple(records), frozenset(each.tap for each in settling), tuple(failed))


def known_under(host: Host, guard: Guard | None, made: CompiledTap) -> CompiledTap:
    """`made`, with what tells this guard that the tap is known."""
    binding = made.binding
    installed = host.backend.known(binding.installed, binding.attachment, guard)
    if installed == binding.installed:
        return made
    rendered = Rendered(installed, made.rendered.origins)
    return replace(made, binding=replace(binding, installed=installed), rendered=rendered)


def _amended(host: Host, uuid: str, binding: Binding, guard: Guard | None) -> Binding:
    """`binding`; itself, if there is nothing to change, or its tap is another guest's by now."""
    installed = host.backend.known(binding.installed, binding.attachment, guard)
    if installed == binding.installed or host.state.owner(binding.tap) not in (uuid, None):
        return binding
    return replace(binding, installed=installed)


# --- carry out --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Undo:
    """
    What was written down before `write_pending`.

    Attributes:
        pending: by UUID, what an earlier transaction that was cut off may have left.
        owners: by tap, the guest whose it was.
        journal: of an update that was cut off, if this one writes another.
    """

    pending: Mapping[str, Record | None]
    owners: Mapping[str, str | None]
    journal: str | None


def carry_out(host: Host, planned: Plan, file: FileChange | None = None, *, operation: str = "") -> None:
    """
    Make the plan true; the lock is held. It is counted, and its time.

    Args:
        operation: what it is counted as, REPAIR where all is as recorded; else as what the first record says.

    Raises:
        NftError, StateError: nothing has changed. If nft was given up, what it may have done is remembered. If only
            `file` could not be changed, the kernel has what was planned, and the journal says so.
    """
    name = operation or next((record.operation for record in planned.records), "none")
    with host.state.tallies.measured(TRANSACTIONS, name):
        _carry_out(host, planned, file, put_back=operation == REPAIR)


def _carry_out(host: Host, planned: Plan, file: FileChange | None, *, put_back: bool) -> None:
    nothing = not any(record.bindings or record.stale for record in planned.records)
    if file is None and nothing and not planned.transaction.text:
        commit(host, planned)
        return
    taps = {*planned.settled, *(each.tap for record in planned.records for each in record.stale)}
    nobodys = held_by_nobody(host, {record.uuid for record in planned.records}, taps)
    undo = Undo(
        {record.uuid: host.state.read_pending(record.uuid) for record in planned.records},
        {tap: host.state.owner(tap) for tap in planned.settled},
        host.state.read_journal() if file else None,
    )
    try:
        write_pending(host, planned, file)
        before = host.backend.generation()
        lost = host.backend.learned_by_others(_settled(planned))
        changes = host.backend.apply(planned.transaction) if planned.transaction.text else 0
    except (NftError, StateError) as error:
        if file is not None:
            host.library.discard(file.temporary)
        if not (isinstance(error, NftError) and error.unsure):
            roll_back(host, undo, file)
        raise
    for address, tap, other in lost:
        text = f"{tap}: {address} is its own now; {other}{_of_guest(host, other)} had learned it, and loses it"
        host.report(Said(text, LEARNED, tap=(tap, other)))
    if file is not None:
        file.commit()
    done, sure = _with_fingerprints(host, planned, before + changes)
    commit(host, done)
    for uuid in nobodys:
        host.state.delete(uuid)
    if sure:
        note_applied(host, done.records, done.settled, before, before + changes, put_back=put_back)
    for record in planned.records:
        log_installed(host, record, planned.settled)
    if file is not None:
        host.state.delete_journal()


def _settled(planned: Plan) -> list[Installed]:
    bindings = (binding for record in planned.records for binding in record.bindings)
    return [binding.installed for binding in bindings if binding.tap in planned.settled]


def _of_guest(host: Host, tap: str) -> str:
    uuid = host.state.owner(tap)
    record = host.state.read(uuid) if uuid else None
    return f", of guest {record.guest}," if record else ""


def _with_fingerprints(host: Host, planned: Plan, generation: int) -> tuple[Plan, bool]:
    """`planned`, its records with what the kernel made of it; as it is, if somebody else may have changed that."""
    try:
        found = host.backend.fingerprints(_settled(planned))
        if host.backend.generation() != generation:
            return planned, False
    except NftError:
        return planned, False
    records = []
    for record in planned.records:
        bindings = (replace(each, fingerprint=found.get(each.tap, each.fingerprint)) for each in record.bindings)
        records.append(replace(record, bindings=tuple(bindings)))
    return replace(planned, records=tuple(records)), True


def write_pending(host: Host, planned: Plan, file: FileChange | None = None) -> None:
    """
    Write down what is about to be in the kernel.

    Raises:
        StateError: that can't be written.
    """
    if file is not None:
        host.state.write_journal(file.temporary)
        file.prepare()
    for record in planned.records:
        host.state.write_pending(record)
        for binding in record.bindings:
            if binding.tap in planned.settled:
                host.state.set_owner(binding.tap, record.uuid)


def roll_back(host: Host, undo: Undo, file: FileChange | None = None) -> None:
    """Nothing has changed: everything is written as it was before."""
    for uuid, before in undo.pending.items():
        if before is None:
            host.state.drop_pending(uuid)
        else:
            host.state.write_pending(before)
    for tap, owner in undo.owners.items():
        if owner is None:
            host.state.clear_owner(tap)
        else:
            host.state.set_owner(tap, owner)
    if undo.journal is not None:
        host.state.write_journal(undo.journal)
    elif file is not None:
        host.state.delete_journal()


def commit(host: Host, planned: Plan) -> None:
    """nft took the transaction. Rename the records last: after a crash they tell what is still to be cleaned up."""
    for record in planned.records:
        taps = {binding.tap for binding in record.bindings}
        for installed in record.stale:
            if installed.tap not in taps:
                host.state.clear_owner(installed.tap)
        if record.bindings:
            host.state.commit(record.uuid, record)
        else:
            host.state.delete(record.uuid)
