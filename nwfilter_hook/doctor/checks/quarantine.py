"""No tap is cut off because its filter could not be made, and nothing is refused to a guest that runs."""

from __future__ import annotations

from collections.abc import Iterator

from ..findings import Finding, wrong
from ..patient import Patient


def examine(patient: Patient) -> Iterator[Finding]:
    """Wrong: each tap in quarantine, and each thing that the service can't do."""
    for record in patient.records:
        for binding in record.bindings:
            if binding.quarantined:
                why = "nothing passes in or out: its filter could not be made; the command says why, once more"
                command = f"nwfilter-hook replay {record.guest} reconnect"
                yield wrong(f"{record.guest}: {binding.tap} is quarantined", why, command)
    for line in patient.service.refused if patient.service else ():
        why = "the service tries it again and again; the guest is not filtered as it asks for"
        yield wrong(line, why, "journalctl -t nwfilter-hook")
