"""
One queue of guests: whatever has happened to one, it means "look at this guest", once.

In:  UUIDs, from any thread.
Out: UUIDs, to workers; no guest to two of them at a time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

Clock = Callable[[], float]


class Round:
    """Guests that are all to be looked at; `finished` is called, by a worker, when each has been."""

    def __init__(self, uuids: Iterable[str], finished: Callable[[Round], None]) -> None:
        self.waiting = set(uuids)
        self.guests = len(self.waiting)
        self.failed = 0
        self.began = time.monotonic()
        self.finished = finished


class Queue:
    """
    Guests to look at.

    Args:
        clock: seconds, that only ever rise.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._condition = threading.Condition()
        self._due: dict[str, float] = {}
        self._busy: set[str] = set()
        self._rounds: list[Round] = []

    def put(self, uuid: str, delay_s: float = 0.0) -> None:
        """Look at this guest, at the latest after so many seconds."""
        with self._condition:
            due = self._clock() + delay_s
            self._due[uuid] = min(due, self._due.get(uuid, due))
            self._condition.notify()

    def put_round(self, found: Round) -> None:
        """Look at all of these now."""
        uuids = list(found.waiting)
        if not uuids:
            found.finished(found)
            return
        with self._condition:
            self._rounds.append(found)
        for uuid in uuids:
            self.put(uuid)

    def get(self, wait_s: float) -> str | None:
        """The guest that is due first and nobody looks at, to be `done` with; None if none is in that time."""
        end = self._clock() + wait_s
        with self._condition:
            while True:
                now = self._clock()
                free = [(due, uuid) for uuid, due in self._due.items() if uuid not in self._busy]
                due, uuid = min(free, default=(end, ""))
                if uuid and due <= now:
                    del self._due[uuid]
                    self._busy.add(uuid)
                    return uuid
                if now >= end:
                    return None
                self._condition.wait(min(due, end) - now)

    def done(self, uuid: str, *, failed: bool = False) -> None:
        """What was to be done about this guest is, or can't be."""
        with self._condition:
            self._busy.discard(uuid)
            if failed or uuid not in self._due:
                for each in self._rounds:
                    each.failed += failed and uuid in each.waiting
                    each.waiting.discard(uuid)
            over = [each for each in self._rounds if not each.waiting]
            self._rounds = [each for each in self._rounds if each.waiting]
            self._condition.notify()
        for each in over:
            each.finished(each)

    def __len__(self) -> int:
        return len(self._due) + len(self._busy)
