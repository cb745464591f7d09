"""
What a rule that learns is in nft: who has an address first has it, on one bridge.

In:  a `Ruleset`, a rule with the verdict LEARN, and a number that no other such rule of its tap has.
Out: the rule that leads to a chain of its own, and the rules of that chain and of another.

Taps that could take each other's addresses, those of one bridge or macvtaps of one device, share a segment SEG with
these sets (sets.py declares them):

    reserved/SEG         addresses that were given to a tap, or that the host has there, or that the configuration names
    reserved-nets/SEG    the same for networks
    taken/SEG            addresses that taps have learned
    claimed/SEG          those that a tap has claimed within the last second
    seen/SEG             those that a frame was seen with within the last minute: nothing is to be done for them
    kin/SEG/GUEST        what the taps of this guest have learned
    since/SEG            map from those in taken/SEG to the time when they were learned

A frame whose address isn't in seen/SEG goes through the tap's chain learn-N:

    reserved                            taken out again, if the tap has learned it before
    another tap of the guest has it     into the tap's own set, too: a guest may move an address between its interfaces
    another guest has it                nothing
    nobody has it                       into claimed/SEG and taken/SEG; then, in learn-N-new, into the tap's own set; if
                                        that is full, out of both again
    the tap has it                      it is used: its day begins anew; into seen/SEG

Two frames that claim one address at the same time on two processors: each finds that nobody has it, but the element in
claimed/SEG is made once, and the limit in it lets only one of them pass. No rule looks an address up there: the kernel
counts that for the limit, too, and sooner or later a frame would pass that should not. New claims of a tap are limited,
too: an element that was deleted by a rule counts for the set's size until the kernel's collector has seen it, a second
later.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..base.dataclass import dataclass, replace
from ..ruleset.fields import Field, ValueType
from ..ruleset.model import (
    AddressRange,
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
from ..ruleset.numbers import DHCP_COOKIE
from .fields import number_place, place
from .sets import CLAIM_S, IDLE_S, interface_field, lease_map, parse_learned, segment_set, set_name

_ONCE = "limit rate 1/minute burst 1 packets"
_CLAIMS_A_SECOND = 16
_SHARED = (
    *(SetPurpose.TAKEN, SetPurpose.CLAIMED, SetPurpose.SEEN, SetPurpose.SINCE),
    *(SetPurpose.RESERVED, SetPurpose.RESERVED_NETS),
)


@dataclass(frozen=True)
class LearningRule:
    """
    Attributes:
        entrance: in place of the rule.
        chains: by name (without the tap's part), the rules of the chains that it leads to, without their comments.
    """

    entrance: Rule
    chains: tuple[tuple[str, tuple[str, ...]], ...]


def is_learning_rule(rule: Rule) -> bool:
    """Whether the rule stores addresses that become the guest's."""
    return any(named.purpose is SetPurpose.LEARNED for _, named in rule.stores)


def learning_rule_of(
    ruleset: Ruleset, stage: Stage, rule: Rule, number: int, jump: str, *, counted: bool
) -> LearningRule:
    """
    What `rule` is in nft.

    Args:
        jump: the full name of the second chain.
        counted: every rule counts the packets that it does something with.
    """
    writer = _Writer(ruleset, stage, rule, "counter " if counted else "")
    name = f"learn-{number}"
    if writer.leases:
        rules, entrance = writer.lease(jump), rule
    else:
        rules, entrance = writer.use(jump), _unless_seen(rule, writer.field, writer.whole)
    entrance = replace(entrance, verdict=Verdict.JUMP, target=name, stores=(), rechecks=False)
    news = () if rule.rechecks else ((f"{name}-new", writer.new()),)
    return LearningRule(entrance, ((name, rules), *news))


def _unless_seen(rule: Rule, field: Field, whole: NamedSet) -> Rule:
    """The rule, which asks for seen/SEG before anything else about the address."""
    seen = Match(field, InSet(replace(whole, purpose=SetPurpose.SEEN)), negated=True)
    first = next((place for place, match in enumerate(rule.matches) if match.field is field), len(rule.matches))
    return replace(rule, matches=(*rule.matches[:first], seen, *rule.matches[first:]))


class _Writer:
    """Writes the statements for one rule."""

    def __init__(self, ruleset: Ruleset, stage: Stage, rule: Rule, counter: str) -> None:
        self._tap = ruleset.tap
        self._rule = rule
        self._counter = counter
        self._own = [(field, named) for field, named in rule.stores if named.purpose is SetPurpose.LEARNED]
        self.field, self.whole = next((field, named) for field, named in self._own if named.mask is None)
        self.leases = self.field is Field.DHCP_ADDRESS
        kin = parse_learned(set_name(self._tap, self.whole))
        self._kin = f"@{kin.kin}" if kin and kin.kin else ""
        self._place = number_place(self.field)
        self._own_addresses = [each for each in ruleset.segment.own if each.kind is self.whole.kind]
        self._interface = interface_field(stage, ruleset.attachment)
        self._learned = self._set(self.whole)
        self._taken, self._claimed, self._seen, self._since, self._reserved, self._nets = (
            f"@{segment_set(purpose, self.whole.kind, self.whole.segment or self._tap)}" for purpose in _SHARED
        )
        self._claims = (self._taken, self._claimed, self._seen)

    def use(self, new: str) -> tuple[str, ...]:
        """An address that the guest uses."""
        place = self._place
        known = f"{place} {self._learned}"
        return (
            *self._refusals(),
            *(() if self._rule.rechecks else self._claim(new)),
            f"{known} {self._counter}{self._used()}",
        )

    def lease(self, new: str) -> tuple[str, ...]:
        """An address that a DHCP server has acknowledged: the lease before is over, whatever becomes of this one."""
        scratch = place(Field.DHCP_COOKIE)
        known = f"{self._place} {self._learned} {self._counter}add @{self._leased()} {{ {self._interface} }} return"
        return (self._forget(scratch), *self._refusals(), known, *self._claim(new))

    def new(self) -> tuple[str, ...]:
        """What the tap has just claimed becomes its own, or, if that is full, is given back."""
        place = self._place
        add = f"add {self._learned} {{ {place}{self._idle()} }}"
        if self._kin:
            add += f" add {self._kin} {{ {place}{self._idle()} }}"
        if self.leases:
            lease = f"@{lease_map(self._tap)} {{ {self._interface} : {place} }}"
            masks = [f"add {self._set(named)} {{ {place}{_under(named)} }}" for _, named in self._masked()]
            leased = f"add @{self._leased()} {{ {self._interface} }}"
            add = " ".join([f"delete {lease} add {lease}", add, *masks, leased])
        since = f"{self._since} {{ {place} : meta time }}"
        out = " ".join(f"delete {each} {{ {place} }}" for each in (self._taken, self._claimed))
        full = f"{place} != {self._learned} {self._counter}{out} return"
        return (
            f"{self._counter}delete {since} {add}",
            full,
            *((f"{self._counter}add {since}",) if self.leases else ()),
        )

    def _claim(self, new: str) -> tuple[str, ...]:
        place = self._place
        burst = max(self.whole.size, _CLAIMS_A_SECOND)
        limit = f"limit rate {_CLAIMS_A_SECOND}/second burst {burst} packets"
        once, taken = f"add {self._claimed} {{ {place} {_ONCE} }}", f"add {self._taken} {{ {place}{self._kept()} }}"
        claim = f"{once} {self._counter}{taken} jump {new}"
        shared = f"{place} != {self._learned} {place} {self._kin} {place} {self._taken} {self._counter}"
        return (
            *((f"{shared}add {self._learned} {{ {place}{self._idle()} }}",) if self._kin else ()),
            f"{place} != {self._learned} {place} {self._taken} {self._counter}return",
            f"{place} != {self._learned} {limit} {claim}",
        )

    def _refusals(self) -> tuple[str, ...]:
        place = self._place
        out = " ".join(
            [
                *(f"delete {self._set(named)} {{ {place}{_under(named)} }}" for _, named in self._own),
                *(f"delete {each} {{ {place} }}" for each in (self._kin, *self._claims) if each),
                f"delete {self._since} {{ {place} : meta time }}",
                *((f"delete @{lease_map(self._tap)} {{ {self._interface} : {place} }}",) if self.whole.newest else ()),
            ]
        )
        # what the guest has anyway is no other's, and may be leased to it
        unasked = [each for each in self._own_addresses if not _is_left_out(self._rule, self.field, each)]
        skip = tuple(f"{_is_one_of(place, each)} {self._counter}return" for each in unasked)
        outside = "".join(f"{_is_one_of(place, each, negated=True)} " for each in self._own_addresses)
        skip, foreign = ((), outside) if self.leases else (skip, "")
        return (
            *skip,
            *(f"{foreign}{place} {each} {self._counter}{out} return" for each in (self._reserved, self._nets)),
        )

    def _used(self) -> str:
        """The address is the tap's: keep it for another day."""
        place, whole = self._place, self.whole
        verb = "update" if whole.gives_way else "add"
        kept = [f"{verb} {self._set(named)} {{ {place}{_under(named)}{self._idle()} }}" for _, named in self._masked()]
        if whole.gives_way:
            kept.insert(0, f"update {self._taken} {{ {place}{self._kept()} }}")
            kept.insert(1, f"update {self._learned} {{ {place}{self._idle()} }}")
        if not self._rule.rechecks:
            kept.append(f"{verb} {self._since} {{ {place}{self._kept()} : meta time }}")
        kept.append(f"add {self._seen} {{ {place} }}")
        if whole.gives_way and self._kin:
            kept.append(f"update {self._kin} {{ {place}{self._idle()} }}")
        return " ".join(kept)

    def _forget(self, scratch: str) -> str:
        """
        Take the lease before out of all sets, if it was another address.

        nft can't take out of a set what is in no packet. So the old address is fetched from the map from the tap to its
        lease, written over the message's magic cookie, and taken out from there; then the cookie is restored, which is
        the same in every DHCP message.
        """
        lease = f"@{lease_map(self._tap)}"
        out = [
            *(f"delete {self._set(named)} {{ {scratch}{_under(named)} }}" for _, named in self._own),
            *(f"delete {each} {{ {scratch} }}" for each in self._claims),
            f"delete {self._since} {{ {scratch} : meta time }}",
            f"delete {lease} {{ {self._interface} : {scratch} }}",
        ]
        differs = f"{self._place} != {self._learned} {self._counter}"
        fetch, restore = f"{scratch} set {self._interface} map {lease}", f"{scratch} set {DHCP_COOKIE:#x}"
        return f"{differs}{fetch} {' '.join(out)} {restore}"

    def _set(self, named: NamedSet) -> str:
        return f"@{set_name(self._tap, named)}"

    def _masked(self) -> Sequence[tuple[Field, NamedSet]]:
        return [(field, named) for field, named in self._own if named.mask is not None]

    def _leased(self) -> str:
        return next(set_name(self._tap, named) for _, named in self._rule.stores if named.purpose is SetPurpose.LEASED)

    def _idle(self) -> str:
        return f" timeout {IDLE_S}s" if self.whole.gives_way else ""

    def _kept(self) -> str:
        """A little longer than the tap's own, so that nobody else has the address before the tap has lost it."""
        return f" timeout {CLAIM_S}s" if self.whole.gives_way else ""


def _is_left_out(rule: Rule, field: Field, addresses: AddressRange) -> bool:
    """Whether the rule's own conditions hold for none of these addresses."""
    for match in rule.matches:
        if match.field is field and match.negated:
            test = match.test
            if isinstance(test, Equals) and test.value == addresses.low == addresses.high:
                return True
            if isinstance(test, Masked) and {addresses.low & test.mask, addresses.high & test.mask} == {test.value}:
                return True
    return False


def _is_one_of(place: str, network: AddressRange, *, negated: bool = False) -> str:
    sign = "!=" if negated else "=="
    if network.low == network.high:
        return f"{place} {sign} {network.low:#x}"
    mask = (1 << (128 if network.kind is ValueType.IPV6 else 32)) - 1 ^ network.low ^ network.high
    return f"{place} & {mask:#x} {sign} {network.low:#x}"


def _under(named: NamedSet) -> str:
    return "" if named.mask is None else f" & {named.mask:#x}"
