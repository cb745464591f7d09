"""
What `adopt` has taken over: libvirt's filters as they were, and a report of what was done.

    /etc/nwfilter-hook/adopted/lock            flock: held while one adopts or gives back
    /etc/nwfilter-hook/adopted/filters/*.xml   libvirt's filters before they became twins
    /etc/nwfilter-hook/adopted/report.json     a `Report`, written at every step

The directory is beside the configuration file: it outlives a reboot.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from typing import Any

from ..base.dataclass import as_dict, dataclass
from ..base.errors import StateError, SystemErrorAs
from ..base.names import filter_name_fault
from ..config import config_file

_MAX = 16 << 20


@dataclass(frozen=True)
class Report:
    """
    Attributes:
        at: when it was written last. state: "adopting", "adopted", "giving back", "given back".
        uri: of libvirt.
        brought: filters that were brought into the library.
        twins: libvirt's filters that are twins, or are about to be.
        direct: UUIDs of guests whose metadata were written.
        guests: names of guests that ran.
        notes: what was said: what libvirt ignored, verdicts that differ, what was left alone.
    """

    at: str
    state: str
    uri: str
    brought: tuple[str, ...] = ()
    twins: tuple[str, ...] = ()
    direct: tuple[str, ...] = ()
    guests: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def directory() -> str:
    """Where all of it is."""
    return os.path.join(os.path.dirname(config_file()), "adopted")


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """
    Nobody else adopts or gives back meanwhile.

    Raises:
        StateError: somebody does; or the directory can't be made.
    """
    path = directory()
    with SystemErrorAs(StateError, f"{path} can't be written"):
        os.makedirs(os.path.join(path, "filters"), mode=0o700, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(os.path.join(path, "lock"), flags, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StateError("another nwfilter-hook adopt or unadopt runs; wait for its end") from None
        yield
    finally:
        os.close(descriptor)


def read_report() -> Report | None:
    """None if nothing was ever adopted. Raises StateError: it can't be read."""
    path = os.path.join(directory(), "report.json")
    try:
        with open(path, encoding="utf-8") as file:
            found: dict[str, Any] = json.loads(file.read(_MAX))
        texts = [str(found[key]) for key in ("at", "state", "uri")]
        lists = [tuple(map(str, found[key])) for key in ("brought", "twins", "direct", "guests", "notes")]
        return Report(texts[0], texts[1], texts[2], *lists)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise StateError(f"{path} can't be read: {error}") from error


def write_report(report: Report) -> None:
    """Raises StateError."""
    _write(os.path.join(directory(), "report.json"), json.dumps(as_dict(report), indent=2) + "\n")


def originals() -> dict[str, str]:
    """libvirt's filters as they were, by name. Raises StateError."""
    path = os.path.join(directory(), "filters")
    found = {}
    with SystemErrorAs(StateError, f"{path} can't be read"):
        for name in sorted(os.listdir(path)) if os.path.isdir(path) else ():
            if name.endswith(".xml") and not filter_name_fault(name[:-4]):
                with open(os.path.join(path, name), encoding="utf-8") as file:
                    found[name[:-4]] = file.read(_MAX)
    return found


def keep_original(name: str, xml: str) -> None:
    """Raises StateError."""
    _write(os.path.join(directory(), "filters", f"{name}.xml"), xml)


def drop_original(name: str) -> None:
    """It was given back. Raises StateError."""
    with SystemErrorAs(StateError, f"the copy of {name} can't be removed"), contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(directory(), "filters", f"{name}.xml"))


def _write(path: str, text: str) -> None:
    temporary = f"{path}~"
    with SystemErrorAs(StateError, f"{path} can't be written"):
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(temporary, flags, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
