"""
A guest that runs already: put back what its record holds, make anew what it wants now, cut off what can't be made.

In:  a `Domain` as libvirt has it at `reconnect`, or only a guest's UUID, and a `Host`.
Out: every tap of the guest has its filter, or its old one, or a quarantine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..base.dataclass import replace
from ..base.errors import NOWHERE, InputError, NftError, NwfilterHookError, Overtaken, StateError, quarantine_effect
from ..base.said import BYPASSED, CHANGED, DEVICE, FAILED, QUARANTINED, REPAIRED, UNFILTERED, Said
from ..domain.model import Domain, Interface
from ..host import Host
from ..storage.records import Binding, Record
from ..storage.tallies import REPAIRED as REPAIRED_TAPS
from .bypasses import find_bypasses
from .compile import CompiledGuest, compile_domain, compile_quarantine, unfiltered
from .devices import Device, Whereabouts, attachment_of, bridge_of, locate
from .floors import describe, floor_below
from .kernel import held_by_nobody, known_of
from .noted import has_been_seen, is_in_force, note_in_force, shall_look_around
from .removal import Check, sweep, unchecked
from .transaction import REPAIR, GuestChange, Plan, carry_out, known_under, plan, plan_domain
from .zones import zones_for

OLD_RULES_STAY = "the old rules stay in force"


def reconcile(
    host: Host, domain: Domain, operation: str, recheck: Check = unchecked, *, event: str = "", look_around: bool = True
) -> None:
    """
    See that the kernel has what the guest's record holds, if that is what the guest asks for and its devices are what
    they were; put back what it hasn't. Else make the guest's filters anew, for its devices as they are now. A tap whose
    filter can't be compiled keeps its recorded rules, or is quarantined. Where nothing can be written down the rules
    are put into force all the same: the guest runs. What the administrator should know goes to `host.report`.

    Args:
        recheck: called under the lock, before anything is done; what it raises, too.
        event: what it is noted as, see unchanged.py; "" if it isn't.
        look_around: tell of ways past the filters.

    Raises:
        NftError, DomainError: it failed. StateError: it could not be written down.
    """
    around = _own_taps(domain)
    try:
        with host.state.locked():
            recheck()
            if has_been_seen(host, event):  # while we waited for the lock
                around = []
                return
            sweep(host)
            record = _settled_record(host, domain.uuid)
            domain = _relocated(host, domain, record)
            around = _own_taps(domain)
            if event and record:
                around = list(dict.fromkeys((*around, *host.state.taps()))) if shall_look_around(host) else []
            if record and _restore(host, domain, record, event):
                return
        compiled = compile_domain(host, domain, tolerant=True)
        with host.state.locked():
            recheck()
            _make_anew(host, domain, compiled, operation)
    except Overtaken:
        raise
    except StateError:
        recheck()
        _enforce_unrecorded(host, domain)
        raise
    finally:
        if look_around:
            _tell_bypasses(host, domain, around)


def _own_taps(domain: Domain) -> list[str]:
    return [each.tap for each in domain.interfaces if each.tap and each.reference]


def _tell_bypasses(host: Host, domain: Domain, taps: Sequence[str]) -> None:
    """Ways past these taps' filters: of this guest's to its administrator, of others' to the journal."""
    own = _own_taps(domain)
    for bypass in find_bypasses(*taps):
        text = f"{bypass.tap}: {bypass.text}"
        if bypass.tap in own:
            host.report(Said(text, BYPASSED, tap=bypass.tap))
            continue
        record = host.state.read(host.state.owner(bypass.tap) or "")
        if record and any(each.tap == bypass.tap and not each.unfiltered for each in record.bindings):
            said = Said(f"{record.guest}: {text}", BYPASSED, guest=record.guest, uuid=record.uuid, tap=bypass.tap)
            host.log(said)


def _settled_record(host: Host, uuid: str) -> Record | None:
    """The guest's record; None if a transaction was cut off, so that it isn't what is in the kernel."""
    return host.state.read(uuid) if host.state.read_pending(uuid) is None else None


def _relocated(host: Host, domain: Domain, record: Record | None) -> Domain:
    """The guest with its taps as they are called now, and what became of them reported."""
    called = {binding.called: binding for binding in record.bindings} if record else {}
    interfaces = []
    for interface in domain.interfaces:
        binding = called.get(interface.tap or "")
        where, device = _locate(binding) if binding else (Whereabouts.THERE, None)
        if device is not None and where is Whereabouts.RENAMED:
            text = f"{interface.tap}: this device is called {device.name} now, and filtered under that name"
            host.report(Said(text, DEVICE, tap=(interface.tap or "", device.name)))
        elif where is not Whereabouts.THERE:
            text = f"{interface.tap}: it is {where.value}{_what_then(where, device)}"
            host.report(Said(text, DEVICE, tap=interface.tap))
        if device is not None and device.name != interface.tap:
            interface = replace(interface, tap=device.name, called=interface.tap)
        interfaces.append(interface)
    return replace(domain, interfaces=tuple(interfaces))


