"""
Rules that never decide: others of their layer take all their frames, the other layer does, or there are none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ...base.errors import Source
from ...ruleset.cover import covers
from ...ruleset.decisions import Decision
from ...ruleset.evaluate import Way
from ...ruleset.model import Stage, Verdict
from ...ruleset.regions import NOTHING
from ..findings import Check, Finding
from ..tree import Tree, layer_of, meaning_of, other_layer, stops

_FIRST = {way.value[0 if way is Way.TO_GUEST else 1] for way in Way}
"""Of both layers the one that a frame meets first."""


def _told(winners: Sequence[Decision], covered: Decision) -> tuple[Decision, str]:
    """The rule that wins, and all of it for people."""
    alone = next((each for each in winners if covers(each.rule.matches, covered.rule.matches)), winners[0])
    others = {str(each.rule.source) for each in winners} - {str(alone.rule.source)}
    more = f" and {len(others)} more" if others else ""
    return alone, f"{alone.rule.source} ({alone.rule.verdict.value} in {alone.rule.filter}){more}"


def _finding(code: str, tree: Tree, source: Source, message: str, wins: Decision | None = None) -> Finding:
    rule = tree.rule_at[source]
    return Finding(
        code,
        f"this {rule.action.value} {message}",
        rule.filter,
        source,
        wins.rule.source if wins else None,
        wins.rule.filter if wins else "",
    )


def _duplicates(tree: Tree) -> dict[Source, Source]:
    """Rules that say what another says, and which."""
    first: dict[object, Source] = {}
    found: dict[Source, Source] = {}
    at: dict[Source, list[object]] = {}
    for rule in tree.rules:
        meaning = (rule.filter, rule.chain, rule.action, rule.direction, rule.statematch, rule.element)
        at.setdefault(rule.source, []).append((meaning, meaning_of(rule.conditions)))
    for source, meanings in at.items():
        key = tuple(meanings)
        if first.setdefault(key, source) != source:
            found[source] = first[key]
    return found


def find_duplicates(tree: Tree) -> Iterator[Finding]:
    for source, before in _duplicates(tree).items():
        rule = tree.rule_at[source]
        yield Finding("NWF102", f"says the same as {before}", rule.filter, source, before, rule.filter)


def find_covered(tree: Tree) -> Iterator[Finding]:
    duplicates = _duplicates(tree)
    for source, decisions in tree.by_rule.items():
        possible = [each for each in decisions if each.could != NOTHING]
        if source in duplicates or not possible or any(each.decides != NOTHING for each in possible):
            continue
        winners = [winner for each in possible for winner in tree.winners(each)]
        if not winners or _harmless(possible[0], winners):
            continue
        alone, told = _told(winners, possible[0])
        verb = "come" if " and " in told else "comes"
        taken = "take" if " and " in told else "takes"
        message = f"never decides: {told} {verb} first and {taken} all its frames"
        yield _finding("NWF101", tree, source, message, alone)


def _harmless(covered: Decision, winners: Sequence[Decision]) -> bool:
    """
    Whether only other filters win, and say the same, or leave nothing for an exception to except: building blocks
    overlap.
    """
    if any(each.rule.filter == covered.rule.filter for each in winners):
        return False
    if covered.rule.verdict is Verdict.RETURN:
        return any(not stops(each.rule.verdict) for each in winners)
    return all(stops(each.rule.verdict) is stops(covered.rule.verdict) for each in winners)


def find_never(tree: Tree) -> Iterator[Finding]:
    for source, decisions in tree.by_rule.items():
        if tree.rule_at[source].action.value != "continue" and all(each.could == NOTHING for each in decisions):
            where = tree.rule_at[source].chain
            chain = "" if where == "root" else f" of chain {where!r}"
            yield _finding("NWF106", tree, source, f"never decides: no frame{chain} meets all its conditions")


def find_dropped_before(tree: Tree) -> Iterator[Finding]:
    """What the layer that a frame meets first drops."""
    regions = tree.decisions.regions
    for source, decisions in tree.by_rule.items():
        alive = [each for each in decisions if each.decides != NOTHING]
        if not alive or stops(alive[0].rule.verdict) or any(each.stage in _FIRST for each in decisions):
            continue
        passing = [
            regions.both(each.decides, tree.decisions.passing(other_layer(each.stage))) != NOTHING for each in alive
        ]
        if not any(passing):
            alone, told = _told(_stopping(tree, alive[0]), alive[0])
            layer = 5 - layer_of(tree.rule_at[source])
            message = f"never decides: layer {layer} comes first, and {told} drops all its frames there"
            yield _finding("NWF103", tree, source, message, alone)


def find_undone(tree: Tree) -> Iterator[Finding]:
    """What the layer that a frame meets second drops."""
    regions = tree.decisions.regions
    for source, decisions in tree.by_rule.items():
        alive = [each for each in decisions if each.decides != NOTHING]
        if not alive or alive[0].rule.verdict is not Verdict.ACCEPT:
            continue
        if not all(each.stage in _FIRST for each in alive):
            continue
        undone = [
            regions.both(each.decides, tree.decisions.passing(other_layer(each.stage))) == NOTHING for each in alive
        ]
        if all(undone):
            alone, told = _told(_stopping(tree, alive[0]), alive[0])
            layer = 5 - layer_of(tree.rule_at[source])
            message = f"is undone: its frames meet layer {layer} as well, and {told} drops them there"
            yield _finding("NWF104", tree, source, message, alone)


def _stopping(tree: Tree, decision: Decision) -> list[Decision]:
    """Rules of the other layer that drop frames of this one."""
    regions, stage = tree.decisions.regions, other_layer(decision.stage)
    return [
        each
        for each in tree.decisions.every
        if each.stage is stage and stops(each.rule.verdict) and regions.both(each.decides, decision.decides) != NOTHING
    ]


def find_root_first(tree: Tree) -> Iterator[Finding]:
    """Rules of layer 3 in a chain's filter, which stand behind those of root whatever the priorities say."""
    regions = tree.decisions.regions
    for source, decisions in tree.by_rule.items():
        rule = tree.rule_at[source]
        if rule.chain == "root" or layer_of(rule) != 3:
            continue
        for decision in decisions:
            wins = next((each for each in tree.earlier(decision) if _overtakes(tree, decision, each)), None)
            if wins is not None and regions.both(wins.decides, decision.could) != NOTHING:
                priority = tree.rule_at[wins.rule.source].priority
                message = (
                    f"comes behind {wins.rule.source} ({wins.rule.verdict.value}, priority {priority}, in "
                    f"{wins.rule.filter}): of layer 3 the rules of chain root are first, whatever priorities say"
                )
                yield _finding("NWF105", tree, source, message, wins)
                break


