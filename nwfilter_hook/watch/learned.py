"""
What taps have learned, remembered: a flushed ruleset has forgotten it, and no event tells what was learned.

In:  a `Host`, now and then.
Out: after a flush, each tap has learned again what it had learned before.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Iterable

from ..base.errors import NwfilterHookError
from ..base.said import LEARNED, WARNING, Said
from ..host import Host
from ..operations.bindings import all_bindings
from ..operations.learned import teach
from ..storage.records import Binding
from .hosts import say

_EVERY_S = 10.0


class Learned:
    """
    By tap, what it had learned when that was looked at last, and which device of which guest it was.

    Attributes:
        due: when to look again.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[str, int | None, tuple[str, ...]]] = {}
        self._records: float | None = None
        self._learning: list[tuple[str, Binding]] = []
        self.due = 0.0

    def note(self, host: Host) -> None:
        """Look, if it is time for it. Raises NftError."""
        if time.monotonic() < self.due:
            return
        self.due = time.monotonic() + _EVERY_S
        records = host.state.written_s()
        if records != self._records:  # else there are the same as before
            self._learning = [
                (record.uuid, binding)
                for record, binding in all_bindings(host)
                if host.backend.learnable(binding.installed)
            ]
            self._records = records
        seen = host.backend.look([each.installed for _, each in self._learning]) if self._learning else {}
        self._known = {
            each.tap: (uuid, each.index, _addresses(one.address for one in seen[each.tap].learned))
            for uuid, each in self._learning
        }

    def give_back(self, host: Host, taps: Iterable[str]) -> None:
        """Taps that were put back and know nothing any more get what they knew. Raises NftError."""
        wanted = {}
        for record, binding in all_bindings(host):
            uuid, index, addresses = self._known.get(binding.tap, ("", None, ()))
            if binding.tap in taps and addresses and (uuid, index) == (record.uuid, binding.index):
                wanted[binding.tap] = binding.installed, addresses
        seen = host.backend.look([installed for installed, _ in wanted.values()]) if wanted else {}
        for tap, one in seen.items():
            if not one.learned:
                addresses = wanted[tap][1]
                try:
                    teach(host, tap, addresses)
                    say(
                        Said(
                            f"{tap}: what it had learned it has learned again: {' '.join(addresses)}", LEARNED, tap=tap
                        )
                    )
                except NwfilterHookError as error:
                    say(Said(f"{tap}: what it had learned is lost: {error}", WARNING, tap=tap))


def _addresses(texts: Iterable[str]) -> tuple[str, ...]:
    """Those of IP."""
    found = []
    for text in texts:
        try:
            found.append(str(ipaddress.ip_address(text)))
        except ValueError:
            continue  # a MAC
    return tuple(found)