def _what_then(where: Whereabouts, device: Device | None) -> str:
    if where is Whereabouts.UNBRIDGED:
        return ", and filtered on the device itself"
    return f", {device.bridge or 'none'}" if device and where is Whereabouts.MOVED else ""


def _locate(binding: Binding) -> tuple[Whereabouts, Device | None]:
    return locate(binding.tap, binding.index, binding.attachment, binding.bridge)


def _enforce_unrecorded(host: Host, domain: Domain) -> None:
    """The state can't be used: leave alone what is seen to be in force, else put the rules into force unrecorded."""
    try:
        record = host.state.read(domain.uuid)
    except StateError:
        record = None
    if record and _as_wished(host, domain, record) and not _altered(host, record):
        return
    compiled = compile_domain(host, domain, tolerant=True)
    if compiled.taps:
        zones = zones_for(host, (each.binding for each in compiled.taps))
        known = [known_under(host, compiled.guard, each).rendered for each in compiled.taps]
        host.backend.apply(host.backend.install(known, zones=zones, guard=compiled.guard))
    for tap, error in compiled.failed:
        host.report(Said(f"{tap}: not filtered as it should be: {error}", UNFILTERED, tap=tap))


def _restore(host: Host, domain: Domain, record: Record, event: str) -> bool:
    """Whether the guest has what it wants, if need be from its record."""
    if not _as_wished(host, domain, record):
        return False
    generation = host.backend.generation()
    altered = set() if is_in_force(host, record) else _altered(host, record)
    if not altered:
        if host.backend.generation() == generation:
            note_in_force(host, domain, record, event, generation)
        return True
    if not _put_back(host, record):
        return False
    _tell_repaired(host, altered)
    _put_back_others(host, record.uuid)
    generation = host.backend.generation()
    if is_in_force(host, record):  # which sees what has been changed since the line above
        note_in_force(host, domain, record, event, generation)
    return True


def _make_anew(host: Host, domain: Domain, compiled: CompiledGuest, operation: str) -> None:
    if compiled.guard != host.guard:
        compiled = compile_domain(host, domain, tolerant=True)
    record = _settled_record(host, domain.uuid)
    altered = _altered(host, record) if record else set()
    before = {each.tap: each for each in record.bindings if _can_stay(each)} if record else {}
    planned = plan_domain(host, domain, compiled, operation, fresh=False, kept=before)
    try:
        carry_out(host, planned)
    except NftError as error:
        if error.unsure:
            raise
        planned = _quarantine_all(host, domain, operation, error)
    _tell(host, planned, before, altered)


def _can_stay(binding: Binding) -> bool:
    """Whether the recorded rules can be put back: they are known, and made for what the device is now."""
    return binding.installed.whole and _locate(binding)[0] in (Whereabouts.THERE, Whereabouts.MOVED)


def _altered(host: Host, record: Record) -> set[str]:
    """The taps of which the kernel doesn't have what was recorded."""
    found = host.backend.fingerprints([binding.installed for binding in record.bindings])
    return {binding.tap for binding in record.bindings if found[binding.tap] != binding.fingerprint}


def _put_back(host: Host, record: Record) -> bool:
    """Put the recorded rules into the kernel; False if they aren't known, or nft doesn't take them any more."""
    if not all(binding.installed.whole for binding in record.bindings):
        return False
    change = GuestChange(record.guest, record.uuid, record.operation, (), record.bindings, ())
    try:
        carry_out(host, plan(host, [change], put_back=True), operation=REPAIR)
    except NftError as error:
        if error.unsure:
            raise
        return False
    return True


def _put_back_others(host: Host, uuid: str) -> None:
    """
    Who has changed this guest's rules has perhaps flushed everybody's: in one transaction, what isn't in the kernel as
    recorded of other guests whose devices are what they were. What fails is left to their own events.
    """
    others = [each for each in host.state.records() if each.uuid != uuid and _can_be_put_back(host, each)]
    found = host.backend.compare([(each.installed, each.fingerprint) for other in others for each in other.bindings])
    altered = {each.uuid: taps for each in others if (taps := [tap.tap for tap in each.bindings if found.get(tap.tap)])}
    returning = [each for each in others if each.uuid in altered]
    if not returning:
        return
    changes = [GuestChange(each.guest, each.uuid, each.operation, (), each.bindings, ()) for each in returning]
    try:
        carry_out(host, plan(host, changes, put_back=True), operation=REPAIR)
    except NftError as error:
        if error.unsure:
            raise
        return
    for each in returning:
        host.state.tallies.add(REPAIRED_TAPS, "reconnect", "done", count=len(altered[each.uuid]))
        for tap in altered[each.uuid]:
            text = f"{each.guest}: {tap}: its filter was not in force as recorded; repaired"
            host.log(Said(text, REPAIRED, guest=each.guest, uuid=each.uuid, tap=tap))


def _can_be_put_back(host: Host, record: Record) -> bool:
    """Whether what is recorded is all there is to know of the guest, and is for the devices that are there."""
    return host.state.read_pending(record.uuid) is None and all(
        binding.installed.whole
        and _locate(binding)[0] is Whereabouts.THERE
        and host.state.owner(binding.tap) == record.uuid
        for binding in record.bindings
    )


