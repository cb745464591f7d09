"""
What a compiled ruleset does with one frame, and why.

In:  a `Ruleset`, a frame, whether the guest sends or gets it, and what the kernel would know beside it: the state of
     its connection, what is in the named sets, how many connections are counted.
Out: an `Evaluation`: for each layer that the frame meets, its verdict and every rule that it was compared with.

This is the second opinion on what the rules mean: it shares no code with the renderer, and tests/conformance holds the
kernel's verdicts against it. Nothing here reads a file, a clock or the kernel.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

from ..base.dataclass import dataclass
from .fields import Field
from .frame import Frame, decode_frame
from .model import (
    AddressRange,
    AnyState,
    Attachment,
    Between,
    Chain,
    CountAbove,
    Equals,
    InSet,
    Masked,
    Match,
    NamedSet,
    OneOf,
    Present,
    Rule,
    Ruleset,
    SameAs,
    Stage,
    Uncounted,
    Verdict,
)


class Way(enum.Enum):
    """Which way a frame goes; the value is the stages that it meets, in their order."""

    FROM_GUEST = (Stage.INGRESS, Stage.FROM_L2, Stage.FROM_L3)
    TO_GUEST = (Stage.TO_L3, Stage.TO_L2)


class State(enum.Enum):
    """The state of a packet's connection, as nft names it; what isn't IP is untracked."""

    NEW = "new"
    ESTABLISHED = "established"
    RELATED = "related"
    INVALID = "invalid"
    UNTRACKED = "untracked"


_PACKET_HOST, _PACKET_OTHERHOST = 0, 3
_THIS_TAP = 0
"""The value of Field.TAP: a ruleset knows one tap."""

SetElement = tuple[range, ...]
"""One element of a named set: a range of numbers for each of its dimensions."""


@dataclass(frozen=True)
class Context:
    """
    What the kernel knows beside the frame.

    Attributes:
        state: of the frame's connection.
        reply: the frame travels against its connection's first packet.
        sets: what is in the named sets; one that isn't named here is as it was made.
        counts: the tracked connections of the frame's address, its own included, by the set that counts them; 1 where
            a set isn't named.
        from_host: the host sends or routes the frame; else it is bridged.
        full: sets that count connections and have no room for the frame's address.
        elsewhere: addresses that aren't the tap's to learn: another's in its segment, the host's …
    """

    state: State = State.NEW
    reply: bool = False
    sets: Mapping[NamedSet, frozenset[SetElement]] = {}
    counts: Mapping[NamedSet, int] = {}
    from_host: bool = False
    full: frozenset[NamedSet] = frozenset()
    elsewhere: tuple[AddressRange, ...] = ()


NO_CONTEXT = Context(State.UNTRACKED)


@dataclass(frozen=True)
class Step:
    """
    A rule that the frame was compared with.

    Attributes:
        chain: name of the sub-chain, or None in the stage's root.
        failed: the first condition that doesn't hold; None if the rule applies.
        value: what the frame has in the failed condition's field; None if it can't be read.
    """

    chain: str | None
    rule: Rule
    failed: Match | None
    value: int | None

    @property
    def applies(self) -> bool:
        return self.failed is None


@dataclass(frozen=True)
class LayerVerdict:
    """
    What one stage does with the frame.

    Attributes:
        verdict: ACCEPT, DROP or REJECT.
        decided_by: the rule whose verdict it is; None if the frame came to the end of the stage, which accepts.
        steps: in the order in which the kernel takes them.
    """

    stage: Stage
    verdict: Verdict
    decided_by: Rule | None
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Evaluation:
    """
    The layers that the frame met: a layer that drops it is the last.

    Attributes:
        sets: what is in the named sets afterwards.
    """

    layers: tuple[LayerVerdict, ...]
    sets: Mapping[NamedSet, frozenset[SetElement]]

    @property
    def verdict(self) -> Verdict:
        return self.layers[-1].verdict if self.layers else Verdict.ACCEPT

    @property
    def passes(self) -> bool:
        return self.verdict is Verdict.ACCEPT

    @property
    def decided_by(self) -> Rule | None:
        """The last rule that decided; None if the frame came to the end of every layer."""
        return next((layer.decided_by for layer in reversed(self.layers) if layer.decided_by is not None), None)

    @property
    def applied(self) -> tuple[Rule, ...]:
        """Every rule that applied, deciding or not, as `filter` and `source` of each tell."""
        return tuple(step.rule for layer in self.layers for step in layer.steps if step.applies)


def evaluate(ruleset: Ruleset, data: bytes, way: Way, context: Context = NO_CONTEXT) -> Evaluation:
    """
    Follow the frame `data` through `ruleset` as the kernel would.

    Raises:
        ValueError: `data` is shorter than an Ethernet header.
    """
    in_tag = ruleset.attachment is Attachment.MACVTAP and way is Way.FROM_GUEST
    return evaluate_frame(ruleset, decode_frame(data, in_tag=in_tag), way, context)


def evaluate_frame(ruleset: Ruleset, frame: Frame, way: Way, context: Context = NO_CONTEXT) -> Evaluation:
    """`evaluate` for a frame that is decoded already."""
    layers: list[LayerVerdict] = []
    walk = _Walk(frame, context)
    for stage in way.value:
        chains = {chain.name: chain for chain in ruleset.chains if chain.stage is stage}
        if None not in chains:
            continue
        layers.append(walk.layer(stage, chains))
        if layers[-1].verdict is not Verdict.ACCEPT:
            break
    return Evaluation(tuple(layers), walk.sets)


def failing(rule: Rule, frame: Frame, context: Context) -> tuple[tuple[Match, int | None], ...]:
    """All conditions of `rule` that the frame doesn't meet, each with its field's value, None if it can't be read."""
    walk = _Walk(frame, context)
    return tuple((match, walk.value(match.field)) for match in rule.matches if not walk.holds(match))


