"""
The kernel against the evaluator at a macvtap device.

The device is in mode passthru and takes group frames of all kinds, so that every frame from outside comes up to it. A
packet socket on it sees them before the filter does, and so tells when a frame has come that far: at once, or if it is
broadcast, when the kernel gets round to it. What never comes that far the kernel itself drops (a tag cut short).
"""

from __future__ import annotations

import random
import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from nwfilter_hook.ruleset.evaluate import Way
from nwfilter_hook.ruleset.model import Attachment
from tests.conformance.filters import MAC, TAP, random_tree
from tests.conformance.kernel import OUTSIDE, Passage, Send, Tally, compare, reduce
from tests.conformance.mutation import frames
from tests.conformance.summary import TALLIES
from tests.conformance.test_kernel import FRAMES, SEED, expect_no_difference
from tests.support.netns import Wire

pytestmark = pytest.mark.netns

FILTERS, PATIENCE = 20, 5
ETH_P_ALL = 3  # linux/if_ether.h
SLOWEST_BROADCAST_S = 0.5
FILTERING_S = 0.002
"""How long the kernel may take from the packet socket to the guest, if that happens on another processor."""


@contextmanager
def wire_with_a_macvtap() -> Iterator[tuple[Wire, Send]]:
    """TAP is a macvtap on OUTSIDE, and frames go to and fro."""
    with Wire(()) as wire:
        wire.plug_macvtap(TAP, MAC, OUTSIDE, mode="passthru")
        wire.ip(f"link set {TAP} allmulticast on")
        with wire.inside():
            watch = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        with watch:
            watch.bind((TAP, ETH_P_ALL))
            watch.setblocking(False)

            def send(wire: Wire, frame: bytes) -> dict[Passage, bool]:
                passed = {Passage(Way.FROM_GUEST): wire.passes(frame, TAP, OUTSIDE)}
                while came_in(watch):
                    pass
                if is_group_fragment(frame):
                    return passed
                arrived = wire.passes(frame, OUTSIDE, TAP)
                while not came_in(watch):
                    if not is_group(frame) or not select.select([watch], [], [], SLOWEST_BROADCAST_S)[0]:
                        return passed
                passed[Passage(Way.TO_GUEST)] = arrived or frame in wire.guests[TAP].receive(FILTERING_S)
                return passed

            yield wire, send


def came_in(watch: socket.socket) -> bool:
    """Has the packet socket seen a frame since the last one? What the guest sends doesn't count."""
    while True:
        try:
            address = watch.recvfrom(1)[1]
        except BlockingIOError:
            return False
        if address[2] != socket.PACKET_OUTGOING:
            return True


def is_group(frame: bytes) -> bool:
    """To more than one host: the kernel may take its time to hand it on."""
    return bool(frame[0] & 1)


def is_group_fragment(frame: bytes) -> bool:
    """
    An IPv4 fragment to a group address, tagged or not: the kernel keeps those until it has all, and gives the macvtap
    the whole (ip_check_defrag in drivers/net/macvlan.c).
    """
    header = 14
    while frame[header - 2 : header] in (b"\x81\x00", b"\x88\xa8"):
        header += 4
    fragment = int.from_bytes(frame[header + 6 : header + 8], "big") & 0x3FFF
    return bool(is_group(frame) and frame[header - 2 : header] == b"\x08\x00" and fragment)


def test_filters_of_a_macvtap(able: None) -> None:
    """At the egress of the device what the guest sends has the evaluator's verdict, at its ingress what it gets."""
    tally = TALLIES["macvtap"] = Tally()
    with wire_with_a_macvtap() as (wire, send):
        for number in range(FILTERS):
            rng = random.Random(f"{SEED}/{number}")
            tree = random_tree(rng, attachment=Attachment.MACVTAP)
            sent = list(frames(rng, tree.compile(), FRAMES))
            found = compare(wire, tree, sent, tally, send)
            tally.filters += 1
            tally.rows |= tree.covered
            if found:
                smallest = reduce(found[0], sent, lambda tree, frames: compare(wire, tree, frames, send=send))
                tally.differences.append(smallest)
                if len(tally.differences) >= PATIENCE:
                    break
    expect_no_difference(tally)
