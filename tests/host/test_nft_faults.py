"""An nft that is missing, refuses, hangs or dies, at every operation."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.support.domains import domain, interface
from tests.support.host import BYSTANDER, BYSTANDER_TAP, GUEST, HOOK, TAP, Ran, Sandbox, guest_xml

pytestmark = pytest.mark.hook

TIMEOUT_S = 0.5
IN_TIME_S = 15.0
"""A given-up nft, a slow machine and all that is started beside it."""

BROKEN = {
    "fails": 'cat >/dev/null; echo "Error: cache initialization failed: Operation not permitted" >&2; exit 1',
    "fails-silently": "cat >/dev/null; exit 1",
    "fails-without-reading": 'echo "Error: no" >&2; exit 1',
    "status-255": "cat >/dev/null; exit 255",
    "killed": "cat >/dev/null; kill -9 $$",
    "segfault": "cat >/dev/null; kill -SEGV $$",
    "hangs": 'echo $$ >>"$HERE/pids"; exec sleep 300',
    "hangs-after-reading": 'echo $$ >>"$HERE/pids"; cat >/dev/null; exec sleep 300',
    "hangs-deaf": 'echo $$ >>"$HERE/pids"; trap "" TERM INT HUP; exec sleep 300',
    "floods-stderr": "cat >/dev/null; head -c 10485760 /dev/zero | tr '\\0' x >&2; exit 1",
    "floods-stderr-lines": 'cat >/dev/null; yes "Error: no" | head -c 10485760 >&2; exit 1',
    "binary-stderr": "cat >/dev/null; head -c 4096 /dev/urandom >&2; exit 1",
    "escape-stderr": "cat >/dev/null; printf 'Error: \\033[2J\\r\\nnwfilter-hook: all is well\\n' >&2; exit 1",
}
"""Name to what nft does instead of its work."""

MISSING = {
    "no-such-file": "/nowhere/nft",
    "no-such-name": "no-such-nft",
    "directory": "/etc",
    "not-executable": "/etc/passwd",
    "no-program": "{here}/empty",
}


def break_nft(box: Sandbox, name: str) -> None:
    """From now on nft is broken in this way."""
    if name in BROKEN:
        box.fake_nft(BROKEN[name], timeout_s=TIMEOUT_S if name.startswith("hangs") else 20)
        return
    empty = box.directory / "empty"
    empty.write_text("neither a script nor a binary \0\1\2")
    empty.chmod(0o755)
    box.configure(nft=MISSING[name].format(here=box.directory))


def assert_no_children(box: Sandbox) -> None:
    """No nft that was given up still runs."""
    path = box.directory / "pids"
    for number in path.read_text().split() if path.exists() else ():
        assert not Path(f"/proc/{number}").exists()


def assert_brief(ran: Ran) -> None:
    """Whatever nft said, our message is one a person can read."""
    assert len("".join(ran.lines)) < 4000


EVERY = (*BROKEN, *MISSING)


@pytest.mark.parametrize("name", EVERY)
def test_a_start_without_nft_is_refused(box: Sandbox, name: str) -> None:
    """The guest isn't started, one short line says why, in bounded time; once it has stopped nothing is left of it."""
    break_nft(box, name)
    kernel, files = box.kernel(exact=True), box.files()
    began = time.monotonic()
    ran = box.hook(GUEST, "start", guest_xml(), timeout_s=IN_TIME_S)
    ran.refused("nft")
    assert time.monotonic() - began < IN_TIME_S
    assert_brief(ran)
    assert_no_children(box)
    assert box.kernel(exact=True) == kernel
    if not name.startswith(("hangs", "killed", "segfault")):  # what a killed nft has done can't be known
        assert box.files() == files
    # libvirt calls both, with an nft that may work again
    box.configure()
    box.stop()
    box.assert_nothing_left()


@pytest.mark.parametrize("name", ["fails", "killed", "hangs", "floods-stderr", "no-such-file"])
def test_an_update_without_nft_leaves_the_old_rules(box: Sandbox, name: str) -> None:
    """A second start with another filter is refused; the old rules stay in force; the next event finds its way."""
    box.running()
    kernel = box.kernel(exact=True)
    break_nft(box, name)
    box.hook(GUEST, "start", guest_xml(filter_name="no-mac-spoofing"), timeout_s=IN_TIME_S).refused("nft")
    assert box.kernel(exact=True) == kernel
    box.configure()
    assert box.hook(GUEST, "reconnect", guest_xml()).status == 0
    assert box.in_force()
    assert not box.quarantined()
    box.check_tidy()
    box.stop()
    box.assert_nothing_left()


