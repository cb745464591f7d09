"""
What the guest sends to the addresses that a bridge keeps to itself, judged at the tap's ingress.

In:  the chains of a bridge port's stages.
Out: the same, with a chain of stage INGRESS where there is something to judge.

IEEE 802.1Q reserves the addresses 01:80:c2:00:00:0x for protocols between neighbours: STP, LACP, LLDP … A bridge of
Linux takes such a frame for its own, and learns its source, before prerouting or past it (br_handle_frame in
net/bridge/br_input.c). So the rules of layer 2 that a frame with such a destination can meet stand once more at the
tap's ingress, which every frame passes first. They are in another table than the sets, and after a `learn` nothing is
known there: no address is taken for learned, and what could carry one is dropped, whatever the filter says. No
protocol sends IP or ARP there, and rules of layer 3 would never see it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ..base.errors import NOWHERE
from ..ruleset.fields import Field
from ..ruleset.model import Chain, Equals, InSet, Masked, Match, Rule, SetPurpose, Stage, Verdict
from ..ruleset.numbers import EtherType

_RESERVED, _RESERVED_MASK = 0x0180C2000000, 0xFFFFFFFFFFF0
_TO_OTHERS = Match(Field.ETHER_DST, Masked(_RESERVED_MASK, _RESERVED), negated=True)
_WITH_ADDRESSES = (EtherType.IPV4, EtherType.ARP, EtherType.RARP, EtherType.IPV6)
_NAME, _PLACE = "reserved-destination", NOWHERE


def with_ingress(chains: Sequence[Chain]) -> list[Chain]:
    """`chains` and, if what the guest sends is filtered, what stands at the tap's ingress."""
    if not any(chain.stage in (Stage.FROM_L2, Stage.FROM_L3) for chain in chains):
        return list(chains)
    sent = {chain.name: chain.rules for chain in chains if chain.stage is Stage.FROM_L2}
    narrowed = {name: tuple(_narrowed(rules)) for name, rules in sent.items()}
    root = (*_head(), *narrowed.get(None, ()))
    reached = list(_reached(root, narrowed))
    return [
        Chain(Stage.INGRESS, None, root),
        *(Chain(Stage.INGRESS, name, narrowed[name]) for name in sent if name in reached),
        *chains,
    ]


def _head() -> Iterator[Rule]:
    yield Rule((_TO_OTHERS,), Verdict.ACCEPT, _NAME, _PLACE)
    for ether_type in _WITH_ADDRESSES:
        yield Rule((Match(Field.ETHER_TYPE, Equals(ether_type)),), Verdict.DROP, _NAME, _PLACE)


def _narrowed(rules: Iterable[Rule]) -> Iterator[Rule]:
    """The rules that a frame can meet there, as far as to one that no frame gets past."""
    for rule in rules:
        matches = _matches(rule.matches)
        if matches is None or rule.verdict is Verdict.LEARN:
            continue
        yield Rule(matches, rule.verdict, rule.filter, rule.source, rule.target)
        if not matches and rule.verdict not in (Verdict.CONTINUE, Verdict.JUMP):
            return


def _matches(matches: Iterable[Match]) -> tuple[Match, ...] | None:
    """What is left to ask of a frame to a reserved address; None if none passes."""
    left = []
    for match in matches:
        known = _known(match)
        if known is None:
            left.append(match)
        elif known is match.negated:
            return None
    return tuple(left)


def _known(match: Match) -> bool | None:
    """What `match`, its sign aside, says of every frame to a reserved address that carries no IP and no ARP."""
    test = match.test
    if match.field is Field.ETHER_TYPE and isinstance(test, Equals) and test.value in _WITH_ADDRESSES:
        return False
    if match.field is Field.ETHER_DST and isinstance(test, Equals) and test.value & _RESERVED_MASK != _RESERVED:
        return False
    if match.field is Field.ETHER_DST and isinstance(test, Masked):
        common = test.mask & _RESERVED_MASK
        if test.value & common != _RESERVED & common:
            return False
        return True if common == test.mask else None
    if isinstance(test, InSet):
        # a tap with a lease may send what its filter allows; before, too, since nothing there can tell
        return test.set.purpose is SetPurpose.LEASED
    return None


def _reached(rules: Iterable[Rule], chains: dict[str | None, tuple[Rule, ...]]) -> Iterator[str]:
    for rule in rules:
        if rule.verdict is Verdict.JUMP and rule.target is not None:
            yield rule.target
            yield from _reached(chains[rule.target], chains)
