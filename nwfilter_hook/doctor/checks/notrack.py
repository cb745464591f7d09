"""Nobody takes guests' packets out of connection tracking, which rules with a state need."""

from __future__ import annotations

from collections.abc import Iterator

from ..findings import Finding, hint
from ..patient import Patient


def examine(patient: Patient) -> Iterator[Finding]:
    """A hint: `notrack` in a table of others, while rules of a tap look at connections."""
    tracked = [
        each.tap
        for record in patient.records
        for each in record.bindings
        if patient.host.backend.tracks(each.installed)
    ]
    if not tracked:
        return
    found = [
        (f"table {family} {table}", f"nft list table {family} {table}")
        for (family, table), chains in patient.statements.items()
        if any("notrack" in does for does in chains.values())
    ]
    for each in patient.legacy:
        if each.name == "raw" and {"NOTRACK", "CT"} & each.targets:
            tool = f"{each.family}tables-legacy"
            found.append((f"{tool}'s table raw", f"{tool} -t raw -S"))
    for what, command in found:
        why = "a packet without tracking has no state, so rules that ask for one don't match it: "
        yield hint(f"{what} exempts packets from tracking", why + ", ".join(tracked), command)
