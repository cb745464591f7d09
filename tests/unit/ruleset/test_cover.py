"""Whether one rule's conditions cover another's, or exclude them: what is claimed is true of every frame."""

from __future__ import annotations

import itertools
import random

import pytest

from nwfilter_hook.base.errors import NOWHERE
from nwfilter_hook.ruleset.cover import covers, disjoint
from nwfilter_hook.ruleset.evaluate import Context, State, Way, evaluate
from nwfilter_hook.ruleset.fields import Field, ValueType
from nwfilter_hook.ruleset.model import (
    AnyState,
    Attachment,
    Between,
    Chain,
    Equals,
    InSet,
    Masked,
    Match,
    NamedSet,
    Rule,
    Ruleset,
    SetPurpose,
    Stage,
    Verdict,
)
from tests.conformance.packets import build

Matches = tuple[Match, ...]
IP, PORT, STATE = Field.IP_SRC, Field.DST_PORT, Field.CT_STATE
NET = Masked(0xFFFFFF00, 0x0A000000)
FRIENDS = InSet(NamedSet(SetPurpose.IPSET, "friends", ValueType.IPV4))


def of(field: Field, *tests: object, no: bool = False) -> Matches:
    """A condition for each test on one field."""
    return tuple(Match(field, test, no) for test in tests)  # type: ignore[arg-type]


def state(*names: str, no: bool = False) -> Matches:
    return of(STATE, AnyState(frozenset(names)), no=no)


COVERED = {
    "nothing asked covers all": ((), of(IP, Equals(1))),
    "the same": (of(IP, FRIENDS), of(IP, FRIENDS)),
    "a port in a range": (of(PORT, Between(20, 80)), of(PORT, Equals(80))),
    "a range in a range": (of(PORT, Between(20, 80)), of(PORT, Between(20, 25))),
    "an address in its network": (of(IP, NET), of(IP, Equals(0x0A000063))),
    "a network in a wider one": (of(IP, Masked(0xFF000000, 0x0A000000)), of(IP, NET)),
    "a range in a network": (of(IP, NET), of(IP, Between(0x0A000003, 0x0A000009))),
    "a network in a range": (of(IP, Between(0x0A000000, 0x0A0001FF)), of(IP, NET)),
    "another address": (of(IP, Equals(1), no=True), of(IP, Equals(2))),
    "outside of the network": (of(IP, NET, no=True), of(IP, Equals(0x0B000001))),
    "not in the wider": (of(IP, Equals(0x0A000063), no=True), of(IP, NET, no=True)),
    "a multicast bit": (of(Field.ETHER_DST, Masked(1 << 40, 1 << 40)), of(Field.ETHER_DST, Equals(0x01005E000001))),
    "the one bit, or not": (of(Field.TCP_FLAGS, Masked(2, 2)), of(Field.TCP_FLAGS, Masked(2, 0), no=True)),
    "what a negated range leaves": (of(PORT, Between(81, 65535)), of(PORT, Between(0, 80), no=True)),
    "of more states": (state("new", "established"), state("new")),
    "of all states": (state("new", "established", "related", "invalid", "untracked"), ()),
    "of all but one": (state("invalid", no=True), state("new")),
    "more is asked": (of(IP, NET), of(IP, NET) + of(PORT, Equals(80))),
}
NOT_COVERED = {
    "a negation where the field may not be there": (of(IP, Equals(1), no=True), ()),
    "all of a field that may not be there": (of(IP, Between(0, 2**32 - 1)), ()),
    "wider": (of(IP, Equals(0x0A000063)), of(IP, NET)),
    "one port more": (of(PORT, Between(20, 80)), of(PORT, Between(20, 81))),
    "other fields": (of(IP, NET), of(Field.IP_DST, NET)),
    "another set": (of(IP, FRIENDS), of(IP, InSet(NamedSet(SetPurpose.IPSET, "foes", ValueType.IPV4)))),
    "not that set": (of(IP, FRIENDS), of(IP, FRIENDS, no=True)),
    "an address and a set": (of(IP, FRIENDS), of(IP, Equals(1))),
    "fewer states": (state("new"), state("new", "related")),
}
DISJOINT = {
    "two addresses": (of(IP, Equals(1)), of(IP, Equals(2))),
    "an address and another network": (of(IP, NET), of(IP, Equals(1))),
    "two ranges": (of(PORT, Between(1, 79)), of(PORT, Between(80, 90))),
    "a condition and its negation": (of(IP, FRIENDS), of(IP, FRIENDS, no=True)),
    "an address out of all but its network": (of(IP, NET, no=True), of(IP, Equals(0x0A000001))),
    "states": (state("new"), state("established")),
    "a way that only tracked packets have": (of(Field.CT_DIRECTION, Equals(0)), state("untracked", "invalid")),
    "nothing left": (of(PORT, Between(0, 80), no=True), of(PORT, Between(80, 65535), no=True)),
}
NOT_DISJOINT = {
    "nothing asked": ((), of(IP, Equals(1))),
    "overlapping ranges": (of(PORT, Between(1, 80)), of(PORT, Between(80, 90))),
    "other fields": (of(IP, Equals(1)), of(Field.IP_DST, Equals(2))),
    "two sets": (of(IP, FRIENDS), of(IP, InSet(NamedSet(SetPurpose.IPSET, "foes", ValueType.IPV4)))),
    "two negations": (of(IP, Equals(1), no=True), of(IP, Equals(2), no=True)),
    "a state and a way": (of(Field.CT_DIRECTION, Equals(1)), state("established", "untracked")),
}


