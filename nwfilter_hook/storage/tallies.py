"""
What is counted over all hooks and commands since the host was started: for metrics, never for a decision.

    STATE_DIR/tallies.json    {"NAME": {"LABEL LABEL …": [count, sum, bucket, bucket, …]}}
    STATE_DIR/~tallies.json   half written by a process that was killed; the next event removes it
    STATE_DIR/tallies.lock    flock: held while it is read and written

Names and labels are from short lists, so the file is small for ever. Who can't have the lock at once, or can't write,
doesn't count: nobody waits for a number.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping

from ..base.dataclass import dataclass
from ..base.errors import StateError

BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
TRANSACTIONS, REFUSED, REPAIRED = "transactions", "refused", "repaired"
MAX_LABELS = 200
"""A name holds no more; the rest counts as "other"."""
_TRIES, _TRY_S = 20, 0.005
_MAX = 1 << 20


@dataclass(frozen=True)
class Tally:
    """
    Attributes:
        count: how often. sum: of what was measured.
        buckets: how many of them were at most `BUCKETS_S`, each, and those above.
    """

    count: int
    sum: float
    buckets: tuple[int, ...]


Labels = tuple[str, ...]


class Tallies:
    """The file; `path` is the state directory, which is there or isn't."""

    def __init__(self, path: str) -> None:
        self._path = path

    def add(self, name: str, *labels: str, count: int = 1, seconds: float | None = None) -> None:
        """Count, if that is possible."""
        with contextlib.suppress(OSError, ValueError, TypeError, StateError), self._locked():
            known = self._read()
            found = known.setdefault(name, {})
            key = " ".join(label.replace(" ", "-") or "-" for label in labels)
            if key not in found and len(found) >= MAX_LABELS:
                key = " ".join("other" for _ in labels)
            old = found.get(key, Tally(0, 0.0, (0,) * (len(BUCKETS_S) + 1)))
            buckets = list(old.buckets)
            if seconds is not None:
                buckets[next((at for at, most in enumerate(BUCKETS_S) if seconds <= most), len(BUCKETS_S))] += 1
            found[key] = Tally(old.count + count, old.sum + (seconds or 0.0), tuple(buckets))
            self._write(known)

    @contextlib.contextmanager
    def measured(self, name: str, label: str) -> Iterator[None]:
        """Count what is done in it, with its time, as done or failed."""
        began, result = time.monotonic(), "failed"
        try:
            yield
            result = "done"
        finally:
            self.add(name, label, result, seconds=time.monotonic() - began)

    def read(self) -> Mapping[str, Mapping[Labels, Tally]]:
        """By name and labels; {} if nothing was counted, or it can't be read."""
        with contextlib.suppress(OSError, ValueError, TypeError):
            return {
                name: {tuple(key.split()): each for key, each in found.items()} for name, found in self._read().items()
            }
        return {}

    def _read(self) -> dict[str, dict[str, Tally]]:
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            with open(os.open(os.path.join(self._path, "tallies.json"), flags), encoding="utf-8") as file:
                found = json.loads(file.read(_MAX))
            return {name: {key: _tally(each) for key, each in of_name.items()} for name, of_name in found.items()}
        except (FileNotFoundError, ValueError, TypeError, AttributeError):
            return {}

    def _write(self, known: Mapping[str, Mapping[str, Tally]]) -> None:
        path = os.path.join(self._path, "tallies.json")
        temporary = os.path.join(self._path, "~tallies.json")
        text = json.dumps(
            {
                name: {key: [each.count, each.sum, *each.buckets] for key, each in found.items()}
                for name, found in known.items()
            }
        )
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with open(os.open(temporary, flags, 0o600), "w", encoding="utf-8") as file:
                file.write(text)
            os.replace(temporary, path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with contextlib.suppress(FileExistsError):
            os.mkdir(self._path, 0o700)
        status = os.lstat(self._path)
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise StateError("others may write there")
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(os.path.join(self._path, "tallies.lock"), flags, 0o600)
        try:
            for tried in range(_TRIES):
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if tried == _TRIES - 1:
                        raise
                    time.sleep(_TRY_S)
            yield
        finally:
            os.close(descriptor)


def _tally(found: list[float]) -> Tally:
    count, sum_, *buckets = found
    if len(buckets) != len(BUCKETS_S) + 1:
        raise ValueError("other buckets")
    return Tally(int(count), float(sum_), tuple(map(int, buckets)))
