"""
What libvirt keeps in files: guests that run or are defined, hooks, filters and bindings of its own nwfilter driver.

In:  the directories that Debian's and all other known libvirts have.
Out: names, paths and bytes; a directory that isn't there holds nothing.

libvirt src/qemu/qemu_conf.c (status and configuration), src/conf/virnwfilterbindingobj.c, src/util/virhook.c
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

DEFINED = "/etc/libvirt/qemu"
HOOKS = "/etc/libvirt/hooks"
LAUNCHER = "50-nwfilter-hook"
NWFILTERS = "/etc/libvirt/nwfilter"
BINDINGS = "/run/libvirt/nwfilter-binding"
_LARGEST = 16 << 20
_MARK = b"nwfilter-hook"


def guests_in(directory: str) -> Iterator[tuple[str, str, bytes]]:
    """Name, path and domain XML of each guest in it. Raises OSError."""
    for path, data in _xml_files(directory):
        begin, end = data.find(b"<domain "), data.rfind(b"</domain>")
        whole = 0 <= begin < end  # what runs is wrapped in <domstatus>
        yield os.path.basename(path)[:-4], path, data[begin : end + len(b"</domain>")] if whole else data


def own_filters() -> dict[str, tuple[str, bytes]]:
    """By name, path and XML of the filters that libvirt's own driver knows. Raises OSError."""
    return {os.path.basename(path)[:-4]: (path, data) for path, data in _xml_files(NWFILTERS)}


def has_own_driver() -> bool:
    """Whether libvirt's own nwfilter driver is there: it has a directory of filters."""
    return os.path.isdir(NWFILTERS)


def bound_taps() -> frozenset[str]:
    """The devices that libvirt's own driver has bound to a filter. Raises OSError."""
    return frozenset(os.path.basename(path)[:-4] for path, _ in _xml_files(BINDINGS))


def hook_files() -> list[str]:
    """What libvirt starts for QEMU guests, executable or not, in its order. Raises OSError."""
    single, directory = f"{HOOKS}/qemu", f"{HOOKS}/qemu.d"
    found = [single] if os.path.lexists(single) else []
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        found += [os.path.join(directory, name) for name in sorted(os.listdir(directory))]
    return found


def read_script(path: str) -> bytes:
    """The first 256 KiB of a hook; b"" if it is no file. Raises OSError."""
    return _read(path, 1 << 18) if os.path.isfile(path) else b""


def is_ours(path: str) -> bool:
    """Whether the hook starts us. Raises OSError."""
    target = os.path.realpath(path)
    return os.path.basename(path) == LAUNCHER or _MARK in target.encode() or _MARK in read_script(path)


def _xml_files(directory: str) -> Iterator[tuple[str, bytes]]:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for name in sorted(os.listdir(directory)):
            path = os.path.join(directory, name)
            if name.endswith(".xml") and os.path.isfile(path):
                yield path, _read(path, _LARGEST)


def _read(path: str, most: int) -> bytes:
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        return file.read(most)
