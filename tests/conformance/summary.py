"""What the conformance tests of this session have done, for the one line at the end."""

from __future__ import annotations

from nwfilter_hook.language import ELEMENTS
from tests.conformance.kernel import Tally

TALLIES: dict[str, Tally] = {}
"""By what was compared with what."""


def rows() -> frozenset[tuple[str, str]]:
    """Every row of the language's table: element and attribute."""
    return frozenset((element.name, attribute) for element in ELEMENTS.values() for attribute in element.attributes)


def line() -> str:
    """Rows covered, filters, frames, differences."""
    covered: set[tuple[str, str]] = set()
    for tally in TALLIES.values():
        covered |= tally.rows
    filters, frames, differences = (
        sum(numbers)
        for numbers in zip(*((each.filters, each.frames, len(each.differences)) for each in TALLIES.values()))
    )
    parts = ", ".join(f"{name} {tally.filters}/{tally.frames}" for name, tally in TALLIES.items())
    return (
        f"conformance: {len(covered & rows())} of {len(rows())} rows covered, {filters} filters, {frames} frames, "
        f"{differences} differences unexplained ({parts})"
    )
