"""Records that are damaged, foreign or forged, and state directories that are no place for records."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.hook.sandbox import (
    BYSTANDER,
    BYSTANDER_TAP,
    GUEST,
    HOOK,
    PRIVATE_MOUNTS,
    TAP,
    Ran,
    Sandbox,
    guest_xml,
)
from tests.support.domains import uuid_of

pytestmark = pytest.mark.hook

NOBODY = 65534
HANG_S = 10.0


def rewrite(change: Callable[[dict[str, Any]], object]) -> Callable[[Path, Path], None]:
    """A damage that edits the record's JSON."""

    def damage(path: Path, _: Path) -> None:
        record = json.loads(path.read_text())
        change(record)
        path.write_text(json.dumps(record))

    return damage


def of_bystander(record: dict[str, Any]) -> None:
    """The record claims the bystander's tap and chains."""
    text = json.dumps(record["interfaces"]).replace(TAP, BYSTANDER_TAP)
    record["interfaces"] = json.loads(text)


def replaced_by(make: Callable[[Path], object]) -> Callable[[Path, Path], None]:
    """A damage that puts something else in the record's place."""

    def damage(path: Path, _: Path) -> None:
        path.unlink()
        make(path)

    return damage


UNREADABLE: dict[str, Callable[[Path, Path], None]] = {
    "truncated": lambda path, _: os.truncate(path, 100),
    "empty": lambda path, _: os.truncate(path, 0),
    "no-json": lambda path, _: void(path.write_bytes(b"\xff\xfe{")),
    "nul": lambda path, _: void(path.write_bytes(b"\0" * 4096)),
    "list": lambda path, _: void(path.write_text("[]")),
    "number": lambda path, _: void(path.write_text("1" * 5000)),
    "nested": lambda path, _: void(path.write_text("[" * 100_000)),
    "huge": lambda path, _: void(path.write_text('{"schema":1,"x":"' + "y" * (5 << 20) + '"}')),
    "next-schema": rewrite(lambda record: record.update(schema=record["schema"] + 1)),
    "no-schema": rewrite(lambda record: record.pop("schema")),
    "no-guest": rewrite(lambda record: record.pop("guest")),
    "no-interfaces": rewrite(lambda record: record.pop("interfaces")),
    "interfaces-null": rewrite(lambda record: record.update(interfaces=None)),
    "tap-number": rewrite(lambda record: record["interfaces"][0].update(tap=7)),
    "chains-of-another": rewrite(lambda record: record["interfaces"][0].update(chains=[f"from/{BYSTANDER_TAP}"])),
    "chain-injected": rewrite(lambda record: record["interfaces"][0]["chains"].append(f"from/{TAP}\nflush ruleset")),
    "sets-of-another": rewrite(lambda record: record["interfaces"][0]["sets"].append("ipset/precious")),
    "base-chain": rewrite(lambda record: record["interfaces"][0]["chains"].append("l2-prerouting")),
    "stale-of-another": rewrite(
        lambda record: record["stale"].append(
            {"tap": TAP, "family": "bridge", "chains": [f"from/{BYSTANDER_TAP}"], "sets": []}
        )
    ),
    "stale-family": rewrite(
        lambda record: record["stale"].append({"tap": TAP, "family": "inet", "chains": [], "sets": []})
    ),
    "uuid-of-another": rewrite(lambda record: record.update(uuid=uuid_of(BYSTANDER))),
    "uuid-empty": rewrite(lambda record: record.update(uuid="")),
    "uuid-path": rewrite(lambda record: record.update(uuid="../" + record["uuid"])),
    "not-ours": lambda path, _: os.chown(path, NOBODY, NOBODY),
    "link-to-passwd": replaced_by(lambda path: path.symlink_to("/etc/passwd")),
    "link-to-itself": replaced_by(lambda path: path.symlink_to(path)),
    "dangling-link": replaced_by(lambda path: path.symlink_to("/nowhere")),
    "link-to-bystander": replaced_by(lambda path: path.symlink_to(path.with_name(f"{uuid_of(BYSTANDER)}.json"))),
    "directory": replaced_by(lambda path: path.mkdir()),
    "full-directory": replaced_by(lambda path: (path / "x").mkdir(parents=True)),
    "fifo": replaced_by(os.mkfifo),
}
"""Name to what was done to the guest's record."""


