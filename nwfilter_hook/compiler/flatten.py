"""
The rules of one stage as a frame of which something is known meets them: one list, sub-chains in their place.

In:  the stage's chains; a place in them; what is known there.
Out: rules in the order in which such a frame is compared with them; chains beside them, for what several rules lead to.

    jump without a condition      the sub-chain's rules, in its place
    return if A                   goto, if A, to what follows the jump; that rule's verdict, if it is one for all frames
    jump if A                     jump, if A, to a copy of the sub-chain for what is known; goto if nobody comes back

A rule that no frame passes here, or that comes after one for all frames, is left out. `return` in a list means that
the frame has come to the end of the stage, or of a chain that is jumped to; none of the root's own rules returns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from ..base.dataclass import dataclass, replace
from ..ruleset.cover import covers, implies
from ..ruleset.model import Chain, Rule, Verdict
from .knowledge import LASTING, Known, asked, joined

_VERDICTS = frozenset((Verdict.ACCEPT, Verdict.DROP, Verdict.REJECT))
ENDS = frozenset((Verdict.ACCEPT, Verdict.DROP, Verdict.REJECT, Verdict.RETURN, Verdict.GOTO))
"""Verdicts after which a frame isn't compared with the rest of the list."""
_DEEPEST = 5
"""Chains that may follow each other by goto: the kernel follows 16 from a hook, jump or goto (nft_chain_validate)."""
_FAR = 24
"""How many rules before a rule are looked at, whether they leave it frames."""
_PREFIX = "o-"
"""Of a chain's name; a filter's chains are named after protocols, and none begins so."""


@dataclass(frozen=True)
class Place:
    """
    A rule of a chain, and where the frame goes on behind the chain.

    Attributes:
        chain: None for the root.
        back: None at the end of the stage, or of a chain that is jumped to.
        known: at the jump to this chain.
    """

    chain: str | None
    index: int
    back: Place | None
    known: Known

    def after(self) -> Place:
        """The rule behind it."""
        return Place(self.chain, self.index + 1, self.back, self.known)

    @property
    def key(self) -> tuple[object, ...]:
        """The same for two places only if they are the same, and the same is known at each."""
        return self.chain, self.index, id(self.known), self.back and self.back.key


