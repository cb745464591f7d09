"""Nothing half-done or of an earlier version lies about."""

from __future__ import annotations

import os
from collections.abc import Iterator

from ..findings import Finding, hint, wrong
from ..libvirt_files import HOOKS, LAUNCHER
from ..patient import Patient

_PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def examine(patient: Patient) -> Iterator[Finding]:
    """Wrong: what makes a guest's rules unknown. A hint: what only lies there."""
    yield from _records(patient)
    for name, record in patient.host.state.leftovers():
        who = record.guest if record else name
        why = "its rules stand in the way of whoever gets its tap; the next event of any guest removes them"
        yield hint(f"{who} has stopped, and its rules could not be removed", why, "nwfilter-hook verify --repair")
    unreadable = os.path.join(patient.host.config.state_dir, "unreadable")
    if os.path.isdir(unreadable) and os.listdir(unreadable):
        why = "records that could not be read were moved there; their guests were filtered anew"
        yield hint(f"{unreadable} holds {len(os.listdir(unreadable))} records", why, f"rm -r {unreadable}")
    journal = patient.host.state.read_journal()
    if journal:
        why = "taps may have the old rules and files the new ones; the next event ends or takes back the change"
        yield wrong(f"a change of filters was cut off: {journal}", why, "nwfilter-hook reload")
    for path in (f"{_PACKAGE}.new", f"{_PACKAGE}.old", f"{HOOKS}/.{LAUNCHER}"):
        if os.path.lexists(path):
            why = "an upgrade was cut off, or goes on"
            yield hint(f"{path} is left of an installation", why, "make install")


def _records(patient: Patient) -> Iterator[Finding]:
    for record in patient.records:
        names = [each.tap for each in record.bindings if not each.installed.whole]
        if names:
            why = "it doesn't hold the rules, so they can't be compared, nor put back without compiling them anew"
            taps = ", ".join(names)
            what = f"the record of {record.guest} ({taps}) is an earlier version's"
            yield hint(what, why, f"nwfilter-hook replay {record.guest} reconnect")
    for line in patient.said:
        if patient.host.config.state_dir in line:
            why = "what a guest has in the kernel isn't known as long as its record can't be read"
            yield wrong(line, why, "nwfilter-hook resync")
