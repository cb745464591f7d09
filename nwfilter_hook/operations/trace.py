"""
What `trace` tells: frames of a tap as the kernel judges them.

In:  a `Host`, a tap, which frames.
Out: a `Trace`, which gives a `Judged` for each frame, as long as the tap is there.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping
from typing import Any

from ..base.errors import NOWHERE, NwfilterHookError
from ..explain.explain import LAYERS
from ..host import Host
from ..packets.describe import describe
from ..packets.wanted import read_wanted
from ..ruleset.evaluate import NO_CONTEXT, Way, failing
from ..ruleset.fields import Field
from ..ruleset.frame import ETHERNET_BYTES, Frame, decode_frame
from ..ruleset.judged import Judged, JudgedLayer, Sought, told_apart
from ..ruleset.model import OR, Attachment, Match, Rule, Ruleset, SameAs, Verdict
from .compile import recorded_ruleset
from .explain import recorded

_SHORTEST_OPTIONS = Field.DHCP_OPTIONS.bits // 8
"""Octets that a DHCP message may lack at its end."""


class Trace:
    """
    One trace.

    Args:
        ways: which frames; both if none is given.
        words: of a packet (packets/given.py); all if none is given.
        rate: frames a second at most, each way.

    Attributes:
        guest: whose tap it is.

    Raises:
        PacketError: the words describe no packet that can be asked for.
        NwfilterHookError: there is no such tap, or it has no rules.
        NftError: the kernel can't trace.
    """

    def __init__(self, host: Host, tap: str, ways: Iterable[Way], words: Mapping[str, Any], rate: int) -> None:
        wanted = read_wanted(words)
        record, binding = recorded(host, tap)
        if binding.unfiltered:
            raise NwfilterHookError(f"{tap} has no filter")
        self.tap, self.guest, self.attachment = tap, record.guest, binding.attachment
        index = _index(tap)
        if index is None:
            raise NwfilterHookError(f"there is no device {tap} (nwfilter-hook verify)")
        self._index = index
        self._here = [tuple(filter(_is_seen_here, group)) for group in wanted]
        in_kernel = tuple(tuple(match for match in group if not _is_seen_here(match)) for group in wanted)
        sought = Sought(binding.attachment, index, tuple(ways) or tuple(Way), in_kernel, rate)
        self._recorded = host, binding, record.uuid
        self._ruleset: list[Ruleset | None] = []
        self.tracer = host.backend.trace(binding.installed, sought)

    def read(self) -> list[Judged]:
        """The frames of which all is known by now. Raises NftError."""
        return [self._told_apart(judged) for judged in self.tracer.read() if self._is_wanted(judged)]

    @property
    def tap_is_there(self) -> bool:
        """Whether the tap is the same device as in the beginning."""
        return _index(self.tap) == self._index

    def frame(self, judged: Judged) -> Frame | None:
        """The frame taken apart; None if it is none."""
        if len(judged.data) < ETHERNET_BYTES:
            return None
        in_tag = self.attachment is Attachment.MACVTAP and judged.way is Way.FROM_GUEST
        return decode_frame(judged.data, in_tag=in_tag)

    def described(self, judged: Judged) -> str:
        """The frame in one line."""
        frame = self.frame(judged)
        return "a frame that ends within its Ethernet header" if frame is None else describe(frame)

    def _told_apart(self, judged: Judged) -> Judged:
        """With one rule in each layer, where the filters still are what is in force."""
        frame = self.frame(judged)
        if frame is None or all(OR not in layer.rule for layer in judged.layers):
            return judged
        if not self._ruleset:
            try:
                ruleset, is_in_force = recorded_ruleset(*self._recorded)
            except NwfilterHookError:
                is_in_force = False
            self._ruleset = [ruleset] if is_in_force else [None]
        (plain,) = self._ruleset
        return told_apart(judged, plain, frame) if plain else judged

    def _is_wanted(self, judged: Judged) -> bool:
        if not any(self._here) or not judged.whole:
            return True
        frame = decode_frame(judged.data + bytes(_SHORTEST_OPTIONS))
        return any(_meets(frame, group) for group in self._here)


def _is_seen_here(match: Match) -> bool:
    """
    What the kernel isn't asked: to compare two fields, for which rules have a set; what a message may be too short for.
    """
    return isinstance(match.test, SameAs) or match.field is Field.DHCP_OPTIONS


def layer_text(layer: JudgedLayer) -> str:
    """Where it was judged."""
    return layer.place or (LAYERS[layer.stage] if layer.stage else "")


def as_json(judged: Judged, packet: str) -> dict[str, Any]:
    """For programs; the keys are a contract."""
    deciding = judged.deciding
    return {
        "time": judged.time_us / 1e6,
        "direction": "from-guest" if judged.way is Way.FROM_GUEST else "to-guest",
        "verdict": judged.verdict,
        "rule": deciding.rule if deciding else "",
        "layer": layer_text(deciding) if deciding else "",
        "layers": [
            {"layer": layer_text(each), "verdict": "drop" if each.drops else "accept", "rule": each.rule}
            for each in judged.layers
        ],
        "ended": judged.ended,
        "packet": packet,
        "hex": judged.data.hex(),
        "whole": judged.whole,
    }


def _meets(frame: Frame, matches: tuple[Match, ...]) -> bool:
    return not failing(Rule(matches, Verdict.CONTINUE, "", NOWHERE), frame, NO_CONTEXT)


def _index(tap: str) -> int | None:
    try:
        return socket.if_nametoindex(tap)
    except OSError:
        return None
