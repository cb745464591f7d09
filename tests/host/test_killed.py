"""A hook that is killed between any two of its steps, and what the next event makes of it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.host.sandbox import BYSTANDER_TAP, FILTER, GUEST, HOOK, TAP, Ran, Sandbox, Snapshot, guest_xml, killed
from tests.support.domains import domain, interface

pytestmark = pytest.mark.hook

KILLER = Path(__file__).with_name("killer.py")
MOST_STEPS = 60

TWO_TAPS = domain(GUEST, [interface(TAP, FILTER), interface("vnet1", "allow-arp", mac="52:54:00:00:00:02")])
ONE_TAP = guest_xml(filter_name="no-mac-spoofing")
OTHER_TAPS = domain(GUEST, [interface("vnet2", FILTER), interface("vnet3", "no-mac-spoofing", mac="52:54:00:00:00:02")])
ENDED = guest_xml(GUEST, None)


def started(box: Sandbox) -> None:
    """The guest runs, with two taps."""
    box.hook(GUEST, "start", TWO_TAPS).fine()


def flushed(box: Sandbox) -> None:
    """The guest runs, but somebody emptied its chains."""
    box.running()
    for chain in box.chains(TAP):
        box.nft_script(f"flush chain bridge nwfilter {chain}\n")


def leftover(box: Sandbox) -> None:
    """The guest has stopped while nft failed."""
    started(box)
    box.fake_nft("exit 1")
    box.hook(GUEST, "stopped", ENDED).excused()
    box.configure()


SITUATIONS: dict[str, tuple[Callable[[Sandbox], object], str, str]] = {
    "first-start": (lambda box: None, "start", TWO_TAPS),
    "same-start-again": (lambda box: box.running(), "start", guest_xml()),
    "start-with-other-taps": (started, "start", OTHER_TAPS),
    "start-without-filter": (started, "start", guest_xml(filter_name=None)),
    "start-after-a-failed-stop": (leftover, "start", OTHER_TAPS),
    "repairing-reconnect": (flushed, "reconnect", guest_xml()),
    "stopped": (started, "stopped", ENDED),
    "release-after-a-failed-stop": (leftover, "release", ENDED),
}
"""Name to what was before, the operation, and the domain XML."""


def kill_at(box: Sandbox, step: int, operation: str, xml: str) -> Ran:
    """Run the hook; it dies at that step, if it has as many."""
    command = ("/usr/bin/python3", "-IS", KILLER, str(step), box.state_dir, HOOK)
    return box.hook(GUEST, operation, xml, command=command)


def every_death(box: Sandbox, prepared: Snapshot, operation: str, xml: str) -> Iterator[str]:
    """Each time around, the hook has died one step later; yields where."""
    for step in itertools.count(1):
        assert step < MOST_STEPS, "the hook never gets to its end"
        box.load(prepared)
        ran = kill_at(box, step, operation, xml)
        if not killed(ran):
            assert ran.status == 0
            assert step > 3, "the hook has no steps?"
            return
        yield f"step {step}, {ran.lines[-1]}"


@pytest.mark.parametrize("name", SITUATIONS)
def test_whatever_comes_next_makes_it_good(box: Sandbox, name: str) -> None:
    """
    Killed before any step: the same event again ends where an undisturbed one does, with nothing half-done left;
    and if the guest stops instead, nothing of it is left in the kernel or on disk.
    """
    prepare, operation, xml = SITUATIONS[name]
    prepare(box)
    prepared = box.save()
    assert box.hook(GUEST, operation, xml).status == 0
    clean, files = box.kernel(), sorted(box.files())
    for where in every_death(box, prepared, operation, xml):
        dead = box.save()
        assert box.hook(GUEST, operation, xml).status == 0, where
        assert box.kernel() == clean, where
        assert sorted(box.files()) == files, where
        box.load(dead)
        assert box.hook(GUEST, "stopped", ENDED).status == 0, where
        assert set(box.by_tap()) == {BYSTANDER_TAP}, where
        assert len(box.files()) == 2, (where, sorted(box.files()))


def test_no_moment_without_the_old_rules(box: Sandbox) -> None:
    """Killed before any step of an update, the guest is under the old rules or the new ones, never under none."""
    started(box)
    old = rules(box)
    prepared = box.save()
    box.hook(GUEST, "start", ONE_TAP).fine()
    new = rules(box)
    for where in every_death(box, prepared, "start", ONE_TAP):
        assert rules(box) in (old, new), where


def rules(box: Sandbox) -> list[str]:
    """All but sets: one of learned addresses goes when its rules are gone, since the guest is at work until then."""
    return [line for line in box.kernel(TAP) if '"set"' not in line.partition(":")[0]]


def test_another_guest_on_the_tap_of_a_killed_one(box: Sandbox) -> None:
    """Killed before any step of its start, and another guest gets the tap: that one's rules are right to the end."""
    prepared = box.save()
    other = guest_xml("other", TAP, "no-mac-spoofing")
    box.hook("other", "start", other).fine()
    clean = box.kernel(TAP)
    for where in every_death(box, prepared, "start", TWO_TAPS):
        box.hook("other", "start", other).fine()
        assert box.kernel(TAP) == clean, where
        assert box.hook(GUEST, "stopped", ENDED).status == 0, where
        assert box.kernel(TAP) == clean, where
        assert box.kernel("vnet1") == [], where
        assert box.hook("other", "stopped", guest_xml("other", None)).status == 0, where
        assert box.kernel(TAP) == [], where


