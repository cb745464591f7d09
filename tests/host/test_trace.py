"""nwfilter-hook trace: frames of a tap as the kernel judges them, and nothing left of it, however it ends."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nwfilter_hook.storage.captures import Capture
from tests.support.domains import device, domain
from tests.support.frames import (
    GUEST,
    GUEST_IP,
    OTHER,
    OTHER_IP,
    arp,
    dhcp_discover,
    dhcp_offer,
    icmp,
    incoming,
    neighbour_solicitation,
    ping6,
    stp_bpdu,
    tcp,
    udp,
    vlan,
)
from tests.support.host import HOOK, OWN_SYSFS, Sandbox, drop_udp, filter_xml
from tests.support.netns import REPOSITORY, command_line

pytestmark = pytest.mark.netns

SLOW_S = 20.0
"""Longer than anything here takes."""


def _as_from_a_terminal() -> None:
    """What runs in the background may ignore these, and so would what it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


class Running:
    """A trace that runs, as a process."""

    def __init__(self, site: Sandbox, *arguments: str, out: int = subprocess.PIPE) -> None:
        with site.inside():
            self.process = subprocess.Popen(
                [*command_line(REPOSITORY), "trace", *arguments],
                stdout=out,
                stderr=subprocess.PIPE,
                env=site.environment(),
                text=True,
                preexec_fn=_as_from_a_terminal,
            )
        assert self.process.stderr
        self.note = self.process.stderr.readline()
        """What it says as soon as it sees every frame."""

    def lines(self, count: int) -> list[str]:
        """So many, as they come."""
        assert self.process.stdout
        return [self.process.stdout.readline().rstrip("\n") for _ in range(count)]

    def json(self, count: int) -> list[dict[str, Any]]:
        """So many, of a trace with --json."""
        return [json.loads(line) for line in self.lines(count)]

    def finish(self, number: int = signal.SIGINT) -> tuple[int, str, str]:
        """End it; status, and what it had to say yet."""
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=SLOW_S)
        return self.process.returncode, out or "", err


@contextlib.contextmanager
def tracing(site: Sandbox, *arguments: str, **options: Any) -> Iterator[Running]:
    """A trace, which ends with the block."""
    running = Running(site, *arguments, **options)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.communicate(timeout=SLOW_S)


def send(site: Sandbox, *frames: bytes, tap: str = "vnet0") -> None:
    for frame in frames:
        site.wire.guests[tap].send(frame)


def tables(site: Sandbox) -> list[str]:
    return [line for line in site.nft("list", "tables").splitlines() if "trace" in line]


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + SLOW_S
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def web(site: Sandbox) -> Sandbox:
    """A guest with an address, on vnet0."""
    site.start("web", "vnet0", "clean-traffic", [("IP", GUEST_IP)], mac=GUEST)
    return site


# --- what it shows ----------------------------------------------------------------------------------------------------


def test_frames_and_the_rules_that_decide(web: Sandbox) -> None:
    """Both ways, as they come; the table of its own is there meanwhile, and not afterwards."""
    with tracing(web, "vnet0") as running:
        assert running.note == (
            "nwfilter-hook: tracing vnet0 of guest web: 100 frames a second each way at most (--rate); Ctrl-C ends\n"
        )
        assert len(tables(web)) == 2
        send(web, udp(), udp(src_ip=OTHER_IP))
        send(web, incoming(tcp), tap="vnet1")
        found = [line.split(maxsplit=4)[1:] for line in running.lines(3)]
        assert [each[:3] for each in found] == [
            ["from-guest", "pass", "clean-traffic:22"],
            ["from-guest", "drop", "no-ip-spoofing:25"],
            ["to-guest", "pass", "allow-incoming-ipv4:11"],
        ]
        assert found[1][3] == f"UDP {OTHER_IP}:40000 > {OTHER_IP}:9 (layer 2, from the guest)"
        assert running.finish() == (0, "", "nwfilter-hook: 3 frames shown, 1 dropped\n")
    assert tables(web) == []


def test_json(web: Sandbox) -> None:
    """A line for each frame; its keys are a contract. The frame is whole."""
    frame = udp(src_ip=OTHER_IP, payload=bytes(range(256)) * 3)
    with tracing(web, "vnet0", "--json") as running:
        send(web, frame)
        (found,) = running.json(1)
    assert set(found) == {
        *("time", "direction", "verdict", "rule", "layer", "layers", "ended", "packet", "hex", "whole"),
    }
    assert (found["verdict"], found["rule"], found["layer"]) == ("drop", "no-ip-spoofing:25", "layer 2, from the guest")
    assert [set(layer) for layer in found["layers"]] == [{"layer", "verdict", "rule"}] * 2
    assert (found["hex"], found["whole"], found["ended"]) == (frame.hex(), True, True)
    assert abs(found["time"] - time.time()) < 60


