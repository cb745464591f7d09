"""
One thread that hears what happens: changes of nf_tables, of links, and of libvirt's status files.

In:  two netlink sockets, a directory.
Out: hints, for drift.py and the queue; nothing is done here that could wait for anybody.

libvirt renames a new status file into place after every change of a running guest, also where no event tells of one: a
device updated, with another filter, parameter or bridge. Ten times a second we look whether the directory's time of
change is another. inotify would tell 50 ms earlier, but needs ctypes, can run out of watches, and loses its watch with
the directory; a stat() costs microseconds, and finds the directory whenever it is there. Files are told apart by inode
and time; they are hints, and nothing in them is read.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
import traceback
from collections.abc import Callable, Iterable

from ..base.errors import NftError
from ..base.said import FAILED, Said
from ..commits import Commit, Monitor
from ..network.links import DELLINK, LINK_GROUP, NEWLINK, Link, list_links, open_route, parse_link
from ..network.netlink import Message, Netlink, Overrun
from .hosts import Hosts, say

_LOOK_S = 0.1
_SETTLED_NS = 50_000_000
"""Two changes within a tick of the clock look like one: a directory changed so lately is looked at once more."""
_RETRY_S = 5.0
_FAMILY_BRIDGE = 7  # the same link, as its bridge sees it


class StatusFiles:
    """Which files of the directory are others than the last time."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._changed_at: int | None = None
        self._files: dict[str, tuple[int, int]] = {}

    def changed(self) -> list[str]:
        """Their names, without .xml, of those that are there."""
        try:
            changed_at = os.stat(self._path).st_mtime_ns
            if changed_at == self._changed_at:
                return []
            before, self._files = self._files, dict(self._list())
        except OSError:
            self._changed_at, self._files = None, {}
            return []
        self._changed_at = changed_at if time.time_ns() - changed_at > _SETTLED_NS else None
        return [name for name, seen in self._files.items() if before.get(name) != seen]

    def _list(self) -> Iterable[tuple[str, tuple[int, int]]]:
        with os.scandir(self._path) as entries:
            for entry in entries:
                if entry.name.endswith(".xml"):
                    with contextlib.suppress(OSError):
                        status = entry.stat()
                        yield entry.name[:-4], (status.st_ino, status.st_mtime_ns)


class Listener:
    """
    The thread.

    Args:
        committed, link_changed, lost: called with a commit; with names of links; when events were lost.
        come: called with links that have come or changed; `known` with those that were there before all.
        status_changed: called with names of guests whose status file is new; None: they aren't looked at.
    """

    def __init__(
        self,
        committed: Callable[[Commit], None],
        link_changed: Callable[[set[str]], None],
        lost: Callable[[], None],
        known: Callable[[Iterable[Link]], None],
        come: Callable[[Iterable[Link]], None],
        status_changed: Callable[[list[str]], None] | None,
        status_dir: str,
    ) -> None:
        self._committed = committed
        self._link_changed = link_changed
        self._lost = lost
        self._known = known
        self._come = come
        self._status_changed = status_changed
        self._files = StatusFiles(status_dir)
        self._links: dict[int, tuple[str, int]] = {}
        self._stopping = False
        self.listening = threading.Event()
        """From now on nothing that happens is missed."""
        self.alive_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="listener", daemon=True)

    def start(self) -> None:
        """From now on it listens."""
        self._files.changed()
        self._thread.start()

    def stop(self) -> None:
        """It says nothing any more."""
        self._stopping = True

    def _run(self) -> None:
        while not self._stopping:
            try:
                with contextlib.ExitStack() as stack:
                    monitor = Hosts().now().backend.monitor()
                    stack.callback(monitor.close)
                    route = stack.enter_context(open_route(LINK_GROUP))
                    self._relist()
                    if self.listening.is_set():
                        self._lost()
                    self.listening.set()
                    self._listen(monitor, route)
            except (OSError, NftError) as error:
                say(Said(f"the kernel can't be listened to, which is tried again in {_RETRY_S:g} s: {error}", FAILED))
            except Exception:  # a bug
                traceback.print_exc()
            if not self._stopping:
                time.sleep(_RETRY_S)

    def _listen(self, monitor: Monitor, route: Netlink) -> None:
        poll = select.poll()
        poll.register(monitor.fileno(), select.POLLIN)
        poll.register(route.fileno(), select.POLLIN)
        while not self._stopping:
            ready = {descriptor for descriptor, _ in poll.poll(_LOOK_S * 1000)}
            self.alive_at = time.monotonic()
            if monitor.fileno() in ready:
                for commit in monitor.read():
                    self._committed(commit)
            if route.fileno() in ready:
                self._read_links(route)
            if self._status_changed is not None:
                names = self._files.changed()
                if names:
                    self._status_changed(names)

    def _read_links(self, route: Netlink) -> None:
        changed: set[str] = set()
        try:
            for message in route.events():
                changed |= self._link(message)
        except Overrun:
            self._relist()
            self._lost()
        if changed:
            self._link_changed(changed)

    def _relist(self) -> None:
        with open_route() as route:
            links = list_links(route)
        self._links = {link.index: (link.name, link.master) for link in links}
        (self._come if self.listening.is_set() else self._known)(links)

    def _link(self, message: Message) -> set[str]:
        """The names of a link that came, went, moved or was renamed."""
        if message.type not in (NEWLINK, DELLINK) or message.payload[:1] == bytes([_FAMILY_BRIDGE]):
            return set()
        link = parse_link(message)
        before = self._links.pop(link.index, None)
        now = None
        if message.type == NEWLINK:
            self._come([link])
            now = self._links[link.index] = link.name, link.master
        return set() if before == now else {each[0] for each in (before, now) if each}
