"""
The guard put on, taken off, put back, looked at: see guards.py.

In:  a `Host`; libvirt, where it answers. It is never asked under our lock.
Out: kernel and records are as they are to be with or without it; which ports would be, or are, cut off.

While it is put on or taken off it is "not carried": taps get what tells that they are known, and no transaction brings
the guard along. So a process that is killed on the way cuts off nobody who is known.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..base.dataclass import as_dict, dataclass, replace
from ..base.errors import InputError, NftError, StateError
from ..domain.model import Domain
from ..guards import Guard, Refused
from ..host import Host
from ..libvirtd import Libvirt
from ..network.links import Link, list_links, open_route
from ..storage.guard import configured, write_guard
from ..storage.records import Binding, Record
from ..storage.watching import read_watching
from .compile import CompiledTap, compile_unfiltered, unfiltered
from .devices import read_device
from .floors import read_domain
from .held import claims as claims_device
from .held import held
from .kernel import known_of
from .removal import sweep
from .resync import device_indexes, resync
from .transaction import GuestChange, carry_out, plan_under

_GENERATED = "vnet"


@dataclass(frozen=True)
class Unknown:
    """
    A port of a bridge that the guard claims, and that nobody has decided about.

    Attributes:
        bridge: "" for a device that is in none, see held.py; what was dropped is then one sum, `sent`.
    """

    name: str
    bridge: str
    refused: Refused = Refused()


@dataclass(frozen=True)
class Status:
    """
    Attributes:
        guard: None if it is off.
        configured: what `switch_on` would put on; None if the configuration has it off.
        faults: sentences: of what the kernel has otherwise; of a guard that is off, that it is there.
        unknown: ports that it cuts off; if it is off, those that it would cut off.
        shielded: the service holds the shield now.
    """

    guard: Guard | None
    configured: Guard | None
    faults: tuple[str, ...]
    unknown: tuple[Unknown, ...]
    shielded: bool = False

    def as_json(self) -> dict[str, Any]:
        """For programs; the keys are a contract."""
        return {
            "on": self.guard is not None,
            "guard": as_dict(self.guard),
            "configured": as_dict(self.configured),
            "faults": list(self.faults),
            "unknown": [as_dict(each) for each in self.unknown],
            "shielded": self.shielded,
        }


def describe_guard(found: Status) -> Iterator[str]:
    """Lines for people."""
    now, wish = found.guard, found.configured
    if now is None:
        yield "the guard is off"
    else:
        where = f", bridges {' '.join(now.bridges)}" if now.mode in ("bridges", "strict") else ""
        yield f"the guard is on, mode {now.mode}{where}; interfaces without a filter: {now.unfiltered}"
        if wish is None or not now.is_as(wish):
            yield "the configuration has it otherwise: nwfilter-hook guard on"
        if now.shield or found.shielded:
            yield f"the shield is {'up' if found.shielded else 'DOWN: it is up while nwfilter-hook-watch runs'}"
    yield from (f"fault: {each}" for each in found.faults)
    if found.unknown and now is None:
        yield "it would cut off:"


def wanted(host: Host) -> Guard | None:
    """The guard that the configuration asks for; None if it has it off."""
    return None if host.config.guard_mode == "off" else configured(host.config)


def read_status(host: Host) -> Status:
    """Raises NftError: the kernel can't be asked."""
    guard, wish = host.guard, wanted(host)
    faults: tuple[str, ...] = ()
    if guard is not None:
        faults = host.backend.guard.faults(guard) if guard.carried else ("it was being put on or taken off",)
    elif host.backend.guard.fingerprint():
        faults = ("it is off, but the kernel has one",)
    shown = guard or wish
    unknown = find_unknown(host, shown, host.backend.taps()) if shown else ()
    watching = read_watching(host.config.state_dir)
    return Status(guard, wish, faults, unknown, bool(watching and watching.running and watching.shield))


def put_back(host: Host) -> None:
    """
    Bring the guard into the kernel again, if it is on: quick, however many taps there are. What tells that taps are
    known is in their records, and comes with their rules. The lock is held.

    Raises:
        NftError, StateError: it can't be done.
    """
    guard = host.guard
    if guard and guard.carried:
        host.backend.apply(host.backend.install(guard=guard))
        _note(host, guard)


def switch_on(host: Host, guard: Guard, libvirt: Libvirt | None, *, agreed: bool) -> tuple[Unknown, ...]:
    """
    Put guests under their filters, then the guard on, or another one in place of the one that is.

    Args:
        libvirt: None to go by what is recorded of guests.
        agreed: if False, and ports would be cut off, leave the guard as it is.

    Returns:
        The ports that are cut off; or, unless agreed, would be.

    Raises:
        MissingFeature: this kernel can't do it. LibvirtError: libvirt doesn't say which guests run. NftError,
            StateError: the guard is as it was.
    """
    host.backend.guard.check(guard)
    domains, devices = _running(host, libvirt) if libvirt else ([], {})
    with host.state.locked():
        sweep(host)
        changes = _changes(host, guard, _unfiltered(guard, domains, devices))
        taps = {binding.tap for change in changes for binding in (*_bindings(change.anew), *change.staying)}
        unknown = find_unknown(host, guard, taps)
        if unknown and not agreed:
            return unknown
        _switch(host, guard, changes)
    return unknown


