"""
What we know of running guests: the only module that writes under /run.

    STATE_DIR/                    0700, ours
        lock                      flock: one transaction at a time, held until its record is written
        capabilities.json, seen   what kernel and nft can do; what is known to be in force: seen.py
        guard, configuration      how it is on, and the text of the last good one: guard.py, configuration.py
        domains/UUID.json         what is in the kernel for a guest
        domains/UUID.pending      the same, while a transaction runs; renamed to UUID.json when nft has accepted
        domains/update.journal    a change of filters is under way; names the new text of the filter file
        domains/*.leftover        of guests that stopped while nft failed; removed at the next event
        taps/TAP                  UUID of the guest that a tap's chains belong to
        */~NAME                   half written by a process that was killed; the next event removes it
        unreadable/               records that can't be read, moved aside

A process killed between two steps leaves UUID.pending: what may be in the kernel beside what UUID.json says. Every
later event of the guest takes both into account, so nothing is lost.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping

from ..base.addresses import is_tap_name
from ..base.errors import StateError, SystemErrorAs
from ..base.said import STATE, Said
from .lock import take_lock
from .records import Record, from_json, to_json
from .strict import UUID
from .tallies import Tallies

LOCK_WAIT_S = 60.0
_MAX_RECORD = 4 * 1024 * 1024
_READING = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class State:
    """
    The state directory.

    Args:
        path: absolute; made if it isn't there.
        report: called with one line for each thing that was found wrong and worked around.
        readonly: True to look only: nothing is moved aside or written.
    """

    def __init__(self, path: str, report: Callable[[str], None], *, readonly: bool = False) -> None:
        self.path = path
        self._report = report
        self._readonly = readonly
        self._lock_descriptors: tuple[int, ...] = ()
        self._domains = os.path.join(path, "domains")
        self._taps = os.path.join(path, "taps")
        self._journal = os.path.join(self._domains, "update.journal")
        self.tallies = Tallies(path)

    @contextlib.contextmanager
    def locked(self, wait_s: float = LOCK_WAIT_S) -> Iterator[None]:
        """
        Hold the lock; directories are there and ours inside.

        Raises:
            StateError: the directory can't be made or belongs to someone else, or the lock isn't free in time.
        """
        for directory in (self.path, self._domains, self._taps):
            _own_directory(directory)
        path = os.path.join(self.path, "lock")
        with SystemErrorAs(StateError, f"{path} can't be opened"):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            take_lock(descriptor, path, wait_s)
            self._lock_descriptors = (descriptor,)
            yield
        finally:
            self._lock_descriptors = ()
            os.close(descriptor)

    def lock_descriptors(self) -> tuple[int, ...]:
        """The lock's descriptor while it is held; a process that inherits it holds the lock too."""
        return self._lock_descriptors

    # --- records ------------------------------------------------------------------------------------------------------

    def read(self, uuid: str) -> Record | None:
        """The guest's record, or None. One that can't be read is moved aside and reported."""
        return self._read(f"{uuid}.json")

    def read_pending(self, uuid: str) -> Record | None:
        """What a transaction that was cut off may have left, or None."""
        return self._read(f"{uuid}.pending")

    def stamp(self, uuid: str) -> tuple[int, ...]:
        """Another as soon as somebody has written or removed what is known of the guest."""
        found: list[int] = []
        for suffix in ("json", "pending"):
            with contextlib.suppress(OSError):
                status = os.stat(os.path.join(self._domains, f"{uuid}.{suffix}"))
                found += (status.st_ino, status.st_mtime_ns, status.st_size)
        return tuple(found)

    def written_s(self, uuid: str = "") -> float:
        """When the guest's record was written, or any was or went, since the epoch; 0 if there is none."""
        try:
            return os.stat(os.path.join(self._domains, f"{uuid}.json" if uuid else "")).st_mtime
        except OSError:
            return 0.0

    def records(self) -> list[Record]:
        """Every guest's record, by guest name."""
        found = [self._read(name) for name in self._list() if name.endswith(".json")]
        return sorted((record for record in found if record), key=lambda record: (record.guest, record.uuid))

    def read_everything(self, uuid: str) -> list[Record]:
        """All that may be in the kernel of the guest: its record, a cut-off transaction, what a failed stop left."""
        suffixes = (".json", ".pending", ".json.leftover", ".pending.leftover")
        return [record for suffix in suffixes if (record := self._read(f"{uuid}{suffix}"))]

    def write_pending(self, record: Record) -> None:
        """Say what is about to be in the kernel. Raises StateError (then nothing may be done)."""
        text = to_json(record)
        if len(text) > _MAX_RECORD:
            limit = f"{_MAX_RECORD >> 20} MiB"
            raise StateError(f"the record of {record.guest} would be larger than {limit}: too many rules")
        self._write(os.path.join(self._domains, f"{record.uuid}.pending"), text)

    def commit(self, uuid: str, final: Record | None = None) -> None:
        """
        The pending record was applied.

        Args:
            final: what to write in its place; without it, or where that can't be written, it is only renamed.
        """
        if final is not None:
            with contextlib.suppress(StateError):
                self.write_pending(final)
        self._replace(f"{uuid}.pending", f"{uuid}.json")

    def drop_pending(self, uuid: str) -> None:
        """The pending record has not come true: nothing has changed."""
        _unlink(os.path.join(self._domains, f"{uuid}.pending"))

    def delete(self, uuid: str) -> None:
        """Forget the guest."""
        for suffix in ("json", "pending"):
            _unlink(os.path.join(self._domains, f"{uuid}.{suffix}"))

    def set_leftover(self, uuid: str) -> None:
        """The guest is gone, but what it has in the kernel could not be removed."""
        for suffix in ("json", "pending"):
            if os.path.exists(os.path.join(self._domains, f"{uuid}.{suffix}")):
                self._replace(f"{uuid}.{suffix}", f"{uuid}.{suffix}.leftover")

    def leftovers(self) -> list[tuple[str, Record | None]]:
        """(name, record) of each guest that is to be cleaned up after; None if its record could not be read."""
        return [(name, self._read(name)) for name in self._list() if name.endswith(".leftover")]

    def delete_leftover(self, name: str) -> None:
        """It has been cleaned up after."""
        _unlink(os.path.join(self._domains, name))

    # --- updates of filters -------------------------------------------------------------------------------------------

    def read_journal(self) -> str | None:
        """The path of the new text of a filter file whose update has begun and not ended; None if there is none."""
        try:
            with open(self._journal, encoding="utf-8") as file:
                return file.read(4096)
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise StateError(f"{self._journal} can't be read: {error}") from error

    def write_journal(self, temporary: str) -> None:
        """Raises StateError."""
        self._write(self._journal, temporary)

    def delete_journal(self) -> None:
        """The update has ended."""
        _unlink(self._journal)

    def drop_temporaries(self) -> None:
        """Remove what a process that was killed had half-written; the lock is held."""
        for directory in (self.path, self._domains, self._taps):
            with contextlib.suppress(FileNotFoundError):
                for name in os.listdir(directory):
                    if name.startswith("~"):
                        _unlink(os.path.join(directory, name))

    # --- taps ---------------------------------------------------------------------------------------------------------

    def owner(self, tap: str) -> str | None:
        """UUID of the guest that `tap`'s chains belong to."""
        if not is_tap_name(tap):
            return None
        try:
            with open(os.open(os.path.join(self._taps, tap), _READING), "rb") as file:
                regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
                text = file.read(64).decode("ascii").strip() if regular else ""
        except (OSError, UnicodeDecodeError):
            return None
        return text if UUID.fullmatch(text) else None

    def taps(self) -> list[str]:
        """The taps whose chains belong to guests."""
        with contextlib.suppress(OSError):
            return sorted(name for name in os.listdir(self._taps) if is_tap_name(name))
        return []

    def taps_of(self, uuid: str) -> list[str]:
        """The taps whose chains belong to the guest."""
        return [name for name in self.taps() if self.owner(name) == uuid]

    def set_owner(self, tap: str, uuid: str) -> None:
        """Raises StateError."""
        if self.owner(tap) != uuid:
            self._write(os.path.join(self._taps, tap), uuid)

    def clear_owner(self, tap: str) -> None:
        """`tap` has no chains any more."""
        _unlink(os.path.join(self._taps, tap))

    def read_capabilities(self) -> dict[str, object]:
        """What was found out before; {} if nothing was, or it can't be read."""
        try:
            with open(os.open(os.path.join(self.path, "capabilities.json"), _READING), encoding="utf-8") as file:
                found = json.load(file)
            return found if isinstance(found, dict) and self._is_ours() else {}
        except (OSError, ValueError):
            return {}

    def write_capabilities(self, capabilities: Mapping[str, object]) -> None:
        """Remember, if that is possible; else it is found out again next time."""
        with contextlib.suppress(StateError):
            if not self._readonly and self._is_ours():
                self._write(os.path.join(self.path, "capabilities.json"), json.dumps(capabilities))

    def write(self, name: str, text: str | None) -> None:
        """Write a file beside the records, or without text remove it; the lock is held. Raises StateError."""
        path = os.path.join(self.path, name)
        _unlink(path) if text is None else self._write(path, text)

    def keep_configuration(self, text: str | None) -> None:
        """Keep the text of a configuration that was good, if that is possible; storage.configuration reads it."""
        path = os.path.join(self.path, "configuration")
        with contextlib.suppress(StateError, OSError, UnicodeDecodeError):
            if text is not None and not (os.path.exists(path) and _text(path) == text):
                self._write(path, text)

    def _is_ours(self) -> bool:
        """Whether the directory is there and nobody else may write to it."""
        try:
            status = os.lstat(self.path)
        except OSError:
            return False
        return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022

    # --- files --------------------------------------------------------------------------------------------------------

    def _list(self) -> list[str]:
        with SystemErrorAs(StateError, f"{self._domains} can't be read"), contextlib.suppress(FileNotFoundError):
            return sorted(os.listdir(self._domains))
        return []

    def _read(self, name: str) -> Record | None:
        path = os.path.join(self._domains, name)
        try:
            descriptor = os.open(path, _READING)
        except FileNotFoundError:
            return None
        except OSError as error:
            reason = "it is a symbolic link" if error.errno == errno.ELOOP else str(error.strerror)
            return self._move_aside(path, reason)
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            return self._move_aside(path, "it is not a file")
        with open(descriptor, "rb") as file:
            if status.st_uid != os.geteuid():
                return self._move_aside(path, f"it belongs to user {status.st_uid}")
            try:
                record = from_json(file.read(_MAX_RECORD))
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                return self._move_aside(path, f"it can't be read: {type(error).__name__}: {error}")
        if not name.startswith(f"{record.uuid}."):
            return self._move_aside(path, f"it is of another guest, {record.uuid}")
        return record

    def _move_aside(self, path: str, reason: str) -> Record | None:
        """Always None: there is no record to trust."""
        if self._readonly:
            self._report(Said(f"{path}: {reason}", STATE))
            return None
        directory = os.path.join(self.path, "unreadable")
        kept = os.path.join(directory, f"{os.path.basename(path)}.{time.time_ns()}")
        try:
            _own_directory(directory)
            os.rename(path, kept)
            self._report(Said(f"{path}: {reason}; moved to {kept}", STATE))
        except (OSError, StateError) as error:
            self._report(Said(f"{path}: {reason}; it can't be moved aside: {error}", STATE))
        return None

    def _replace(self, old: str, new: str) -> None:
        with SystemErrorAs(StateError, f"{self._domains}/{old} can't be renamed"):
            os.replace(os.path.join(self._domains, old), os.path.join(self._domains, new))

    def _write(self, path: str, text: str) -> None:
        # one writer at a time: the lock is held; no tap's name and no UUID begins so
        temporary = os.path.join(os.path.dirname(path), f"~{os.path.basename(path)}")
        try:
            with SystemErrorAs(StateError, f"{path} can't be written"):
                _unlink(temporary)
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                with open(os.open(temporary, flags, 0o600), "w", encoding="utf-8") as file:
                    file.write(text)
                os.replace(temporary, path)
        except StateError:
            with contextlib.suppress(StateError):
                _unlink(temporary)
            raise


def _text(path: str) -> str:
    with open(path, encoding="utf-8", newline="") as file:
        return file.read()


def _own_directory(path: str) -> None:
    with SystemErrorAs(StateError, f"state directory {path}"):
        with contextlib.suppress(FileExistsError):
            os.makedirs(path, mode=0o700)
        status = os.lstat(path)
        if not stat.S_ISDIR(status.st_mode):
            raise StateError(f"{path} is not a directory; move it away")
        if status.st_uid != os.geteuid():
            raise StateError(f"{path} belongs to user {status.st_uid}, not to us; move it away")
        if stat.S_IMODE(status.st_mode) != 0o700:
            os.chmod(path, 0o700)


def _unlink(path: str) -> None:
    with SystemErrorAs(StateError, f"{path} can't be removed"), contextlib.suppress(FileNotFoundError):
        os.unlink(path)
