"""
The guard: what drops the frames of interfaces that nobody has decided about, and what a back end can do about it.
"""

from __future__ import annotations

from .base.dataclass import dataclass, replace


@dataclass(frozen=True)
class Guard:
    """
    What drops the frames of interfaces that nobody has decided about, in bridges.

    Attributes:
        mode: which it claims: "generated" (with names that libvirt makes), "taps", "bridges" (taps in `bridges`),
            "strict" (all ports of `bridges` but `trusted`).
        allow: names, or beginnings of names with a * behind, that it leaves alone.
        unfiltered: "accept" or "drop", of a guest's interface that names no filter.
        shield: known taps' rules mark what they have seen, for a `Shield` that drops what isn't marked.
        carried: every transaction brings it along. False while it is being put on or taken off.
        fingerprint: of what the kernel made of it; "" if it isn't known.
    """

    mode: str
    bridges: tuple[str, ...] = ()
    trusted: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    unfiltered: str = "accept"
    shield: bool = False
    carried: bool = True
    fingerprint: str = ""

    def is_as(self, other: Guard) -> bool:
        """Whether both do the same."""
        return replace(self, carried=True, fingerprint="") == replace(other, carried=True, fingerprint="")


@dataclass(frozen=True)
class Refused:
    """How many frames of one interface, which nobody had decided about, were dropped: sent by it, and to it."""

    sent: int = 0
    received: int = 0


class Shield:
    """Drops what the guard claims and no rules of a tap have seen, as long as this process lives and lets it."""

    @property
    def alive(self) -> bool:
        """Whether it is still there."""
        raise NotImplementedError

    def close(self) -> None:
        """It drops nothing any more."""
        raise NotImplementedError


class GuardBackend:
    """Every method asks the kernel and may raise NftError."""

    def check(self, guard: Guard) -> None:
        """Raises MissingFeature if this kernel lacks what its mode needs."""
        raise NotImplementedError

    def fingerprint(self) -> str:
        """A digest of what the kernel has of the guard; "" if that is nothing."""
        raise NotImplementedError

    def faults(self, guard: Guard) -> tuple[str, ...]:
        """A sentence for each thing of the guard that the kernel has otherwise, or hasn't."""
        raise NotImplementedError

    def raise_shield(self, guard: Guard) -> Shield:
        """Beside a guard that is on, whose taps all mark what they have seen."""
        raise NotImplementedError

    def refused(self) -> dict[str, Refused]:
        """What the guard has dropped, by interface."""
        raise NotImplementedError
