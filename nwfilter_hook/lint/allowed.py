"""
Findings that a filter's author knows of: <!-- nwfilter-hook: allow NWF101 NWF110 -->

In:  the filters of a tree, with their comments.
Out: whether a finding is one of those. A comment in a rule, or just before it, is about the rule; one before <filter>
     or behind the last rule is about the file. It counts where the finding stands, where the rule stands that wins, and
     in the filter that is judged. Behind the codes there may be a reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from ..base.errors import Source
from ..filters.model import Filter
from .findings import Finding

_CODE = "[A-Z]+[0-9]+"
_ALLOW = re.compile(rf"\s*nwfilter-hook:\s*allow\s+({_CODE}(?:[\s,]+{_CODE})*)")


class Allowed:
    """What comments allow."""

    def __init__(self, filters: Mapping[str, Filter], entry: Filter) -> None:
        self._entry = entry.name
        self._at: dict[Source, set[str]] = {}
        self._files: dict[str, set[str]] = {}
        self.named: list[tuple[Filter, str]] = []
        for definition in filters.values():
            self._read(definition)

    def _read(self, definition: Filter) -> None:
        last = len(definition.entries)
        files = self._files.setdefault(definition.name, set())
        for position, text in definition.comments:
            codes = set(_codes([text]))
            self.named += [(definition, code) for code in sorted(codes)]
            if 0 <= position < last:
                self._at.setdefault(definition.entries[position].source, set()).update(codes)
            else:
                files |= codes
        for entry in definition.entries:
            codes = set(_codes(entry.comments))
            self.named += [(definition, code) for code in sorted(codes)]
            self._at.setdefault(entry.source, set()).update(codes)

    def __call__(self, finding: Finding) -> bool:
        """Whether it isn't to be told."""
        places = [finding.source] + ([finding.wins] if finding.wins else [])
        files = {finding.filter, finding.wins_filter, self._entry}
        return any(finding.code in self._at.get(place, ()) for place in places) or any(
            finding.code in self._files.get(name, ()) for name in files
        )


def _codes(comments: Iterable[str]) -> Iterator[str]:
    for comment in comments:
        for line in comment.splitlines():
            found = _ALLOW.match(line)
            if found:
                yield from re.findall(_CODE, found[1])
