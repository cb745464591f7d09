"""
Ports of bridges that nobody claims: QEMU by hand, a VPN's tap, a guest whose event was lost. The guard drops their
frames, and the journal says so, once for each.

In:  that devices or the guard may have changed.
Out: a line for a port that is still unknown a few seconds later: what libvirt plugs is known by then.
"""

from __future__ import annotations

import time

from ..base.said import DEVICE, Said
from ..host import Host
from ..operations.guard import find_unknown
from .hosts import say

_PATIENCE_S = 5.0


class Strangers:
    """
    Asks the kernel only when something may be new.

    Args:
        verify_s: how often it asks though nothing told it to.
    """

    def __init__(self, verify_s: float) -> None:
        self._verify_s = verify_s
        self._due = 0.0
        self._said: set[tuple[str, str]] = set()

    def changed(self) -> None:
        """A device has come, gone or moved."""
        self._due = min(self._due, time.monotonic() + _PATIENCE_S)

    def follow(self, host: Host) -> None:
        """Say what is new, if it is time to. Raises NftError: the kernel can't be asked."""
        now = time.monotonic()
        guard = host.guard
        if now < self._due or guard is None or not guard.carried:
            return
        self._due = now + self._verify_s
        found = {(each.name, each.bridge) for each in find_unknown(host, guard, host.backend.taps()) if each.bridge}
        for name, bridge in sorted(found - self._said):
            text = f"{name} on {bridge}: nobody has decided about it: the guard drops its frames"
            say(Said(text, DEVICE, tap=name))
        self._said = found