# --- killed while nft runs --------------------------------------------------------------------------------------------

QUESTIONS = 'case "$*" in *--check*) exec $NFT "$@";; esac; '
BEFORE = QUESTIONS + 'kill -9 $PPID; exec $NFT "$@"'
AFTER = QUESTIONS + '$NFT "$@"; kill -9 $PPID'
LATE = QUESTIONS + 'kill -9 $PPID; sleep 0.7; $NFT "$@"; touch "$HERE/late"'


def await_late(box: Sandbox) -> None:
    """The nft that outlived its hook has ended."""
    deadline = time.monotonic() + 20
    while not (box.directory / "late").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("body", [BEFORE, AFTER, LATE], ids=("before", "after", "late"))
@pytest.mark.parametrize("operation", ["start", "stopped"])
def test_nft_outlives_the_hook_that_started_it(box: Sandbox, body: str, operation: str) -> None:
    """The hook dies while its nft works on: the guest's end, right afterwards, leaves nothing all the same."""
    box.running(filter_name="no-mac-spoofing")
    box.fake_nft(body)
    xml = guest_xml() if operation == "start" else ENDED
    assert killed(box.finish(box.begin(GUEST, operation), xml))
    box.configure()
    for again in ("stopped", "release"):
        assert box.hook(GUEST, again, ENDED).status == 0
    if body == LATE:
        await_late(box)
    box.assert_nothing_left()


@pytest.mark.parametrize("body", [BEFORE, AFTER, LATE], ids=("before", "after", "late"))
def test_nft_outlives_the_hook_and_the_event_comes_again(box: Sandbox, body: str) -> None:
    """The hook dies while its nft works on: the next start decides, whichever nft is the last to work."""
    box.running(filter_name="no-mac-spoofing")
    clean = box.kernel(TAP)
    box.fake_nft(body)
    assert killed(box.finish(box.begin(GUEST, "start"), guest_xml(filter_name=FILTER)))
    box.configure()
    box.hook(GUEST, "start", guest_xml(filter_name="no-mac-spoofing")).fine()
    if body == LATE:
        await_late(box)
    assert box.kernel(TAP) == clean
    box.stop()
    box.assert_nothing_left()


def test_a_killed_hook_frees_the_lock(box: Sandbox) -> None:
    """The next hook of another guest doesn't wait for one that is dead."""
    box.fake_nft(BEFORE)
    assert killed(box.finish(box.begin(GUEST, "start"), guest_xml()))
    box.configure()
    began = time.monotonic()
    box.start("other", "vnet9")
    assert time.monotonic() - began < 10
