"""
From a guest to its rules in the kernel and back: read > parse > resolve > compile > render > apply > record.

In:  a `Domain` (or a guest's UUID) and a `Host`, which knows library, nft and state.
Out: the kernel and the records are as the operation asks; or an error, and nothing has changed.

Each public function is what one libvirt operation does; what a failure means for libvirt is hook.py's matter.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Callable

from .compiler import compile_tap
from .config import Config
from .domain_xml import check_tap
from .errors import DomainError, InputError, MissingFeature, NftError, NwfilterHookError, Source, StateError
from .frozen import dataclass
from .library import Library
from .model import (
    AnyState,
    Attachment,
    Carrier,
    CountAbove,
    Domain,
    Field,
    FilterRef,
    Interface,
    PortKind,
    Rule,
    Ruleset,
    Verdict,
)
from .nft import MISSING_CT, MISSING_REJECT, Nft, fingerprint_of
from .render import (
    BASE_CHAINS,
    TABLE,
    Objects,
    Options,
    Script,
    objects_of,
    quarantine,
    render_install,
    render_remove,
    stale_objects,
)
from .resolve import resolve
from .state import Binding, Record, State
from .values import parse_mac

Report = Callable[[str], None]


@dataclass(frozen=True)
class Host:
    """
    Where we run.

    Attributes:
        report: called with one line for everything this guest's administrator should know although we went on.
        log: the same for what is about another guest.
    """

    config: Config
    library: Library
    nft: Nft
    state: State
    report: Report
    log: Report


def open_host(config: Config, report: Report, log: Report | None = None, *, readonly: bool = False) -> Host:
    """The host that `config` describes; touches nothing yet; `readonly` only looks at the state."""
    return Host(
        config=config,
        library=Library(config.filter_dirs),
        nft=Nft(config.nft, config.timeout_s),
        state=State(config.state_dir, report, readonly=readonly),
        report=report,
        log=log or report,
    )


@dataclass(frozen=True)
class Plan:
    """
    What an operation is going to do: the transaction and the record that it makes true.

    Attributes:
        failed: taps that get a quarantine instead of their filter, with the reason.
    """

    script: Script
    record: Record
    failed: tuple[tuple[str, NwfilterHookError], ...] = ()


# --- compile ----------------------------------------------------------------------------------------------------------


def compile_reference(reference: FilterRef, tap: str, attachment: Attachment, mac: str, library: Library) -> Ruleset:
    """
    The rules that `reference` makes for `tap`. Pure but for reading the library's files.

    Raises:
        InputError: see resolve.resolve and compiler.compile_tap.
    """
    return compile_tap(tap, attachment, parse_mac(mac), resolve(reference, mac, library.read))


def attachment_of(interface: Interface) -> Attachment:
    """Where the interface's traffic can be seen; an `ethernet` tap is asked whether it is in a bridge."""
    if interface.kind is PortKind.MACVTAP:
        return Attachment.MACVTAP
    if interface.kind is PortKind.OPENVSWITCH:
        return Attachment.DEVICE
    if interface.kind is PortKind.ETHERNET and interface.tap:
        device = f"/sys/class/net/{interface.tap}"
        if os.path.exists(device) and not os.path.exists(f"{device}/brport"):
            return Attachment.DEVICE
    return Attachment.BRIDGE_PORT


def _tap_of(interface: Interface) -> str:
    if not interface.tap:
        raise DomainError("the interface has a filter, but the XML names no tap (<target dev='…'/>)", interface.source)
    return check_tap(interface.tap, interface.source)


def _has_usable_tap(interface: Interface) -> bool:
    try:
        return bool(_tap_of(interface))
    except DomainError:
        return False


def _check_features(host: Host, rulesets: Iterable[Ruleset]) -> None:
    """Refuse, by name, what the running kernel can't do; only rulesets that need something ask the kernel."""
    first: dict[str, Rule] = {}
    for ruleset in rulesets:
        for chain in ruleset.chains:
            for rule in chain.rules:
                for need in _needs(rule):
                    first.setdefault(need, rule)
    for need, rule in first.items():
        statement, missing = _PROBES[need]
        if not _kernel_takes(host, need, statement):
            message = f"{rule.source}: this kernel can't enforce the rule: it lacks {missing} (or it is not loaded)"
            raise MissingFeature(message)


