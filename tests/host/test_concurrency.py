"""Several hooks at once, as libvirt starts guests in parallel; and definitions and bindings beside them."""

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
from tests.support.domains import domain, interface, key_of
from tests.support.frames import GUEST as MAC
from tests.support.host import (
    BYSTANDER,
    BYSTANDER_TAP,
    FILTER,
    GUEST,
    HANGS_S,
    TAP,
    Ran,
    Sandbox,
    drop_udp,
    filter_xml,
    guest_xml,
    normal_form,
    reference,
)

pytestmark = pytest.mark.hook

Call = tuple[str, str, str]
"""Guest, operation, domain XML."""


def at_once(box: Sandbox, calls: list[Call]) -> list[Ran]:
    """Run hooks at the same time: all are there before the first gets its XML."""
    processes = [box.begin(guest, operation) for guest, operation, _ in calls]
    ended = []
    for process, (_, _, xml) in zip(processes, calls):
        assert process.stdin is not None
        process.stdin.write(xml.encode())
        process.stdin.close()
        process.stdin = None
    for process in processes:
        ended.append(box.finish(process, b"", timeout_s=HANGS_S * 3))
    for ran in ended:
        box.check_answer(ran)
    return ended


def test_two_hooks_for_one_guest(box: Sandbox) -> None:
    """The same start twice at once leaves what one start leaves."""
    xml = box.running()
    clean, record = box.kernel(), box.record()
    box.stop()
    for ran in at_once(box, [(GUEST, "start", xml)] * 2):
        ran.fine()
    assert box.kernel() == clean
    assert box.record() == record
    box.check_tidy()


def test_five_hooks_for_one_guest_with_different_filters(box: Sandbox) -> None:
    """Whichever start comes last wins as a whole; kernel and record agree."""
    names = (FILTER, "no-mac-spoofing", "no-arp-spoofing", "allow-arp", "no-ip-spoofing")
    for ran in at_once(box, [(GUEST, "start", guest_xml(filter_name=name)) for name in names]):
        ran.fine()
    winner = box.record()["bindings"][0]["filter"]
    together = box.kernel()
    box.stop()
    box.start(filter_name=winner)
    assert box.kernel() == together
    box.check_tidy()


def test_fifty_guests_at_once(box: Sandbox) -> None:
    """Fifty starts at once put fifty filters in force; fifty stops at once leave nothing."""
    guests = {f"guest-{number}": f"tap{number}" for number in range(50)}
    before = box.kernel()
    for ran in at_once(box, [(guest, "start", guest_xml(guest, tap)) for guest, tap in guests.items()]):
        ran.fine()
    listing = box.by_tap()
    assert set(listing) == {BYSTANDER_TAP, *guests.values()}
    for guest, tap in guests.items():
        assert [line.replace(tap, TAP).replace(key_of(guest), key_of(BYSTANDER)) for line in listing[tap]] == [
            line.replace(BYSTANDER_TAP, TAP) for line in listing[BYSTANDER_TAP]
        ]
        assert box.record(guest)["bindings"][0]["tap"] == tap
    box.check_tidy()
    for ran in at_once(box, [(guest, "stopped", guest_xml(guest, None)) for guest in guests]):
        ran.fine()
    assert box.kernel() == before
    assert len(box.files()) == 2


@pytest.mark.parametrize("attempt", range(4))
def test_a_start_and_a_stop_race(box: Sandbox, attempt: int) -> None:
    """After a start and a stop at once the guest is there as a whole or not at all."""
    xml = box.running()
    clean = box.kernel()
    if attempt % 2:
        box.stop()
    calls = [(GUEST, "start", xml), (GUEST, "stopped", guest_xml(GUEST, None))]
    for ran in at_once(box, calls if attempt < 2 else calls[::-1]):
        ran.fine()
    if box.record_path().exists():
        assert box.kernel() == clean
        box.check_tidy()
    else:
        box.assert_nothing_left()


def test_every_operation_of_one_guest_at_once(box: Sandbox) -> None:
    """Whatever comes at the same time, kernel and record agree afterwards, and the end leaves nothing."""
    xml, end = guest_xml(), guest_xml(GUEST, None)
    box.start()
    clean = box.kernel(TAP)
    calls = [(GUEST, operation, xml) for operation in ("start", "reconnect", "prepare", "started", "start")]
    calls += [(GUEST, "stopped", end), (GUEST, "release", end), (GUEST, "reconnect", xml)]
    for ran in at_once(box, calls):
        assert ran.status == 0
    assert box.kernel(TAP) == (clean if box.record_path().exists() else [])
    box.stop()
    box.assert_nothing_left()


