"""
The same ruleset with fewer steps for a packet: what every frame's path has decided already isn't asked again.

In:  a `Ruleset` as compile_tap makes it.
Out: one that gives every frame the same verdict by the same rule of the same filter, learns and counts the same.

A frame's EtherType is asked for once: what the guest usually sends and gets, IPv4, IPv6 and ARP, has a chain of its own
behind that, in which no rule asks for it, and none is left that it can't pass. The rest is in flatten.py (sub-chains),
knowledge.py (conditions) and arrange.py (order, values). tests/unit/compiler/test_optimise.py holds both rulesets
against each other, rule by rule.

Nothing here reads a file, a clock or the kernel: equal inputs give equal output.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ..base.dataclass import replace
from ..ruleset.fields import Field
from ..ruleset.model import Chain, Equals, Match, Rule, Ruleset, Stage, Verdict
from ..ruleset.numbers import EtherType
from .arrange import arranged, may_change_places
from .flatten import ENDS, Flattened
from .knowledge import Known, joined

_USUAL = ((EtherType.IPV4, "ip"), (EtherType.IPV6, "ip6"), (EtherType.ARP, "arp"))
_IS_IPV4 = Match(Field.ETHER_TYPE, Equals(EtherType.IPV4))
_WORTH_A_CHAIN = 4
"""Rules for an EtherType that are worth a chain of their own."""

_MOST_MORE = 1.25
"""By how much a stage may grow; else it stays as it was."""


def optimised(ruleset: Ruleset) -> Ruleset:
    """See above."""
    stages: dict[Stage, dict[str | None, Chain]] = {}
    for chain in ruleset.chains:
        stages.setdefault(chain.stage, {})[chain.name] = chain
    chains = [made for stage, found in stages.items() for made in _stage(stage, found)]
    return replace(ruleset, chains=tuple(chains))


def _stage(stage: Stage, chains: dict[str | None, Chain]) -> Sequence[Chain]:
    if None not in chains:
        return tuple(chains.values())
    flattened = Flattened(chains)
    root = _root(flattened, chains)
    made = {name: arranged(rules) for name, rules in flattened.made.items()}
    better = [Chain(stage, None, root), *(Chain(stage, name, made[name]) for name in _reached(root, made, {}))]
    as_it_was = tuple(chains.values())
    return better if _lines(better) <= _lines(as_it_was) * _MOST_MORE + _WORTH_A_CHAIN else as_it_was


def _root(flattened: Flattened, chains: dict[str | None, Chain]) -> tuple[Rule, ...]:
    """The root's rules: what concerns every frame, what leads to the chains of the usual EtherTypes, the rest."""
    rules = chains[None].rules
    begins = next((index for index, rule in enumerate(rules) if not _concerns_all(rule)), len(rules))
    head = flattened.rules_until(begins)
    known = Known()
    for rule in head:
        if rule.verdict in ENDS:
            if not rule.matches:
                return arranged(head)
            known = known.without(rule.matches)
    entrances: list[Rule] = []
    rest = known
    for ether_type, label in _USUAL:
        is_type = Match(Field.ETHER_TYPE, Equals(ether_type))
        weight = sum(_weight(rule) for rule in rules[begins:] if is_type in rule.matches)
        own = flattened.rules_from(begins, known.with_((is_type,)), label) if weight else ()
        if not own:
            continue
        if weight < _WORTH_A_CHAIN and own[0].matches:
            break  # what leads to rarer frames' chains would stand before its rules
        entrances.append(_entrance(flattened, is_type, own, label))
        rest = rest.with_((Match(is_type.field, is_type.test, negated=True),))
    others = arranged(flattened.rules_from(begins, rest, "other"))
    return (*_hoisted(head, entrances), *others)


def _concerns_all(rule: Rule) -> bool:
    return rule.verdict is not Verdict.JUMP and all(match.field is not Field.ETHER_TYPE for match in rule.matches)


def _weight(rule: Rule) -> int:
    """What a rule adds to what a chain is worth; a jump to a sub-chain has made one already."""
    return _WORTH_A_CHAIN if rule.verdict is Verdict.JUMP else 1


def _entrance(flattened: Flattened, is_type: Match, own: tuple[Rule, ...], label: str) -> Rule:
    first = own[0]
    if first.verdict in ENDS and not first.matches:
        return replace(first, matches=(is_type,), given=())
    return Rule((is_type,), Verdict.GOTO, first.filter, first.source, flattened.named(own, label))


def _hoisted(head: Sequence[Rule], entrances: Sequence[Rule]) -> tuple[Rule, ...]:
    """
    Head and entrances; before both that for IPv4, for frames of the MAC that the head leaves over: the two fields are
    neighbours, and nft compares them at once.
    """
    if entrances and entrances[0].matches == (_IS_IPV4,):
        macs = tuple(
            Match(match.field, match.test, not match.negated)
            for rule in head
            for match in rule.matches
            if len(rule.matches) == 1 and match.field is Field.ETHER_SRC and match.negated
        )
        first = replace(entrances[0], matches=joined(macs, entrances[0].matches))
        if len(macs) == 1 and all(may_change_places(first, rule) for rule in head):
            return (first, *head, *entrances[1:])
    return (*head, *entrances)


def _reached(rules: Iterable[Rule], chains: Mapping[str, tuple[Rule, ...]], found: dict[str, None]) -> Iterable[str]:
    """The names of the chains that rules lead to, each once; `found` has those that are known."""
    for rule in rules:
        if rule.target is not None and rule.target not in found:
            found[rule.target] = None
            _reached(chains[rule.target], chains, found)
    return found


def _lines(chains: Iterable[Chain]) -> int:
    """What there is for a back end to write: a line for each rule, two for each chain."""
    return sum(2 + len(chain.rules) for chain in chains)
