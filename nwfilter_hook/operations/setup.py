"""
What an installation by pip lacks on a host: the hook where libvirt looks for it, units, and what goes with them.

In:  the prefix of the installation, in which the wheel has put its data.
Out: what was done, or would be, for each file.

A package of the system, and `make install`, put these files themselves.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator

from ..base.errors import NwfilterHookError, SystemErrorAs
from ..storage.installed import Placed, content, is_in_place, is_ours, put, take_away
from ..trust import distrust

HOOK = "/etc/libvirt/hooks/qemu.d/50-nwfilter-hook"
_CONFIGURATION = "/etc/nwfilter-hook/nwfilter-hook.conf"
_COMMAND = b"/usr/bin/nwfilter-hook"
_DIRECTORIES = (
    ("systemd", "/etc/systemd/system"),
    ("tmpfiles.d", "/etc/tmpfiles.d"),
    ("journald", "/etc/systemd/catalog"),
)
"""Of the wheel's data, and where their files go."""
_PLAIN = re.compile(r"/[A-Za-z0-9._+/-]*")
"""What a shell and systemd take as it is."""


def planned(prefix: str) -> list[Placed]:
    """
    The files, the hook first.

    Raises:
        NwfilterHookError: this is no installation by pip, or others may write to it.
    """
    data = os.path.join(prefix, "share/nwfilter-hook")
    program, python = os.path.join(data, "hooks/qemu"), os.path.join(prefix, "bin/python3")
    command = os.path.join(prefix, "bin/nwfilter-hook")
    if not os.path.exists(program):
        raise NwfilterHookError(
            f"{prefix} holds no installation by pip: a package of the system has put all in its place, `make install` "
            "as well; of a checkout `make hook` starts the hook"
        )
    if not os.path.exists(python):
        python = os.path.join(sys.base_prefix, "bin/python3")
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    for path in (prefix, program, python, command, package):
        if not _PLAIN.fullmatch(path):
            raise NwfilterHookError(f"{path!r} can't stand in a unit of systemd: install below another directory")
        fault = distrust(path)
        if fault:
            raise NwfilterHookError(f"root would start what others may write: {fault}")
    launcher = _read(os.path.join(data, "hooks/launch"))
    for name, value in (("python", python), ("program", program)):
        launcher = re.sub(rb"(?m)^%s=.*$" % name.encode(), b"%s=%s" % (name.encode(), value.encode()), launcher)
    marks = b"\nprogram=%s\n" % program.encode()
    found = [Placed(HOOK, launcher, "/etc/libvirt/hooks/.50-nwfilter-hook", mode=0o755, marks=marks)]
    for source, target in _DIRECTORIES:
        place = os.path.join(data, source)
        for name in sorted(os.listdir(place)):
            text = _read(os.path.join(place, name)).replace(_COMMAND, command.encode())
            path = os.path.join(target, name)
            marks = command.encode() if command.encode() in text else b""
            found.append(Placed(path, text, f"{path}.new", marks=marks))
    sample = _read(os.path.join(data, "nwfilter-hook.conf"))
    found.append(Placed(_CONFIGURATION, sample, f"{_CONFIGURATION}.new", kept=True))
    return found


def set_up(prefix: str, *, dry_run: bool) -> Iterator[tuple[str, str]]:
    """
    Put what is missing, or otherwise, into its place; the path of each file, and what becomes of it.

    Raises:
        NwfilterHookError: see `planned`; or something can't be written, and those before are there.
    """
    for placed in planned(prefix):
        if is_in_place(placed):
            yield placed.path, "is there"
            continue
        what = "replaced" if content(placed.path) is not None else "put"
        if not dry_run:
            put(placed)
        yield placed.path, what


def undo(prefix: str, *, dry_run: bool) -> Iterator[tuple[str, str]]:
    """
    Take away what `set_up` has put there, the hook first; what somebody has changed stays.

    Raises:
        NwfilterHookError: as `set_up` does.
    """
    for placed in planned(prefix):
        if content(placed.path) is None:
            continue
        if not is_ours(placed):
            yield placed.path, "stays: it isn't as it was put there"
            continue
        if not dry_run:
            take_away(placed)
        yield placed.path, "removed"


def _read(path: str) -> bytes:
    with SystemErrorAs(NwfilterHookError, path), open(path, "rb") as file:
        return file.read()
