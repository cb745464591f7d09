"""
What the service tells others, and that there is only one.

    STATE_DIR/watch.lock      flock: held by the service; its process id
    STATE_DIR/watch.json      a `Watching`, written when something in it has changed
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Mapping
from typing import Any

from ..base.dataclass import as_dict, dataclass
from ..base.errors import StateError, SystemErrorAs

_LOCK, _FILE = "watch.lock", "watch.json"
_MAX = 1 << 20


@dataclass(frozen=True)
class Resynced:
    """All guests were looked at: when that ended (ISO 8601, UTC), how many, how long it took."""

    at: str
    guests: int
    failed: int
    ms: int


@dataclass(frozen=True)
class Drifted:
    """
    Something had been changed.

    Attributes:
        at: when it was seen.
        who: names and thread ids of who made it, as far as known.
        taps: that had something else than recorded; `what` says so of the first ones.
        ms: from seeing it to everything back; None if not everything is.
    """

    at: str
    who: tuple[str, ...]
    taps: int
    what: tuple[str, ...]
    ms: int | None


@dataclass(frozen=True)
class Watching:
    """
    The service.

    Attributes:
        running: told by the lock when this is read, not by what was written.
        libvirt: "connected", "none", or why there is no connection.
        refused: what can't be done for guests, by name and line; it is tried again.
        shield: it is up.
    """

    pid: int
    version: str
    since: str
    running: bool
    libvirt: str
    libvirt_since: str
    resynced: Resynced | None
    drifted: Drifted | None
    refused: tuple[str, ...]
    shield: bool = False


class OneService:
    """
    The lock, held until `release` or the end of the process.

    Raises:
        StateError: another service has it, or it can't be had.
    """

    def __init__(self, state_dir: str) -> None:
        self._path = os.path.join(state_dir, _LOCK)
        with SystemErrorAs(StateError, f"{self._path} can't be opened"):
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._descriptor = os.open(self._path, flags, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.read(self._descriptor, 20).decode("ascii", "replace").strip()
            os.close(self._descriptor)
            raise StateError(f"another nwfilter-hook watch runs already, process {pid}") from None
        with SystemErrorAs(StateError, f"{self._path} can't be written"):
            os.ftruncate(self._descriptor, 0)
            os.write(self._descriptor, f"{os.getpid()}\n".encode())

    def release(self) -> None:
        """Another one may run."""
        os.close(self._descriptor)


def write_watching(state_dir: str, watching: Watching) -> None:
    """Tell others, if that is possible."""
    path = os.path.join(state_dir, _FILE)
    temporary = f"{path}-"
    with contextlib.suppress(OSError):
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(temporary, flags, 0o600), "w", encoding="utf-8") as file:
            json.dump(as_dict(watching), file)
        os.replace(temporary, path)


def read_watching(state_dir: str) -> Watching | None:
    """What the service has told, running or not; None if there never was one since the host has started."""
    try:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with open(os.open(os.path.join(state_dir, _FILE), flags), encoding="utf-8") as file:
            found: Mapping[str, Any] = json.loads(file.read(_MAX))
        resynced, drifted = found["resynced"], found["drifted"]
        return Watching(
            **{
                **found,
                "running": _is_held(os.path.join(state_dir, _LOCK)),
                "resynced": Resynced(**resynced) if resynced else None,
                "drifted": Drifted(**{**drifted, "who": tuple(drifted["who"]), "what": tuple(drifted["what"])})
                if drifted
                else None,
                "refused": tuple(found["refused"]),
            }
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_held(path: str) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
