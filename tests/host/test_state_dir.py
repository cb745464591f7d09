"""State directories that are no place for records: missing, full, read-only, somebody else's."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.domains import learned_set, uuid_of
from tests.support.host import (
    BYSTANDER,
    BYSTANDER_TAP,
    GUEST,
    HOOK,
    PRIVATE_MOUNTS,
    TAP,
    Sandbox,
    guest_xml,
)

pytestmark = pytest.mark.hook

NOBODY = 65534


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
    box.running()
    with mounts(box, USELESS[name]) as (inside, state):
        before = box.kernel(exact=True), box.files(state)
        ran = box.hook(GUEST, "start", guest_xml(filter_name="no-mac-spoofing"), command=(*inside, HOOK))
        ran.refused(str(box.state_dir))
        assert (box.kernel(exact=True), box.files(state)) == before


@pytest.mark.parametrize("name", USELESS)
def test_what_is_in_force_stays_in_force(box: Sandbox, name: str) -> None:
    """reconnect of a guest whose rules are in place changes nothing, and libvirt hears of no failure."""
    xml = box.running()
    with mounts(box, USELESS[name]) as (inside, _):
        before = box.kernel(TAP, exact=True)
        assert box.hook(GUEST, "reconnect", xml, command=(*inside, HOOK)).status == 0
        assert box.kernel(TAP, exact=True) == before


@pytest.mark.parametrize("name", USELESS)
@pytest.mark.parametrize("known", [True, False], ids=("with-record", "without-record"))
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
    for name in ("from-guest-l2", "to-guest-l2", "bounds"):
        yield f'delete element bridge nwfilter {name} {{ "{TAP}" }}\n'
    chains = box.chains(TAP)
    yield from (f"flush chain bridge nwfilter {chain}\n" for chain in chains)
    yield from (f"delete chain bridge nwfilter {chain}\n" for chain in chains)
    yield f"delete set bridge nwfilter {learned_set(GUEST, TAP)}\n"
    yield from (f"{verb} chain netdev nwfilter ingress/{TAP}\n" for verb in ("flush", "delete"))


def test_a_full_disk_hinders_no_removal(box: Sandbox) -> None:
    """stopped needs no space: the guest's rules and record go."""
    box.running()
    with mounts(box, FULL) as (inside, state):
        box.hook(GUEST, "stopped", guest_xml(GUEST, None), command=(*inside, HOOK)).fine()
        assert box.kernel(TAP) == []
        assert [path for path in box.files(state) if uuid_of(GUEST) in path] == []


def test_a_read_only_disk_is_no_failure_at_the_end(box: Sandbox) -> None:
    """stopped on a read-only directory says what is wrong and ends with 0; when it can be written, it is repeated."""
    box.running()
    with mounts(box, READ_ONLY) as (inside, _):
        ran = box.hook(GUEST, "stopped", guest_xml(GUEST, None), command=(*inside, HOOK))
        ran.excused(str(box.state_dir))
    assert box.hook(GUEST, "release", guest_xml(GUEST, None)).status == 0
    box.assert_nothing_left()


@pytest.mark.parametrize("parents", [0, 3])
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
    xml = box.running()
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


def file_instead(box: Sandbox) -> None:
    """The state directory is a file."""
    box.state_dir.rename(box.directory / "real")
    box.state_dir.touch()


UNFIT: dict[str, Callable[[Sandbox], object]] = {
    "not-ours": lambda box: os.chown(box.state_dir, NOBODY, NOBODY),
    "domains-not-ours": lambda box: os.chown(box.state_dir / "domains", NOBODY, NOBODY),
    "link": link,
    "file": file_instead,
    "below-a-file": lambda box: box.configure(state_dir="/etc/passwd/state"),
    "in-proc": lambda box: box.configure(state_dir="/proc/state"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_a_state_directory_that_isnt_ours_is_not_used(box: Sandbox, name: str) -> None:
    """A directory of somebody else's, a link or a file is refused by its path, and nothing changes."""
    kernel = box.kernel(exact=True)
    box.forget_bystander()  # its record isn't to be found where it was
    UNFIT[name](box)
    files = without_capabilities(box)
    place = {"below-a-file": "/etc/passwd", "in-proc": "/proc/state"}.get(name, str(box.state_dir))
    box.hook(GUEST, "start", guest_xml()).refused(place)
    assert box.hook(GUEST, "reconnect", guest_xml(filter_name=None)).status == 0
    assert box.hook(GUEST, "stopped", guest_xml(GUEST, None)).status == 0
    assert box.kernel(exact=True) == kernel
    assert without_capabilities(box) == files


def without_capabilities(box: Sandbox) -> dict[str, str]:
    """Every file but what is known of the kernel, which is kept in any directory of ours."""
    return {path: text for path, text in box.files(box.directory).items() if not path.endswith("capabilities.json")}


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o770, 0o755, 0o1777])
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
    assert len([line for line in ran.lines if uuid_of(GUEST) in line]) == 1
    assert box.in_force(BYSTANDER_TAP)
