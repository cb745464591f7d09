"""A change of filters that is killed between any two of its steps: afterwards old or new, in files and kernel alike."""

from __future__ import annotations

import itertools
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nwfilter_hook.base.errors import NwfilterHookError
from nwfilter_hook.host import Host
from nwfilter_hook.operations.define import define, reload, undefine
from tests.host.killer import is_step
from tests.host.site import Site, drop_udp, filter_xml, reference
from tests.support.domains import domain, interface
from tests.support.frames import OTHER, THIRD

pytestmark = pytest.mark.netns

MOST_STEPS = 60
UUID = "11111111-1111-4111-8111-111111111111"
OLD = filter_xml("inner", drop_udp(9), drop_udp(11), uuid=UUID)
HIDING = filter_xml("no-mac-spoofing", drop_udp(9))
NEW = filter_xml("inner", drop_udp(10), reference("allow-arp"), uuid=UUID)


def die_at(site: Site, step: int, change: Callable[[Host], object]) -> bool:
    """Carry out the change in a process that is killed before its N-th step; whether it had so many."""
    process = os.fork()
    if process == 0:
        steps = 0

        def audit(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal steps
            if is_step(event, arguments, str(site.directory)):
                steps += 1
                if steps == step:
                    os.kill(os.getpid(), signal.SIGKILL)

        try:
            with site.inside():
                host = site.host()
                sys.addaudithook(audit)
                change(host)
            os._exit(0)
        except NwfilterHookError:
            os._exit(1)
        finally:
            os._exit(2)
    _, status = os.waitpid(process, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


@dataclass(frozen=True)
class Situation:
    """What is changed, and what makes it as it was."""

    change: Callable[[Host], object]
    undo: Callable[[Site], object]


def redefined(site: Site) -> None:
    """`inner` is the old one, its file as define writes it."""
    site.define(OLD)


def hidden(site: Site) -> None:
    """A local filter hides the stock filter that a guest uses."""
    site.define(HIDING)


def not_hidden(site: Site) -> None:
    """The stock filter is in force."""
    if (site.filters / "no-mac-spoofing.xml").exists():
        site.cli("undefine", "no-mac-spoofing").fine()


def changed_by_hand(site: Site) -> None:
    """A file was changed by other means, and isn't in force."""
    site.define(OLD)
    site.cli("reload").fine()
    site.place("inner", NEW)


SITUATIONS = {
    "define": Situation(lambda host: define(host, NEW.encode(), "new.xml"), redefined),
    "define-unused": Situation(
        lambda host: define(host, filter_xml("unused", uuid=UUID[::-1]).encode(), "new.xml"),
        lambda site: site.cli("undefine", "unused") if (site.filters / "unused.xml").exists() else None,
    ),
    "hide": Situation(lambda host: define(host, HIDING.encode(), "new.xml"), not_hidden),
    "undefine": Situation(lambda host: undefine(host, "no-mac-spoofing"), hidden),
    "reload": Situation(reload, changed_by_hand),
}
# edit is define, and what comes before it changes nothing


def next_reload(site: Site) -> None:
    """The next thing that happens is `reload`."""
    site.cli("reload").fine()


def next_start(site: Site) -> None:
    """The next thing that happens is another guest's start; it stops again."""
    site.start("next", "tap7", "allow-arp")
    site.check_tidy()
    site.stop("next")


def next_start_without_filter(site: Site) -> None:
    """The next thing is the start of a guest that has nothing to do with us."""
    assert site.event("plain", "start", domain("plain", [interface("tap8", None)])) == 0


def next_define(site: Site) -> None:
    """The next thing is a definition of something else."""
    site.define(filter_xml("something-else", drop_udp(9))).fine()
    site.cli("undefine", "something-else").fine()


def next_start_after_a_failure(site: Site) -> None:
    """nft fails at the next event, which is said; the one after that makes it good."""
    site.fake_nft("exit 1")
    site.cli("reload")
    site.define(filter_xml("inner", drop_udp(77)))
    site.configure()
    next_start(site)


NEXT = (next_reload, next_start, next_start_without_filter, next_define, next_start_after_a_failure)


@pytest.fixture
def crowd(site: Site) -> Site:
    """Two guests that use `inner`, one of them with two taps, and one that doesn't."""
    site.define(OLD).fine()
    site.define(filter_xml("outer", reference("no-mac-spoofing"), reference("inner"))).fine()
    taps = [interface("vnet0", "outer"), interface("tap2", "no-mac-spoofing", mac=THIRD)]
    assert site.event("web", "start", domain("web", taps)) == 0
    site.start("db", "vnet1", "inner", mac=OTHER)
    return site


def definition_files(site: Site) -> dict[str, bytes]:
    """The library's files."""
    return {name: data for name, data in site.files().items() if name.startswith("filters/")}


@pytest.mark.parametrize("name", SITUATIONS)
def test_old_or_new(crowd: Site, name: str) -> None:
    """Killed before any step; whatever comes next, files and kernel are old or new, and nothing half-done is left."""
    situation = SITUATIONS[name]
    situation.undo(crowd)
    old = crowd.rules(), definition_files(crowd)
    with crowd.inside():
        situation.change(crowd.host())
    crowd.check()
    new = crowd.rules(), definition_files(crowd)
    seen = set()
    for step in itertools.count(1):
        assert step < MOST_STEPS, "it never gets to its end"
        situation.undo(crowd)
        crowd.check_tidy()
        if not die_at(crowd, step, situation.change):
            break
        rules = crowd.rules()
        assert rules in (old[0], new[0]), f"step {step}: rules that are neither old nor new"
        NEXT[step % len(NEXT)](crowd)  # each at some steps of each situation
        if name == "reload":
            crowd.cli("reload").fine()  # what was changed by hand is in force only then
        crowd.check()
        now = crowd.rules(), definition_files(crowd)
        assert now in (old, new), step
        seen.add(now == new)
    assert step > 6, "it has no steps?"
    assert seen == ({True} if name == "reload" else {True, False})


@pytest.mark.parametrize("step", range(2, 16, 3))
def test_a_failure_and_then_recovery(crowd: Site, step: int) -> None:
    """Killed, and then nft fails at the next two events: nothing is forgotten, the third makes it good."""
    if not die_at(crowd, step, SITUATIONS["define"].change):
        return  # it has fewer steps
    crowd.fake_nft("exit 1")
    for _ in range(2):
        crowd.cli("reload")
    crowd.configure()
    next_start_without_filter(crowd)
    crowd.check()


QUESTIONS = 'case "$*" in *--check*) exec $NFT "$@";; esac; '
"""Whether the kernel can do something is answered as ever."""
AFTER = QUESTIONS + '$NFT "$@"; kill -9 $PPID'


@pytest.mark.parametrize("body", [QUESTIONS + 'kill -9 $PPID; exec $NFT "$@"', AFTER], ids=["before", "after"])
def test_killed_while_nft_runs(crowd: Site, body: str) -> None:
    """nft outlives the command; the next event decides."""
    crowd.fake_nft(body)
    assert die_at(crowd, 0, SITUATIONS["define"].change)
    crowd.configure()
    crowd.cli("reload").fine()
    crowd.check()
    assert (crowd.filters / "inner.xml").read_text() == crowd.cli("dumpxml", "inner").out


def test_a_killed_start_does_not_get_lost_in_a_definition(crowd: Site) -> None:
    """A guest whose start was cut off, on other taps, is updated: what its start may have left is cleaned up."""
    other = domain("db", [interface("vnet1", "inner", mac=OTHER), interface("tap5", "no-mac-spoofing", mac=THIRD)])
    crowd.fake_nft(AFTER)
    process = os.fork()
    if process == 0:
        try:
            crowd.event("db", "start", other)
        finally:
            os._exit(0)
    _, status = os.waitpid(process, 0)
    assert os.WIFSIGNALED(status)
    crowd.configure()
    assert "from/tap5" in crowd.rules()
    crowd.define(NEW).fine()
    assert "tap5" not in crowd.rules()
    crowd.check()


def test_leftovers_of_an_editor_are_nobodys(crowd: Site, tmp_path: Path) -> None:
    """The text of an unfinished definition is never a filter."""
    (crowd.filters / ".define-inner.new").write_text("half")
    assert "inner" in crowd.names(problem=None)
    crowd.define(NEW).fine()
    assert not (crowd.filters / ".define-inner.new").exists()
