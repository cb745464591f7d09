"""
The shield: a table that nobody but its owner can flush or delete, which drops what no rules of a tap have seen.

In:  a `Guard` whose taps all mark (guard.py).
Out: `bridge nwfilter-shield`, as long as this process lives (owned.py).

A packet that a tap's chains have seen has a bit of its mark set; here it is cleared again. After `nft flush ruleset` no
chain marks, and the shield drops everything of the interfaces that the guard claims until all is put back.
"""

from __future__ import annotations

from ..guards import Guard, Shield
from .guard import shield_rules
from .owned import OwnedTables
from .process import Nft

SHIELD_TABLE = "nwfilter-shield"


class NftShield(Shield):
    """
    See the module.

    Raises:
        NftError: it isn't there within a moment.
    """

    def __init__(self, nft: Nft, guard: Guard) -> None:
        self._owned = OwnedTables(nft, script(guard), [("bridge", SHIELD_TABLE)], "the shield")

    @property
    def alive(self) -> bool:
        return self._owned.alive

    def close(self) -> None:
        self._owned.close()


def script(guard: Guard) -> str:
    """One transaction, in one line."""
    parts = [f"add table bridge {SHIELD_TABLE} {{ flags owner; }}"]
    for name, hook, rules in shield_rules(guard):
        parts.append(f"add chain bridge {SHIELD_TABLE} {name} {hook}")
        parts += (f"add rule bridge {SHIELD_TABLE} {name} {rule}" for rule in rules)
    return "; ".join(parts)
