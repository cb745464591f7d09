"""
Sets of frames, exactly: which frames pass a rule's conditions, and which of them are left by the rules before it.

In:  all the conditions of some rules.
Out: `Regions`, in which a set of frames is a number, and numbers can be joined, met and subtracted; equal sets have
     equal numbers, `NOTHING` is the empty one.

A set is a decision diagram: a node asks for one field, and has a branch for each class of its values (values.py), one
of which is "can't be read". What isn't a number (is it in that set? does it equal that other field?) is asked as it
is, with yes and no. `everything` has the frames that there can be: a port only in IP packets, a state only of those …

Such diagrams are known from the design of firewalls: Gouda, Liu: "Structured Firewall Design", 2007.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Union

from .cover import ALWAYS_THERE, STATES, TRACKED
from .fields import Base, Field, Header
from .model import (
    AnyState,
    Between,
    CountAbove,
    Equals,
    InSet,
    Masked,
    Match,
    NamedSet,
    Present,
    SameAs,
    Test,
    Uncounted,
)
from .numbers import EtherType
from .values import Classes, TooComplex

NOTHING, ALL = 0, 1
MAX_NODES = 300_000
_NUMBERS = (Equals, Masked, Between)
_STATES = sorted(STATES)
_VERSIONS = {EtherType.IPV4: (Header.IPV4, Field.IP_PROTOCOL), EtherType.IPV6: (Header.IPV6, Field.L4_PROTOCOL)}
_FIRST: dict[Field, Equals | Masked] = {Field.IP_FRAGMENT: Masked(0x1FFF, 0), Field.IP6_FRAGMENT: Equals(0)}
"""A packet's first fragment, or a whole one."""

Question = Union[Field, tuple[Field, Test], tuple[str, NamedSet]]
"""What a node asks: a field, something opaque about it, or whether a set is full."""


