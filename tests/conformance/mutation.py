"""
Frames at, just inside and just outside the bounds of a ruleset's rules.

A frame begins as one that meets all conditions of some rule. Then a field may move to a value next to a bound of a
condition on it, and the frame may get an unusual shape: tagged, a fragment, cut short, contradicting itself.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

from nwfilter_hook.ruleset.fields import Field, ValueType
from nwfilter_hook.ruleset.model import (
    Between,
    Chain,
    Equals,
    InSet,
    Masked,
    Match,
    NamedSet,
    Present,
    Ruleset,
    SameAs,
    Test,
    Verdict,
)
from tests.conformance.packets import (
    AUTHENTICATION,
    DESTINATION,
    FRAGMENT,
    GUEST_IP,
    GUEST_IP6,
    GUEST_MAC,
    HOP_BY_HOP,
    NO_NEXT,
    OTHER_IP,
    OTHER_IP6,
    OTHER_MAC,
    PLAIN,
    ROUTING,
    Shape,
    build,
)

POOLS = {
    ValueType.MAC: (GUEST_MAC, OTHER_MAC, GUEST_MAC + 1, 0x01005E000001),
    ValueType.IPV4: (GUEST_IP, GUEST_IP + 1, OTHER_IP, 0, 0xFFFFFFFF),
    ValueType.IPV6: (GUEST_IP6, GUEST_IP6 + 1, OTHER_IP6, 0xFE80 << 112 | 1),
    ValueType.NUMBER: (0, 1, 6, 17),
}
NOT_IN_FRAMES = (Field.CT_STATE, Field.CT_DIRECTION, Field.TAP)
ETHER_TYPES = (0x0800, 0x0800, 0x0800, 0x86DD, 0x86DD, 0x0806, 0x8035, 0x9000, 0x8100)
PROTOCOLS = (6, 17, 1, 58, 132, 136, 2, 50, 51, 33, 0, 255)
SETS = {
    ValueType.IPV4: (range(GUEST_IP, GUEST_IP + 2), range(OTHER_IP, OTHER_IP + 1)),
    ValueType.IPV6: (range(GUEST_IP6, GUEST_IP6 + 2), range(OTHER_IP6, OTHER_IP6 + 1)),
}
"""What the administrator's sets hold, in each dimension."""


def set_contents(named: NamedSet) -> frozenset[tuple[range, ...]]:
    """The elements of an administrator's set: each range above, the same in all dimensions."""
    return frozenset((span,) * named.dimensions for span in SETS[named.kind])


def frames(rng: random.Random, ruleset: Ruleset, count: int) -> Iterator[bytes]:
    """`count` frames that are to the point of `ruleset`, of any shape."""
    for values in cases(rng, ruleset, count):
        if rng.random() < 0.03:
            yield build({**values, **_MLD, Field.ICMPV6_TYPE: rng.choice(_MLD_TYPES)}, _shape_of_mld(rng))
        else:
            yield build(values, _shape(rng))


def cases(rng: random.Random, ruleset: Ruleset, count: int) -> Iterator[dict[Field, int]]:
    """The field values of `count` such frames."""
    rules = [
        (chain, rule)
        for chain in ruleset.chains
        for rule in chain.rules
        if rule.verdict is not Verdict.JUMP or rng.random() < 0.2
    ]
    for _ in range(count):
        values: dict[Field, int] = {}
        if rules and rng.random() < 0.95:
            chain, rule = rng.choice(rules)
            matches = (*_entrance(ruleset, chain), *rule.matches)
            values = _satisfy(rng, matches)
            _move(rng, values, matches)
        if Field.ETHER_TYPE not in values and not any(field.name.startswith("STP") for field in values):
            values[Field.ETHER_TYPE] = rng.choice(ETHER_TYPES)
        if values.get(Field.ETHER_TYPE) == 0x0800:
            values.setdefault(Field.IP_PROTOCOL, rng.choice(PROTOCOLS))
        elif values.get(Field.ETHER_TYPE) == 0x86DD:
            values.setdefault(Field.L4_PROTOCOL, values.get(Field.IP6_NEXT_HEADER, rng.choice(PROTOCOLS)))
        _fill(rng, values)
        yield values


def _entrance(ruleset: Ruleset, chain: Chain) -> Sequence[Match]:
    """What a frame must be to get into the chain."""
    if chain.name is None:
        return ()
    return next(
        (
            rule.matches
            for root in ruleset.chains
            if root.stage is chain.stage
            for rule in root.rules
            if rule.target == chain.name
        ),
        (),
    )


def _satisfy(rng: random.Random, matches: Sequence[Match]) -> dict[Field, int]:
    """Values that meet every condition, where one is found."""
    values: dict[Field, int] = {}
    for field in dict.fromkeys(match.field for match in matches):
        if field in NOT_IN_FRAMES:
            continue
        own = [match for match in matches if match.field is field]
        candidates = [value for match in own for value in near(field, match.test)]
        candidates += [value & (1 << field.bits) - 1 for value in POOLS[field.kind]]
        rng.shuffle(candidates)
        good = (value for value in candidates if all(_meets(match, value, values) for match in own))
        values[field] = next(good, candidates[0])
        for match in own:
            if isinstance(match.test, SameAs):
                values[match.test.other] = values[field] ^ int(match.negated)
    return values


def _meets(match: Match, value: int, values: dict[Field, int]) -> bool:
    test = match.test
    if isinstance(test, (Equals, Masked, Between)):
        return _inside(test, value) is not match.negated
    if isinstance(test, Present):
        return (value == test.kind) is not match.negated
    if isinstance(test, SameAs):
        return (value == values.get(test.other, value)) is not match.negated
    return True


