"""
Rules of layer 2: stateless, one or both directions.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..base.errors import UnsupportedMatch
from ..filters.bound import BoundRule
from ..filters.model import Action, Direction
from ..ruleset.model import Rule, Stage, Verdict
from .chains import rules_of
from .matches import reverse, rule_alternatives


def compile_layer2(rule: BoundRule) -> Iterator[tuple[Stage, Rule]]:
    alternatives = rule_alternatives(rule)
    # nothing is rejected at layer 2: the frame is dropped
    verdict = Verdict.DROP if rule.action is Action.REJECT else Verdict(rule.action.value)
    if rule.direction is Direction.INOUT and rule.element == "stp" and "srcmacaddr" in rule.conditions:
        raise UnsupportedMatch(
            "<stp srcmacaddr=…> can't be 'inout': a BPDU's destination is fixed; write a rule each for 'in' and 'out'",
            rule.source,
        )
    if rule.direction is Direction.OUT:
        yield from ((Stage.FROM_L2, compiled) for compiled in rules_of(rule, verdict, alternatives))
        return
    if rule.direction is Direction.INOUT:
        exchanged = alternatives if rule.element == "stp" else tuple(reverse(matches) for matches in alternatives)
        yield from ((Stage.FROM_L2, compiled) for compiled in rules_of(rule, verdict, exchanged))
    yield from ((Stage.TO_L2, compiled) for compiled in rules_of(rule, verdict, alternatives))