class Regions:
    """
    Raises:
        TooComplex: the rules ask for too much; also raised by the methods.
    """

    def __init__(self, matches: Iterable[Match]) -> None:
        given = tuple(dict.fromkeys(matches))
        self._nodes: list[tuple[int, int, tuple[tuple[int, int], ...]]] = [(1 << 30, 0, ()), (1 << 30, 1, ())]
        self._numbers: dict[tuple[int, int, tuple[tuple[int, int], ...]], int] = {}
        self._memo: dict[tuple[str, int, int], int] = {}
        tests = _tests(given)
        self._classes: dict[Field, Classes] = {}
        for field, of_field in tests.items():
            if field is not Field.CT_STATE:
                self._classes[field] = Classes(of_field, field.bits or 1)
        opaque = dict.fromkeys(each for match in given for each in _opaque(match))
        order = {field: position for position, field in enumerate(Field)}
        questions: list[Question] = [*sorted(tests, key=order.__getitem__), *opaque]
        self._level: dict[Question, int] = {question: level for level, question in enumerate(questions)}
        self.everything = ALL
        for region in list(self._facts(tests)):
            self.everything = self.both(self.everything, region)

    def of(self, matches: Iterable[Match]) -> int:
        """The frames that pass them all."""
        region = self.everything
        for match in matches:
            region = self.both(region, self._of(match))
        return region

    def both(self, one: int, other: int) -> int:
        """What is in both."""
        return self._apply("&", one, other)

    def either(self, one: int, other: int) -> int:
        """What is in one of them."""
        return self._apply("|", one, other)

    def without(self, one: int, other: int) -> int:
        """What is in `one` only."""
        return self._apply("-", one, other)

    # --- conditions ---------------------------------------------------------------------------------------------------

    def _of(self, match: Match) -> int:
        test, field = match.test, match.field
        if isinstance(test, AnyState):
            states = STATES - test.states if match.negated else test.states
            return self._node(self._level[field], {number: int(name in states) for number, name in enumerate(_STATES)})
        readable = self._readable(field)
        if isinstance(test, _NUMBERS):
            passing = self._values(field, test)
            return self.without(readable, passing) if match.negated else passing
        if isinstance(test, Uncounted):
            holds = self._yes(("full", test.set))
        else:
            holds = self._yes((field, test))
            for other in (test.other,) if isinstance(test, SameAs) else test.fields if isinstance(test, InSet) else ():
                readable = self.both(readable, self._readable(other))
            if isinstance(test, CountAbove):
                readable = self.without(readable, self._yes(("full", test.set)))
        return self.without(readable, holds) if match.negated else self.both(readable, holds)

    def _values(self, field: Field, test: Equals | Masked | Between) -> int:
        classes = self._classes[field]
        passing = classes.of(test)
        level = self._level[field]
        # class 0 is the default branch: the others are told if they differ from it
        differing = set(range(1, classes.count)) - passing if 0 in passing else passing
        branches = {number: int(0 not in passing) for number in differing}
        if 0 in passing and field not in ALWAYS_THERE:
            branches[classes.count] = 0
        return self._sparse(level, int(0 in passing), branches)

    def _readable(self, field: Field) -> int:
        if field in ALWAYS_THERE:
            return ALL
        return self._sparse(self._level[field], 1, {self._classes[field].count: 0})

    def _yes(self, question: Question) -> int:
        return self._sparse(self._level[question], 0, {1: 1})

    # --- what frames there are ----------------------------------------------------------------------------------------

    def _facts(self, tests: Iterable[Field]) -> Iterable[int]:
        """Each is true of every frame."""
        fields = tuple(tests)
        for field in fields:
            if field in ALWAYS_THERE:
                continue
            there = self._readable(field)
            yield self._if(there, self._carriers(field))
            for other in fields:
                if other.header is field.header is not Header.NONE and _ends(other) < _ends(field):
                    yield self._if(there, self._readable(other))
            if field.header.base is Base.TRANSPORT or field in (Field.L4_PROTOCOL, Field.IP6_FRAGMENT):
                yield self._if(there, self._behind_ip(field, fields))
        if Field.CT_STATE in fields:
            tracked = self._of(Match(Field.CT_STATE, AnyState(TRACKED | {"invalid"})))
            yield self._if(tracked, self.either(self._inner(EtherType.IPV4), self._inner(EtherType.IPV6)))
        if Field.CT_DIRECTION in fields:
            yield self._same(self._readable(Field.CT_DIRECTION), self._of(Match(Field.CT_STATE, AnyState(TRACKED))))

    def _carriers(self, field: Field) -> int:
        """The frames that can have the field."""
        if field.header is Header.TAG:
            return self._values(Field.ETHER_TYPE, Equals(EtherType.VLAN))
        types = field.header.numbers if field.header.base is Base.NETWORK else ()
        region = NOTHING
        for number in types:
            region = self.either(region, self._inner(number))
        return region if types else ALL

    def _inner(self, number: int) -> int:
        """The frames that carry this, in a tag or not; the kernel doesn't say what is in a provider's tag."""
        tagged = self.both(
            self._values(Field.ETHER_TYPE, Equals(EtherType.VLAN)), self._values(Field.VLAN_TYPE, Equals(number))
        )
        plain = self._values(Field.ETHER_TYPE, Equals(number))
        return self.either(self.either(plain, tagged), self._values(Field.ETHER_TYPE, Equals(EtherType.VLAN_AD)))

    def _behind_ip(self, field: Field, fields: tuple[Field, ...]) -> int:
        """IP packets whose header is whole, and of the protocol that has the field."""
        region = NOTHING
        protocols = field.header.numbers if field.header.base is Base.TRANSPORT else ()
        for number, (header, protocol) in _VERSIONS.items():
            packets = self._inner(number)
            for other in fields:
                if other.header is header:
                    packets = self.both(packets, self._readable(other))
            if field.header.base is Base.TRANSPORT:
                packets = self.both(packets, self._begins(number, fields))
            if protocols and protocol in fields:
                of_protocol = NOTHING
                for each in protocols:
                    of_protocol = self.either(of_protocol, self._values(protocol, Equals(each)))
                packets = self.both(packets, of_protocol)
            region = self.either(region, packets)
        return region

    def _begins(self, number: int, fields: tuple[Field, ...]) -> int:
        """No fragment but the first: the others have no transport header."""
        if number == EtherType.IPV4 and Field.IP_FRAGMENT in fields:
            return self._values(Field.IP_FRAGMENT, _FIRST[Field.IP_FRAGMENT])
        if number == EtherType.IPV6 and Field.IP6_FRAGMENT in fields:
            there = self._readable(Field.IP6_FRAGMENT)
            return self._if(there, self._values(Field.IP6_FRAGMENT, _FIRST[Field.IP6_FRAGMENT]))
        return ALL

    def _if(self, one: int, other: int) -> int:
        return self.either(self.without(ALL, one), other)

    def _same(self, one: int, other: int) -> int:
        return self.both(self._if(one, other), self._if(other, one))

    # --- diagrams -----------------------------------------------------------------------------------------------------

    def _sparse(self, level: int, default: int, branches: dict[int, int]) -> int:
        """The node that goes on at `default` but for some classes."""
        items = tuple(sorted((number, child) for number, child in branches.items() if child != default))
        if not items:
            return default
        key = (level, default, items)
        if key not in self._numbers:
            if len(self._nodes) >= MAX_NODES:
                raise TooComplex("too many rules ask for too many different things")
            self._numbers[key] = len(self._nodes)
            self._nodes.append(key)
        return self._numbers[key]

    def _node(self, level: int, branches: dict[int, int]) -> int:
        return self._sparse(level, branches[0], branches)

    def _apply(self, name: str, one: int, other: int) -> int:
        known = _SHORT[name](one, other)
        if known is not None:
            return known
        key = (name, one, other)
        found = self._memo.get(key)
        if found is None:
            (level, default, items), (level2, default2, items2) = self._nodes[one], self._nodes[other]
            top = min(level, level2)
            if level != top:
                default, items = one, ()
            if level2 != top:
                default2, items2 = other, ()
            mine, others = dict(items), dict(items2)
            branches = {
                number: self._apply(name, mine.get(number, default), others.get(number, default2))
                for number in {*mine, *others}
            }
            found = self._memo[key] = self._sparse(top, self._apply(name, default, default2), branches)
        return found