def void(_: object) -> None:
    """Forget what a call returned."""


@pytest.fixture
def passwd() -> Iterator[None]:
    """/etc/passwd is the same afterwards."""

    def seen() -> tuple[str, os.stat_result]:
        return Path("/etc/passwd").read_text(), os.lstat("/etc/passwd")

    before = seen()
    yield
    text, status = seen()
    assert (text, status.st_ino, status.st_mode, status.st_mtime_ns) == (
        before[0],
        before[1].st_ino,
        before[1].st_mode,
        before[1].st_mtime_ns,
    )


def damage(box: Sandbox, name: str) -> str:
    """Start the guest and spoil its record; the guest's XML."""
    xml = box.start()
    UNREADABLE[name](box.record_path(), box.state_dir)
    return xml


def assert_message(ran: Ran) -> None:
    """One line says that the record couldn't be used."""
    assert len([line for line in ran.lines if uuid_of(GUEST) in line]) == 1, ran
    assert len("".join(ran.lines)) < 2000


@pytest.mark.usefixtures("passwd")
@pytest.mark.parametrize("name", UNREADABLE)
def test_a_record_that_cant_be_used_stops_no_start(box: Sandbox, name: str) -> None:
    """start moves it aside, says so, and puts the guest's filter in force with a new record."""
    xml = damage(box, name)
    clean = box.kernel()
    ran = box.hook(GUEST, "start", xml, timeout_s=HANG_S)
    assert ran.status == 0
    assert_message(ran)
    assert box.kernel() == clean
    assert box.record()["interfaces"][0]["tap"] == TAP
    assert box.record_path().is_file()
    assert not box.record_path().is_symlink()
    box.stop()
    assert box.kernel(TAP) == []


AT_THE_END = ("truncated", "next-schema", "chains-of-another", "not-ours", "link-to-passwd", "directory", "fifo", "nested")


@pytest.mark.usefixtures("passwd")
@pytest.mark.parametrize("name", AT_THE_END)
def test_a_record_that_cant_be_used_stops_no_end(box: Sandbox, name: str) -> None:
    """stopped with such a record says so, and leaves nothing of the guest in force for the tap's next owner."""
    damage(box, name)
    ran = box.hook(GUEST, "stopped", guest_xml(GUEST, None), timeout_s=HANG_S)
    assert ran.status == 0
    assert_message(ran)
    assert not os.path.lexists(box.record_path())
    box.hook(GUEST, "release", guest_xml(GUEST, None)).fine()
    assert box.kernel(TAP) == []
    assert not (box.state_dir / "taps" / TAP).exists()


@pytest.mark.usefixtures("passwd")
@pytest.mark.parametrize("name", ("truncated", "next-schema", "not-ours", "link-to-passwd", "directory", "fifo"))
def test_a_record_that_cant_be_used_is_made_anew_at_reconnect(box: Sandbox, name: str) -> None:
    """reconnect with such a record keeps the guest filtered, says so, and has a record afterwards."""
    xml = damage(box, name)
    ran = box.hook(GUEST, "reconnect", xml, timeout_s=HANG_S)
    assert ran.status == 0
    assert_message(ran)
    assert box.in_force()
    assert not box.quarantined()
    assert box.record()["guest"] == GUEST
    box.hook(GUEST, "reconnect", xml).fine()


@pytest.mark.usefixtures("passwd")
@pytest.mark.parametrize("suffix", (".json", ".pending", ".json.leftover"))
@pytest.mark.parametrize("name", ("truncated", "link-to-passwd", "directory", "fifo", "nested"))
def test_another_guests_unusable_record_is_no_concern(box: Sandbox, name: str, suffix: str) -> None:
    """A guest starts and stops beside another's spoilt record, pending record or leftover; its own work is done."""
    damage(box, name)
    box.record_path().rename(box.record_path().with_suffix(suffix))
    xml = guest_xml("other", "vnet9")
    assert box.hook("other", "start", xml, timeout_s=HANG_S).status == 0
    assert box.in_force("vnet9")
    assert box.hook("other", "stopped", guest_xml("other", None), timeout_s=HANG_S).status == 0
    box.assert_nothing_left_of_tap("vnet9")