def _tell(host: Host, planned: Plan, before: Mapping[str, Binding], altered: set[str]) -> None:
    after = {binding.tap: binding for binding in planned.record.bindings}
    for tap, reason in planned.failed:
        if tap not in after:
            what, kind = "NOT filtered, and can't be quarantined", UNFILTERED
        elif after[tap].quarantined:
            still = "still " if tap in before and before[tap].quarantined else ""
            what, kind = f"{still}quarantined, {quarantine_effect(reason)}", QUARANTINED
        else:
            what, kind = OLD_RULES_STAY, FAILED
        host.report(Said(f"{tap}: {what}: {reason}", kind, tap=tap))
    made = {tap for tap in after if not after[tap].unfiltered} - {tap for tap, _ in planned.failed}
    filtered = {tap for tap in before if not before[tap].unfiltered}
    for tap in sorted(made - altered):
        name = after[tap].filter
        if tap not in filtered:
            what = f"it was not filtered; now it is, by {name}"
        elif before[tap].quarantined:
            what = f"no longer quarantined; filtered by {name}"
        elif before[tap].installed != after[tap].installed:
            what = f"its filter has changed to what the guest asks for now, {name}"
        else:
            continue
        host.report(Said(f"{tap}: {what}", CHANGED, tap=tap, filter=name))
    for tap in sorted(tap for tap in filtered if tap not in after or after[tap].unfiltered):
        closed = tap in after and after[tap].quarantined
        effect = "nothing passes any more" if closed else "its rules are removed"
        host.report(Said(f"{tap}: the guest asks for no filter there any more; {effect}", CHANGED, tap=tap))
    _tell_repaired(host, made & altered)


def _tell_repaired(host: Host, taps: set[str]) -> None:
    if taps:
        host.state.tallies.add(REPAIRED_TAPS, "reconnect", "done", count=len(taps))
    for tap in sorted(taps):
        host.report(Said(f"{tap}: its filter was not in force as recorded; repaired", REPAIRED, tap=tap))


def quarantine_known(host: Host, uuid: str, reason: NwfilterHookError, recheck: Check = unchecked) -> bool:
    """
    The running guest's XML is of no use: put back what its record says, or if that can't be, drop everything.

    Returns:
        True if taps were quarantined.
    """
    with host.state.locked():
        recheck()
        record = host.state.read(uuid)
        altered = _altered(host, record) if record else set()
        if record is None or not altered or _put_back(host, record):
            _tell_repaired(host, altered)
            return False
        anew = tuple(compile_quarantine(host, binding, NOWHERE) for binding in record.bindings)
        known = known_of(host, uuid, [binding.tap for binding in record.bindings])
        carry_out(host, plan(host, [GuestChange(record.guest, uuid, record.operation, anew, (), tuple(known))]))
        return True


def _quarantine_all(host: Host, domain: Domain, operation: str, reason: NwfilterHookError) -> Plan:
    problem = InputError(str(reason), domain.source)
    interfaces = tuple(
        replace(each, problem=problem) if each.reference or each.problem else each for each in domain.interfaces
    )
    closed = replace(domain, interfaces=interfaces)
    planned = plan_domain(host, closed, compile_domain(host, closed, tolerant=True), operation, fresh=False)
    carry_out(host, planned)
    return planned


def _as_wished(host: Host, domain: Domain, record: Record) -> bool:
    """Whether the record's bindings are the ones the XML and the configuration ask for, and none is in quarantine."""
    wanted = [interface for interface in domain.interfaces if interface.reference or interface.problem]
    recorded = {binding.tap: binding for binding in record.bindings if not binding.unfiltered}
    return (
        len(wanted) == len(recorded)
        and all(_is_wished(host, each, recorded.get(each.tap or "")) for each in wanted)
        and _are_known(host, domain, record)
    )


def _are_known(host: Host, domain: Domain, record: Record) -> bool:
    """Whether the record has those interfaces that name no filter as the guard wants to know them."""
    guard = host.guard
    wanted = [each for each in (unfiltered(interface, guard) for interface in domain.interfaces) if each]
    recorded = [binding for binding in record.bindings if binding.unfiltered]
    if held_by_nobody(host, [domain.uuid], (each.tap for each in domain.interfaces if each.tap)):
        return False
    return {(each.tap, each.index, each.attachment, each.quarantined) for each in wanted} == {
        (each.tap, each.index, each.attachment, each.quarantined) for each in recorded
    }


def _is_wished(host: Host, interface: Interface, binding: Binding | None) -> bool:
    if interface.problem or not interface.reference or binding is None or binding.quarantined:
        return False
    where, device = _locate(binding)
    floor = describe(floor_below(host, bridge_of(interface, device), interface.reference))
    return (
        where is Whereabouts.THERE
        and interface.mac == binding.mac
        and interface.reference.filter == binding.filter
        and dict(interface.reference.parameters) == dict(binding.parameters)
        # what is left of a broken configuration is nobody's wish
        and (floor == binding.floor or host.config.text is None)
        and attachment_of(interface, device) is binding.attachment
    )
