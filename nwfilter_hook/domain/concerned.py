"""
Whom a line is about, as far as the guest's XML tells: for the journal, never for a decision.

In:  the domain XML, whatever is wrong with it; a line that may name a tap.
Out: the guest's UUID, its taps and their filters, or those of that tap.
"""

from __future__ import annotations

from ..base.errors import NwfilterHookError
from ..base.said import Said
from .parse import parse_domain, parse_identity


def concerned(data: bytes, line: str) -> dict[str, tuple[str, ...]]:
    """UUID, taps and filters; what can't be told is left out."""
    found: dict[str, tuple[str, ...]] = {}
    try:
        found["uuid"] = (parse_identity(data, ""),)
        domain = parse_domain(data, "", tolerant=True)
    except (NwfilterHookError, MemoryError):
        return found
    tap = line.fields.get("tap", ()) if isinstance(line, Said) else ()
    interfaces = [each for each in domain.interfaces if each.reference and (not tap or each.tap in tap)]
    found["tap"] = tap or tuple(each.tap for each in interfaces if each.tap)
    found["filter"] = tuple(dict.fromkeys(each.reference.filter for each in interfaces if each.reference))
    return found
