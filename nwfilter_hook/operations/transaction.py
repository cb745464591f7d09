"""
Work out and run one transaction: compile what taps want, find what is to go, apply, record.

In:  a `Host`, and a guest (or its record) with the filters it wants.
Out: a `Plan`; `apply_plan` makes it true in the kernel and in the records, or changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ..base.dataclass import dataclass
from ..base.errors import NftError, NwfilterHookError, StateError
from ..domain.model import Carrier, Domain
from ..host import Host
from ..nftables.names import Objects, objects_of, stale_objects
from ..nftables.process import fingerprint_of
from ..nftables.script import Options, Script, render_install, render_remove
from ..storage.records import Binding, Record
from .compile import Compiled, compile_domain


@dataclass(frozen=True)
class Plan:
    """
    What an operation is going to do: the transaction and the records that it makes true.

    Attributes:
        failed: taps that get a quarantine instead of their filter, with the reason.
    """

    script: Script
    records: tuple[Record, ...]
    failed: tuple[tuple[str, NwfilterHookError], ...] = ()

    @property
    def record(self) -> Record:
        """The record, of a plan for one guest."""
        (record,) = self.records
        return record


# --- compile ----------------------------------------------------------------------------------------------------------


# --- plan -------------------------------------------------------------------------------------------------------------


def plan(
    host: Host,
    domain: Domain,
    operation: str,
    *,
    fresh: bool,
    tolerant: bool = False,
    kept: Mapping[str, Binding] | None = None,
) -> Plan:
    """
    The transaction that puts exactly `domain`'s filters in force, whatever an earlier one left.

    Args:
        fresh: forget learned addresses.
        tolerant: a tap whose filter can't be compiled is quarantined instead.
        kept: by tap, bindings that are in force and stay so if the tap's filter can't be compiled.

    Raises:
        InputError, MissingFeature: unless tolerant.
    """
    compiled, failed = compile_domain(host, domain, tolerant=tolerant, kept=kept or {})
    staying = [kept[tap] for tap, _ in failed if kept and tap in kept]
    rulesets = [each.ruleset for each in compiled]
    every_tap = [interface.tap for interface in domain.interfaces if interface.tap]
    known = _known_objects(host, domain.uuid, every_tap)
    for binding in staying:
        known = [objects for objects in known if objects.tap != binding.tap]
    stale = stale_objects(known, rulesets)
    script = render_install(rulesets, stale, Options(counters=host.config.counters, fresh=fresh))
    bindings = (*(binding_of(script, each) for each in compiled), *staying)
    record = Record(domain.name, domain.uuid, operation, bindings, stale, script.digest)
    return Plan(script, (record,), tuple(failed))


def binding_of(script: Script, compiled: Compiled) -> Binding:
    """What the record says of one tap after `script`."""
    interface, ruleset = compiled.interface, compiled.ruleset
    objects = objects_of(ruleset)
    return Binding(
        tap=ruleset.tap,
        mac=interface.mac,
        type=interface.type,
        attachment=ruleset.attachment,
        bridge=interface.bridge,
        carrier=(interface.carrier or Carrier.FILTERREF).value,
        filter=interface.reference.filter if interface.reference else "",
        parameters=dict(interface.reference.parameters) if interface.reference else {},
        objects=objects,
        fingerprints=tuple(fingerprint_of(script.statements[objects.family, chain]) for chain in objects.chains),
        digest=script.digest_of(objects),
        quarantined=compiled.quarantined,
    )


def own_records(host: Host, uuid: str) -> list[Record]:
    """The guest's record, and the one of a transaction that was cut off."""
    return [record for record in (host.state.read(uuid), host.state.read_pending(uuid)) if record]


def own_objects(host: Host, uuid: str, objects: Iterable[Objects]) -> list[Objects]:
    """`objects` without those of taps that are another guest's by now."""
    return [each for each in objects if host.state.owner(each.tap) in (uuid, None)]


def _known_objects(host: Host, uuid: str, taps: Sequence[str]) -> list[Objects]:
    """What may be in the kernel of this guest, and of others under tap names that are this guest's now."""
    found = own_objects(host, uuid, (each for record in host.state.read_everything(uuid) for each in record.objects()))
    for tap in taps:
        owner = host.state.owner(tap)
        if owner is not None and owner != uuid:
            others = (each for record in host.state.read_everything(owner) for each in record.objects())
            found += [objects for objects in others if objects.tap == tap]
    return found + unrecorded_objects(host, uuid, taps, found)


def unrecorded_objects(host: Host, uuid: str, taps: Iterable[str], known: Iterable[Objects]) -> list[Objects]:
    """
    What the kernel lists under the names of taps that somebody had, or the guest has, but that no readable record
    tells of: the record was damaged and moved aside.
    """
    recorded = {objects.tap for objects in known}
    owned = {tap for tap in taps if host.state.owner(tap) is not None} | set(host.state.taps_of(uuid))
    return [objects for tap in sorted(owned - recorded) for objects in host.nft.list_objects(tap)]


# --- apply ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Announced:
    """
    What `announce` wrote over, for `withdraw`.

    Attributes:
        pending: by UUID, what an earlier transaction that was cut off may have left.
        owners: by tap, the guest whose it was.
    """

    pending: Mapping[str, Record | None]
    owners: Mapping[str, str | None]


def apply_plan(host: Host, planned: Plan) -> None:
    """
    Run the transaction; the lock is held.

    Raises:
        NftError, StateError: nothing has changed; if nft was given up, what it may have done is remembered.
    """
    if any(record.bindings or record.stale for record in planned.records):
        announced = announce(host, planned)
        try:
            host.nft.apply_script(planned.script)
        except NftError as error:
            if not error.unsure:
                withdraw(host, announced)
            raise
    commit(host, planned)


def announce(host: Host, planned: Plan) -> Announced:
    """
    Write down what is about to be in the kernel.

    Raises:
        StateError: that can't be written; nothing is left of it.
    """
    announced = Announced(
        {record.uuid: host.state.read_pending(record.uuid) for record in planned.records},
        {binding.tap: host.state.owner(binding.tap) for record in planned.records for binding in record.bindings},
    )
    try:
        for record in planned.records:
            host.state.write_pending(record)
            for binding in record.bindings:
                host.state.set_owner(binding.tap, record.uuid)
    except StateError:
        withdraw(host, announced)
        raise
    return announced


def withdraw(host: Host, announced: Announced) -> None:
    """The announced has not come true: nothing has changed, and everything is written as it was before."""
    for uuid, before in announced.pending.items():
        if before is None:
            host.state.drop_pending(uuid)
        else:
            host.state.write_pending(before)
    for tap, owner in announced.owners.items():
        if owner is None:
            host.state.clear_owner(tap)
        else:
            host.state.set_owner(tap, owner)


def commit(host: Host, planned: Plan) -> None:
    """The announced has come true. The record goes last, since only it tells what is still to be tidied."""
    for record in planned.records:
        taps = {binding.tap for binding in record.bindings}
        for objects in record.stale:
            if objects.tap not in taps:
                host.state.clear_owner(objects.tap)
        if record.bindings:
            host.state.commit(record.uuid)
        else:
            host.state.delete(record.uuid)


def remove_objects(host: Host, uuid: str, objects: Iterable[Objects]) -> None:
    """
    Take what is the guest's own of `objects` out of the kernel.

    Raises:
        NftError: nothing has changed.
    """
    mine = own_objects(host, uuid, objects)
    if mine:
        host.nft.apply_script(render_remove(mine))
    for each in mine:
        host.state.clear_owner(each.tap)
