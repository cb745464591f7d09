"""
Debian's stock kernel and the evaluator: what tests/conformance does on the kernel at hand, and connections.

How much each test compares is said in tests/conformance/summary.py, since only "passed" comes out of the VM.
"""

from __future__ import annotations

import pytest

from nwfilter_hook.ruleset.fields import Field
from tests.conformance.counting import run_counts
from tests.conformance.filters import ROOT, Part, Tree
from tests.conformance.kernel import TAPS, Tally, compare
from tests.conformance.packets import Values, build
from tests.conformance.run import run
from tests.conformance.states import run_states
from tests.conformance.summary import STOCK_KERNEL, rows
from tests.support.netns import Wire

pytestmark = pytest.mark.stock_kernel

_NAME = "test_{}_filters_mean_the_same_to_the_stock_kernel"
STATELESS, STATEFUL, COUNTING = map(_NAME.format, ("stateless", "stateful", "counting"))


def expect(tally: Tally, test: str) -> None:
    """No difference, and as much compared as is claimed."""
    print(tally.line(len(rows())))
    assert not tally.differences, "\n\n".join(map(str, tally.differences))
    assert not STOCK_KERNEL[test].unmet(tally)


@pytest.mark.parametrize("seed", range(31, 31 + STOCK_KERNEL[STATELESS].runs))
def test_stateless_filters_mean_the_same_to_the_stock_kernel(seed: int) -> None:
    """Neither kernel is taken for the definition of what a frame's fields are."""
    with Wire(TAPS) as wire:
        tally = run(wire, filters=STOCK_KERNEL[STATELESS].filters, count=40, seed=seed, patience=3)
    expect(tally, STATELESS)


STATES = {
    *("new", "established", "established reply", "related", "related reply", "invalid", "untracked"),
    *("ipv6 new", "ipv6 established", "ipv6 established reply", "ipv6 related", "ipv6 related reply", "ipv6 untracked"),
}
ERRORS = {"ICMP error 3", "ICMP error 11", "ICMP error 12", *(f"ICMPv6 error {type_}" for type_ in (1, 2, 3, 4))}


@pytest.mark.parametrize("seed", range(41, 41 + STOCK_KERNEL[STATEFUL].runs))
def test_stateful_filters_mean_the_same_to_the_stock_kernel(seed: int) -> None:
    """New connections, replies, ICMP errors about them in both directions, and what belongs to none; IPv4 and IPv6."""
    with Wire(TAPS) as wire:
        tally = run_states(wire, families=("bridge",), filters=STOCK_KERNEL[STATEFUL].filters, count=50, seed=seed)
    expect(tally, STATEFUL)
    assert set(tally.states) >= STATES
    assert set(tally.kinds) >= ERRORS


@pytest.mark.parametrize("seed", range(55, 55 + STOCK_KERNEL[COUNTING].runs))
def test_counting_filters_mean_the_same_to_the_stock_kernel(seed: int) -> None:
    """`connlimit-above` of each element, with connections whose number is known."""
    with Wire(TAPS) as wire:
        tally = run_counts(wire, each=1, seed=seed)
    expect(tally, COUNTING)
    assert 0.1 < tally.dropped / tally.frames < 0.9


UNCONNECTED: dict[str, Values] = {
    "icmpv6": {Field.ETHER_TYPE: 0x86DD, Field.L4_PROTOCOL: 58, Field.ICMPV6_TYPE: 135},
    "tcp": {Field.ETHER_TYPE: 0x0800, Field.IP_PROTOCOL: 6, Field.TCP_FLAGS: 3},
}
"""A neighbour solicitation, which isn't tracked, and TCP that opens and ends a connection at once, which is invalid."""


@pytest.mark.parametrize("element", UNCONNECTED)
def test_what_belongs_to_no_connection_is_not_above_a_limit(element: str) -> None:
    """A frame without a connection isn't the sixth of its source's."""
    rule = f"<rule action='drop' direction='out'><{element} connlimit-above='5'/></rule>"
    tree = Tree((Part(ROOT, "root", None, (rule,)),), ())
    with Wire(TAPS) as wire:
        assert compare(wire, tree, [build(UNCONNECTED[element])]) == []