def test_it_narrows_down(web: Sandbox) -> None:
    """By direction, verdict and words; the others are as if they weren't there."""
    frames = [udp(dport=53), tcp(dport=443), tcp(dport=80), arp(), vlan(tcp(dport=443)), udp(src_ip=OTHER_IP)]
    frames += (
        arp(sender_ip=GUEST_IP, target_ip=GUEST_IP),
        dhcp_discover(),
        ping6(),
        neighbour_solicitation(),
        stp_bpdu(),
    )
    for words, shown in (
        (("--tcp", "--dst", ":443"), 2),
        (("--tcp", "--dst", ":443", "--vlan", "7"), 1),
        (("--arp", "request"), 2),
        (("--arp", "gratuitous"), 1),
        (("--dhcp", "discover"), 1),
        (("--dhcp", "request"), 0),
        (("--icmpv6", "135"), 1),
        (("--protocol", "icmpv6"), 2),
        (("--stp",), 1),
        (("--udp", "--drops", "--src", OTHER_IP), 1),
        (("--from-guest", "--udp", "--src", GUEST_IP), 1),
        (("--to-guest",), 0),
    ):
        with tracing(web, "vnet0", "--json", *words) as running:
            send(web, *frames)
            found = running.json(shown)
            status, out, err = running.finish()
        assert (status, out) == (0, ""), words
        assert f" {shown} frame" in err, words
        assert all(each["direction"] == "from-guest" for each in found)


def test_it_ends_by_itself(web: Sandbox) -> None:
    """After so many frames, or seconds."""
    with tracing(web, "vnet0", "--count", "2") as running:
        send(web, udp(), udp(), udp())
        out, err = running.process.communicate(timeout=SLOW_S)
    assert (running.process.returncode, len(out.splitlines())) == (0, 2)
    assert "2 frames shown" in err
    ran = web.cli("trace", "vnet0", "--seconds", "0.1")
    assert (ran.status, ran.out) == (0, "")
    assert "0 frames shown, 0 dropped" in ran.err


def test_the_rate_is_bounded_and_said(web: Sandbox) -> None:
    """What is above it isn't traced, but counted."""
    with tracing(web, "vnet0", "--rate", "5", "--json") as running:
        assert " 5 frames a second" in running.note
        send(web, *[udp(dport=port) for port in range(1, 61)])
        running.json(5)
        _, out, err = running.finish()
    shown = 5 + len(out.splitlines())
    assert shown < 30
    assert f"{60 - shown} more were not traced: more than 5 a second (--rate), or lost" in err


def test_a_capture_is_written(web: Sandbox, tmp_path: Path) -> None:
    """Whole frames; `explain` reads them."""
    frames = [udp(payload=b"x" * 900), udp(src_ip=OTHER_IP), vlan(tcp())]
    path = tmp_path / "t.pcap"
    with tracing(web, "vnet0", "--write", str(path)) as running:
        send(web, *frames)
        running.lines(3)
        running.finish()
    assert [each.data for each in Capture(str(path))] == frames
    found = web.cli("explain", "vnet0", "--pcap", path, "--all", "--json").json
    assert found["verdicts"]["from-guest"] == {"pass": 1, "drop": 2}


def test_it_follows_changes_of_the_filter(web: Sandbox) -> None:
    """A rule that is new while it runs is named like any other."""
    web.place("own", filter_xml("own", drop_udp(7)))
    web.start("db", "vnet1", "own", [], mac=OTHER)
    with tracing(web, "vnet1", "--json", "--from-guest") as running:
        send(web, udp(dport=7), tap="vnet1")
        assert [each["rule"] for each in running.json(1)] == ["own:2"]
        web.define(filter_xml("own", drop_udp(5), drop_udp(6), drop_udp(7))).fine()
        send(web, udp(dport=7), tap="vnet1")
        (found,) = running.json(1)
        # define writes filters in its own form
        assert found["rule"] in web.rules()
        assert found["rule"] != "own:2"


