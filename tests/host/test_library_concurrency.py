"""Definitions, starts, stops and bindings at the same time: the end is one that some order of them would give."""

from __future__ import annotations

import fcntl
import os
import random
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest import mock

import pytest

from nwfilter_hook.storage.state import State
from tests.host.site import Site, drop_udp, filter_xml, normal_form, reference
from tests.support.domains import domain, interface
from tests.support.frames import GUEST

WORKERS = 4
ROUNDS = 9


def at_once(*works: Callable[[], object]) -> None:
    """Do all of these in processes of their own; all must end well and in time."""
    processes = []
    for work in works:
        process = os.fork()
        if process == 0:
            status = 1
            try:
                work()
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        processes.append(process)
    deadline = time.monotonic() + 120
    statuses = []
    for process in processes:
        while True:
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended:
                statuses.append(status)
                break
            if time.monotonic() > deadline:
                for each in processes[len(statuses) :]:
                    os.kill(each, 9)
                raise AssertionError("deadlock?")
            time.sleep(0.01)
    assert statuses == [0] * len(works)


def shared(port: int) -> str:
    """A version of the filter that everybody uses and redefines."""
    chain = "chain='ipv4-x'" if port % 2 else ""
    return filter_xml("shared", *[drop_udp(port + number) for number in range(port % 3 + 1)], attributes=chain)


def worker(site: Site, seed: int, number: int) -> None:
    """Do this and that in a random order; its own guest and filter end as the number says."""
    dice = random.Random(f"{seed}/{number}")
    guest, tap, own = f"guest-{number}", f"tap{number}", f"own-{number}"
    filters = ("shared", "user", "clean-traffic", "no-mac-spoofing")

    def settle(status: int, err: str) -> None:
        assert status in (0, 1)
        assert all(line.startswith(("nwfilter-hook: ", "warning: ")) for line in err.splitlines()), err

    for _ in range(ROUNDS):
        action = dice.choice(("start", "stop", "shared", "own", "undefine", "reload", "bind", "unbind", "list", "user"))
        if action == "start":
            site.start(guest, tap, dice.choice(filters))
        elif action == "stop":
            site.stop(guest)
        elif action in ("bind", "unbind"):
            xml = (
                f"<filterbinding><owner><name>b</name></owner><portdev name='bound{number}'/>"
                f"<mac address='{GUEST}'/>{reference('shared')}</filterbinding>"
            )
            command = ("binding-create", "-") if action == "bind" else ("binding-delete", f"bound{number}")
            ran = site.cli(*command, stdin=xml)
            settle(ran.status, ran.err)
        else:
            ran = {
                "shared": lambda: site.define(shared(dice.randrange(1000, 2000))),
                "user": lambda: site.define(filter_xml("user", reference(dice.choice(("shared", "allow-arp"))))),
                "own": lambda: site.define(filter_xml(own, drop_udp(dice.randrange(9000)), reference("shared"))),
                "undefine": lambda: site.cli("undefine", own),
                "reload": lambda: site.cli("reload"),
                "list": lambda: site.cli("list"),
            }[action]()
            if action != "undefine":
                assert ran.status == 0, ran
            settle(ran.status, ran.err)
    (site.start(guest, tap, "shared") if number % 2 else site.stop(guest))
    assert site.define(filter_xml(own, drop_udp(number + 1))).status == 0
    if number % 2:
        site.cli("undefine", own).fine()


@pytest.mark.netns
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_everything_at_once(site: Site, seed: int) -> None:
    """Random orders: records, files and kernel agree in the end, and everybody's last word counts."""
    site.define(shared(1000)).fine()
    site.define(filter_xml("user", reference("shared"))).fine()

    def work(number: int) -> Callable[[], None]:
        return lambda: worker(site, seed, number)

    at_once(*(work(number) for number in range(WORKERS)))
    site.check()
    running = {each["guest"] for each in site.cli("binding-list", "--json").json} - {"b"}
    assert running == {f"guest-{number}" for number in range(WORKERS) if number % 2}
    assert [name for name in site.names(origin="local") if name.startswith("own")] == ["own-0", "own-2"]
    port = 1000
    while site.cli("dumpxml", "shared").out.split("</uuid>")[1] != normal(site, port):
        port += 1
        assert port < 2000, "a mix of versions"


