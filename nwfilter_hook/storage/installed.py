"""
Files outside of the package that libvirt, systemd and shells look for: compared, put into place, taken away.

In:  a `Placed`: path, content, mode.
Out: on disk whole, or as it was.
"""

from __future__ import annotations

import os

from ..base.dataclass import dataclass
from ..base.errors import NwfilterHookError, SystemErrorAs
from .textfile import write_textfile


@dataclass(frozen=True)
class Placed:
    """
    A file as it should be.

    Attributes:
        by: where it is written first, on the same file system; libvirt starts whatever it sees in its directory.
        marks: what a file there holds if it is ours, of whatever version; b"" if only the same content is.
        kept: people edit it: it is put there once, and stays.
    """

    path: str
    data: bytes
    by: str
    mode: int = 0o644
    marks: bytes = b""
    kept: bool = False


def content(path: str) -> bytes | None:
    """None without such a file; of what is no file nothing but that it is there. Raises NwfilterHookError."""
    try:
        with SystemErrorAs(NwfilterHookError, path):
            if not os.path.isfile(path) or os.path.islink(path):
                return b"" if os.path.lexists(path) else None
            with open(path, "rb") as file:
                return file.read()
    except FileNotFoundError:
        return None


def is_in_place(placed: Placed) -> bool:
    """Whether nothing has to be done. Raises NwfilterHookError."""
    found = content(placed.path)
    if found is None:
        return False
    return placed.kept or (found == placed.data and os.stat(placed.path).st_mode & 0o777 == placed.mode)


def put(placed: Placed) -> None:
    """Whole, or not at all. Raises NwfilterHookError."""
    with SystemErrorAs(NwfilterHookError, placed.path):
        for path in (placed.path, placed.by):
            os.makedirs(os.path.dirname(path), exist_ok=True)
    write_textfile(placed.by, placed.data)
    with SystemErrorAs(NwfilterHookError, placed.path):
        os.chmod(placed.by, placed.mode)
        os.replace(placed.by, placed.path)


def take_away(placed: Placed) -> None:
    """Raises NwfilterHookError."""
    with SystemErrorAs(NwfilterHookError, placed.path):
        os.unlink(placed.path)


def is_ours(placed: Placed) -> bool:
    """Whether the file there is this one, or another version of it. Raises NwfilterHookError."""
    found = content(placed.path)
    return found == placed.data or (found is not None and bool(placed.marks) and placed.marks in found)
