"""The kernel's trace put together: which frame was decided by which rule, whatever else is told in between."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from nwfilter_hook.network.netlink import Message, attribute
from nwfilter_hook.nftables.trace_frames import Frames, Tap
from nwfilter_hook.nftables.trace_messages import Headers, Told, parse_told
from nwfilter_hook.ruleset.evaluate import Way
from nwfilter_hook.ruleset.judged import Judged, JudgedLayer
from nwfilter_hook.ruleset.model import Stage
from tests.support.frames import arp, ipv6, tcp, udp, vlan

OWN, TAP, INDEX = "nwfilter-trace-7", "vnet0", 3
BRIDGE, NETDEV = 7, 5
RULES = {1: "f:1", 2: "f:2", 3: "connections"}
RULE, POLICY = 3, 1
ACCEPT, DROP, CONTINUE, RETURN, JUMP = 1, 0, -1, -5, -3
FROM_L2 = JudgedLayer(Stage.FROM_L2, "", False, "f:1")


def headers_of(frame: bytes) -> Headers:
    """Of an IPv4 frame as short as it can be."""
    return Headers(frame[:14], frame[14:34], frame[34:54])


SHORT = udp(payload=bytes(12))
FIRST, SECOND = headers_of(SHORT), headers_of(tcp())


def told(table: str, chain: str, handle: int | None, verdict: int, frame: int = 1, **more: Any) -> Told:
    given = {"family": BRIDGE, "kind": RULE, "device": 0, "headers": None, **more}
    return Told(table=table, chain=chain, handle=handle, verdict=verdict, frame=frame, **given)


def begins(frame: int = 1, headers: Headers = FIRST, chain: str = "traced-from") -> Told:
    return told(OWN, chain, 9, CONTINUE, frame, headers=headers)


def of(*stages: Stage) -> Frames:
    return Frames(
        Tap(TAP, INDEX, frozenset(stages)),
        OWN,
        {"traced-from": Way.FROM_GUEST, "traced-to": Way.TO_GUEST},
        lambda family, handle: RULES.get(handle, ""),
        lambda chain, headers: (0, headers.frame(), False),
    )


def judged(frames: Frames, *messages: Told) -> list[Judged]:
    return [each for message in messages for each in frames.add(message, 0.0)]


def test_a_frame_through_two_layers() -> None:
    """It is told of when the last layer is through, and not before."""
    frames = of(Stage.FROM_L2, Stage.FROM_L3)
    assert judged(frames, begins(), told("nwfilter", "from/vnet0", 1, ACCEPT)) == []
    assert frames.waiting
    (found,) = judged(frames, told("nwfilter", "from-l3/vnet0", 2, DROP))
    assert found.layers == (FROM_L2, JudgedLayer(Stage.FROM_L3, "", True, "f:2"))
    assert (found.way, found.passes, found.ended, found.deciding) == (Way.FROM_GUEST, False, True, found.layers[1])
    assert not frames.waiting
    assert frames.begun == 1


def test_the_end_of_a_layer() -> None:
    """The base chain's policy; what is told of other chains and rules in between decides nothing."""
    frames = of(Stage.TO_L2)
    (found,) = judged(
        frames,
        begins(chain="traced-to"),
        told(OWN, "traced-to", None, CONTINUE),
        told(OWN, "at-traced-to", None, ACCEPT, kind=POLICY),
        told("nwfilter", "l3-postrouting", None, ACCEPT, kind=POLICY),
        told("nwfilter", "l2-postrouting", 1, JUMP),
        told("nwfilter", "to/vnet0/ipv4", 1, RETURN),
        told("nwfilter", "to/vnet0", None, CONTINUE),
        told("nwfilter", "to/vnet1", 1, ACCEPT),
        told("nwfilter", "l2-postrouting", None, ACCEPT, kind=POLICY),
    )
    assert found.layers == (JudgedLayer(Stage.TO_L2, "", False, ""),)
    assert found.passes
    assert found.deciding is None


def test_a_return() -> None:
    """It decides nothing, also where a sub-chain's rules stand in the root: the frame comes to the end of the layer."""
    frames = of(Stage.FROM_L2)
    assert judged(frames, begins(), told("nwfilter", "from/vnet0", 1, RETURN)) == []


def test_a_number_is_used_again() -> None:
    """The frame before is told of, as far as it is known; the next has its own layers."""
    frames = of(Stage.FROM_L2, Stage.FROM_L3)
    (first,) = judged(frames, begins(), told("nwfilter", "from/vnet0", 1, ACCEPT), begins(headers=SECOND))
    assert (first.layers, first.ended) == ((FROM_L2,), False)
    (second,) = judged(frames, told("nwfilter", "from/vnet0", 2, DROP))
    assert second.layers == (JudgedLayer(Stage.FROM_L2, "", True, "f:2"),)
    assert second.data == tcp()


