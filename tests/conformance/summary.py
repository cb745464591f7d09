"""
What the conformance tests of this session have done, for the one line at the end.

Tests on Debian's stock kernel (tests/vm/test_conformance.py) may run in a VM, which tells no more than whether they
passed. So what each of them compares is said here, and it fails if it compares less.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from nwfilter_hook.filters.protocols import ELEMENTS
from tests.conformance.kernel import Tally

Rows = frozenset[tuple[str, str]]

TALLIES: dict[str, Tally] = {}
"""By what was compared with what."""


def rows() -> Rows:
    """Every row of the language's table: element and attribute."""
    return frozenset((element.name, attribute) for element in ELEMENTS.values() for attribute in element.attributes)


def counting_rows() -> Rows:
    """Those that count connections, which only the stock kernel does."""
    return frozenset(row for row in rows() if row[1] == "connlimit-above")


@dataclass(frozen=True)
class Claim:
    """What a test on the stock kernel compares at least, in each of its runs; `runs`: how many it has."""

    filters: int
    frames: int
    rows: Rows = frozenset()
    runs: int = 1

    def unmet(self, tally: Tally) -> list[str]:
        """What a run has done less than this."""
        found = []
        if tally.filters < self.filters:
            found.append(f"{tally.filters} filters, not {self.filters}")
        if tally.frames < self.frames:
            found.append(f"{tally.frames} frames, not {self.frames}")
        if not self.rows <= tally.rows:
            found.append(f"without {sorted(self.rows - tally.rows)}")
        return found


STOCK_KERNEL: Mapping[str, Claim] = {
    "test_stateless_filters_mean_the_same_to_the_stock_kernel": Claim(filters=10, frames=650, runs=2),
    "test_stateful_filters_mean_the_same_to_the_stock_kernel": Claim(filters=16, frames=1300, runs=6),
    "test_counting_filters_mean_the_same_to_the_stock_kernel": Claim(
        filters=18, frames=230, rows=counting_rows(), runs=2
    ),
}
"""By the name of the test in tests/vm/test_conformance.py."""


def line(passed: Collection[str] = ()) -> str:
    """
    Rows covered, filters, frames, differences.

    Args:
        passed: names of tests of STOCK_KERNEL that have passed, each as often as it did.
    """
    covered: set[tuple[str, str]] = set()
    parts = []
    filters = frames = differences = 0
    for name, tally in TALLIES.items():
        covered |= tally.rows
        filters += tally.filters
        frames += tally.frames
        differences += len(tally.differences)
        parts.append(f"{name} {tally.filters}/{tally.frames}")
    claims = [STOCK_KERNEL[name] for name in passed]
    if claims:
        own = sum(claim.filters for claim in claims), sum(claim.frames for claim in claims)
        covered.update(*(claim.rows for claim in claims))
        filters, frames = filters + own[0], frames + own[1]
        parts.append(f"stock kernel {own[0]}/{own[1]}")
    return (
        f"conformance: {len(covered & rows())} of {len(rows())} rows covered, {filters} filters, {frames} frames, "
        f"{differences} differences unexplained ({', '.join(parts)})"
    )
