"""
One rule of a ruleset as nft statements. Syntax: nft(8).

In:  a `Ruleset` and one of its rules.
Out: statements without "add rule …" in front, with the comment that says where the rule comes from.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..base.dataclass import dataclass
from ..ruleset.fields import Field, Header, ValueType
from ..ruleset.model import (
    Between,
    CountAbove,
    Equals,
    InSet,
    Masked,
    Match,
    OneOf,
    Present,
    Rule,
    Ruleset,
    SameAs,
    SetPurpose,
    Stage,
    Uncounted,
    Verdict,
)
from ..ruleset.numbers import EtherType, Protocol
from .fields import in_transport_header, name_of, number, number_place, octets, place
from .names import chain_name
from .sets import interface_field, set_name, store

EQUAL_OCTETS = "equal-octets"
"""A set of all pairs of equal octets: nft can't compare two fields of a packet, but it can look up pairs."""

_PORT_HEADERS = {Protocol.TCP: "tcp", Protocol.UDP: "udp", Protocol.DCCP: "dccp", Protocol.SCTP: "sctp"}
_CT_STATES = ("new", "established", "related", "invalid", "untracked")

# The kernel has a short cut for loads of 1, 2 or 4 octets, and there it takes what is in a fragment that isn't the
# first for the header (nft_payload_fast_eval in net/netfilter/nf_tables_core.c). It refuses a load of 3.
_HAS_TRANSPORT_HEADER = "@th,0,24 >= 0x0"
_NOT_IN_A_HEADER = (Field.L4_PROTOCOL, Field.PACKET_TYPE)


@dataclass(frozen=True)
class _Frame:
    """
    What the matches of a rule say about the frame, where nft's spelling of a match depends on it.

    Attributes:
        apart: fields whose "!=" must not be merged with another one: nft (1.0.6 at least) makes of `A != 1 B != 2`,
            where A and B are neighbours in a header, `A.B != 1.2`, which is "not both". A mask keeps them apart.
        by_place: what the frame is has been asked before: for a field by name nft would ask again.
    """

    is_rarp: bool
    tagged: bool
    port_header: str
    apart: frozenset[Field]
    interface: str
    by_place: bool


def render_rule(ruleset: Ruleset, stage: Stage, rule: Rule, counters: str) -> tuple[str, ...]:
    """
    `rule` of a tap as nft statements, without "add rule …" in front: one, or several if a negated comparison needs
    them.
    """
    frame = _frame(ruleset, stage, rule.matches, rule.given)
    end = _stores(ruleset, rule, frame) if rule.verdict is Verdict.LEARN else _verdict(ruleset.tap, stage, rule)
    counter = _counter(rule, counters)
    variants = _variants(ruleset.tap, rule.matches, frame)
    return tuple(" ".join([*variant, *counter, end, comment_of(rule)]) for variant in variants)


def conditions(ruleset: Ruleset, stage: Stage, matches: Sequence[Match]) -> tuple[str, ...]:
    """`matches` alone, as nft has them: frames that meet any one of these."""
    return tuple(map(" ".join, _variants(ruleset.tap, matches, _frame(ruleset, stage, matches))))


def _variants(tap: str, matches: Sequence[Match], frame: _Frame) -> list[list[str]]:
    variants: list[list[str]] = [[]]
    for match in matches:
        texts = _match(tap, match, frame)
        if in_transport_header(match.field) and not any(_HAS_TRANSPORT_HEADER in variant for variant in variants):
            variants = [[*variant, _HAS_TRANSPORT_HEADER] for variant in variants]
        variants = [[*variant, text] for variant in variants for text in texts]
    return variants


def comment_of(rule: Rule) -> str:
    """Where the rule comes from, for people."""
    return f'comment "{rule.comment}"'


def _frame(ruleset: Ruleset, stage: Stage, asked: Sequence[Match], given: Sequence[Match] = ()) -> _Frame:
    matches = (*given, *asked)
    exact = {match.field: match.test.value for match in matches if isinstance(match.test, Equals) and not match.negated}
    protocol = exact.get(Field.IP_PROTOCOL, exact.get(Field.L4_PROTOCOL))
    unequal = [match.field for match in asked if isinstance(match.test, Equals) and match.negated]
    apart = frozenset(field for field in unequal[1:] if field.bits % 8 == 0 and field not in _NOT_IN_A_HEADER)
    interface = interface_field(stage, ruleset.attachment)
    is_rarp = EtherType.RARP in (exact.get(Field.ETHER_TYPE), exact.get(Field.VLAN_TYPE))
    tagged = Field.VLAN_TYPE in exact
    by_place = any(match.field.header is not Header.ETHERNET or match.field is Field.ETHER_TYPE for match in given)
    return _Frame(is_rarp, tagged, _PORT_HEADERS.get(protocol or 0, "th"), apart, interface, by_place)