def normal(site: Site, port: int) -> str:
    """The version's normal form, after the UUID."""

    uuid = "11111111-1111-4111-8111-111111111111"
    return normal_form(shared(port).encode(), "x", uuid).split("</uuid>")[1]


@pytest.mark.netns
def test_definitions_of_one_filter(site: Site) -> None:
    """Five at once, with three guests: the last one wins as a whole, the file is what the kernel has."""
    site.define(shared(1000)).fine()
    for number in range(3):
        site.start(f"guest-{number}", f"tap{number}", "shared")

    def work(port: int) -> Callable[[], object]:
        return lambda: [site.define(shared(port + step)).fine() for step in range(5)]

    at_once(*(work(port) for port in range(1000, 2000, 200)))
    site.check()


@pytest.mark.netns
def test_two_who_edit(site: Site) -> None:
    """One UUID for one new name, however many define it at once."""
    at_once(*[lambda: site.define(filter_xml("mine", drop_udp(9))).fine()] * 4)
    assert site.names(origin="local") == ["mine"]
    site.check()


# --- waiting ----------------------------------------------------------------------------------------------------------


@contextmanager
def lock_held(site: Site) -> Iterator[None]:
    """Somebody else works and works."""
    site.define(filter_xml("mine", drop_udp(9))).fine()
    with (site.state_dir / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def patience(seconds: float) -> Iterator[None]:
    """How long commands wait."""
    locked = State.locked.__wrapped__  # type: ignore[attr-defined]
    assert locked.__defaults__[0] <= 60
    with mock.patch.object(locked, "__defaults__", (seconds,)):
        yield


BINDING = (
    f"<filterbinding><owner><name>b</name></owner><portdev name='t'/><mac address='{GUEST}'/>"
    "<filterref filter='allow-arp'/></filterbinding>"
)


@pytest.mark.parametrize(
    ("arguments", "stdin"),
    [
        (("define", "-"), filter_xml("mine")),
        (("define", "-", "--dry-run"), filter_xml("mine")),
        (("undefine", "mine"), ""),
        (("reload",), ""),
        (("binding-create", "-"), BINDING),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_the_wait_has_an_end(library: Site, arguments: tuple[str, ...], stdin: str) -> None:
    """Somebody holds the lock for too long: one line that names it, and nothing has changed."""
    with lock_held(library), patience(0.2), library.unchanged():
        began = time.monotonic()
        library.cli(*arguments, stdin=stdin).refused(f"{library.state_dir}/lock", "held by another", "0.2 s")
        assert 0.2 <= time.monotonic() - began < 5


def test_looking_needs_no_lock(library: Site) -> None:
    """What only reads doesn't wait."""
    with lock_held(library), patience(0.2):
        for command in (("list",), ("dumpxml", "mine"), ("binding-list",)):
            library.cli(*command).fine()


def test_a_short_wait_is_none(library: Site) -> None:
    """Who holds the lock for a moment is waited for."""
    with lock_held(library):
        descriptor = os.open(library.state_dir / "lock", os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    timer = threading.Timer(0.4, os.close, (descriptor,))
    timer.start()
    began = time.monotonic()
    library.define(filter_xml("mine", drop_udp(10))).fine()
    assert time.monotonic() - began >= 0.3
    timer.join()


@pytest.mark.netns
def test_a_hook_waits_for_a_definition(site: Site) -> None:
    """A guest that starts while its filter is being redefined gets the old one or the new one, whole."""
    site.define(shared(1000)).fine()
    site.fake_nft('[ "$*" = "-f -" ] && sleep 0.5; exec $NFT "$@"')
    site.start("web", "vnet0", "shared")
    xml = domain("db", [interface("vnet1", "shared")])

    def start() -> None:
        assert site.event("db", "start", xml) == 0

    at_once(lambda: site.define(shared(1001)).fine(), start)
    site.configure()
    site.check()
