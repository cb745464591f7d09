"""
A small LAN of network namespaces, with real sockets on it.

    guest "a" --veth-- vnet0 \\
                              br0 in namespace "switch" (the host), which has an address on br0 too
    guest "b" --veth-- vnet1 /

The veth end in "switch" plays the tap: what a guest's socket sends leaves through its veth as through QEMU's tap.
Neighbours are permanent, so that no flow depends on ARP or neighbour discovery passing a filter. The bridge forgets
every address at once (ageing 0) and floods, so verdicts don't depend on what it learned.

Sockets belong to the namespace they were made in: a test opens them in any guest and then just uses them.

`routed` adds a network behind the host, whose links have smaller MTUs the further they are:

    br0 --host-- up0 --1400-- "router" --1300-- "far"
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
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
    _add_bridge(made.host, made.host.tap, made.host.mac, (made.a, made.b))
    _address(made.stations)


def _add_bridge(host: Station, name: str, mac: str, guests: Iterable[Station]) -> None:
    bridge = "type bridge ageing_time 0 forward_delay 0 stp_state 0 mcast_snooping 0 vlan_default_pvid 1"
    batch = [f"link add {name} address {mac} {bridge}", "link set lo up", f"link set {name} up"]
    for guest in guests:
        batch += [
            f"link add {guest.tap} type veth peer name eth0 address {guest.mac} netns {guest.namespace}",
            f"link set {guest.tap} master {name} up",
        ]
    run("ip", "-netns", host.namespace, "-batch", "-", text="\n".join(batch))


def _prefixes(station: Station) -> tuple[str, str]:
    """Its addresses as `ip address add` takes them."""
    return f"{station.ip}/24", f"{station.ip6}/64 nodad"


def _address(stations: Sequence[Station]) -> None:
    """Give each its addresses, and the others as neighbours."""
    for station in stations:
        device = "br0" if station.tap == "br0" else "eth0"
        batch = ["link set lo up", f"link set {device} up"]
        batch += [f"address add {address} dev {device}" for address in _prefixes(station)]
        for other in stations:
            if other is not station:
                batch += [
                    f"neighbour add {address} lladdr {other.mac} dev {device} nud permanent"
                    for address in (other.ip, other.ip6)
                ]
        run("ip", "-netns", station.namespace, "-batch", "-", text="\n".join(batch))


# --- another bridge


@contextmanager
def other_bridge(made: Lan) -> Iterator[Lan]:
    """Another tenant's bridge on the host, br1, where the host has no address; its guests have those of a and b."""
    prefix = made.host.namespace.rpartition("-")[0]
    c = replace(made.a, namespace=f"{prefix}-c", tap="vnet2")
    d = replace(made.b, namespace=f"{prefix}-d", tap="vnet3")
    for station in (c, d):
        run("ip", "netns", "add", station.namespace)
    try:
        _add_bridge(made.host, "br1", "52:54:00:00:00:fd", (c, d))
        _address((c, d))
        yield Lan(c, d, made.host)
    finally:
        run("ip", "-netns", made.host.namespace, "link", "delete", "br1")
        for station in (c, d):
            run("ip", "netns", "delete", station.namespace)


@contextmanager
def without_address(made: Lan) -> Iterator[None]:
    """The host has no address on br0 meanwhile, but for the link-local one."""
    run("ip", "-netns", made.host.namespace, "address", "flush", "dev", made.host.tap, "scope", "global")
    try:
        yield
    finally:
        batch = (f"address add {each} dev {made.host.tap}" for each in _prefixes(made.host))
        run("ip", "-netns", made.host.namespace, "-batch", "-", text="\n".join(batch))


@contextmanager
def joined_by_vlan(made: Lan, other: Lan) -> Iterator[Station]:
    """VLAN 10 of br0 is a port of br1 meanwhile; in the VLAN is b of br0, there with an address of its own."""
    beyond = replace(made.b, ip=IPv4Address("10.0.0.3"), ip6=IPv6Address("fd00::3"))
    batches = {
        made.host: """
            link add link br0 name br0.10 type vlan id 10
            link set br0.10 master br1 up""",
        made.b: f"""
            link add link eth0 name eth0.10 type vlan id 10
            link set eth0.10 up
            address add {beyond.ip}/32 dev eth0.10
            address add {beyond.ip6}/128 dev eth0.10 nodad
            route replace {other.a.ip} dev eth0.10
            route replace {other.a.ip6} dev eth0.10
            neighbour add {other.a.ip} lladdr {other.a.mac} dev eth0.10 nud permanent
            neighbour add {other.a.ip6} lladdr {other.a.mac} dev eth0.10 nud permanent""",
        other.a: f"""
            neighbour add {beyond.ip} lladdr {beyond.mac} dev eth0 nud permanent
            neighbour add {beyond.ip6} lladdr {beyond.mac} dev eth0 nud permanent""",
    }
    for station, batch in batches.items():
        run("ip", "-netns", station.namespace, "-batch", "-", text=batch)
    try:
        yield beyond
    finally:
        run("ip", "-netns", made.host.namespace, "link", "delete", "br0.10")
        run("ip", "-netns", made.b.namespace, "link", "delete", "eth0.10")


# --- the network behind the host


@dataclass(frozen=True)
class Routed:
    """
    What guests reach through the host, which forwards.

    Attributes:
        router: the next hop.
        far: the station behind it. It announces the segment size of an MTU of 1500, so a TCP sender has to find out.
        nowhere: addresses by IP version that the router has no route to.
    """

    router: Station
    far: Station
    nowhere: dict[int, str]