@pytest.mark.usefixtures("passwd")
@pytest.mark.parametrize("suffix", (".pending", ".json.leftover", ".pending.tmp"))
@pytest.mark.parametrize("kind", ("link", "fifo", "directory", "garbage"))
def test_other_files_where_ours_would_be_end_well(box: Sandbox, suffix: str, kind: str) -> None:
    """Whatever lies where pending records and leftovers would be: the right result or a clear error, in time."""
    (box.state_dir / "domains").mkdir(exist_ok=True)
    place(box.state_dir / "domains" / f"{uuid_of(GUEST)}{suffix}", kind)
    assert_ends_well(box, suffix)


def place(path: Path, kind: str) -> None:
    """Put something strange there."""
    if path.is_file():
        path.unlink()
    path.parent.mkdir(exist_ok=True)
    if kind == "link":
        path.symlink_to("/etc/passwd")
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        path.write_text("garbage")


def assert_ends_well(box: Sandbox, word: str) -> None:
    """The guest starts and stops; or its start is refused with `word` in the message, and nothing of it is there."""
    ran = box.hook(GUEST, "start", guest_xml(), timeout_s=HANG_S)
    if ran.status:
        ran.refused(word)
        assert box.kernel(TAP) == []
    else:
        assert box.in_force()
        assert box.hook(GUEST, "stopped", guest_xml(GUEST, None), timeout_s=HANG_S).status == 0
        assert box.kernel(TAP) == []


@pytest.mark.usefixtures("passwd")
@pytest.mark.parametrize("name", ("taps/vnet0", "taps/vnet0.tmp", "capabilities.json", "lock", "unreadable"))
@pytest.mark.parametrize("kind", ("link", "fifo", "directory", "garbage"))
def test_strange_files_beside_the_records_end_well(box: Sandbox, name: str, kind: str) -> None:
    """Owners of taps, lock and capabilities that aren't files of ours: the right result or a clear error, in time."""
    place(box.state_dir / name, kind)
    assert_ends_well(box, name)


@pytest.mark.parametrize("tap", ("../../precious", "../lock", '"; flush ruleset', "*", ""))
def test_a_forged_tap_name_leads_nowhere(box: Sandbox, tap: str) -> None:
    """A record whose tap is a path or nft syntax touches no file and no rule when its guest stops."""
    box.start()
    rewrite(lambda record: record["interfaces"][0].update(tap=tap, chains=[], sets=[]))(box.record_path(), box.state_dir)
    precious = box.directory / "precious"
    precious.write_text(uuid_of(GUEST))
    others = [line for line in box.kernel(exact=True) if line not in box.kernel(TAP, exact=True)]
    assert box.hook(GUEST, "stopped", guest_xml(GUEST, None)).status == 0
    assert precious.exists()
    assert [line for line in box.kernel(exact=True) if line not in box.kernel(TAP, exact=True)] == others


def test_a_forged_record_cant_take_the_bystanders_tap(box: Sandbox) -> None:
    """A record that names another guest's tap and chains, all well-formed, removes nothing of that guest."""
    box.start()
    rewrite(of_bystander)(box.record_path(), box.state_dir)
    ran = box.hook(GUEST, "stopped", guest_xml(GUEST, None))
    assert ran.status == 0
    assert not box.record_path().exists()


# --- the state directory ----------------------------------------------------------------------------------------------


