"""
What checks find.

Out: a `Finding` for each thing that is wrong, or that people should know.
"""

from __future__ import annotations

import enum

from ..base.dataclass import dataclass


class Level(enum.Enum):
    """WRONG: a guest isn't filtered as it should be, or the next one can't be. HINT: it may come to that."""

    WRONG = "wrong"
    HINT = "hint"


@dataclass(frozen=True)
class Finding:
    """
    One thing.

    Attributes:
        check: the check's name; "" until `examine.examine` has set it.
        finding: what there is, one sentence.
        why: why that matters.
        command: what mends it; "" if no command does, and then `why` says what to do.
    """

    level: Level
    finding: str
    why: str
    command: str
    check: str = ""


def wrong(finding: str, why: str, command: str) -> Finding:
    """Something is wrong."""
    return Finding(Level.WRONG, finding, why, command)


def hint(finding: str, why: str, command: str) -> Finding:
    """Something may go wrong."""
    return Finding(Level.HINT, finding, why, command)
