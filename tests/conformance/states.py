"""
Frames of known connection state: what was sent before them, and what the kernel says their state is.

In:  a `Wire` with a guest's tap and two unfiltered ones; field values of frames.
Out: for each frame the state and direction that the kernel gave it, and whether it passes, both ways.

What opens a connection goes from one unfiltered tap to the other, so the connection is there whatever the filter says
of it. To learn a frame's state, a table of the tests' own marks it after connection tracking, and where it leaves by
the unfiltered tap its source MAC is replaced by one that tells the mark. Connections are forgotten before each frame.
"""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from nwfilter_hook.ruleset.evaluate import NO_CONTEXT, Context, State, Way, evaluate
from nwfilter_hook.ruleset.fields import Field
from tests.conformance.filters import TAP, Tree, random_tree
from tests.conformance.kernel import CONTROL, OUTSIDE, Difference, Known, Passage, Tally, host_sends, install, why
from tests.conformance.kinds import kinds
from tests.conformance.mutation import cases
from tests.conformance.packets import GUEST_IP, OTHER_IP, Values, build, checksum
from tests.support.netns import Guest, Wire

MARKS = (
    ("ct state new", Context(State.NEW)),
    ("ct state established ct direction original", Context(State.ESTABLISHED)),
    ("ct state established ct direction reply", Context(State.ESTABLISHED, reply=True)),
    ("ct state related ct direction original", Context(State.RELATED)),
    ("ct state related ct direction reply", Context(State.RELATED, reply=True)),
    ("ct state invalid", Context(State.INVALID)),
)
_MARKED = 0x020000000F00
NETLINK_NETFILTER = 12
_FLUSH = struct.pack("=IHHIIBBH", 20, 1 << 8 | 2, 1 | 4, 1, 0, 0, 0, 0)  # IPCTNL_MSG_CT_DELETE, NLM_F_ACK

_REVERSED = (
    (Field.ETHER_SRC, Field.ETHER_DST),
    (Field.IP_SRC, Field.IP_DST),
    (Field.IP6_SRC, Field.IP6_DST),
    (Field.SRC_PORT, Field.DST_PORT),
)


def oracle(families: Sequence[str]) -> str:
    """The nft script that shows states; `families`: where connections are tracked, "bridge", or "ip" and "ip6"."""
    lines = []
    for family in families:
        lines += [
            f"add table {family} oracle",
            f"add chain {family} oracle marking {{ type filter hook prerouting priority -190; }}",
            *(
                f"add rule {family} oracle marking {state} meta mark set {mark}"
                for mark, (state, _) in enumerate(MARKS, start=1)
            ),
        ]
    lines += [
        "add table bridge oracle",
        "add chain bridge oracle showing { type filter hook postrouting priority 400; }",
    ]
    for mark in range(1, len(MARKS) + 1):
        mac = (_MARKED + mark).to_bytes(6, "big").hex(":")
        lines.append(f'add rule bridge oracle showing oifname "{CONTROL}" meta mark {mark} ether saddr set {mac}')
    return "\n".join(lines) + "\n"


class Taps(Protocol):
    """A bridge's taps, as a Wire has them."""

    guests: dict[str, Guest]

    def inside(self) -> AbstractContextManager[None]:
        """The calling thread is in the network namespace of the taps meanwhile."""


class Tracker:
    """The connections of the wire's network namespace."""

    def __init__(self, wire: Taps) -> None:
        with wire.inside():
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)

    def forget(self) -> None:
        """Flush them all."""
        self._socket.send(_FLUSH)
        self._socket.recv(4096)

    def close(self) -> None:
        """Nothing is flushed any more."""
        self._socket.close()


@dataclass(frozen=True)
class Case:
    """A frame, and what is sent before it."""

    before: tuple[bytes, ...]
    frame: bytes


def reply_to(values: Values) -> dict[Field, int]:
    """The values of a frame that travels the other way."""
    turned = dict(values)
    for one, other in _REVERSED:
        for source, destination in ((one, other), (other, one)):
            turned.pop(source, None)
            if destination in values:
                turned[source] = values[destination]
    for field in (Field.ETHER_SRC, Field.ETHER_DST):
        turned.setdefault(field, 0x525400000099 if field is Field.ETHER_SRC else 0x525400000001)
    return turned