@contextmanager
def mounts(box: Sandbox, script: str) -> Iterator[tuple[tuple[str, ...], Path]]:
    """
    A mount namespace after `script`, in which $1 is the state directory.

    Yields:
        What to put in front of a command to run it there, and the state directory as it looks there, seen from here.
    """
    command = [*PRIVATE_MOUNTS, f"{script}\necho ready; exec sleep 600", "sh", str(box.state_dir)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        inside = ("nsenter", f"--mount=/proc/{process.pid}/ns/mnt", "--")
        yield inside, Path(f"/proc/{process.pid}/root{box.state_dir}")
    finally:
        process.kill()
        with process:
            pass


READ_ONLY = 'mount --bind "$1" "$1"; mount -o remount,bind,ro "$1"'
FULL = """
mkdir /tmp/full.$$; cp -a "$1/." /tmp/full.$$
mount -t tmpfs -o size=128k,mode=0700 tmpfs "$1"
cp -a /tmp/full.$$/. "$1"; rm -r /tmp/full.$$
dd if=/dev/zero of="$1/filler" bs=4k 2>/dev/null || true
"""
USELESS = {"read-only": READ_ONLY, "full": FULL}


@pytest.mark.parametrize("name", USELESS)
def test_a_guest_isnt_started_without_a_record(box: Sandbox, name: str) -> None:
    """start on a state directory that can't be written is refused by its path, and nothing is in the kernel."""
    with mounts(box, USELESS[name]) as (inside, state):
        before = box.kernel(exact=True), box.files(state)
        box.hook(GUEST, "start", guest_xml(), command=(*inside, HOOK)).refused(str(box.state_dir))
        assert (box.kernel(exact=True), box.files(state)) == before


@pytest.mark.parametrize("name", USELESS)
def test_checking_needs_no_record(box: Sandbox, name: str) -> None:
    """prepare and restore write nothing, so they work on such a directory too."""
    with mounts(box, USELESS[name]) as (inside, _):
        for operation in ("prepare", "restore"):
            box.hook(GUEST, operation, guest_xml(), command=(*inside, HOOK)).fine()


@pytest.mark.parametrize("name", USELESS)
def test_an_update_that_cant_be_recorded_leaves_the_old_rules(box: Sandbox, name: str) -> None:
    """A second start with another filter is refused, and the first one stays in force, with its record."""
    box.start()
    with mounts(box, USELESS[name]) as (inside, state):
        before = box.kernel(exact=True), box.files(state)
        ran = box.hook(GUEST, "start", guest_xml(filter_name="no-mac-spoofing"), command=(*inside, HOOK))
        ran.refused(str(box.state_dir))
        assert (box.kernel(exact=True), box.files(state)) == before


@pytest.mark.parametrize("name", USELESS)
def test_what_is_in_force_stays_in_force(box: Sandbox, name: str) -> None:
    """reconnect of a guest whose rules are in place changes nothing, and libvirt hears of no failure."""
    xml = box.start()
    with mounts(box, USELESS[name]) as (inside, _):
        before = box.kernel(TAP, exact=True)
        assert box.hook(GUEST, "reconnect", xml, command=(*inside, HOOK)).status == 0
        assert box.kernel(TAP, exact=True) == before


@pytest.mark.parametrize("name", USELESS)
@pytest.mark.parametrize("known", (True, False), ids=("with-record", "without-record"))
def test_a_running_guest_is_never_left_open(box: Sandbox, name: str, known: bool) -> None:
    """reconnect when the rules are gone and nothing can be written: repaired or quarantined, never open."""
    xml = guest_xml()
    if known:
        box.start()
        box.nft_script("".join(removal(box)))
        assert box.kernel(TAP) == []
    with mounts(box, USELESS[name]) as (inside, _):
        assert box.hook(GUEST, "reconnect", xml, command=(*inside, HOOK)).status == 0
    assert box.in_force()


def removal(box: Sandbox) -> Iterator[str]:
    """A script that takes the guest's tap out of the kernel behind our back."""
    for name in ("from-guest-l2", "to-guest-l2"):
        yield f'delete element bridge nwfilter {name} {{ "{TAP}" }}\n'
    chains = box.chains(TAP)
    yield from (f"flush chain bridge nwfilter {chain}\n" for chain in chains)
    yield from (f"delete chain bridge nwfilter {chain}\n" for chain in chains)
    yield f"delete set bridge nwfilter learned-ip/{TAP}\n"


def test_a_full_disk_hinders_no_removal(box: Sandbox) -> None:
    """stopped needs no space: the guest's rules and record go."""
    box.start()
    with mounts(box, FULL) as (inside, state):
        box.hook(GUEST, "stopped", guest_xml(GUEST, None), command=(*inside, HOOK)).fine()
        assert box.kernel(TAP) == []
        assert [path for path in box.files(state) if uuid_of(GUEST) in path] == []


def test_a_read_only_disk_is_no_failure_at_the_end(box: Sandbox) -> None:
    """stopped on a read-only directory says what is wrong and ends with 0; when it can be written, it is repeated."""
    box.start()
    with mounts(box, READ_ONLY) as (inside, _):
        ran = box.hook(GUEST, "stopped", guest_xml(GUEST, None), command=(*inside, HOOK))
        ran.excused(str(box.state_dir))
    assert box.hook(GUEST, "release", guest_xml(GUEST, None)).status == 0
    box.assert_nothing_left()


@pytest.mark.parametrize("parents", (0, 3))
def test_a_missing_state_directory_is_made(box: Sandbox, parents: int) -> None:
    """The first start after boot makes the directory, its parents too, closed to everybody else."""
    place = box.directory.joinpath("fresh", *"abc"[:parents])
    box.configure(state_dir=place)
    for operation in ("prepare", "reconnect", "stopped"):
        assert box.hook("nobody", operation, guest_xml("nobody", None, None)).status == 0
    assert not place.exists()
    box.hook(GUEST, "start", guest_xml()).fine()
    assert place.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o077 for path in place.rglob("*")} == {0}
    box.hook(GUEST, "stopped", guest_xml(GUEST, None)).fine()
    assert box.kernel(TAP) == []


