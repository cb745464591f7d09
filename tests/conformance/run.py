"""
A conformance run as long as one likes: `python -m tests.conformance.run --filters 200 --frames 200 --seed 1`.

Prints every difference, reduced, and then the line that sums up. Exit status 1 if there is a difference. Needs root.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable, Iterable, Sequence

from tests.conformance.filters import Tree, random_tree
from tests.conformance.kernel import TAPS, Difference, Tally, compare, reduce
from tests.conformance.mutation import frames
from tests.conformance.states import run_states
from tests.conformance.summary import rows
from tests.support.netns import Wire


def run(
    wire: Wire,
    *,
    filters: int,
    count: int,
    seed: int,
    make: Callable[[random.Random], Tree] | None = None,
    wanted: Iterable[tuple[str, str]] = (),
    patience: int = 5,
    optimise: bool = False,
) -> Tally:
    """
    `filters` trees with `count` frames each; stops after `patience` differences.

    Args:
        optimise: the rules as they are put into force, not as they are compiled.
        wanted: rows of the language's table; each of them is in one of the trees at least.
    """
    tally = Tally()

    def again(tree: Tree, frames: Sequence[bytes]) -> list[Difference]:
        return compare(wire, tree, frames, optimise=optimise)

    due = sorted(wanted)
    for number in range(filters):
        # each tree has a seed of its own, so that one can be had again without the others
        rng = random.Random(f"{seed}/{number}")
        tree = make(rng) if make else random_tree(rng, wanted=due[number::filters])
        sent = list(frames(rng, tree.compile(), count))
        found = compare(wire, tree, sent, tally, optimise=optimise)
        tally.filters += 1
        tally.rows |= tree.covered
        if found:
            tally.differences.append(reduce(found[0], sent, again))
            if len(tally.differences) >= patience:
                break
    return tally


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.run", description=__doc__)
    parser.add_argument("--filters", type=int, default=200)
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--patience", type=int, default=5, help="stop after so many differences")
    parser.add_argument("--optimise", action="store_true", help="the rules as they are put into force")
    parser.add_argument("--states", action="store_true", help="follow connections: needs the stock kernel")
    given = parser.parse_args(arguments)
    size = {"filters": given.filters, "count": given.frames, "seed": given.seed, "patience": given.patience}
    with Wire(TAPS) as wire:
        tally = (
            run_states(wire, families=("bridge",), **size)
            if given.states
            else run(wire, optimise=given.optimise, **size)
        )
    for difference in tally.differences:
        print(difference, end="\n\n")
    print(tally.line(len(rows())))
    return bool(tally.differences)


if __name__ == "__main__":
    sys.exit(main())
