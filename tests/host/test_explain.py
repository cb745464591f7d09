"""nwfilter-hook explain: a question, an answer; from a filter without root, from a tap as it is in the kernel."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from tests.support.frames import GUEST, GUEST_IP, OTHER_IP, dhcp_offer, tcp, udp
from tests.support.host import Sandbox
from tests.support.netns import REPOSITORY

TEST_ETH0 = (REPOSITORY / "tests/data/filters-2010/test-eth0.xml").read_text()
ETH0 = ("--filter", "test-eth0", "--mac", GUEST, "-p", f"IP={GUEST_IP}")
LOOKS_UP = "<filter name='f'><rule action='drop' direction='in'><udp ipset='bad' ipsetflags='src'/></rule></filter>"
UNBOUND = "<filter name='f'><rule action='drop' direction='in'><tcp dstportstart='$PORT'/></rule></filter>"
WEB = ("--to-guest", "--tcp", "--dst", ":443")


@pytest.fixture
def eth0(library: Sandbox) -> Sandbox:
    """A host without a kernel, with the filter of 2010."""
    library.place("test-eth0", TEST_ETH0)
    return library


def test_a_question_and_the_answer(eth0: Sandbox) -> None:
    """Each layer, each rule with what failed, who decided with its XML, and what the nearest other needs."""
    ran = eth0.cli("explain", *ETH0, *WEB)
    assert (ran.status, ran.err) == (1, "")
    assert "filter test-eth0: the guest gets TCP 198.51.100.9:40000 > 10.0.0.1:443 syn" in ran.out
    assert "state new (syn opens a connection)" in ran.out
    assert "layer 3, to the guest:\n" in ran.out
    assert "dport 22: the frame has 443" in ran.out
    assert (
        "dropped by test-eth0:28 (layer 3, to the guest)\n  <rule action='drop' direction='inout'> <all/> </rule>"
        in (ran.out)
    )
    assert "nearest rule that would have passed it: test-eth0:18 (accept); it needs\n  dport 80: the frame has 443" in (
        ran.out
    )


def test_what_passes(eth0: Sandbox) -> None:
    """Exit status 0."""
    ran = eth0.cli("explain", *ETH0, "--to-guest", "--tcp", "--dst", ":80").fine()
    assert "passes by test-eth0:18 (layer 3, to the guest)" in ran.out
    assert "passes by allow-incoming-ipv4:11 (layer 2, to the guest)" in ran.out


def test_json(eth0: Sandbox) -> None:
    """The keys are a contract."""
    found = eth0.cli("explain", *ETH0, *WEB, "--json").json
    assert set(found) == {
        *("subject", "direction", "packet", "hex", "state", "reply", "assumed", "notes"),
        *("verdict", "layers", "otherwise"),
    }
    assert (found["verdict"], found["state"], found["direction"]) == ("drop", "new", "to-guest")
    assert found["layers"][-1]["decided_by"]["rule"] == "test-eth0:28"
    assert bytes.fromhex(found["hex"])[:6] == bytes.fromhex(GUEST.replace(":", ""))


def test_state_and_reply(eth0: Sandbox) -> None:
    """A stateful rule's answers: the packet alone doesn't say whose connection it is."""
    answer = (*ETH0, "--from-guest", "--tcp", "--src", ":80", "--dst", ":40000", "--flags", "ack")
    assert eth0.cli("explain", *answer).status == 1
    eth0.cli("explain", *answer, "--reply").fine()
    eth0.cli("explain", *answer, "--state", "established", "--reply").fine()
    assert eth0.cli("explain", *answer, "--state", "invalid").status == 1


def test_hex_says_its_direction(eth0: Sandbox) -> None:
    """By its source; and from standard input, as tcpdump prints it."""
    frame = tcp(dport=443)
    found = eth0.cli("explain", *ETH0, "--hex", frame.hex(), "--json").json
    assert (found["direction"], found["hex"]) == ("from-guest", frame.hex())
    lines = [f"\t{at:#06x}:  {frame[at : at + 16].hex(' ', 2)}\n" for at in range(0, len(frame), 16)]
    again = eth0.cli("explain", *ETH0, "--hex", "-", "--json", stdin="12:00 IP x\n" + "".join(lines)).json
    assert again == found
    assert eth0.cli("explain", *ETH0, "--hex", frame.hex(), "--to-guest", "--json").json["direction"] == "to-guest"


def test_every_length_of_a_frame(eth0: Sandbox) -> None:
    """An answer or an error, always in lines that print."""
    frame = dhcp_offer()
    for length in [*range(60), *range(60, len(frame), 37)]:
        ran = eth0.cli("explain", *ETH0, "--to-guest", "--hex", frame[:length].hex())
        assert ran.status == 2 if length < 14 else ran.status in (0, 1)
        assert (ran.err == "") is (length >= 14)
        assert ran.out.replace("\n", "").isprintable()


def test_learned_stands_for_what_a_tap_has_learned(library: Sandbox) -> None:
    """Nothing passes before; then what has the address, nothing else."""
    learns = ("explain", "--filter", "clean-traffic", "--mac", GUEST, "--from-guest", "--tcp")
    assert library.cli(*learns, "--src", GUEST_IP, "-p", "CTRL_IP_LEARNING=dhcp").status == 1
    given = (*learns, "-p", "CTRL_IP_LEARNING=dhcp", "--learned", GUEST_IP)
    library.cli(*given).fine()
    ran = library.cli(*given, "--src", OTHER_IP)
    assert ran.status == 1
    assert f"in the learned addresses ({GUEST_IP}): the frame has {OTHER_IP}" in ran.out


def test_sets_stand_for_the_administrators(library: Sandbox) -> None:
    """--set; of a set that no rule looks in, an error with those that there are."""
    library.place("f", LOOKS_UP)
    question = ("explain", "--filter", "f", "--mac", GUEST, "--to-guest", "--udp", "--src", "192.0.2.9")
    library.cli(*question).fine()
    ran = library.cli(*question, "--set", "bad=192.0.2.0/24")
    assert ran.status == 1
    assert "there is bad" in library.cli(*question, "--set", "god=192.0.2.0/24").err
    assert library.cli(*question, "--set", "bad=nonsense").status == 2


def pcap(path: Path, frames: list[bytes]) -> Path:
    records = (struct.pack("=IIII", 1, 2, len(frame), len(frame)) + frame for frame in frames)
    path.write_bytes(struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1) + b"".join(records))
    return path


def test_a_capture(eth0: Sandbox, tmp_path: Path) -> None:
    """All frames as a table and as JSON; one by its number; which way by its source."""
    frames = [tcp(dport=443), udp(dport=53), udp(dport=53), b"short"]
    path = pcap(tmp_path / "c.pcap", frames)
    found = eth0.cli("explain", *ETH0, "--pcap", path, "--all", "--json")
    assert found.status == 1
    assert set(found.json) == {
        *("subject", "capture", "frames", "cut", "without_verdict", "verdicts", "decisions", "notes"),
    }
    assert found.json["frames"] == 4
    assert found.json["without_verdict"] == 1
    assert found.json["verdicts"]["from-guest"] == {"pass": 0, "drop": 3}
    assert [(each["rule"], each["frames"], each["first"]) for each in found.json["decisions"]] == [
        ("test-eth0:28", 3, 1)
    ]
    table = eth0.cli("explain", *ETH0, "--pcap", path, "--all")
    assert "from-guest  drop          3  test-eth0:28  layer 3, from the guest      1  TCP" in table.out
    one = eth0.cli("explain", *ETH0, "--pcap", path, "--number", "2", "--json").json
    assert one["hex"] == frames[1].hex()
    for words, said in (
        (("--number", "9"), "has no frame 9"),
        ((), "has several frames: say --number N or --all"),
        (("--number", "4"), "5 bytes are no Ethernet frame"),
    ):
        ran = eth0.cli("explain", *ETH0, "--pcap", path, *words)
        assert ran.status == 2
        assert said in ran.err


def test_a_capture_that_ends_within_a_frame(eth0: Sandbox, tmp_path: Path) -> None:
    """The table is of what there is, and stderr says so."""
    path = pcap(tmp_path / "c.pcap", [udp(), udp()])
    path.write_bytes(path.read_bytes()[:-7])
    ran = eth0.cli("explain", *ETH0, "--pcap", path, "--all")
    assert "1 frames of" in ran.out
    assert "is broken or cut off in frame 2" in ran.err


USAGE = {
    "neither tap nor filter": (WEB, "say a TAP or --filter NAME"),
    "both": (("vnet0", *ETH0, *WEB), "say a TAP or --filter NAME"),
    "no MAC": (("--filter", "test-eth0", *WEB), "--filter needs --mac"),
    "a filter's options with a tap": (("vnet0", "--learned", "10.0.0.1", *WEB), "--learned goes with --filter"),
    "no packet": (ETH0, "what packet?"),
    "two packets": ((*ETH0, *WEB, "--hex", "00"), "a packet by --hex or --tcp"),
    "two captures": ((*ETH0, "--pcap", "c", "--hex", "00"), "a packet by --hex or --pcap"),
    "number without capture": ((*ETH0, *WEB, "--number", "1"), "--number goes with --pcap"),
    "all without capture": ((*ETH0, *WEB, "--all"), "--all goes with --pcap"),
    "all and one": ((*ETH0, "--pcap", "c", "--all", "--number", "1"), "--number or --all"),
    "a state for all": ((*ETH0, "--pcap", "c", "--all", "--state", "new"), "--state and --reply are for one packet"),
    "no direction": ((*ETH0, "--tcp"), "say --from-guest or --to-guest"),
    "from the host to the host": ((*ETH0, "--tcp", "--from-guest", "--from-host"), "the host sends to the guest"),
    "number 0": ((*ETH0, "--pcap", "c", "--number", "0"), "0 is not in the range"),
    "two kinds": ((*ETH0, "--from-guest", "--tcp", "--udp"), "a packet is one of tcp, udp"),
    "a word of another kind": ((*ETH0, "--from-guest", "--udp", "--flags", "syn"), "flags can't be said of udp"),
    "a wrong word": ((*ETH0, "--from-guest", "--arp", "prob"), "did you mean 'probe'?"),
    "families mixed": ((*ETH0, "--from-guest", "--tcp", "--src", "10.0.0.1", "--dst", "2001:db8::1"), "IPv6"),
    "a port beyond": ((*ETH0, "--from-guest", "--tcp", "--dst", ":65536"), "65535"),
    "no filter of that name": (("--filter", "nobody", "--mac", GUEST, *WEB), "nobody"),
    "an unbound variable": (("--filter", "f", "--mac", GUEST, *WEB), "$PORT"),
    "a capture that isn't there": ((*ETH0, "--pcap", "nowhere", "--all"), "nowhere: No such file"),
    "no learned address": ((*ETH0, *WEB, "--learned", "ten"), "neither an IP address nor a MAC"),
    "no tap": (("vnet9", *WEB), "nothing is installed for a tap 'vnet9'"),
    "a tap's name that prints badly": (("a\x1b[31m", *WEB), r"a\\x1b[31m"),
}


@pytest.mark.parametrize("what", USAGE)
def test_wrong_usage(eth0: Sandbox, what: str) -> None:
    """Exit status 2, nothing on stdout, what is wrong on stderr."""
    arguments, words = USAGE[what]
    eth0.place("f", UNBOUND)
    ran = eth0.cli("explain", *arguments)
    assert (ran.status, ran.out) == (2, "")
    assert words in ran.err
    assert ran.err.replace("\n", "").isprintable()


# --- a tap ------------------------------------------------------------------------------------------------------------


@pytest.mark.netns
def test_a_tap(site: Sandbox) -> None:
    """Its record's filter and parameters; learned addresses as the kernel has them, before and after."""
    site.start("web", "vnet0", "clean-traffic", [("CTRL_IP_LEARNING", "dhcp")], mac=GUEST)
    assert site.wire
    question = ("explain", "vnet0", "--from-guest", "--udp", "--src", GUEST_IP)
    frame = udp(src_ip=GUEST_IP)
    assert site.cli(*question).status == 1
    assert not site.wire.passes(frame)
    site.cli("learn", "vnet0", GUEST_IP).fine()
    ran = site.cli(*question).fine()
    assert "tap vnet0 of guest web: the guest sends UDP" in ran.out
    assert site.wire.passes(frame)
    assert f"the frame has {OTHER_IP}" in site.cli("explain", "vnet0", "--from-guest", "--udp", "--src", OTHER_IP).out


