"""Whether a libvirt hook call has anything to do, told from bytes alone, and what its calls come to."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nwfilter_hook import hook
from nwfilter_hook.config import Config, Default

UUID = "11111111-2222-3333-4444-555555555555"
OTHER = "99999999-2222-3333-4444-555555555555"
REPOSITORY = Path(__file__).parents[2]
EVERY = (*hook.CHECKING, *hook.INSTALLING, *hook.REMOVING, *hook.VERIFYING)

PLAIN = f"""<domain type='kvm'><name>web</name><uuid>{UUID}</uuid>
<devices><interface type='bridge'><target dev="vnet0"/></interface></devices></domain>""".encode()
FILTERED = PLAIN.replace(b"</interface>", b"<filterref filter='f'/></interface>")
METADATA = PLAIN.replace(b"<devices>", b"<metadata><b xmlns='https://nwfilter-hook.org/xmlns/1'/></metadata><devices>")


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A configuration with an empty state directory."""
    found = Config()
    found.state_dir = str(tmp_path)
    (tmp_path / "domains").mkdir()
    (tmp_path / "taps").mkdir()
    return found


def busy(config: Config, data: bytes = PLAIN) -> set[str]:
    """The operations that have something to do."""
    return {operation for operation in EVERY if hook.has_work(operation, data, config)}


def remember(config: Config, name: str) -> None:
    (Path(config.state_dir) / "domains" / name).write_text("{}")


NOT_REMOVING = {*hook.CHECKING, *hook.INSTALLING, *hook.VERIFYING}


def test_every_operation_has_its_place() -> None:
    """The operations of libvirt's documents are checking, installing, verifying or removing; `started` is none."""
    assert set(EVERY) == {"prepare", "migrate", "restore", "start", "attach", "stopped", "release", "reconnect"}


def test_a_guest_without_filter_is_no_work(config: Config) -> None:
    """A guest that names no filter and is not known is no work, in no operation."""
    assert busy(config) == set()


@pytest.mark.parametrize("data", [FILTERED, METADATA])
def test_a_reference_is_work(config: Config, data: bytes) -> None:
    """A filterref, or our element in <metadata>, is work for all operations but those of the end."""
    assert busy(config, data) == NOT_REMOVING


def test_a_default_is_work(config: Config) -> None:
    """With a default filter every guest is work."""
    config.defaults = (Default("bridge", "br0", "f", (), "c", 1),)
    assert busy(config) == NOT_REMOVING


@pytest.mark.parametrize("suffix", ["json", "pending"])
def test_a_record_is_work(config: Config, suffix: str) -> None:
    """A guest with a record is work, although its XML names no filter any more; another guest's record is not."""
    remember(config, f"{UUID}.{suffix}")
    assert busy(config) == {*hook.INSTALLING, *hook.VERIFYING, *hook.REMOVING}
    assert busy(config, PLAIN.upper().replace(b"<DOMAIN", b"<domain").replace(b"<UUID", b"<uuid"))
    assert busy(config, PLAIN.replace(UUID.encode(), OTHER.encode())) == set()


@pytest.mark.parametrize("name", [f"{OTHER}.json.leftover", f"{OTHER}.pending.leftover", "update.journal"])
def test_what_others_left_is_work(config: Config, name: str) -> None:
    """What a failed removal or a cut off update left is work for the next event of any guest."""
    remember(config, name)
    assert busy(config) == {*hook.INSTALLING, *hook.VERIFYING, *hook.REMOVING}


def test_a_tap_that_was_anothers_is_work(config: Config) -> None:
    """A guest without filter on a tap that still has another's chains is work when it starts."""
    (Path(config.state_dir) / "taps" / "vnet0").write_text(OTHER)
    assert busy(config) == {*hook.INSTALLING, *hook.VERIFYING}
    assert busy(config, PLAIN.replace(b"vnet0", b"vnet00")) == set()