@pytest.mark.parametrize(
    ("operation", "name"),
    [
        ("stopped", "fails"),
        ("stopped", "killed"),
        ("stopped", "hangs"),
        ("stopped", "hangs-deaf"),
        ("stopped", "floods-stderr"),
        ("release", "no-such-file"),
    ],
)
def test_an_end_without_nft_is_no_failure(box: Sandbox, name: str, operation: str) -> None:
    """The guest's end says what is left and ends with 0; another guest's next event removes it."""
    box.running()
    break_nft(box, name)
    ran = box.hook(GUEST, operation, guest_xml(GUEST, None), timeout_s=IN_TIME_S)
    ran.excused(GUEST, "nft")
    assert_brief(ran)
    assert_no_children(box)
    assert box.in_force()
    box.configure()
    box.start("other", "vnet9")
    box.assert_nothing_left()


@pytest.mark.parametrize("name", ["fails", "hangs", "no-such-file"])
def test_the_guest_itself_may_clean_up_later(box: Sandbox, name: str) -> None:
    """After a stop that failed, release removes what is left; so does the guest's own next start."""
    box.running()
    break_nft(box, name)
    box.hook(GUEST, "stopped", guest_xml(GUEST, None), timeout_s=IN_TIME_S).excused("nft")
    box.configure()
    box.hook(GUEST, "release", guest_xml(GUEST, None)).fine()
    box.assert_nothing_left()
    box.start()
    break_nft(box, name)
    box.hook(GUEST, "stopped", guest_xml(GUEST, None), timeout_s=IN_TIME_S).excused("nft")
    box.configure()
    box.start(tap="vnet7")
    assert box.kernel(TAP) == []
    box.check_tidy()


@pytest.mark.parametrize("name", [*BROKEN, "no-such-file"])
def test_a_reconnect_without_nft_is_no_failure(box: Sandbox, name: str) -> None:
    """
    reconnect needs no nft to see that all is in force; where something is not, it says that it can't put it back, and
    libvirt hears of no failure.
    """
    xml = box.running()
    break_nft(box, name)
    box.hook(GUEST, "reconnect", xml, timeout_s=IN_TIME_S).fine()
    box.nft_script(f"flush chain bridge nwfilter to/{TAP}\n")
    kernel = box.kernel(exact=True)
    ran = box.hook(GUEST, "reconnect", xml, timeout_s=IN_TIME_S)
    ran.excused(GUEST, "nft")
    assert_brief(ran)
    assert_no_children(box)
    assert box.kernel(exact=True) == kernel
    box.configure()
    assert box.hook(GUEST, "reconnect", xml).status == 0
    assert box.in_force()
    assert not box.quarantined()
    box.check_tidy()


@pytest.mark.parametrize("name", ["kill -9 $$", "exec sleep 300", "kill -TERM $$"])
def test_what_nft_did_before_it_died_is_removed(box: Sandbox, name: str) -> None:
    """nft is killed after the kernel has taken the transaction: start is refused, and stopped removes everything."""
    box.fake_nft(f'$NFT "$@"\n{name}', timeout_s=TIMEOUT_S * 4)
    box.hook(GUEST, "start", guest_xml(), timeout_s=IN_TIME_S).refused("nft")
    box.configure()
    box.stop()
    box.assert_nothing_left()


def test_an_update_that_nft_did_before_it_died_is_found_again(box: Sandbox) -> None:
    """nft is killed after it has replaced a guest's rules: the guest's end removes old and new ones."""
    box.running(tap="vnet4")
    box.fake_nft('$NFT "$@"; kill -9 $$')
    box.hook(GUEST, "start", guest_xml(tap="vnet5"), timeout_s=IN_TIME_S).refused("nft")
    box.configure()
    box.stop()
    box.assert_nothing_left(GUEST, "vnet4", "vnet5")


def test_a_broken_nft_without_anything_to_do_is_nobodys_trouble(box: Sandbox) -> None:
    """A guest without filter starts, reconnects and stops without nft."""
    box.configure(nft="/nowhere/nft")
    for operation in ("prepare", "start", "started", "reconnect", "stopped", "release"):
        box.hook(GUEST, operation, guest_xml(filter_name=None)).fine()


