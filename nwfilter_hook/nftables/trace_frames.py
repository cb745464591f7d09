"""
Which frame of a tap was decided by which rule: the kernel's messages put together.

In:  `Told` after `Told`; which rule has which number.
Out: a `Judged` for each frame, as soon as it is through the tap's layers, was dropped, or nothing more is heard of it.

A frame begins where our own table begins to trace it. Its number is used again for a later frame, and a copy that the
kernel makes of it on its way (another program reads the tap's frames) has another one: then its headers tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Callable

from ..base.dataclass import dataclass
from ..ruleset.evaluate import Way
from ..ruleset.judged import Judged, JudgedLayer
from ..ruleset.model import Stage
from .names import BASE_CHAINS, TABLE
from .trace_messages import ACCEPT, DROP, POLICY, Headers, Told

PATIENCE_S = 0.3
"""How long nothing is heard of a frame that isn't through."""
_FAMILIES = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}
_STAGE_OF_BASE = {base.name: base.stage for base in BASE_CHAINS}
_MOST = 10_000

RuleOf = Callable[[str, int], str]
"""Of a rule of our table: family and number to FILTER:LINE, "" if it isn't known any more."""


@dataclass(frozen=True)
class Tap:
    """
    Whose frames.

    Attributes:
        index: of the device.
        stages: in which it has rules.
    """

    name: str
    index: int
    stages: frozenset[Stage]


class _Frame:
    """One that isn't through."""

    def __init__(
        self, told: Told, way: Way, seen: tuple[int, bytes, bool], now: float, stages: Sequence[Stage]
    ) -> None:
        self.number, self.headers, self.way, self.seen, self.heard = told.frame, told.headers, way, seen, now
        self.layers: list[JudgedLayer] = []
        self.left = list(stages)
        self.dropped = False

    @property
    def ended(self) -> bool:
        return self.dropped or not self.left

    def add(self, layer: JudgedLayer) -> None:
        """A layer is through."""
        self.layers.append(layer)
        self.dropped = layer.drops
        if layer.stage in self.left:
            self.left = self.left[self.left.index(layer.stage) + 1 :]

    def judged(self) -> Judged:
        time_us, data, whole = self.seen
        return Judged(self.way, time_us, data, whole, tuple(self.layers), self.ended)


class Frames:
    """
    Those of one tap that aren't through yet.

    Args:
        beginnings: chains of our own table `owner` in which a frame begins, and which way it goes.
        see: the time, the frame that begins there with these headers, and whether it is whole.
    """

    def __init__(
        self,
        tap: Tap,
        owner: str,
        beginnings: dict[str, Way],
        rule_of: RuleOf,
        see: Callable[[str, Headers], tuple[int, bytes, bool]],
    ) -> None:
        self._tap, self._owner, self._beginnings, self._rule_of, self._see = tap, owner, beginnings, rule_of, see
        self._open: dict[int, _Frame] = {}
        self.begun = 0

    @property
    def waiting(self) -> bool:
        """Whether there is a frame of which more could be heard."""
        return bool(self._open)

    def add(self, told: Told, now: float) -> list[Judged]:
        """Those that are through with this message."""
        if told.table == self._owner:
            return self._begin(told, now)
        frame = self._frame_of(told)
        if frame is None:
            return []
        frame.heard = now
        layer = self._layer(told, frame)
        if layer is not None:
            frame.add(layer)
        return [self._open.pop(frame.number).judged()] if frame.ended else []

    def expire(self, now: float, patience_s: float = PATIENCE_S) -> list[Judged]:
        """Those of which nothing was heard for so long."""
        gone = [number for number, frame in self._open.items() if frame.heard <= now - patience_s]
        return [self._open.pop(number).judged() for number in gone]

    def _begin(self, told: Told, now: float) -> list[Judged]:
        way = self._beginnings.get(told.chain)
        if way is None or told.handle is None:
            return []
        self.begun += 1
        found = [self._open.pop(told.frame).judged()] if told.frame in self._open else []
        stages = [stage for stage in way.value if stage in self._tap.stages]
        frame = _Frame(told, way, self._see(told.chain, told.headers or Headers(b"", b"", b"")), now, stages)
        if frame.ended or len(self._open) >= _MOST:
            return [*found, frame.judged()]
        self._open[told.frame] = frame
        return found

    def _frame_of(self, told: Told) -> _Frame | None:
        frame = self._open.get(told.frame)
        if frame is None and told.headers is not None and told.device == self._tap.index:
            same = (each for each in self._open.values() if _are_same(each, told.headers))
            frame = next(same, None)
            if frame is not None:
                del self._open[frame.number]
                frame.number = told.frame
                self._open[told.frame] = frame
        return frame

    def _layer(self, told: Told, frame: _Frame) -> JudgedLayer | None:
        """What has come to an end with this message, if anything has."""
        family = _FAMILIES.get(told.family, str(told.family))
        if told.table != TABLE:
            place = f"table {family} {told.table}, chain {told.chain}"
            return JudgedLayer(None, place, True, "") if told.verdict == DROP else None
        stage = self._stage(told.chain)
        if told.kind == POLICY:
            stage = stage or _STAGE_OF_BASE.get(told.chain)
            return JudgedLayer(stage, "", False, "") if stage in frame.left else None
        if told.handle is None:
            return None
        if told.verdict == DROP or (stage and told.verdict == ACCEPT):
            rule = self._rule_of(family, told.handle) or "(a rule that is gone)"
            return JudgedLayer(stage, "" if stage else told.chain, told.verdict == DROP, rule)
        return None

    def _stage(self, chain: str) -> Stage | None:
        """Of a chain of the tap."""
        prefix, _, rest = chain.partition("/")
        if rest.split("/")[0] != self._tap.name:
            return None
        return next((stage for stage in Stage if stage.value == prefix), None)


def _are_same(frame: _Frame, headers: Headers) -> bool:
    known = frame.headers
    return known is not None and (known.network, known.transport) == (headers.network, headers.transport)
