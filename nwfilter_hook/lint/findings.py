"""
What a check says.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Callable

from ..base.dataclass import dataclass
from ..base.errors import Source
from .tree import Tree


@dataclass(frozen=True)
class Finding:
    """
    One thing that is probably not meant.

    Attributes:
        message: one line, without place and code.
        filter: whose line it is.
        wins: the rule that decides instead, if one does; of the filter `wins_filter`.
    """

    code: str
    message: str
    filter: str
    source: Source
    wins: Source | None = None
    wins_filter: str = ""

    @property
    def line(self) -> str:
        """As people read it."""
        return f"{self.source}: {self.code} {self.message}"


@dataclass(frozen=True)
class Check:
    """
    One check.

    Attributes:
        title: a line.
        text: why it matters and what to do, for people: a paragraph.
        find: may rely on nothing but the tree, and be run for several values of unbound variables.
    """

    code: str
    title: str
    text: str
    find: Callable[[Tree], Iterable[Finding]]