_PROBES = {"ct": ("ct state new", MISSING_CT), "reject": ("reject", MISSING_REJECT)}


def _needs(rule: Rule) -> Sequence[str]:
    needs = []
    if rule.verdict is Verdict.REJECT:
        needs.append("reject")
    if any(
        isinstance(match.test, (AnyState, CountAbove)) or match.field is Field.CT_DIRECTION for match in rule.matches
    ):
        needs.append("ct")
    return needs


def _kernel_takes(host: Host, need: str, statement: str) -> bool:
    """Ask nft to check a rule with `statement`; a yes is remembered for this kernel and this nft."""
    key = f"{os.uname().release} {host.nft.version()}"
    known = host.state.read_capabilities()
    if known.get("host") == key and known.get(need) is True:
        return True
    probe = (
        f"add table bridge {TABLE}-probe\n"
        f"add chain bridge {TABLE}-probe c {{ type filter hook prerouting priority 0; }}\n"
        f"add rule bridge {TABLE}-probe c {statement}\n"
    )
    if host.nft.check_script(probe) is not None:
        return False
    host.state.write_capabilities({**(known if known.get("host") == key else {"host": key}), need: True})
    return True


# --- plan -------------------------------------------------------------------------------------------------------------


def check(host: Host, domain: Domain) -> None:
    """
    What can be known before the guest has taps: every filter is there, every variable bound, everything compiles.

    Raises:
        InputError, MissingFeature: what libvirt should refuse the start for.
    """
    rulesets = []
    for interface in domain.interfaces:
        if interface.reference:
            tap = interface.tap or "tap"
            rulesets.append(
                compile_reference(interface.reference, tap, attachment_of(interface), interface.mac, host.library)
            )
    _check_features(host, rulesets)


def plan(host: Host, domain: Domain, operation: str, *, fresh: bool, tolerant: bool = False) -> Plan:
    """
    The transaction that puts exactly `domain`'s filters in force, whatever an earlier one left.

    Args:
        fresh: forget learned addresses.
        tolerant: a tap whose filter can't be compiled is quarantined instead.

    Raises:
        InputError, MissingFeature: unless tolerant.
    """
    failed: list[tuple[str, NwfilterHookError]] = []
    compiled: list[tuple[Interface, Ruleset, bool]] = []
    for interface in domain.interfaces:
        if not interface.reference and not interface.problem:
            continue
        try:
            if interface.problem:
                raise interface.problem
            compiled.append((interface, _compile_interface(host, interface), False))
        except (InputError, MissingFeature) as error:
            if not tolerant:
                raise
            failed.append((interface.tap or "(no tap)", error))
            if _has_usable_tap(interface):
                tap = _tap_of(interface)
                compiled.append((interface, quarantine(tap, attachment_of(interface), interface.source), True))
    taps = [ruleset.tap for _, ruleset, _ in compiled]
    for interface, ruleset, _ in compiled:
        if taps.count(ruleset.tap) > 1:
            raise DomainError(f"two interfaces have the tap {ruleset.tap}", interface.source)
    rulesets = [ruleset for _, ruleset, _ in compiled]
    every_tap = [interface.tap for interface in domain.interfaces if interface.tap]
    stale = stale_objects(_known_objects(host, domain.uuid, every_tap), rulesets)
    script = render_install(rulesets, stale, Options(counters=host.config.counters, fresh=fresh))
    bindings = tuple(_binding(script, *each) for each in compiled)
    record = Record(domain.name, domain.uuid, operation, bindings, stale, script.digest)
    return Plan(script, record, tuple(failed))


def _compile_interface(host: Host, interface: Interface) -> Ruleset:
    assert interface.reference
    tap = _tap_of(interface)
    ruleset = compile_reference(interface.reference, tap, attachment_of(interface), interface.mac, host.library)
    _check_features(host, [ruleset])
    return ruleset


def _binding(script: Script, interface: Interface, ruleset: Ruleset, quarantined: bool) -> Binding:
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
        fingerprints=tuple(fingerprint_of(script, objects.family, chain) for chain in objects.chains),
        quarantined=quarantined,
    )


