"""nwfilter-hook test: a file says what must pass a filter and what not; what holds, what doesn't, and what is none."""

from __future__ import annotations

import struct
import subprocess
import sys
import textwrap
from pathlib import Path
from xml.etree import ElementTree

import pytest

from nwfilter_hook.network.private import PrivateBridge
from nwfilter_hook.operations import cases
from nwfilter_hook.storage.captures import Capture
from tests.support.frames import GUEST, GUEST_IP, OTHER, OTHER_IP, incoming, tcp, udp
from tests.support.host import Ran, Sandbox
from tests.support.netns import REPOSITORY

TEST_ETH0 = (REPOSITORY / "tests/data/filters-2010/test-eth0.xml").read_text()
GOOD = """
parameters: {IP: 10.0.0.1}
cases:
  - name: the web server is reached
    to-guest: {tcp: true, dst: ":80"}
    expect: pass
    rule: test-eth0:18
  - {name: nothing else is, to-guest: {tcp: true, dst: ":443"}, expect: drop, rule: test-eth0}
  - {from-guest: {icmp: 8}, expect: pass}
  - {to-guest: {icmp: 0}, state: established, reply: true, expect: pass}
---
filter: [no-mac-spoofing, no-other-l2-traffic]
cases:
  - {from-guest: {arp: request, src-mac: 52:54:00:00:00:99}, expect: drop, rule: no-mac-spoofing}
  - {from-guest: {arp: request}, expect: drop, rule: no-other-l2-traffic}
"""
LEARNS = """
filter: clean-traffic
learned: 10.0.0.1
cases:
  - {from-guest: {udp: true, src: 10.0.0.1}, expect: pass, rule: clean-traffic}
  - {from-guest: {udp: true, src: 10.0.0.2}, expect: drop, rule: no-ip-spoofing}
"""
TO_THE_BRIDGE = "{ethertype: lldp, dst-mac: 01:80:c2:00:00:0e}"
CASE = "{from-guest: {icmp: 8}, expect: pass}"


@pytest.fixture
def eth0(library: Sandbox) -> Sandbox:
    """A host without a kernel, with the filter of 2010."""
    library.place("test-eth0", TEST_ETH0)
    return library


def tried(box: Sandbox, text: str, *options: str | Path) -> Ran:
    """The file, beside the filter."""
    path = box.filters / "test-eth0.yaml"
    path.write_text(text)
    return box.cli("test", *options, path)


def test_all_is_as_it_must_be(eth0: Sandbox) -> None:
    """Dots, and a line; the filter is the file's name, or what a document says."""
    ran = tried(eth0, GOOD).fine()
    assert ran.out.startswith("......\n6 passed in ")
    found = eth0.cli("test", eth0.filters, "--json").json
    assert [each["outcome"] for each in found] == ["passed"] * 6
    assert set(found[0]) == {
        *("name", "path", "line", "filters", "direction", "expected", "verdict", "rules", "outcome", "why"),
    }
    assert (found[0]["line"], found[0]["rules"]) == (4, ["test-eth0:18", "allow-incoming-ipv4:11"])


