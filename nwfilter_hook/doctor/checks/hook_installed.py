"""libvirt's hook is where libvirt looks for it, can be started, and starts a program that is there."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from ...trust import distrust
from ..findings import Finding, hint, wrong
from ..libvirt_files import HOOKS, LAUNCHER, hook_files, is_ours, read_script
from ..patient import Patient

_WHY = "libvirt starts guests without asking for their filters"


def examine(patient: Patient) -> Iterator[Finding]:
    """Wrong: no hook of ours, one that can't be started, or whose program is gone. A hint: two of them."""
    ours = [path for path in hook_files() if is_ours(path)]
    if not ours:
        astray = _astray()
        there = f"; there is {astray}, where libvirt doesn't look" if astray else ""
        yield wrong(f"there is no hook of nwfilter-hook in {HOOKS}/qemu.d{there}", _WHY, "make install")
    for path in ours:
        if os.path.islink(path):
            why = f"AppArmor doesn't let libvirtd follow a link out of that directory: {_WHY}"
            yield wrong(f"{path} is a link to {os.readlink(path)}, not a file", why, "make install")
        if not os.path.isfile(path):
            yield wrong(f"{path} is no file", _WHY, "make install")
        elif not os.access(path, os.X_OK):
            yield wrong(f"{path} isn't executable", _WHY, f"chmod 755 {path}")
        yield from _program(path)
        fault = distrust(path)
        if fault:
            yield wrong(fault.partition(";")[0], "libvirtd runs it as root", fault.partition("; ")[2])
    if len(ours) > 1:
        why = "libvirt starts both for every event of a guest"
        yield hint(f"there are {len(ours)} hooks of ours: {', '.join(ours)}", why, f"rm {ours[0]}")


def _program(path: str) -> Iterator[Finding]:
    found = re.search(rb"(?m)^program=(.+)$", read_script(path))
    program = found[1].decode(errors="replace") if found else ""
    if program and not os.path.exists(program):
        why = "it refuses every guest with a filter, and looks after none that runs"
        yield wrong(f"{path} starts {program}, which isn't there", why, "make install")


def _astray() -> str:
    """A hook of ours in a place that libvirt has for something else; "" if there is none."""
    for place in (HOOKS, f"{HOOKS}/network.d", f"{HOOKS}/daemon.d", f"{HOOKS}/lxc.d"):
        path = os.path.join(place, LAUNCHER)
        if os.path.lexists(path):
            return path
    return ""
