"""Nobody but root may write what decides about guests: configuration, filters, state."""

from __future__ import annotations

import os
from collections.abc import Iterator

from ...config import config_file
from ...trust import distrust
from ..findings import Finding, hint, wrong
from ..patient import Patient


def examine(patient: Patient) -> Iterator[Finding]:
    """Wrong: others may write it; it isn't used then. A hint: others may read records, which tell who has which tap."""
    library = patient.host.library
    filters = [path for name in library.names() for path in library.paths(name)]
    state = patient.host.config.state_dir
    places = [config_file(), *library.directories, *filters, state, os.path.join(state, "domains")]
    seen = set()
    for path in places:
        fault = distrust(path)
        if fault and fault not in seen:
            seen.add(fault)
            what, _, command = fault.partition("; ")
            yield wrong(what, "who may write it decides about guests, so it isn't relied on", command)
    if os.path.isdir(state) and os.stat(state).st_mode & 0o077:
        why = "records tell everybody which guest has which tap and addresses"
        yield hint(f"{state} may be looked into by others than root", why, f"chmod 700 {state}")
