"""
What the kernel has of the guard.

In:  a `Guard`. Out: what `guards.py` says.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..base.digests import sha256
from ..guards import Guard, GuardBackend, Refused, Shield
from .features import Features
from .guard import FROM, RESERVED, RESERVED_HOOKS, SIDES, TO, needs_of_guard
from .names import BASE_CHAINS
from .netlink import read_chain, read_elements, read_rules, read_verdicts
from .process import Nft
from .shield import NftShield

_BASES = tuple(base for base in BASE_CHAINS if base.map in {side.map for side in SIDES})
_CHAINS = (
    *(("bridge", side.name) for side in SIDES),
    *(("bridge", base.name) for base in _BASES),
    *((table, RESERVED) for table in RESERVED_HOOKS),
)


class NftGuard(GuardBackend):
    """The guard in nftables."""

    def __init__(self, features: Features, nft: Nft) -> None:
        self._features = features
        self._nft = nft

    def check(self, guard: Guard) -> None:
        self._features.check(needs_of_guard(guard))

    def fingerprint(self) -> str:
        verdicts = _verdicts()
        if not any(verdicts.values()):
            return ""
        digest = sha256(repr(sorted(verdicts.items())).encode())
        for table, name in _CHAINS:
            rules = [(rule.comment, rule.program) for rule in read_rules(table, name)]
            digest.update(repr((table, name, sorted(read_chain(table, name).items()), rules)).encode())
        return digest.hexdigest()

    def faults(self, guard: Guard) -> tuple[str, ...]:
        found = tuple(_missing())
        if not found and self.fingerprint() != guard.fingerprint:
            made = "not those that were put there" if guard.fingerprint else "not known to be those that were put there"
            return (f"the rules in the kernel are {made}",)
        return found

    def raise_shield(self, guard: Guard) -> Shield:
        return NftShield(self._nft, guard)

    def refused(self) -> dict[str, Refused]:
        sent, received = (
            {element.text: element.packets or 0 for element in read_elements("bridge", name)} for name in (FROM, TO)
        )
        return {name: Refused(sent.get(name, 0), received.get(name, 0)) for name in sorted({*sent, *received})}


def bases_of_nobody() -> list[str]:
    """The base chains that are there for interfaces without rules alone."""
    rules = (set(read_verdicts(base.map).values()) - {"accept"} for base in _BASES)
    led = [any(not verdict.startswith("goto ") for verdict in verdicts) for verdicts in rules]
    return [base.name for base, used in zip(_BASES, led) if not used and read_chain("bridge", base.name)]


def _missing() -> Iterator[str]:
    verdicts = _verdicts()
    for side in SIDES:
        if verdicts[side.map] is None:
            yield f"map {side.map} has no element for interfaces that nobody has decided about"
        elif verdicts[side.map] != f"goto {side.name}":
            yield f"map {side.map} has '{verdicts[side.map]}' for interfaces that nobody has decided about"
    for table, name in _CHAINS:
        if not read_rules(table, name):
            yield f"chain {name} of table {table} is missing or empty"


def _verdicts() -> dict[str, str | None]:
    return {side.map: read_verdicts(side.map).get("") for side in SIDES}
