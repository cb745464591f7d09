"""
Neighbouring rules of one list: many values in one rule, and first what most packets take.

In:  rules in their order, none of which is for all frames but the last.
Out: rules that do the same with every frame.

Two rules change places only if no frame passes both; a rule that learns, counts or asks a set stays where it is, and
nothing moves past it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..base.dataclass import replace
from ..ruleset.cover import disjoint
from ..ruleset.fields import Field
from ..ruleset.model import MAX_COMMENT, Equals, Match, OneOf, Rule, Verdict
from .flatten import ENDS
from .knowledge import LASTING

_FEWEST = 3
"""Values for which one lookup is cheaper than a comparison for each."""
_LETS_PASS = (Verdict.ACCEPT, Verdict.GOTO)
_IN_SETS = frozenset(
    (
        *(Field.ETHER_SRC, Field.ETHER_DST, Field.IP_SRC, Field.IP_DST, Field.IP6_SRC, Field.IP6_DST),
        *(Field.ARP_SRC_IP, Field.ARP_DST_IP, Field.ARP_SRC_MAC, Field.ARP_DST_MAC, Field.ARP_OPCODE),
        *(Field.IP_PROTOCOL, Field.L4_PROTOCOL, Field.SRC_PORT, Field.DST_PORT, Field.ICMP_TYPE, Field.ICMPV6_TYPE),
    )
)
"""Fields of which values may stand in one set."""


def arranged(rules: Sequence[Rule]) -> tuple[Rule, ...]:
    """The rules, merged and in a better order."""
    return tuple(_usual_first(list(_merged(rules))))


def _usual_first(rules: list[Rule]) -> list[Rule]:
    """What lets frames through by fewer conditions goes before what asks for more, where no frame passes both."""
    for index in range(1, len(rules)):
        place = index
        while place and _goes_before(rules[place], rules[place - 1]):
            rules[place - 1 : place + 1] = rules[place], rules[place - 1]
            place -= 1
    return rules


def _goes_before(rule: Rule, before: Rule) -> bool:
    return (
        rule.verdict in _LETS_PASS
        and all(match.field is not Field.CT_STATE for match in rule.matches)  # few packets belong to no connection
        and len(rule.matches) < len(before.matches)
        and may_change_places(rule, before)
    )


def may_change_places(one: Rule, other: Rule) -> bool:
    """
    Whether it makes no difference which of two neighbours comes first. What is given doesn't count: the second may
    have it from the first.
    """
    return (
        one.verdict in ENDS
        and other.verdict in ENDS
        and all(isinstance(match.test, (*LASTING, OneOf)) for rule in (one, other) for match in rule.matches)
        and disjoint(one.matches, other.matches)
    )


def _merged(rules: Sequence[Rule]) -> Iterator[Rule]:
    """Runs of rules that differ in one value only become one rule."""
    index = 0
    while index < len(rules):
        end, field = _run(rules, index)
        if end - index >= _FEWEST and field is not None:
            yield _as_one(rules[index:end], field)
        else:
            end = index + 1
            yield rules[index]
        index = end


def _run(rules: Sequence[Rule], start: int) -> tuple[int, Field | None]:
    """The end of the run that begins at `start`, and the field in which its rules differ."""
    first = rules[start]
    field: Field | None = None
    origins = dict.fromkeys(first.provenances)
    end = start + 1
    while end < len(rules) and _is_alike(first, rules[end]):
        other = rules[end]
        differing = [pair for pair in zip(first.matches, other.matches) if pair[0] != pair[1]]
        if len(differing) != 1 or not all(map(_is_value, differing[0])):
            break
        one, another = differing[0]
        if one.field is not another.field or field not in (None, one.field):
            break
        origins.update(dict.fromkeys(other.provenances))
        if len(" or ".join(origins)) > MAX_COMMENT:
            break
        field = one.field
        end += 1
    return end, field


def _is_alike(one: Rule, other: Rule) -> bool:
    return (
        one.verdict is other.verdict
        and one.verdict in ENDS
        and one.target == other.target
        and len(one.matches) == len(other.matches)
        and one.given == other.given
        # with the rule's own conditions it can be told which one a frame was decided by (ruleset/judged.py)
        and (one.provenances == other.provenances or not (one.after or other.after))
        # each of a filter's rules that stop packets has a counter of its own
        and (one.verdict in _LETS_PASS or one.provenances == other.provenances)
    )


def _is_value(match: Match) -> bool:
    return not match.negated and isinstance(match.test, Equals) and match.field in _IN_SETS


def _as_one(rules: Sequence[Rule], field: Field) -> Rule:
    first = rules[0]
    values = [
        match.test.value
        for rule in rules
        for match in rule.matches
        if match.field is field and isinstance(match.test, Equals) and not match.negated
    ]
    one_of = Match(field, OneOf(tuple(sorted(set(values)))))
    matches = tuple(one_of if match.field is field and _is_value(match) else match for match in first.matches)
    origins = dict.fromkeys(each for rule in rules for each in ((rule.filter, rule.source), *rule.others))
    del origins[first.filter, first.source]
    after = dict.fromkeys(each for rule in rules for each in rule.after)
    return replace(first, matches=matches, others=tuple(origins), after=tuple(after))
