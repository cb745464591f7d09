"""A hook or a change of filters that is killed between any two of its steps, and what the next event makes of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from nwfilter_hook import hook
from nwfilter_hook.host import Host
from nwfilter_hook.operations.define import define, reload, undefine
from tests.support.domains import domain, interface
from tests.support.frames import OTHER, THIRD
from tests.support.host import (
    BYSTANDER_TAP,
    FILTER,
    GUEST,
    TAP,
    Sandbox,
    drop_udp,
    filter_xml,
    guest_xml,
    reference,
)
from tests.support.killer import every_death, killed_at

pytestmark = pytest.mark.hook

TWO_TAPS = domain(GUEST, [interface(TAP, FILTER), interface("vnet1", "allow-arp", mac="52:54:00:00:00:02")])
ONE_TAP = guest_xml(filter_name="no-mac-spoofing")
OTHER_TAPS = domain(GUEST, [interface("vnet2", FILTER), interface("vnet3", "no-mac-spoofing", mac="52:54:00:00:00:02")])
ENDED = guest_xml(GUEST, None)


def started(box: Sandbox) -> None:
    """The guest runs, with two taps."""
    box.event(GUEST, "start", TWO_TAPS).fine()


def flushed(box: Sandbox) -> None:
    """The guest runs, but somebody emptied its chains."""
    box.running()
    for chain in box.chains(TAP):
        box.nft_script(f"flush chain bridge nwfilter {chain}\n")


def leftover(box: Sandbox) -> None:
    """The guest has stopped while nft failed."""
    started(box)
    box.fake_nft("exit 1")
    box.event(GUEST, "stopped", ENDED).excused()
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


def dying(box: Sandbox, operation: str, xml: str, guest: str = GUEST) -> Callable[[], None]:
    """The work of a hook, to be killed at it."""

    def work() -> None:
        with box.inside():
            assert hook.run(guest, operation, xml.encode()) == 0

    return work


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
    for step in every_death(box.state_dir, lambda: box.load(prepared), dying(box, operation, xml)):
        dead = box.save()
        box.check_answer(box.event(GUEST, operation, xml))
        assert box.kernel() == clean, step
        assert sorted(box.files()) == files, step
        box.load(dead)
        assert box.event(GUEST, "stopped", ENDED).status == 0, step
        assert set(box.by_tap()) == {BYSTANDER_TAP}, step
        assert len(box.files()) == 2, (step, sorted(box.files()))


def test_no_moment_without_the_old_rules(box: Sandbox) -> None:
    """Killed before any step of an update, the guest is under the old rules or the new ones, never under none."""
    started(box)
    old = rules(box)
    prepared = box.save()
    box.event(GUEST, "start", ONE_TAP).fine()
    new = rules(box)
    for step in every_death(box.state_dir, lambda: box.load(prepared), dying(box, "start", ONE_TAP)):
        assert rules(box) in (old, new), step


def rules(box: Sandbox) -> list[str]:
    """All but sets: one of learned addresses goes when its rules are gone, since the guest is at work until then."""
    return [line for line in box.kernel(TAP) if '"set"' not in line.partition(":")[0]]


def test_another_guest_on_the_tap_of_a_killed_one(box: Sandbox) -> None:
    """Killed before any step of its start, and another guest gets the tap: that one's rules are right to the end."""
    prepared = box.save()
    box.start("other", TAP, "no-mac-spoofing")
    clean = box.kernel(TAP)
    for step in every_death(box.state_dir, lambda: box.load(prepared), dying(box, "start", TWO_TAPS)):
        box.start("other", TAP, "no-mac-spoofing")
        assert box.kernel(TAP) == clean, step
        assert box.event(GUEST, "stopped", ENDED).status == 0, step
        assert box.kernel(TAP) == clean, step
        assert box.kernel("vnet1") == [], step
        assert box.event("other", "stopped", guest_xml("other", None)).status == 0, step
        assert box.kernel(TAP) == [], step


# --- killed while nft runs --------------------------------------------------------------------------------------------

QUESTIONS = 'case "$*" in *--check*) exec $NFT "$@";; esac; '
"""Whether the kernel can do something is answered as ever."""
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
    assert box.finish(box.begin(GUEST, operation), xml).killed
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
    assert box.finish(box.begin(GUEST, "start"), guest_xml(filter_name=FILTER)).killed
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
    assert box.finish(box.begin(GUEST, "start"), guest_xml()).killed
    box.configure()
    began = time.monotonic()
    box.start("other", "vnet9")
    assert time.monotonic() - began < 10


# --- a change of filters ----------------------------------------------------------------------------------------------

UUID = "11111111-1111-4111-8111-111111111111"
OLD = filter_xml("inner", drop_udp(9), drop_udp(11), uuid=UUID)
HIDING = filter_xml("no-mac-spoofing", drop_udp(9))
NEW = filter_xml("inner", drop_udp(10), reference("allow-arp"), uuid=UUID)


@dataclass(frozen=True)
class Change:
    """What is changed, and what makes it as it was."""

    change: Callable[[Host], object]
    undo: Callable[[Sandbox], object]


def not_hidden(site: Sandbox) -> None:
    """The stock filter is in force."""
    if (site.filters / "no-mac-spoofing.xml").exists():
        site.cli("undefine", "no-mac-spoofing").fine()


def changed_by_hand(site: Sandbox) -> None:
    """A file was changed by other means, and isn't in force."""
    site.define(OLD)
    site.cli("reload").fine()
    site.place("inner", NEW)


