"""
Two filters on one tap, one after the other: what the first accepts goes on to the second; what either drops is dropped.

In:  the chains of the floor (the host's filter) and of the guest's own filter.
Out: one list of chains.

The floor's root chain stays the tap's. Where it accepts, or has nothing to say, it jumps to the chain "own". That
holds what was the other's root chain and always ends in a verdict, so it never comes back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ..base.dataclass import replace
from ..ruleset.model import Chain, Rule, Stage, Verdict

OWN = "own"
_PREFIX = "floor-"
# no name of a filter's chain begins with these


def stack(floor: Sequence[Chain], own: Sequence[Chain]) -> list[Chain]:
    """The chains in which both count, the floor first."""
    return [chain for stage in Stage for chain in _stacked(_of(floor, stage), _of(own, stage))]


def _of(chains: Iterable[Chain], stage: Stage) -> list[Chain]:
    return [chain for chain in chains if chain.stage is stage]


def _stacked(floor: Sequence[Chain], own: Sequence[Chain]) -> Iterator[Chain]:
    """Of one stage; each begins with its root, if it has any."""
    if not floor or not own:
        yield from floor or own
        return
    floor = [_renamed(chain) for chain in floor]
    (first, *floor_subs), (second, *own_subs) = floor, own
    if not any(rule.verdict is Verdict.ACCEPT for chain in floor for rule in chain.rules):
        # it only drops: what it lets through comes to the other's rules by itself
        yield Chain(first.stage, None, first.rules + second.rules)
        yield from (*floor_subs, *own_subs)
        return
    onward = Rule((), Verdict.JUMP, first.rules[0].filter, first.rules[0].source, OWN)
    yield Chain(first.stage, None, (*_onward(first), onward))
    yield from (Chain(chain.stage, chain.name, tuple(_onward(chain))) for chain in floor_subs)
    last = second.rules[-1]
    end = Rule((), Verdict.ACCEPT, last.filter, last.source)
    yield Chain(second.stage, OWN, (*second.rules, end))
    yield from own_subs


def _renamed(chain: Chain) -> Chain:
    """A sub-chain of the floor under a name of its own, and who jumps to it."""
    rules = (
        replace(rule, target=f"{_PREFIX}{rule.target}") if rule.verdict is Verdict.JUMP else rule
        for rule in chain.rules
    )
    return Chain(chain.stage, chain.name and f"{_PREFIX}{chain.name}", tuple(rules))


def _onward(chain: Chain) -> Iterator[Rule]:
    for rule in chain.rules:
        yield replace(rule, verdict=Verdict.JUMP, target=OWN) if rule.verdict is Verdict.ACCEPT else rule
