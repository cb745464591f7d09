"""libvirtd knows of the hook: it looks for hooks when it starts, and when it is reloaded."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime

from ...operations.bindings import OPERATION as BOUND_BY_HAND
from ...operations.hooked import daemon_starts
from ...operations.resync import OPERATION
from ..findings import Finding, wrong
from ..libvirt_files import hook_files, is_ours
from ..patient import Patient


def examine(patient: Patient) -> Iterator[Finding]:
    """
    Wrong: every hook is newer than the daemon, and it has started none of ours since. A hook that took the place of an
    older one is started all the same: libvirt remembers that there are hooks, not which (src/util/virhook.c).
    """
    hooks = [path for path in hook_files() if os.access(path, os.X_OK)]
    if not any(map(is_ours, hooks)):
        return
    oldest = min(os.stat(path).st_ctime for path in hooks)
    by_others = (BOUND_BY_HAND, OPERATION)
    told = [patient.host.state.written_s(each.uuid) for each in patient.records if each.operation not in by_others]
    for daemon, started in daemon_starts().items():
        if oldest > started + 1 and not any(at > started for at in told):
            when = f"{datetime.fromtimestamp(int(started)).astimezone():%Y-%m-%d %H:%M:%S}"
            name = daemon.partition(" ")[0]
            yield wrong(
                f"the hook is newer than {daemon}, which runs since {when} and has not started it",
                f"{name} looks for hooks when it starts: it asks none, and guests start without their filters",
                f"systemctl restart {name}",
            )
