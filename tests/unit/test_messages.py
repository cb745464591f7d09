"""What goes to the journal: a line, its kind, its fields; to syslog where there is no journal; kinds keep their ids."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import syslog
from pathlib import Path

import pytest

from nwfilter_hook import messages
from nwfilter_hook.base import said
from nwfilter_hook.base.said import Kind, Said, about, worded
from nwfilter_hook.watch.hosts import say

KINDS = [each for each in vars(said).values() if isinstance(each, Kind) and each is not said.PLAIN]
CATALOG = Path(__file__).parents[2] / "packaging/journald/nwfilter-hook.catalog"


def fields(line: str) -> list[tuple[str, str]]:
    """Of a datagram, without those that every line has."""
    pairs = [each.partition("=") for each in messages.entry(line).decode().splitlines()]
    return [(name, value) for name, _, value in pairs if not name.startswith("SYSLOG_")]


def test_fields() -> None:
    """Each value has its own field; a line without a kind is an error."""
    line = about(Said("web: t0, t1", said.REPAIRED, tap=("t0", "t1"), filter=""), guest="web", tap="t9")
    assert fields(line) == [
        *(("MESSAGE", "web: t0, t1"), ("PRIORITY", "4")),
        *(("MESSAGE_ID", said.REPAIRED.id), ("NWFILTER_KIND", "repaired")),
        *(("NWFILTER_GUEST", "web"), ("NWFILTER_TAP", "t0"), ("NWFILTER_TAP", "t1")),
    ]
    assert fields("plain") == [("MESSAGE", "plain"), ("PRIORITY", "3")]
    assert worded("other", line).fields == line.fields


def test_nothing_forges_a_field() -> None:
    """Whatever a guest is called."""
    line = Said("a\nPRIORITY=7", said.REFUSED, guest="x\nNWFILTER_TAP=vnet0\0")
    assert dict(fields(line))["NWFILTER_GUEST"] == "x\\nNWFILTER_TAP=vnet0\\x00"
    assert "NWFILTER_TAP" not in dict(fields(line))
    assert len(messages.entry(Said("a", said.REFUSED, tap=["t" * 15] * 10_000, guest="\U0001f600" * 90_000))) <= 49152


def test_where_there_is_no_journal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """syslog has it, with its priority; where there is one, only the journal."""
    got: list[tuple[int, str]] = []
    monkeypatch.setattr(syslog, "syslog", lambda priority, text: got.append((priority, text)))
    monkeypatch.setattr(messages, "JOURNAL", str(tmp_path / "socket"))
    messages.log(Said("a\nb", said.REPAIRED))
    assert got == [(syslog.LOG_WARNING, "a\\nb")]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as door:
        door.bind(messages.JOURNAL)
        messages.log(Said("c", said.REPAIRED))
        assert door.recv(9999).startswith(b"MESSAGE=c\n")
    assert len(got) == 1


def test_kinds() -> None:
    """None is another's; what a program outside knows them by doesn't change."""
    assert len({each.id for each in KINDS}) == len({each.name for each in KINDS}) == len(KINDS) == 16
    assert all(re.fullmatch("[0-9a-f]{32}", each.id) for each in KINDS)


def test_the_catalog_explains_each() -> None:
    """journalctl -x: a text for every kind, and for the launcher's; journalctl can read it."""
    ids = re.findall(r"(?m)^-- ([0-9a-f]{32})$", CATALOG.read_text())
    launcher = (CATALOG.parents[2] / "hooks/launch").read_text()
    assert sorted(ids) == sorted([*(each.id for each in KINDS), *re.findall("broken_id=([0-9a-f]{32})", launcher)])


def test_what_has_nothing_to_do_loads_nothing_of_it() -> None:
    """The idle path."""
    idle = "import sys; sys.stdin = None; from nwfilter_hook import hook; hook.main(['qemu', 'g', 'started', '-', '-'])"
    loaded = (
        f"{idle}; print([name for name in sys.modules if 'said' in name or 'messages' in name or name == 'socket'])"
    )
    assert subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_service_says_it_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where systemd reads standard error and there is a journal, only that; what is quiet never elsewhere."""
    monkeypatch.setattr(messages, "JOURNAL", str(tmp_path / "socket"))
    monkeypatch.setattr(syslog, "syslog", lambda *_: None)
    monkeypatch.setenv("JOURNAL_STREAM", "8:1")
    say(Said("a", said.DRIFT))
    assert capsys.readouterr().err == "nwfilter-hook: a\n"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as door:
        door.bind(messages.JOURNAL)
        say(Said("b", said.DRIFT, tap="t0"))
        assert b"NWFILTER_TAP=t0\n" in door.recv(9999)
        monkeypatch.delenv("JOURNAL_STREAM")
        say(Said("c", said.DRIFT))
        say(Said("d", said.INSTALLED))
    assert capsys.readouterr().err == "nwfilter-hook: c\n"
