"""
What a tap's rules compile to: chains of typed matches and verdicts, which know nothing of nft.

In a `Ruleset` a match is a field of the packet, a test and a sign. The compiler makes it, the renderer writes it down
for nft, and the evaluator follows a frame through it. All values are frozen and compared with ==.
"""

from __future__ import annotations

import enum

from ..base.dataclass import dataclass
from ..base.errors import Source
from .fields import Field, ValueType


@dataclass(frozen=True)
class Equals:
    """field == value"""

    value: int


@dataclass(frozen=True)
class Masked:
    """field & mask == value; `value` has no bit outside `mask`."""

    mask: int
    value: int


@dataclass(frozen=True)
class Between:
    """low <= field <= high"""

    low: int
    high: int


@dataclass(frozen=True)
class OneOf:
    """field is one of the values, which rise; in optimised rulesets only."""

    values: tuple[int, ...]


@dataclass(frozen=True)
class Present:
    """A header option of this kind is there (TCP_OPTION)."""

    kind: int


@dataclass(frozen=True)
class SameAs:
    """Equals another field of the same frame."""

    other: Field


@dataclass(frozen=True)
class AnyState:
    """Connection state is one of "new", "established", "related", "invalid", "untracked" (CT_STATE)."""

    states: frozenset[str]


@dataclass(frozen=True)
class InSet:
    """field (& the set's mask) is in the named set; `fields` are further dimensions of it."""

    set: NamedSet
    fields: tuple[Field, ...] = ()


@dataclass(frozen=True)
class CountAbove:
    """
    The tracked connections counted in `set` under this packet's `field` are more than `limit`; negated, they aren't. A
    set that is full can't count them, and then neither holds.
    """

    set: NamedSet
    limit: int


@dataclass(frozen=True)
class Uncounted:
    """`set`, which has seen this packet in a rule before, doesn't count its `field`: it is full."""

    set: NamedSet


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Union

    Test = Union[Equals, Masked, Between, OneOf, Present, SameAs, AnyState, InSet, CountAbove, Uncounted]
else:
    Test = object  # typing takes 2 ms of a hook's time


@dataclass(frozen=True)
class Match:
    """One condition: `field` passes `test`; or, negated, the field is there and doesn't pass it."""

    field: Field
    test: Test
    negated: bool = False


class SetPurpose(enum.Enum):
    """
    What a named set is for; decides its name and who may empty it. Those from SEEN on are a segment's: which addresses
    its taps have learned, and since when, and which were given to them, one by one, as networks, and by whom;
    KIN has those that one guest's taps have learned.
    """

    LEARNED = "learned"
    LEASED = "leased"
    UNREAD = "unread"
    MACS = "macs"
    CONNLIMIT = "connlimit"
    IPSET = "ipset"
    SEEN = "seen"
    TAKEN = "taken"
    CLAIMED = "claimed"
    SINCE = "since"
    RESERVED = "reserved"
    RESERVED_NETS = "reserved-nets"
    RESERVED_BY = "reserved-by"
    KIN = "kin"


@dataclass(frozen=True)
class NamedSet:
    """
    A set of the table that lives beside the chains.

    Attributes:
        name: the ipset's name; for CONNLIMIT a number that is unique for the tap; "" for what is learned.
        mask: what is stored of an address: all of it (None), or the address under this mask (LEARNED).
        dimensions: addresses per element (IPSET).
        size: how many elements are learned, beside `initial`; a further one isn't stored, and its rule doesn't apply.
        initial: elements that are there from the beginning.
        newest: a further element replaces the one that is there (size is 1).
        segment: the bridge or device whose taps must not learn an address twice (LEARNED); "" if the tap is alone.
        guest: whose other taps on the segment may learn the same addresses (LEARNED); "" if it has none.
    """

    purpose: SetPurpose
    name: str
    kind: ValueType
    mask: int | None = None
    dimensions: int = 1
    size: int = 1
    initial: tuple[int, ...] = ()
    newest: bool = False
    segment: str = ""
    guest: str = ""

    @property
    def gives_way(self) -> bool:
        """Of several learned addresses, one that wasn't used for a day is forgotten; an only one holds the guest."""
        return self.purpose is SetPurpose.LEARNED and self.size > 1


class Stage(enum.Enum):
    """
    The places where a tap's traffic is filtered, in the order in which a frame of the guest meets them; "from" is what
    the guest sends. INGRESS is the device itself, for bridge ports: where frames are judged that a bridge keeps.
    """

    INGRESS = "ingress"
    FROM_L2 = "from"
    TO_L2 = "to"
    FROM_L3 = "from-l3"
    TO_L3 = "to-l3"


@dataclass(frozen=True)
class AddressRange:
    """Addresses of one kind (IPV4, IPV6), first to last."""

    kind: ValueType
    low: int
    high: int

    def holds(self, kind: ValueType, value: int) -> bool:
        """Whether the address is one of them."""
        return kind is self.kind and self.low <= value <= self.high