def _known_objects(host: Host, uuid: str, taps: Sequence[str]) -> list[Objects]:
    """What may be in the kernel of this guest, and of others under tap names that are this guest's now."""
    found = _mine(host, uuid, (objects for record in _own_records(host, uuid) for objects in record.objects()))
    for tap in taps:
        owner = host.state.owner(tap)
        if owner is not None and owner != uuid:
            others = (objects for record in _own_records(host, owner) for objects in record.objects())
            found += [objects for objects in others if objects.tap == tap]
    return list(dict.fromkeys(found))


def _own_records(host: Host, uuid: str) -> list[Record]:
    return [record for record in (host.state.read(uuid), host.state.read_pending(uuid)) if record]


# --- apply ------------------------------------------------------------------------------------------------------------


def install(host: Host, domain: Domain, operation: str, *, fresh: bool, tolerant: bool = False) -> Plan:
    """
    Put the guest's filters in force, in one transaction.

    Raises:
        InputError, MissingFeature, NftError, StateError: nothing has changed; if nft was given up, what it may have
            done is remembered and removed with the guest.
    """
    with host.state.locked():
        sweep(host)
        planned = plan(host, domain, operation, fresh=fresh, tolerant=tolerant)
        _apply(host, planned)
        return planned


def _apply(host: Host, planned: Plan) -> None:
    record = planned.record
    if not record.bindings and not record.stale:
        host.state.delete(record.uuid)
        return
    host.state.write_pending(record)
    try:
        for binding in record.bindings:
            host.state.set_owner(binding.tap, record.uuid)
        host.nft.apply_script(planned.script)
    except NftError as error:
        if not error.unsure:
            host.state.drop_pending(record.uuid)
        raise
    except StateError:
        host.state.drop_pending(record.uuid)
        raise
    if record.bindings:
        host.state.commit(record.uuid)
    else:
        host.state.delete(record.uuid)
    taps = {binding.tap for binding in record.bindings}
    for objects in record.stale:
        if objects.tap not in taps:
            host.state.clear_owner(objects.tap)


def plan_removal(host: Host, uuid: str) -> Script:
    """The transaction that `remove` would run; empty if there is nothing to remove."""
    return render_remove(
        _mine(host, uuid, (objects for record in _own_records(host, uuid) for objects in record.objects()))
    )


def remove(host: Host, uuid: str) -> None:
    """
    Take everything of the guest out of the kernel and forget it; nothing to do is fine.

    Raises:
        NftError, StateError: what is left is remembered and removed at the next event.
    """
    with host.state.locked():
        records = _own_records(host, uuid)
        if records:
            try:
                _remove_objects(host, uuid, [objects for record in records for objects in record.objects()])
            except NftError:
                host.state.set_leftover(uuid)
                raise
        host.state.delete(uuid)
        sweep(host)


def _remove_objects(host: Host, uuid: str, objects: Iterable[Objects]) -> None:
    mine = _mine(host, uuid, objects)
    if mine:
        host.nft.apply_script(render_remove(mine))
    for each in mine:
        host.state.clear_owner(each.tap)


def _mine(host: Host, uuid: str, objects: Iterable[Objects]) -> list[Objects]:
    """`objects` without those of taps that are another guest's by now."""
    return [each for each in objects if host.state.owner(each.tap) in (uuid, None)]


def sweep(host: Host) -> None:
    """Clean up after guests that stopped while nft failed. Its own failures are reported and tried again next time."""
    for name, record in host.state.leftovers():
        if record is None:
            continue
        try:
            _remove_objects(host, record.uuid, record.objects())
            host.state.delete_leftover(name)
        except NwfilterHookError as error:
            host.log(f"{record.guest}: still not removed: {error}")


# --- verify -----------------------------------------------------------------------------------------------------------


