"""
A filter and all that it refers to, as it will be compiled: what the checks look at.

In:  a filter, what reads others, parameters.
Out: a `Tree`: its rules bound, compiled, and which frames each of them decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property

from ..base.addresses import parse_mac
from ..base.errors import Source
from ..compiler.compile import compile_tap
from ..filters.bound import BoundRule, Condition
from ..filters.model import Direction, Filter, FilterRef, FilterRule, Parameters
from ..filters.protocols import ELEMENTS
from ..filters.resolve import ReadFilter, RuleInstance, resolve, walk_tree
from ..ruleset.decisions import Decision, Decisions
from ..ruleset.fields import Field
from ..ruleset.model import Attachment, Equals, Match, Ruleset, Stage, Verdict
from ..ruleset.regions import NOTHING
from .answers import answers
from .places import MORE, Own

_MAIN_STAGES = {
    2: {Direction.OUT: (Stage.FROM_L2,), Direction.IN: (Stage.TO_L2,), Direction.INOUT: (Stage.FROM_L2, Stage.TO_L2)},
    3: {Direction.OUT: (Stage.FROM_L3,), Direction.IN: (Stage.TO_L3,), Direction.INOUT: (Stage.FROM_L3, Stage.TO_L3)},
}
_OTHER_LAYER = {
    Stage.FROM_L2: Stage.FROM_L3,
    Stage.FROM_L3: Stage.FROM_L2,
    Stage.TO_L2: Stage.TO_L3,
    Stage.TO_L3: Stage.TO_L2,
}


class Tree:
    """
    Args:
        parameters: of the interface's reference, placeholders among them.
        whole: whether it stands for all that an interface has; else it is a part, to be used with others.
        given: the parameters that have been given; the others are placeholders.

    Raises:
        InputError: it doesn't compile.
        TooComplex: it does, but not even a program can follow it.
    """

    def __init__(
        self,
        entry: Filter,
        read_filter: ReadFilter,
        mac: str,
        parameters: Parameters,
        *,
        whole: bool,
        given: frozenset[str] = frozenset(),
    ) -> None:
        self.entry, self.whole, self.given = entry, whole, given
        self.parameters: Mapping[str, tuple[str, ...]] = {**parameters}
        self.reference = FilterRef(entry.name, self.parameters, entry.source)
        self.instances: tuple[RuleInstance, ...] = tuple(
            walk_tree(self.reference, {**self.parameters, "MAC": (mac,), "LINK_LOCAL": ("fe80::1",)}, read_filter)
        )
        self.filters = {instance.filter.name: instance.filter for instance in self.instances}
        self.filters[entry.name] = entry
        self.rules: tuple[BoundRule, ...] = resolve(self.reference, mac, read_filter)
        self.mac = mac
        self.ruleset: Ruleset = compile_tap(
            "tap", Attachment.BRIDGE_PORT, parse_mac(mac), self.rules, ingress=False, inline=False
        )
        self.own = Own(mac, self.parameters)
        self.rule_at: dict[Source, BoundRule] = {rule.source: rule for rule in reversed(self.rules)}

    @cached_property
    def decisions(self) -> Decisions:
        """Who decides what. Raises TooComplex."""
        back = (match for rule in self.rules for answer in answers(rule) for match in answer.matches)
        return Decisions(self.ruleset, (*MORE, *self.own.matches, *back))

    @cached_property
    def by_rule(self) -> dict[Source, tuple[Decision, ...]]:
        """By the <rule>, its decisions where it says it stands: not the way back of an accept, nor what goes beside."""
        found: dict[Source, list[Decision]] = {source: [] for source in self.rule_at}
        for decision in self.decisions.every:
            rule = self.rule_at.get(decision.rule.source)
            if rule is None or not decision.is_verdict or _is_beside(decision):
                continue
            if decision.stage in main_stages(rule):
                found[rule.source].append(decision)
        return {source: tuple(decisions) for source, decisions in found.items()}

    def earlier(self, decision: Decision) -> Iterator[Decision]:
        """What is tested before it in its stage, and has a verdict."""
        for each in self.decisions.every:
            if each is decision:
                return
            if each.stage is decision.stage and each.is_verdict:
                yield each

    def winners(self, decision: Decision) -> list[Decision]:
        """The rules that take frames from it, in their order."""
        regions = self.decisions.regions
        return [
            each
            for each in self.earlier(decision)
            if each.rule.source != decision.rule.source
            and not (each.rule.verdict is Verdict.RETURN and each.chain not in (None, decision.chain))
            and regions.both(each.decides, decision.could) != NOTHING
        ]

    def file_rules(self) -> Iterator[tuple[Filter, FilterRule]]:
        """Every <rule> of the tree once, as it is written."""
        for definition in self.filters.values():
            yield from ((definition, entry) for entry in definition.entries if isinstance(entry, FilterRule))


def main_stages(rule: BoundRule) -> tuple[Stage, ...]:
    """Where the rule says it stands, seen from the guest."""
    return _MAIN_STAGES[layer_of(rule)][rule.direction]


def layer_of(rule: BoundRule) -> int:
    """2 or 3."""
    return 2 if rule.element is None else ELEMENTS[rule.element].layer


def meaning_of(conditions: Mapping[str, Condition]) -> frozenset[object]:
    """What they ask for, to be compared; a comment asks for nothing."""
    return frozenset(
        (name, each.value, each.negated, each.mask, each.end) for name, each in conditions.items() if name != "comment"
    )


def other_layer(stage: Stage) -> Stage:
    """Where the same frame is judged, too."""
    return _OTHER_LAYER[stage]


def stops(verdict: Verdict) -> bool:
    """Whether a frame goes no further."""
    return verdict in (Verdict.DROP, Verdict.REJECT)


def _is_beside(decision: Decision) -> bool:
    """Whether the compiler adds it for what the host itself sends."""
    return Match(Field.PACKET_TYPE, Equals(0)) in decision.rule.matches
