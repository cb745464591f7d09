"""
The connection state that a packet by itself suggests.

In:  a frame.
Out: a `Guess`: state, whether it is a reply, and why. A kernel that follows connections may know better.

What isn't tracked at all: net/netfilter/nf_conntrack_proto_icmpv6.c, net/bridge/netfilter/nf_conntrack_bridge.c.
"""

from __future__ import annotations

from ..base.dataclass import dataclass
from ..ruleset.evaluate import State
from ..ruleset.fields import Field
from ..ruleset.frame import Frame
from ..ruleset.numbers import EtherType, Protocol

_FIN, _SYN, _RST, _ACK = 0x01, 0x02, 0x04, 0x10
_ICMP_REQUESTS, _ICMP_ANSWERS, _ICMP_ERRORS = (8, 13, 15, 17), (0, 14, 16, 18), (3, 4, 5, 11, 12)
_ICMPV6_ERRORS = (1, 2, 3, 4)
_DHCP_SERVER, _DHCPV6_SERVER, _DNS = 67, 547, 53


@dataclass(frozen=True)
class Guess:
    """
    A state.

    Attributes:
        reply: it travels against its connection's first packet.
        why: for people.
    """

    state: State
    reply: bool
    why: str


def guess_state(frame: Frame) -> Guess:
    """What connection tracking would say of the frame if it is a part of honest traffic."""
    if frame.inner_type not in (EtherType.IPV4, EtherType.IPV6):
        return Guess(State.UNTRACKED, False, "it is no IP packet")
    transport = frame.transport
    if transport is None:
        return Guess(State.INVALID, False, "its IP header contradicts itself")
    if transport.protocol == Protocol.TCP:
        return _tcp(frame)
    if transport.protocol == Protocol.ICMP:
        kind = frame.value(Field.ICMP_TYPE)
        if kind in _ICMP_ANSWERS:
            return Guess(State.ESTABLISHED, True, "it answers a request")
        if kind in _ICMP_ERRORS:
            return Guess(State.RELATED, True, "it is an error about a packet that came the other way")
        if kind is not None and kind not in _ICMP_REQUESTS:
            return Guess(State.INVALID, False, "its ICMP type is of no connection")
    if transport.protocol == Protocol.ICMPV6:
        return _icmpv6(frame)
    if transport.protocol == Protocol.UDP and frame.value(Field.SRC_PORT) in (_DNS, _DHCPV6_SERVER):
        return Guess(State.ESTABLISHED, True, f"it comes from a server's port, {frame.value(Field.SRC_PORT)}")
    return Guess(State.NEW, False, "nothing says that it answers another")


def _tcp(frame: Frame) -> Guess:
    flags = frame.value(Field.TCP_FLAGS)
    if flags is None:
        return Guess(State.NEW, False, "its TCP header isn't there")
    if flags & _SYN and flags & _ACK:
        return Guess(State.ESTABLISHED, True, "syn and ack answer a syn")
    if flags & _SYN:
        return Guess(State.NEW, False, "syn opens a connection")
    if flags & (_ACK | _RST):
        return Guess(
            State.ESTABLISHED, False, "it is in the middle of a connection; --reply if the other side opened it"
        )
    return Guess(State.INVALID, False, "no TCP has such flags")


def _icmpv6(frame: Frame) -> Guess:
    kind = frame.value(Field.ICMPV6_TYPE)
    if kind is not None and (130 <= kind <= 137 or kind == 143):
        return Guess(State.UNTRACKED, False, "the kernel tracks neither neighbour discovery nor multicast listeners")
    if kind == 129:
        return Guess(State.ESTABLISHED, True, "it answers a request")
    if kind in _ICMPV6_ERRORS:
        return Guess(State.RELATED, True, "it is an error about a packet that came the other way")
    return Guess(State.NEW, False, "nothing says that it answers another")