def _counter(rule: Rule, counters: str) -> tuple[str, ...]:
    stops = rule.verdict in (Verdict.DROP, Verdict.REJECT)
    return ("counter",) if counters == "all" or (counters == "drops" and stops) else ()


def with_counts(statement: str, packets: int, octets: int) -> str:
    """`statement`, as `render_rule` wrote it, its counter (if it has one) beginning at these numbers."""
    words = statement.split(" ")
    if "counter" in words:  # no condition has a word of that name
        words[words.index("counter")] = f"counter packets {packets} bytes {octets}"
    return " ".join(words)


def _verdict(tap: str, stage: Stage, rule: Rule) -> str:
    leads = rule.verdict in (Verdict.JUMP, Verdict.GOTO)
    return f"{rule.verdict.value} {chain_name(tap, stage, rule.target)}" if leads else rule.verdict.value


def _stores(ruleset: Ruleset, rule: Rule, frame: _Frame) -> str:
    """Of what becomes no address of the guest (learning_rules.py)."""
    return " ".join(
        store(
            ruleset.tap,
            number_place(field) if field.kind in (ValueType.IPV4, ValueType.IPV6) else _field(field, frame),
            named,
        )
        for field, named in rule.stores
    )


def _match(tap: str, match: Match, frame: _Frame) -> tuple[str, ...]:
    """The match as nft expressions: any one of them suffices."""
    field, test, sign = match.field, match.test, "!= " if match.negated else ""
    name = _field(field, frame)
    if isinstance(test, Equals):
        if field is Field.CT_DIRECTION:
            return (f"{name} {'reply' if test.value else 'original'}",)
        if match.negated and field in frame.apart:
            test = Masked((1 << field.bits) - 1, test.value)
            return _match(tap, Match(field, test, negated=True), frame)
        return (f"{name} {sign}{number(field, test.value, raw=name.startswith('@'))}",)
    if isinstance(test, Masked):
        raw = name.startswith("@")
        operator = "!=" if match.negated else "=="
        return (f"{name} & {number(field, test.mask, raw=raw)} {operator} {number(field, test.value, raw=raw)}",)
    if isinstance(test, Between):
        raw = name.startswith("@")
        low, high = number(field, test.low, raw=raw), number(field, test.high, raw=raw)
        # nft makes two comparisons of "A low-high" before 1.1.2, one of another kind since
        return (f"{name} != {low}-{high}" if match.negated else f"{name} >= {low} {name} <= {high}",)
    if isinstance(test, OneOf):
        values = ", ".join(number(field, value, raw=name.startswith("@")) for value in test.values)
        return (f"{name} {sign}{{ {values} }}",)
    if isinstance(test, Present):
        return (f"{name} {test.kind} {'missing' if match.negated else 'exists'}",)
    if isinstance(test, SameAs):
        return _same(field, test.other, match.negated)
    if isinstance(test, InSet):
        if test.set.purpose in (SetPurpose.LEARNED, SetPurpose.SEEN):
            name = number_place(field, tagged=frame.tagged)
        if test.set.mask is not None:
            name = f"{name} & {number(field, test.set.mask, raw=name.startswith('@'))}"
        key = " . ".join([name, *(_field(other, frame) for other in test.fields)])
        return (f"{key} {sign}@{set_name(tap, test.set)}",)
    if isinstance(test, Uncounted):
        return (f"{name} != @{set_name(tap, test.set)}",)
    if isinstance(test, CountAbove):
        over = "" if match.negated else "over "
        return (f"add @{set_name(tap, test.set)} {{ {name} ct count {over}{test.limit} }}",)
    states = ",".join(state for state in _CT_STATES if state in test.states)
    return (f"{name} {states}",)


def _same(field: Field, other: Field, negated: bool) -> tuple[str, ...]:
    """Equal: every octet's pair is in the set of equal pairs. Different: one octet's pair isn't."""
    operator = "!= " if negated else ""
    pairs = zip(octets(field), octets(other))
    paired = tuple(f"{one} . {another} {operator}@{EQUAL_OCTETS}" for one, another in pairs)
    return paired if negated else (" ".join(paired),)


def _field(field: Field, frame: _Frame) -> str:
    if frame.is_rarp and field.header is Header.ARP:  # nft's names are for EtherType ARP only
        return place(field)
    if field is Field.TAP:
        return frame.interface
    if frame.by_place and field.header not in (Header.ETHERNET, Header.TAG, Header.NONE):
        return place(field)
    if field in (Field.SRC_PORT, Field.DST_PORT):
        return f"{frame.port_header} {'sport' if field is Field.SRC_PORT else 'dport'}"
    return name_of(field)
