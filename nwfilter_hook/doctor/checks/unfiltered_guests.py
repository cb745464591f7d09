"""Every guest that runs has the filters that it names."""

from __future__ import annotations

from collections.abc import Iterator

from ...domain.model import Interface
from ...storage.records import Binding
from ..findings import Finding, wrong
from ..patient import Guest, Patient


def examine(patient: Patient) -> Iterator[Finding]:
    """Wrong: an interface that names a filter and has none, or another one than it names now."""
    bindings = {
        (record.uuid, name): each
        for record in patient.records
        for each in record.bindings
        for name in (each.tap, each.called)
    }
    for guest in patient.running:
        if guest.domain is None:
            why = "whether it is filtered as it asks for can't be told"
            yield wrong(f"{guest.name}: {guest.fault}", why, f"virsh dumpxml {guest.name}")
            continue
        for interface in guest.domain.interfaces:
            if interface.tap and (interface.reference or interface.problem):
                binding = bindings.get((guest.domain.uuid, interface.tap))
                yield from _compare(guest, interface, binding)


def _compare(guest: Guest, interface: Interface, binding: Binding | None) -> Iterator[Finding]:
    wanted = interface.reference
    who = f"{guest.name}: {interface.tap}"
    asks = f"asks for {wanted.filter}" if wanted else f"asks for a filter: {interface.problem}"
    if binding is None:
        why = "the guest runs, and nothing holds it: it may send whatever it likes under any address"
        yield wrong(f"{who} has no filter and {asks}", why, "nwfilter-hook resync")
    elif wanted and (wanted.filter, dict(wanted.parameters)) != (binding.filter, dict(binding.parameters)):
        what = "with other parameters" if wanted.filter == binding.filter else f"and {asks}"
        why = "libvirt tells no hook of a changed XML: the guest is held by what it asked for before"
        yield wrong(f"{who} has {binding.filter} {what} now", why, "nwfilter-hook resync")
