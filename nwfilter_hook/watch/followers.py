"""
Workers that look at guests, as the queue hands them out.

In:  the queue; libvirt, while there is a connection.
Out: each guest has what its XML asks for (operations/resync.py). Who can't be followed is tried again, later each time.

A guest of which nothing has changed since it was followed isn't gone through again. Drift in the kernel is another's
business (drift.py).
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable

from ..base.errors import LibvirtError, NwfilterHookError
from ..base.said import CHANGED, Said, about, worded
from ..libvirtd import Libvirt
from ..operations.resync import FAILED, OPERATION, REMOVED, Followed, Seen, follow, ways_past
from .hosts import Hosts, say
from .queue import Queue

WORKERS = 4
"""One guest that libvirt says nothing about holds one of them."""
NAMED = "name:"
"""What stands in the queue before a name, where no UUID is known."""
_RETRY_S = (0.2, 1.0, 5.0, 20.0)


class Followers:
    """
    The workers.

    Args:
        libvirt: gives the connection, None while there is none.
        lost: called when a connection turns out to be of no use.
        changed: called when `refused` may have changed.
    """

    def __init__(
        self,
        queue: Queue,
        libvirt: Callable[[], Libvirt | None],
        lost: Callable[[Libvirt], None],
        changed: Callable[[], None],
    ) -> None:
        self._queue = queue
        self._libvirt = libvirt
        self._lost = lost
        self._changed = changed
        self._seen: dict[str, Seen] = {}
        self._failures: dict[str, int] = {}
        self._stopping = threading.Event()
        self._said: dict[str, tuple[str, ...]] = {}
        self._looking = threading.Lock()
        self._passed: dict[str, list[str]] = {}
        self._threads = [threading.Thread(target=self._work, name=f"guests-{n}", daemon=True) for n in range(WORKERS)]

    def start(self) -> None:
        """From now on they work."""
        for thread in self._threads:
            thread.start()

    def stop(self, wait_s: float) -> None:
        """They end what they do and begin nothing, if that takes no longer."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(wait_s / WORKERS)

    def forget(self) -> None:
        """Go through every guest the next time, whether anything seems to have changed or not."""
        self._seen.clear()

    def _work(self) -> None:
        hosts = Hosts()
        while not self._stopping.is_set():
            uuid = self._queue.get(1.0)
            if uuid is not None:
                self._queue.done(uuid, failed=not self._look(hosts, uuid))
                if not len(self._queue) and self._looking.acquire(blocking=False):
                    self._look_around(hosts)
                    self._looking.release()

    def _look(self, hosts: Hosts, uuid: str) -> bool:
        """Whether the guest has what it should."""
        libvirt = self._libvirt()
        if libvirt is None:  # all guests are followed as soon as it is back
            return False
        try:
            if uuid.startswith(NAMED):
                return self._put(libvirt, uuid)
            found = follow(hosts.now(), libvirt, uuid, seen=self._seen.get(uuid))
        except LibvirtError:
            self._lost(libvirt)
            return False
        except NwfilterHookError as error:
            found = Followed(uuid, uuid, FAILED, str(error))
        except Exception as error:  # a bug, and this guest's trouble alone
            traceback.print_exc()
            found = Followed(uuid, uuid, FAILED, f"{type(error).__name__}: {error}")
        self._note(found)
        return found.outcome != FAILED

    def _put(self, libvirt: Libvirt, named: str) -> bool:
        """The guest whose name is all that is known."""
        uuid = libvirt.uuid_of(named[len(NAMED) :])
        if uuid is not None:
            self._queue.put(uuid)
        return True

    def _note(self, found: Followed) -> None:
        uuid, said = found.uuid, (*found.notes, *filter(None, [found.error]))
        if found.seen is None:
            self._seen.pop(uuid, None)
        else:
            self._seen[uuid] = found.seen
        for line in said:
            if line not in self._said.get(uuid, ()):  # it is tried again, and says the same
                say(about(worded(f"{found.guest}: {line}", line), guest=found.guest, uuid=uuid, operation=OPERATION))
        if found.outcome == REMOVED:
            say(Said(f"{found.guest}: doesn't run; its rules are removed", CHANGED, guest=found.guest, uuid=uuid))
        tries = self._failures.pop(uuid, 0)
        if found.outcome == FAILED:
            self._failures[uuid] = tries + 1
            if tries < len(_RETRY_S):  # then the slow poll does
                self._queue.put(uuid, _RETRY_S[tries])
        if self._said.pop(uuid, ()) != said or said:
            if said:
                self._said[uuid] = said
            self._changed()

    def _look_around(self, hosts: Hosts) -> None:
        """Ways past the filters of all guests, when there is nothing else to do: one look for all."""
        try:
            host = hosts.now()
            passed = ways_past(host)
            names = {record.uuid: record.guest for record in host.state.records()}
        except NwfilterHookError:  # the next look says it, or who needs it
            return
        for uuid, lines in passed.items():
            for line in lines:
                if line not in self._passed.get(uuid, ()):
                    said = worded(f"{names.get(uuid, uuid)}: {line}", line)
                    say(about(said, guest=names.get(uuid, ""), uuid=uuid, operation=OPERATION))
        if passed != self._passed:
            self._passed = passed
            self._changed()

    def refused(self) -> tuple[str, ...]:
        """What was said of guests when they were last looked at, if it wasn't that all is well."""
        found = [*sorted(self._said.items()), *sorted(self._passed.items())]
        return tuple(line for _, lines in found for line in lines)
