"""Kernel and devices are as the records say."""

from __future__ import annotations

from collections.abc import Iterator

from ..findings import Finding, wrong
from ..patient import Patient


def examine(patient: Patient) -> Iterator[Finding]:
    """Wrong: each tap of which `verify` finds a difference."""
    for each in patient.differences:
        who = f"{each.guest}: {each.tap}" if each.guest else each.tap
        yield wrong(
            f"{who}: {'; '.join(each.texts)}",
            "its guest isn't held by the filter that it was given" if each.guest else "nobody knows what it may do",
            f"nwfilter-hook verify {each.tap if each.guest else ''} --repair".replace("  ", " "),
        )
