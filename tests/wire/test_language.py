"""Every attribute of every element against real frames: one that it is about, and one that differs in just that."""

from __future__ import annotations

import pytest

from tests.support.language import rows
from tests.support.netns import Wire
from tests.unit.compiling import compiled_rule, script

pytestmark = pytest.mark.netns

ROWS = [row for row in rows() if row.matches or row.attribute == "match"]


@pytest.mark.parametrize("element", sorted({row.protocol for row in ROWS}))
def test_every_attribute(wire: Wire, element: str) -> None:
    """A rule drops the frame of each row, and not the one that differs; with match='no' it is the other way round."""
    found = []
    for row in (row for row in ROWS if row.protocol == element):
        frames = row.frames()
        wire.apply("flush ruleset\n")
        found.append((str(row), "none", [wire.passes(frame) for frame in frames] == [True, True]))
        for negated in (False,) if row.sign else (False, True):
            wire.apply(f"flush ruleset\n{script(compiled_rule(row.xml(negated=negated)))}")
            matches_all = row.attribute == "match" and not row.differs
            expected = [negated, not negated and not matches_all]
            found.append((str(row), row.xml(negated=negated), [wire.passes(frame) for frame in frames] == expected))
    assert [each for each in found if not each[-1]] == []
