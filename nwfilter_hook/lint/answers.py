"""
The packets that answer those which a rule accepts.

In:  a bound rule.
Out: for each way that it accepts on, the stage that the answers meet first, and what they look like.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..base.dataclass import dataclass, replace
from ..compiler.matches import reverse, rule_alternatives
from ..filters.bound import BoundRule
from ..filters.model import Action, Direction
from ..filters.protocols import ELEMENTS
from ..ruleset.evaluate import Way
from ..ruleset.fields import Field
from ..ruleset.model import AnyState, Between, Equals, Masked, Match

_ECHO = {8: 0, 128: 129}
_GROUPS = {Field.IP_DST: 0xE0000000, Field.IP6_DST: 0xFF << 120, Field.ETHER_DST: 1 << 40}
_REPLY = (
    Match(Field.CT_STATE, AnyState(frozenset(("established",)))),
    Match(Field.CT_DIRECTION, Equals(1)),
)
_ONWARD = (_REPLY[0], Match(Field.CT_DIRECTION, Equals(0)))


@dataclass(frozen=True)
class Answer:
    """
    What belongs to a connection that a rule lets begin.

    Attributes:
        way: it goes.
        onward: it isn't an answer, but what the one that began sends next.
    """

    way: Way
    matches: tuple[Match, ...]
    onward: bool = False


def answers(rule: BoundRule) -> Iterator[Answer]:
    """One for each alternative of a stateful rule; none for what isn't answered: a message to a group, an error …"""
    if rule.element is None or rule.action is not Action.ACCEPT or not rule.statematch:
        return
    element = ELEMENTS[rule.element]
    states = rule.value("state")
    wanted = states if isinstance(states, frozenset) and "none" not in states else frozenset(("new",))
    if element.layer != 3 or "new" not in wanted:
        return
    if "type" in rule.conditions:
        condition = rule.conditions["type"]
        if condition.negated or condition.end is not None or condition.value not in _ECHO:
            return
    elif element.name in ("icmp", "icmpv6"):
        return
    plain = replace(rule, conditions={name: each for name, each in rule.conditions.items() if name != "code"})
    for forward in _directions(rule):
        way, back = (Way.FROM_GUEST, Way.TO_GUEST) if forward else (Way.TO_GUEST, Way.FROM_GUEST)
        turned = rule.direction is Direction.INOUT and forward
        for matches in rule_alternatives(plain):
            matches = tuple(match for match in matches if match.field not in (Field.ETHER_SRC, Field.ETHER_DST))
            there = reverse(matches) if turned else matches
            if any(_to_group(match) for match in there):
                continue
            yield Answer(back, (*map(_answering, reverse(there)), *_REPLY))
            if isinstance(states, frozenset) and "type" not in rule.conditions:
                yield Answer(way, (*there, *_ONWARD), onward=True)


def _directions(rule: BoundRule) -> tuple[bool, ...]:
    """Whether it begins at the guest."""
    return {Direction.OUT: (True,), Direction.IN: (False,), Direction.INOUT: (True, False)}[rule.direction]


def _to_group(match: Match) -> bool:
    """To several hosts, or to everybody."""
    group = _GROUPS.get(match.field)
    if group is None or match.negated or not isinstance(match.test, (Equals, Masked, Between)):
        return False
    value = match.test.low if isinstance(match.test, Between) else match.test.value
    return bool(value & group) if match.field is Field.ETHER_DST else value >= group


def _answering(match: Match) -> Match:
    """A request's type as that of its answer."""
    if match.field in (Field.ICMP_TYPE, Field.ICMPV6_TYPE) and isinstance(match.test, Equals):
        return Match(match.field, Equals(_ECHO.get(match.test.value, match.test.value)))
    return match