@pytest.mark.parametrize("name", ["fails", "hangs", "killed", "no-such-file", "floods-stderr"])
def test_checking_asks_nft_only_what_it_must(box: Sandbox, name: str) -> None:
    """prepare needs nft only for rules that depend on the kernel; its failure is told as nft's, in bounded time."""
    break_nft(box, name)
    box.write_filter("mine", "<rule action='accept' direction='in'><tcp dstportstart='22'/></rule>")
    with box.unchanged():
        box.hook(GUEST, "prepare", guest_xml()).fine()
        ran = box.hook(GUEST, "prepare", guest_xml(filter_name="mine"), timeout_s=IN_TIME_S)
    assert "CONFIG_" not in ran.refused("nft")
    assert_brief(ran)
    assert_no_children(box)


def test_nft_gets_no_descriptors_and_no_secrets(box: Sandbox) -> None:
    """nft runs with the script on stdin, / as its directory, LC_ALL=C; the state directory is no open file of its."""
    report = box.directory / "seen"
    box.fake_nft(f'{{ pwd; echo "$LC_ALL"; ls -l /proc/$$/fd; }} >>{report}; exec $NFT "$@"')
    box.hook(GUEST, "start", guest_xml()).fine()
    seen = report.read_text().splitlines()
    assert seen[:2] == ["/", "C"]
    assert not [line for line in seen if "domains" in line or "taps" in line]


def test_a_guest_waits_for_a_slow_nft(box: Sandbox) -> None:
    """An nft that is slow but works within its time is waited for."""
    box.fake_nft('sleep 1; exec $NFT "$@"', timeout_s=20)
    box.start()
    assert box.in_force()


def test_one_guests_slow_nft_doesnt_fail_another(box: Sandbox) -> None:
    """While one hook holds the lock, another one waits its turn and then does its work."""
    box.fake_nft('sleep 1; exec $NFT "$@"', timeout_s=20)
    first = box.begin(GUEST, "start")
    second = box.begin("other", "start")
    for process, xml in ((first, guest_xml()), (second, guest_xml("other", "vnet9"))):
        ran = box.finish(process, xml)
        box.check_answer(ran)
        ran.fine()
    assert box.in_force()
    assert box.in_force("vnet9")


@pytest.mark.parametrize("operation", ["start", "reconnect", "stopped"])
def test_many_leftovers_dont_make_a_hanging_nft_worse(box: Sandbox, operation: str) -> None:
    """However many guests are to be cleaned up after, one event waits for a hanging nft twice at most."""
    box.running()
    guests = {f"gone-{number}": f"tap{number}" for number in range(6)}
    for guest, tap in guests.items():
        box.start(guest, tap)
    box.fake_nft("exit 1")
    for guest in guests:
        box.hook(guest, "stopped", guest_xml(guest, None)).excused("nft")
    break_nft(box, "hangs")
    xml = guest_xml(GUEST, TAP if operation != "stopped" else None)
    assert box.hook(GUEST, operation, xml, timeout_s=IN_TIME_S).status == (operation == "start")
    assert len((box.directory / "pids").read_text().split()) <= 2
    box.configure()
    box.stop()
    assert set(box.by_tap()) == {BYSTANDER_TAP}
    box.check_tidy()


def test_every_interface_or_none(box: Sandbox) -> None:
    """A rule of the second interface that the kernel refuses keeps the first one's rules out too."""
    rule = "add rule bridge nwfilter from\\/vnet1"
    box.fake_nft(f"""sed "s/{rule} .*/{rule} jump nowhere/" | $NFT "$@\"""")
    xml = domain(GUEST, [interface(TAP, "clean-traffic"), interface("vnet1", "clean-traffic", mac="52:54:00:00:00:02")])
    with box.unchanged():
        line = box.hook(GUEST, "start", xml).refused("nft", ".xml:")
    assert "jump" in line or "from/vnet1" in line


def test_the_hook_finds_nft_where_debian_puts_it(box: Sandbox) -> None:
    """libvirt's PATH may lack /usr/sbin."""
    command = ("env", "PATH=/usr/bin:/bin", HOOK)
    box.hook(GUEST, "start", guest_xml(), command=command).fine()
    assert box.in_force()
    assert os.path.exists("/usr/sbin/nft") or os.path.exists("/sbin/nft")
    box.hook(BYSTANDER, "reconnect", guest_xml(BYSTANDER, BYSTANDER_TAP), command=command).fine()