@pytest.mark.parametrize(("one", "other"), COVERED.values(), ids=COVERED)
def test_covered(one: Matches, other: Matches) -> None:
    """It is found that every frame which passes the second passes the first."""
    assert covers(one, other)
    assert not disjoint(one, other)


@pytest.mark.parametrize(("one", "other"), NOT_COVERED.values(), ids=NOT_COVERED)
def test_not_covered(one: Matches, other: Matches) -> None:
    """Frames are left over."""
    assert not covers(one, other)


@pytest.mark.parametrize(("one", "other"), DISJOINT.values(), ids=DISJOINT)
def test_disjoint(one: Matches, other: Matches) -> None:
    """It is found that no frame passes both, whichever is asked first."""
    assert disjoint(one, other)
    assert disjoint(other, one)


@pytest.mark.parametrize(("one", "other"), NOT_DISJOINT.values(), ids=NOT_DISJOINT)
def test_not_disjoint(one: Matches, other: Matches) -> None:
    """A frame may pass both."""
    assert not disjoint(one, other)
    assert not disjoint(other, one)


# --- at random, against the evaluator --------------------------------------------------------------------------------

NUMBERS = {
    Field.IP_SRC: (0x0A000000, 0x0A000001, 0x0A0000FF, 0x0A800000, 0, 0xFFFFFFFF),
    Field.DST_PORT: (0, 1, 22, 80, 443, 65535),
    Field.TCP_FLAGS: (0, 2, 16, 18, 255),
    Field.ETHER_DST: (0x01005E000001, 0x525400000001, 0xFFFFFFFFFFFF),
}
STATES = tuple(each.value for each in State)


def some_match(rng: random.Random) -> Match:
    field = rng.choice((*NUMBERS, Field.CT_STATE, Field.CT_DIRECTION))
    if field is Field.CT_STATE:
        return Match(field, AnyState(frozenset(rng.sample(STATES, rng.randint(1, 4)))), rng.random() < 0.5)
    if field is Field.CT_DIRECTION:
        return Match(field, Equals(rng.randint(0, 1)), rng.random() < 0.5)
    low, high = sorted(rng.choices(NUMBERS[field], k=2))
    mask = rng.choice((0x80, 0x82, 0xFFFFFFFFFF00, 0xFF0000000000, 1 << 40, 0xFFFFFFFFFFFF)) & (1 << field.bits) - 1
    tests = (Equals(low), Between(low, high), Masked(mask, high & mask))
    return Match(field, rng.choice(tests), rng.random() < 0.5)


def applies(matches: Matches, data: bytes, context: Context) -> bool:
    rule = Rule(matches, Verdict.DROP, "f", NOWHERE)
    ruleset = Ruleset("vnet0", Attachment.BRIDGE_PORT, (Chain(Stage.FROM_L2, None, (rule,)),), ())
    return not evaluate(ruleset, data, Way.FROM_GUEST, context).passes


def test_what_is_claimed_is_true() -> None:
    """Of random pairs of rules none is said to cover, or exclude, the other against what the evaluator finds."""
    rng = random.Random(13)
    tcp = {Field.ETHER_TYPE: 0x0800, Field.IP_PROTOCOL: 6}
    frames = [
        build({**tcp, **dict(zip(NUMBERS, values))})
        for values in itertools.product(*((*each, each[0] ^ 0x80) for each in NUMBERS.values()))
    ]
    frames = [*rng.sample(frames, 150), build({Field.ETHER_TYPE: 0x0806})]
    contexts = [Context(each, reply) for each in State for reply in (False, True)]
    claims = dict.fromkeys((True, False), 0)
    for _ in range(4000):
        one, other = (tuple(some_match(rng) for _ in range(rng.randint(1, 2))) for _ in range(2))
        claimed = covers(one, other), disjoint(one, other)
        if not any(claimed):
            continue
        claims[claimed[0]] += 1
        for data in rng.sample(frames, 20):
            context = rng.choice(contexts)
            if applies(other, data, context):
                assert applies(one, data, context) or not claimed[0], (one, other)
                assert not applies(one, data, context) or not claimed[1], (one, other)
    assert min(claims.values()) > 50, claims
