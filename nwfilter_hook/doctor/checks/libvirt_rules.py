"""libvirt's own nwfilter driver leaves the work to us: its filters are twins, of the same name and without rules."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ...base.errors import NOWHERE, NwfilterHookError
from ...domain.model import Carrier
from ...operations.adopt_survey import is_twin_xml
from ..findings import Finding, hint, wrong
from ..libvirt_files import bound_taps, has_own_driver, own_filters
from ..patient import Patient

_PREFIXES = (*("libvirt-I-", "libvirt-O-", "libvirt-J-", "libvirt-P-"), *("FI-", "FO-", "HI-", "FJ-", "FP-", "HJ-"))
"""Of chains of a tap's, in force or on their way: src/nwfilter/nwfilter_ebiptables_driver.c"""


def examine(patient: Patient) -> Iterator[Finding]:
    """
    Wrong: its rules are in force on a tap of ours, or it lacks a filter that a guest names. A hint: it has rules of its
    own for that filter. UUIDs aren't compared: libvirt makes its own for the stock filters of each host.
    """
    yield from _in_force(patient)
    if has_own_driver():
        yield from _twins(patient)


def _in_force(patient: Patient) -> Iterator[Finding]:
    chains = {each.name for each in patient.chains} | {name for table in patient.legacy for name in table.chains}
    filters = {each.tap: each.filter for record in patient.records for each in record.bindings if each.filter}
    for tap in sorted(filters):
        found = sorted(prefix + tap for prefix in _PREFIXES if prefix + tap in chains)
        if found:
            bound = " (virsh nwfilter-binding-list has it)" if tap in bound_taps() else ""
            yield wrong(
                f"{tap}: rules of libvirt's own driver are in force beside ours{bound}: {', '.join(found)}",
                "a packet passes only if both let it, and nothing here says what libvirt's drop",
                _define(patient, filters[tap], own_filters().get(filters[tap], ("", b""))[1]),
            )


def _twins(patient: Patient) -> Iterator[Finding]:
    guests = [each.domain for each in (*patient.running, *patient.defined) if each.domain]
    named = {
        interface.reference.filter: guest.name
        for guest in guests
        for interface in guest.interfaces
        if interface.reference and interface.carrier is Carrier.FILTERREF
    }
    twins = own_filters()
    for name, guest in sorted(named.items()):
        path, data = twins.get(name, ("", b""))
        if not path:
            why = "libvirt refuses to start a guest whose filter it doesn't know"
            yield wrong(f"{name}, which {guest} names, has no twin in libvirt", why, _define(patient, name, b""))
        elif not is_twin_xml(data.decode(errors="replace")):
            why = "libvirt's driver enforces them beside ours: a packet passes only if both let it (adopt ends that)"
            yield hint(f"{path} has rules of its own", why, _define(patient, name, data))


def _uuid_of(patient: Patient, name: str) -> str:
    try:
        return patient.host.library.read(name, NOWHERE).uuid or ""
    except NwfilterHookError:
        return ""  # next-start says what is wrong with it


def _uuid_in(data: bytes) -> str:
    found = re.search(rb"<uuid>\s*([0-9A-Fa-f-]{36})\s*</uuid>", data)
    return found[1].decode().lower() if found else ""


def _define(patient: Patient, name: str, data: bytes) -> str:
    """The command that makes a twin; a filter that there is keeps its UUID, since libvirt takes no other for it."""
    uuid = _uuid_in(data) or _uuid_of(patient, name)
    inner = f"<uuid>{uuid}</uuid>" if uuid else ""
    return f"echo \"<filter name='{name}'>{inner}</filter>\" | virsh nwfilter-define /dev/stdin"