def test_one_tap_for_two_guests_at_once(box: Sandbox) -> None:
    """Two guests whose XML names one tap: the last one's filter is in force, as a whole."""
    alone = {}
    for guest, filter_name in (("a", FILTER), ("b", "no-mac-spoofing")):
        box.start(guest, TAP, filter_name)
        alone[guest] = box.kernel(TAP)
        box.stop(guest)
    calls = [("a", "start", guest_xml("a")), ("b", "start", guest_xml("b", filter_name="no-mac-spoofing"))]
    for ran in at_once(box, calls):
        assert ran.status in (0, 1)
    assert box.kernel(TAP) in (alone["a"], alone["b"])
    box.stop("a")
    box.stop("b")
    assert box.kernel(TAP) == []
    assert not (box.state_dir / "taps" / TAP).exists()


# --- with changes of filters ------------------------------------------------------------------------------------------

WORKERS = 4
ROUNDS = 9


def in_processes(*works: Callable[[], object]) -> None:
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


def worker(site: Sandbox, seed: int, number: int) -> None:
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
                f"<mac address='{MAC}'/>{reference('shared')}</filterbinding>"
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


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_everything_at_once(site: Sandbox, seed: int) -> None:
    """Random orders: records, files and kernel agree in the end, and everybody's last word counts."""
    site.define(shared(1000)).fine()
    site.define(filter_xml("user", reference("shared"))).fine()

    def work(number: int) -> Callable[[], None]:
        return lambda: worker(site, seed, number)

    in_processes(*(work(number) for number in range(WORKERS)))
    site.check()
    running = {each["guest"] for each in site.cli("binding-list", "--json").json} - {"b"}
    assert running == {f"guest-{number}" for number in range(WORKERS) if number % 2}
    assert [name for name in site.names(origin="local") if name.startswith("own")] == ["own-0", "own-2"]
    port = 1000
    while site.cli("dumpxml", "shared").out.split("</uuid>")[1] != normal(site, port):
        port += 1
        assert port < 2000, "a mix of versions"


def normal(site: Sandbox, port: int) -> str:
    """The version's normal form, after the UUID."""

    uuid = "11111111-1111-4111-8111-111111111111"
    return normal_form(shared(port).encode(), "x", uuid).split("</uuid>")[1]


def test_definitions_of_one_filter(site: Sandbox) -> None:
    """Five at once, with three guests: the last one wins as a whole, the file is what the kernel has."""
    site.define(shared(1000)).fine()
    for number in range(3):
        site.start(f"guest-{number}", f"tap{number}", "shared")

    def work(port: int) -> Callable[[], object]:
        return lambda: [site.define(shared(port + step)).fine() for step in range(5)]

    in_processes(*(work(port) for port in range(1000, 2000, 200)))
    site.check()


def test_two_who_edit(site: Sandbox) -> None:
    """One UUID for one new name, however many define it at once."""
    in_processes(*[lambda: site.define(filter_xml("mine", drop_udp(9))).fine()] * 4)
    assert site.names(origin="local") == ["mine"]
    site.check()


# --- waiting ----------------------------------------------------------------------------------------------------------


@contextmanager
def lock_held(site: Sandbox) -> Iterator[None]:
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
    f"<filterbinding><owner><name>b</name></owner><portdev name='t'/><mac address='{MAC}'/>"
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
def test_the_wait_has_an_end(library: Sandbox, arguments: tuple[str, ...], stdin: str) -> None:
    """Somebody holds the lock for too long: one line that names it, and nothing has changed."""
    with lock_held(library), patience(0.2), library.unchanged():
        began = time.monotonic()
        library.cli(*arguments, stdin=stdin).refused(f"{library.state_dir}/lock", "held by another", "0.2 s")
        assert 0.2 <= time.monotonic() - began < 5


def test_looking_needs_no_lock(library: Sandbox) -> None:
    """What only reads doesn't wait."""
    with lock_held(library), patience(0.2):
        for command in (("list",), ("dumpxml", "mine"), ("binding-list",)):
            library.cli(*command).fine()


def test_a_short_wait_is_none(library: Sandbox) -> None:
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


def test_a_hook_waits_for_a_definition(site: Sandbox) -> None:
    """A guest that starts while its filter is being redefined gets the old one or the new one, whole."""
    site.define(shared(1000)).fine()
    site.fake_nft('[ "$*" = "-f -" ] && sleep 0.5; exec $NFT "$@"')
    site.start("web", "vnet0", "shared")
    xml = domain("db", [interface("vnet1", "shared")])

    def start() -> None:
        assert site.event("db", "start", xml).status == 0

    in_processes(lambda: site.define(shared(1001)).fine(), start)
    site.configure()
    site.check()