def sequence(rng: random.Random, values: Values) -> Case:
    """The frame with these values, as the first of its connection or at another place in it."""
    whole = _explicit(values)
    kind = rng.choice(("first", "reply", "reply", "established", "related", "related-reply"))
    opening = {**whole, Field.TCP_FLAGS: 2}
    opening.update({Field.ICMP_TYPE: 8, Field.ICMP_CODE: 0, Field.ICMPV6_TYPE: 128, Field.ICMPV6_CODE: 0})
    if kind == "reply":
        frame = dict(whole)
        frame.setdefault(Field.TCP_FLAGS, rng.choice((0x12, 0x10)))
        if rng.random() < 0.7:
            frame.update({Field.ICMP_TYPE: 0, Field.ICMPV6_TYPE: 129})
        return Case((build(reply_to(opening)),), build(frame))
    if kind == "established":
        frame = {Field.TCP_FLAGS: 0x10, **whole}
        return Case((build(opening), build(_answer(opening))), build(frame))
    if kind.startswith("related") and whole.get(Field.ETHER_TYPE) in ERRORS:
        return _related(rng, opening, original=kind == "related")
    if whole.get(Field.ETHER_TYPE) == 0x86DD and rng.random() < 0.3:
        whole.update({Field.L4_PROTOCOL: 58, Field.ICMPV6_TYPE: rng.choice(UNTRACKED)})
    return Case((), build(whole))


UNTRACKED = (130, 131, 132, 133, 134, 135, 136, 137, 143)
"""Types of ICMPv6 messages that the kernel doesn't track: multicast listeners, neighbours, routers."""


def _answer(opening: Values) -> dict[Field, int]:
    """The second frame of a connection."""
    return reply_to({**opening, Field.TCP_FLAGS: 0x12, Field.ICMP_TYPE: 0, Field.ICMPV6_TYPE: 129})


ERRORS = {
    0x0800: ((3, (0, 1, 3, 4, 13)), (3, (3,)), (11, (0, 1)), (12, (0,))),
    0x86DD: ((1, (0, 1, 3, 4)), (2, (0,)), (3, (0, 1)), (4, (1,))),
}
"""By EtherType: types of errors, and some codes of each. RFC 792, RFC 4443."""


def _related(rng: random.Random, opening: Values, *, original: bool) -> Case:
    """An error about a connection's first frame; `original`: about the answer, so that it goes that frame's way."""
    field = Field.IP_PROTOCOL if opening[Field.ETHER_TYPE] == 0x0800 else Field.L4_PROTOCOL
    protocols = (6, 17, 132, 1 if field is Field.IP_PROTOCOL else 58)
    about = {**opening, field: rng.choice(protocols)}
    if rng.random() < 0.5:
        about = {**about, **reply_to(about)}
    type_, codes = rng.choice(ERRORS[about[Field.ETHER_TYPE]])
    frames = (build(about), build(_answer(about))) if original else (build(about),)
    return Case(frames, _error(frames[-1], type_, rng.choice(codes)))


def _explicit(values: Values) -> dict[Field, int]:
    """With the addresses and ports that `build` would take, so that they can be exchanged."""
    defaults = {
        Field.ETHER_SRC: 0x525400000001,
        Field.ETHER_DST: 0x525400000099,
        Field.IP_SRC: GUEST_IP,
        Field.IP_DST: OTHER_IP,
        Field.IP6_SRC: 0x20010DB8 << 96 | 1,
        Field.IP6_DST: 0x20010DB8 << 96 | 0x99,
        Field.SRC_PORT: 40000,
        Field.DST_PORT: 80,
    }
    return {**defaults, **values}


def _error(about: bytes, type_: int, code: int) -> bytes:
    """The ICMP or ICMPv6 error that the receiver of `about` sends; both have addresses at the header's end."""
    four = about[12:14] == b"\x08\x00"
    length, width = (20, 4) if four else (40, 16)
    packet = about[14 : 14 + length + 8]
    end = 14 + length
    addresses = about[end - width : end] + about[end - 2 * width : end - width]
    message = struct.pack("!BBHI", type_, code, 0, 1280 if type_ == 2 else 0) + packet
    covered = message if four else addresses + struct.pack("!II", len(message), 58) + message
    message = message[:2] + checksum(covered).to_bytes(2, "big") + message[4:]
    if four:
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(message), 1, 0, 64, 1, 0) + addresses
        header = header[:10] + checksum(header).to_bytes(2, "big") + header[12:]
    else:
        header = struct.pack("!IHBB", 6 << 28, len(message), 58, 64) + addresses
    return about[6:12] + about[:6] + about[12:14] + header + message


