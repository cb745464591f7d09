"""
Packets from the host that belong to no connection: ICMP errors for rejected packets, and later fragments.

In:  the chains of a tap.
Out: the same with rules for both at their places in to-l3, where the guest's own rules would drop them.

libvirt has no rules of layer 3 for what the host sends, so there both pass. What is bridged is met whole and with its
ports, since connection tracking puts fragments together before layer 3 and takes them apart after it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..ruleset.fields import TRANSPORT_FIELDS, Field
from ..ruleset.model import AnyState, Chain, CountAbove, Equals, Match, Rule, Stage, Verdict
from ..ruleset.numbers import EtherType, Protocol
from .implied import LATER_FRAGMENT
from .matches import FROM_HOST, intersect

_NO_CONNECTION = Match(Field.CT_STATE, AnyState(frozenset(("invalid",))))
# port unreachable: RFC 792; RFC 4443, 3.1
_ANSWER = {
    EtherType.IPV4: (
        Match(Field.ETHER_TYPE, Equals(EtherType.IPV4)),
        Match(Field.IP_PROTOCOL, Equals(Protocol.ICMP)),
        Match(Field.ICMP_TYPE, Equals(3)),
        Match(Field.ICMP_CODE, Equals(3)),
        FROM_HOST,
        _NO_CONNECTION,
    ),
    EtherType.IPV6: (
        Match(Field.ETHER_TYPE, Equals(EtherType.IPV6)),
        Match(Field.L4_PROTOCOL, Equals(Protocol.ICMPV6)),
        Match(Field.ICMPV6_TYPE, Equals(1)),
        Match(Field.ICMPV6_CODE, Equals(4)),
        FROM_HOST,
        _NO_CONNECTION,
    ),
}


def with_host_packets(chains: Sequence[Chain]) -> list[Chain]:
    """`chains` with the rules that let the host's answers and later fragments through to the guest."""
    return with_answers(with_later_fragments(chains))


def with_answers(chains: Sequence[Chain]) -> list[Chain]:
    """`chains`; where what the guest sends is rejected it gets the answer, before all other rules."""
    rejecting = [rule for chain in chains if chain.stage is Stage.FROM_L3 for rule in _rejecting(chain)]
    answers = tuple(_answers(rejecting))
    return [
        Chain(chain.stage, None, tuple(dict.fromkeys((*answers, *chain.rules))))
        if chain.stage is Stage.TO_L3 and chain.name is None
        else chain
        for chain in chains
    ]


def with_later_fragments(chains: Sequence[Chain]) -> list[Chain]:
    """`chains`; where a rule accepts by something in the transport header, the host's later fragments pass, too."""
    return [
        Chain(chain.stage, chain.name, tuple(_with_later_fragments(chain.rules)))
        if chain.stage is Stage.TO_L3
        else chain
        for chain in chains
    ]


def _rejecting(chain: Chain) -> Iterator[Rule]:
    return (rule for rule in chain.rules if rule.verdict is Verdict.REJECT)


def _answers(rejecting: Sequence[Rule]) -> Iterator[Rule]:
    """One rule for each IP version in which something is rejected, with the provenance of the first that rejects."""
    for version, matches in _ANSWER.items():
        first = next((rule for rule in rejecting if _version(rule) == version), None)
        if first is not None:
            yield Rule(matches, Verdict.ACCEPT, first.filter, first.source)


def _with_later_fragments(rules: Sequence[Rule]) -> Iterator[Rule]:
    """
    Before a rule that accepts by something in the transport header, one that accepts the host's later fragments by the
    rest of its conditions: whoever doesn't get the first fragment has no use for them.
    """
    seen = set()
    for rule in rules:
        rest = tuple(match for match in rule.matches if match.field not in TRANSPORT_FIELDS)
        counts = any(isinstance(match.test, CountAbove) for match in rest)
        if rule.verdict is Verdict.ACCEPT and len(rest) < len(rule.matches) and not counts and rest not in seen:
            seen.add(rest)
            matches = intersect(rest, (LATER_FRAGMENT[_version(rule) == EtherType.IPV6], FROM_HOST))
            assert matches is not None
            yield Rule(matches, Verdict.ACCEPT, rule.filter, rule.source)
        yield rule


def _version(rule: Rule) -> int:
    """The EtherType that a rule of layer 3 asks for."""
    return next(
        match.test.value for match in rule.matches if match.field is Field.ETHER_TYPE and isinstance(match.test, Equals)
    )
