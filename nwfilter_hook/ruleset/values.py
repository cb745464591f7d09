"""
The values of one field, in classes: two values of a class pass the same tests, of all that some rules have for it.

In:  the tests on numbers that the rules have for the field.
Out: how many classes there are, and for each test, those whose values pass it.

Where all tests are ranges (a network is one) a class is what lies between their bounds; else it is a list of cubes
(mask and value, as in Masked). Single values that tests name (Equals) are each a class of its own, since lists of
addresses are long.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import Union

from .model import Between, Equals, Masked

Numbers = Union[Equals, Masked, Between]
_Cube = tuple[int, int]
_MAX_CUBES, _MAX_RANGES = 3000, 3000


class TooComplex(Exception):
    """More than can be compared in a reasonable time."""


class Classes:
    """
    Args:
        bits: width of the field.

    Raises:
        TooComplex: too many tests that overlap.
    """

    def __init__(self, tests: Iterable[Numbers], bits: int) -> None:
        self._bits, self._all = bits, (1 << bits) - 1
        given = dict.fromkeys(tests)
        spans: list[Numbers] = [test for test in given if not isinstance(test, Equals)]
        points = dict.fromkeys(test.value for test in given if isinstance(test, Equals))
        if all(_is_range(span, self._all) for span in spans):
            kept = list(self._between(spans, points))
        else:
            kept = list(self._in_cubes(spans, points))
        self.count = len(kept) + len(points)
        self._points = {value: len(kept) + number for number, value in enumerate(points)}
        self._passing: dict[Numbers, frozenset[int]] = {
            span: frozenset(
                [number for number, passed in enumerate(kept) if span in passed]
                + [number for value, number in self._points.items() if passes(value, span)]
            )
            for span in spans
        }

    def of(self, test: Numbers) -> frozenset[int]:
        """The classes whose values pass."""
        return frozenset((self._points[test.value],)) if isinstance(test, Equals) else self._passing[test]

    def _between(self, spans: list[Numbers], points: Iterable[int]) -> Iterator[frozenset[Numbers]]:
        """The spans that the values between two bounds pass, once each, if there are other values than points."""
        ends = [_bounds(span, self._all) for span in spans]
        if len(spans) > _MAX_RANGES:
            raise TooComplex(f"{len(spans)} networks and ranges of one field")
        starts = sorted({0, *(low for low, _ in ends), *(high + 1 for _, high in ends if high < self._all)})
        sizes: dict[frozenset[Numbers], int] = {}
        within = sorted(points)
        for low, following in zip(starts, [*starts[1:], self._all + 1]):
            passed = frozenset(span for span, (first, last) in zip(spans, ends) if first <= low <= last)
            taken = bisect_left(within, following) - bisect_left(within, low)
            sizes[passed] = sizes.get(passed, 0) + following - low - taken
        yield from (passed for passed, size in sizes.items() if size)

    def _in_cubes(self, spans: list[Numbers], points: Iterable[int]) -> Iterator[frozenset[Numbers]]:
        """The same, where a mask isn't that of a network."""
        parts: list[tuple[list[_Cube], frozenset[Numbers]]] = [([(0, 0)], frozenset())]
        for span in spans:
            parts = list(self._split(parts, span))
        for cubes, passed in parts:
            if self._size(cubes) > self._among(points, cubes):
                yield passed

    def _split(
        self, parts: Iterable[tuple[list[_Cube], frozenset[Numbers]]], span: Numbers
    ) -> Iterator[tuple[list[_Cube], frozenset[Numbers]]]:
        wanted = list(_cubes(span, self._bits))
        for cubes, passed in parts:
            inside = [both for cube in cubes for other in wanted for both in _intersected(cube, other)]
            outside = cubes
            for other in wanted:
                outside = [rest for cube in outside for rest in self._minus(cube, other)]
                if len(outside) > _MAX_CUBES:
                    raise TooComplex("masks and ranges of one field that overlap")
            if inside:
                yield inside, passed | {span}
            if outside:
                yield outside, passed

    def _minus(self, cube: _Cube, other: _Cube) -> Iterator[_Cube]:
        if not list(_intersected(cube, other)):
            yield cube
            return
        mask, value = cube
        left = other[0] & ~mask
        while left:
            bit = left & -left
            left ^= bit
            yield mask | bit, value | (bit & ~other[1])
            mask, value = mask | bit, value | (bit & other[1])

    def _size(self, cubes: Iterable[_Cube]) -> int:
        return sum(1 << (self._bits - bin(mask & self._all).count("1")) for mask, _ in cubes)

    def _among(self, points: Iterable[int], cubes: list[_Cube]) -> int:
        return sum(any(point & mask == value for mask, value in cubes) for point in points)


def passes(value: int, test: Numbers) -> bool:
    """Whether the value passes."""
    if isinstance(test, Equals):
        return value == test.value
    if isinstance(test, Masked):
        return value & test.mask == test.value
    return test.low <= value <= test.high


def _bounds(test: Numbers, every: int) -> tuple[int, int]:
    if isinstance(test, Between):
        return test.low, min(test.high, every)
    return (test.value, test.value) if isinstance(test, Equals) else (test.value, test.value | (every & ~test.mask))


def _is_range(test: Numbers, every: int) -> bool:
    free = every & ~test.mask if isinstance(test, Masked) else 0
    return free & (free + 1) == 0


def _intersected(one: _Cube, other: _Cube) -> Iterator[_Cube]:
    if not (one[1] ^ other[1]) & one[0] & other[0]:
        yield one[0] | other[0], one[1] | other[1]


def _cubes(test: Numbers, bits: int) -> Iterator[_Cube]:
    """The cubes, none in another, that hold just the values that pass."""
    last = (1 << bits) - 1
    if isinstance(test, Masked):
        yield test.mask & last, test.value
        return
    low, high = (test.value, test.value) if isinstance(test, Equals) else (test.low, test.high)
    while low <= high:
        # the largest aligned block that begins at `low` and isn't too long
        size = low & -low or 1 << bits
        while low + size - 1 > high:
            size >>= 1
        yield last & ~(size - 1), low
        low += size
