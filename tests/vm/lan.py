"""
A small LAN of network namespaces, with real sockets on it.

    guest "a" --veth-- vnet0 \\
                              br0 in namespace "switch" (the host), which has an address on br0 too
    guest "b" --veth-- vnet1 /

The veth end in "switch" plays the tap: what a guest's socket sends leaves through its veth as through QEMU's tap.
Neighbours are permanent, so that no flow depends on ARP or neighbour discovery passing a filter. The bridge forgets
every address at once (ageing 0) and floods, so verdicts don't depend on what it learned.

Sockets belong to the namespace they were made in: a test opens them in any guest and then just uses them.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, repr=False)
class Station:
    """
    One end of the LAN.

    Attributes:
        namespace: its name for `ip netns`.
        tap: its port on the bridge; for the host the bridge itself.
    """

    namespace: str
    tap: str
    mac: str
    ip: IPv4Address
    ip6: IPv6Address

    def __repr__(self) -> str:
        return self.namespace.rpartition("-")[2]

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Sockets opened and processes started in this block are in the station's namespace."""
        with Path("/proc/thread-self/ns/net").open() as before, Path("/run/netns", self.namespace).open() as there:
            _setns(there.fileno())
            try:
                yield
            finally:
                _setns(before.fileno())


def _setns(fd: int) -> None:
    if _libc.setns(fd, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def run(*command: str, text: str | None = None) -> str:
    """Run `command` with `text` on its stdin and return its stdout; raise with its stderr if it fails."""
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}\n{text or ''}")
    return done.stdout


@dataclass(frozen=True)
class Lan:
    """Guests a and b and the host, all on br0."""

    a: Station
    b: Station
    host: Station
    _pid: int = field(default_factory=os.getpid)

    @property
    def stations(self) -> tuple[Station, ...]:
        """All that has an address."""
        return (self.a, self.b, self.host)

    def nft(self, *arguments: str, script: str | None = None) -> str:
        """Run nft where the bridge is: with `script` on its stdin if given, else with `arguments`."""
        with self.host.inside():
            return run("nft", "-f", "-", text=script) if script is not None else run("nft", *arguments)

    def reset(self) -> None:
        """Forget every rule and every tracked connection."""
        with self.host.inside():
            run("nft", "flush", "ruleset")
            run("conntrack", "-F")


@contextmanager
def lan() -> Iterator[Lan]:
    """Make the namespaces, the bridge and the wires; remove them in the end."""
    prefix = f"nwf{os.getpid()}"
    host = Station(f"{prefix}-host", "br0", "52:54:00:00:00:fe", IPv4Address("10.0.0.254"), IPv6Address("fd00::fe"))
    a = Station(f"{prefix}-a", "vnet0", "52:54:00:00:00:01", IPv4Address("10.0.0.1"), IPv6Address("fd00::1"))
    b = Station(f"{prefix}-b", "vnet1", "52:54:00:00:00:02", IPv4Address("10.0.0.2"), IPv6Address("fd00::2"))
    made = Lan(a, b, host)
    for station in made.stations:
        run("ip", "netns", "add", station.namespace)
    try:
        _wire(made)
        yield made
    finally:
        for station in made.stations:
            run("ip", "netns", "delete", station.namespace)


def _wire(made: Lan) -> None:
    bridge = "type bridge ageing_time 0 forward_delay 0 stp_state 0 mcast_snooping 0 vlan_default_pvid 1"
    batch = [f"link add br0 address {made.host.mac} {bridge}", "link set lo up", "link set br0 up"]
    for guest in (made.a, made.b):
        batch += [
            f"link add {guest.tap} type veth peer name eth0 address {guest.mac} netns {guest.namespace}",
            f"link set {guest.tap} master br0 up",
        ]
    run("ip", "-netns", made.host.namespace, "-batch", "-", text="\n".join(batch))
    for station in made.stations:
        device = "br0" if station is made.host else "eth0"
        batch = [
            "link set lo up",
            f"link set {device} up",
            f"address add {station.ip}/24 dev {device}",
            f"address add {station.ip6}/64 dev {device} nodad",
        ]
        for other in made.stations:
            if other is not station:
                batch += [
                    f"neighbour add {address} lladdr {other.mac} dev {device} nud permanent"
                    for address in (other.ip, other.ip6)
                ]
        run("ip", "-netns", station.namespace, "-batch", "-", text="\n".join(batch))
