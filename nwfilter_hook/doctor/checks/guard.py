"""The guard is on, as the configuration has it, whole, and cuts off nobody who should be decided about."""

from __future__ import annotations

from collections.abc import Iterator

from ...operations.guard import read_status
from ..findings import Finding, hint, wrong
from ..patient import Patient


def examine(patient: Patient) -> Iterator[Finding]:
    """Wrong: it isn't as it is to be, or refuses the frames of a port. A hint: it is off."""
    found = read_status(patient.host)
    if found.guard is None and not found.faults:
        why = "a tap that is plugged passes everything until its rules are there, or for good if no hook is told"
        mode = "" if found.configured else "; first set [guard] mode"
        yield hint(f"the guard is off{mode}", why, "nwfilter-hook guard on")
    command = "nwfilter-hook guard on" if found.configured else "nwfilter-hook guard off"
    for fault in found.faults:
        why = "taps that nobody has decided about may pass everything, or those that are known nothing"
        yield wrong(
            f"the guard: {fault}", why, "nwfilter-hook guard on" if found.configured else "nwfilter-hook guard off"
        )
    if found.guard and not found.faults and not (found.configured and found.guard.is_as(found.configured)):
        why = "what the configuration says is in force only when the guard is put on anew"
        yield hint("the guard is on, and not as the configuration has it", why, command)
    for each in found.unknown if found.guard else ():
        frames = each.refused.sent + each.refused.received
        yield wrong(
            f"{each.name} on {each.bridge} is cut off, since nobody has decided about it; {frames} frames are dropped",
            "if it is a guest's, no hook was told of it; if not, [guard] allow names what is to pass",
            "nwfilter-hook resync",
        )
