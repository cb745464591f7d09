"""
What the kernel has otherwise than it was put there, in words.

In:  what taps have by their records, with its digest (fingerprints.py).
Out: sentences, for each tap that has something else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from ..backend import Installed, Object
from . import zones
from .bounds import tracks
from .fingerprints import fingerprints
from .names import BASE_CHAINS
from .netlink import Hook, KernelRule, read_chains, read_rules, read_verdicts

_PLACES = {"prerouting": 0, "postrouting": 4}
"""linux/netfilter_bridge.h: NF_BR_PRE_ROUTING, NF_BR_POST_ROUTING."""
_BASES = {base.map: base for base in BASE_CHAINS}


def compare(known: Sequence[tuple[Installed, str]]) -> dict[str, tuple[str, ...]]:
    """
    By tap, what differs; () where only the kernel's own form of a rule does.

    Args:
        known: what each tap shall have, and its digest.

    Raises:
        NftError: the kernel can't be asked.
    """
    digests = fingerprints([installed for installed, _ in known])
    hooks = read_chains("bridge")
    misplaced = {base.map for base in BASE_CHAINS if not _is_in_place(hooks.get(base.name), base.hook, base.priority)}
    altered = [
        installed
        for installed, digest in known
        if digests[installed.tap] != digest or misplaced.intersection(installed.names("element"))
    ]
    return _describe(altered, misplaced) if altered else {}


def _is_in_place(hook: Hook | None, name: str, priority: int) -> bool:
    return hook is not None and (hook.number, hook.priority) == (_PLACES[name], priority)


def _describe(altered: Iterable[Installed], misplaced: set[str]) -> dict[str, tuple[str, ...]]:
    tables = ("bridge", "netdev")
    chains = {(table, name) for table in tables for name in read_chains(table)}
    rules: dict[tuple[str, str], list[KernelRule]] = {}
    for table in tables:
        for rule in read_rules(table):
            rules.setdefault((table, rule.chain), []).append(rule)
    verdicts = {base: read_verdicts(base) for one in altered for base in one.names("element")}
    return {one.tap: tuple(dict.fromkeys(_differences(one, chains, rules, verdicts, misplaced))) for one in altered}


def _differences(
    installed: Installed,
    chains: set[tuple[str, str]],
    rules: Mapping[tuple[str, str], list[KernelRule]],
    verdicts: Mapping[str, Mapping[str, str]],
    misplaced: set[str],
) -> Iterator[str]:
    for each in installed.objects:
        place = each.table, each.name
        if each.kind == "chain" and place not in chains:
            yield f"chain {each.name} is missing"
        elif each.kind == "chain" and installed.whole:
            yield from _other_rules(each, rules.get(place, []))
        elif each.kind == "element":
            base, found = _BASES.get(each.name), verdicts[each.name].get(installed.tap)
            if base and (base.map in misplaced or not rules.get(("bridge", base.name))):
                yield f"base chain {base.name}, which looks up map {base.map}, is missing, empty or misplaced"
            if found is None:
                yield f"map {each.name} has no element for it"
            elif each.content and found != each.content[0]:
                yield f"map {each.name} has '{found}' for it, not '{each.content[0]}'"
    if tracks(installed.objects) and not rules.get(("bridge", zones.CHAIN)):
        yield f"chain {zones.CHAIN}, which keeps connections of bridges apart, is missing or empty"


def _other_rules(chain: Object, rules: Sequence[KernelRule]) -> Iterator[str]:
    """By their comments, which name the filter's line."""
    recorded = Counter(rule.rpartition(' comment "')[2].rstrip('"') for rule in chain.content)
    found = Counter(rule.comment for rule in rules)
    for comment in recorded - found:
        yield f"chain {chain.name} lacks a rule of {comment}"
    for comment in found - recorded:
        yield f"chain {chain.name} has a rule more" + (f", '{comment}'" if comment else ", without a comment")