def test_a_half_written_file_is_work(config: Config) -> None:
    """A file that a killed process left half written is work for the next event: it is removed."""
    remember(config, f"~{OTHER}.pending")
    assert busy(config) == {*hook.INSTALLING, *hook.VERIFYING, *hook.REMOVING}


@pytest.mark.parametrize("data", [b"", b"  ", b"no xml", PLAIN.decode().encode("utf-16")])
def test_in_doubt_there_is_work(config: Config, data: bytes) -> None:
    """What doesn't look like a domain is work for those operations that can refuse, and where there is a record."""
    assert busy(config, data) == NOT_REMOVING
    remember(config, f"{OTHER}.json")
    assert busy(config, data) == set(EVERY)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-8-sig", "latin-1", "utf-7", "cp037"])
def test_a_reference_in_another_encoding_is_work(config: Config, encoding: str) -> None:
    """However the bytes spell "filterref"."""
    text = FILTERED.decode().replace("filterref", "+AGYAaQBsAHQAZQByAHIAZQBm-" if encoding == "utf-7" else "filterref")
    data = f"<?xml version='1.0' encoding='{encoding}'?>{text}".encode("ascii" if encoding == "utf-7" else encoding)
    assert busy(config, data) >= {*hook.CHECKING, *hook.INSTALLING}


def test_without_a_state_directory(config: Config) -> None:
    """Before the first guest there is no directory to look into."""
    config.state_dir += "/none"
    assert busy(config) == set()


def test_a_state_directory_that_cannot_be_read_is_work(config: Config) -> None:
    """If it can't be told what is known, there is work: it will say what is wrong."""
    (Path(config.state_dir) / "domains").rmdir()
    (Path(config.state_dir) / "domains").write_text("")
    assert busy(config) == {*hook.INSTALLING, *hook.VERIFYING, *hook.REMOVING}


def test_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    """Without guest and operation there is a line on how to call it, and exit status 2."""
    assert hook.main(["qemu"]) == 2
    assert capsys.readouterr() == ("", "usage: qemu GUEST OPERATION SUB-OPERATION EXTRA < domain.xml\n")


@pytest.mark.parametrize(("operation", "status"), [("start", 1), ("prepare", 1), ("reconnect", 0), ("stopped", 0)])
def test_a_wrong_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], operation: str, status: int
) -> None:
    """A wrong configuration stops a guest from starting and harms none that runs; the message is one line on stderr."""
    path = tmp_path / "c.conf"
    path.write_text(f"[nftables]\ncounters = some\n[paths]\nstate_dir = {tmp_path}\n")
    monkeypatch.setenv("NWFILTER_HOOK_CONF", str(path))
    assert hook.run("we\nb", operation, PLAIN) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    instead = "" if status else "; going by the lines of it that are right, and the defaults"
    line = f"nwfilter-hook: we\\nb: {path}:2: counters = 'some' is not one of none drops all{instead}\n"
    assert captured.err == line


def test_nothing_to_do_imports_next_to_nothing(tmp_path: Path) -> None:
    """A call without work imports os and sys and three modules of ours: no parser, no subprocess, nothing else."""
    (tmp_path / "c.conf").write_text(f"[paths]\nstate_dir = {tmp_path}/state\n")
    program = (
        "import os, sys\n"
        f"sys.path.insert(0, {str(REPOSITORY)!r})\n"
        "before = set(sys.modules)\n"
        "from nwfilter_hook.hook import main\n"
        "print(main(['qemu', 'web', 'start', 'begin', '-']), *sorted(set(sys.modules) - before))\n"
    )
    done = subprocess.run(
        [sys.executable, "-ISc", program],
        input=PLAIN,
        capture_output=True,
        env={"NWFILTER_HOOK_CONF": str(tmp_path / "c.conf")},
        check=True,
    )
    status, *modules = done.stdout.decode().split()
    assert status == "0"
    ours = {f"nwfilter_hook.{name}" for name in ("hook", "config", "settings")}
    assert set(modules) - {"__future__"} == {"nwfilter_hook", *ours}