def reconcile(host: Host, domain: Domain, operation: str) -> Plan | None:
    """
    See that the kernel has what the guest's record says, and that the record is what the guest asks for; repair if
    not. A tap whose filter can't be compiled is quarantined.

    What was in force stays in force if its successor can't be compiled.

    Returns:
        None if everything was in place, else what was done.

    Raises:
        NftError, StateError, DomainError: the repair failed.
    """
    with host.state.locked():
        sweep(host)
        record = host.state.read(domain.uuid)
        pending = host.state.read_pending(domain.uuid)
        intact = bool(record and not pending and _in_kernel(host, record))
        if record and intact and _as_wished(domain, record):
            return None
        planned = plan(host, domain, operation, fresh=False, tolerant=True)
        if record and intact and planned.failed and _covers(record, domain):
            for tap, error in planned.failed:
                host.report(f"{tap}: the old rules stay in force: {error}")
            return None
        try:
            _apply(host, planned)
        except NftError as error:
            if error.unsure:
                raise
            planned = _quarantine_all(host, domain, operation, error)
        return planned


def quarantine_known(host: Host, uuid: str, reason: NwfilterHookError) -> bool:
    """
    The running guest's XML is of no use: keep what its record says if the kernel has it, else drop everything.

    Returns:
        True if taps were quarantined.
    """
    with host.state.locked():
        record = host.state.read(uuid)
        if record is None or _in_kernel(host, record):
            return False
        interfaces = tuple(_interface_of(binding) for binding in record.bindings)
        domain = Domain(record.guest, record.uuid, interfaces, Source("record", 1))
        _quarantine_all(host, domain, record.operation, reason)
        return True


def _quarantine_all(host: Host, domain: Domain, operation: str, reason: NwfilterHookError) -> Plan:
    source = domain.source
    problem = InputError(str(reason), source)
    interfaces = tuple(
        Interface(
            each.type, each.kind, each.mac, each.tap, each.bridge, each.reference, each.carrier, each.source, problem
        )
        for each in domain.interfaces
        if each.reference or each.problem
    )
    planned = plan(host, Domain(domain.name, domain.uuid, interfaces, source), operation, fresh=False, tolerant=True)
    _apply(host, planned)
    return planned


def _interface_of(binding: Binding) -> Interface:
    kinds = {Attachment.MACVTAP: PortKind.MACVTAP, Attachment.DEVICE: PortKind.OPENVSWITCH}
    reference = binding.reference("record")
    return Interface(
        type=binding.type,
        kind=kinds.get(binding.attachment, PortKind.BRIDGE),
        mac=binding.mac,
        tap=binding.tap,
        bridge=binding.bridge,
        reference=reference,
        carrier=Carrier(binding.carrier),
        source=reference.source,
    )


def _as_wished(domain: Domain, record: Record) -> bool:
    """Whether the record's bindings are the ones the XML asks for, and none is in quarantine."""
    wanted = [interface for interface in domain.interfaces if interface.reference or interface.problem]
    if len(wanted) != len(record.bindings):
        return False
    for interface, binding in zip(wanted, record.bindings):
        if interface.problem or not interface.reference or binding.quarantined:
            return False
        same = (
            interface.tap == binding.tap
            and interface.mac == binding.mac
            and interface.reference.filter == binding.filter
            and dict(interface.reference.parameters) == dict(binding.parameters)
            and attachment_of(interface) is binding.attachment
        )
        if not same:
            return False
    return True


def _covers(record: Record, domain: Domain) -> bool:
    """Whether every tap that wants a filter has one by the record."""
    wanted = {interface.tap for interface in domain.interfaces if interface.reference or interface.problem}
    return wanted <= {binding.tap for binding in record.bindings}


def _in_kernel(host: Host, record: Record) -> bool:
    """Whether every chain, every rule and every map element of the record is in the kernel, and nothing more."""
    bridged = [binding for binding in record.bindings if binding.objects.family == "bridge"]
    if bridged:
        for base in BASE_CHAINS:
            wanted = {
                binding.tap: name for binding in bridged for tree, name in binding.objects.roots() if tree is base.tree
            }
            elements = host.nft.list_map(base.map)
            if any(elements.get(binding.tap) != wanted.get(binding.tap) for binding in bridged):
                return False
            listed = host.nft.list_fingerprint("bridge", base.name)
            if wanted and listed != (f"{base.selector} vmap @{base.map}",):
                return False
    return all(
        host.nft.list_fingerprint(binding.objects.family, chain) == fingerprint
        for binding in record.bindings
        for chain, fingerprint in zip(binding.objects.chains, binding.fingerprints)
    )