def test_layer_3_and_another_tables_drop(site: Sandbox) -> None:
    """Each layer that a frame meets is told; so is what isn't ours and drops it in between."""
    rule = "<rule action='{}' direction='out' statematch='false'><udp dstportstart='{}'/></rule>"
    site.place("own", filter_xml("own", rule.format("accept", 7), drop_udp(9), rule.format("drop", 8)))
    site.start("web", "vnet0", "own", [], mac=GUEST)
    site.nft_script(
        "table bridge firewall {\n chain c { type filter hook prerouting priority -200;\n udp dport 66 drop\n }\n}\n"
    )
    with tracing(site, "vnet0", "--json") as running:
        send(site, *[udp(dport=port) for port in (7, 8, 9, 66, 77)])
        found = running.json(5)
    assert [[(layer["layer"], layer["verdict"], layer["rule"]) for layer in each["layers"][1:]] for each in found] == [
        [("layer 2, from the guest", "accept", ""), ("layer 3, from the guest", "accept", "own:2")],
        [("layer 2, from the guest", "accept", ""), ("layer 3, from the guest", "drop", "own:4")],
        [("layer 2, from the guest", "drop", "own:3")],
        [("layer 2, from the guest", "accept", ""), ("table bridge firewall, chain c", "drop", "")],
        [("layer 2, from the guest", "accept", ""), ("layer 3, from the guest", "accept", "")],
    ]


def test_what_the_kernel_doesnt_tell(web: Sandbox) -> None:
    """A packet that ends within an extension header: the trace is silent about it, and it is shown nevertheless."""
    whole = ping6()
    frame = whole[:18] + struct.pack("!HB", 13, 0) + whole[21:54] + b"nwfilter-hook"
    with tracing(web, "vnet0", "--json", "--from-guest") as running:
        send(web, frame, udp())
        found = running.json(2)
    assert [each["verdict"] for each in found] == ["pass", "unknown"]
    assert (found[1]["hex"], found[1]["rule"], found[1]["ended"]) == (frame.hex(), "", False)


@pytest.mark.parametrize("kind", ["macvtap", "routed"])
def test_taps_in_no_bridge(site: Sandbox, kind: str) -> None:
    """A macvtap's ingress and egress, a routed tap's."""
    site.place("own", filter_xml("own", drop_udp(7), drop_udp(9, "in")))
    tap = "macvtap0" if kind == "macvtap" else "tap9"
    if kind == "macvtap":
        site.wire.plug_macvtap(tap, GUEST, "lower0")
        guest = device("direct", tap, "own", source="<source dev='lower0' mode='bridge'/>")
    else:
        site.wire.plug(tap, bridge=None)
        guest = device("ethernet", tap, "own", source="")
    site.hook("web", "start", domain("web", [guest]), command=(*OWN_SYSFS, HOOK)).fine()
    with tracing(site, tap, "--json") as running:
        send(site, udp(dport=7), udp(dport=8), tap=tap)
        found = running.json(2)
        if kind == "macvtap":
            send(site, incoming(udp, dport=9), incoming(udp, dport=8), tap="lower0")
            found += running.json(2)
    assert [(each["direction"], each["verdict"], each["rule"]) for each in found] == [
        ("from-guest", "drop", "own:2"),
        ("from-guest", "pass", found[1]["rule"]),
        *((("to-guest", "drop", "own:3"), ("to-guest", "pass", "")) if kind == "macvtap" else ()),
    ]
    assert [bytes.fromhex(each["hex"]) for each in found[:2]] == [udp(dport=7), udp(dport=8)]


# --- what it doesn't do -----------------------------------------------------------------------------------------------


FRAMES = (
    *(udp(), udp(src_ip=OTHER_IP), tcp(), icmp(), arp(), arp(sender_ip=OTHER_IP), vlan(udp()), ping6()),
    *(dhcp_offer(), neighbour_solicitation()),
)


def test_no_verdict_is_another(web: Sandbox) -> None:
    """What arrives, both ways, is the same before, meanwhile, above the rate, and afterwards."""

    def arrived() -> list[object]:
        wire = web.wire
        return [(wire.arrivals(frame, "vnet0"), wire.arrivals(frame, "vnet1")) for frame in FRAMES]

    before = arrived()
    with tracing(web, "vnet0", "--rate", "10"):
        assert [arrived() for _ in range(4)] == [before] * 4
    assert arrived() == before
    assert len({str(each) for each in before}) > 1


def test_nobody_takes_its_table_for_a_foreign_one(web: Sandbox) -> None:
    """Neither doctor nor verify has anything to say; the service hears of nothing that touches our rules."""
    with web.inside():
        monitor = web.host().backend.monitor()
    before = web.cli("doctor", "foreign-tables", "bypasses", "--json").json
    with tracing(web, "vnet0"):
        web.cli("verify").fine()
        assert web.cli("doctor", "foreign-tables", "bypasses", "--json").json == before
    wait_until(lambda: tables(web) == [])
    commits = monitor.read()
    monitor.close()
    assert commits
    assert not [each for each in commits if each.touches]


