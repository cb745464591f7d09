"""Kernel and devices are as the records say."""

from __future__ import annotations

from collections.abc import Iterator

from ..findings import Finding, wrong
from ..patient import Patient

_SHOWN = 2


def examine(patient: Patient) -> Iterator[Finding]:
    """Wrong: each tap of which `verify` finds a difference."""
    for each in patient.differences:
        who = f"{each.guest}: {each.tap}" if each.guest else each.tap
        rest = len(each.texts) - _SHOWN
        more = f"; and {rest} more, which verify names" if rest > 0 else ""
        yield wrong(
            f"{who}: {'; '.join(each.texts[:_SHOWN])}{more}",
            "its guest isn't held by the filter that it was given" if each.guest else "nobody knows what it may do",
            f"nwfilter-hook verify {each.tap if each.guest else ''} --repair".replace("  ", " "),
        )
