"""
The chains of one stage: rules in their order, jumps to sub-chains or their rules in place.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ..base.dataclass import replace
from ..filters.bound import BoundRule
from ..filters.protocols import chain_prefix
from ..ruleset.fields import Field
from ..ruleset.model import Chain, Equals, Match, Rule, Stage, Verdict
from ..ruleset.numbers import EtherType
from .implied import BPDU_ADDRESS, Matches
from .matches import intersect

_JUMP_CONDITIONS = {
    "mac": (),
    "stp": (Match(Field.ETHER_DST, Equals(BPDU_ADDRESS)),),
    "vlan": (Match(Field.ETHER_TYPE, Equals(EtherType.VLAN)),),
    "ipv4": (Match(Field.ETHER_TYPE, Equals(EtherType.IPV4)),),
    "ipv6": (Match(Field.ETHER_TYPE, Equals(EtherType.IPV6)),),
    "arp": (Match(Field.ETHER_TYPE, Equals(EtherType.ARP)),),
    "rarp": (Match(Field.ETHER_TYPE, Equals(EtherType.RARP)),),
}
_MAX_INLINED = 4
"""Rules of a sub-chain that go into the root chain instead: a chain costs nft time to read, and a packet a jump."""
_IN_EVERY_FRAME = (Field.ETHER_SRC, Field.ETHER_DST, Field.ETHER_TYPE)


class StageBuilder:
    """One stage under construction; rules arrive in evaluation order of their chains, `names` are in document order."""

    def __init__(self, stage: Stage, names: Sequence[str], end_of_chain: str, *, inline: bool = True) -> None:
        self._stage, self._inline = stage, inline
        self._names = names
        self._accepts_at_end = end_of_chain == "accept"
        self._root: list[tuple[int, Rule]] = []
        self._sub: dict[str, list[Rule]] = {}
        self._priority: dict[str, tuple[int, str]] = {}  # and the filter that says so
        self._known: set[tuple[str, Rule]] = set()
        self.notes: list[str] = []

    def add(self, chain: str, chain_priority: int, priority: int, rule: Rule) -> None:
        if chain != "root":
            # of several filters' priorities that of the rule that sorts last counts, as in libvirt
            before, filter_name = self._priority.get(chain, (chain_priority, rule.filter))
            if before != chain_priority:
                self.notes.append(
                    f"chain {chain!r} has the priority {before} in filter {filter_name!r} and {chain_priority} in "
                    f"{rule.filter!r}; the latter counts"
                )
            self._priority[chain] = chain_priority, rule.filter
        if (chain, rule) in self._known:
            return  # a filter that is referred to twice; the first of two equal rules decides
        self._known.add((chain, rule))
        if chain == "root":
            # who returns from the root has passed, and by this rule
            ends = replace(rule, verdict=Verdict.ACCEPT) if rule.verdict is Verdict.RETURN else rule
            self._root.append((priority, ends))
        else:
            self._sub.setdefault(chain, []).append(rule)

    def chains(self) -> Iterator[Chain]:
        if self._accepts_at_end:
            for rules in self._sub.values():
                last = rules[-1]
                if last.matches or last.verdict is Verdict.CONTINUE:
                    rules.append(Rule((), Verdict.ACCEPT, last.filter, last.source))
        if self._stage in (Stage.FROM_L3, Stage.TO_L3):
            entries = [rule for _, rule in self._root]  # in their order already: root filters first
        else:
            # jumps and rules share one scale; at equal value jumps come first, as their chains appear in the document
            merged = [(self._priority[name][0], 0, self._entrance(name)) for name in self._names if name in self._sub]
            merged += [(priority, 1, (rule,)) for priority, rule in self._root]
            entries = [rule for _, _, rules in sorted(merged, key=lambda entry: entry[:2]) for rule in rules]
        if entries:
            yield Chain(self._stage, None, tuple(entries))
        for name, rules in self._sub.items():
            if self._inlined(rules) is None:
                yield Chain(self._stage, name, tuple(rules))

    def _entrance(self, name: str) -> tuple[Rule, ...]:
        """What the root chain holds for a sub-chain: the jump, or its rules, for the frames of that chain."""
        rules = self._inlined(self._sub[name])
        if rules is None:
            return (self._jump(name),)
        conditions = _JUMP_CONDITIONS[chain_prefix(name) or ""]
        narrowed = ((intersect(rule.matches, conditions), rule) for rule in rules)
        return tuple(
            Rule(matches, rule.verdict, rule.filter, rule.source) for matches, rule in narrowed if matches is not None
        )

    def _inlined(self, rules: Sequence[Rule]) -> Sequence[Rule] | None:
        return _inlined(rules) if self._inline else None

    def _jump(self, name: str) -> Rule:
        first = self._sub[name][0]
        matches = _JUMP_CONDITIONS[chain_prefix(name) or ""]
        return Rule(matches, Verdict.JUMP, first.filter, first.source, target=name)


def _inlined(rules: Sequence[Rule]) -> Sequence[Rule] | None:
    """
    A sub-chain's rules as they can stand in the root chain with the same verdict for every frame, or None.

    Without "return" they can stand as they are. "Return if A, return if B, else drop" is "drop if neither A nor B";
    only where the fields are in every frame, since a condition on a field that isn't there never holds, nor does its
    negation.
    """
    if len(rules) <= _MAX_INLINED and all(rule.verdict is not Verdict.RETURN for rule in rules):
        return rules
    *returns, last = rules
    if last.matches or last.verdict not in (Verdict.DROP, Verdict.ACCEPT) or len(returns) > _MAX_INLINED:
        return None
    if any(rule.verdict is not Verdict.RETURN or not _invertible(rule.matches) for rule in returns):
        return None
    inverted = (Match(match.field, match.test, not match.negated) for rule in returns for match in rule.matches)
    return (Rule(tuple(inverted), last.verdict, last.filter, last.source),)


def _invertible(matches: Matches) -> bool:
    return len(matches) == 1 and matches[0].field in _IN_EVERY_FRAME


def rules_of(rule: BoundRule, verdict: Verdict, alternatives: Iterable[Matches]) -> Iterator[Rule]:
    for matches in alternatives:
        yield Rule(matches, verdict, rule.filter, rule.source)
