"""
Rules that count connections, held against connections whose number is known.

In:  a `Wire` with a guest's tap and two unfiltered ones, on a kernel with connection tracking in the bridge family.
Out: a `Tally`: each element that can count, in rules of every action, sign and direction.

What a rule counts can't be told from one frame, so the frames are openings of connections: several from each of two
addresses, some of them twice, one after the other. `Counted` keeps account of them.
"""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from nwfilter_hook.filters.protocols import ELEMENTS
from nwfilter_hook.ruleset.evaluate import Context, Evaluation, State, Way, evaluate
from nwfilter_hook.ruleset.fields import Field
from nwfilter_hook.ruleset.model import CountAbove, NamedSet, Ruleset, SetPurpose
from tests.conformance.filters import ROOT, TAP, Part, Tree
from tests.conformance.kernel import CONTROL, OUTSIDE, Difference, Passage, Tally, install, why
from tests.conformance.packets import GUEST_IP, GUEST_IP6, OTHER_IP, OTHER_IP6, build
from tests.conformance.states import Tracker, arrivals, oracle
from tests.conformance.summary import counting_rows
from tests.support.netns import Wire

PROTOCOLS = {
    **{"tcp": 6, "udp": 17, "sctp": 132, "icmp": 1, "icmpv6": 58, "igmp": 2, "esp": 50, "ah": 51, "udplite": 136},
    "all": 17,
}
SOURCES, CONNECTIONS = 2, 5
JIFFIES_S = 0.012
"""nf_conncount looks for connections that are gone at most once in a tick, of 4 ms in Debian's kernel."""


@dataclass(frozen=True)
class Opening:
    """A frame that begins a connection, or says once more what began it."""

    source: int
    connection: int
    frame: bytes


def counting_tree(rng: random.Random, element: str) -> Tree:
    """A filter with a rule of `element` whose count decides, and perhaps another that counts beside it."""
    direction = rng.choice(("in", "out", "out", "inout"))
    # the guest's connections become more only if those below the limit pass
    deciding = [("drop", ""), ("reject", ""), ("accept", NOT)]
    if direction != "out":
        deciding += [("drop", NOT), ("accept", "")]
    action, sign = rng.choice(deciding)
    lines = [_rule(rng, element, action, direction, sign, rng.randint(1, 3), 150)]
    if rng.random() < 0.5:
        others = ("accept", "drop", "reject", "return", "continue", "continue")
        limit, priority = rng.choice((0, 3, 4, CONNECTIONS)), rng.choice((100, 200))
        lines.append(_rule(rng, element, rng.choice(others), direction, rng.choice(("", NOT)), limit, priority))
    if action == "accept":
        everything = "all-ipv6" if ELEMENTS[element].is_ipv6 else "all"
        lines.append(f"<rule action='drop' direction='inout' priority='900'><{everything}/></rule>")
    return Tree((Part(ROOT, "root", None, tuple(lines)),), (), frozenset([(element, "connlimit-above")]))


NOT = " match='no'"


def _rule(rng: random.Random, element: str, action: str, direction: str, sign: str, limit: int, priority: int) -> str:
    extra = f"<{element} {rng.choice(_extra(element))}/>"
    counting = f"<{element}{sign} connlimit-above='{limit}'/>"
    return f"<rule action='{action}' direction='{direction}' priority='{priority}'>{counting}{extra}</rule>"


def _extra(element: str) -> list[str]:
    """Conditions that all of the openings meet, and that those of one source or to one address don't."""
    six = ELEMENTS[element].is_ipv6
    found = ["", "", f"srcipaddr='{'2001:db8::1' if six else '10.0.0.1'}'"]
    found.append(f"match='no' dstipaddr='{'2001:db8::99' if six else '10.0.0.99'}'")
    if "dstportstart" in ELEMENTS[element].attributes:
        found.append("dstportstart='80'")
    return found


def openings(rng: random.Random, element: str) -> list[Opening]:
    """CONNECTIONS from each of SOURCES addresses, in any order, and some of them again."""
    six = ELEMENTS[element].is_ipv6
    protocol = PROTOCOLS[element.replace("-ipv6", "")]
    made = []
    for source in range(SOURCES):
        for connection in range(CONNECTIONS):
            values = {Field.SRC_PORT: 40000 + connection, Field.DST_PORT: 80, Field.TCP_FLAGS: 2}
            if six:
                values.update({Field.ETHER_TYPE: 0x86DD, Field.L4_PROTOCOL: protocol})
                values.update({Field.IP6_SRC: GUEST_IP6 + source, Field.IP6_DST: OTHER_IP6 + connection})
            else:
                values.update({Field.ETHER_TYPE: 0x0800, Field.IP_PROTOCOL: protocol})
                values.update({Field.IP_SRC: GUEST_IP + source, Field.IP_DST: OTHER_IP + connection})
            made.append(Opening(source, connection, build(values)))
    made += rng.sample(made, 3)
    rng.shuffle(made)
    return made


