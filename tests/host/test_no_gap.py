"""
No gap and no blink: filters are redefined under a flood, and of the forbidden frames none passes, of the allowed ones
none is lost.

NWFILTER_HOOK_REDEFINITIONS says how often (`make soak` takes 1000).
"""

from __future__ import annotations

import itertools
import json
import mmap
import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from nwfilter_hook.operations.define import define
from tests.support.frames import GUEST, GUEST_IP, OTHER, arp, ipv4, udp, vlan
from tests.support.host import Sandbox, drop_udp, filter_xml, reference
from tests.support.netns import Wire

pytestmark = pytest.mark.netns

TIMES = int(os.environ.get("NWFILTER_HOOK_REDEFINITIONS", "100"))
LONGEST_S = 10.0 if TIMES <= 100 else 500.0

ALLOWED = (udp(), arp(), ipv4())
FORBIDDEN = (udp(src=OTHER), arp(sender=OTHER), arp(sender_ip="10.0.0.7"), udp(src_ip="10.0.0.7"), vlan(arp()))


class Seen:
    """
    What a flood sees, while it goes on and after it.

    Attributes:
        lost, passed: after it; numbers of the allowed frames that were lost, of the forbidden ones that passed.
    """

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, 8)
        self.lost: list[int] = []
        self.passed: list[int] = []

    @property
    def rounds(self) -> int:
        """How often every frame was sent, up to now."""
        return int.from_bytes(self._shared[:8], "little")

    @rounds.setter
    def rounds(self, value: int) -> None:
        self._shared[:8] = value.to_bytes(8, "little")

    def wait(self) -> None:
        """Until every frame was sent once more, at least."""
        enough = self.rounds + 3
        deadline = time.monotonic() + 30
        while self.rounds < enough:
            assert time.monotonic() < deadline, "no flood"
            time.sleep(0.001)


@contextmanager
def flood(wire: Wire) -> Iterator[Seen]:
    """
    Send frames from vnet0 and look what arrives at vnet1, without a pause, in a process of its own.

    A write returns when the frame has arrived, so each frame tells what was in force in that very moment.
    """
    sender, receiver = wire.guests["vnet0"], wire.guests["vnet1"]
    seen = Seen()
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        try:
            os.close(reading)
            stop: list[int] = []
            signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
            receiver.receive()
            while not stop:
                for number, frame in enumerate(ALLOWED):
                    sender.send(frame)
                    if receiver.receive() != [frame]:
                        seen.lost.append(number)
                for number, frame in enumerate(FORBIDDEN):
                    sender.send(frame)
                    if receiver.receive():
                        seen.passed.append(number)
                seen.rounds += 1
            os.write(writing, json.dumps([sorted(set(seen.lost)), sorted(set(seen.passed))]).encode())
        finally:
            os._exit(0)
    os.close(writing)
    try:
        yield seen
        seen.wait()
    finally:
        os.kill(process, signal.SIGTERM)
        ready, _, _ = select.select([reading], [], [], 20)
        data = os.read(reading, 65536) if ready else b""
        os.close(reading)
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        if data:
            seen.lost, seen.passed = json.loads(data)


def redefine(site: Sandbox, versions: list[str]) -> int:
    """Redefine TIMES times, the versions in turn; how often it was done in the time there is."""
    deadline = time.monotonic() + LONGEST_S
    with site.inside():
        for count, xml in zip(range(TIMES), itertools.cycle(versions)):
            update = define(site.host(), xml.encode(), "<test>")
            assert ("web", "vnet0") in update.changed
            if time.monotonic() > deadline:
                return count + 1
    return TIMES


@pytest.fixture
def wire(site: Sandbox) -> Wire:
    """The site's, with five guests: web, which is flooded from, and others that are updated with it."""
    site.define(filter_xml("own", drop_udp(9999), uuid="11111111-1111-4111-8111-111111111111")).fine()
    site.define(filter_xml("tree", reference("own"), reference("clean-traffic"))).fine()
    site.start("web", "vnet0", "tree", [("IP", GUEST_IP)], mac=GUEST)
    for number in range(4):
        site.start(f"guest-{number}", f"tap{number}", "tree", [("IP", f"10.0.1.{number}")])
    return site.wire


def report(seen: Seen, times: int) -> None:
    """It was a flood, and it met nothing but the rules."""
    print(f"{times} redefinitions, {seen.rounds * (len(ALLOWED) + len(FORBIDDEN))} frames")
    assert seen.rounds > times, "no flood"
    assert seen.lost == [], f"lost: {[ALLOWED[number] for number in seen.lost]}"
    assert seen.passed == [], f"passed: {[FORBIDDEN[number] for number in seen.passed]}"


def test_the_flood_sees_gaps(site: Sandbox, wire: Wire) -> None:
    """The flood itself works: rules that are away for a moment are noticed, and so are rules that drop all."""
    with flood(wire) as seen:
        ruleset = wire.nft("list", "ruleset")
        for disturbance in ("flush chain bridge nwfilter l2-prerouting", "insert rule bridge nwfilter from/vnet0 drop"):
            wire.apply(disturbance)
            seen.wait()
            wire.apply("flush ruleset\n" + ruleset)
    assert seen.passed == list(range(len(FORBIDDEN)))
    assert seen.lost == list(range(len(ALLOWED)))


def test_redefining_a_filter_of_the_tree(site: Sandbox, wire: Wire) -> None:
    """Rules of the guest's own filter, in its root chain, come, change and go, before what accepts all that is left."""
    first = [drop_udp(port).replace("<rule", "<rule priority='-700'") for port in range(9000, 9005)]
    versions = [filter_xml("own", *first[low : low + 3]) for low in range(3)]
    with flood(wire) as seen:
        times = redefine(site, versions)
    report(seen, times)
    site.check()


def test_redefining_what_does_the_work(site: Sandbox, wire: Wire) -> None:
    """The filters that drop what is forbidden are themselves redefined, chains come and go."""
    comment = "<!-- {} -->\n"
    stock = site.cli("dumpxml", "clean-traffic").fine().out
    other = stock.replace("</filter>", "  <filterref filter='own'/>\n</filter>")
    versions = [other, stock.replace("<filter ", comment.format("moves every line") + "<filter ")]
    with flood(wire) as seen:
        times = redefine(site, versions)
    report(seen, times)
    site.check()
