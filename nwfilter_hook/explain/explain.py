"""
Why a frame passes or not.

In:  a ruleset, a frame and what the kernel knows beside it (evaluate.Context); what the line of a rule is.
Out: an `Explanation`, all text: for people, and as JSON; its keys are a contract.
"""

from __future__ import annotations

from typing import Any, Callable

from ..base.dataclass import as_dict, dataclass
from ..ruleset.evaluate import Context, Evaluation, LayerVerdict, Step, Way, evaluate_frame
from ..ruleset.frame import Frame
from ..ruleset.model import Rule, Ruleset, Stage, Verdict
from .conditions import Condition, unmet
from .nearest import Nearest, find_nearest

LineOf = Callable[[Rule], str]
"""The rule as its file has it; "" if it stands in none."""

LAYERS = {
    Stage.INGRESS: "before the bridge",
    Stage.FROM_L2: "layer 2, from the guest",
    Stage.TO_L2: "layer 2, to the guest",
    Stage.FROM_L3: "layer 3, from the guest",
    Stage.TO_L3: "layer 3, to the guest",
}


@dataclass(frozen=True)
class Told:
    """
    A rule that was looked at.

    Attributes:
        rule: FILTER:LINE.
        chain: the sub-chain that it is in; "" in a layer's root.
        verdict: what it does: "accept", "drop" …, "jump CHAIN", "learn".
        xml: its line; "" if it is none of a filter's.
        failed: why it didn't apply; None if it did.
    """

    rule: str
    chain: str
    verdict: str
    xml: str
    failed: Condition | None


@dataclass(frozen=True)
class Layer:
    """
    What one layer does.

    Attributes:
        decided_by: the rule; None if the frame came to the end, which accepts.
        rules: all that were looked at, in order.
    """

    layer: str
    verdict: str
    decided_by: Told | None
    rules: tuple[Told, ...]


@dataclass(frozen=True)
class Otherwise:
    """
    What would have turned the verdict.

    Attributes:
        layer: where.
        rule: the rule that decides otherwise; None for a frame that no rule would have stopped.
        needed: what it lacked.
        behind: it comes after the rule that decided.
    """

    layer: str
    rule: Told | None
    needed: tuple[Condition, ...]
    behind: bool


@dataclass(frozen=True)
class Explanation:
    """Why."""

    passes: bool
    layers: tuple[Layer, ...]
    otherwise: Otherwise | None

    @property
    def deciding(self) -> Layer | None:
        """The last layer in which a rule decided; None if the frame came to the end of all."""
        return next((layer for layer in reversed(self.layers) if layer.decided_by is not None), None)

    @property
    def decided_by(self) -> Told | None:
        """The rule that decided there."""
        return None if self.deciding is None else self.deciding.decided_by

    def as_json(self) -> dict[str, Any]:
        """For `--json`; the keys are a contract."""
        found: dict[str, Any] = as_dict(self)
        return {"verdict": "pass" if found.pop("passes") else "drop", **found}


def explain(ruleset: Ruleset, frame: Frame, way: Way, context: Context, line_of: LineOf) -> Explanation:
    """Follow `frame` through `ruleset` and tell what happened."""
    return _Teller(ruleset, frame, way, context, line_of).explanation()


class _Teller:
    """One explanation."""

    def __init__(self, ruleset: Ruleset, frame: Frame, way: Way, context: Context, line_of: LineOf) -> None:
        self.ruleset, self.frame, self.way, self.context, self.line_of = ruleset, frame, way, context, line_of

    def explanation(self) -> Explanation:
        """All of it."""
        evaluation: Evaluation = evaluate_frame(self.ruleset, self.frame, self.way, self.context)
        nearest = find_nearest(self.ruleset, self.frame, self.way, self.context, evaluation)
        layers = tuple(map(self._layer, evaluation.layers))
        return Explanation(evaluation.passes, layers, None if nearest is None else self._otherwise(nearest))

    def _layer(self, layer: LayerVerdict) -> Layer:
        told = tuple(map(self._step, layer.steps))
        decided = next(
            (one for one, step in zip(told, layer.steps) if step.rule is layer.decided_by and step.applies), None
        )
        return Layer(LAYERS[layer.stage], layer.verdict.value, decided, told)

    def _step(self, step: Step) -> Told:
        failed = None if step.failed is None else unmet(step.failed, step.value, self.frame, self.context)
        return self._told(step.rule, step.chain or "", failed)

    def _told(self, rule: Rule, chain: str, failed: Condition | None) -> Told:
        verdict = f"jump {rule.target}" if rule.verdict is Verdict.JUMP else rule.verdict.value
        return Told(rule.provenance, chain, verdict, self.line_of(rule), failed)

    def _otherwise(self, nearest: Nearest) -> Otherwise:
        needed = tuple(unmet(match, value, self.frame, self.context) for match, value in nearest.needed)
        rule = None if nearest.rule is None else self._told(nearest.rule, "", None)
        return Otherwise(LAYERS[nearest.stage], rule, tuple(dict.fromkeys(needed)), nearest.behind)
