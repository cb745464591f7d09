"""
Rules of layer 3: with connection state and limits.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..base.dataclass import dataclass
from ..filters.bound import BoundRule
from ..filters.model import Action, Direction
from ..filters.protocols import ELEMENTS
from ..ruleset.fields import Field
from ..ruleset.model import AnyState, CountAbove, Equals, Match, NamedSet, Rule, Tree, Uncounted, Verdict
from .chains import rules_of
from .implied import Alternatives, Matches
from .matches import BRIDGED, rule_alternatives, turned_alternatives
from .untracked import untracked_alternatives


@dataclass(frozen=True)
class Part:
    """
    What one L3 rule becomes in one tree.

    Attributes:
        ct_direction: 0 original, 1 reply, None for both.
        bridged_only: what the host sends or routes is left out.
    """

    tree: Tree
    as_written: bool
    states: frozenset[str] | None = None
    ct_direction: int | None = None
    bridged_only: bool = False


_ORIGINAL, _REPLY = 0, 1
_NEW_OR_ESTABLISHED = frozenset(("new", "established"))
_ESTABLISHED = frozenset(("established",))
_CONNECTED = frozenset(("new", "established", "related"))
_UNCONNECTED = frozenset(("invalid", "untracked"))
_LET_PASS = (Verdict.ACCEPT, Verdict.RETURN)


def compile_layer3(rule: BoundRule, counter: NamedSet | None) -> Iterator[tuple[Tree, Rule]]:
    for part in _parts(rule):
        alternatives = rule_alternatives(rule) if part.as_written else turned_alternatives(rule)
        verdict = Verdict(rule.action.value)
        if verdict is Verdict.REJECT and part.tree is Tree.TO_L3:
            verdict = Verdict.DROP  # an answer can only be sent toward the guest
        for conditions in _state_conditions(part) if counter is None else _counted(rule, part, counter):
            for compiled in rules_of(rule, verdict, (alternative + conditions for alternative in alternatives)):
                yield part.tree, compiled
        if counter is None and verdict in _LET_PASS and part.states and part.states & _NEW_OR_ESTABLISHED:
            for compiled in rules_of(rule, verdict, untracked_alternatives(rule, alternatives)):
                yield part.tree, compiled


def _parts(rule: BoundRule) -> list[Part]:
    """Which trees an L3 rule goes to, which way round, and under which connection state."""
    direction = rule.direction
    guest_sends = Part(Tree.FROM_L3, as_written=direction is Direction.OUT)
    guest_gets = Part(Tree.TO_L3, as_written=direction is not Direction.OUT)
    own_tree = {Direction.OUT: (Tree.FROM_L3,), Direction.IN: (Tree.TO_L3,), Direction.INOUT: tuple(Tree)}[direction]
    states = rule.value("state") if rule.statematch else None
    accept = rule.action is Action.ACCEPT
    if isinstance(states, frozenset):
        wanted = None if "none" in states else states
        parts = [Part(p.tree, p.as_written, wanted) for p in (guest_sends, guest_gets) if p.tree in own_tree]
    elif accept and direction is not Direction.INOUT and rule.statematch:
        parts = [
            Part(p.tree, p.as_written, _NEW_OR_ESTABLISHED, _ORIGINAL)
            if p.as_written
            else Part(p.tree, p.as_written, _ESTABLISHED, _REPLY)
            for p in (guest_sends, guest_gets)
        ]
    else:
        # the other half of a one-way drop is for bridged packets: libvirt has no chain for what the host sends
        stops = rule.action in (Action.DROP, Action.REJECT)
        mirrored = stops and direction is Direction.OUT
        parts = [guest_sends, Part(guest_gets.tree, guest_gets.as_written, bridged_only=mirrored)]
    if "type" in rule.conditions:  # icmp: each type goes one way, so there is no automatic way back
        parts = [Part(p.tree, p.as_written, p.states) for p in parts if p.tree in own_tree]
    if "connlimit-above" in rule.conditions:
        parts = [Part(p.tree, True, None if accept else p.states, p.ct_direction) for p in parts if p.as_written]
        if accept:
            parts = [Part(p.tree, True) for p in parts]
    return parts


def _state_conditions(part: Part) -> Alternatives:
    matches: Matches = (BRIDGED,) if part.bridged_only else ()
    if part.states is not None:
        matches += (Match(Field.CT_STATE, AnyState(part.states)),)
    if part.ct_direction is not None:
        matches += (Match(Field.CT_DIRECTION, Equals(part.ct_direction)),)
    return (matches,)


def _counted(rule: BoundRule, part: Part, counter: NamedSet) -> Iterator[Matches]:
    """
    The conditions of `connlimit-above`: for frames of a connection, and perhaps others for those without.

    Where the kernel is to count a frame that belongs to no connection it drops it, whatever the rule says
    (nft_connlimit_do_eval in net/netfilter/nft_connlimit.c). In libvirt such a frame counts as one.

    A set holds so many addresses and no more; what stops frames by their number then stops those of further ones.
    """
    asked = rule.conditions["connlimit-above"]
    limit, negated = asked.value, asked.negated
    assert isinstance(limit, int)
    wanted = part.states or _CONNECTED | _UNCONNECTED
    if wanted & _CONNECTED:
        count = Match(address_field(rule), CountAbove(counter, limit), negated)
        connected = Match(Field.CT_STATE, AnyState(wanted & _CONNECTED))
        yield connected, count
        if rule.action in (Action.DROP, Action.REJECT):
            yield connected, Match(address_field(rule), Uncounted(counter))
    if wanted & _UNCONNECTED and (limit < 1) is not negated:
        yield (Match(Field.CT_STATE, AnyState(wanted & _UNCONNECTED)),)


def address_field(rule: BoundRule) -> Field:
    assert rule.element is not None
    return Field.IP6_SRC if ELEMENTS[rule.element].is_ipv6 else Field.IP_SRC