def _overtakes(tree: Tree, decision: Decision, other: Decision) -> bool:
    """Whether `other`, of root, is before it against their priorities, and says otherwise of frames of it."""
    rule, first = tree.rule_at[decision.rule.source], tree.rule_at.get(other.rule.source)
    if first is None or first.chain != "root" or stops(other.rule.verdict) is stops(decision.rule.verdict):
        return False
    expected_before = rule.chain_priority <= first.priority or rule.priority < first.priority
    return expected_before and tree.decisions.regions.both(other.decides, decision.could) != NOTHING


assert {Stage.FROM_L2, Stage.TO_L3} == _FIRST

CHECKS = (
    Check(
        "NWF101",
        "a rule that never decides, since others take all its frames",
        "Rules are tested by rising priority, and the first that applies decides. Each frame for which this rule holds "
        "is decided by rules before it, so it has no effect. Give it a lower priority than the rule that wins, narrow "
        "that one, or remove this one. What another filter of the tree says just as well isn't reported.",
        find_covered,
    ),
    Check(
        "NWF102",
        "a rule that is there twice",
        "Two rules of a filter say the same; the second has no effect. Perhaps one was copied and should differ.",
        find_duplicates,
    ),
    Check(
        "NWF103",
        "a rule whose frames the other layer drops before",
        "What a guest sends meets the rules of layer 2 (mac, ip, arp …) first and those of layer 3 (tcp, udp, all …) "
        "then; what it gets meets them in the opposite order. Each layer must let a frame pass. The layer that comes "
        "first drops all the frames of this rule, so it never decides. Accept them there, too.",
        find_dropped_before,
    ),
    Check(
        "NWF104",
        "an accept that the other layer undoes",
        "An accept ends its own layer only: the frame goes on to the other one (layer 2 for what mac, ip, arp … say, "
        "layer 3 for tcp, udp, all …), and there all that this rule accepts is dropped. So it is when a filter accepts "
        "DHCP with <ip> and ends with a drop of <all/>. Accept the same in the other layer, with <udp> here.",
        find_undone,
    ),
    Check(
        "NWF105",
        "a layer 3 rule of a chain, behind those of root",
        "The rules of layer 3 of all filters stand in one chain: first those of filters of chain root, by priority, "
        "then those of other filters. A chain's priority says nothing there. The rule named first decides frames that "
        "this one was to decide. Put both into filters of chain root.",
        find_root_first,
    ),
    Check(
        "NWF106",
        "a rule that no frame can meet",
        "Its conditions contradict each other, or the frames of its chain (an <arp> rule in a chain ipv4), so it has "
        "no effect.",
        find_never,
    ),
)
