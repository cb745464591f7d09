"""The state of each frame of a capture, from the frames before it."""

from __future__ import annotations

from typing import Any

from nwfilter_hook.packets.connections import Connections
from nwfilter_hook.packets.describe import describe
from nwfilter_hook.packets.words import Guest, build
from nwfilter_hook.ruleset.evaluate import State, Way
from nwfilter_hook.ruleset.frame import decode_frame
from tests.unit.packets.test_words import EVERY_KIND

GUEST = Guest(0x525400000001, 0x0A000007, 0x20010DB8000000000000000000000077)
THERE: dict[str, Any] = {"src": "10.0.0.7:40000", "dst": "192.0.2.9:53"}
BACK: dict[str, Any] = {"src": "192.0.2.9:53", "dst": "10.0.0.7:40000"}


def states(*sent: dict[str, Any]) -> list[tuple[State, bool]]:
    connections = Connections()
    guesses = [connections.guess(decode_frame(build(words, GUEST, Way.FROM_GUEST).data)) for words in sent]
    return [(guess.state, guess.reply) for guess in guesses]


NEW, OPEN, REPLY = (State.NEW, False), (State.ESTABLISHED, False), (State.ESTABLISHED, True)


def test_udp() -> None:
    """New until it is answered, whatever the ports; then both ways are established."""
    there, back = {"udp": True, "src": "10.0.0.7:9", "dst": "192.0.2.9:9"}, {"udp": True, **BACK}
    assert states(there, there) == [NEW, NEW]
    back = {"udp": True, "src": "192.0.2.9:9", "dst": "10.0.0.7:9"}
    assert states(there, back, there, back) == [NEW, REPLY, OPEN, REPLY]


def test_tcp_whose_beginning_is_there() -> None:
    """Who sent the syn is the origin, also of what has only ack."""
    flags = ("syn", "syn,ack", "ack", "ack")
    ends = (THERE, BACK, THERE, BACK)
    sent = [{"tcp": True, "flags": each, **end} for each, end in zip(flags, ends)]
    assert states(*sent) == [NEW, REPLY, OPEN, REPLY]


def test_tcp_that_was_open_before() -> None:
    """What is seen first is the origin's, unless it is an answer by itself."""
    there, back = ({"tcp": True, "flags": "ack", **end} for end in (THERE, BACK))
    assert states(there, back) == [OPEN, REPLY]
    assert states({"tcp": True, "flags": "syn,ack", **BACK}, there) == [REPLY, OPEN]


def test_what_has_no_connection() -> None:
    """ARP, neighbour discovery and errors are what they are by themselves."""
    assert states({"arp": "request"}, {"icmpv6": 135}, {"icmp": "3/1"}) == [
        (State.UNTRACKED, False),
        (State.UNTRACKED, False),
        (State.RELATED, True),
    ]


def test_every_kind_cut_at_every_length() -> None:
    """A state and a description, never an exception."""
    connections = Connections()
    for words, _ in EVERY_KIND:
        for tag in ({}, {"vlan": 5}):
            data = build({**words, **tag}, GUEST, Way.FROM_GUEST).data
            for length in range(14, len(data) + 1):
                frame = decode_frame(data[:length])
                connections.guess(frame)
                assert describe(frame).isprintable()