class Verdict(enum.Enum):
    """
    What a rule does with the packet. LEARN stores and goes on, as CONTINUE does: not what is somebody else's in the
    segment; that is taken out again. See NamedSet for a full set. GOTO (optimised rulesets) is a JUMP from which nobody
    comes back: the end of its target is that of the chain that it stands in.
    """

    ACCEPT = "accept"
    DROP = "drop"
    REJECT = "reject"
    RETURN = "return"
    CONTINUE = "continue"
    JUMP = "jump"
    GOTO = "goto"
    LEARN = "learn"


MAX_COMMENT = 128
"""Octets that a back end keeps of a rule's comment, of nft(8)."""
OR, AFTER = " or ", " after "
"""Of Rule.comment."""


@dataclass(frozen=True)
class Rule:
    """
    All matches hold: the verdict is given.

    Attributes:
        matches: in the order they must be tested (link layer before network before transport).
        target: sub-chain of the same stage to jump to (JUMP, GOTO).
        stores: the sets the field goes to, in this order; nothing more is stored once a set is full (LEARN).
        rechecks: store nothing; only take out what has become somebody else's (LEARN).
        filter, source: where it comes from.
        given: conditions that hold for every frame that comes here, and so aren't tested (optimised rulesets).
        others: further rules that it stands for, by filter and source; any of them may be the one that decides
            (optimised rulesets).
        after: rules that let a frame come to this one, and are part of it (optimised rulesets).
    """

    matches: tuple[Match, ...]
    verdict: Verdict
    filter: str
    source: Source
    target: str | None = None
    stores: tuple[tuple[Field, NamedSet], ...] = ()
    rechecks: bool = False
    given: tuple[Match, ...] = ()
    others: tuple[tuple[str, Source], ...] = ()
    after: tuple[tuple[str, Source], ...] = ()

    @property
    def provenance(self) -> str:
        """ "FILTER:LINE"; only the name if it is none of a filter."""
        return provenance_of(self.filter, self.source)

    @property
    def provenances(self) -> tuple[str, ...]:
        """Of it, and of all others that may decide by it, each once."""
        return _each_once(((self.filter, self.source), *self.others))

    @property
    def comment(self) -> str:
        """
        For people: "FILTER:LINE", "FILTER:LINE or FILTER:LINE after FILTER:LINE". What doesn't decide is left out where
        a back end couldn't keep all of it.
        """
        deciding = OR.join(self.provenances)
        whole = AFTER.join((deciding, *filter(None, [OR.join(_each_once(self.after))])))
        return whole if len(whole.encode()) <= MAX_COMMENT else deciding


def _each_once(origins: Iterable[tuple[str, Source]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(provenance_of(filter, source) for filter, source in origins))


def provenance_of(filter: str, source: Source) -> str:
    """See Rule.provenance."""
    line = source.kept or source.line
    return f"{filter}:{line}" if line else filter


@dataclass(frozen=True)
class Chain:
    """One chain: `name` is None for the stage's root, else the sub-chain's name."""

    stage: Stage
    name: str | None
    rules: tuple[Rule, ...]


class Attachment(enum.Enum):
    """
    How a tap's traffic is seen: as a bridge port (table `bridge`), or on the device itself (table `netdev`).

    What the guest sends comes in through a tap's ingress, but goes out through a macvtap's egress.
    """

    BRIDGE_PORT = "bridge-port"
    DEVICE = "device"
    MACVTAP = "macvtap"

    @property
    def family(self) -> str:
        return "bridge" if self is Attachment.BRIDGE_PORT else "netdev"


@dataclass(frozen=True)
class Segment:
    """
    Where taps could take each other's addresses: a bridge, or macvtaps of one device.

    Attributes:
        name: of bridge or device; "" if the tap is alone.
        guest: a key for whose tap it is, of letters and digits; "" if it is no guest's.
        own: addresses that no other tap learns, since they are this one's.
        hosts: addresses that no tap learns: the host has them there, or the configuration names them.
    """

    name: str = ""
    own: tuple[AddressRange, ...] = ()
    hosts: tuple[AddressRange, ...] = ()
    guest: str = ""

    @property
    def reserved(self) -> tuple[AddressRange, ...]:
        """What the tap adds to the addresses that nobody learns."""
        return tuple(dict.fromkeys(self.own + self.hosts))


@dataclass(frozen=True)
class Ruleset:
    """
    Everything one tap needs.

    Attributes:
        chains: roots before their sub-chains.
        sets: what the rules name.
        notes: what the administrator should know, one line each.
        connections: how many the guest may have open; None for as many as the host lets any guest have, 0 for any
            number.
        segment: where the tap is among others.
    """

    tap: str
    attachment: Attachment
    chains: tuple[Chain, ...]
    sets: tuple[NamedSet, ...]
    notes: tuple[str, ...] = ()
    connections: int | None = None
    segment: Segment = Segment()
