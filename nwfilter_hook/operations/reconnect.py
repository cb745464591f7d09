"""
A guest that runs already: see that the kernel has its rules, repair what is missing, cut off what can't be repaired.

In:  a `Domain` as libvirt has it at `reconnect`, or only a guest's UUID, and a `Host`.
Out: every tap of the guest has its filter, or its old one, or a quarantine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..base.dataclass import replace
from ..base.errors import InputError, NftError, NwfilterHookError, Source, StateError, quarantine_effect
from ..domain.model import Domain
from ..host import Host
from ..nftables.names import objects_of
from ..nftables.script import BASE_CHAINS, Options, render_install, ruleset_digest
from ..storage.records import Binding, Record
from .compile import compile_domain, compile_on
from .devices import attachment_of
from .lifecycle import sweep
from .transaction import Plan, apply_plan, plan
from .update import interface_of


def reconcile(host: Host, domain: Domain, operation: str) -> Plan | None:
    """
    See that the kernel has what the guest's record says, and that the record is what the guest asks for; repair if
    not. A tap whose filter can't be compiled keeps the rules that are in force, or is quarantined. Where nothing can be
    written down the rules are put into force all the same: the guest runs.

    Returns:
        None if everything was in place, else what was done.

    Raises:
        NftError, DomainError: the repair failed. StateError: it could not be written down.
    """
    try:
        with host.state.locked():
            return _reconcile(host, domain, operation)
    except StateError:
        _enforce_unrecorded(host, domain)
        raise


def _enforce_unrecorded(host: Host, domain: Domain) -> None:
    """The state can't be used: leave alone what is seen to be in force, else put the rules into force unrecorded."""
    try:
        record = host.state.read(domain.uuid)
    except StateError:
        record = None
    if record and _as_wished(domain, record) and _in_kernel(host, record):
        return
    compiled, failed = compile_domain(host, domain, tolerant=True)
    options = Options(counters=host.config.counters, fresh=False)
    host.nft.apply_script(render_install([each.ruleset for each in compiled], options=options))
    for tap, error in failed:
        host.report(f"{tap}: not filtered as it should be: {error}")


def _reconcile(host: Host, domain: Domain, operation: str) -> Plan | None:
    sweep(host)
    record = host.state.read(domain.uuid)
    pending = host.state.read_pending(domain.uuid)
    kept = {} if record is None or pending else _in_force(host, record)
    intact = record is not None and len(kept) == len(record.bindings) and pending is None
    if record and intact and _as_wished(domain, record):
        return None
    planned = plan(host, domain, operation, fresh=False, tolerant=True, kept=kept)
    for tap, error in planned.failed:
        if tap in kept:
            closed = kept[tap].quarantined
            what = f"still quarantined, {quarantine_effect(error)}" if closed else "the old rules stay in force"
            host.report(f"{tap}: {what}: {error}")
    if record and intact and planned.failed and _covers(record, domain):
        return None
    try:
        apply_plan(host, planned)
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
        interfaces = tuple(interface_of(binding, "record") for binding in record.bindings)
        domain = Domain(record.guest, record.uuid, interfaces, Source("record", 1))
        _quarantine_all(host, domain, record.operation, reason)
        return True


def _quarantine_all(host: Host, domain: Domain, operation: str, reason: NwfilterHookError) -> Plan:
    problem = InputError(str(reason), domain.source)
    interfaces = tuple(
        replace(each, problem=problem) if each.reference or each.problem else each for each in domain.interfaces
    )
    planned = plan(host, replace(domain, interfaces=interfaces), operation, fresh=False, tolerant=True)
    apply_plan(host, planned)
    return planned


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
    return len(_in_force(host, record)) == len(record.bindings)


def _in_force(host: Host, record: Record) -> dict[str, Binding]:
    """By tap, the bindings that have every chain, every rule and every map element in the kernel, and nothing more."""
    elements: dict[str, dict[str, str]] = {}
    bases: dict[str, bool] = {}
    programs: dict[tuple[str, str], tuple[str, ...]] = {}
    if any(binding.objects.family == "bridge" for binding in record.bindings):
        for base in BASE_CHAINS:
            elements[base.map] = host.nft.list_map(base.map)
            listing = host.nft.list_chain("bridge", base.name)
            bases[base.map] = listing is not None and listing.fingerprint == (f"{base.selector} vmap @{base.map}",)

    def complete(binding: Binding) -> bool:
        roots = dict(binding.objects.roots())
        for base in BASE_CHAINS if binding.objects.family == "bridge" else ():
            wanted = roots.get(base.tree)
            if elements[base.map].get(binding.tap) != wanted or (wanted and not bases[base.map]):
                return False
        for chain, fingerprint in zip(binding.objects.chains, binding.fingerprints):
            listing = host.nft.list_chain(binding.objects.family, chain)
            if listing is None or listing.fingerprint != fingerprint:
                return False
            programs[binding.objects.family, chain] = listing.programs
        return True

    found = {binding.tap: binding for binding in record.bindings if complete(binding)}
    altered = _altered(host, found.values(), programs)
    return {tap: binding for tap, binding in found.items() if tap not in altered}


def _altered(
    host: Host, bindings: Iterable[Binding], programs: Mapping[tuple[str, str], tuple[str, ...]]
) -> frozenset[str]:
    """
    The taps with a rule of the right verdict and provenance, but another condition. What can't be compiled any more, or
    not to the same rules, isn't looked at: the rules in force are those of the filter as it was.
    """
    counters = host.config.counters
    rulesets = []
    for binding in bindings:
        try:
            ruleset = compile_on(host, interface_of(binding, "record"), binding.tap)
        except InputError:
            continue
        if ruleset_digest(ruleset, counters) == binding.digest:
            rulesets.append(ruleset)
    if not rulesets:
        return frozenset()
    wanted = host.nft.programs_of(render_install(rulesets, options=Options(counters=counters)).text) or {}
    return frozenset(
        ruleset.tap
        for ruleset in rulesets
        for chain in objects_of(ruleset).chains
        for key in [(ruleset.attachment.family, chain)]
        if key in wanted and wanted[key] != programs[key]
    )
