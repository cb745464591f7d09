"""
Hold the kernel's verdicts against the evaluator's.

In:  trees of filters, and frames for each.
Out: the `Difference`s, each reduced to one frame and the fewest lines of filter that still show it.

A tree is installed on the tap of a guest in one transaction. Each frame then goes both ways: from an unfiltered tap to
the guest, and from the guest to the unfiltered tap; and once more to the guest, sent by the host itself. What a third
tap doesn't get either, the bridge itself drops, and it says nothing about the filter. Every rule has a counter, so that
besides the verdict of each frame the number of frames that each rule applied to is compared.
"""

from __future__ import annotations

import ipaddress
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from nwfilter_hook.compiler.optimise import optimised
from nwfilter_hook.nftables.names import chain_name
from nwfilter_hook.nftables.sets import set_name
from nwfilter_hook.ruleset.evaluate import NO_CONTEXT, Context, Evaluation, SetElement, Way, evaluate
from nwfilter_hook.ruleset.fields import ValueType
from nwfilter_hook.ruleset.model import NamedSet, Ruleset, SameAs, SetPurpose, Verdict
from tests.conformance.filters import TAP, Tree
from tests.conformance.kinds import kinds
from tests.conformance.mutation import set_contents
from tests.support.netns import BRIDGE, Wire
from tests.unit.compiling import script as script_of

OUTSIDE, CONTROL = "vnet1", "vnet2"
TAPS = (TAP, OUTSIDE, CONTROL)
TAGS = (b"\x81\x00", b"\x88\xa8")

Counts = dict[tuple[str, str], float]
"""Frames that a rule applied to, by its chain and its comment; infinity where the kernel's number says nothing."""


@dataclass(frozen=True)
class Passage:
    """Which way a frame goes; to the guest it is bridged, or sent by the host itself."""

    way: Way
    from_host: bool = False

    def __str__(self) -> str:
        return self.way.name + " from the host" * self.from_host


@dataclass(frozen=True)
class Difference:
    """
    What the kernel and the evaluator don't agree on.

    Attributes:
        frame: None if it is about the counters of a rule.
    """

    tree: Tree
    frame: bytes | None
    passage: Passage | None
    kernel: str
    evaluator: str

    def __str__(self) -> str:
        frame = "" if self.frame is None else f"\nframe {self.frame.hex()} {self.passage}"
        return f"{self.tree.text()}{frame}\nkernel: {self.kernel}\nevaluator: {self.evaluator}"


@dataclass
class Tally:
    """What a run has done."""

    filters: int = 0
    frames: int = 0
    dropped: int = 0
    states: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    rows: set[tuple[str, str]] = field(default_factory=set)
    differences: list[Difference] = field(default_factory=list)

    def line(self, known_rows: int) -> str:
        """What the conformance suite prints."""
        return (
            f"conformance: {len(self.rows)} of {known_rows} rows covered, {self.filters} filters, {self.frames} frames "
            f"({self.dropped} dropped), {len(self.differences)} differences"
            + "".join(f"; {state} {number}" for state, number in sorted(self.states.items()))
        )


class Known:
    """What the kernel knows of the named sets, as frame after frame changes it."""

    def __init__(self, ruleset: Ruleset) -> None:
        self.sets: dict[NamedSet, frozenset[SetElement]] = {
            named: set_contents(named) for named in ruleset.sets if named.purpose is SetPurpose.IPSET
        }

    def context(self, *, from_host: bool = False) -> Context:
        """For the next frame."""
        return Context(NO_CONTEXT.state, sets=self.sets, from_host=from_host)

    def learn(self, evaluation: Evaluation) -> None:
        """What the frame left behind."""
        self.sets = dict(evaluation.sets)


def install(wire: Wire, ruleset: Ruleset) -> str:
    """Put exactly `ruleset` in force, with the administrator's sets filled. Returns what nft says against it."""
    family = ruleset.attachment.family
    script = [f"{verb} table {each} nwfilter" for each in ("bridge", "netdev") for verb in ("add", "delete")]
    script.append(script_of(ruleset, counters="all"))
    for named in ruleset.sets:
        if named.purpose is SetPurpose.IPSET:
            elements = ", ".join(_element(named, element) for element in set_contents(named))
            script.append(f"add element {family} nwfilter {set_name(TAP, named)} {{ {elements} }}")
    return wire.run("nft", "-f", "-", stdin="\n".join(script) + "\n", check=False).stderr


def _element(named: NamedSet, element: SetElement) -> str:
    address = ipaddress.IPv4Address if named.kind is ValueType.IPV4 else ipaddress.IPv6Address
    return " . ".join(f"{address(span[0])}-{address(span[-1])}" for span in element)


Send = Callable[[Wire, bytes], Mapping[Passage, bool]]
"""Send a frame all ways: which does the kernel let it pass? What says nothing about the filter is left out."""


