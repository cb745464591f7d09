"""
`explain` and `trace` agree: what one works out of a frame the other hears from the kernel, by layer and rule.

Other tests compare verdicts, and how many frames each rule applied to; here every frame has a rule of its own that
decided, by the kernel's trace.
"""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

import pytest

from nwfilter_hook.compiler.optimise import optimised
from nwfilter_hook.explain.explain import LAYERS, Explanation, explain
from nwfilter_hook.nftables import trace
from nwfilter_hook.nftables.process import Nft
from nwfilter_hook.nftables.trace import NftTracer
from nwfilter_hook.ruleset.evaluate import Way, evaluate
from nwfilter_hook.ruleset.frame import decode_frame
from nwfilter_hook.ruleset.judged import Judged, Sought, told_apart
from nwfilter_hook.ruleset.model import Attachment, Ruleset
from tests.conformance.filters import TAP, Tree, random_tree
from tests.conformance.kernel import CONTROL, OUTSIDE, TAGS, TAPS, Known, install
from tests.conformance.mutation import frames
from tests.support.netns import BRIDGE, Wire
from tests.unit.compiling import installed_by

pytestmark = pytest.mark.netns

FILTERS, FRAMES, SEED = 45, 45, 7
LEAST = 5000
RATE = 10_000
SLOW_S = 5.0

Told = tuple[bool, tuple[tuple[str, bool, str], ...]]
"""Whether it passes; of each layer its name, whether it drops, and the rule."""


@dataclass
class Compared:
    """What was compared, and the frames that were told otherwise."""

    frames: int = 0
    dropped: int = 0
    untold: int = 0
    rules: set[tuple[str, str]] = field(default_factory=set)
    differences: list[str] = field(default_factory=list)


@contextmanager
def tracing(wire: Wire, ruleset: Ruleset) -> Iterator[NftTracer]:
    """A trace of TAP."""
    with wire.inside():
        sought = Sought(Attachment.BRIDGE_PORT, socket.if_nametoindex(TAP), tuple(Way), (), RATE)
        with closing(NftTracer(Nft("nft", 20), installed_by(ruleset), sought)) as tracer:
            yield tracer


def told(wire: Wire, tracer: NftTracer) -> Judged:
    """The one frame that the kernel tells of."""
    end = time.monotonic() + SLOW_S
    found: list[Judged] = []
    while not found and time.monotonic() < end:
        with wire.inside():
            found = tracer.read()
    assert len(found) == 1, found
    (judged,) = found
    return judged


def by_the_kernel(judged: Judged) -> Told:
    """As the kernel has it."""
    return judged.passes, tuple(
        (LAYERS[layer.stage] if layer.stage else layer.place, layer.drops, layer.rule) for layer in judged.layers
    )


def by_explain(found: Explanation) -> Told:
    """As `explain` has it."""
    return found.passes, tuple(
        (layer.layer, layer.verdict != "accept", layer.decided_by.rule if layer.decided_by else "")
        for layer in found.layers
    )


def sent(wire: Wire, frame: bytes) -> Iterator[tuple[Way, bool, bool]]:
    """Send it both ways, and from the host: the way, whether from the host, whether it arrives."""
    arrived = wire.arrivals(frame, OUTSIDE)
    if CONTROL not in arrived:
        return  # the bridge itself drops it
    yield Way.TO_GUEST, False, TAP in arrived
    yield Way.FROM_GUEST, False, wire.passes(frame, TAP, OUTSIDE)
    if frame[12:14] not in TAGS:
        arrived = wire.arrivals(frame, BRIDGE)
        if CONTROL in arrived:
            yield Way.TO_GUEST, True, TAP in arrived


def compare(wire: Wire, tree: Tree, rng: random.Random, compared: Compared, *, optimise: bool) -> None:
    """Frames for `tree`, by the kernel, as filters have its rules or as they are optimised, and by `explain`."""
    ruleset = tree.compile()
    in_force = optimised(ruleset) if optimise else ruleset
    assert not install(wire, in_force)
    known = Known(ruleset)
    with tracing(wire, in_force) as tracer:
        for frame in frames(rng, ruleset, FRAMES):
            for way, from_host, arrives in sent(wire, frame):
                context = known.context(from_host=from_host)
                judged = told_apart(told(wire, tracer), ruleset, decode_frame(frame))
                found = explain(ruleset, decode_frame(frame), way, context, lambda rule: "")
                known.learn(evaluate(ruleset, frame, way, context))
                compared.frames += judged.verdict != "unknown"
                compared.dropped += not found.passes
                compared.rules |= {(tree.text(), layer[2]) for layer in by_explain(found)[1]}
                if judged.verdict == "unknown":
                    compared.untold += 1
                elif (by_the_kernel(judged), judged.passes, judged.data) != (by_explain(found), arrives, frame):
                    compared.differences.append(
                        f"{tree.text()}\n{frame.hex()} {way.name}\nkernel: {by_the_kernel(judged)} arrives={arrives} "
                        f"{judged.data.hex()}\nexplain: {by_explain(found)}"
                    )
            with wire.inside():
                tracer.read()  # what the bridge itself drops behind the tap's rules


def test_explain_agrees_with_the_kernels_trace(able: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """On more than 5,000 frames: the verdict of each layer, the rule that decided it, and the frame itself."""
    monkeypatch.setattr(trace, "PATIENCE_S", 0.005)  # when a frame has arrived, all has been told of it
    compared = Compared()
    with Wire(TAPS) as wire:
        for number in range(FILTERS):
            rng = random.Random(f"{SEED}/{number}")
            compare(wire, random_tree(rng), rng, compared, optimise=number % 3 > 0)
            assert not compared.differences, "\n\n".join(compared.differences[:3])
    assert compared.frames >= LEAST
    assert 0.1 < compared.dropped / compared.frames < 0.9
    assert len(compared.rules) > 120
    assert compared.untold < compared.frames / 50
