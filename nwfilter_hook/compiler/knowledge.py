"""
What is known of every frame that comes to a place in the rules, and what a rule must still ask there.

In:  conditions that hold on the path to the place.
Out: of a rule's conditions those that the path leaves open, or that no frame passes.

Known is only what stays as it is while a frame passes a stage: fields of the frame, and the state of its connection.
What is in a set may change under way, so a set decides nothing. A condition that failed tells something only of a field
that every frame has: on one that can't be read neither a condition nor its opposite holds (evaluate.py).
"""

from __future__ import annotations

from collections.abc import Sequence

from ..base.dataclass import replace
from ..ruleset.cover import ALWAYS_THERE, contradict, implies
from ..ruleset.fields import Base, Field, Header
from ..ruleset.model import (
    AnyState,
    Between,
    CountAbove,
    Equals,
    InSet,
    Masked,
    Match,
    OneOf,
    Rule,
    SetPurpose,
    Verdict,
)

ORDER = {field: place for place, field in enumerate(Field)}
Matches = tuple[Match, ...]

LASTING = (Equals, Masked, Between, AnyState)
"""Tests that come out the same for a frame wherever it is in a stage."""
_WITHOUT_CONTEXT = frozenset(
    (Field.ETHER_SRC, Field.ETHER_DST, Field.TAP, Field.PACKET_TYPE, Field.CT_STATE, Field.CT_DIRECTION)
)
"""Fields that a back end needs to know nothing of the frame for, and that tell it nothing about others."""
_PLACELESS = (Field.L4_PROTOCOL, Field.CT_STATE, Field.CT_DIRECTION, Field.PACKET_TYPE, Field.TAP)
_BY_NUMBER = (SetPurpose.LEARNED, SetPurpose.SEEN, SetPurpose.LEASED)
"""Sets that are asked for numbers, or for the interface; others for addresses of a protocol, by the field's name."""


class Known:
    """What holds at a place: conditions, by field. A value; `with_` makes another."""

    __slots__ = ("_by_field",)

    def __init__(self, by_field: dict[Field, Matches] | None = None) -> None:
        self._by_field = by_field or {}

    def with_(self, matches: Sequence[Match]) -> Known:
        """And these, too, as far as they last."""
        lasting = [match for match in matches if isinstance(match.test, LASTING)]
        if not lasting:
            return self
        by_field = dict(self._by_field)
        for match in lasting:
            by_field[match.field] = (*by_field.get(match.field, ()), match)
        return Known(by_field)

    def without(self, matches: Matches) -> Known:
        """What is known of a frame that doesn't pass all of `matches`."""
        if len(matches) == 1 and matches[0].field in ALWAYS_THERE:
            return self.with_((Match(matches[0].field, matches[0].test, not matches[0].negated),))
        return self

    def of(self, field: Field) -> Matches:
        """What is known of a field."""
        return self._by_field.get(field, ())

    def open(self, matches: Matches) -> Matches | None:
        """Those of the conditions that aren't decided yet; None if one of them is, against the frame."""
        left = []
        for match in matches:
            facts = self.of(match.field)
            if match.field is Field.CT_STATE:
                facts += self.of(Field.CT_DIRECTION)
            elif match.field is Field.CT_DIRECTION:
                facts += self.of(Field.CT_STATE)
            if not isinstance(match.test, LASTING):
                left.append(match)
            elif any(contradict(fact, match) for fact in facts):
                return None
            elif not any(implies(fact, match) for fact in facts):
                left.append(match)
        return tuple(left)


def asked(rule: Rule, known: Known) -> Rule | None:
    """
    The rule as it is asked where this is known: without what is decided, which becomes `given`; None if no frame passes
    it there. A rule that learns stays as it is: back ends make more of it than conditions.
    """
    left = known.open(rule.matches)
    if left is None or len(left) == len(rule.matches) or rule.verdict is Verdict.LEARN:
        return None if left is None else rule
    if not _is_plain(rule.matches):
        left = tuple(match for match in rule.matches if match in left or match.field not in _WITHOUT_CONTEXT)
    given = tuple(match for match in rule.matches if match not in left)
    return with_matches(rule, left, given) if given else rule


def with_matches(rule: Rule, matches: Matches, given: Matches) -> Rule:
    """The rule with other conditions, and `given` beside what is given already."""
    return replace(rule, matches=matches, given=(*rule.given, *given))


def joined(one: Matches, other: Matches) -> Matches:
    """All conditions of both, each once, in the order in which they must be tested; what is counted comes last."""
    both = sorted((*one, *other), key=lambda match: (isinstance(match.test, CountAbove), ORDER[match.field]))
    return tuple(dict.fromkeys(both))


def _is_plain(matches: Matches) -> bool:
    """
    Whether the conditions can be asked for at places counted from a header, without what says which header it is: one
    of octets, or of bits that have a name of their own; and of sets only those that hold numbers.
    """
    return all(_has_place(match.field) and _asks_numbers(match) for match in matches)


def _has_place(field: Field) -> bool:
    if field in _PLACELESS:
        return True
    if field.header.base is None or field.header is Header.TAG:
        return False
    return (field.offset % 8 == 0 and field.bits % 8 == 0 and field.header.base is not Base.LINK) or (
        field.header is Header.ETHERNET
    )


def _asks_numbers(match: Match) -> bool:
    if isinstance(match.test, InSet):
        if match.test.set.purpose is SetPurpose.MACS:
            return match.field.header is Header.ETHERNET
        return match.test.set.purpose in _BY_NUMBER
    return isinstance(match.test, (*LASTING, OneOf))
