"""
The connection to libvirt: kept, and everything it says made a hint.

In:  a URI.
Out: guests to look at, in the queue; all of them at each new connection, since what happened before it was heard of by
     nobody.

Events tell of devices attached and detached, of guests that start and stop, of metadata. None tells of a device that
was updated: what does is in listener.py. The slow poll sees everything, late.
"""

from __future__ import annotations

import contextlib
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from ..base.errors import LibvirtError, NwfilterHookError
from ..base.said import SERVICE, WARNING, Said
from ..libvirtd import Libvirt, load_libvirt, open_libvirt
from ..operations.resync import guests_of
from .hosts import Hosts, say
from .queue import Queue, Round

_FIRST_S, _LAST_S = 0.05, 5.0
_KEEPALIVE = (5, 3)  # seconds between questions, how many may go unanswered
_EVENTS = ("LIFECYCLE", "DEVICE_ADDED", "DEVICE_REMOVED", "METADATA_CHANGE")


class LibvirtEvents:
    """
    One thread that keeps the connection, one that hears the events.

    Args:
        poll_s: how often all guests are looked at though nothing told of them.
        followed: called with each `Round` of all guests that is through.
        changed: called when `said` is another.
    """

    def __init__(
        self,
        uri: str,
        poll_s: float,
        queue: Queue,
        followed: Callable[[Round], None],
        changed: Callable[[], None],
    ) -> None:
        self._uri = uri
        self._poll_s = poll_s
        self._queue = queue
        self._followed = followed
        self._changed = changed
        self._module = load_libvirt("install python3-libvirt, or set [watch] uri = none in the configuration")
        self._attention = threading.Event()
        self.libvirt: Libvirt | None = None
        self.said = "not connected yet"
        """"connected", or why not."""
        self.tried = threading.Event()
        """There is a connection, or the first attempt at one has failed."""

    def start(self) -> None:
        """From now on there is a connection whenever there can be one."""
        self._module.virEventRegisterDefaultImpl()  # before any connection
        self._module.virEventAddTimeout(1000, lambda *_: None, None)  # without anything to do it would spin
        for name, work in (("libvirt-events", self._hear), ("libvirt", self._keep)):
            threading.Thread(target=work, name=name, daemon=True).start()

    def lost(self, libvirt: Libvirt) -> None:
        """This connection is of no use any more."""
        if self.libvirt is libvirt:
            self.libvirt = None
            self._attention.set()

    def look_at_all(self) -> None:
        """Look at every guest soon."""
        self._attention.set()

    def _hear(self) -> None:
        while True:
            try:
                self._module.virEventRunDefaultImpl()
            except Exception:  # of an event nobody may die
                traceback.print_exc()
                time.sleep(1)

    def _keep(self) -> None:
        wait_s = _FIRST_S
        while True:
            libvirt = None
            try:
                libvirt = self._connect()
                wait_s = _FIRST_S
                self._say("connected")
                self.tried.set()
                while self.libvirt is libvirt:
                    self._attention.wait(self._poll_s)
                    self._attention.clear()
                    if self.libvirt is libvirt:
                        self._put_all(libvirt)
                self._say("the connection was closed")
            except NwfilterHookError as error:
                self._say(str(error))
            except Exception as error:  # a bug
                traceback.print_exc()
                self._say(f"{type(error).__name__}: {error}")
            self.libvirt = None
            self.tried.set()
            if libvirt is not None:
                libvirt.close()
            time.sleep(wait_s)
            wait_s = min(2 * wait_s, _LAST_S)

    def _connect(self) -> Libvirt:
        libvirt = open_libvirt(self._uri)
        try:
            connection: Any = libvirt.connection
            connection.registerCloseCallback(lambda *_: self.lost(libvirt), None)
            with contextlib.suppress(self._module.libvirtError):  # older daemons, other transports
                connection.setKeepAlive(*_KEEPALIVE)
            for event in _EVENTS:
                number = getattr(self._module, f"VIR_DOMAIN_EVENT_ID_{event}")
                connection.domainEventRegisterAny(None, number, self._happened, None)
            self.libvirt = libvirt
            self._put_all(libvirt)  # after the events, so that nothing falls between
        except self._module.libvirtError as error:
            libvirt.close()
            raise LibvirtError(f"libvirt, {self._uri}: {error}", lost=True) from error
        except BaseException:
            libvirt.close()
            raise
        return libvirt

    def _put_all(self, libvirt: Libvirt) -> None:
        self._queue.put_round(Round(guests_of(Hosts().now(), libvirt), self._followed))

    def _happened(self, _: object, domain: Any, *__: object) -> None:
        self._queue.put(domain.UUIDString())

    def _say(self, said: str) -> None:
        if said != self.said:
            self.said = said
            text = said if said.startswith("libvirt") else f"libvirt, {self._uri}: {said}"
            say(Said(text, SERVICE if said == "connected" else WARNING))
            self._changed()
