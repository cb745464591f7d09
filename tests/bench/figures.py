"""
A figure of the benchmark: two things measured in turn, in one run, and what their ratio is to be.

In:  calls that measure once. Out: a `Figure`; a table of them, or JSON.
"""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

Measure = Callable[[], float]


@dataclass(frozen=True)
class Figure:
    """
    One line of the table.

    Attributes:
        ours, reference: medians, in `unit`.
        low, ratio, high: quartiles and median of the pairs' ratios.
        goal: what the ratio is to be.
        more: the ratio is to be at least `goal`, not at most.
    """

    what: str
    against: str
    unit: str
    ours: float
    reference: float
    low: float
    ratio: float
    high: float
    goal: float
    more: bool = False

    @property
    def met(self) -> bool:
        """Whether the goal is."""
        return self.ratio >= self.goal if self.more else self.ratio <= self.goal


def compare(
    what: str,
    against: str,
    ours: Measure,
    reference: Measure,
    *,
    goal: float,
    rounds: int,
    unit: str = "ms",
    more: bool = False,
) -> Figure:
    """Measure both in turn, each first every other time, so that a noisy machine is noisy for both."""
    pairs = []
    for number in range(rounds):
        if number % 2:
            mine = ours()
            other = reference()
        else:
            other = reference()
            mine = ours()
        pairs.append((mine, other))
    return of_pairs(what, against, pairs, goal=goal, unit=unit, more=more)


def of_pairs(
    what: str, against: str, pairs: Sequence[tuple[float, float]], *, goal: float, unit: str = "ms", more: bool = False
) -> Figure:
    """A figure of what was measured already: (ours, reference) of each round."""
    ratios = [mine / other for mine, other in pairs]
    low, middle, high = quartiles(ratios)
    mine, other = (statistics.median(column) for column in zip(*pairs))
    return Figure(what, against, unit, mine, other, low, middle, high, goal, more)


def absolute(what: str, values: Sequence[float], *, goal: float, unit: str) -> Figure:
    """A figure whose goal is not a ratio but so many of `unit`: its reference is the goal."""
    return of_pairs(what, "the goal itself", [(value, goal) for value in values], goal=1.0, unit=unit)


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """The lower, the median, the upper one."""
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, statistics.median(values), high


HEAD = f"{'what':<58} {'ours':>12}   {'reference':<44} {'ratio (quartiles)':>19}  {'goal':>6}"


def line(each: Figure) -> str:
    """One line of the table."""
    reference = f"{_short(each.reference)} {each.unit}  {each.against}"
    spread = f"{each.ratio:.2f} ({each.low:.2f}-{each.high:.2f})"
    goal = f"{'>=' if each.more else '<='}{each.goal:g}"
    met = "met" if each.met else "NOT met"
    return f"{each.what:<58} {_short(each.ours) + ' ' + each.unit:>12}   {reference:<44} {spread:>19}  {goal:>6} {met}"


def as_json(figures: Sequence[Figure]) -> str:
    """All of it for programs, with the machine."""
    about = {"kernel": os.uname().release, "cpus": os.cpu_count(), "load": os.getloadavg()}
    return json.dumps({**about, "figures": [{**asdict(each), "met": each.met} for each in figures]}, indent=1)


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
