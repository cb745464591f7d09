"""The doctor on Debian's kernel: what a kernel in a namespace can't have wrong, or this one always has."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest

from nwfilter_hook import hook
from nwfilter_hook.config import read_config
from nwfilter_hook.doctor.examine import examine
from nwfilter_hook.doctor.findings import Finding, Level
from nwfilter_hook.doctor.patient import Patient
from nwfilter_hook.host import open_host
from tests.support.domains import domain, interface
from tests.support.netns import Wire

pytestmark = pytest.mark.stock_kernel

MODPROBE = Path("/proc/sys/kernel/modprobe")
TIMEX_OCTETS, MODES, STATUS = 208, 0, 40  # adjtimex(2)
SETS_STATUS_AND_ERROR, UNSYNCHRONISED = 0x14, 0x40


class Host:
    """
    A host with the real nft and the guest "db" on vnet0, whose rules look at connections. Emulated, a process takes
    seconds to begin; so hook and doctor run in this one.
    """

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.filters = wire.directory / "filters"
        self.filters.mkdir()
        wire.configure(filter_dirs=[self.filters])
        self.write_filter("web", "accept")
        xml = domain("db", [interface("vnet0", "web")])
        with self._inside():
            assert hook.run("db", "start", xml.encode()) == 0

    @contextmanager
    def _inside(self) -> Iterator[None]:
        with self.wire.inside(), mock.patch.dict(os.environ, self.wire.hook_environment()):
            yield

    def write_filter(self, name: str, action: str) -> None:
        """One rule of layer 3."""
        rule = f"<rule action='{action}' direction='in'><tcp dstportstart='80'/></rule>"
        (self.filters / f"{name}.xml").write_text(f"<filter name='{name}'>{rule}</filter>")

    def findings(self, *checks: str, defined: str = "") -> list[Finding]:
        """
        What these checks find.

        Args:
            defined: the filter of a guest "shop" that libvirt would start.
        """
        with self._inside():
            patient = Patient(open_host(read_config(), lambda _: None, readonly=True), "", [])
            guests = [("shop", "shop.xml", domain("shop", [interface(None, defined)]).encode())] if defined else []
            with mock.patch("nwfilter_hook.doctor.patient.guests_in", return_value=guests):
                return examine(patient, checks)

    def finds(self, check: str, level: Level, words: str, *, defined: str = "") -> Finding:
        """One finding of the check, and no other, has these words."""
        (found,) = self.findings(check, defined=defined)
        assert (found.check, found.level) == (check, level), found
        assert words in found.finding, found
        return found


@pytest.fixture
def host() -> Iterator[Host]:
    """One for each test."""
    with Wire(("vnet0",)) as wire:
        yield Host(wire)


def test_what_the_kernel_has(host: Host) -> None:
    """Debian's has all of it, so nothing is said; a module that can't be loaded is named, and what needs it."""
    assert host.findings("kernel-features", "nft-program", "back-end", "bypasses", "notrack") == []
    subprocess.run(["modprobe", "-r", "nft_reject_bridge"], check=True)
    before = MODPROBE.read_text()
    MODPROBE.write_text("/bin/false\n")
    try:
        host.finds("kernel-features", Level.HINT, "action='reject': it lacks CONFIG_NFT_BRIDGE_REJECT")
        host.write_filter("polite", "reject")
        found = host.finds("kernel-features", Level.WRONG, "CONFIG_NFT_BRIDGE_REJECT", defined="polite")
        assert (found.command, "shop can't be started" in found.why) == ("modprobe nft_reject_bridge", True)
        assert host.findings("next-start", defined="polite") == []
    finally:
        MODPROBE.write_text(before)
    assert host.findings("kernel-features") == []


@pytest.mark.parametrize("tool", ["nft", "iptables-legacy"])
def test_packets_that_are_not_tracked(host: Host, tool: str) -> None:
    """By a table of nftables, or by iptables' older tables; the tap that needs it is named."""
    if tool == "nft":
        host.wire.apply(
            "table bridge raw { chain in { type filter hook prerouting priority -250; udp dport 53 notrack; }; }"
        )
    else:
        host.wire.run(*["iptables-legacy", "-t", "raw", "-A", "PREROUTING", "-j", "CT", "--notrack"])
    found = host.finds("notrack", Level.HINT, "exempts packets from tracking")
    assert found.why.endswith(": vnet0")


def test_a_flowtable_with_a_bridge(host: Host) -> None:
    """Connections that it has taken over come to guests without a state: each tap of the bridge is named."""
    host.wire.apply("table inet f { flowtable ft { hook ingress priority 0; devices = { br0 }; }; }")
    found = host.finds("bypasses", Level.WRONG, "db: vnet0: flowtable inet f ft carries br0")
    assert found.command == "nft delete flowtable inet f ft"


def test_libvirts_rules_by_the_older_ebtables(host: Host) -> None:
    """They aren't in nftables."""
    host.wire.run(*["ebtables-legacy", "-t", "nat", "-N", "libvirt-I-vnet00"])
    assert host.findings("libvirt-rules") == []
    host.wire.run(*["ebtables-legacy", "-t", "nat", "-N", "libvirt-I-vnet0"])
    host.finds("libvirt-rules", Level.WRONG, "vnet0: rules of libvirt's own driver are in force beside")


def test_a_clock_that_nobody_keeps(host: Host) -> None:
    """As the kernel knows it."""
    for status, expected in ((UNSYNCHRONISED, ["nothing keeps the clock right"]), (0, [])):
        set_clock_status(status)
        assert [each.finding for each in host.findings("clock")] == expected


def set_clock_status(status: int) -> None:
    """As a daemon does that keeps the clock."""
    timex = ctypes.create_string_buffer(TIMEX_OCTETS)
    ctypes.c_uint.from_buffer(timex, MODES).value = SETS_STATUS_AND_ERROR
    ctypes.c_int.from_buffer(timex, STATUS).value = status
    assert ctypes.CDLL(None).adjtimex(timex) >= 0


def test_a_table_of_connections_that_is_full(host: Host) -> None:
    """The kernel's own figures: its bound is lowered to what it holds."""
    assert host.findings("conntrack-table") == []
    host.wire.apply("table ip t { chain c { type filter hook output priority 0; ct state new accept; }; }")
    with host.wire.inside(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for port in range(9, 17):
            sender.sendto(b"", ("127.0.0.1", port))
    most = Path("/proc/sys/net/netfilter/nf_conntrack_max")
    before = most.read_text()
    most.write_text("8\n")
    try:
        host.finds("conntrack-table", Level.WRONG, "the kernel tracks 8 connections and has room for 8")
    finally:
        most.write_text(before)
