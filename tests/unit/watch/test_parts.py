"""The service's small parts: status files, systemd's socket, the lock of the one service, what it tells."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from nwfilter_hook.base.dataclass import replace
from nwfilter_hook.base.errors import StateError
from nwfilter_hook.storage.watching import Drifted, OneService, Resynced, Watching, read_watching, write_watching
from nwfilter_hook.watch.listener import StatusFiles
from nwfilter_hook.watch.systemd import notify, watchdog_s


def test_status_files(tmp_path: Path) -> None:
    """A file that is renamed into place is told, once; a directory that comes, goes and comes again is found."""
    directory = tmp_path / "qemu"
    files = StatusFiles(str(directory))
    assert files.changed() == []
    directory.mkdir()
    (directory / "web.xml").write_text("1")
    (directory / "web.pid").write_text("1")
    assert files.changed() == ["web"]
    assert files.changed() == []
    (directory / "web.xml.new").write_text("2")
    (directory / "web.xml.new").rename(directory / "web.xml")
    assert files.changed() == ["web"]
    (directory / "web.xml").unlink()
    assert files.changed() == []
    directory.joinpath("web.pid").unlink()
    directory.rmdir()
    assert files.changed() == []
    directory.mkdir()
    (directory / "db.xml").write_text("1")
    assert files.changed() == ["db"]


def test_status_files_within_a_tick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two changes that the clock can't tell apart are both seen: what has changed just now is looked at once more."""
    files = StatusFiles(str(tmp_path))
    files.changed()
    (tmp_path / "web.xml").write_text("1")
    at = os.stat(tmp_path).st_mtime_ns
    assert files.changed() == ["web"]
    (tmp_path / "db.xml").write_text("1")
    os.utime(tmp_path, ns=(at, at))
    assert files.changed() == ["db"]


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, abstract: bool) -> None:
    """sd_notify's protocol, by a path or an abstract name; without a listener nothing happens."""
    name = f"@nwfilter-hook-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", name)
    notify(READY=1)  # nobody there
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as door:
        door.bind("\0" + name[1:] if abstract else name)
        notify(READY=1, STATUS="all is well")
        assert door.recv(100) == b"READY=1\nSTATUS=all is well\n"
    monkeypatch.delenv("NOTIFY_SOCKET")
    notify(READY=1)


def test_the_watchdog(monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts only if it is meant for us."""
    assert watchdog_s() is None
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    assert watchdog_s() == 30
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid() + 1))
    assert watchdog_s() is None


WATCHING = Watching(
    pid=7,
    version="1",
    since="2026-01-01T00:00:00+00:00",
    running=True,
    libvirt="connected",
    libvirt_since="2026-01-01T00:00:00+00:00",
    resynced=Resynced("2026-01-01T00:00:00+00:00", 3, 1, 20),
    drifted=Drifted("2026-01-01T00:00:00+00:00", ("nft (7)",), 1, ("web: vnet0: …",), 12),
    refused=("web: no filter 'x'",),
)


def test_one_service(tmp_path: Path) -> None:
    """A second one refuses, and names the first; what is told says whether one runs."""
    path = str(tmp_path)
    assert read_watching(path) is None
    one = OneService(path)
    with pytest.raises(StateError, match=f"another nwfilter-hook watch runs already, process {os.getpid()}$"):
        OneService(path)
    write_watching(path, WATCHING)
    assert read_watching(path) == WATCHING
    one.release()
    assert read_watching(path) == replace(WATCHING, running=False)
    write_watching(path, replace(WATCHING, resynced=None, drifted=None))
    found = read_watching(path)
    assert found is not None
    assert (found.resynced, found.drifted) == (None, None)
    OneService(path).release()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"resynced": 1}', "null"])
def test_what_was_told_is_damaged(tmp_path: Path, text: str) -> None:
    """Then nothing is known of a service; nobody fails."""
    (tmp_path / "watch.json").write_text(text)
    assert read_watching(str(tmp_path)) is None
