"""The nft process, with a program of the test's own in nft's place: what it is given, and what its failures become."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nwfilter_hook.base.errors import NftError
from nwfilter_hook.nftables.backend import NftBackend
from nwfilter_hook.nftables.commands import Script
from nwfilter_hook.nftables.process import Nft
from nwfilter_hook.ruleset.fields import ValueType
from nwfilter_hook.ruleset.model import NamedSet, SetPurpose
from tests.support.netns import REPOSITORY
from tests.unit.compiling import compiled, filter_xml, rule_xml, transaction


class Program:
    """
    A shell script that stands for nft.

    Attributes:
        log: what it was called with, one line for each call.
        given: what it read last from its standard input.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / "nft"
        self.log = directory / "log"
        self.given = directory / "given"
        self.does("exit 0")

    def does(self, body: str) -> None:
        """From now on the program logs its call, keeps its input, and then does this."""
        head = f'#!/bin/sh\necho "$* LC_ALL=$LC_ALL" >>"{self.log}"\ncat >"{self.given}"\n'
        self.path.write_text(head + body + "\n")
        self.path.chmod(0o755)

    def says(self, text: str, status: int = 0, *, stream: int = 1) -> None:
        """From now on the program prints this and ends."""
        self.does(f"cat >&{stream} <<'END'\n{text}\nEND\nexit {status}")

    @property
    def calls(self) -> list[str]:
        return self.log.read_text().splitlines()


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path)


@pytest.fixture
def nft(program: Program) -> Nft:
    return Nft(str(program.path), timeout_s=10)


def backend(nft: Nft) -> NftBackend:
    """The back end that runs `nft`."""
    return NftBackend(nft, "drops", dict, lambda found: None)


def script() -> Script:
    """A script with a rule that stems from f.xml:3."""
    return transaction(compiled(filter_xml("", rule_xml("<arp/>"))), counters="drops")


def test_a_script_goes_in_by_standard_input(nft: Nft, program: Program) -> None:
    """One process is given the whole transaction on standard input, in the C locale."""
    made = script()
    backend(nft).apply(made)
    assert program.calls == ["-f - LC_ALL=C"]
    assert program.given.read_text() == made.text


def test_a_refused_rule_is_named_by_its_xml(nft: Nft, program: Program) -> None:
    """When nft refuses a rule, the message names the XML's file and line, the filter, the complaint, and the rule."""
    made = script()
    line = next(number for number, each in enumerate(made.operations, 1) if each.origin)
    program.says(
        f"/dev/stdin:{line}:1-5: Error: Could not process rule: No such device\n{'x' * 70}\n^^^^^", 1, stream=2
    )
    with pytest.raises(NftError) as caught:
        backend(nft).apply(made)
    assert not caught.value.unsure
    rule = 'add rule bridge nwfilter from/vnet0 ether type arp counter drop comment "f:3"'
    assert str(caught.value) == (
        f"f.xml:3: filter 'f': nft refused this rule: Could not process rule: No such device: {rule}"
    )


@pytest.mark.parametrize(
    ("stderr", "message"),
    [
        (
            "/dev/stdin:1:5-9: Error: No such file or directory",
            "nft refused the transaction: No such file or directory: add table bridge nwfilter",
        ),
        ("/dev/stdin:99999:1-2: Error: syntax error", "nft refused the transaction: syntax error: "),
        ("netlink: Error: cache initialization failed", "nft refused the transaction: netlink: Error: cache initial"),
        ("", "nft refused the transaction: without a message"),
        ("BUG: register\nnft: assertion", "nft refused the transaction: BUG: register"),
    ],
)
def test_other_refusals(nft: Nft, program: Program, stderr: str, message: str) -> None:
    """Whatever nft says, or doesn't, the error is one line that begins with what happened."""
    program.says(stderr, 1, stream=2)
    with pytest.raises(NftError) as caught:
        backend(nft).apply(script())
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_an_nft_that_hangs_is_given_up(program: Program) -> None:
    """After the configured time nft is given up; whether the kernel has taken the transaction is then not known."""
    program.does("exec sleep 60")
    began = time.monotonic()
    with pytest.raises(NftError, match=r"did not answer within 0.3 s and was given up") as caught:
        backend(Nft(str(program.path), timeout_s=0.3)).apply(script())
    assert caught.value.unsure
    assert time.monotonic() - began < 5


def test_an_nft_that_does_not_read(program: Program, nft: Nft) -> None:
    """An nft that ends before it has read everything is a failure like any other."""
    program.path.write_text("#!/bin/sh\nexit 3\n")
    made = script()
    huge = Script(made.operations * 1000)
    with pytest.raises(NftError, match="nft refused the transaction: without a message"):
        backend(nft).apply(huge)


