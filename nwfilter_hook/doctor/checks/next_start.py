"""Every guest that is defined could be started: its filters are there, and compile."""

from __future__ import annotations

from collections.abc import Iterator

from ...base.errors import MissingFeature
from ..findings import Finding, wrong
from ..patient import Patient


def examine(patient: Patient) -> Iterator[Finding]:
    """Wrong: libvirt would be told to refuse its start. What the kernel lacks is the matter of kernel-features."""
    for guest in patient.defined:
        if guest.fault and not isinstance(guest.fault, MissingFeature):
            runs = any(each.name == guest.name for each in patient.running)
            why = f"libvirt refuses to start it{', once it has stopped' if runs else ''}"
            command = f"nwfilter-hook replay {guest.name} prepare --xml {guest.path}"
            yield wrong(f"{guest.name} can't be started: {guest.fault}", why, command)
