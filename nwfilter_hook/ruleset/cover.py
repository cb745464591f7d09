"""
Which frames one rule's conditions leave to another: does A cover B, can any frame pass both?

In:  the conditions of two rules, as a ruleset has them.
Out: True only where it is proven, for every frame and every state of the kernel; False if it isn't so, or isn't known.

For what throws rules away, or moves them past each other, while a guest waits (an optimiser): it compares two rules,
condition by condition, in microseconds. What asks about many rules together (lint: is there a frame left for this
one?) has regions.py, which is exact and slower.

A condition on a field that can't be read never holds, nor does its negation (evaluate.py): "not 10.0.0.1" doesn't cover
a rule that says nothing of the address.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Union

from .fields import Field
from .model import AnyState, Between, Equals, Masked, Match

ALWAYS_THERE = frozenset(
    (Field.ETHER_SRC, Field.ETHER_DST, Field.ETHER_TYPE, Field.TAP, Field.PACKET_TYPE, Field.CT_STATE)
)
"""Fields that can be read of every frame."""
STATES = frozenset(("new", "established", "related", "invalid", "untracked"))
TRACKED = STATES - {"invalid", "untracked"}

_Numbers = Union[Equals, Masked, Between]
_NUMBERS = (Equals, Masked, Between)


def covers(one: Iterable[Match], other: Iterable[Match]) -> bool:
    """Every frame that passes `other` passes `one`."""
    others = tuple(other)
    return all(_always(match) or any(implies(known, match) for known in others) for match in one)


def disjoint(one: Iterable[Match], other: Iterable[Match]) -> bool:
    """No frame passes both."""
    others = tuple(other)
    return any(contradict(match, known) for match in one for known in others)


def implies(known: Match, match: Match) -> bool:
    """Every frame for which `known` holds has `match` hold, too."""
    if known == match:
        return True
    if known.field is Field.CT_DIRECTION and match.field is Field.CT_STATE:
        return _states(match) >= TRACKED  # only what is tracked has a direction
    if known.field is not match.field:
        return False
    if isinstance(known.test, AnyState) and isinstance(match.test, AnyState):
        return _states(known) <= _states(match)
    if not (isinstance(known.test, _NUMBERS) and isinstance(match.test, _NUMBERS)):
        return False
    bits = match.field.bits or 1  # a direction is 0 or 1
    if known.negated:
        # all but `known` are in all but `match` if that is less; or in `match` if both are all that there is
        together = _everything(known.test, match.test, bits)
        return _within(match.test, known.test, bits) if match.negated else together
    return _apart(known.test, match.test, bits) if match.negated else _within(known.test, match.test, bits)


def contradict(one: Match, other: Match) -> bool:
    """There is no frame for which both hold."""
    for direction, state in ((one, other), (other, one)):
        if direction.field is Field.CT_DIRECTION and state.field is Field.CT_STATE:
            return not _states(state) & TRACKED
    if one.field is not other.field:
        return False
    if one.test == other.test:
        return one.negated is not other.negated
    return implies(one, Match(other.field, other.test, not other.negated))


def bounds(test: _Numbers, bits: int) -> tuple[int, int]:
    """The least and the greatest value of a field of so many bits that pass."""
    if isinstance(test, Equals):
        return test.value, test.value
    if isinstance(test, Between):
        return test.low, test.high
    return test.value, test.value | (_last(bits) & ~test.mask)


def _last(bits: int) -> int:
    return (1 << bits) - 1


def _always(match: Match) -> bool:
    """Whether it holds for every frame there is."""
    if isinstance(match.test, AnyState):
        return _states(match) == STATES
    if not isinstance(match.test, _NUMBERS) or match.field not in ALWAYS_THERE or match.negated:
        return False
    return _within(Masked(0, 0), match.test, match.field.bits)


def _states(match: Match) -> frozenset[str]:
    assert isinstance(match.test, AnyState)
    return STATES - match.test.states if match.negated else match.test.states


def _everything(one: _Numbers, other: _Numbers, bits: int) -> bool:
    """Whether each value that the field can have is in one of both. Of masks only networks and single bits count."""
    if isinstance(one, Masked) and isinstance(other, Masked):
        bit = one.mask & -one.mask
        if one.mask == other.mask == bit != 0:
            return one.value != other.value
    if not (_is_range(one, bits) and _is_range(other, bits)):
        return False
    (low, high), (second_low, second_high) = sorted((bounds(one, bits), bounds(other, bits)))
    return low == 0 and second_low <= high + 1 and max(high, second_high) == _last(bits)


def _is_range(test: _Numbers, bits: int) -> bool:
    """Whether all values between its bounds pass, too: a mask is that of a network."""
    if not isinstance(test, Masked):
        return True
    free = _last(bits) & ~test.mask
    return free & (free + 1) == 0


def _cube(test: _Numbers, bits: int) -> Masked:
    """The mask and value that all of its values have in common."""
    if isinstance(test, Masked):
        return test
    low, high = bounds(test, bits)
    mask = _last(bits) & -(1 << (low ^ high).bit_length())
    return Masked(mask, low & mask)


def _within(one: _Numbers, other: _Numbers, bits: int) -> bool:
    """Each value of `one` is one of `other`."""
    if isinstance(other, Masked):
        cube = _cube(one, bits)
        return other.mask & ~cube.mask == 0 and cube.value & other.mask == other.value
    (low, high), (least, greatest) = bounds(other, bits), bounds(one, bits)
    return low <= least and greatest <= high


def _apart(one: _Numbers, other: _Numbers, bits: int) -> bool:
    """No value is one of both."""
    first, second = _cube(one, bits), _cube(other, bits)
    if (first.value ^ second.value) & first.mask & second.mask:
        return True
    (low, high), (least, greatest) = bounds(one, bits), bounds(other, bits)
    return high < least or greatest < low