def test_an_nft_that_is_killed(nft: Nft, program: Program) -> None:
    """An nft that dies of a signal is a failure."""
    program.does("kill -9 $$")
    with pytest.raises(NftError):
        backend(nft).apply(script())


@pytest.mark.parametrize(
    ("name", "reason"), [("/nonexistent/nft", "No such file or directory"), ("/etc/passwd", "Permission denied")]
)
def test_an_nft_that_is_missing(name: str, reason: str) -> None:
    """Without nft the message says what to install or set."""
    with pytest.raises(NftError) as caught:
        backend(Nft(name, timeout_s=1)).apply(script())
    assert (
        str(caught.value) == f"{name} can't be started: {reason}; install the package nftables, or set [nftables] nft"
    )
    assert not caught.value.unsure


def test_it_has_the_lock_and_nothing_else_open(program: Program, tmp_path: Path) -> None:
    """What it is to inherit is open in it, though execve would close that; what we have inherited ourselves isn't."""
    lock, ours = (os.open(tmp_path / name, os.O_RDWR | os.O_CREAT) for name in ("lock", "ours"))
    try:
        os.set_inheritable(ours, True)
        program.does("ls -l /proc/$$/fd")
        ran = Nft(str(program.path), timeout_s=10, inherited=lambda: (lock,)).run([])
        assert f" {lock} -> {tmp_path}/lock\n" in ran.out
        assert f"{tmp_path}/ours" not in ran.out
    finally:
        os.close(lock)
        os.close(ours)


def test_much_goes_in_while_much_comes_out(nft: Nft, program: Program) -> None:
    """More than pipes hold, either way, and on both streams."""
    program.path.write_text("#!/bin/sh\ntee /dev/stderr\n")
    text = "add rule äöü\n" * 100_000
    ran = nft.run([], text)
    assert (ran.status, ran.out, ran.err) == (0, text, text)


def test_closed_standard_descriptors(program: Program) -> None:
    """A caller without them, as some daemons start programs: what it gives and gets is the same."""
    program.does("echo out; echo err >&2; exit 3")
    code = (
        f"import sys; sys.path.insert(0, {str(REPOSITORY)!r}); from nwfilter_hook.nftables.process import Nft\n"
        f"ran = Nft({str(program.path)!r}, 10).run(['-f', '-'], 'the text')\n"
        f"open({str(program.path.parent / 'ran')!r}, 'w').write(repr((ran.status, ran.out, ran.err)))"
    )
    subprocess.run(["sh", "-c", '"$0" -c "$1" <&- >&- 2>&-', sys.executable, code], check=True, timeout=30)
    assert (program.path.parent / "ran").read_text() == repr((3, "out\n", "err\n"))
    assert program.given.read_text() == "the text"


def test_an_nft_that_closes_its_output_and_goes_on(program: Program) -> None:
    """It is given up all the same, and gone afterwards."""
    program.does(f"echo $$ >{program.path.parent}/pid; exec sleep 60 >&- 2>&-")
    with pytest.raises(NftError, match="given up"):
        Nft(str(program.path), timeout_s=0.3).run([])
    assert not Path("/proc", (program.path.parent / "pid").read_text().strip()).exists()


def test_nft_is_found_in_sbin(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program without a path is looked up in PATH, and in the sbin directories that a PATH may lack."""
    monkeypatch.setenv("PATH", f"{program.path.parent}:/usr/bin:/bin")
    backend(Nft("nft", timeout_s=10)).apply(script())
    assert program.calls[0].startswith("-f - ")


def test_its_identity(program: Program) -> None:
    """Another program under that name, or another version of it, is another one; to tell starts no process."""
    nft = Nft(str(program.path), timeout_s=10)
    before = nft.identity()
    assert nft.identity() == before
    program.does("echo another; exit 0")
    assert nft.identity() != before
    assert not program.log.exists()
    assert Nft("/nonexistent/nft", timeout_s=1).identity() == "/nonexistent/nft"


@pytest.mark.parametrize("answer", ["", "{", "[]", '{"other": []}', '{"nftables": 5}'])
def test_an_unreadable_answer(nft: Nft, program: Program, answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """JSON that isn't nft's is an error of ours."""
    monkeypatch.setattr("nwfilter_hook.nftables.backend.read_sets", lambda table: ["ipset/web"])
    program.says(answer)
    with pytest.raises(NftError, match="unreadable answer"):
        backend(nft).list_sets([NamedSet(SetPurpose.IPSET, "web", ValueType.IPV4)])