CHANGES = {
    "define": Change(lambda host: define(host, NEW.encode(), "new.xml"), lambda site: site.define(OLD)),
    "define-unused": Change(
        lambda host: define(host, filter_xml("unused", uuid=UUID[::-1]).encode(), "new.xml"),
        lambda site: site.cli("undefine", "unused") if (site.filters / "unused.xml").exists() else None,
    ),
    "hide": Change(lambda host: define(host, HIDING.encode(), "new.xml"), not_hidden),
    "undefine": Change(lambda host: undefine(host, "no-mac-spoofing"), lambda site: site.define(HIDING)),
    "reload": Change(reload, changed_by_hand),
}
# edit is define, and what comes before it changes nothing


def changing(site: Sandbox, name: str) -> Callable[[], None]:
    """The work of a command, to be killed at it."""

    def work() -> None:
        with site.inside():
            CHANGES[name].change(site.host())

    return work


def next_start(site: Sandbox) -> None:
    """The next thing that happens is another guest's start; it stops again."""
    site.start("next", "tap7", "allow-arp")
    site.check_tidy()
    site.stop("next")


def next_start_without_filter(site: Sandbox) -> None:
    """The next thing is the start of a guest that has nothing to do with us."""
    assert site.event("plain", "start", guest_xml("plain", "tap8", None)).status == 0


def next_define(site: Sandbox) -> None:
    """The next thing is a definition of something else."""
    site.define(filter_xml("something-else", drop_udp(9))).fine()
    site.cli("undefine", "something-else").fine()


def next_start_after_a_failure(site: Sandbox) -> None:
    """nft fails at the next event, which is said; the one after that makes it good."""
    site.fake_nft("exit 1")
    site.cli("reload")
    site.define(filter_xml("inner", drop_udp(77)))
    site.configure()
    next_start(site)


NEXT: tuple[Callable[[Sandbox], object], ...] = (
    lambda site: site.cli("reload").fine(),
    next_start,
    next_start_without_filter,
    next_define,
    next_start_after_a_failure,
)


@pytest.fixture
def crowd(site: Sandbox) -> Sandbox:
    """Two guests that use `inner`, one of them with two taps, and one that doesn't."""
    site.define(OLD).fine()
    site.define(filter_xml("outer", reference("no-mac-spoofing"), reference("inner"))).fine()
    taps = [interface("vnet0", "outer"), interface("tap2", "no-mac-spoofing", mac=THIRD)]
    site.event("web", "start", domain("web", taps)).fine()
    site.start("db", "vnet1", "inner", mac=OTHER)
    return site


def seen(site: Sandbox) -> tuple[str, dict[str, str]]:
    """Rules and filter files."""
    return site.rules(), site.files(site.filters)


@pytest.mark.parametrize("name", CHANGES)
def test_old_or_new(crowd: Sandbox, name: str) -> None:
    """Killed before any step; whatever comes next, files and kernel are old or new, and nothing half-done is left."""

    def undo() -> None:
        CHANGES[name].undo(crowd)
        crowd.check_tidy()

    undo()
    old = seen(crowd)
    changing(crowd, name)()
    crowd.check()
    new = seen(crowd)
    ends = set()
    for step in every_death(crowd.directory, undo, changing(crowd, name)):
        assert crowd.rules() in (old[0], new[0]), f"step {step}: rules that are neither old nor new"
        NEXT[step % len(NEXT)](crowd)  # each at some steps of each situation
        if name == "reload":
            crowd.cli("reload").fine()  # what was changed by hand is in force only then
        crowd.check()
        assert seen(crowd) in (old, new), step
        ends.add(seen(crowd) == new)
    assert step > 5, "it has no steps?"
    assert ends == ({True} if name == "reload" else {True, False})


@pytest.mark.parametrize("step", range(2, 16, 3))
def test_a_failure_and_then_recovery(crowd: Sandbox, step: int) -> None:
    """Killed, and then nft fails at the next two events: nothing is forgotten, the third makes it good."""
    if not killed_at(step, crowd.directory, changing(crowd, "define")):
        return  # it has fewer steps
    crowd.fake_nft("exit 1")
    for _ in range(2):
        crowd.cli("reload")
    crowd.configure()
    next_start_without_filter(crowd)
    crowd.check()


@pytest.mark.parametrize("body", [BEFORE, AFTER], ids=["before", "after"])
def test_killed_while_nft_runs(crowd: Sandbox, body: str) -> None:
    """nft outlives the command; the next event decides."""
    crowd.fake_nft(body)
    assert killed_at(0, crowd.directory, changing(crowd, "define"))
    crowd.configure()
    crowd.cli("reload").fine()
    crowd.check()
    assert (crowd.filters / "inner.xml").read_text() == crowd.cli("dumpxml", "inner").out


def test_a_killed_start_does_not_get_lost_in_a_definition(crowd: Sandbox) -> None:
    """A guest whose start was cut off, on other taps, is updated: what its start may have left is cleaned up."""
    other = domain("db", [interface("vnet1", "inner", mac=OTHER), interface("tap5", "no-mac-spoofing", mac=THIRD)])
    crowd.fake_nft(AFTER)
    assert killed_at(0, crowd.directory, dying(crowd, "start", other, "db"))
    crowd.configure()
    assert "from/tap5" in crowd.rules()
    crowd.define(NEW).fine()
    assert "tap5" not in crowd.rules()
    crowd.check()


def test_leftovers_of_an_editor_are_nobodys(crowd: Sandbox) -> None:
    """The text of an unfinished definition is never a filter."""
    (crowd.filters / ".define-inner.new").write_text("half")
    assert "inner" in crowd.names(problem=None)
    crowd.define(NEW).fine()
    assert not (crowd.filters / ".define-inner.new").exists()
