"""
The shield, kept up as long as the guard asks for it: guards.py.

In:  the host, looked at from time to time. Out: whether it is up; a line for each change.
"""

from __future__ import annotations

from ..base.errors import NwfilterHookError
from ..base.said import FAILED, SERVICE, Said
from ..guards import Guard, Shield
from ..host import Host
from .hosts import say


class Shielding:
    """Only its own thread asks for anything but `up`."""

    def __init__(self) -> None:
        self._shield: Shield | None = None
        self._guard: Guard | None = None
        self._said = ""

    @property
    def up(self) -> bool:
        """Whether it is there."""
        return self._shield is not None and self._shield.alive

    def follow(self, host: Host) -> bool:
        """Put it up, or take it away, as the guard is now. Returns whether anything has changed."""
        before = self.up
        try:
            self._follow(host)
            self._said = ""
        except NwfilterHookError as error:
            if str(error) != self._said:  # it is tried again, and fails in the same way
                self._said = str(error)
                say(Said(f"the shield is down: {error}", FAILED))
        return self.up != before

    def end(self) -> None:
        """It goes, and the rules stay."""
        if self._shield is not None:
            self._shield.close()
            self._shield = None

    def _follow(self, host: Host) -> None:
        guard = host.guard
        if guard is None or not (guard.carried and guard.shield):
            if self.up:
                self.end()
                say(Said("the shield is down, as the guard has it", SERVICE))
            return
        if self.up and self._guard is not None and self._guard.is_as(guard):
            return
        if not all(_marks(host, guard)):  # it would be cut off
            raise NwfilterHookError("a tap has rules of before the guard was put on: nwfilter-hook guard on")
        self.end()
        self._shield, self._guard = host.backend.guard.raise_shield(guard), guard
        say(Said("the shield is up: what is flushed lets nothing pass", SERVICE))


def _marks(host: Host, guard: Guard) -> list[bool]:
    bindings = (binding for record in host.state.records() for binding in record.bindings)
    return [
        host.backend.known(binding.installed, binding.attachment, guard) == binding.installed for binding in bindings
    ]
