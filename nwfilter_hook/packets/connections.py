"""
The connections of a capture, as the kernel would have followed them.

In:  frames, in the order in which they were.
Out: a `Guess` for each, which knows the frames before it: who began, and whether it was answered.

It forgets nothing by time; of connections that were open when the capture began, the first frame seen counts as theirs.
"""

from __future__ import annotations

from collections import OrderedDict

from ..ruleset.evaluate import State
from ..ruleset.fields import Field
from ..ruleset.frame import Frame
from ..ruleset.numbers import EtherType, Protocol
from .state import Guess, guess_state

_MOST = 200_000
"""Connections that are remembered; the oldest goes first."""
_WITH_PORTS = (Protocol.TCP, Protocol.UDP, Protocol.SCTP, Protocol.DCCP, Protocol.UDPLITE)

Key = tuple[int, int, int, int, int]
"""Protocol, one end and its port, the other end and its port, as the first packet has them."""


class Connections:
    """What has been seen of each connection: whether it was answered."""

    def __init__(self) -> None:
        self._answered: OrderedDict[Key, bool] = OrderedDict()

    def guess(self, frame: Frame) -> Guess:
        """The state of the next frame's connection."""
        guess = guess_state(frame)
        key = _key(frame)
        if key is None or guess.state not in (State.NEW, State.ESTABLISHED):
            return guess
        back = (key[0], key[3], key[4], key[1], key[2])
        if back in self._answered:
            self._answered[back] = True
            return Guess(State.ESTABLISHED, True, "it answers what the capture has before")
        if key in self._answered:
            state = State.ESTABLISHED if self._answered[key] else State.NEW
            return Guess(state, False, "as the capture has its connection before")
        first, answered = (back, True) if guess.reply else (key, guess.state is State.ESTABLISHED)
        self._answered[first] = answered
        if len(self._answered) > _MOST:
            self._answered.popitem(last=False)
        return guess


def _key(frame: Frame) -> Key | None:
    transport = frame.transport
    if transport is None:
        return None
    fields = (Field.IP_SRC, Field.IP_DST) if frame.inner_type == EtherType.IPV4 else (Field.IP6_SRC, Field.IP6_DST)
    src, dst = (frame.value(each) or 0 for each in fields)
    if transport.protocol in _WITH_PORTS:
        ports = [frame.value(each) or 0 for each in (Field.SRC_PORT, Field.DST_PORT)]
    else:
        ports = [0, 0]
    return transport.protocol, src, ports[0], dst, ports[1]