def over_the_bridge(wire: Wire, frame: bytes) -> dict[Passage, bool]:
    """What a third tap doesn't get either, the bridge itself drops."""
    arrived = wire.arrivals(frame, OUTSIDE)
    if CONTROL not in arrived:
        return {}
    passed = {Passage(Way.TO_GUEST): TAP in arrived, Passage(Way.FROM_GUEST): wire.passes(frame, TAP, OUTSIDE)}
    from_host = host_sends(wire, frame)
    if from_host is not None:
        passed[Passage(Way.TO_GUEST, from_host=True)] = from_host
    return passed


def host_sends(wire: Wire, frame: bytes) -> bool | None:
    """
    Does the frame pass to the guest when the host sends it? None if that says nothing about the filter, and for a frame
    with a tag: it would be part of the frame's data, where the tag of a VLAN device is kept beside the frame.
    """
    arrived = frozenset() if frame[12:14] in TAGS else wire.arrivals(frame, BRIDGE)
    return TAP in arrived if CONTROL in arrived else None


def compare(
    wire: Wire,
    tree: Tree,
    frames: Sequence[bytes],
    tally: Tally | None = None,
    send: Send = over_the_bridge,
    *,
    optimise: bool = False,
) -> list[Difference]:
    """Send `frames` through `tree`, as the kernel and as the evaluator have it; `optimise`: as it is put into force."""
    ruleset = optimised(tree.compile()) if optimise else tree.compile()
    refusal = install(wire, ruleset)
    if refusal:
        return [Difference(tree, None, None, f"refuses it: {refusal}", "has a verdict")]
    known = Known(ruleset)
    expected: Counts = defaultdict(float)
    found = []
    for frame in frames:
        for passage, kernel in send(wire, frame).items():
            context = known.context(from_host=passage.from_host)
            evaluation = evaluate(ruleset, frame, passage.way, context)
            known.learn(evaluation)
            _count(expected, evaluation)
            if tally is not None:
                tally.frames += 1
                tally.dropped += not kernel
                tally.kinds.update(kinds(frame))
            if evaluation.passes is not kernel:
                found.append(Difference(tree, frame, passage, "passes" if kernel else "drops", why(evaluation)))
    if not found:
        found += _compare_counters(wire, tree, expected, frames[0] if len(frames) == 1 else None)
    return found


def _count(counts: Counts, evaluation: Evaluation) -> None:
    for layer in evaluation.layers:
        for step in layer.steps:
            # nft has one rule for each octet in which two fields may differ: several count, if each lets go on
            several = step.rule.verdict is Verdict.CONTINUE and any(
                isinstance(match.test, SameAs) and match.negated for match in step.rule.matches
            )
            # and what learns has chains of its own, for frames of which it has seen none within the last minute
            several = several or step.rule.verdict is Verdict.LEARN
            if step.applies:
                counts[chain_name(TAP, layer.stage, step.chain), step.rule.comment] += math.inf if several else 1


def _compare_counters(wire: Wire, tree: Tree, expected: Counts, frame: bytes | None) -> list[Difference]:
    counted: Counts = defaultdict(float)
    for family in ("bridge", "netdev"):
        for rule in wire.rules(family):
            if rule.packets and "/learn-" not in rule.chain:
                counted[rule.chain, rule.comment] += rule.packets
    return [
        Difference(tree, frame, None, f"{key} applied to {counted[key]}", f"to {expected[key]} frames")
        for key in sorted({*counted, *expected})
        if expected[key] not in (counted[key], math.inf)
    ]


def why(evaluation: Evaluation) -> str:
    """How the evaluator came to its verdict."""
    lines = ["passes" if evaluation.passes else "drops"]
    for layer in evaluation.layers:
        by = layer.decided_by
        lines.append(f"  {layer.stage.value}: {layer.verdict.value} by {by and by.provenance}")
        for step in layer.steps:
            mark = "applies" if step.applies else f"fails at {step.failed} (has {step.value})"
            lines.append(f"    {step.rule.provenance} {step.rule.verdict.value} {mark}")
    return "\n".join(lines)


def reduce(
    difference: Difference, frames: Sequence[bytes], again: Callable[[Tree, Sequence[bytes]], Iterable[Difference]]
) -> Difference:
    """The smallest tree, and the one frame, that still show a difference."""
    smallest = difference
    candidates = frames if difference.frame is None else (difference.frame,)
    for frame in candidates:
        alone = next(iter(again(smallest.tree, [frame])), None)
        if alone is not None:
            smallest = alone
            frames = [frame]
            break
    while True:
        trees = smallest.tree.smaller()
        less = next((each for tree in trees for each in list(again(tree, frames))[:1]), None)
        if less is None:
            return smallest
        smallest = less
