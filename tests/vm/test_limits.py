"""
What counts connections, when it is full; with real sockets and a flood from more sources than a set counts.

Guest a is under filter, guest b floods.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from nwfilter_hook.cli.main import cli
from nwfilter_hook.nftables.sets import MAX_SOURCES
from nwfilter_hook.operations.show import format_state
from tests.vm.flows import Got, exchange, udp, udp_connected
from tests.vm.hooked import Hooked
from tests.vm.lan import Lan, Station, run
from tests.vm.packets import ETH_IPV6, ethernet, ipv4
from tests.vm.packets import udp as udp_packet
from tests.vm.test_stateful import SUFFIX, both_versions, drop_all, rule, unchecked

pytestmark = pytest.mark.stock_kernel

GONE_S = 10
"""A source leaves its set a second after its last connection has ended, on an idle machine."""


@contextmanager
def tracking_many(wire: Lan) -> Iterator[None]:
    """The VM is small, and so is its connection table."""
    before = run("sysctl", "-n", "net.netfilter.nf_conntrack_max").strip()
    run("sysctl", "-q", "-w", f"net.netfilter.nf_conntrack_max={4 * MAX_SOURCES}")
    try:
        yield
    finally:
        wire.reset()
        run("sysctl", "-q", "-w", f"net.netfilter.nf_conntrack_max={before}")


def flood(sender: Station, frame: bytes, offset: int, sources: int) -> None:
    """Send the frame from so many addresses; `offset`: where in the frame the address ends."""
    with sender.inside():
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    with wire:
        wire.bind(("eth0", 0))
        for number in range(sources):
            wire.send(frame[: offset - 3] + number.to_bytes(3, "big") + frame[offset:])


def test_a_full_connlimit_lets_no_further_source_in(wire: Lan, tmp_path: Path) -> None:
    """And `show` says which rule; who was counted before goes on, and once there is room others come in again."""
    hooked = Hooked(wire, tmp_path)
    hooked.define("mine", rule("drop", "in", "udp connlimit-above='2'"))
    hooked.start(wire.a, "mine")
    opening = ethernet(wire.b.mac, wire.a.mac, udp_packet("11.0.0.0", 7, wire.a.ip, 9))
    with tracking_many(wire), udp_connected(wire.b, wire.a) as (near, far):
        assert exchange(near, far) is Got.ANSWER
        assert udp(wire.host, wire.a) is Got.ANSWER
        with wire.host.inside():
            run("conntrack", "-D", "-s", str(wire.host.ip))
        flood(wire.b, opening, 30, MAX_SOURCES + 100)
        assert udp(wire.host, wire.a) is Got.NOTHING
        assert exchange(near, far) is Got.ANSWER
        view = hooked.shown()["a"]
        assert (view.full, format_state(view)) == (("mine:2",), "in force; full: mine:2")
        with wire.host.inside():
            run("conntrack", "-F")
        deadline = time.monotonic() + GONE_S
        while udp(wire.host, wire.a) is not Got.ANSWER:
            assert time.monotonic() < deadline
        assert hooked.shown()["a"].full == ()


OPEN_WITH_ROOM = (
    ("drop", "connlimit-above='9'"),
    ("drop", "match='no' connlimit-above='0'"),
    ("accept", "connlimit-above='0'"),
    ("accept", "match='no' connlimit-above='9'"),
)


@both_versions
@pytest.mark.parametrize(("action", "limit"), OPEN_WITH_ROOM, ids=[" ".join(each) for each in OPEN_WITH_ROOM])
def test_each_rule_that_counts_is_closed_when_it_is_full(
    wire: Lan, tmp_path: Path, version: int, action: str, limit: str
) -> None:
    """Whatever it does with what it has counted. Its set is made small here."""
    rules = [rule(action, "in", f"udp{SUFFIX[version]} {limit}", priority=400)]
    rules += [drop_all(version)] if action == "accept" else []
    (tmp_path / "under-test.xml").write_text(f"<filter name='under-test'>{''.join(rules)}</filter>")
    arguments = ["compile", "--filter", "under-test", "--filters", str(tmp_path)]
    done = CliRunner().invoke(cli, [*arguments, "--tap", wire.a.tap, "--mac", wire.a.mac])
    assert f"size {MAX_SOURCES};" in done.stdout
    wire.nft(script=done.stdout.replace(f"size {MAX_SOURCES};", "size 4;"))
    datagram = struct.pack("!HHHH", 7, 9, 12, 0) + b"data"
    if version == 4:
        opening, end = ethernet(wire.b.mac, wire.a.mac, ipv4("11.0.0.0", wire.a.ip, 17, datagram)), 30
    else:
        header = struct.pack("!IHBB", 6 << 28, len(datagram), 17, 64) + wire.b.ip6.packed + wire.a.ip6.packed
        opening, end = ethernet(wire.b.mac, wire.a.mac, header + datagram, ethertype=ETH_IPV6), 38
    assert udp(wire.b, wire.a, version=version) in (Got.THERE, Got.ANSWER)
    with unchecked(wire):
        flood(wire.b, opening, end, 16)
    assert udp(wire.host, wire.a, version=version) is Got.NOTHING
    assert udp(wire.b, wire.a, version=version) in (Got.THERE, Got.ANSWER)