class Flattened:
    """
    One stage in the making.

    Attributes:
        made: the chains that lists lead to, by name.
    """

    def __init__(self, chains: Mapping[str | None, Chain]) -> None:
        self._chains = chains
        self._entrances = Counter(rule.target for chain in chains.values() for rule in chain.rules)
        self._ways_back = {
            name: sum(rule.verdict is Verdict.RETURN for rule in chain.rules) for name, chain in chains.items()
        }
        self.made: dict[str, tuple[Rule, ...]] = {}
        self._names: dict[int, str] = {}
        self._prefix, self._number, self._class = "", 0, Known()
        self._follows: dict[object, tuple[Rule, ...]] = {}
        self._bodies: dict[object, tuple[Rule, ...]] = {}
        self._kept: list[Known] = []
        self._depth = 0
        self._shared = False

    def rules_from(self, index: int, known: Known, label: str) -> tuple[Rule, ...]:
        """The root's rules from `index` on, as frames meet them of which `known` holds; `label` is in chains' names."""
        self._prefix, self._number, self._class = f"{_PREFIX}{label}", 0, known
        return self._rules(Place(None, index, None, known), known)

    def rules_until(self, index: int) -> tuple[Rule, ...]:
        """The root's rules before `index`, none of which jumps."""
        head = Chain(self._chains[None].stage, None, self._chains[None].rules[:index])
        return Flattened({None: head}).rules_from(0, Known(), "")

    def named(self, rules: tuple[Rule, ...], label: str) -> str:
        """The name of the chain with these rules, whose entrance it is that `label` stands for."""
        name = f"{_PREFIX}{label}"
        self._names[id(rules)], self.made[name] = name, rules
        return name

    def _rules(self, start: Place, known: Known) -> tuple[Rule, ...]:
        self._kept.append(known)  # places are told apart by the identity of what is known
        place: Place | None = start
        found: list[Rule] = []
        while place is not None:
            rules = self._chains[place.chain].rules
            if place.index == len(rules):
                if self._leads_on(place, found):
                    break
                place = place.back
                continue
            rule = asked(rules[place.index], known)
            place, here = place.after(), place
            if rule is None or rule.verdict is Verdict.CONTINUE or _is_unreachable(rule, found):
                continue
            if rule.verdict is Verdict.JUMP and not rule.matches and self._depth < _DEEPEST:
                place = Place(rule.target, 0, place, known)
                self._kept.append(known)
                continue
            if rule.verdict is Verdict.RETURN and not rule.matches:
                if self._leads_on(here, found):
                    break
                place = here.back
                continue
            if rule.verdict is Verdict.RETURN:
                rule = self._returning(rule, here, known)
            elif rule.verdict is Verdict.JUMP:
                entered = self._entering(rule, known, here.chain)
                if entered is None:
                    continue
                rule = entered
            found.append(rule)
            if rule.verdict in ENDS:
                if not rule.matches:
                    break
                known = known.without(rule.matches)
        return tuple(found)

    # --- behind a sub-chain -------------------------------------------------------------------------------------------

    def _following(self, place: Place, known: Known) -> tuple[Rule, ...]:
        """What a frame meets that returns from the chain of `place`, of which `known` holds."""
        if place.back is None:
            return ()
        key = place.back.key, id(known)
        if key not in self._follows:
            self._depth += 1
            self._follows[key] = self._rules(place.back, known)
            self._depth -= 1
        return self._follows[key]

    def _returning(self, rule: Rule, place: Place, known: Known) -> Rule:
        """
        What "return if A" is where the chain stands in place of the jump to it. Of what returns from several places
        only that is known that was known at the jump.
        """
        is_only_way = self._ways_back[place.chain] == 1
        following = self._following(place, known.with_(rule.matches) if is_only_way else place.known)
        if not following:
            return rule
        first = following[0]
        if not first.matches and first.verdict in ENDS:
            # what stops packets is told by its filter and line alone, since it is counted by them
            stops = first.verdict in (Verdict.DROP, Verdict.REJECT)
            after = () if stops else ((rule.filter, rule.source), *first.after)
            return replace(first, matches=rule.matches, given=rule.given, after=after)
        return replace(rule, verdict=Verdict.GOTO, target=self._chain(following))

    def _leads_on(self, place: Place, found: list[Rule]) -> bool:
        """Whether what follows the chain of `place` is a chain already: then the rules found so far end with a goto."""
        if place.back is None:
            return False
        following = self._follows.get((place.back.key, id(place.known)))
        if not found or following is None or id(following) not in self._names:
            return False
        last = found[-1]
        found.append(Rule((), Verdict.GOTO, last.filter, last.source, self._chain(following)))
        return True

    # --- sub-chains for some frames -----------------------------------------------------------------------------------

    def _entering(self, rule: Rule, known: Known, chain: str | None) -> Rule | None:
        """
        What "jump if A" in `chain` is; None if the sub-chain has nothing for these frames. One that several jumps lead
        to is there once, for all frames of the EtherType.
        """
        shared = self._shared or any(self._entrances[name] > 1 for name in (rule.target, chain))
        inside = self._class if shared else known.with_(rule.matches)
        key = rule.target, id(inside)
        if key not in self._bodies:
            before, self._shared = self._shared, shared
            self._bodies[key] = self._rules(Place(rule.target, 0, None, inside), inside)
            self._shared = before
        body = self._bodies[key]
        if not body:
            return None
        if len(body) == 1 and body[0].verdict in _VERDICTS:
            matches = joined(rule.matches, body[0].matches)
            # what the body takes for granted may be what the jump asks
            given = (*rule.given, *(each for each in body[0].given if not any(implies(one, each) for one in matches)))
            return replace(body[0], matches=matches, given=given)
        verdict = Verdict.JUMP if _comes_back(body) else Verdict.GOTO
        return replace(rule, verdict=verdict, target=self._chain(body))

    def _chain(self, rules: tuple[Rule, ...]) -> str:
        """The name of the chain with these rules, the same for the same list."""
        if id(rules) not in self._names:
            self._number += 1
            self._names[id(rules)] = f"{self._prefix}-{self._number}"
            self.made[self._names[id(rules)]] = rules
        return self._names[id(rules)]


def _comes_back(rules: Sequence[Rule]) -> bool:
    """Whether a frame may come to the end of a chain with these rules."""
    last = rules[-1]
    ends = last.verdict in _VERDICTS and not last.matches
    return not ends or any(rule.verdict in (Verdict.RETURN, Verdict.GOTO) for rule in rules)


def _is_unreachable(rule: Rule, before: Sequence[Rule]) -> bool:
    """Whether a rule that stands close before it decides about all of its frames."""
    if rule.verdict is Verdict.LEARN:
        return False
    conditions = (*rule.matches, *rule.given)
    fields = {match.field for match in conditions}
    return any(
        earlier.verdict in ENDS
        and all(match.field in fields and isinstance(match.test, LASTING) for match in earlier.matches)
        and covers(earlier.matches, conditions)
        for earlier in before[-_FAR:]
    )
