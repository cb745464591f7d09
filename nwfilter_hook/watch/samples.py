"""
Taps that stand for all: between them they have something in every map that any tap has something in, so whatever all
taps share, base chains and the like, is missed by one of them.

In:  records.
Out: names of taps.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..host import Host
from ..storage.records import Binding


class Samples:
    """By map, a tap that has an element there; kept, since there are far more records than maps."""

    def __init__(self) -> None:
        self._by_map: dict[str, str] = {}

    def taps(self, host: Host) -> set[str]:
        """Those that stand for all now."""
        if not self._by_map or any(host.state.owner(tap) is None for tap in self._by_map.values()):
            self.cover(host, None)
        return set(self._by_map.values())

    def cover(self, host: Host, taps: Iterable[str] | None) -> None:
        """See that these taps have somebody to stand for them; without them, that all have."""
        if taps is None:
            self._by_map.clear()
            records = host.state.records()
        else:
            owners = {owner for owner in map(host.state.owner, taps) if owner}
            records = [record for record in map(host.state.read, owners) if record]
        for record in records:
            for binding in record.bindings:
                for name in _maps(host, binding):
                    self._by_map.setdefault(name, binding.tap)


def _maps(host: Host, binding: Binding) -> Iterable[str]:
    tracking = ("zones",) if host.backend.tracks(binding.installed) else ()
    return (*binding.installed.names("element"), *tracking)
