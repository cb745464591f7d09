"""
How many steps of the kernel's nft a frame costs: the expressions that are evaluated for it (nf_tables_core.c).

In:  an `Evaluation`. Out: a number: loads, comparisons, lookups and verdicts of the rules that the frame is compared
with, as nft 1.0.6 makes them. What leads to the layer isn't counted: a lookup of the tap, the same for all.
"""

from __future__ import annotations

from collections.abc import Sequence

from nwfilter_hook.nftables.fields import in_transport_header
from nwfilter_hook.ruleset.evaluate import Evaluation, Step
from nwfilter_hook.ruleset.model import AnyState, Between, Equals, Masked, Match, SameAs, Stage, Verdict

LONGEST_LOAD_BITS = 128


def steps(evaluation: Evaluation, *stages: Stage) -> int:
    """Of these stages; of all, if none is given."""
    return sum(
        _of_rule(step) for layer in evaluation.layers if not stages or layer.stage in stages for step in layer.steps
    )


def _of_rule(step: Step) -> int:
    asked: list[Match] = []
    for match in step.rule.matches:
        asked.append(match)
        if match is step.failed:
            break
    found = sum(_of_match(match) for match in asked) - 2 * _neighbours(asked)
    if any(in_transport_header(match.field) for match in asked):
        found += 2  # whether the packet has such a header
    counted = step.rule.verdict in (Verdict.DROP, Verdict.REJECT)
    return found + (1 + counted if step.applies else 0)


def _of_match(match: Match) -> int:
    if isinstance(match.test, (Masked, AnyState)):
        return 3
    if isinstance(match.test, Between):
        return 2 if match.negated else 4
    return 2 * (match.field.bits // 8) if isinstance(match.test, SameAs) else 2


def _neighbours(asked: Sequence[Match]) -> int:
    """How many comparisons nft makes part of the one before: values of neighbouring fields are loaded at once."""
    found, length = 0, 0
    for one, other in zip(asked, asked[1:]):
        length = length or one.field.bits
        equal = all(isinstance(each.test, Equals) and not each.negated for each in (one, other))
        beside = one.field.header is other.field.header and one.field.header.base is not None
        touching = beside and one.field.offset + one.field.bits == other.field.offset
        if equal and touching and length + other.field.bits <= LONGEST_LOAD_BITS:
            found, length = found + 1, length + other.field.bits
        else:
            length = 0
    return found