@dataclass(frozen=True)
class Observation:
    """What the kernel made of a frame: its context, and which ways it passed."""

    context: Context
    passed: dict[Way, bool]


def observe(wire: Taps, tracker: Tracker, tap: str, case: Case) -> Observation | None:
    """Send the frame both ways; None if it doesn't get through where no filter is either."""
    tracker.forget()
    for frame in case.before:
        wire.guests[CONTROL].send(frame)
    to_guest = arrivals(wire, case.frame, OUTSIDE)
    marks = to_guest.get(CONTROL)
    if marks is None:
        return None
    tracker.forget()
    for frame in case.before:
        wire.guests[CONTROL].send(frame)
    from_guest = arrivals(wire, case.frame, tap)
    passed = {Way.TO_GUEST: tap in to_guest, Way.FROM_GUEST: OUTSIDE in from_guest}
    return Observation(marks, passed)


def arrivals(wire: Taps, frame: bytes, sender: str) -> dict[str, Context]:
    """Where the frame arrives, and the context that its source tells."""
    for guest in wire.guests.values():
        guest.receive()
    wire.guests[sender].send(frame)
    found: dict[str, Context] = {}
    for tap, guest in wire.guests.items():
        for received in _same_but_source(guest, frame):
            mark = int.from_bytes(received[6:12], "big") - _MARKED
            found[tap] = MARKS[mark - 1][1] if 1 <= mark <= len(MARKS) else NO_CONTEXT
    return found


def _same_but_source(guest: Guest, frame: bytes) -> list[bytes]:
    return [each for each in guest.receive() if each[:6] == frame[:6] and each[12:] == frame[12:]]


def compare_states(
    wire: Wire, tracker: Tracker, tree: Tree, sent: Sequence[Case], tally: Tally | None = None
) -> list[Difference]:
    """Send `sent` through `tree`, as the kernel and as the evaluator have it; the oracle is installed."""
    ruleset = tree.compile()
    refusal = install(wire, ruleset)
    if refusal:
        return [Difference(tree, None, None, f"refuses it: {refusal}", "has a verdict")]
    known = Known(ruleset)
    found = []
    for case in sent:
        seen = observe(wire, tracker, TAP, case)
        if seen is None:
            continue
        verdicts = {Passage(way): kernel for way, kernel in seen.passed.items()}
        from_host = host_sends(wire, case.frame)
        if from_host is not None:
            verdicts[Passage(Way.TO_GUEST, from_host=True)] = from_host
        for passage, kernel in verdicts.items():
            context = Context(seen.context.state, seen.context.reply, known.sets)
            if passage.from_host:  # a packet socket's frames meet no connection tracking
                context = Context(State.INVALID, sets=known.sets, from_host=True)
            evaluation = evaluate(ruleset, case.frame, passage.way, context)
            known.learn(evaluation)
            if tally is not None:
                tally.frames += 1
                tally.dropped += not kernel
                tally.states[state_name(case.frame, context)] += 1
                tally.kinds.update(kinds(case.frame))
            if evaluation.passes is not kernel:
                before = "".join(f"\n  after {frame.hex()}" for frame in case.before)
                told = f"{why(evaluation)}\n{context.state.value} reply={context.reply}{before}"
                found.append(Difference(tree, case.frame, passage, "passes" if kernel else "drops", told))
    return found


def state_name(frame: bytes, context: Context) -> str:
    """As tallies have it: "new", "ipv6 established reply" …"""
    six = frame[12:14] == b"\x86\xdd"
    return f"{'ipv6 ' * six}{context.state.value}{' reply' * context.reply}"


def run_states(wire: Wire, *, families: Sequence[str], filters: int, count: int, seed: int, patience: int = 3) -> Tally:
    """`filters` stateful trees with `count` frames each, at all places of a connection."""
    wire.apply(oracle(families))
    tracker = Tracker(wire)
    tally = Tally()
    for number in range(filters):
        rng = random.Random(f"{seed}/{number}")
        tree = random_tree(rng, stateful=True)
        sent = [sequence(rng, values) for values in cases(rng, tree.compile(), count)]
        found = compare_states(wire, tracker, tree, sent, tally)
        tally.filters += 1
        tally.rows |= tree.covered
        if found:
            tally.differences.append(found[0])
            if len(tally.differences) >= patience:
                break
    tracker.close()
    return tally