def test_a_state_directory_that_vanished_is_made_anew(box: Sandbox) -> None:
    """When somebody removed it under running guests, reconnect makes record and rules anew."""
    xml = box.start()
    clean = box.kernel(TAP)
    away = box.state_dir.rename(box.directory / "away")
    ran = box.finish(box.begin(GUEST, "reconnect"), xml)
    assert ran.status == 0
    assert box.kernel(TAP) == clean
    assert box.record()["guest"] == GUEST
    box.state_dir.rename(box.directory / "made")
    away.rename(box.state_dir)


def link(box: Sandbox) -> None:
    """The state directory is a link to a directory of ours."""
    box.state_dir.rename(box.directory / "real")
    box.state_dir.symlink_to(box.directory / "real")


UNFIT: dict[str, Callable[[Sandbox], object]] = {
    "not-ours": lambda box: os.chown(box.state_dir, NOBODY, NOBODY),
    "domains-not-ours": lambda box: os.chown(box.state_dir / "domains", NOBODY, NOBODY),
    "link": link,
    "file": lambda box: (box.state_dir.rename(box.directory / "real"), box.state_dir.touch()),
    "below-a-file": lambda box: box.configure(state_dir="/etc/passwd/state"),
    "in-proc": lambda box: box.configure(state_dir="/proc/state"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_a_state_directory_that_isnt_ours_is_not_used(box: Sandbox, name: str) -> None:
    """A directory of somebody else's, a link or a file is refused by its path; start and end say so, nothing changes."""
    kernel = box.kernel(exact=True)
    box._bystander = None  # its record isn't to be found where it was
    UNFIT[name](box)
    files = box.files(box.directory)
    place = {"below-a-file": "/etc/passwd", "in-proc": "/proc/state"}.get(name, str(box.state_dir))
    box.hook(GUEST, "start", guest_xml()).refused(place)
    assert box.hook(GUEST, "reconnect", guest_xml(filter_name=None)).status == 0
    assert box.hook(GUEST, "stopped", guest_xml(GUEST, None)).status == 0
    assert box.kernel(exact=True) == kernel
    assert box.files(box.directory) == files


@pytest.mark.parametrize("mode", (0o777, 0o775, 0o770, 0o755, 0o1777))
def test_an_open_state_directory_is_closed_or_refused(box: Sandbox, mode: int) -> None:
    """A state directory that others can write is closed to them before it is used, or not used."""
    box.state_dir.chmod(mode)
    (box.state_dir / "domains").chmod(mode)
    ran = box.hook(GUEST, "start", guest_xml())
    if ran.status:
        ran.refused(str(box.state_dir))
        assert box.kernel(TAP) == []
    else:
        assert box.state_dir.stat().st_mode & 0o777 == 0o700
        assert (box.state_dir / "domains").stat().st_mode & 0o777 == 0o700
        assert box.in_force()


def test_a_planted_record_of_another_user_is_no_record(box: Sandbox) -> None:
    """In a directory that was open, a file that another user left in a guest's name is moved aside, never obeyed."""
    path = box.record_path()
    forged = json.loads((box.state_dir / "domains" / f"{uuid_of(BYSTANDER)}.json").read_text())
    path.write_text(json.dumps({**forged, "uuid": uuid_of(GUEST)}))
    os.chown(path, NOBODY, NOBODY)
    ran = box.hook(GUEST, "stopped", guest_xml(GUEST, None))
    assert ran.status == 0
    assert_message(ran)
    assert box.in_force(BYSTANDER_TAP)
