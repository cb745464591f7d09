"""
Whether libvirt starts our hook: it looks for hooks when its daemon starts, never again.

https://libvirt.org/hooks.html; proc(5) for a process's start.
"""

from __future__ import annotations

import contextlib
import os

HOOKS = ("/etc/libvirt/hooks/qemu.d/50-nwfilter-hook", "/etc/libvirt/hooks/qemu")
DAEMONS = ("libvirtd", "virtqemud")
_STARTED = 19
"""Which word it is of /proc/PID/stat behind the name."""


def hook_installed() -> bool:
    """Whether there is a hook that libvirt could start."""
    return any(os.access(path, os.X_OK) for path in HOOKS)


def hook_known() -> bool:
    """Whether every daemon of libvirt has started after the hook was put there."""
    there = [os.stat(path).st_ctime for path in HOOKS if os.access(path, os.X_OK)]
    return bool(there) and all(started + 1.0 >= min(there) for started in daemon_starts().values())


def daemon_starts() -> dict[str, float]:
    """
    When each was started, by "NAME (PROCESS)": seconds since the epoch, up to one too few, since the time of boot is
    told in whole ones.

    Raises:
        OSError
    """
    with open("/proc/stat", encoding="ascii") as file:
        booted = next(int(line.split()[1]) for line in file if line.startswith("btime "))
    ticks = os.sysconf("SC_CLK_TCK")
    found = {}
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            if name.isdigit():
                with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
                    before, _, after = file.read().rpartition(")")
                daemon = before.partition("(")[2]
                if daemon in DAEMONS:
                    found[f"{daemon} ({name})"] = booted + int(after.split()[_STARTED]) / ticks
    return found
