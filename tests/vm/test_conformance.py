"""Debian's stock kernel and the evaluator: what tests/conformance does on the kernel at hand, and connections."""

from __future__ import annotations

import pytest

from tests.conformance.kernel import TAPS
from tests.conformance.run import run
from tests.conformance.states import run_states
from tests.conformance.summary import rows
from tests.support.netns import Wire

pytestmark = pytest.mark.stock_kernel


def test_stateless_filters_mean_the_same_to_the_stock_kernel() -> None:
    """Neither kernel is taken for the definition of what a frame's fields are."""
    with Wire(TAPS) as wire:
        tally = run(wire, filters=6, count=40, seed=3, patience=3)
    print(tally.line(len(rows())))
    assert not tally.differences, "\n\n".join(map(str, tally.differences))


def test_stateful_filters_mean_the_same_to_the_stock_kernel() -> None:
    """New connections, replies, ICMP errors about them, and what belongs to none."""
    with Wire(TAPS) as wire:
        tally = run_states(wire, families=("bridge",), filters=10, count=40, seed=4)
    print(tally.line(len(rows())))
    assert not tally.differences, "\n\n".join(map(str, tally.differences))
    states = {"new", "established", "established reply", "related reply", "invalid", "untracked"}
    assert states <= set(tally.states)
