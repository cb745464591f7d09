"""The service runs, and hears libvirt."""

from __future__ import annotations

from collections.abc import Iterator

from ..findings import Finding, hint, wrong
from ..patient import Patient

_WHY = (
    "libvirt tells no hook of devices that are plugged or updated, and nobody puts back what others change of the rules"
)


def examine(patient: Patient) -> Iterator[Finding]:
    """Wrong: it ended, or doesn't hear libvirt. A hint: it is off."""
    service = patient.service
    if service is None:
        yield hint("the service nwfilter-hook-watch is off", _WHY, "systemctl enable --now nwfilter-hook-watch")
    elif not service.running:
        yield wrong(f"the service (process {service.pid}) has ended", _WHY, "systemctl restart nwfilter-hook-watch")
    elif service.libvirt not in ("connected", "none"):
        why = "plugged and updated devices are followed only when libvirt answers again"
        yield wrong(f"the service doesn't hear libvirt: {service.libvirt}", why, "systemctl status libvirtd virtqemud")
