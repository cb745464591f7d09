"""What is sent before a packet so that its connection has a state: what opens and answers it; or that it can't be."""

from __future__ import annotations

import pytest
from scapy.layers.l2 import Ether

from nwfilter_hook.packets.before import frames_before
from nwfilter_hook.ruleset.evaluate import State
from nwfilter_hook.ruleset.frame import ETHERNET_BYTES, decode_frame
from tests.support.frames import arp, icmp, ipv4, ping6, tcp, udp, udp6, vlan

FRAMES = {
    "tcp": tcp(flags="A", seq=5, ack=7),
    "udp": udp(),
    "udp6": udp6(),
    "icmp": icmp(),
    "icmpv6": ping6(),
    "tagged": vlan(udp()),
    "other": ipv4(),
}


def packets(frames: list[bytes] | None) -> list[str]:
    """As scapy reads them."""
    assert frames is not None
    return [Ether(each).sprintf("%Ether.src% %IP.src% %TCP.flags%%ICMP.type%") for each in frames]


def test_an_established_connection() -> None:
    """What opens it, and what answers that; of one that the other side began, what opens it."""
    found = packets(frames_before(decode_frame(FRAMES["tcp"]), State.ESTABLISHED, reply=False))
    assert found == ["52:54:00:00:00:01 10.0.0.1 S??", "52:54:00:00:00:99 10.0.0.99 SA??"]
    found = packets(frames_before(decode_frame(FRAMES["icmp"]), State.ESTABLISHED, reply=False))
    assert found == ["52:54:00:00:00:01 10.0.0.1 ??echo-request", "52:54:00:00:00:99 10.0.0.99 ??echo-reply"]
    openings = frames_before(decode_frame(FRAMES["udp"]), State.ESTABLISHED, reply=True)
    assert openings is not None
    (opening,) = openings
    assert (Ether(opening)["IP"].src, Ether(opening)["UDP"].sport) == ("10.0.0.99", 9)


@pytest.mark.parametrize("name", FRAMES)
@pytest.mark.parametrize("reply", [False, True])
def test_checksums_are_right(name: str, reply: bool) -> None:
    """The kernel takes a packet with a wrong one for none of a connection."""
    for made in frames_before(decode_frame(FRAMES[name]), State.ESTABLISHED, reply=reply) or ():
        again = Ether(made)
        for layer in ("TCP", "UDP", "ICMP", "ICMPv6EchoRequest", "ICMPv6EchoReply"):
            if layer in again:
                field = "cksum" if layer.startswith("ICMPv6") else "chksum"
                setattr(again[layer], field, None)
        assert bytes(again) == made


@pytest.mark.parametrize("frame", [*FRAMES.values(), arp()])
def test_cut_at_every_length(frame: bytes) -> None:
    """Frames, or none; never a fault."""
    for length in range(ETHERNET_BYTES, len(frame)):
        for state in State:
            for reply in (False, True):
                frames_before(decode_frame(frame[:length]), state, reply=reply)


def test_what_cant_be() -> None:
    """A second syn is no part of an established connection; ARP has none; what opens isn't related."""
    assert frames_before(decode_frame(tcp()), State.ESTABLISHED, reply=False) is None
    assert frames_before(decode_frame(tcp()), State.NEW, reply=False) == []
    assert frames_before(decode_frame(arp()), State.ESTABLISHED, reply=False) is None
    assert frames_before(decode_frame(udp()), State.RELATED, reply=False) is None