def test_what_fails_is_explained(eth0: Sandbox, tmp_path: Path) -> None:
    """What decided instead, and the path through the rules; for people, as JSON and as JUnit's XML."""
    wrong = GOOD.replace("expect: drop, rule: test-eth0}", "expect: pass}").replace("rule: test-eth0:18", "rule: none")
    ran = tried(eth0, wrong, "--junit", tmp_path / "junit.xml")
    assert ran.status == 1
    assert "FF....\n" in ran.out
    assert "test-eth0.yaml:8: nothing else is\n  must pass, but is dropped by test-eth0:28\n" in ran.out
    assert "dport 22: the frame has 443" in ran.out
    assert "  is decided by test-eth0:18, allow-incoming-ipv4:11, not by no rule\n" in ran.out
    assert "2 failed, 4 passed in " in ran.out
    suite = ElementTree.parse(tmp_path / "junit.xml").getroot()[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("6", "2", "0")
    assert [case.get("name") for case in suite if case.find("failure") is not None] == [
        "the web server is reached",
        "nothing else is",
    ]


def test_what_was_learned(eth0: Sandbox) -> None:
    """Cases don't teach each other; the file says what is known."""
    tried(eth0, LEARNS).fine()


def test_frames_of_a_capture(eth0: Sandbox) -> None:
    """By hex, or by its number in a capture beside the file; what is recorded holds."""
    frames = [incoming(tcp, dport=80), udp(), udp(), incoming(tcp, dport=443)]
    write_capture(eth0.filters / "web.pcap", frames)
    head = "parameters: {IP: 10.0.0.1}\ncases:\n"
    text = head + "  - {to-guest: {pcap: web.pcap, number: 4}, expect: drop}\n"
    text += f"  - {{to-guest: {{hex: {frames[0].hex()}}}, expect: pass}}\n"
    tried(eth0, text).fine()
    recorded = eth0.cli(
        *(
            "test",
            "--record",
            eth0.filters / "web.pcap",
            "--filter",
            "test-eth0",
            "--mac",
            GUEST,
            "-p",
            f"IP={GUEST_IP}",
        )
    ).fine()
    assert recorded.out.count("- name: 'frame ") == 3  # one came twice
    tried(eth0, recorded.out).fine()
    changed = recorded.out.replace("expect: drop", "expect: pass", 1)
    assert tried(eth0, changed).status == 1


def write_capture(path: Path, frames: list[bytes], *, link_type: int = 1, lacks: int = 0, held: int = 65535) -> None:
    """As tcpdump does: `held` octets of each frame, and the file without its last ones."""
    records = b"".join(struct.pack("<IIII", 0, 0, len(frame[:held]), len(frame)) + frame[:held] for frame in frames)
    whole = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, held, link_type) + records
    path.write_bytes(whole[: len(whole) - lacks])


