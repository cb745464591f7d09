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
from ..ruleset.model import AnyState, CountAbove, Equals, Match, NamedSet, Rule, Stage, Uncounted, Verdict
from .chains import rules_of
from .implied import Alternatives, Matches
from .matches import BRIDGED, reversed_alternatives, rule_alternatives
from .untracked import untracked_alternatives


@dataclass(frozen=True)
class Placement:
    """
    What one L3 rule becomes in one stage.

    Attributes:
        ct_direction: 0 original, 1 reply, None for both.
        bridged_only: what the host sends or routes is left out.
    """

    stage: Stage
    forward: bool
    states: frozenset[str] | None = None
    ct_direction: int | None = None
    bridged_only: bool = False


_ORIGINAL, _REPLY = 0, 1
_NEW_OR_ESTABLISHED = frozenset(("new", "established"))
_ESTABLISHED = frozenset(("established",))
_CONNECTED = frozenset(("new", "established", "related"))
_UNCONNECTED = frozenset(("invalid", "untracked"))
_LET_PASS = (Verdict.ACCEPT, Verdict.RETURN)


def compile_layer3(rule: BoundRule, counter: NamedSet | None) -> Iterator[tuple[Stage, Rule]]:
    for part in _parts(rule):
        alternatives = rule_alternatives(rule) if part.forward else reversed_alternatives(rule)
        verdict = Verdict(rule.action.value)
        if verdict is Verdict.REJECT and part.stage is Stage.TO_L3:
            verdict = Verdict.DROP  # an answer can only be sent toward the guest
        for conditions in _state_conditions(part) if counter is None else _counted(rule, part, counter):
            for compiled in rules_of(rule, verdict, (alternative + conditions for alternative in alternatives)):
                yield part.stage, compiled
        if counter is None and verdict in _LET_PASS and part.states and part.states & _NEW_OR_ESTABLISHED:
            for compiled in rules_of(rule, verdict, untracked_alternatives(rule, alternatives)):
                yield part.stage, compiled


def _parts(rule: BoundRule) -> list[Placement]:
    """Which stages an L3 rule goes to, which way round, and under which connection state."""
    direction = rule.direction
    guest_sends = Placement(Stage.FROM_L3, forward=direction is Direction.OUT)
    guest_gets = Placement(Stage.TO_L3, forward=direction is not Direction.OUT)
    own_stage = {Direction.OUT: (Stage.FROM_L3,), Direction.IN: (Stage.TO_L3,), Direction.INOUT: tuple(Stage)}[
        direction
    ]
    states = rule.value("state") if rule.statematch else None
    accept = rule.action is Action.ACCEPT
    if isinstance(states, frozenset):
        wanted = None if "none" in states else states
        parts = [Placement(p.stage, p.forward, wanted) for p in (guest_sends, guest_gets) if p.stage in own_stage]
    elif accept and direction is not Direction.INOUT and rule.statematch:
        parts = [
            Placement(p.stage, p.forward, _NEW_OR_ESTABLISHED, _ORIGINAL)
            if p.forward
            else Placement(p.stage, p.forward, _ESTABLISHED, _REPLY)
            for p in (guest_sends, guest_gets)
        ]
    else:
        # the other half of a one-way drop is for bridged packets: libvirt has no chain for what the host sends
        stops = rule.action in (Action.DROP, Action.REJECT)
        mirrored = stops and direction is Direction.OUT
        parts = [guest_sends, Placement(guest_gets.stage, guest_gets.forward, bridged_only=mirrored)]
    if "type" in rule.conditions:  # icmp: each type goes one way, so there is no automatic way back
        parts = [Placement(p.stage, p.forward, p.states) for p in parts if p.stage in own_stage]
    if "connlimit-above" in rule.conditions:
        parts = [Placement(p.stage, True, None if accept else p.states, p.ct_direction) for p in parts if p.forward]
        if accept:
            parts = [Placement(p.stage, True) for p in parts]
    return parts


def _state_conditions(part: Placement) -> Alternatives:
    matches: Matches = (BRIDGED,) if part.bridged_only else ()
    if part.states is not None:
        matches += (Match(Field.CT_STATE, AnyState(part.states)),)
    if part.ct_direction is not None:
        matches += (Match(Field.CT_DIRECTION, Equals(part.ct_direction)),)
    return (matches,)


def _counted(rule: BoundRule, part: Placement, counter: NamedSet) -> Iterator[Matches]:
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
