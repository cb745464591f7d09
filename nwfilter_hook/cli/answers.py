"""
What `explain` and its like print about frames: an explanation, and what became of a capture.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import click

from ..base.dataclass import as_dict, dataclass
from ..base.text import one_line
from ..explain.capture import Decision
from ..explain.explain import Explanation, Layer, Told
from ..operations.explain import Subject
from ..packets.describe import describe
from ..ruleset.evaluate import Context, Way
from ..ruleset.frame import Frame
from .output import print_table

_SENDS = {True: "the guest sends", False: "the guest gets"}


@dataclass(frozen=True)
class Question:
    """
    A frame that is asked about.

    Attributes:
        assumed: what nobody said.
    """

    frame: Frame
    way: Way
    context: Context
    assumed: tuple[str, ...]


@dataclass(frozen=True)
class Summary:
    """
    What became of a capture.

    Attributes:
        cut: how many frames it doesn't hold whole.
        without: how many are shorter than an Ethernet header.
    """

    capture: str
    frames: int
    cut: int
    without: int
    decisions: Sequence[Decision]
    notes: tuple[str, ...]

    @property
    def verdicts(self) -> dict[str, dict[str, int]]:
        """Frames by direction and verdict."""
        counted: Counter[tuple[str, str]] = Counter()
        for each in self.decisions:
            counted[each.direction, each.verdict] += each.frames
        return {
            direction: {verdict: counted[direction, verdict] for verdict in ("pass", "drop")}
            for direction in ("from-guest", "to-guest")
        }


def print_summary(subject: Subject, summary: Summary) -> None:
    """Tables."""
    _print_notes((*subject.notes, *summary.notes))
    _line(f"{subject.name}: {summary.frames} frames of {summary.capture}")
    verdicts = summary.verdicts
    rows = [[way, str(found["pass"]), str(found["drop"])] for way, found in verdicts.items() if any(found.values())]
    if rows:
        click.echo()
        print_table(("DIRECTION", "PASS", "DROP"), rows, right=("PASS", "DROP"))
        click.echo()
        print_table(
            ("DIRECTION", "VERDICT", "FRAMES", "RULE", "LAYER", "FIRST", "PACKET"),
            [
                (
                    *(each.direction, each.verdict, str(each.frames), each.rule or "(end)"),
                    *(each.layer, str(each.first), each.packet),
                )
                for each in summary.decisions
            ],
            right=("FRAMES", "FIRST"),
        )


def summary_as_json(subject: Subject, summary: Summary) -> dict[str, Any]:
    """For programs; the keys are a contract."""
    return {
        "subject": subject.name,
        "capture": summary.capture,
        "frames": summary.frames,
        "cut": summary.cut,
        "without_verdict": summary.without,
        "verdicts": summary.verdicts,
        "decisions": [as_dict(each) for each in summary.decisions],
        "notes": [*subject.notes, *summary.notes],
    }


def as_json(subject: Subject, question: Question, found: Explanation) -> dict[str, Any]:
    """For programs; the keys are a contract."""
    return {
        "subject": subject.name,
        "direction": "from-guest" if question.way is Way.FROM_GUEST else "to-guest",
        "packet": describe(question.frame),
        "hex": question.frame.data.hex(),
        "state": question.context.state.value,
        "reply": question.context.reply,
        "assumed": list(question.assumed),
        "notes": list(subject.notes),
        **found.as_json(),
    }


def print_answer(subject: Subject, question: Question, found: Explanation) -> None:
    """For people."""
    _print_notes(subject.notes)
    sends = _SENDS[question.way is Way.FROM_GUEST]
    _line(f"{subject.name}: {sends} {describe(question.frame)}")
    if question.assumed:
        _line(f"assumed: {'; '.join(question.assumed)}")
    for layer in found.layers:
        click.echo()
        _print_layer(layer)
    click.echo()
    _print_verdict(found)


def _print_notes(notes: Iterable[str]) -> None:
    for note in notes:
        click.echo(one_line(f"nwfilter-hook: note: {note}"), err=True)


def _line(text: str) -> None:
    click.echo(one_line(text))


def _print_layer(layer: Layer) -> None:
    _line(f"{layer.layer}:")
    place = max((len(told.rule) for told in layer.rules), default=0)
    does = max((len(told.verdict) for told in layer.rules), default=0)
    for told in layer.rules:
        why = "applies" if told.failed is None else told.failed.line
        _line(f"  {told.rule:{place}}  {told.verdict:{does}}  {why}")
    if layer.decided_by is None:
        _line("  no rule decides: the end of the layer accepts")


def _print_verdict(found: Explanation) -> None:
    word = "passes" if found.passes else "dropped" if found.layers[-1].verdict == "drop" else "rejected"
    # every layer must let a frame pass, one is enough to drop it
    deciding = [layer for layer in found.layers if layer.decided_by is not None][0 if found.passes else -1 :]
    if not deciding:
        _line(f"{word}: no rule stops it")
    for layer in deciding:
        assert layer.decided_by is not None
        _line(f"{word} by {layer.decided_by.rule} ({layer.layer})")
        _xml(layer.decided_by)
    other = found.otherwise
    if other is None:
        _line(f"no rule would have {'stopped it' if found.passes else 'let it pass'}")
        return
    turned = "dropped" if found.passes else "passed"
    if other.rule is None:
        _line(f"without that rule it would have {turned}")
    elif other.behind:
        _line(f"{other.rule.rule} ({other.rule.verdict}) would have {turned} it, but comes after")
        _xml(other.rule)
    else:
        _line(f"nearest rule that would have {turned} it: {other.rule.rule} ({other.rule.verdict}); it needs")
        for condition in other.needed:
            _line(f"  {condition.line}")
        _xml(other.rule)


def _xml(told: Told) -> None:
    if told.xml:
        _line(f"  {told.xml}")
