"""
Whether somebody else than root may write what decides about guests: a configuration, a filter.

In:  a path.
Out: why it isn't to be relied on, or None.

Who may write our program decides anyway, so files of a checkout's owner are as good as its code. A process that isn't
root's can put nothing into force, and is told nothing.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

_LONGEST_WAY = 1000
_PROGRAM = os.path.dirname(os.path.abspath(__file__))


def distrust(path: str) -> str | None:
    """
    Who else may write the file or directory `path`, or put something else into its place, with the remedy.

    Directories above may be sticky, as /tmp is: there everybody may make new entries, but not replace another's.
    """
    if os.geteuid() != 0:
        return None
    try:
        for place, status, is_above in _places(path):
            fault = _fault(status, is_above and bool(status.st_mode & stat.S_ISVTX))
            if fault:
                return f"{place} {fault} {place}"
    except OSError:
        pass  # what isn't there holds nothing; what can't be read is the reader's error
    return None


def _places(path: str) -> Iterator[tuple[str, os.stat_result, bool]]:
    """Every directory and link on the way to `path`, and where it leads; whether there is more to come."""
    waiting = _parts(os.path.abspath(path))
    place = "/"
    for _ in range(_LONGEST_WAY):
        if not waiting:
            return
        name = waiting.pop()
        if name == "..":
            place = os.path.dirname(place)
            continue
        here = os.path.join(place, name)
        status = os.lstat(here)
        yield here, status, bool(waiting)
        if stat.S_ISLNK(status.st_mode):
            target = os.readlink(here)
            place = "/" if target.startswith("/") else place
            waiting += _parts(target)
        else:
            place = here


def _parts(path: str) -> list[str]:
    """The last first."""
    return [part for part in reversed(path.split("/")) if part not in ("", ".")]


def _fault(status: os.stat_result, is_sticky: bool) -> str | None:
    program = os.stat(_PROGRAM)
    mode = 0 if stat.S_ISLNK(status.st_mode) else stat.S_IMODE(status.st_mode)
    if status.st_uid not in (0, os.geteuid(), program.st_uid):
        return f"belongs to user {status.st_uid}; chown -h root"
    if mode & stat.S_IWOTH and not is_sticky:
        return f"may be written by everybody (mode {mode:04o}); chmod o-w"
    its_group_writes_us = program.st_gid == status.st_gid and program.st_mode & stat.S_IWGRP
    if mode & stat.S_IWGRP and not is_sticky and status.st_gid != 0 and not its_group_writes_us:
        return f"may be written by group {status.st_gid} (mode {mode:04o}); chmod g-w"
    return None
