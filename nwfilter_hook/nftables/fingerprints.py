"""
Digests of what the kernel runs for a tap: what tells that somebody has changed something.

In:  what taps have, by name. Out: a digest for each, of the kernel's own form of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..backend import Installed
from ..base.digests import sha256
from . import zones
from .bounds import tracks
from .names import BASE_CHAINS
from .netlink import Hook, KernelRule, read_chain, read_chains, read_elements, read_rules, read_verdict, read_verdicts

_FEW_CHAINS = 64
"""Up to so many chains are read one by one, more with the whole table."""


def fingerprints(installed: Sequence[Installed]) -> dict[str, str]:
    """By tap, the digest of what the kernel has of it. Raises NftError."""
    chains = {(each.table, each.name) for one in installed for each in one.objects if each.kind == "chain"}
    maps = {each.name for one in installed for each in one.objects if each.kind == "element"}
    bases = {base.map: ("bridge", base.name) for base in BASE_CHAINS if base.map in maps}
    tracking = {one.tap for one in installed if tracks(one.objects)}
    if tracking:
        bases[zones.MAP] = ("bridge", zones.CHAIN)
    if len(chains) <= _FEW_CHAINS:
        hooks = {(table, name): hook for table, name in chains for hook in read_chain(table, name).values()}
        verdicts = {(name, one.tap): read_verdict(name, one.tap) for one in installed for name in maps}
    else:
        tables = {table for table, _ in chains}
        hooks = {(table, name): hook for table in tables for name, hook in read_chains(table).items()}
        verdicts = {(name, tap): verdict for name in maps for tap, verdict in read_verdicts(name).items()}
    rules = _rules(chains | set(bases.values()))
    return {one.tap: _digest(one, one.tap in tracking, hooks, rules, verdicts, bases) for one in installed}


def _rules(chains: set[tuple[str, str]]) -> dict[tuple[str, str], list[KernelRule]]:
    found: dict[tuple[str, str], list[KernelRule]] = {}
    if len(chains) <= _FEW_CHAINS:
        return {(table, name): read_rules(table, name) for table, name in chains}
    for table in sorted({table for table, _ in chains}):
        for rule in read_rules(table):
            found.setdefault((table, rule.chain), []).append(rule)
    return found


def _digest(
    installed: Installed,
    tracking: bool,
    hooks: Mapping[tuple[str, str], Hook | None],
    rules: dict[tuple[str, str], list[KernelRule]],
    verdicts: Mapping[tuple[str, str], str | None],
    bases: dict[str, tuple[str, str]],
) -> str:
    digest = sha256()

    def add(*parts: object) -> None:
        digest.update(repr(parts).encode())

    for each in installed.objects:
        if each.kind == "chain":
            add(each.table, each.name, repr(hooks.get((each.table, each.name), "missing")))
            found = rules.get((each.table, each.name), ())
            add(*((rule.comment, rule.program) for rule in found))
            for name in (name for rule in found for name in rule.sets):
                add(*sorted(element.key for element in read_elements(each.table, name)))
        elif each.kind == "element":
            add(each.name, verdicts.get((each.name, installed.tap)))
            # a bound is looked up only while connections are tracked
            add(*(rule.program for rule in rules.get(bases.get(each.name, ("", "")), ())))
    if tracking:
        add(*(rule.program for rule in rules.get(bases[zones.MAP], ())))
    return digest.hexdigest()
