"""
What tells of changes to the kernel's rules, as every back end has it.

In:  nothing but what happens. Out: a `Commit` for each change, whoever made it.
"""

from __future__ import annotations

from .base.dataclass import dataclass


@dataclass(frozen=True)
class Commit:
    """
    A change that somebody has made to our tables, or a part of one.

    Attributes:
        generation: the number that the kernel gave it; 0 if it isn't through yet, or events were lost.
        process, thread: the name of who made it, and its thread id; "" and 0 as long as they aren't known.
        taps: whose rules are touched.
        shared: what all taps share is.
        everything: it can't be told.
    """

    generation: int
    process: str
    thread: int
    taps: frozenset[str]
    shared: bool
    everything: bool

    @property
    def touches(self) -> bool:
        """Whether anything of ours is touched."""
        return bool(self.taps) or self.shared or self.everything


class Monitor:
    """Tells of changes to the kernel's rules, whoever makes them."""

    def fileno(self) -> int:
        """For select and its like: there is something to read."""
        raise NotImplementedError

    def read(self) -> list[Commit]:
        """Every change since the last time, also of what isn't ours; waits for none. Raises NftError."""
        raise NotImplementedError

    def close(self) -> None:
        """It tells nothing any more."""
        raise NotImplementedError
