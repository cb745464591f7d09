"""
Which frames each rule of a ruleset decides, all frames there can be taken together.

In:  a `Ruleset`.
Out: `Decisions`: rule by rule, in the order in which the kernel tests them, the frames that could come to it, and those
     that the rules before it leave; stage by stage, the frames that pass.

A stage is looked at as if it were alone. What the one that a frame meets before it lets through is told beside it.
Nothing is learned here: a set holds what it may hold, so each rule is decisive for some contents, if for any.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..base.dataclass import dataclass
from .evaluate import Way
from .model import Chain, Match, Rule, Ruleset, Stage, Verdict
from .regions import NOTHING, Regions


@dataclass(frozen=True)
class Decision:
    """
    One rule at its place.

    Attributes:
        chain: None in the stage's root.
        could: the frames for which it holds, if no rule before it decides.
        decides: of those, the ones that no rule before it decides.
    """

    stage: Stage
    chain: str | None
    rule: Rule
    could: int
    decides: int

    @property
    def is_verdict(self) -> bool:
        """Whether it is a rule's that ends a chain for its frames."""
        return self.rule.verdict not in (Verdict.JUMP, Verdict.CONTINUE, Verdict.LEARN)


class Decisions:
    """
    Attributes:
        every: of every stage, in the order of evaluation; a chain that is entered twice has its rules twice.

    Raises:
        TooComplex: there are too many different conditions.
    """

    def __init__(self, ruleset: Ruleset, more: Iterable[Match] = ()) -> None:
        """`more`: conditions that will be asked about, beside those of the rules."""
        matches = [match for chain in ruleset.chains for rule in chain.rules for match in rule.matches]
        self.regions = Regions([*matches, *more])
        self._ruleset = ruleset
        self.every: list[Decision] = []
        self._passes: dict[Stage, int] = {}
        for stage in Stage:
            walk = _Walk(ruleset, stage, self.regions)
            self.every += walk.found
            self._passes[stage] = walk.accepted

    def passing(self, stage: Stage) -> int:
        """What passes a stage alone; everything where it has no rules."""
        return self._passes[stage]

    def passing_way(self, way: Way) -> int:
        """What passes all the stages of a way."""
        region = self.regions.everything
        for stage in way.value:
            region = self.regions.both(region, self._passes[stage])
        return region

    def passing_without(self, stage: Stage, rules: Iterable[Rule]) -> int:
        """What would pass the stage if it hadn't these rules."""
        return _Walk(self._ruleset, stage, self.regions, frozenset(map(id, rules))).accepted


class _Walk:
    """All frames on their way through one stage."""

    def __init__(self, ruleset: Ruleset, stage: Stage, regions: Regions, missing: frozenset[int] = frozenset()) -> None:
        self._stage, self._regions, self._missing = stage, regions, missing
        self._chains = {chain.name: chain for chain in ruleset.chains if chain.stage is stage}
        self.found: list[Decision] = []
        everything = regions.everything
        self.accepted = everything
        if None in self._chains:
            self.accepted = NOTHING
            left = self._chain(self._chains[None], everything, everything)
            self.accepted = regions.either(self.accepted, left)

    def _chain(self, chain: Chain, could: int, comes: int) -> int:
        """
        What goes on behind the chain.

        Args:
            could: what could come here, if no rule before decided.
            comes: what comes.
        """
        regions = self._regions
        returned = NOTHING
        for rule in chain.rules:
            if id(rule) in self._missing:
                continue
            frames = regions.of(rule.matches)
            possible, hit = regions.both(could, frames), regions.both(comes, frames)
            self.found.append(Decision(self._stage, chain.name, rule, possible, hit))
            if rule.verdict in (Verdict.CONTINUE, Verdict.LEARN):
                continue
            comes = regions.without(comes, hit)
            if rule.verdict is Verdict.JUMP:
                comes = regions.either(comes, self._chain(self._chains[rule.target], possible, hit))
            elif rule.verdict is Verdict.ACCEPT:
                self.accepted = regions.either(self.accepted, hit)
            elif rule.verdict is Verdict.RETURN:
                returned = regions.either(returned, hit)
        return regions.either(comes, returned)
