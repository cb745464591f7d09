"""
MACs that nobody gives: those of guests within a guest, as many as the interface's parameters allow.

In:  the chains of a tap whose rules compare with learned MACs; where a message holds one.
Out: the chains with the rule that learns, the first of all; conditions.

A frame of the guest teaches its source. What is full learns no more, and what is learned is held: every further MAC is
somebody else's, for good.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..base.errors import UnsupportedMatch
from ..filters.bound import BoundRule
from ..filters.model import Learned
from ..ruleset.fields import Field, ValueType
from ..ruleset.model import (
    Chain,
    Equals,
    InSet,
    Masked,
    Match,
    NamedSet,
    Rule,
    SameAs,
    SetPurpose,
    Stage,
    Test,
    Verdict,
)
from .implied import Alternatives

_GROUP = Masked(1 << 40, 1 << 40)  # multicast, broadcast: IEEE 802.3, 3.2.3
_WITHOUT_NAMES = (Field.ND_MAC, Field.DHCP_CLIENT)
_ARP_MACS = (Field.ARP_SRC_MAC, Field.ARP_DST_MAC)


def mac_alternatives(rule: BoundRule, field: Field, value: Learned, mask: int | None, negated: bool) -> Alternatives:
    """
    The conditions for a MAC that is the guest's: given or learned.

    nft can look a field up in a set of MACs only if it has a name for it. Where a message holds a learned MAC without
    one (neighbour discovery, DHCP, RARP) it must be the frame's own source.

    Raises:
        UnsupportedMatch: there is a mask beside it.
    """
    if mask is not None and mask != (1 << field.bits) - 1:
        raise UnsupportedMatch("a learned MAC can't stand under a mask; give parameter MAC", rule.source)
    learned = InSet(NamedSet(SetPurpose.MACS, "", ValueType.MAC, size=value.maximum))
    given: list[Test] = [Equals(each) for each in value.fixed if isinstance(each, int)]
    nameless = field in _WITHOUT_NAMES or (field in _ARP_MACS and rule.element == "rarp")
    source = (Match(field, SameAs(Field.ETHER_SRC)), Match(Field.ETHER_SRC, learned))
    if not negated:
        own = tuple((Match(field, test),) for test in given)
        return (*own, source if nameless else (Match(field, learned),))
    others = tuple(Match(field, test, True) for test in given)
    if nameless:
        return tuple((*others, Match(each.field, each.test, True)) for each in source)
    return ((*others, Match(field, learned, True)),)


def with_macs(chains: Sequence[Chain], own: Sequence[int]) -> list[Chain]:
    """
    `chains`; what the guest sends teaches its source, before anything else, if rules compare with it.

    Args:
        own: the MACs that the guest has anyway: they don't count.
    """
    learning_rules = {
        match.test.set: rule
        for chain in reversed(chains)
        for rule in reversed(chain.rules)
        for match in rule.matches
        if isinstance(match.test, InSet) and match.test.set.purpose is SetPurpose.MACS
    }
    if not learning_rules:
        return list(chains)
    rules = tuple(_learning_rule(named, user, own) for named, user in learning_rules.items())
    root = next((chain.rules for chain in chains if (chain.stage, chain.name) == (Stage.FROM_L2, None)), ())
    rest = [chain for chain in chains if (chain.stage, chain.name) != (Stage.FROM_L2, None)]
    return [Chain(Stage.FROM_L2, None, rules + root), *rest]


def _learning_rule(named: NamedSet, user: Rule, own: Sequence[int]) -> Rule:
    never: tuple[Test, ...] = (_GROUP, Equals(0), *map(Equals, own))
    matches = tuple(Match(Field.ETHER_SRC, test, negated=True) for test in never)
    return Rule(matches, Verdict.LEARN, user.filter, user.source, stores=((Field.ETHER_SRC, named),))
