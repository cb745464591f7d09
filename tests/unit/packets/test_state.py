"""The connection state that a packet suggests."""

from __future__ import annotations

from typing import Any

import pytest

from nwfilter_hook.packets.state import guess_state
from nwfilter_hook.packets.words import Guest, build
from nwfilter_hook.ruleset.evaluate import State, Way
from nwfilter_hook.ruleset.frame import decode_frame


@pytest.mark.parametrize(
    ("words", "state", "reply"),
    [
        ({"tcp": True}, State.NEW, False),
        ({"tcp": True, "flags": "syn,ack"}, State.ESTABLISHED, True),
        ({"tcp": True, "flags": "ack"}, State.ESTABLISHED, False),
        ({"tcp": True, "flags": "rst"}, State.ESTABLISHED, False),
        ({"tcp": True, "flags": "none"}, State.INVALID, False),
        ({"tcp": True, "fragment": "later"}, State.NEW, False),
        ({"udp": True}, State.NEW, False),
        ({"udp": True, "src": ":53"}, State.ESTABLISHED, True),
        ({"icmp": 8}, State.NEW, False),
        ({"icmp": 0}, State.ESTABLISHED, True),
        ({"icmp": 3}, State.RELATED, True),
        ({"icmp": 9}, State.INVALID, False),
        ({"icmpv6": 128}, State.NEW, False),
        ({"icmpv6": 129}, State.ESTABLISHED, True),
        ({"icmpv6": 2}, State.RELATED, True),
        ({"icmpv6": 135}, State.UNTRACKED, False),
        ({"icmpv6": 143}, State.UNTRACKED, False),
        ({"protocol": "esp"}, State.NEW, False),
        ({"arp": "request"}, State.UNTRACKED, False),
        ({"dhcp": "offer"}, State.NEW, False),
    ],
)
def test_state(words: dict[str, Any], state: State, reply: bool) -> None:
    guess = guess_state(decode_frame(build(words, Guest(0x525400000001), Way.FROM_GUEST).data))
    assert (guess.state, guess.reply) == (state, reply)
    assert guess.why


def test_a_header_that_contradicts_itself() -> None:
    data = bytearray(build({"tcp": True}, Guest(0x525400000001), Way.FROM_GUEST).data)
    data[14] = 0x46 + 0x10
    assert guess_state(decode_frame(bytes(data))).state is State.INVALID