def switch_off(host: Host) -> bool:
    """
    Take the guard off, and what taps have for its sake.

    Returns:
        False if there was nothing to do.

    Raises:
        NftError, StateError: nothing has changed.
    """
    with host.state.locked():
        sweep(host)
        if host.guard is None and not host.backend.guard.fingerprint():
            return False
        _switch(host, None, _changes(host, None, {}))
        return True


def find_unknown(host: Host, guard: Guard, known: Iterable[str]) -> tuple[Unknown, ...]:
    """The ports that the guard claims beside the known taps, with what it has dropped of theirs. Raises NftError."""
    taps = set(known)
    try:
        with open_route() as netlink:
            links = {link.index: link for link in list_links(netlink)}
    except OSError as error:
        raise NftError(f"the kernel doesn't say which devices there are: {error.strerror}") from error
    refused = host.backend.guard.refused()
    found = []
    for link in links.values():
        master = links.get(link.master)
        if master and master.kind == "bridge" and link.name not in taps and claims(guard, link, master.name):
            found.append(Unknown(link.name, master.name, refused.get(link.name, Refused())))
    return tuple(sorted((*found, *_held(host)), key=lambda each: each.name))


def _held(host: Host) -> list[Unknown]:
    bindings = [each for each in held(host) if each.index is not None]
    seen = host.backend.look([each.installed for each in bindings])
    return [Unknown(each.tap, "", Refused(sum((seen[each.tap].dropped or {}).values()))) for each in bindings]


def claims(guard: Guard, link: Link, bridge: str) -> bool:
    """Whether it drops the frames of this port, unless somebody has decided about it."""
    if link.name in guard.trusted or any(_fits(pattern, link.name) for pattern in guard.allow):
        return False
    if guard.mode == "generated":
        return link.name.startswith(_GENERATED)
    if guard.mode == "taps":
        return link.kind == "tun"
    return bridge in guard.bridges and (guard.mode == "strict" or link.kind == "tun")


def _fits(pattern: str, name: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


def _running(host: Host, libvirt: Libvirt) -> tuple[list[Domain], dict[str, int]]:
    """
    The guests that run, now under their filters, and the devices from before libvirt was asked about them. A guest that
    can't be helped is no reason not to look after the others.
    """
    for each in resync(host, libvirt):
        for line in (*each.notes, *filter(None, (each.error,))):
            host.report(f"{each.guest}: {line}")
    devices = device_indexes()
    domains = []
    for uuid, name in libvirt.running():
        live = libvirt.live_xml(uuid)
        with contextlib.suppress(InputError):  # said before
            if live is not None:
                domains.append(read_domain(host, live[1], f"domain XML of {name}", tolerant=True))
    return domains, devices


def _unfiltered(
    guard: Guard, domains: Iterable[Domain], devices: Mapping[str, int]
) -> dict[str, tuple[str, list[Binding]]]:
    """By UUID: the name, and the interfaces that name no filter, if their devices are the ones of before."""
    found = {}
    for domain in domains:
        bindings = [each for each in (unfiltered(interface, guard) for interface in domain.interfaces) if each]
        bindings = [each for each in bindings if each.index is not None and devices.get(each.tap) == each.index]
        if bindings:
            found[domain.uuid] = domain.name, bindings
    return found


def _changes(host: Host, guard: Guard | None, bare: Mapping[str, tuple[str, list[Binding]]]) -> list[GuestChange]:
    """All guests with a record, and of others, and beside what is recorded, the interfaces that name no filter."""
    changes = []
    records = {record.uuid: record for record in host.state.records()}
    for uuid in dict.fromkeys((*records, *bare)):
        if uuid in records and guard is not None and _stays_held(records[uuid], guard):
            continue
        record = records.get(uuid) or Record(bare[uuid][0], uuid, "guard", (), ())
        taps = {binding.tap for binding in record.bindings if not binding.unfiltered}
        former = [each for each in record.bindings if each.unfiltered and guard is not None and not each.held]
        wishes = [*former, *(bare[uuid][1] if uuid in bare else ())]
        made = {each.tap: compile_unfiltered(host, each, guard) for each in wishes if each.tap not in taps}
        staying = tuple(binding for binding in record.bindings if not binding.unfiltered)
        known = known_of(host, uuid, [*taps, *made])
        changes.append(GuestChange(record.guest, uuid, record.operation, tuple(made.values()), staying, tuple(known)))
    return changes


def _stays_held(record: Record, guard: Guard) -> bool:
    devices = [(each.index, read_device(each.tap)) for each in record.bindings]
    return record.held and all(index is None or (device and claims_device(guard, device)) for index, device in devices)


def _bindings(compiled: Iterable[CompiledTap]) -> list[Binding]:
    return [each.binding for each in compiled]


def _switch(host: Host, guard: Guard | None, changes: list[GuestChange]) -> None:
    before = host.guard
    underway = replace(guard or before or configured(host.config), carried=False)
    write_guard(host.state, underway)
    try:
        planned = plan_under(host, guard, changes)
        if guard is None:
            planned = replace(planned, transaction=host.backend.without_guard(planned.transaction))
        carry_out(host, planned)
    except (NftError, StateError) as error:
        if not (isinstance(error, NftError) and error.unsure):
            write_guard(host.state, before)
        raise
    write_guard(host.state, guard)
    if guard is not None:
        _note(host, guard)


def _note(host: Host, guard: Guard) -> None:
    """Write down what the kernel made of it."""
    fingerprint = host.backend.guard.fingerprint()
    if fingerprint != guard.fingerprint:
        write_guard(host.state, replace(guard, fingerprint=fingerprint))