FORWARDING = ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding")
LIMITS = {"net.ipv4.icmp_ratemask": 6168, "net.ipv6.icmp.ratelimit": 1000}
"""Of ICMP errors; the kernel's defaults. 0 is no limit."""


@contextmanager
def routed(made: Lan) -> Iterator[Routed]:
    """Make the router and the station behind it; in the end the LAN is as it was."""
    prefix = made.host.namespace.rpartition("-")[0]
    router = Station(
        f"{prefix}-router", "up0", "52:54:00:00:01:01", IPv4Address("10.1.0.1"), IPv6Address("fd00:0:0:1::1")
    )
    far = Station(f"{prefix}-far", "up0", "52:54:00:00:02:01", IPv4Address("10.2.0.1"), IPv6Address("fd00:0:0:2::1"))
    for station in (router, far):
        run("ip", "netns", "add", station.namespace)
    try:
        for forwarder in (made.host, router):
            _set(forwarder, {**dict.fromkeys(FORWARDING, 1), **dict.fromkeys(LIMITS, 0)})
        _wire_routed(made, router, far)
        yield Routed(router, far, {4: "10.3.0.1", 6: "fd00:0:0:3::1"})
    finally:
        for guest in (made.a, made.b):
            for family in ("-4", "-6"):
                run("ip", "-netns", guest.namespace, family, "route", "flush", "default")
        _set(made.host, {**dict.fromkeys(FORWARDING, 0), **LIMITS})
        for station in (router, far):
            run("ip", "netns", "delete", station.namespace)  # up0 goes with its other end


def _wire_routed(made: Lan, router: Station, far: Station) -> None:
    host_mac, router_mac = "52:54:00:00:01:fe", "52:54:00:00:02:fe"
    batches = {
        made.host: f"""
            link add up0 address {host_mac} mtu 1400 type veth peer eth0 address {router.mac} netns {router.namespace}
            address add 10.1.0.254/24 dev up0
            address add fd00:0:0:1::fe/64 dev up0 nodad
            link set up0 up
            neighbour add {router.ip} lladdr {router.mac} dev up0 nud permanent
            neighbour add {router.ip6} lladdr {router.mac} dev up0 nud permanent
            route add default via {router.ip}
            route add default via {router.ip6}""",
        router: f"""
            link set eth0 mtu 1400
            link add eth1 address {router_mac} mtu 1300 type veth peer eth0 address {far.mac} netns {far.namespace}
            address add {router.ip}/24 dev eth0
            address add {router.ip6}/64 dev eth0 nodad
            address add 10.2.0.254/24 dev eth1
            address add fd00:0:0:2::fe/64 dev eth1 nodad
            link set lo up
            link set eth0 up
            link set eth1 up
            neighbour add 10.1.0.254 lladdr {host_mac} dev eth0 nud permanent
            neighbour add fd00:0:0:1::fe lladdr {host_mac} dev eth0 nud permanent
            neighbour add {far.ip} lladdr {far.mac} dev eth1 nud permanent
            neighbour add {far.ip6} lladdr {far.mac} dev eth1 nud permanent
            route add 10.0.0.0/24 via 10.1.0.254
            route add fd00::/64 via fd00:0:0:1::fe""",
        far: f"""
            link set eth0 mtu 1300
            address add {far.ip}/24 dev eth0
            address add {far.ip6}/64 dev eth0 nodad
            link set lo up
            link set eth0 up
            neighbour add 10.2.0.254 lladdr {router_mac} dev eth0 nud permanent
            neighbour add fd00:0:0:2::fe lladdr {router_mac} dev eth0 nud permanent
            route add default via 10.2.0.254 advmss 1460
            route add default via fd00:0:0:2::fe advmss 1440""",
    }
    for guest in (made.a, made.b):
        batches[guest] = f"""
            route add default via {made.host.ip}
            route add default via {made.host.ip6}"""
    for station, batch in batches.items():
        run("ip", "-netns", station.namespace, "-batch", "-", text=batch)


def _set(station: Station, settings: Mapping[str, int]) -> None:
    """Set these sysctls in the station's namespace."""
    with station.inside():
        run("sysctl", "-q", "-w", *(f"{name}={value}" for name, value in settings.items()))


def forget_path_mtus(station: Station) -> None:
    """What it has learned from ICMP errors."""
    for family in ("-4", "-6"):
        run("ip", "-netns", station.namespace, family, "route", "flush", "cache")


@contextmanager
def delayed(station: Station) -> Iterator[None]:
    """
    What the guest sends leaves 80 ms after its system call, as from a real guest.

    Else an answer would come while connect() still holds the socket, and a TCP socket ignores an ICMP error then.
    """
    run("modprobe", "sch_netem")
    qdisc = ("dev", "eth0", "root")
    run("tc", "-netns", station.namespace, "qdisc", "add", *qdisc, "netem", "delay", "80ms")
    try:
        yield
    finally:
        run("tc", "-netns", station.namespace, "qdisc", "delete", *qdisc)


@contextmanager
def br_netfilter(station: Station, mode: str) -> Iterator[None]:
    """The module in one of `BR_NETFILTER_MODES`; "off" and "on" are what its sysctls say in the station's namespace."""
    if mode == "absent":
        yield
        return
    run("modprobe", "br_netfilter")
    try:
        _set(station, {f"net.bridge.bridge-nf-call-{name}tables": int(mode == "on") for name in ("ip", "ip6", "arp")})
        yield
    finally:
        run("modprobe", "--remove", "br_netfilter")


BR_NETFILTER_MODES = ("absent", "off", "on")