def _and(one: int, other: int) -> int | None:
    if one == NOTHING or other == NOTHING:
        return NOTHING
    if one in (ALL, other):
        return other
    return one if other == ALL else None


def _or(one: int, other: int) -> int | None:
    if one == ALL or other == ALL:
        return ALL
    if one in (NOTHING, other):
        return other
    return one if other == NOTHING else None


def _minus(one: int, other: int) -> int | None:
    if one in (NOTHING, other) or other == ALL:
        return NOTHING
    if other == NOTHING:
        return one
    return None


_SHORT: dict[str, Callable[[int, int], int | None]] = {"&": _and, "|": _or, "-": _minus}
"""Results that need no look into the diagrams."""


def _ends(field: Field) -> int:
    return field.offset + field.bits


def _opaque(match: Match) -> Iterable[Question]:
    test = match.test
    if isinstance(test, (Present, SameAs, InSet, CountAbove)):
        yield match.field, test
    if isinstance(test, (CountAbove, Uncounted)):
        yield "full", test.set


def _tests(matches: Iterable[Match]) -> dict[Field, list[Equals | Masked | Between]]:
    """What each field is compared with; also those that tell which frames carry the others."""
    found: dict[Field, list[Equals | Masked | Between]] = {
        Field.ETHER_TYPE: [Equals(EtherType.VLAN), Equals(EtherType.VLAN_AD)],
        Field.VLAN_TYPE: [],
    }
    carried = (EtherType.IPV4, EtherType.IPV6, EtherType.ARP, EtherType.RARP)
    for field in (Field.ETHER_TYPE, Field.VLAN_TYPE):
        found[field] += [Equals(number) for number in carried]
    for match in matches:
        test = match.test
        found.setdefault(match.field, []).extend([test] if isinstance(test, _NUMBERS) else [])
        others = (test.other,) if isinstance(test, SameAs) else test.fields if isinstance(test, InSet) else ()
        for other in others:
            found.setdefault(other, [])
        if match.field is Field.CT_DIRECTION:
            found[match.field] += [Equals(0), Equals(1)]
            found.setdefault(Field.CT_STATE, [])
    for field, first in _FIRST.items():
        if field in found:
            found[field].append(first)
    for _, protocol in _VERSIONS.values():
        if protocol in found:
            found[protocol] += [Equals(number) for field in found for number in _protocols(field)]
    return found


def _protocols(field: Field) -> tuple[int, ...]:
    return field.header.numbers if field.header.base is Base.TRANSPORT else ()
