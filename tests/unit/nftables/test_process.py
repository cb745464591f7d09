"""The nft process, with a program of the test's own in nft's place: what it is given, and what its failures become."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from nwfilter_hook.base.errors import NftError
from nwfilter_hook.nftables.process import Nft, fingerprint_of
from nwfilter_hook.nftables.script import Script, render_install
from tests.unit.checking import complaints
from tests.unit.compiling import compiled, filter_xml, rule_xml


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
        head = f'#!/bin/sh\necho "$* LC_ALL=$LC_ALL PWD=$(pwd)" >>"{self.log}"\ncat >"{self.given}"\n'
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


def transaction() -> Script:
    """A script whose last rule stems from f.xml:3."""
    return render_install([compiled(filter_xml("", rule_xml("<arp/>")))])


def test_a_script_goes_in_by_standard_input(nft: Nft, program: Program) -> None:
    """One process is given the whole transaction on standard input, in the C locale, from the root directory."""
    script = transaction()
    nft.apply_script(script)
    assert program.calls == ["-f - LC_ALL=C PWD=/"]
    assert program.given.read_text() == script.text


def test_a_refused_rule_is_named_by_its_xml(nft: Nft, program: Program) -> None:
    """When nft refuses a rule, the message names the XML's file and line, the filter, the complaint, and the rule."""
    script = transaction()
    line = next(iter(script.sources))
    program.says(
        f"/dev/stdin:{line}:1-5: Error: Could not process rule: No such device\n{'x' * 70}\n^^^^^", 1, stream=2
    )
    with pytest.raises(NftError) as caught:
        nft.apply_script(script)
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
        nft.apply_script(transaction())
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_an_nft_that_hangs_is_given_up(program: Program) -> None:
    """After the configured time nft is given up; whether the kernel has taken the transaction is then not known."""
    program.does("exec sleep 60")
    began = time.monotonic()
    with pytest.raises(NftError, match=r"did not answer within 0.3 s and was given up") as caught:
        Nft(str(program.path), timeout_s=0.3).apply_script(transaction())
    assert caught.value.unsure
    assert time.monotonic() - began < 5


def test_an_nft_that_does_not_read(program: Program, nft: Nft) -> None:
    """An nft that ends before it has read everything is a failure like any other."""
    program.path.write_text("#!/bin/sh\nexit 3\n")
    script = transaction()
    huge = Script(script.text * 1000, script.sources, script.statements)
    with pytest.raises(NftError, match="nft refused the transaction: without a message"):
        nft.apply_script(huge)


def test_an_nft_that_is_killed(nft: Nft, program: Program) -> None:
    """An nft that dies of a signal is a failure."""
    program.does("kill -9 $$")
    with pytest.raises(NftError):
        nft.apply_script(transaction())


@pytest.mark.parametrize(
    ("name", "reason"), [("/nonexistent/nft", "No such file or directory"), ("/etc/passwd", "Permission denied")]
)
def test_an_nft_that_is_missing(name: str, reason: str) -> None:
    """Without nft the message says what to install or set."""
    with pytest.raises(NftError) as caught:
        Nft(name, timeout_s=1).apply_script(transaction())
    assert (
        str(caught.value) == f"{name} can't be started: {reason}; install the package nftables, or set [nftables] nft"
    )
    assert not caught.value.unsure


