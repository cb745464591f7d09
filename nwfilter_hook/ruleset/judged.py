"""
What the kernel did with a frame, as it told of it: the counterpart of evaluate.py, which says what it should do.
"""

from __future__ import annotations

from ..base.dataclass import dataclass, replace
from .evaluate import NO_CONTEXT, Way, failing
from .frame import Frame
from .model import OR, Attachment, Between, Equals, Masked, Match, Rule, Ruleset, Stage


@dataclass(frozen=True)
class JudgedLayer:
    """
    What one layer did.

    Attributes:
        stage: None for what is none of the tap's layers, and drops: `place` says what.
        drops: it ended the frame.
        rule: FILTER:LINE, or several with OR between, see `told_apart`; "" if the frame came to the layer's end.
    """

    stage: Stage | None
    place: str
    drops: bool
    rule: str


@dataclass(frozen=True)
class Judged:
    """
    A frame and what became of it.

    Attributes:
        time_us: since the epoch, when it was heard of.
        data: from the Ethernet destination on.
        whole: `data` is as it was; else it is what the kernel told of it, and zeros.
        layers: that it met, in their order.
        ended: it came to the end of the tap's layers, or was dropped; else something took it from there that the kernel
            doesn't tell of, such as the bridge itself.
    """

    way: Way
    time_us: int
    data: bytes
    whole: bool
    layers: tuple[JudgedLayer, ...]
    ended: bool

    @property
    def passes(self) -> bool:
        """Nothing has dropped it, as far as it is known."""
        return not any(layer.drops for layer in self.layers)

    @property
    def verdict(self) -> str:
        """ "pass", "drop", or "unknown" if the kernel told nothing of it."""
        if not self.ended and not self.layers:
            return "unknown"
        return "pass" if self.passes else "drop"

    @property
    def deciding(self) -> JudgedLayer | None:
        """The last layer in which a rule decided; None if the frame came to the end of all."""
        return next((layer for layer in reversed(self.layers) if layer.rule or layer.drops), None)


@dataclass(frozen=True)
class Sought:
    """
    Of which frames something is to be told.

    Attributes:
        index: of the tap's device.
        wanted: they meet all conditions of any of these; () is all frames.
        rate: frames a second at most, each way; of others nothing is told.
    """

    attachment: Attachment
    index: int
    ways: tuple[Way, ...]
    wanted: tuple[tuple[Match, ...], ...]
    rate: int


def told_apart(judged: Judged, ruleset: Ruleset, frame: Frame) -> Judged:
    """
    The same, with one rule in each layer: of those that an optimised rule stands for, the one that this frame passes.

    Args:
        ruleset: as compiled.
    """
    if all(OR not in layer.rule for layer in judged.layers):
        return judged
    layers = tuple(replace(layer, rule=_that_decides(layer, ruleset, frame)) for layer in judged.layers)
    return replace(judged, layers=layers)


def _that_decides(layer: JudgedLayer, ruleset: Ruleset, frame: Frame) -> str:
    names = layer.rule.split(OR)
    if len(names) == 1:
        return layer.rule
    rules = [rule for chain in ruleset.chains if chain.stage is layer.stage for rule in chain.rules]
    return next((rule.provenance for rule in rules if rule.provenance in names and _asks(rule, frame)), layer.rule)


def _asks(rule: Rule, frame: Frame) -> bool:
    """Whether the frame has the values that the rule asks for."""
    matches = tuple(each for each in rule.matches if isinstance(each.test, (Equals, Masked, Between)))
    return not failing(replace(rule, matches=matches), frame, NO_CONTEXT)


class Tracer:
    """Tells of frames, until it is closed or this process ends, however it ends."""

    def fileno(self) -> int:
        """For select and its like: there is something to read."""
        raise NotImplementedError

    @property
    def waiting(self) -> bool:
        """Whether there may be something to read soon, though nothing more happens."""
        raise NotImplementedError

    def read(self) -> list[Judged]:
        """The frames of which all is known by now; waits for none. Raises NftError."""
        raise NotImplementedError

    def untold(self) -> int:
        """How many frames there were of which nothing was told: above the rate, or lost. Raises NftError."""
        raise NotImplementedError

    def close(self) -> None:
        """It tells nothing any more, and leaves nothing."""
        raise NotImplementedError
