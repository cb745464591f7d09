"""
Two rulesets held against each other: the same verdict for each frame, by the same filter's rule.

In:  a ruleset as compiled, and one that was optimised; frames, and what the kernel could know beside them.
Out: where they differ, in words.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from nwfilter_hook.base.dataclass import replace
from nwfilter_hook.ruleset.evaluate import (
    Context,
    Evaluation,
    LayerVerdict,
    SetElement,
    State,
    Way,
    evaluate_frame,
    failing,
)
from nwfilter_hook.ruleset.frame import Frame, decode_frame
from nwfilter_hook.ruleset.judged import Judged, JudgedLayer, told_apart
from nwfilter_hook.ruleset.model import OR, Attachment, CountAbove, NamedSet, Ruleset, SetPurpose
from tests.conformance.mutation import set_contents
from tests.conformance.packets import GUEST_IP, GUEST_IP6, GUEST_MAC


def contexts(rng: random.Random, ruleset: Ruleset, way: Way) -> Iterator[Context]:
    """What the kernel may know: every state once, with sets that are empty, full, or hold the guest's addresses."""
    states = [State.UNTRACKED, State.NEW, State.ESTABLISHED, State.RELATED, State.INVALID]
    tracks = any(chain.stage.value.endswith("-l3") for chain in ruleset.chains)
    for state in states if tracks else states[:1]:
        counted = [each for each in ruleset.sets if each.purpose is SetPurpose.CONNLIMIT]
        yield Context(
            state,
            reply=rng.random() < 0.5,
            sets={each: _content(rng, each) for each in ruleset.sets if rng.random() < 0.8},
            counts={each: rng.choice((0, 1, 2, 3, 100)) for each in counted},
            from_host=way is Way.TO_GUEST and rng.random() < 0.3,
            full=frozenset(each for each in counted if rng.random() < 0.2),
        )


def _content(rng: random.Random, named: NamedSet) -> frozenset[SetElement]:
    if named.purpose is SetPurpose.IPSET:
        return set_contents(named)
    if named.purpose is SetPurpose.LEASED:
        return frozenset([(range(0, 1),)]) if rng.random() < 0.7 else frozenset()
    if named.purpose in (SetPurpose.LEARNED, SetPurpose.MACS):
        address = {"mac": GUEST_MAC + 1, "ipv4": GUEST_IP, "ipv6": GUEST_IP6}[named.kind.value]
        if named.mask is not None:
            address &= named.mask
        return frozenset([(range(address, address + 1),)]) if rng.random() < 0.7 else frozenset()
    return frozenset()


def differences(
    plain: Ruleset, optimised: Ruleset, frames: Sequence[bytes], rng: random.Random
) -> Iterator[tuple[str, Evaluation, Evaluation]]:
    """What differs, with both evaluations."""
    for data in frames:
        for way in Way:
            frame = decode_frame(data, in_tag=plain.attachment is Attachment.MACVTAP and way is Way.FROM_GUEST)
            for context in contexts(rng, plain, way):
                one = evaluate_frame(plain, frame, way, context)
                other = evaluate_frame(optimised, frame, way, context)
                said = compare(one, other, plain, frame) or _not_given(other, frame, context)
                if said:
                    yield f"{data.hex()} {way.name} {context}: {said}", one, other


def compare(one: Evaluation, other: Evaluation, plain: Ruleset, frame: Frame) -> str:
    """What is otherwise with the optimised ruleset; "" if nothing is."""
    if [(each.stage, each.verdict) for each in one.layers] != [(each.stage, each.verdict) for each in other.layers]:
        return "another verdict"
    if one.sets != other.sets:
        return "other things were learned"
    if _counted(one) != _counted(other):
        return "other connections were counted"
    pairs = zip(one.layers, other.layers)
    return next((said for pair in pairs for said in [_deciding(*pair, plain, frame)] if said), "")


def _deciding(one: LayerVerdict, other: LayerVerdict, plain: Ruleset, frame: Frame) -> str:
    rule, optimised = one.decided_by, other.decided_by
    if optimised is None:
        return f"{rule.provenance} decided, and now nobody" if rule else ""
    if rule is None:
        return f"nobody decided, and now {optimised.provenances}"
    layer = JudgedLayer(other.stage, "", False, OR.join(optimised.provenances))
    (told,) = told_apart(Judged(Way.FROM_GUEST, 0, b"", True, (layer,), True), plain, frame).layers
    return "" if rule.provenance == told.rule else f"{rule.provenance} decided, and now {optimised.provenances}"


def _counted(evaluation: Evaluation) -> list[NamedSet]:
    """The sets that were asked to count the packet, in their order."""
    found = []
    for layer in evaluation.layers:
        for step in layer.steps:
            for match in step.rule.matches:
                if isinstance(match.test, CountAbove):
                    found.append(match.test.set)
                if match is step.failed:
                    break
    return found


def _not_given(evaluation: Evaluation, frame: Frame, context: Context) -> str:
    """A condition that a rule takes for granted, and that doesn't hold."""
    for layer in evaluation.layers:
        for step in layer.steps:
            if step.rule.given and failing(replace(step.rule, matches=step.rule.given), frame, context):
                return f"not given, in {step.chain}: {step.rule}"
    return ""