@pytest.mark.netns
def test_a_taps_address_sets(site: Sandbox) -> None:
    """What is in them in the kernel counts."""
    site.place("f", LOOKS_UP)
    site.start("web", "vnet0", "f", [], mac=GUEST)
    question = ("explain", "vnet0", "--to-guest", "--udp", "--src", "192.0.2.9")
    site.cli(*question).fine()
    site.cli("set", "add", "bad", "192.0.2.0/28").fine()
    ran = site.cli(*question)
    assert ran.status == 1
    assert "dropped by f:1" in ran.out


@pytest.mark.netns
def test_filters_on_disk_that_arent_in_force(site: Sandbox) -> None:
    """It is said."""
    filter_of = "<filter name='f'><rule action='{}' direction='in'><ip/></rule></filter>"
    site.place("f", filter_of.format("accept"))
    site.start("web", "vnet0", "f", [], mac=GUEST)
    assert site.cli("explain", "vnet0", "--to-guest", "--udp").fine().err == ""
    site.place("f", filter_of.format("drop"))
    assert "not what is in force (nwfilter-hook reload)" in site.cli("explain", "vnet0", "--to-guest", "--udp").err
    assert json.loads(site.cli("explain", "vnet0", "--to-guest", "--udp", "--json").out)["notes"]