class _Walk:
    """One frame on its way through the stages; `sets` changes where a rule stores."""

    def __init__(self, frame: Frame, context: Context) -> None:
        self.frame = frame
        self.context = context
        self.sets = dict(context.sets)

    def layer(self, stage: Stage, chains: Mapping[str | None, Chain]) -> LayerVerdict:
        """The verdict of one stage."""
        steps: list[Step] = []
        rule = self._chain(chains[None], chains, steps)
        # who comes to the end of a root chain has passed
        verdict = Verdict.ACCEPT if rule is None else rule.verdict
        return LayerVerdict(stage, verdict, rule, tuple(steps))

    def _chain(self, chain: Chain, chains: Mapping[str | None, Chain], steps: list[Step]) -> Rule | None:
        """The rule that ends the walk in this chain, by accept, drop or reject."""
        for rule in chain.rules:
            failed = next((match for match in rule.matches if not self.holds(match)), None)
            value = None if failed is None else self.value(failed.field)
            steps.append(Step(chain.name, rule, failed, value))
            if failed is not None or rule.verdict is Verdict.CONTINUE:
                continue
            if rule.verdict is Verdict.LEARN:
                self._store(rule)
            elif rule.verdict is Verdict.JUMP:
                decisive = self._chain(chains[rule.target], chains, steps)
                if decisive is not None:
                    return decisive
            elif rule.verdict is Verdict.GOTO:
                return self._chain(chains[rule.target], chains, steps)
            elif rule.verdict is Verdict.RETURN:
                return None
            else:
                return rule
        return None

    def _store(self, rule: Rule) -> None:
        refused = False
        for field, named in rule.stores:
            value = self.value(field)
            if value is None:
                return
            element = (_single(_masked(value, named)),)
            known = self._elements(named)
            if any(each.holds(field.kind, value) for each in self.context.elsewhere):
                refused = True
                # a lease of another address ends the one before
                self.sets[named] = frozenset() if named.newest and not rule.rechecks else known - {element}
            if refused or element in known or rule.rechecks:
                continue
            if not named.newest and len(known) >= named.size + len(named.initial):
                return
            self.sets[named] = frozenset([element]) if named.newest else known | {element}

    def _elements(self, named: NamedSet) -> frozenset[SetElement]:
        initial = ((_single(_masked(value, named)),) for value in named.initial)
        return self.sets[named] if named in self.sets else frozenset(initial)

    def value(self, field: Field) -> int | None:
        if field is Field.CT_DIRECTION:
            tracked = self.context.state not in (State.INVALID, State.UNTRACKED)
            return int(self.context.reply) if tracked else None
        if field is Field.PACKET_TYPE:
            return _PACKET_HOST if self.context.from_host else _PACKET_OTHERHOST
        return _THIS_TAP if field is Field.TAP else self.frame.value(field)

    def holds(self, match: Match) -> bool:
        """Whether the condition holds; on a field that can't be read none does, negated or not."""
        result = self._test(match)
        return result is not None and result is not match.negated

    def _test(self, match: Match) -> bool | None:
        """What the test says, sign aside, or None if its field can't be read."""
        field, test = match.field, match.test
        if isinstance(test, AnyState):
            return self.context.state.value in test.states
        if isinstance(test, Present):
            options = self.frame.tcp_options()
            return None if options is None else test.kind in options
        value = self.value(field)
        if value is None:
            return None
        if isinstance(test, Equals):
            return value == test.value
        if isinstance(test, Masked):
            return value & test.mask == test.value
        if isinstance(test, Between):
            return test.low <= value <= test.high
        if isinstance(test, OneOf):
            return value in test.values
        if isinstance(test, SameAs):
            other = self.value(test.other)
            return None if other is None else value == other
        if isinstance(test, Uncounted):
            return test.set in self.context.full
        if isinstance(test, CountAbove):
            return None if test.set in self.context.full else self.context.counts.get(test.set, 1) > test.limit
        return self._in_set(value, test)

    def _in_set(self, value: int, test: InSet) -> bool | None:
        others = [self.value(field) for field in test.fields]
        key = [_masked(value, test.set), *(other for other in others if other is not None)]
        if len(key) < 1 + len(others):
            return None
        return any(all(part in span for part, span in zip(key, element)) for element in self._elements(test.set))


def _masked(value: int, named: NamedSet) -> int:
    return value if named.mask is None else value & named.mask


def _single(value: int) -> range:
    return range(value, value + 1)
