"""The kernel gives every frame the verdict that the evaluator gives it."""

from __future__ import annotations

import pytest

from nwfilter_hook.ruleset.model import Attachment
from tests.conformance.filters import random_tree
from tests.conformance.kernel import TAPS, Tally
from tests.conformance.kinds import STATELESS_KINDS
from tests.conformance.run import run
from tests.conformance.summary import TALLIES, counting_rows, rows
from tests.support.netns import Wire

pytestmark = pytest.mark.netns

FRAMES, SEED = 200, 1
LEAST_OF_A_KIND = 30
"""Frames of each unusual kind that the kernel must have seen, both ways."""


def expect_no_difference(tally: Tally) -> None:
    """And that the comparison says something: both verdicts are common."""
    assert not tally.differences, "\n\n".join(map(str, tally.differences))
    assert tally.frames >= FRAMES * tally.filters
    assert 0.1 < tally.dropped / tally.frames < 0.9


def test_generated_filters_mean_the_same_to_the_kernel(able: None) -> None:
    """
    Filters of every element, action, direction and chain; frames at the bounds of their rules, tagged, fragmented, cut
    short and contradicting themselves: no verdict differs, and no rule's counter.
    """
    wanted = rows() - counting_rows()
    with Wire(TAPS) as wire:
        tally = TALLIES["bridge port"] = run(wire, filters=240, count=FRAMES, seed=SEED, wanted=wanted)
    expect_no_difference(tally)
    assert tally.filters >= 200
    assert tally.rows >= wanted
    assert {kind: tally.kinds[kind] for kind in STATELESS_KINDS if tally.kinds[kind] < LEAST_OF_A_KIND} == {}


def test_optimised_filters_mean_the_same_to_the_kernel(able: None) -> None:
    """What is put into force, of the same kinds: no verdict differs, and no rule's counter (test_optimise)."""
    with Wire(TAPS) as wire:
        tally = run(wire, filters=60, count=FRAMES // 2, seed=SEED + 1, optimise=True)
    assert not tally.differences, "\n\n".join(map(str, tally.differences))
    assert 0.1 < tally.dropped / tally.frames < 0.9


def test_filters_of_a_device_that_is_no_bridge_port(able: None) -> None:
    """The same at the ingress and egress of the tap itself, with layer 2 rules."""
    with Wire(TAPS) as wire:
        TALLIES["device"] = run(
            wire,
            filters=40,
            count=FRAMES,
            seed=SEED,
            make=lambda rng: random_tree(rng, attachment=Attachment.DEVICE),
        )
    expect_no_difference(TALLIES["device"])
