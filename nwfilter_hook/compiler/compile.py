"""
Compile one tap's bound rules into a `Ruleset`.

In:  a tap, how it is attached, the guest's MAC, and its `BoundRule`s in document order.
Out: chains of the four trees (what the guest sends and gets, at layer 2 and layer 3), in evaluation order.

Nothing here reads a file, a clock or the kernel: equal inputs give equal output.
Evaluation order: https://libvirt.org/formatnwfilter.html, "Filtering chains" and "Filtering chain priorities".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ..base.dataclass import dataclass
from ..base.errors import UnsupportedMatch
from ..filters.model import Action, BoundRule, Direction, Learning
from ..filters.protocols import ELEMENTS, chain_prefix
from ..ruleset.model import (
    AnyState,
    Attachment,
    Chain,
    CountAbove,
    Equals,
    Field,
    InSet,
    Match,
    NamedSet,
    Purpose,
    Rule,
    Ruleset,
    Tree,
    Verdict,
)
from .host_traffic import with_host_packets
from .learning import with_learning
from .matches import BPDU_ADDRESS, Alternatives, Matches, exchange, narrow, rule_alternatives, turned_alternatives

_JUMP_CONDITIONS = {
    "mac": (),
    "stp": (Match(Field.ETHER_DST, Equals(BPDU_ADDRESS)),),
    "vlan": (Match(Field.ETHER_TYPE, Equals(0x8100)),),
    "ipv4": (Match(Field.ETHER_TYPE, Equals(0x0800)),),
    "ipv6": (Match(Field.ETHER_TYPE, Equals(0x86DD)),),
    "arp": (Match(Field.ETHER_TYPE, Equals(0x0806)),),
    "rarp": (Match(Field.ETHER_TYPE, Equals(0x8035)),),
}


_MAX_INLINED = 4
"""Rules of a sub-chain that go into the root chain instead: a chain costs nft time to read, and a packet a jump."""

_IN_EVERY_FRAME = (Field.ETHER_SRC, Field.ETHER_DST, Field.ETHER_TYPE)


@dataclass(frozen=True)
class Part:
    """What one L3 rule becomes in one tree."""

    tree: Tree
    as_written: bool
    states: frozenset[str] | None = None
    ct_direction: int | None = None  # 0 original, 1 reply


_ORIGINAL, _REPLY = 0, 1
_NEW_OR_ESTABLISHED = frozenset(("new", "established"))
_ESTABLISHED = frozenset(("established",))
_CONNECTED = frozenset(("new", "established", "related"))
_UNCONNECTED = frozenset(("invalid", "untracked"))


def compile_tap(
    tap: str,
    attachment: Attachment,
    mac: int,
    rules: Iterable[BoundRule],
    learning: Learning | None = None,
    *,
    end_of_chain: str = "return",
) -> Ruleset:
    """
    Compile `rules` into the chains that filter `tap`.

    Args:
        mac: the guest's address, whose frames teach the learned addresses.
        learning: how they are learned, if rules use them.
        end_of_chain: "return" to the root chain, as libvirt documents it, or "accept" as it does: ebtables accepts
            what comes to the end of a user-defined chain (ebtables(8), -N).

    Returns:
        For each tree that has rules: its root chain, then its sub-chains by first appearance.

    Raises:
        UnsupportedMatch: a rule can't be enforced on this kind of tap.
    """
    rules = tuple(rules)
    # sorted() is stable: rules of equal priority keep document order
    ordered = sorted(rules, key=lambda rule: (rule.chain != "root", rule.priority))
    trees = {tree: _Tree(tree, tuple(dict.fromkeys(rule.chain for rule in rules)), end_of_chain) for tree in Tree}
    counters = 0
    for rule in ordered:
        if rule.element is not None and ELEMENTS[rule.element].layer == 3:
            if attachment is not Attachment.BRIDGE_PORT:
                _refuse_l3(rule, tap, attachment)
            limit = rule.values.get("connlimit-above")
            counter = None
            if limit is not None:
                counter = NamedSet(Purpose.CONNLIMIT, str(counters), _address_field(rule).kind)
                counters += 1
            for tree, compiled in _compile_l3(rule, counter):
                trees[tree].add("root", 0, rule.priority, compiled)
        else:
            for tree, compiled in _compile_l2(rule):
                trees[tree].add(rule.chain, rule.chain_priority, rule.priority, compiled)
    chains = [chain for tree in Tree for chain in trees[tree].chains()]
    chains = with_learning(with_host_packets(chains), mac, learning or Learning())
    notes = dict.fromkeys(note for tree in Tree for note in trees[tree].notes)
    return Ruleset(tap, attachment, tuple(chains), tuple(_sets(chains)), tuple(notes))


class _Tree:
    """One tree under construction; rules arrive in evaluation order of their chains, `names` are in document order."""

    def __init__(self, tree: Tree, names: Sequence[str], end_of_chain: str) -> None:
        self._tree = tree
        self._names = names
        self._accepts_at_end = end_of_chain == "accept"
        self._root: list[tuple[int, Rule]] = []
        self._sub: dict[str, list[Rule]] = {}
        self._priority: dict[str, tuple[int, str]] = {}  # and the filter that says so
        self._known: set[tuple[str, Rule]] = set()
        self.notes: list[str] = []

    def add(self, chain: str, chain_priority: int, priority: int, rule: Rule) -> None:
        if chain != "root":
            # of several filters' priorities that of the rule that sorts last counts, as in libvirt
            before, filter_name = self._priority.get(chain, (chain_priority, rule.filter))
            if before != chain_priority:
                self.notes.append(
                    f"chain {chain!r} has the priority {before} in filter {filter_name!r} and {chain_priority} in "
                    f"{rule.filter!r}; the latter counts"
                )
            self._priority[chain] = chain_priority, rule.filter
        if (chain, rule) in self._known:
            return  # a filter that is referred to twice; the first of two equal rules decides
        self._known.add((chain, rule))
        if chain == "root":
            self._root.append((priority, rule))
        else:
            self._sub.setdefault(chain, []).append(rule)

    def chains(self) -> Iterator[Chain]:
        if self._accepts_at_end:
            for rules in self._sub.values():
                last = rules[-1]
                if last.matches or last.verdict is Verdict.CONTINUE:
                    rules.append(Rule((), Verdict.ACCEPT, last.filter, last.source))
        if self._tree in (Tree.FROM_L3, Tree.TO_L3):
            entries = [rule for _, rule in self._root]  # in their order already: root filters first
        else:
            # jumps and rules share one scale; at equal value jumps come first, as their chains appear in the document
            merged = [(self._priority[name][0], 0, self._entrance(name)) for name in self._names if name in self._sub]
            merged += [(priority, 1, (rule,)) for priority, rule in self._root]
            entries = [rule for _, _, rules in sorted(merged, key=lambda entry: entry[:2]) for rule in rules]
        if entries:
            yield Chain(self._tree, None, tuple(entries))
        for name, rules in self._sub.items():
            if _inlined(rules) is None:
                yield Chain(self._tree, name, tuple(rules))

    def _entrance(self, name: str) -> tuple[Rule, ...]:
        """What the root chain holds for a sub-chain: the jump, or its rules, for the frames of that chain."""
        rules = _inlined(self._sub[name])
        if rules is None:
            return (self._jump(name),)
        conditions = _JUMP_CONDITIONS[chain_prefix(name) or ""]
        narrowed = ((narrow(rule.matches, conditions), rule) for rule in rules)
        return tuple(
            Rule(matches, rule.verdict, rule.filter, rule.source) for matches, rule in narrowed if matches is not None
        )

    def _jump(self, name: str) -> Rule:
        first = self._sub[name][0]
        matches = _JUMP_CONDITIONS[chain_prefix(name) or ""]
        return Rule(matches, Verdict.JUMP, first.filter, first.source, target=name)


def _inlined(rules: Sequence[Rule]) -> Sequence[Rule] | None:
    """
    A sub-chain's rules as they can stand in the root chain with the same verdict for every frame, or None.

    Without "return" they can stand as they are. "Return if A, return if B, else drop" is "drop if neither A nor B";
    only where the fields are in every frame, since a condition on a field that isn't there never holds, nor does its
    negation.
    """
    if len(rules) <= _MAX_INLINED and all(rule.verdict is not Verdict.RETURN for rule in rules):
        return rules
    *returns, last = rules
    if last.matches or last.verdict not in (Verdict.DROP, Verdict.ACCEPT) or len(returns) > _MAX_INLINED:
        return None
    if any(rule.verdict is not Verdict.RETURN or not _invertible(rule.matches) for rule in returns):
        return None
    inverted = (Match(match.field, match.test, not match.negated) for rule in returns for match in rule.matches)
    return (Rule(tuple(inverted), last.verdict, last.filter, last.source),)


def _invertible(matches: Matches) -> bool:
    return len(matches) == 1 and matches[0].field in _IN_EVERY_FRAME


def _rules(rule: BoundRule, verdict: Verdict, alternatives: Iterable[Matches]) -> Iterator[Rule]:
    for matches in alternatives:
        yield Rule(matches, verdict, rule.filter, rule.source)


# --- layer 2: stateless, one or both directions ---------------------------------------------------------------------


def _compile_l2(rule: BoundRule) -> Iterator[tuple[Tree, Rule]]:
    alternatives = rule_alternatives(rule)
    # nothing is rejected at layer 2: the frame is dropped
    verdict = Verdict.DROP if rule.action is Action.REJECT else Verdict(rule.action.value)
    if rule.direction is Direction.INOUT and rule.element == "stp" and "srcmacaddr" in rule.values:
        raise UnsupportedMatch("<stp srcmacaddr=…> can't be 'inout': a BPDU's destination is fixed", rule.source)
    if rule.direction is Direction.OUT:
        yield from ((Tree.FROM_L2, compiled) for compiled in _rules(rule, verdict, alternatives))
        return
    if rule.direction is Direction.INOUT:
        exchanged = alternatives if rule.element == "stp" else tuple(exchange(matches) for matches in alternatives)
        yield from ((Tree.FROM_L2, compiled) for compiled in _rules(rule, verdict, exchanged))
    yield from ((Tree.TO_L2, compiled) for compiled in _rules(rule, verdict, alternatives))


# --- layer 3: stateful ------------------------------------------------------------------------------------------------


def _compile_l3(rule: BoundRule, counter: NamedSet | None) -> Iterator[tuple[Tree, Rule]]:
    for part in _parts(rule):
        alternatives = rule_alternatives(rule) if part.as_written else turned_alternatives(rule)
        verdict = Verdict(rule.action.value)
        if verdict is Verdict.REJECT and part.tree is Tree.TO_L3:
            verdict = Verdict.DROP  # an answer can only be sent toward the guest
        for conditions in _state_conditions(part) if counter is None else _counted(rule, part, counter):
            for compiled in _rules(rule, verdict, (alternative + conditions for alternative in alternatives)):
                yield part.tree, compiled


def _parts(rule: BoundRule) -> list[Part]:
    """Which trees an L3 rule goes to, which way round, and under which connection state."""
    direction = rule.direction
    guest_sends = Part(Tree.FROM_L3, as_written=direction is Direction.OUT)
    guest_gets = Part(Tree.TO_L3, as_written=direction is not Direction.OUT)
    own_tree = {Direction.OUT: (Tree.FROM_L3,), Direction.IN: (Tree.TO_L3,), Direction.INOUT: tuple(Tree)}[direction]
    states = rule.values.get("state", (None, False))[0] if rule.statematch else None
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
        parts = [guest_sends, guest_gets]
    if "type" in rule.values:  # icmp: each type goes one way, so there is no automatic way back
        parts = [Part(p.tree, p.as_written, p.states) for p in parts if p.tree in own_tree]
    if "connlimit-above" in rule.values:
        parts = [Part(p.tree, True, None if accept else p.states, p.ct_direction) for p in parts if p.as_written]
        if accept:
            parts = [Part(p.tree, True) for p in parts]
    return parts


def _state_conditions(part: Part) -> Alternatives:
    matches: Matches = ()
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
    """
    limit, negated = rule.values["connlimit-above"]
    assert isinstance(limit, int)
    wanted = part.states or _CONNECTED | _UNCONNECTED
    if wanted & _CONNECTED:
        count = Match(_address_field(rule), CountAbove(counter, limit), negated)
        yield Match(Field.CT_STATE, AnyState(wanted & _CONNECTED)), count
    if wanted & _UNCONNECTED and (limit < 1) is not negated:
        yield (Match(Field.CT_STATE, AnyState(wanted & _UNCONNECTED)),)


def _address_field(rule: BoundRule) -> Field:
    assert rule.element is not None
    return Field.IP6_SRC if ELEMENTS[rule.element].is_ipv6 else Field.IP_SRC


def _refuse_l3(rule: BoundRule, tap: str, attachment: Attachment) -> None:
    device = "a macvtap device" if attachment is Attachment.MACVTAP else "not a bridge port"
    raise UnsupportedMatch(
        f"<{rule.element}> can't be enforced on {tap}, which is {device}; only mac, vlan, stp, arp, rarp, ip, ipv6 can",
        rule.source,
    )


# --- sets ------------------------------------------------------------------------------------------------------------


def _sets(chains: Iterable[Chain]) -> list[NamedSet]:
    found: dict[NamedSet, None] = {}
    for chain in chains:
        for rule in chain.rules:
            for match in rule.matches:
                if isinstance(match.test, (InSet, CountAbove)):
                    found[match.test.set] = None
            found.update((named, None) for _, named in rule.stores)
    return list(found)
