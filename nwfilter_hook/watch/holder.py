"""
Closes devices that no guard in a bridge sees, as soon as the kernel tells of them: operations/held.py.

In:  links that have come or changed (listener.py).
Out: those that nobody has decided about let nothing through; each is said once. Libvirt's event, and what follows from
     it (followers.py), opens them.

A tap that goes into a bridge is in none when it is made, and is raised when it is in: so a tap counts from when it is
up. A macvtap counts from the first: libvirt raises it when QEMU has it. What is there when the service begins is left
alone: its guest may run, and libvirt hasn't been asked yet.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Iterable

from ..base.errors import NwfilterHookError
from ..base.said import DEVICE, FAILED, Said
from ..network.links import Link
from ..operations.held import hold, hold_ahead
from .hosts import Hosts, say

_IFF_UP = 1
_KINDS = ("tun", "macvtap")
_RETRY_S = (0.05, 1.0, 5.0, 20.0)


class Holder:
    """One thread that closes them."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._seen: set[int] = set()
        self._names: set[str] = set()
        self._last = ""
        self._wanted = True  # what is to come, at the start
        self._stopping = False
        self._fault = ""
        self._thread = threading.Thread(target=self._work, name="holder", daemon=True)

    def start(self) -> None:
        """From now on it works."""
        self._thread.start()

    def stop(self, wait_s: float) -> None:
        """It ends what it does and begins nothing, if that takes no longer."""
        with self._condition:
            self._stopping = True
            self._condition.notify_all()
        self._thread.join(wait_s)

    def known(self, links: Iterable[Link]) -> None:
        """They were there before."""
        self._seen.update(link.index for link in links)

    def come(self, links: Iterable[Link]) -> None:
        """They are there."""
        new = [link for link in links if link.index not in self._seen and _counts(link)]
        if new:
            self._seen.update(link.index for link in new)
            with self._condition:
                self._names.update(link.name for link in new)
                self._last = next((link.name for link in reversed(new) if link.kind == "macvtap"), self._last)
                self._wanted = True
                self._condition.notify_all()

    def _work(self) -> None:
        hosts = Hosts()
        failures = 0
        while True:
            with self._condition:
                while not (self._wanted or self._stopping):
                    self._condition.wait()
                if self._stopping:
                    return
                names, self._names, self._wanted = self._names, set(), False
            fault = self._close(hosts, names)
            if not fault:
                failures, self._fault = 0, ""
                continue
            if fault != self._fault:
                say(Said(f"a device of nobody's can't be closed, which is tried again: {fault}", FAILED))
            self._fault = fault
            with self._condition:
                self._condition.wait(_RETRY_S[min(failures, len(_RETRY_S) - 1)])
                self._names |= names
                self._wanted = True
            failures += 1

    def _close(self, hosts: Hosts, names: set[str]) -> str:
        """What went wrong; "" if nothing did."""
        try:
            host = hosts.now()
            for name in hold(host, sorted(names)):
                say(Said(f"{name}: nobody has decided about it: nothing passes until then", DEVICE, tap=name))
            hold_ahead(host, self._last)
        except NwfilterHookError as error:
            return str(error)
        except Exception as error:  # a bug
            traceback.print_exc()
            return f"{type(error).__name__}: {error}"
        return ""


def _counts(link: Link) -> bool:
    return link.kind in _KINDS and (link.kind == "macvtap" or bool(link.flags & _IFF_UP))