class Counted:
    """
    The kernel's lists of connections, one for each rule that counts and each source.

    A rule whose count a frame comes to puts the frame's connection at the end of the list, unless it is in there. On
    its way to the connection the kernel takes out what it doesn't track any more; what stands behind it stays.
    """

    def __init__(self, ruleset: Ruleset) -> None:
        self._sets = [named for named in ruleset.sets if named.purpose is SetPurpose.CONNLIMIT]
        self._lists: dict[tuple[NamedSet, int], list[int]] = defaultdict(list)
        self._tracked: set[tuple[int, int]] = set()

    def context(self, opening: Opening) -> Context:
        """What the kernel knows when the frame comes; its own connection is among the counted."""
        return Context(State.NEW, counts={each: len(self._with(each, opening)) for each in self._sets})

    def note(self, opening: Opening, evaluation: Evaluation, *, tracked: bool) -> None:
        """The frame has been; `tracked`: it has left by some tap, which is when the kernel begins to track it."""
        for each, _ in _counts(evaluation):
            self._lists[each, opening.source] = self._with(each, opening)
        if tracked:
            self._tracked.add((opening.source, opening.connection))

    def _with(self, named: NamedSet, opening: Opening) -> list[int]:
        """The list when the opening's connection has been put in: __nf_conncount_add in nf_conncount.c."""
        old = self._lists[named, opening.source]
        kept: list[int] = []
        for index, connection in enumerate(old):
            if (opening.source, connection) in self._tracked:
                if connection == opening.connection:
                    return kept + old[index:]
                kept.append(connection)
        return [*kept, opening.connection]


def _counts(evaluation: Evaluation) -> Iterator[tuple[NamedSet, bool]]:
    """The sets of the rules that the frame met so far as to be counted, and whether the count was as they ask."""
    for layer in evaluation.layers:
        for step in layer.steps:
            for match in step.rule.matches:
                if isinstance(match.test, CountAbove):
                    yield match.test.set, match != step.failed
                if match == step.failed:
                    break


def compare_counts(wire: Wire, tracker: Tracker, tree: Tree, sent: Iterable[Opening], tally: Tally) -> list[Difference]:
    """
    Send `sent` one way through `tree`, as the kernel and as the evaluator have it; the oracle is installed.

    A row is covered if a count of it was above the limit for one frame and not for another.
    """
    ruleset = tree.compile()
    refusal = install(wire, ruleset)
    if refusal:
        return [Difference(tree, None, None, f"refuses it: {refusal}", "has a verdict")]
    tracker.forget()
    counted = Counted(ruleset)
    out = "direction='out'" in tree.text()
    way, sender, receiver = (Way.FROM_GUEST, TAP, OUTSIDE) if out else (Way.TO_GUEST, OUTSIDE, TAP)
    before: list[str] = []
    seen: set[tuple[NamedSet, bool]] = set()
    for opening in sent:
        time.sleep(JIFFIES_S)
        arrived = arrivals(wire, opening.frame, sender)
        kernel = receiver in arrived
        if CONTROL in arrived:
            assert arrived[CONTROL].state is State.NEW, f"{arrived[CONTROL].state}: {opening.frame.hex()}"
        evaluation = evaluate(ruleset, opening.frame, way, counted.context(opening))
        counted.note(opening, evaluation, tracked=CONTROL in arrived)
        seen.update(_counts(evaluation))
        tally.frames += 1
        tally.dropped += not kernel
        if evaluation.passes is not kernel:
            told = "\n".join([why(evaluation), *before])
            return [Difference(tree, opening.frame, Passage(way), "passes" if kernel else "drops", told)]
        before.append(f"  after {opening.frame.hex()}")
    if any((each, True) in seen and (each, False) in seen for each, _ in seen):
        tally.rows |= tree.covered
    return []


def run_counts(wire: Wire, *, each: int, seed: int, patience: int = 3) -> Tally:
    """`each` trees of every element that can count."""
    wire.apply(oracle(("bridge",)))
    with wire.inside():
        # it takes UDP-Lite's checksums for UDP's, and so each of its packets for an invalid one
        Path("/proc/sys/net/netfilter/nf_conntrack_checksum").write_text("0\n")
    tracker = Tracker(wire)
    tally = Tally()
    for number in range(each):
        for element, _ in sorted(counting_rows()):
            rng = random.Random(f"{seed}/{number}/{element}")
            tree = counting_tree(rng, element)
            tally.differences += compare_counts(wire, tracker, tree, openings(rng, element), tally)
            tally.filters += 1
            if len(tally.differences) >= patience:
                return tally
    tracker.close()
    return tally
