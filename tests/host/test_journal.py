"""What a hook says is in the journal, with fields to find it by; a real journald reads it."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nwfilter_hook.base import said
from tests.support.domains import uuid_of
from tests.support.host import FILTER, GUEST, HOOK, TAP, Sandbox, guest_xml
from tests.support.netns import REPOSITORY

pytestmark = pytest.mark.hook

JOURNALD = """
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/journal /run/log/journal
mount --bind "$1" /run/systemd/journal
mount --bind "$2" /run/log/journal
[ ! -d /var/log/journal ] || mount -t tmpfs tmpfs /var/log/journal
exec /lib/systemd/systemd-journald
"""
BESIDE_IT = """
mkdir -p /run/systemd
mount -t tmpfs tmpfs /run/systemd
mkdir /run/systemd/journal
mount --bind "$1" /run/systemd/journal
shift
exec "$@"
"""


class Journal:
    """A journald, and what it has."""

    def __init__(self, directory: Path) -> None:
        self.door, self._log = directory / "journal", directory / "log"
        for each in (self.door, self._log):
            each.mkdir()
        private = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-ec")
        self._process = subprocess.Popen([*private, JOURNALD, "sh", self.door, self._log], stderr=subprocess.DEVNULL)
        _until(lambda: (self.door / "socket").exists())

    @property
    def pid(self) -> int:
        """Of what has started it."""
        return self._process.pid

    def beside(self, *command: str | Path) -> tuple[str | Path, ...]:
        """The command, with this journald for its own."""
        return ("unshare", "--mount", "sh", "-ec", BESIDE_IT, "sh", self.door, *command)

    def find(self, *matches: str, count: int = 1) -> list[dict[str, str]]:
        """What journalctl finds; waits for so many."""
        found: list[dict[str, str]] = []

        def there() -> bool:
            command = ["journalctl", "-q", "-D", str(self._log), "-o", "json", *matches]
            lines = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
            found[:] = map(json.loads, lines)
            return len(found) >= count

        _until(there)
        return found

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


def _until(there: object, wait_s: float = 20.0) -> None:
    assert callable(there)
    end = time.monotonic() + wait_s
    while not there():
        assert time.monotonic() < end, "the journal hasn't got it"
        time.sleep(0.05)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    started = Journal(tmp_path)
    yield started
    started.close()


def test_a_taps_life_is_found_by_its_name(box: Sandbox, journal: Journal) -> None:
    """journalctl NWFILTER_TAP=…: rules in force, put back, removed, with guest, UUID, filter and operation."""
    xml = guest_xml()
    box.hook(GUEST, "start", xml, command=journal.beside(HOOK)).fine()
    box.nft("flush", "chain", "bridge", "nwfilter", f"from/{TAP}")
    box.hook(GUEST, "reconnect", xml, command=journal.beside(HOOK)).excused("repaired")
    box.hook(GUEST, "stopped", guest_xml(tap=None), command=journal.beside(HOOK)).fine()
    found = journal.find(f"NWFILTER_TAP={TAP}", count=4)
    kinds = {each["NWFILTER_KIND"]: each for each in found}
    assert list(kinds) == ["installed", "repaired", "removed"]
    assert {each["NWFILTER_GUEST"] for each in found} == {GUEST}
    assert {each["NWFILTER_UUID"] for each in found} == {uuid_of(GUEST)}
    assert {each["SYSLOG_IDENTIFIER"] for each in found} == {"nwfilter-hook"}
    assert [kinds[kind]["PRIORITY"] for kind in kinds] == ["6", "4", "6"]
    assert (kinds["installed"]["NWFILTER_FILTER"], kinds["installed"]["NWFILTER_OPERATION"]) == (FILTER, "start")
    assert kinds["repaired"]["NWFILTER_FILTER"] == FILTER
    assert kinds["repaired"]["NWFILTER_OPERATION"] == "reconnect"
    assert kinds["repaired"]["MESSAGE"].startswith(f"{GUEST}: {TAP}: ")
    assert journal.find(f"MESSAGE_ID={said.REPAIRED.id}", f"NWFILTER_GUEST={GUEST}")
    assert not journal.find("NWFILTER_TAP=tap-by", count=0)


def test_a_refusal_names_what_was_asked_for(box: Sandbox, journal: Journal) -> None:
    """All of the guest's taps and filters, one line, whatever the names hold."""
    xml = guest_xml(filter_name="no-such-filter")
    line = box.hook(GUEST, "start", xml, command=journal.beside(HOOK)).refused("no-such-filter")
    (found,) = journal.find(f"MESSAGE_ID={said.REFUSED.id}")
    assert f"nwfilter-hook: {found['MESSAGE']}" == line
    assert (found["NWFILTER_TAP"], found["NWFILTER_FILTER"], found["NWFILTER_OPERATION"]) == (
        *(TAP, "no-such-filter"),
        "start",
    )
    assert (found["PRIORITY"], found["SYSLOG_FACILITY"]) == ("3", "3")
    evil = "a\nNWFILTER_TAP=vnet9"
    assert box.hook(evil, "start", "<domain type='kvm'><filterref", command=journal.beside(HOOK)).status == 1
    assert journal.find(f"MESSAGE_ID={said.REFUSED.id}", count=2)[1]["NWFILTER_GUEST"] == "a\\nNWFILTER_TAP=vnet9"
    assert not journal.find("NWFILTER_TAP=vnet9", count=0)


def test_a_broken_program_is_found_too(box: Sandbox, journal: Journal) -> None:
    """What the launcher answers itself."""
    text = (REPOSITORY / "hooks" / "launch").read_text().replace("program=/usr", "program=/nowhere")
    launcher = box.directory / "launch"
    launcher.write_text(text)
    launcher.chmod(0o755)
    box.hook(GUEST, "start", guest_xml(), command=journal.beside(launcher)).refused("can't run")
    (found,) = journal.find("NWFILTER_KIND=broken")
    assert (found["NWFILTER_GUEST"], found["NWFILTER_OPERATION"], found["PRIORITY"]) == (GUEST, "start", "3")
    assert found["MESSAGE_ID"] in text


def test_a_journal_that_does_not_read_holds_nobody_up(box: Sandbox, journal: Journal) -> None:
    """Its socket is full: the guest starts all the same."""
    subprocess.run(["pkill", "-STOP", "-P", str(journal.pid)], check=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as door:
        door.setblocking(False)
        door.connect(str(journal.door / "socket"))
        with pytest.raises(BlockingIOError):
            any(not door.send(b"MESSAGE=x\n") for _ in range(100_000))
    box.hook(GUEST, "start", guest_xml(), command=journal.beside(HOOK)).fine()
    assert box.in_force()
