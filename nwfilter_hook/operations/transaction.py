"""
Work out and run one transaction: compile what taps want, find what is to go, apply, record.

In:  a `Host`, and a guest (or its record) with the filters it wants.
Out: a `Plan`; `apply_plan` makes it true in the kernel and in the records, or changes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Mapping, Sequence

from ..base.dataclass import dataclass
from ..base.errors import DomainError, InputError, MissingFeature, NftError, NwfilterHookError, StateError, Unfilterable
from ..compiler.compile import compile_tap
from ..compiler.learning import read_learning
from ..domain.parse import check_tap
from ..filters.model import Carrier, Domain, FilterRef, Interface, PortKind
from ..filters.resolve import resolve, uses_learned
from ..filters.types import parse_mac
from ..host import Host
from ..nftables.features import check_features
from ..nftables.names import Objects, objects_of, stale_objects
from ..nftables.process import fingerprint_of
from ..nftables.script import Options, Script, quarantine, render_install, render_remove
from ..ruleset.model import Attachment, Ruleset
from ..storage.library import Library
from ..storage.records import Binding, Record


@dataclass(frozen=True)
class Compiled:
    """One interface with its rules; `quarantined` if they are not the ones it wants."""

    interface: Interface
    ruleset: Ruleset
    quarantined: bool


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


def compile_reference(
    reference: FilterRef, tap: str, attachment: Attachment, mac: str, library: Library, *, end_of_chain: str = "return"
) -> Ruleset:
    """
    The rules that `reference` makes for `tap`. Pure but for reading the library's files.

    Args:
        end_of_chain: see compiler.compile_tap.

    Raises:
        InputError: see resolve.resolve and compiler.compile_tap.
    """
    rules = resolve(reference, mac, library.read)
    learning = read_learning(reference) if uses_learned(rules) else None
    return compile_tap(tap, attachment, parse_mac(mac), rules, learning, end_of_chain=end_of_chain)


def compile_on(host: Host, interface: Interface, tap: str) -> Ruleset:
    """The rules that the interface's reference makes for `tap` on this host. Raises InputError."""
    assert interface.reference
    attachment = attachment_of(interface)
    end = host.config.end_of_chain
    return compile_reference(interface.reference, tap, attachment, interface.mac, host.library, end_of_chain=end)


def attachment_of(interface: Interface) -> Attachment:
    """Where the interface's traffic can be seen; an `ethernet` device is asked what it is, and whether in a bridge."""
    if interface.kind is PortKind.MACVTAP:
        return Attachment.MACVTAP
    if interface.kind is PortKind.OPENVSWITCH:
        return Attachment.DEVICE
    if interface.kind is PortKind.ETHERNET and interface.tap:
        device = f"/sys/class/net/{interface.tap}"
        # libvirt takes a macvtap that somebody else has made, too: <target managed='no'/>
        if os.path.exists(f"{device}/macvtap"):
            return Attachment.MACVTAP
        if os.path.exists(device) and not os.path.exists(f"{device}/brport"):
            return Attachment.DEVICE
    return Attachment.BRIDGE_PORT


def _refuse_userspace_datapath(interface: Interface, tap: str) -> None:
    """
    Open vSwitch's kernel datapath makes its ports belong to a device of its own (ovs-system). The userspace datapath
    reads them with packet sockets, to which the kernel gives a frame before any filter.
    """
    # the record of a routed `ethernet` tap comes back as the same kind of port
    if interface.kind is not PortKind.OPENVSWITCH or interface.type == "ethernet":
        return
    device = f"/sys/class/net/{tap}"
    if os.path.exists(device) and not os.path.exists(f"{device}/master"):
        raise Unfilterable(
            f"{tap} is a port of an Open vSwitch bridge with the userspace datapath (datapath_type=netdev), where no "
            "filter of the kernel sees what the guest sends; use the kernel's datapath",
            interface.source,
        )


def compile_interface(host: Host, interface: Interface) -> Compiled:
    """
    The rules that the interface wants.

    Raises:
        InputError, MissingFeature: they can't be made, or not on this kernel.
    """
    if interface.problem:
        raise interface.problem
    assert interface.reference
    if not interface.tap:
        raise DomainError("the interface has a filter, but the XML names no tap (<target dev='…'/>)", interface.source)
    tap = check_tap(interface.tap, interface.source)
    _refuse_userspace_datapath(interface, tap)
    ruleset = compile_on(host, interface, tap)
    for note in ruleset.notes:
        host.report(f"{tap}: warning: {note}")
    check_features(host, [ruleset])
    return Compiled(interface, ruleset, False)


def compile_domain(
    host: Host, domain: Domain, *, tolerant: bool, kept: Container[str] = ()
) -> tuple[list[Compiled], list[tuple[str, NwfilterHookError]]]:
    """Every filtered interface's rules; with `tolerant` a quarantine, or nothing if it is `kept`, for what fails."""
    failed: list[tuple[str, NwfilterHookError]] = []
    compiled: list[Compiled] = []
    for interface in domain.interfaces:
        if not interface.reference and not interface.problem:
            continue
        try:
            compiled.append(compile_interface(host, interface))
        except (InputError, MissingFeature) as error:
            if not tolerant:
                raise
            failed.append((interface.tap or "(no tap)", error))
            if interface.tap in kept:
                continue
            if _has_usable_tap(interface):
                rules = quarantine(interface.tap or "", attachment_of(interface), interface.source)
                compiled.append(Compiled(interface, rules, True))
    taps = [each.ruleset.tap for each in compiled]
    for each in compiled:
        if taps.count(each.ruleset.tap) > 1:
            raise DomainError(f"two interfaces have the tap {each.ruleset.tap}", each.interface.source)
    return compiled, failed


def _has_usable_tap(interface: Interface) -> bool:
    try:
        return bool(interface.tap and check_tap(interface.tap, interface.source))
    except DomainError:
        return False


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
