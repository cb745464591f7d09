"""
Rules that keep a guest from sending under sources that aren't its own, found by what they do.

In:  a `Tree`.
Out: `Guard`s: a rule that drops what has a stranger's source, and nothing that has the guest's.
"""

from __future__ import annotations

from ..base.dataclass import dataclass
from ..ruleset.decisions import Decision
from ..ruleset.fields import Field
from ..ruleset.model import Stage, Verdict
from ..ruleset.regions import NOTHING
from .places import STRANGER, is_
from .tree import Tree, stops


@dataclass(frozen=True)
class Guard:
    """
    One.

    Attributes:
        drops: what it drops if no rule outside of its chain decides before.
        fields: the sources that it holds the guest to.
    """

    decision: Decision
    drops: int
    fields: tuple[Field, ...]


def guards(tree: Tree) -> list[Guard]:
    """Those of what the guest sends."""
    regions = tree.decisions.regions
    found = []
    strange = {field: regions.of([is_(field, value)]) for field, value in STRANGER.items()}
    own = {}
    for field, matches in tree.own.of.items():
        own[field] = NOTHING
        for match in matches:
            own[field] = regions.either(own[field], regions.of([match]))
    returned: dict[tuple[Stage, str | None], int] = {}
    for decision in tree.decisions.every:
        place = (decision.stage, decision.chain)
        if decision.stage not in (Stage.FROM_L2, Stage.FROM_L3):
            continue
        if decision.rule.verdict is Verdict.RETURN:
            returned[place] = regions.either(returned.get(place, NOTHING), decision.could)
        if not stops(decision.rule.verdict):
            continue
        drops = regions.without(decision.could, returned.get(place, NOTHING))
        fields = tuple(
            field
            for field in STRANGER
            if own[field] != NOTHING
            and regions.both(drops, own[field]) == NOTHING
            and regions.both(drops, strange[field]) != NOTHING
        )
        if fields:
            found.append(Guard(decision, drops, fields))
    return found