def test_two_at_a_time(web: Sandbox) -> None:
    """Each with a table of its own; both see the frame."""
    with tracing(web, "vnet0", "--json") as one, tracing(web, "vnet0", "--json") as other:
        assert len(tables(web)) == 4
        send(web, udp())
        assert [each["rule"] for each in (*one.json(1), *other.json(1))] == ["clean-traffic:22"] * 2


# --- its end ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_nothing_is_left(web: Sandbox, number: int) -> None:
    """However it is ended, while frames come: no table, no nft."""
    with tracing(web, "vnet0") as running:
        children = Path(f"/proc/{running.process.pid}/task/{running.process.pid}/children").read_text().split()
        send(web, *[udp()] * 20)
        status, _, _ = running.finish(number)
        assert status == (0 if number != signal.SIGKILL else -number)
    wait_until(lambda: tables(web) == [])
    wait_until(lambda: not any(_lives(child) for child in children))
    assert children


def _lives(pid: str) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def test_a_reader_that_is_gone(web: Sandbox) -> None:
    """It ends at once, though no frame comes; a reader that reads nothing holds it up, and it can be ended then."""
    reading, writing = os.pipe()
    with tracing(web, "vnet0", out=writing) as running:
        os.close(writing)
        os.close(reading)
        assert running.process.wait(timeout=SLOW_S) == 1
    wait_until(lambda: tables(web) == [])
    reading, writing = os.pipe()
    with tracing(web, "vnet0", "--json", "--rate", "10000", out=writing) as running:
        os.close(writing)
        send(web, *[udp(payload=bytes(1000))] * 200)
        time.sleep(0.3)
        running.finish(signal.SIGTERM)
    os.close(reading)
    wait_until(lambda: tables(web) == [])


def test_a_tap_that_goes(web: Sandbox) -> None:
    """It is said, and an error; another device of that name isn't taken for it."""
    with tracing(web, "vnet0") as running:
        web.wire.unplug("vnet0")
        web.wire.plug("vnet0")
        assert running.process.stderr
        err = running.process.stderr.read()
        assert running.process.wait(timeout=SLOW_S) == 1
    assert err.endswith("nwfilter-hook: vnet0 is gone\n")
    wait_until(lambda: tables(web) == [])


BAD = {
    "no such tap": (("vnet7",), 1, "nothing is installed for a tap 'vnet7'"),
    "a name that prints badly": (("a\x1b[31m",), 1, r"a\\x1b[31m"),
    "no frames": (("vnet0", "--count", "0"), 2, "0 is not in the range"),
    "no time": (("vnet0", "--seconds", "0"), 2, "not in the range"),
    "no rate": (("vnet0", "--rate", "0"), 2, "1<=x<=10000"),
    "too high a rate": (("vnet0", "--rate", "10001"), 2, "1<=x<=10000"),
    "no tap": ((), 2, "Missing argument 'TAP'"),
    "two kinds": (("vnet0", "--tcp", "--udp"), 1, "a packet is one of tcp, udp"),
    "no kind": (("vnet0", "--dst", ":443"), 1, "what packet?"),
    "families mixed": (("vnet0", "--icmp", "8", "--src", "2001:db8::1"), 1, "icmp is of IPv4"),
    "what can't be asked for": (("vnet0", "--udp", "--payload", "00"), 1, "payload can't be asked for"),
    "a provider's tag": (
        ("vnet0", "--udp", "--vlan", "5", "--vlan-type", "802.1ad"),
        1,
        "say --ethertype 0x88a8",
    ),
    "nowhere to write": (("vnet0", "--write", "/nowhere/x"), 1, "/nowhere/x: No such file"),
}


def test_bad_input(web: Sandbox) -> None:
    """An error in lines that print, and no trace."""
    for what, (arguments, status, words) in BAD.items():
        ran = web.cli("trace", *arguments)
        assert (ran.status, ran.out) == (status, ""), what
        assert words in ran.err, what
        assert ran.err.replace("\n", "").isprintable(), what
    assert tables(web) == []


def test_a_tap_without_a_filter_in_a_strict_guard(web: Sandbox) -> None:
    """A tap that is known for the guard's sake alone has nothing to trace; a device that is gone neither."""
    web.wire.unplug("vnet0")
    ran = web.cli("trace", "vnet0", "--seconds", "1")
    assert (ran.status, ran.out) == (1, "")
    assert "there is no device vnet0" in ran.err
