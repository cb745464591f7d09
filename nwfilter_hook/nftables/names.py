"""
What one tap has in the kernel, by exact name.

    from/TAP  to/TAP          chains of layer 2, what the guest sends and gets; from/TAP/CHAIN its sub-chains
    from-l3/TAP  to-l3/TAP    of layer 3
    learned/TAP …             its sets (render_sets)

A tap's name holds no "/", so a name belongs to one tap or to none.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..base.dataclass import dataclass
from ..ruleset.model import Purpose, Ruleset, Tree
from .sets import encode, names_of

_TREES = {tree.value: tree for tree in Tree}


@dataclass(frozen=True)
class Objects:
    """
    What one tap has in the kernel, by exact name.

    Attributes:
        family: "bridge" or "netdev".
        chains: "from/vnet0", "from/vnet0/arp-mac" …; roots have an element in their tree's map (bridge).
        sets: those of the tap (not the administrator's).
    """

    tap: str
    family: str
    chains: tuple[str, ...]
    sets: tuple[str, ...]

    def roots(self) -> tuple[tuple[Tree, str], ...]:
        """(tree, chain) for each root chain."""
        return tuple((_TREES[name.split("/")[0]], name) for name in self.chains if name.count("/") == 1)


def objects_of(ruleset: Ruleset) -> Objects:
    """What `render_install` makes for `ruleset`."""
    return Objects(
        tap=ruleset.tap,
        family=ruleset.attachment.family,
        chains=tuple(chain_name(ruleset.tap, chain.tree, chain.name) for chain in ruleset.chains),
        sets=names_of(ruleset),
    )


def chain_name(tap: str, tree: Tree, name: str | None) -> str:
    """`from/vnet0`, `from/vnet0/arp-mac`. A tap's name holds no "/", so no two taps' chains can be confused."""
    root = f"{tree.value}/{tap}"
    return root if name is None else f"{root}/{encode(name)}"


_CHAIN_PREFIXES = frozenset(tree.value for tree in Tree)
_SET_PREFIXES = frozenset(purpose.value + version for purpose in Purpose for version in ("", "6"))


def is_of_tap(kind: str, name: str, tap: str) -> bool:
    """Whether a "chain" or a "set" of that name is one that we make for `tap` (an `ipset/NAME` is nobody's)."""
    prefix, _, rest = name.partition("/")
    prefixes = _CHAIN_PREFIXES if kind == "chain" else _SET_PREFIXES
    return prefix in prefixes and not prefix.startswith(Purpose.IPSET.value) and rest.split("/")[0] == tap


def without(objects: Iterable[Objects], kept: set[tuple[str, str]]) -> list[Objects]:
    """`objects` without those in `kept` (family, name); each name once, whoever names it how often."""
    seen = set(kept)
    rest = []
    for each in objects:
        chains = tuple(name for name in each.chains if (each.family, name) not in seen)
        sets = tuple(name for name in each.sets if (each.family, name) not in seen)
        seen.update((each.family, name) for name in chains + sets)
        if chains or sets:
            rest.append(Objects(each.tap, each.family, chains, sets))
    return rest


def stale_objects(known: Iterable[Objects], rulesets: Iterable[Ruleset]) -> tuple[Objects, ...]:
    """What of `known` is not made anew for `rulesets`."""
    return tuple(without(known, kept_names(objects_of(ruleset) for ruleset in rulesets)))


def kept_names(made: Iterable[Objects]) -> set[tuple[str, str]]:
    """(family, name) of all that `made` names."""
    return {(each.family, name) for each in made for name in _names(each)}


def _names(objects: Objects) -> tuple[str, ...]:
    return objects.chains + objects.sets