def _inside(test: Test, value: int) -> bool:
    if isinstance(test, Equals):
        return value == test.value
    if isinstance(test, Masked):
        return value & test.mask == test.value
    assert isinstance(test, Between)
    return test.low <= value <= test.high


def near(field: Field, test: Test) -> list[int]:
    """Values at the bounds of `test`, and beside them on both sides."""
    if field in NOT_IN_FRAMES:
        return []
    top = (1 << field.bits) - 1
    values: list[int] = []
    if isinstance(test, Equals):
        values = [test.value - 1, test.value, test.value, test.value + 1, test.value ^ 1 << field.bits - 1]
    elif isinstance(test, Masked):
        lowest = test.mask & -test.mask
        values = [test.value, test.value | top & ~test.mask, test.value ^ lowest, test.value - 1]
    elif isinstance(test, Between):
        values = [test.low - 1, test.low, test.low + 1, test.high - 1, test.high, test.high + 1]
    elif isinstance(test, Present):
        values = [test.kind, test.kind, test.kind ^ 1]
    elif isinstance(test, InSet):
        spans = SETS.get(field.kind, ())
        values = [value for span in spans for value in (span[0] - 1, span[0], span[-1], span[-1] + 1)]
    return [value for value in values if 0 <= value <= top]


def _move(rng: random.Random, values: dict[Field, int], matches: Sequence[Match]) -> None:
    """Perhaps move some fields to a value near a bound."""
    for _ in range(rng.choice((0, 0, 1, 1, 1, 2))):
        match = rng.choice(matches) if matches else None
        nearby = near(match.field, match.test) if match else []
        if match and nearby:
            values[match.field] = rng.choice(nearby)


def _fill(rng: random.Random, values: dict[Field, int]) -> None:
    """Some fields that no condition is on."""
    for field in (Field.ETHER_SRC, Field.ETHER_DST, Field.IP_SRC, Field.IP_DST, Field.IP6_SRC, Field.IP6_DST):
        if rng.random() < 0.3:
            values.setdefault(field, rng.choice(POOLS[field.kind]))
    if rng.random() < 0.3:
        values.setdefault(Field.TCP_FLAGS, rng.choice((0, 2, 0x12, 0x10, 4, 0x3F, 0xC2)))
    if rng.random() < 0.2:
        values.setdefault(Field.VLAN_TYPE, rng.choice((0x0800, 0x86DD, 0x0806, 0x8100, 0x0100)))
    if rng.random() < 0.2:
        values.setdefault(Field.VLAN_ID, rng.choice((0, 7)))


_EXTENSIONS = ((HOP_BY_HOP,), (DESTINATION,), (ROUTING,), (FRAGMENT,), (AUTHENTICATION,), (HOP_BY_HOP, DESTINATION))


def _shape(rng: random.Random) -> Shape:
    """Mostly an ordinary one."""
    if rng.random() < 0.5:
        return PLAIN
    shape = rng.choice(
        (
            Shape(tags=(rng.choice((0x8100, 0x8100, 0x88A8)),)),
            Shape(tags=(rng.choice((0x8100, 0x88A8)), 0x8100)),
            Shape(ip_options=rng.choice((4, 8, 40))),
            Shape(more_fragments=True, extensions=(FRAGMENT,)),
            Shape(fragment_offset=rng.choice((8, 64, 0xFFF8)), extensions=rng.choice(_FRAGMENTS)),
            Shape(version=rng.choice((0, 4, 5, 6, 15))),
            Shape(header_words=rng.choice((0, 1, 4, 5, 6, 15))),
            Shape(total_difference=rng.choice((-100, -20, -13, -1, 1, 20, 60000))),
            Shape(extensions=rng.choice(_EXTENSIONS)),
            Shape(extensions=(HOP_BY_HOP, rng.choice((DESTINATION, ROUTING, NO_NEXT)), FRAGMENT)),
            Shape(tcp_options=rng.choice(_TCP_OPTIONS)),
            Shape(tcp_words=rng.choice((0, 4, 5, 6, 14, 15))),
            Shape(
                tcp_options=rng.choice(_TCP_OPTIONS), tcp_words=rng.choice((None, 6, 15)), length=rng.randint(66, 75)
            ),
            Shape(length=rng.choice((14, 15, 18, 20, 33, 34, 35, 37, 38, 47, 50, 53, 54, 55, 57, 58, 60, 100))),
        )
    )
    if rng.random() < 0.15:
        shape = replace(shape, length=rng.randint(14, 90))
    if rng.random() < 0.1:
        shape = replace(shape, tags=(0x8100,), ip_options=4)
    return shape


def _shape_of_mld(rng: random.Random) -> Shape:
    """As hosts send it, behind the router alert; sometimes cut short there."""
    return Shape(extensions=(HOP_BY_HOP,), length=rng.choice((None, None, None, rng.randint(54, 78))))


_MLD = {Field.ETHER_TYPE: 0x86DD, Field.L4_PROTOCOL: 58}
_MLD_TYPES = (130, 131, 132, 143, 135)
_FRAGMENTS = ((FRAGMENT,), (HOP_BY_HOP, FRAGMENT), (FRAGMENT, DESTINATION), (FRAGMENT, NO_NEXT))
_TCP_OPTIONS = (
    bytes.fromhex("020405b4"),
    bytes.fromhex("0204"),
    bytes.fromhex("01010101"),
    bytes.fromhex("0000"),
    bytes.fromhex("ff00"),
    bytes.fromhex("01020405b40101080a0000000000000000"),
    bytes.fromhex("0228"),
    bytes.fromhex("01017f02"),
)
