"""
What not every kernel can do, and what the program that changes its rules is.

Out: `Capability`s, for people who ask why something is refused.
"""

from __future__ import annotations

from .base.dataclass import dataclass


@dataclass(frozen=True)
class Capability:
    """
    Something that not every kernel can do.

    Attributes:
        symbol, module: of the kernel's configuration; the module is "" if it is part of another.
        uses: which rules need it.
        there: whether this kernel has it.
    """

    name: str
    symbol: str
    module: str
    uses: str
    there: bool


class Survey:
    """What a back end knows of them. Both raise NftError: the program can't be asked."""

    def version(self) -> str:
        """Of the program that changes the kernel's rules: "1.0.6"; "" if it doesn't say."""
        raise NotImplementedError

    def capabilities(self) -> tuple[Capability, ...]:
        """All that not every kernel has, and whether this one has it."""
        raise NotImplementedError
