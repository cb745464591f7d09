"""
A guest that runs already: see that the kernel has its rules, repair what is missing, cut off what can't be repaired.

In:  a `Domain` as libvirt has it at `reconnect`, or only a guest's UUID, and a `Host`.
Out: every tap of the guest has its filter, or its old one, or a quarantine.
"""

from __future__ import annotations

from .errors import InputError, NftError, NwfilterHookError, Source
from .frozen import replace
from .host import Host
from .model import Domain
from .pipeline import sweep
from .planning import Plan, apply_plan, attachment_of, plan
from .rebuild import interface_of
from .render import BASE_CHAINS
from .state import Record


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
