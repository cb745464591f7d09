"""
Packets that the host exempts from connection tracking (nft(8), `notrack`): what a rule with states says about them.

In:  a rule of layer 3 that lets packets of new or established connections pass, and what it asks of a frame.
Out: what it asks of a packet that has no state: the same fields, the way the packet travels.

Some packets of ICMPv6 nobody exempts: the kernel never tracks them (nf_conntrack_icmpv6_error in net/netfilter/
nf_conntrack_proto_icmpv6.c). A rule for "established" must not let a neighbour's router advertisement in, so they are
left out; libvirt's rules, whose states come from the same kernel, don't match them either.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..filters.bound import BoundRule
from ..filters.protocols import ELEMENTS
from ..ruleset.fields import Field
from ..ruleset.model import AnyState, Between, Equals, Match
from ..ruleset.numbers import Protocol
from .implied import ALWAYS, NEVER, Alternatives, Matches
from .matches import intersect

_UNTRACKED = Match(Field.CT_STATE, AnyState(frozenset(("untracked",))))
# multicast listeners, routers, neighbours; version 2 of a listener's report
_NEVER_TRACKED = (Between(130, 136), Equals(143))
_TRACKED_TYPE = tuple(Match(Field.ICMPV6_TYPE, test, negated=True) for test in _NEVER_TRACKED)


def untracked_alternatives(rule: BoundRule, alternatives: Iterable[Matches]) -> Iterator[Matches]:
    """`alternatives` for a packet exempt from tracking; what is asked first is whether it is one."""
    for alternative in alternatives:
        for conditions in _exempt(rule):
            matches = intersect(alternative, conditions)
            if matches is not None:
                yield (_UNTRACKED, *matches)


def _exempt(rule: BoundRule) -> Alternatives:
    """What tells a packet that the host exempts from one that the kernel never tracks."""
    assert rule.element is not None
    element = ELEMENTS[rule.element]
    if not element.is_ipv6 or element.protocol not in (None, Protocol.AH, Protocol.ICMPV6):
        return ALWAYS
    if element.protocol == Protocol.ICMPV6:
        asked = rule.conditions.get("type")
        if asked is None or asked.negated or asked.end is not None:
            return (_TRACKED_TYPE,)
        never = isinstance(asked.value, int) and (130 <= asked.value <= 136 or asked.value == 143)
        return NEVER if never else ALWAYS
    # connection tracking looks behind an Authentication header, nft doesn't
    if element.protocol == Protocol.AH:
        return NEVER
    is_icmpv6 = Match(Field.L4_PROTOCOL, Equals(Protocol.ICMPV6))
    others = tuple(Match(Field.L4_PROTOCOL, Equals(each), negated=True) for each in (Protocol.AH, Protocol.ICMPV6))
    return others, (is_icmpv6, *_TRACKED_TYPE)