def test_a_copy_has_another_number() -> None:
    """Its headers and device tell; those of another frame, or device, don't."""
    frames = of(Stage.INGRESS, Stage.FROM_L2)
    judged(frames, begins(1), begins(2, SECOND), told("nwfilter", "ingress/vnet0", 1, ACCEPT, family=NETDEV))
    strange = told("nwfilter", "l2-prerouting", 1, JUMP, 8, headers=FIRST, device=INDEX + 1)
    assert judged(frames, strange, told("nwfilter", "from/vnet0", 2, DROP, 8)) == []
    again = told("nwfilter", "l2-prerouting", 1, JUMP, 9, headers=FIRST, device=INDEX)
    (found,) = judged(frames, again, told("nwfilter", "from/vnet0", 2, DROP, 9))
    assert found.data == SHORT
    assert [each.rule for each in found.layers] == ["f:1", "f:2"]


def test_what_drops_it_and_is_no_layer() -> None:
    """Bounds of connections, and other tables; what accepts there decides nothing."""
    frames = of(Stage.FROM_L2, Stage.FROM_L3)
    (bound,) = judged(frames, begins(), told("nwfilter", "bound-500", 3, DROP))
    assert bound.layers == (JudgedLayer(None, "bound-500", True, "connections"),)
    for kind in (RULE, POLICY):
        (found,) = judged(frames, begins(), told("firewall", "c", 1, ACCEPT), told("firewall", "c", 1, DROP, kind=kind))
        assert found.layers == (JudgedLayer(None, "table bridge firewall, chain c", True, ""),)
        assert found.deciding == found.layers[0]


def test_a_rule_that_isnt_known_any_more() -> None:
    """It is said so."""
    (found,) = judged(of(Stage.FROM_L2), begins(), told("nwfilter", "from/vnet0", 99, DROP))
    assert found.layers[0].rule == "(a rule that is gone)"


def test_what_is_heard_of_no_more() -> None:
    """After a while it is told of as far as it is known; what nobody began is nobody's."""
    frames = of(Stage.FROM_L2, Stage.FROM_L3)
    assert judged(frames, told("nwfilter", "from/vnet0", 1, ACCEPT, 4)) == []
    judged(frames, begins(), told("nwfilter", "from/vnet0", 1, ACCEPT))
    assert frames.expire(0.1, 0.3) == []
    (found,) = frames.expire(0.4, 0.3)
    assert (found.layers, found.ended, found.passes) == ((FROM_L2,), False, True)


def test_a_tap_without_rules_this_way() -> None:
    """Its frames pass, by no rule."""
    (found,) = judged(of(Stage.TO_L2), begins())
    assert (found.layers, found.passes, found.ended) == ((), True, True)


def test_messages() -> None:
    """As linux/netfilter/nf_tables.h has them."""
    parts = (
        *((1, b"nwfilter\0"), (2, b"from/vnet0\0"), (3, struct.pack("!Q", 5)), (4, struct.pack("!I", 3))),
        *((5, attribute(1, struct.pack("!i", -3)) + attribute(2, b"x\0")), (6, struct.pack("!I", 77))),
        *((7, FIRST.link), (8, FIRST.network), (9, FIRST.transport), (10, struct.pack("!I", 3))),
    )
    payload = bytes((7, 0, 0, 0)) + b"".join(attribute(*each) for each in parts)
    assert parse_told(Message(10 << 8 | 17, payload)) == Told(
        7, "nwfilter", "from/vnet0", 77, 3, -3, 5, 3, Headers(FIRST.link, FIRST.network, FIRST.transport)
    )
    assert parse_told(Message(10 << 8 | 6, payload)) is None
    bare = parse_told(Message(10 << 8 | 17, bytes(4)))
    assert bare
    assert (bare.verdict, bare.handle, bare.headers) == (CONTINUE, None, None)


@pytest.mark.parametrize("length", range(0, 120, 7))
def test_messages_cut_at_every_length(length: int) -> None:
    """No more than what is there is read."""
    payload = bytes((7, 0, 0, 0)) + b"".join(attribute(kind, bytes(8)) for kind in range(1, 11))
    assert parse_told(Message(10 << 8 | 17, payload[:length])) is None or length >= 4


def test_frames_from_headers() -> None:
    """As much as the kernel tells of them; as long as they say they are."""
    for frame in (udp(payload=bytes(12)), vlan(tcp(), 7)):
        begin = len(frame) - len(frame[14:]) + 4 * (frame[12:14] == b"\x81\x00")
        parts = Headers(frame[:begin], frame[begin : begin + 20], frame[begin + 20 : begin + 40])
        assert parts.frame() == frame
        assert parts.are_of(frame)
    six = ipv6()
    assert Headers(six[:14], six[14:54], six[54:74]).frame() == six
    question = arp()
    assert Headers(question[:14], question[14:54], b"").frame() == question
    long = udp(payload=b"x" * 500)
    found = Headers(long[:14], long[14:34], long[34:54]).frame()
    assert (found[:54], len(found)) == (long[:54], len(long))
    bare = Headers(b"", long[14:34], long[34:54])
    assert bare.frame()[12:54] == long[12:54]
    assert bare.are_of(long)
    assert not bare.are_of(question)