def test_nft_is_found_in_sbin(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program without a path is looked up in PATH, and in the sbin directories that a PATH may lack."""
    monkeypatch.setenv("PATH", f"{program.path.parent}:/usr/bin:/bin")
    Nft("nft", timeout_s=10).apply_script(transaction())
    assert program.calls[0].startswith("-f - ")


def test_checking(nft: Nft, program: Program) -> None:
    """A script can be checked without being carried out; the answer is nft's message, or nothing."""
    assert nft.check_script("add table bridge x\n") is None
    program.says("/dev/stdin:1:1-3: Error: Protocol error", 1, stream=2)
    assert nft.check_script("add table bridge x\n") == "/dev/stdin:1:1-3: Error: Protocol error"
    assert [call.split(" LC_ALL")[0] for call in program.calls] == ["--check -f -"] * 2


def test_the_version(nft: Nft, program: Program) -> None:
    """The version is what nft prints, on one line."""
    program.says("nftables v1.0.6 (Lester Gooch #5)")
    assert nft.version() == "nftables v1.0.6 (Lester Gooch #5)"


def test_a_map(nft: Nft, program: Program) -> None:
    """A verdict map is read as interface to chain; one that isn't there is empty."""
    program.says(
        '{"nftables": [{"metainfo": {}}, {"map": {"name": "m", "elem": [["vnet0", {"jump": {"target": "from/vnet0"}}], '
        '["0net", {"jump": {"target": "from/0net"}}], ["odd", {"drop": null}]]}}]}'
    )
    assert nft.list_map("m") == {"vnet0": "from/vnet0", "0net": "from/0net", "odd": ""}
    program.says('{"nftables": [{"map": {"name": "m"}}]}')
    assert nft.list_map("m") == {}
    program.says("Error: No such file or directory", 1, stream=2)
    assert nft.list_map("m") == {}
    assert program.calls[0].startswith("-j list map bridge nwfilter m ")


@pytest.mark.parametrize("answer", ["", "{", "[]", '{"other": []}', '{"nftables": 5}'])
def test_an_unreadable_answer(nft: Nft, program: Program, answer: str) -> None:
    """JSON that isn't nft's is an error of ours."""
    program.says(answer)
    with pytest.raises(NftError, match="unreadable answer"):
        nft.list_table("bridge")


def test_a_listing_that_fails(nft: Nft, program: Program) -> None:
    """A listing that fails for another reason than that there is nothing is an error."""
    program.says("Error: Operation not permitted", 1, stream=2)
    with pytest.raises(NftError, match="nft list table bridge nwfilter: Error: Operation not permitted"):
        nft.list_table("bridge")


LISTED = """table bridge nwfilter {
	chain from/vnet0 {
		ether saddr != 52:54:00:00:00:01 counter packets 5 bytes 300 drop comment "no-mac-spoofing:19"
		ether type arp jump from/vnet0/arp comment "a:1"
		ether type ip meta l4proto tcp counter packets 0 bytes 0 reject with icmp port-unreachable comment "b:2"
		iifname vmap @from-guest-l2
	}
}"""


PROGRAMS = """bridge nwfilter @learned/vnet0
	element 0100000a  : 0 [end]
bridge nwfilter from/vnet0 12
  [ payload load 6b @ link header + 6 => reg 1 ]
  [ cmp neq reg 1 0x00005452 0x00000100 ]
  [ counter pkts 5 bytes 300 ]
  [ immediate reg 0 drop ]
  userdata = { \\x00\\x13no-mac-spoofing:19\\x00 }
bridge nwfilter from/vnet0 13 12
  [ meta load iifname => reg 1 ]
  [ lookup reg 1 set from-guest-l2 dreg 0 0x0 ]

"""


def test_a_chain_in_the_kernel(nft: Nft, program: Program) -> None:
    """Rules are known by verdict and comment, and by what the kernel runs: nft spells conditions in its own way."""
    program.says(PROGRAMS + LISTED)
    listing = nft.list_chain("bridge", "from/vnet0")
    assert listing is not None
    assert listing.fingerprint == (
        "drop no-mac-spoofing:19",
        "from/vnet0/arp a:1",
        "reject b:2",
        "iifname vmap @from-guest-l2",
    )
    first = ("payload load 6b @ link header + 6 => reg 1", "cmp neq reg 1 0x00005452 0x00000100", "counter")
    second = ("meta load iifname => reg 1", "lookup reg 1 set from-guest-l2 dreg 0")
    programs = ((*first, "immediate reg 0 drop"), second)
    assert listing.programs == tuple("\n".join(f"[ {step} ]" for step in steps) for steps in programs)
    program.says("Error: No such file or directory", 1, stream=2)
    assert nft.list_chain("bridge", "from/vnet0") is None
    assert nft.programs_of("nonsense") is None


@pytest.mark.netns
def test_a_fingerprint_is_what_nft_lists(program: Program, nft: Nft) -> None:
    """What a chain must list after a script is what nft lists after it, for every kind of condition and verdict."""
    rules = [
        rule_xml("<ip srcipaddr='$IP'/>", action="return"),
        rule_xml("<arp match='no' gratuitous='1'/>"),
        rule_xml("<rarp opcode='3'/>", action="accept"),
        rule_xml("<stp age='1' age-hi='5'/>"),
        rule_xml("<vlan vlanid='5' encap-protocol='arp'/>", action="continue"),
        rule_xml("<ipv6 match='no' type='1' code='2'/>"),
        rule_xml("<mac srcmacaddr='52:54:0:0:0:0' srcmacmask='ff:ff:0:0:0:0'/>"),
        rule_xml("<tcp flags='SYN,ACK/SYN' dstportstart='1' dstportend='9'/>"),
    ]
    chain = filter_xml(rule_xml("<arp opcode='1'/>", action="return"), name="c", chain="arp")
    script = render_install([compiled(filter_xml(*rules, "<filterref filter='c'/>"), chain)])
    assert complaints(script.text) == []
    program.log.with_name("script").write_text(script.text)
    in_namespace = 'exec unshare --net sh -c \'nft -f "$0" && exec nft "$@"\''
    program.does(f'{in_namespace} "{program.log.with_name("script")}" "$@" <"{program.given}"')
    chains = sorted(name for _, name in script.statements)
    assert chains == ["from-l3/vnet0", "from/vnet0", "from/vnet0/arp", "to-l3/vnet0"]
    wanted = nft.programs_of(script.text) or {}
    for name in chains:
        listing = nft.list_chain("bridge", name)
        assert listing is not None
        assert listing.fingerprint == fingerprint_of(script.statements["bridge", name])
        assert listing.programs == wanted["bridge", name]
        assert len(listing.programs) == len(listing.fingerprint)
