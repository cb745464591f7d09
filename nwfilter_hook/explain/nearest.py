"""
The rule that nearly decided otherwise.

In:  a ruleset, a frame, and what became of it.
Out: `Nearest`: the rule that would have turned the verdict with the fewest conditions more, and those conditions.

It is tried, not guessed: each candidate is made to apply, with the jumps that lead to it, and the frame goes the whole
way again.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..base.dataclass import dataclass, replace
from ..ruleset.evaluate import Context, Evaluation, Way, evaluate_frame, failing
from ..ruleset.frame import Frame
from ..ruleset.model import Chain, Match, Rule, Ruleset, Stage, Verdict

_TRIED = 300
"""Candidates at most: an explanation is there at once, however long the filter is."""
_DEEP = 100

Place = tuple[Stage, "str | None", int]
"""Where a rule stands: stage, chain, position."""


@dataclass(frozen=True)
class Nearest:
    """
    A rule that decides otherwise.

    Attributes:
        needed: the conditions that it lacked, those of the jumps to it too, each with the frame's value.
        behind: it stands behind the rule that decided, which was left out to find it; `needed` is empty.
        rule: None if `behind`, and then no rule at all: the frame would have come to the end.
    """

    stage: Stage
    rule: Rule | None
    needed: tuple[tuple[Match, int | None], ...]
    behind: bool = False


@dataclass(frozen=True)
class _Candidate:
    """A rule, the jumps that lead to it, and what is missing; `order` counts rules as a frame meets them."""

    order: int
    places: tuple[Place, ...]
    rule: Rule
    needed: tuple[tuple[Match, int | None], ...]


def find_nearest(ruleset: Ruleset, frame: Frame, way: Way, context: Context, evaluation: Evaluation) -> Nearest | None:
    """The rule that nearly turned the verdict; None if there is none in `ruleset`."""
    knows = replace(context, sets=evaluation.sets)
    met = [layer.stage for layer in evaluation.layers]
    if not evaluation.passes:
        met = met[-1:]
    candidates = [each for stage in met for each in _candidates(ruleset, stage, frame, knows, evaluation.passes)]
    decided = evaluation.decided_by
    at = next((each.order for each in candidates if each.rule is decided), len(candidates))
    open_ones = [each for each in candidates if each.needed]
    for each in sorted(open_ones, key=lambda one: (len(one.needed), abs(at - one.order)))[:_TRIED]:
        other = evaluate_frame(_forced(ruleset, each.places), frame, way, context)
        if other.passes is not evaluation.passes:
            return Nearest(each.places[-1][0], each.rule, each.needed)
    return _behind(ruleset, frame, way, context, evaluation)


def _candidates(ruleset: Ruleset, stage: Stage, frame: Frame, context: Context, passes: bool) -> list[_Candidate]:
    chains = {chain.name: chain for chain in ruleset.chains if chain.stage is stage}
    wanted = (Verdict.DROP, Verdict.REJECT, Verdict.RETURN) if passes else (Verdict.ACCEPT, Verdict.RETURN)
    found: list[_Candidate] = []

    def walk(chain: Chain, places: tuple[Place, ...], needed: tuple[tuple[Match, int | None], ...]) -> None:
        for position, rule in enumerate(chain.rules):
            here = (*places, (stage, chain.name, position))
            lacks = needed + failing(rule, frame, context)
            if rule.verdict is Verdict.JUMP and len(places) < _DEEP:
                walk(chains[rule.target], here, lacks)
            elif rule.verdict in wanted or not lacks:
                found.append(_Candidate(len(found), here, rule, lacks))

    walk(chains[None], (), ())
    return found


def _forced(ruleset: Ruleset, places: tuple[Place, ...]) -> Ruleset:
    """`ruleset`, in which the rules at these places apply to everything."""
    return replace(ruleset, chains=tuple(_with_forced(chain, places) for chain in ruleset.chains))


def _with_forced(chain: Chain, places: tuple[Place, ...]) -> Chain:
    positions = {position for stage, name, position in places if (stage, name) == (chain.stage, chain.name)}
    if not positions:
        return chain
    rules = (replace(rule, matches=()) if at in positions else rule for at, rule in enumerate(chain.rules))
    return replace(chain, rules=tuple(rules))


def _behind(ruleset: Ruleset, frame: Frame, way: Way, context: Context, evaluation: Evaluation) -> Nearest | None:
    """What decides otherwise once the rules that decide the same are left out."""
    for layer, other in _without_deciding(ruleset, frame, way, context, evaluation):
        if other.passes is not evaluation.passes:
            last = other.layers[-1]
            rule = last.decided_by if not other.passes or last.stage is layer else None
            return Nearest(last.stage, rule, (), behind=True)
    return None


def _without_deciding(
    ruleset: Ruleset, frame: Frame, way: Way, context: Context, evaluation: Evaluation
) -> Iterator[tuple[Stage, Evaluation]]:
    for _ in range(_TRIED):
        layer = next((each for each in reversed(evaluation.layers) if each.decided_by is not None), None)
        if layer is None:
            return
        decided = layer.decided_by
        chains = tuple(
            replace(chain, rules=tuple(rule for rule in chain.rules if rule is not decided))
            if chain.stage is layer.stage
            else chain
            for chain in ruleset.chains
        )
        ruleset = replace(ruleset, chains=chains)
        evaluation = evaluate_frame(ruleset, frame, way, context)
        yield layer.stage, evaluation
