"""Records that are damaged, foreign or forged."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.domains import uuid_of
from tests.support.host import (
    BYSTANDER,
    BYSTANDER_TAP,
    GUEST,
    TAP,
    Ran,
    Sandbox,
    guest_xml,
)

pytestmark = pytest.mark.hook

NOBODY = 65534
HANG_S = 10.0


def rewrite(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    """A damage that edits the record's JSON."""

    def damage(path: Path) -> None:
        record = json.loads(path.read_text())
        change(record)
        path.write_text(json.dumps(record))

    return damage


def thing(kind: str, name: str) -> dict[str, Any]:
    """Something in the kernel, as a record names it."""
    return {"kind": kind, "table": "bridge", "name": name, "definition": "", "content": []}


def names(record: dict[str, Any], kind: str, name: str) -> None:
    """The record names something more."""
    record["bindings"][0]["installed"]["objects"].append(thing(kind, name))


def of_bystander(record: dict[str, Any]) -> None:
    """The record claims the bystander's tap and chains."""
    text = json.dumps(record["bindings"]).replace(TAP, BYSTANDER_TAP)
    record["bindings"] = json.loads(text)


def replaced_by(make: Callable[[Path], object]) -> Callable[[Path], object]:
    """A damage that puts something else in the record's place."""

    def damage(path: Path) -> None:
        path.unlink()
        make(path)

    return damage


UNREADABLE: dict[str, Callable[[Path], object]] = {
    "truncated": lambda path: os.truncate(path, 100),
    "nested": lambda path: path.write_text("[" * 100_000),
    "next-schema": rewrite(lambda record: record.update(schema=record["schema"] + 1)),
    "chains-of-another": rewrite(lambda record: names(record, "chain", f"from/{BYSTANDER_TAP}")),
    "sets-of-another": rewrite(lambda record: names(record, "set", "ipset/precious")),
    "stale-of-another": rewrite(
        lambda record: record["stale"].append(
            {"tap": TAP, "objects": [thing("chain", f"from/{BYSTANDER_TAP}")], "whole": False}
        )
    ),
    "stale-family": rewrite(
        lambda record: record["stale"].append({"tap": TAP, "family": "inet", "chains": [], "sets": []})
    ),
    "uuid-of-another": rewrite(lambda record: record.update(uuid=uuid_of(BYSTANDER))),
    "not-ours": lambda path: os.chown(path, NOBODY, NOBODY),
    "link-to-passwd": replaced_by(lambda path: path.symlink_to("/etc/passwd")),
    "link-to-itself": replaced_by(lambda path: path.symlink_to(path)),
    "link-to-bystander": replaced_by(lambda path: path.symlink_to(path.with_name(f"{uuid_of(BYSTANDER)}.json"))),
    "directory": replaced_by(lambda path: path.mkdir()),
    "fifo": replaced_by(os.mkfifo),
}
"""Name to what was done to the guest's record."""


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
    xml = box.running()
    UNREADABLE[name](box.record_path())
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
    assert box.record()["bindings"][0]["tap"] == TAP
    assert box.record_path().is_file()
    assert not box.record_path().is_symlink()


AT_THE_END = (
    "truncated",
    "next-schema",
    "chains-of-another",
    "not-ours",
    "link-to-passwd",
    "directory",
    "fifo",
    "nested",
)


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
@pytest.mark.parametrize("name", ["truncated", "next-schema", "not-ours", "link-to-passwd", "directory", "fifo"])
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
@pytest.mark.parametrize("suffix", [".json", ".pending", ".json.leftover"])
@pytest.mark.parametrize("name", ["truncated", "link-to-passwd", "directory", "fifo", "nested"])
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
@pytest.mark.parametrize("suffix", [".pending", ".json.leftover", ".pending.tmp"])
@pytest.mark.parametrize("kind", ["link", "fifo", "directory", "garbage"])
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
@pytest.mark.parametrize("name", ["taps/vnet0", "taps/vnet0.tmp", "capabilities.json", "lock", "unreadable"])
@pytest.mark.parametrize("kind", ["link", "fifo", "directory", "garbage"])
def test_strange_files_beside_the_records_end_well(box: Sandbox, name: str, kind: str) -> None:
    """Owners of taps, lock and capabilities that aren't files of ours: the right result or a clear error, in time."""
    place(box.state_dir / name, kind)
    assert_ends_well(box, name)


@pytest.mark.parametrize("tap", ["../../precious", "../lock", '"; flush ruleset', "*", ""])
def test_a_forged_tap_name_leads_nowhere(box: Sandbox, tap: str) -> None:
    """A record whose tap is a path or nft syntax touches no file and no rule when its guest stops."""
    box.running()
    forge = rewrite(
        lambda record: record["bindings"][0].update(tap=tap, installed={"tap": tap, "objects": [], "whole": True})
    )
    forge(box.record_path())
    precious = box.directory / "precious"
    precious.write_text(uuid_of(GUEST))
    others = foreign(box)
    assert box.hook(GUEST, "stopped", guest_xml(GUEST, None)).status == 0
    assert precious.exists()
    assert foreign(box) == others


def foreign(box: Sandbox) -> dict[str, list[str]]:
    """What other taps have in the kernel."""
    return {tap: lines for tap, lines in box.by_tap().items() if tap != TAP}


def test_a_forged_record_cant_take_the_bystanders_tap(box: Sandbox) -> None:
    """A record that names another guest's tap and chains, all well-formed, removes nothing of that guest."""
    box.running()
    rewrite(of_bystander)(box.record_path())
    ran = box.hook(GUEST, "stopped", guest_xml(GUEST, None))
    assert ran.status == 0
    assert not box.record_path().exists()
