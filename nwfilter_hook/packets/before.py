"""
What must have been sent before a packet for its connection to be in a given state.

In:  a frame, and the state. Out: frames, in order; none if the packet's own look is enough.

The kernel follows connections by addresses and ports, and TCP by its flags (nf_conntrack_proto_tcp.c, with
net.netfilter.nf_conntrack_tcp_be_liberal: sequence numbers aren't held against a packet).
"""

from __future__ import annotations

import struct

from ..ruleset.evaluate import State
from ..ruleset.frame import Frame, decode_frame
from ..ruleset.numbers import EtherType, Protocol
from .state import guess_state

_SYN, _ACK = 0x02, 0x10
_WITH_PORTS = (Protocol.TCP, Protocol.UDP, Protocol.SCTP, Protocol.DCCP, Protocol.UDPLITE)
_TCP_FLAGS_AT, _TCP_SUM_AT = 13, 16
_HEADER_OCTETS = {Protocol.TCP: 20, Protocol.ICMP: 8, Protocol.ICMPV6: 8}
_PORT_OCTETS = 4
_ANSWERS = {Protocol.ICMP: (8, 0), Protocol.ICMPV6: (128, 129)}
_ERROR_HEADER = 8


def frames_before(frame: Frame, state: State, *, reply: bool) -> list[bytes] | None:
    """
    What goes before `frame`.

    Args:
        reply: it travels against its connection's first packet.

    Returns:
        Frames; None if the kernel can't be brought to see this packet in this state.
    """
    guess = guess_state(frame)
    if state in (State.NEW, State.INVALID, State.UNTRACKED):
        return [] if guess.state is state and not reply else None
    if state is State.RELATED:
        return _about(frame) if guess.state is State.RELATED else None
    if guess.state not in (State.NEW, State.ESTABLISHED) or frame.transport is None:
        return None
    if reply:
        opening = _turned(frame)
        return None if opening is None else [_opens(decode_frame(opening))]
    if not _is_whole(frame):
        return None
    opening = _opens(frame)
    answer = _turned(decode_frame(opening))
    if answer is None or (guess.state is State.NEW and frame.transport.protocol == Protocol.TCP):
        return None  # a further syn is none of an established connection
    return [opening, answer]


def _about(frame: Frame) -> list[bytes] | None:
    """What the error in `frame` is about, on its way."""
    transport = frame.transport
    if transport is None or transport.offset is None:
        return None
    packet = frame.data[transport.offset + _ERROR_HEADER :]
    head = frame.data[: frame.network]
    return [head[6:12] + head[:6] + head[12:] + packet]


def _turned(frame: Frame) -> bytes | None:
    """The packet that travels the other way in the same connection; None if there is none."""
    transport = frame.transport
    if transport is None or transport.offset is None or not _is_whole(frame):
        return None
    data, network, at = bytearray(frame.data), frame.network, transport.offset
    data[0:6], data[6:12] = data[6:12], data[0:6]
    first, width = (12, 4) if frame.inner_type == EtherType.IPV4 else (8, 16)
    src = slice(network + first, network + first + width)
    dst = slice(network + first + width, network + first + 2 * width)
    data[src], data[dst] = data[dst], data[src]
    if transport.protocol in _WITH_PORTS:
        data[at : at + 2], data[at + 2 : at + 4] = data[at + 2 : at + 4], data[at : at + 2]
        if transport.protocol == Protocol.TCP:
            flags = data[at + _TCP_FLAGS_AT]
            _set(data, at + _TCP_FLAGS_AT - 1, at + _TCP_SUM_AT, _SYN | _ACK if flags & _SYN else _ACK)
        return bytes(data)
    kinds = _ANSWERS.get(transport.protocol)
    if kinds is None:
        return bytes(data)
    if data[at] not in kinds:
        return None
    other = kinds[1] if data[at] == kinds[0] else kinds[0]
    _set(data, at, at + 2, data[at + 1], high=other)
    return bytes(data)


def _is_whole(frame: Frame) -> bool:
    """Whether the transport header is there, as far as connections go by it."""
    transport = frame.transport
    if transport is None or transport.offset is None:
        return False
    return len(frame.data) >= transport.offset + _HEADER_OCTETS.get(transport.protocol, _PORT_OCTETS)


def _opens(frame: Frame) -> bytes:
    """The packet as its connection's first; the frame is whole."""
    transport = frame.transport
    if transport is None or transport.offset is None or transport.protocol != Protocol.TCP:
        return frame.data
    made = bytearray(frame.data)
    _set(made, transport.offset + _TCP_FLAGS_AT - 1, transport.offset + _TCP_SUM_AT, _SYN)
    return bytes(made)


def _set(data: bytearray, at: int, checksum_at: int, low: int, *, high: int | None = None) -> None:
    """Give the octet behind `at` (and the one there) another value, and adjust the checksum: RFC 1624."""
    (before,) = struct.unpack_from("!H", data, at)
    after = (before & 0xFF00 if high is None else high << 8) | low
    (found,) = struct.unpack_from("!H", data, checksum_at)
    total = (~found & 0xFFFF) + (~before & 0xFFFF) + after
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    struct.pack_into("!H", data, at, after)
    struct.pack_into("!H", data, checksum_at, ~total & 0xFFFF)