def test_a_capture_is_read_once(eth0: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many cases are of it; those before the place where it is cut off are tried."""
    opened = []

    def read(path: str) -> Capture:
        opened.append(path)
        return Capture(path)

    monkeypatch.setattr(cases, "Capture", read)
    write_capture(eth0.filters / "cut.pcap", [incoming(tcp, dport=80), incoming(tcp, dport=443), udp()], lacks=1)
    text = "parameters: {IP: 10.0.0.1}\ncases:\n" + "".join(
        f"  - {{to-guest: {{pcap: cut.pcap, number: {number}}}, expect: {verdict}}}\n"
        for number, verdict in ((2, "drop"), (1, "pass"), (2, "drop"))
    )
    tried(eth0, text).fine()
    assert len(opened) == 1


def test_a_recorded_capture_that_lacks_something(eth0: Sandbox) -> None:
    """Said beside the cases that are made of the rest."""
    arguments = "--filter", "test-eth0", "--mac", GUEST, "-p", f"IP={GUEST_IP}"
    write_capture(eth0.filters / "cut.pcap", [udp(), udp()], lacks=1)
    ran = eth0.cli("test", "--record", eth0.filters / "cut.pcap", *arguments)
    assert ran.status == 0
    assert "cut off in frame 2, which is left out" in ran.err
    write_capture(eth0.filters / "held.pcap", [incoming(tcp, dport=80), udp()], held=42)
    ran = eth0.cli("test", "--record", eth0.filters / "held.pcap", *arguments)
    assert "note: 2 frames are cut off in the capture: what it lacks is taken for zeros" in ran.err
    tried(eth0, ran.out).fine()
    for name, message in (("cooked", "is of link type 113"), ("empty", "has no frame to make a case of")):
        write_capture(eth0.filters / "it.pcap", [udp()] if name == "cooked" else [], link_type=113)
        ran = eth0.cli("test", "--record", eth0.filters / "it.pcap", *arguments)
        assert (ran.status, ran.out) == (2, "")
        assert message in ran.err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ":1: there are no cases in it"),
        ("cases: 7", ":1: cases: is no list of cases"),
        ("cases: []", ":1: cases: is no list of cases"),
        ("- 1", ":1: a test file is a mapping"),
        ("a: [", ":1: no YAML: "),
        (f"cases: [{CASE}]\nfliter: x", ":2: 'fliter' is no key of a test file; did you mean 'filter'?"),
        (f"cases: [{CASE}]\ncases: [{CASE}]", ":2: 'cases' is given twice"),
        (f"cases: [{CASE}]\nfilter: ../x", "filter name '../x'"),
        (f"cases: [{CASE}]\nfilter: []", ":2: filter: is an empty list"),
        (f"cases: [{CASE}]\nmac: 7", ":2: mac: '7' is not a MAC"),
        (f"cases: [{CASE}]\nmac: [7]", ":2: mac: is no text"),
        (f"cases: [{CASE}]\nparameters: {{IP: []}}", ":2: IP: is an empty list"),
        (f"cases: [{CASE}]\nattachment: usb", ":2: attachment: 'usb' is not one of"),
        (f"cases: [{CASE}]\nparameters: [IP]", ":2: parameters: is no mapping"),
        (f"cases: [{CASE}]\nparameters: {{IP: {{a: b}}}}", ":2: IP: is neither a word nor a list of words"),
        (f"cases: [{CASE}]\nlearned: x", ":1: learned: 'x' is neither an IP address nor a MAC"),
        (f"cases: [{CASE}]\nsets: {{bad: 192.0.2.1}}", ":1: no rule looks in a set 'bad'"),
        ("cases:\n - 7", ":2: a case is a mapping"),
        ("cases:\n - {expect: pass}", ":2: a case has a packet, under from-guest or to-guest"),
        ("cases:\n - {from-guest: {icmp: 8}}", ":2: a case says what to expect: pass or drop"),
        ("cases:\n - {from-guest: {icmp: 8}, expect: accept}", ":2: expect: 'accept' is not one of pass, drop"),
        (
            "cases:\n - {from-guest: {icmp: 8}, expect: pass, sate: new}",
            "'sate' is no key of a case; did you mean 'state'?",
        ),
        ("cases:\n - {from-guest: {icmp: 8}, expect: pass, state: old}", ":2: state: 'old' is not one of new"),
        ("cases:\n - {from-guest: {icmp: 8}, expect: pass, reply: true}", ":2: reply needs state"),
        ("cases:\n - {from-guest: {icmp: 8}, expect: pass, from-host: true}", ":2: from-host goes with to-guest"),
        ("cases:\n - {from-guest: 8, expect: pass}", ":2: a packet is a mapping of words"),
        (
            "cases:\n - from-guest:\n     tpc: true\n   expect: pass",
            ":3: 'tpc' is no word of a packet; did you mean 'tcp'?",
        ),
        ("cases:\n - {from-guest: {tcp: true, dst: x}, expect: pass}", ":2: dst: 'x' is not an address"),
        ("cases:\n - {from-guest: {pcap: x, numbre: 1}, expect: pass}", "'numbre' is no key of a packet of a capture"),
        ("cases:\n - {from-guest: {pcap: x, number: 0}, expect: pass}", ":2: number: '0' is no number from 1"),
        ("cases:\n - {from-guest: {pcap: x, number: " + 5000 * "9" + "}, expect: pass}", "is no number from 1"),
        ('cases:\n - {from-guest: {pcap: "a\\0"}, expect: pass}', r":2: pcap: 'a\\x00' is no name of a file"),
        ("cases:\n - {from-guest: {pcap: [x]}, expect: pass}", ":2: pcap: is no text"),
        ("cases:\n - {from-guest: {hex: }, expect: pass}", ":2: hex: is no text"),
        ("cases:\n - {name: {a: b}, from-guest: {icmp: 8}, expect: pass}", ":2: name: is no text"),
        ("cases:\n - {rule: [a, b], from-guest: {icmp: 8}, expect: pass}", ":2: rule: is no text"),
        ("a: &a [x, x]\nb: &b [*a, *a]\n" + "c: [*b, *b]\ncases: 1", ":1: 'a' is no key of a test file"),
        ("&a [*a]", "more than a test file can hold"),
    ],
)
def test_a_file_that_is_none(eth0: Sandbox, text: str, message: str) -> None:
    """One line, with the place and what is known."""
    ran = tried(eth0, text)
    assert (ran.status, ran.err.count("\n")) == (2, 1), ran
    assert message in ran.err, ran


@pytest.mark.parametrize(
    ("packet", "message"),
    [
        ("{hex: 00}", "hex: 1 octets are no Ethernet frame"),
        ("{hex: zz}", "hex: 'z' is no hexadecimal digit"),
        ("{pcap: none.pcap}", "none.pcap: No such file or directory"),
        ("{pcap: test-eth0.yaml}", "is no capture"),
        ("{pcap: short.pcap, number: 2}", "short.pcap has no frame 2"),
        ("{pcap: cut.pcap, number: 2}", "no frame 2: HERE/cut.pcap is broken or cut off in frame 2"),
        ("{pcap: cooked.pcap}", "cooked.pcap: frame 1 is of link type 113, cooked (-i any)"),
    ],
)
def test_a_packet_that_is_none(eth0: Sandbox, packet: str, message: str) -> None:
    """The case fails, and the others are tried."""
    write_capture(eth0.filters / "short.pcap", [udp()])
    write_capture(eth0.filters / "cut.pcap", [udp(), udp()], lacks=9)
    write_capture(eth0.filters / "cooked.pcap", [udp()], link_type=113)
    text = f"parameters: {{IP: 10.0.0.1}}\ncases:\n  - {{from-guest: {packet}, expect: pass}}\n  - {CASE}\n"
    ran = tried(eth0, text)
    assert ran.status == 1
    assert ran.out.startswith("F.\n")
    assert message.replace("HERE", str(eth0.filters)) in ran.out


@pytest.mark.parametrize(
    ("filter_xml", "message"),
    [
        (None, "test-eth0.yaml:1: no filter 'web'"),
        (
            "<filter name='web'><rule action='acept' direction='in'/></filter>",
            "web.xml:1: action 'acept' is not one of",
        ),
        ("<filter name='web'><rule", "web.xml:1: not well-formed XML"),
    ],
)
def test_a_filter_that_is_none(eth0: Sandbox, tmp_path: Path, filter_xml: str | None, message: str) -> None:
    """Said with its place, counted, and an error for the CI system; the other documents are tried."""
    if filter_xml is not None:
        (eth0.filters / "web.xml").write_text(filter_xml)
    text = f"filter: web\ncases: [{CASE}]\n---\nfilter: no-mac-spoofing\ncases: [{CASE}]\n"
    ran = tried(eth0, text, "--junit", tmp_path / "junit.xml")
    assert ran.status == 2
    assert ran.out.startswith(".\n1 passed, 1 can't be tried in ")
    assert message in ran.err
    suite = ElementTree.parse(tmp_path / "junit.xml").getroot()[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("2", "0", "1")
    assert [message in str(each.get("message")) for each in suite.iter("error")] == [True]


def test_results_that_cannot_be_written(eth0: Sandbox) -> None:
    """They are printed all the same."""
    ran = tried(eth0, f"filter: no-mac-spoofing\ncases: [{CASE}]", "--junit", "/proc/none/junit.xml")
    assert (ran.status, ran.out[:10]) == (2, ".\n1 passed")
    assert "/proc/none/junit.xml: No such file or directory" in ran.err


def test_without_pyyaml(eth0: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what to install."""
    monkeypatch.setitem(sys.modules, "yaml", None)
    ran = tried(eth0, GOOD)
    assert (ran.status, ran.out) == (2, "")
    assert ran.err == "nwfilter-hook: tests for filters need PyYAML (Debian: python3-yaml), which isn't installed\n"


def test_the_manuals_example(eth0: Sandbox) -> None:
    """packaging/examples has what nwfilter-hook(8) shows, and it holds."""
    example = REPOSITORY / "packaging/examples/test-eth0.yaml"
    shown = textwrap.indent(example.read_text(), "    ")
    assert f"`test-eth0.yaml`::\n\n{shown}\n" in (REPOSITORY / "packaging/man/nwfilter-hook.8.rst").read_text()
    assert eth0.cli("test", example).fine().out.startswith("...\n3 passed in ")


def test_wrong_usage(eth0: Sandbox, tmp_path: Path) -> None:
    """What goes with --record, and what doesn't."""
    for arguments in (
        (),
        ("--mac", GUEST, "x"),
        ("--to-guest", "x"),
        ("--attachment", "bridge-port", "x"),
        ("--record", "x"),
        ("--record", "x", "y"),
        ("--record", "x", "--kernel"),
    ):
        ran = eth0.cli("test", *arguments)
        assert ran.status == 2
        assert "Error: " in ran.err  # of usage
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no test files there" in eth0.cli("test", empty).err
    (empty / "x.yaml").write_bytes(b"cases:\n\xff")
    assert "x.yaml:2: no UTF-8" in eth0.cli("test", empty).err


@pytest.mark.netns
def test_in_the_kernel(able: None, eth0: Sandbox) -> None:
    """The same cases, sent; what this kernel can't do is said; nothing is left, and the process is where it was."""
    home = Path("/proc/self/ns/net").readlink()
    second = GOOD.partition("---")[2] + "---" + LEARNS
    assert "4 passed" in tried(eth0, second, "--kernel").fine().out
    wrong = second.replace("expect: drop, rule: no-mac-spoofing", "expect: pass")
    ran = tried(eth0, wrong, "--kernel")
    assert (ran.status, ran.out[:5]) == (1, "F...\n")
    assert "must pass, but is dropped by no-mac-spoofing:" in ran.out
    packet = f"{{icmp: 8, src: {OTHER_IP}, src-mac: {OTHER}}}"
    text = f"filter: no-mac-spoofing\ncases:\n  - {{to-guest: {packet}, from-host: true, expect: pass}}\n"
    assert "1 not tried" in tried(eth0, text, "--kernel").fine().out
    text = f"filter: no-mac-spoofing\ncases:\n  - {{from-guest: {TO_THE_BRIDGE}, expect: pass}}\n"
    assert "not tried: 1, since the kernel keeps this packet" in tried(eth0, text, "--kernel").fine().out
    assert tried(eth0, text.replace("expect: pass", "expect: drop"), "--kernel").status == 1
    assert Path("/proc/self/ns/net").readlink() == home


@pytest.mark.netns
def test_what_the_rules_let_pass_arrives(able: None, eth0: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A packet that something behind the rules takes hasn't passed; nor is one dropped that arrives."""
    text = "filter: no-mac-spoofing\ncases:\n - {from-guest: {arp: request}, expect: pass}\n"
    tried(eth0, text, "--kernel").fine()
    monkeypatch.setattr(PrivateBridge, "received", lambda self, tap: [])
    assert "0 passed, 1 not tried" in tried(eth0, text, "--kernel").fine().out
    ran = tried(eth0, text.replace("expect: pass", "expect: drop"), "--kernel")
    assert (ran.status, "the kernel keeps this packet, though the rules" in ran.out) == (1, True)


def test_a_user_has_no_kernel(eth0: Sandbox) -> None:
    """Who may not make a network is told so."""
    code = "import os; from nwfilter_hook.network.private import *; os.setgid(65534); os.setuid(65534); PrivateBridge()"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert "no network of its own can be made: Operation not permitted; run this as root" in done.stderr
