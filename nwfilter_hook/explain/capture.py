"""
What a ruleset does with all frames of a capture.

In:  frames one after the other, each with the state of its connection.
Out: a `Summary`: how many pass, and which rules decided how often. Its memory is that of the rules, not of the frames.
"""

from __future__ import annotations

from ..base.dataclass import dataclass
from ..packets.describe import describe
from ..packets.state import Guess
from ..ruleset.evaluate import Context, Evaluation, Way, evaluate_frame
from ..ruleset.frame import Frame
from ..ruleset.model import Rule, Ruleset
from .explain import LAYERS, LineOf


@dataclass(frozen=True)
class Decision:
    """
    Frames of one direction that the same rule decided about.

    Attributes:
        layer, rule, xml: "" if no rule decided, and the end of the layers accepted.
        first: the number of the first of them.
        packet: that frame.
    """

    direction: str
    verdict: str
    layer: str
    rule: str
    xml: str
    frames: int
    first: int
    packet: str


class Judge:
    """Counts."""

    def __init__(self, ruleset: Ruleset, context: Context, line_of: LineOf) -> None:
        self._ruleset, self._context, self._line_of = ruleset, context, line_of
        self._found: dict[tuple[Way, bool, int], list[int]] = {}
        self._firsts: dict[tuple[Way, bool, int], tuple[Evaluation, str]] = {}

    def add(self, number: int, frame: Frame, way: Way, guess: Guess) -> Evaluation:
        """One more frame; what it taught the next ones know."""
        known = self._context
        evaluation = evaluate_frame(
            self._ruleset,
            frame,
            way,
            Context(guess.state, guess.reply, known.sets, from_host=known.from_host),
        )
        if evaluation.sets != known.sets:
            self._context = Context(known.state, known.reply, evaluation.sets, from_host=known.from_host)
        key = (way, evaluation.passes, id(evaluation.decided_by))
        if key in self._found:
            self._found[key][0] += 1
        else:
            self._found[key] = [1, number]
            self._firsts[key] = evaluation, describe(frame)
        return evaluation

    def decisions(self) -> list[Decision]:
        """By direction; the most frequent first."""
        made = [self._decision(key, *counted) for key, counted in self._found.items()]
        return sorted(made, key=lambda one: (one.direction, one.verdict != "drop", -one.frames))

    def _decision(self, key: tuple[Way, bool, int], frames: int, first: int) -> Decision:
        evaluation, packet = self._firsts[key]
        rule: Rule | None = evaluation.decided_by
        layer = next((each for each in reversed(evaluation.layers) if each.decided_by is not None), None)
        return Decision(
            "from-guest" if key[0] is Way.FROM_GUEST else "to-guest",
            "pass" if evaluation.passes else "drop",
            LAYERS[layer.stage] if layer is not None else "",
            rule.provenance if rule is not None else "",
            self._line_of(rule) if rule is not None else "",
            frames,
            first,
            packet,
        )
