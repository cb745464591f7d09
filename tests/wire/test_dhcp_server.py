"""
A guest that is a whole network stack gets its address from a real DHCP server, through the bridge.

    server: dnsmasq on the bridge itself, 10.0.9.254        guest: busybox udhcpc behind the tap vnet7, in a namespace
    rogue:  dnsmasq at the end of vnet8, 10.0.9.253         of its own, its MAC GUEST
    victim: udhcpc behind vnet9, which has no filter        attacker: who holds vnet0, its MAC GUEST
"""

from __future__ import annotations

import ipaddress
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from scapy.layers.dhcp6 import (
    DUID_LL,
    DHCP6_Release,
    DHCP6_Solicit,
    DHCP6OptClientId,
    DHCP6OptIA_NA,
    DHCP6OptIAAddress,
    DHCP6OptRapidCommit,
)
from scapy.layers.inet6 import UDP, IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from nwfilter_hook.base.addresses import link_local, parse_mac
from tests.support.domains import Parameters, domain, interface
from tests.support.frames import GUEST, OTHER, THIRD, arp, dhcp_question, incoming, ipv4, udp
from tests.support.learned import command, learned, shown
from tests.support.netns import BRIDGE, Wire

pytestmark = pytest.mark.netns

SERVER, ROGUE, NEIGHBOUR = "10.0.9.254", "10.0.9.253", "10.0.9.200"
TAP, ROGUE_TAP, VICTIM_TAP = "vnet7", "vnet8", "vnet9"
ATTACKER_IP = "10.0.9.66"
# What udhcpc runs when it has a lease: addresses of before go, as with a real client.
SCRIPT = """\
#!/bin/sh
case "$1" in
deconfig) ip addr flush dev "$interface" ;;
bound|renew) ip addr flush dev "$interface"; ip addr add "$ip/24" dev "$interface"; echo "$1 $ip" >>"$LEASES" ;;
esac
"""


class Stack:
    """A network stack at the end of a port of the bridge."""

    def __init__(self, wire: Wire, tap: str, mac: str) -> None:
        self._wire = wire
        self.leases = wire.directory / f"leases-{tap}"
        self._script = wire.directory / "udhcpc.script"
        self._script.write_text(SCRIPT)
        self._script.chmod(0o755)
        with wire.inside():
            self._holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"], stdin=subprocess.DEVNULL)
        _wait(lambda: os.readlink(f"/proc/{self._holder.pid}/ns/net") != os.readlink("/proc/self/ns/net"))
        time.sleep(0.2)  # and is past unshare's own work
        wire.ip(
            f"link add {tap} type veth peer name eth0 address {mac} netns {self._holder.pid}",
            f"link set {tap} master {BRIDGE} up",
        )
        self.run("ip", "link", "set", "eth0", "up")

    def run(self, *words: str, check: bool = True, timeout_s: float = 30) -> subprocess.CompletedProcess[str]:
        """Run a program in there."""
        inside = ("nsenter", "--target", str(self._holder.pid), "--net", *words)
        return self._wire.run(*inside, check=check, timeout_s=timeout_s, environment=self._environment())

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "LEASES": str(self.leases)}

    def ask(self, *options: str) -> str | None:
        """Ask for an address once; it is configured then. None if nobody answered."""
        done = self.run(
            *("busybox", "udhcpc", "-f", "-q", "-n", "-i", "eth0", "-s", str(self._script), "-t", "3", "-T", "1"),
            *options,
            check=False,
        )
        return self.leases.read_text().split()[-1] if done.returncode == 0 else None

    def pings(self, address: str) -> bool:
        """Whether `address` answers."""
        ping = self.run("busybox", "ping", "-c", "1", "-W", "2", address, check=False)
        return ping.returncode == 0

    def use(self, address: str) -> None:
        """Take an address without asking."""
        self.run("ip", "addr", "flush", "dev", "eth0")
        self.run("ip", "addr", "add", f"{address}/24", "dev", "eth0")

    def close(self) -> None:
        """End everything in there."""
        self._holder.kill()
        self._holder.wait()


def _wait(condition: Callable[[], bool], patience_s: float = 10) -> None:
    end = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@contextmanager
def dnsmasq(
    wire: Wire, device: str, addresses: str, prefix: Sequence[str] = (), options: Sequence[str] = ()
) -> Iterator[Path]:
    """A DHCP server on `device`, which hands out `addresses` ("FIRST,LAST"); its file of leases."""
    directory = wire.directory / f"dnsmasq-{device}-{time.monotonic_ns()}"
    directory.mkdir()
    log = directory / "log"
    words = [
        *prefix,
        *("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--user=root", "--no-ping"),
        *(f"--interface={device}", "--except-interface=lo", "--bind-interfaces", "--dhcp-authoritative"),
        *(f"--dhcp-range={addresses},255.255.255.0,120s", f"--dhcp-leasefile={directory}/leases"),
        *("--log-facility=-", "--log-dhcp", f"--pid-file={directory}/pid", *options),
    ]
    with wire.inside(), log.open("wb") as output:
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        _wait(lambda: b"DHCP, IP range" in log.read_bytes() or process.poll() is not None)
        assert process.poll() is None, log.read_text()
        time.sleep(0.1)
        yield directory / "leases"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


@pytest.fixture
def programs() -> None:
    """Skip, naming what is missing."""
    for program, package in (("dnsmasq", "dnsmasq-base"), ("busybox", "busybox-static"), ("nsenter", "util-linux")):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is missing: apt-get install {package}")


@pytest.fixture
def lan(wire: Wire, programs: None) -> Wire:
    """The wire with an address on its bridge."""
    wire.ip(f"addr add {SERVER}/24 dev {BRIDGE}")
    return wire


@pytest.fixture
def guest(lan: Wire) -> Iterator[Stack]:
    """The guest's network stack, behind its tap."""
    stack = Stack(lan, TAP, GUEST)
    yield stack
    stack.close()


def start(wire: Wire, *parameters: tuple[str, str]) -> None:
    """Start the guest under clean-traffic."""
    wire.start("web", guest_xml(parameters))


def guest_xml(parameters: Parameters) -> str:
    """The guest."""
    return domain("web", [interface(TAP, "clean-traffic", parameters)])


DHCP, KNOWN = ("CTRL_IP_LEARNING", "dhcp"), ("DHCPSERVER", SERVER)


@pytest.mark.parametrize("parameters", [(), (DHCP,), (DHCP, KNOWN)], ids=["any", "dhcp", "dhcp-known-server"])
def test_a_guest_with_clean_traffic_and_nothing_else(lan: Wire, guest: Stack, parameters: Parameters) -> None:
    """It starts, gets its address, reaches others, is reachable, renews, and cannot change its address."""
    start(lan, *parameters)
    with dnsmasq(lan, BRIDGE, "10.0.9.10,10.0.9.19"):
        address = guest.ask()
        assert address is not None
        assert guest.pings(SERVER)
        assert learned(lan) == [address]
        assert lan.run("busybox", "ping", "-c", "1", "-W", "2", address).returncode == 0
        since = shown(lan)["learned_since"]
        assert guest.ask("-r", address) == address
        assert guest.pings(SERVER)
        assert shown(lan)["learned_since"].keys() == since.keys()
        guest.use(NEIGHBOUR)
        assert not guest.pings(SERVER)
        assert learned(lan) == [address]
        guest.use(address)
        assert guest.pings(SERVER)


def test_a_guest_that_takes_an_address_first(lan: Wire, guest: Stack) -> None:
    """A guest that uses a neighbour's address before asking has it in mode any, but not where a lease is needed."""
    start(lan)
    guest.use(NEIGHBOUR)
    assert guest.pings(SERVER)
    assert learned(lan) == [NEIGHBOUR]
    start(lan, DHCP, KNOWN)
    assert not guest.pings(SERVER)
    assert learned(lan) == []
    with dnsmasq(lan, BRIDGE, "10.0.9.10,10.0.9.19"):
        address = guest.ask()
        assert learned(lan) == [address]
        assert guest.pings(SERVER)


def test_a_rogue_server(lan: Wire, guest: Stack) -> None:
    """With DHCPSERVER a neighbour that answers leases gives none."""
    with ExitStack() as stack:
        rogue = Stack(lan, ROGUE_TAP, OTHER)
        stack.callback(rogue.close)
        rogue.use(ROGUE)
        prefix = ("nsenter", "--target", str(rogue._holder.pid), "--net")
        with dnsmasq(lan, "eth0", "10.0.9.66,10.0.9.66", prefix):
            start(lan, DHCP, KNOWN)
            assert guest.ask() is None
            assert learned(lan) == []
            start(lan, DHCP)
            assert guest.ask() == "10.0.9.66"
            assert learned(lan) == ["10.0.9.66"]


def test_another_lease_replaces_the_first(lan: Wire, guest: Stack) -> None:
    """When the server hands out another address, that is the guest's, and the old one no longer."""
    start(lan, DHCP, KNOWN)
    with dnsmasq(lan, BRIDGE, "10.0.9.10,10.0.9.19"):
        first = guest.ask()
        assert first is not None
        assert guest.pings(SERVER)
    with dnsmasq(lan, BRIDGE, "10.0.9.30,10.0.9.39"):
        second = guest.ask()
        assert second not in (None, first)
        assert learned(lan) == [second]
        assert guest.pings(SERVER)
        guest.use(first)
        assert not guest.pings(SERVER)


def test_a_lease_survives_reconnect_and_relearn_ends_it(lan: Wire, guest: Stack) -> None:
    """A daemon's restart costs the guest nothing; `relearn` makes it ask again."""
    start(lan, DHCP, KNOWN)
    with dnsmasq(lan, BRIDGE, "10.0.9.10,10.0.9.19"):
        address = guest.ask()
        assert lan.hook("web", "reconnect", guest_xml((DHCP, KNOWN))).returncode == 0
        assert guest.pings(SERVER)
        command(lan, "relearn", TAP)
        assert not guest.pings(SERVER)
        assert guest.ask() == address
        assert guest.pings(SERVER)


@pytest.fixture
def victim(lan: Wire) -> Iterator[Stack]:
    """A neighbour without a filter."""
    stack = Stack(lan, VICTIM_TAP, THIRD)
    yield stack
    stack.close()


GIVEN = (("IP", ATTACKER_IP),)
HELD_BACK = {
    "learning": ("clean-traffic", (DHCP, KNOWN)),
    "given": ("with-clean-traffic", GIVEN),
    "dual": ("clean-traffic-dual", (*GIVEN, ("IPV6", "2001:db8::1"), ("LINK_LOCAL", "fe80::1"))),
}
WITH_CLEAN_TRAFFIC = """
<filter name='with-clean-traffic'>
  <filterref filter='clean-traffic'/>
  <filterref filter='no-dhcp-spoofing'/>
</filter>
"""


def held(leases: Path, address: str) -> str | None:
    """Whose the lease is."""
    found = [line.split() for line in leases.read_text().splitlines() if address in line.split()]
    return found[0][1] if found else None


def say(wire: Wire, frame: bytes) -> None:
    """The attacker sends it, and the server has had time to act on it."""
    wire.guests["vnet0"].send(frame)
    time.sleep(0.3)


@pytest.mark.parametrize("how", HELD_BACK)
def test_a_guest_cannot_end_its_neighbours_lease(lan: Wire, victim: Stack, tmp_path: Path, how: str) -> None:
    """A RELEASE in the neighbour's name ends its lease where no filter is, and nothing under one; nor does a flood of
    invented clients take addresses. The guest's own request and RELEASE reach the server."""
    with dnsmasq(lan, BRIDGE, "10.0.9.10,10.0.9.19") as leases:
        address = victim.ask()
        assert address is not None
        release = dhcp_question("release", client=THIRD, own=address, options=[("server_id", SERVER)])
        say(lan, release)
        assert held(leases, address) is None
        assert victim.ask("-r", address) == address

        (tmp_path / "with-clean-traffic.xml").write_text(WITH_CLEAN_TRAFFIC)
        lan.configure(filter_dirs=[tmp_path])
        name, parameters = HELD_BACK[how]
        lan.start("web", domain("web", [interface("vnet0", name, parameters)]))
        say(lan, release)
        say(lan, dhcp_question("release", own=address, options=[("server_id", SERVER)]))
        for number in range(20):
            invented = f"02:00:00:00:00:{number:02x}"
            lan.guests["vnet0"].send(dhcp_question("discover", client=invented))
            wanted = [("requested_addr", f"10.0.9.{10 + number % 10}"), ("server_id", SERVER)]
            lan.guests["vnet0"].send(dhcp_question("request", client=invented, options=wanted))
        say(lan, release)
        assert held(leases, address) == THIRD
        assert len(leases.read_text().splitlines()) == 1

        own = "10.0.9.19" if address != "10.0.9.19" else "10.0.9.18"
        say(lan, dhcp_question("request", options=[("requested_addr", own), ("server_id", SERVER)]))
        assert held(leases, own) == GUEST
        if how == "learning":  # else the address isn't the guest's
            assert learned(lan) == [own]
            say(lan, dhcp_question("release", own=own, src_ip=own, options=[("server_id", SERVER)]))
            assert held(leases, own) is None


def dhcpv6(client: str, message: object) -> bytes:
    """What a DHCPv6 client with this MAC sends, from the link-local address of it."""
    source = str(ipaddress.IPv6Address(link_local(parse_mac(client))))
    packet = IPv6(src=source, dst="ff02::1:2") / UDP(sport=546, dport=547) / message
    return bytes(Ether(src=client, dst="33:33:00:01:00:02", type=0x86DD) / packet)


def test_a_guest_cannot_end_its_neighbours_dhcpv6_lease(lan: Wire) -> None:
    """A RELEASE in the neighbour's name (DUID) doesn't leave under no-dhcp-spoofing; without it the lease is gone."""
    lan.run("sh", "-c", f"echo 0 > /proc/sys/net/ipv6/conf/{BRIDGE}/disable_ipv6")
    lan.ip(f"addr add 2001:db8::fe/64 dev {BRIDGE} nodad")
    name, lease = DHCP6OptClientId(duid=DUID_LL(lladdr=THIRD)), DHCP6OptIA_NA(iaid=7)
    asks = dhcpv6(THIRD, DHCP6_Solicit(trid=1) / name / DHCP6OptRapidCommit() / lease)
    pool = "--dhcp-range=2001:db8::10,2001:db8::20,64,120s"
    with dnsmasq(lan, BRIDGE, "10.0.9.10,10.0.9.19", options=[pool]) as leases:

        def held6() -> list[str]:
            return [line.split()[2] for line in leases.read_text().splitlines() if "2001:db8" in line]

        def asked() -> bool:
            lan.guests["vnet1"].send(asks)
            time.sleep(0.2)
            return bool(held6())

        _wait(asked)  # once the bridge has its link-local address
        (address,) = held6()
        server = bytes.fromhex(leases.read_text().partition("duid ")[2].split()[0].replace(":", ""))
        returned = DHCP6OptIA_NA(iaid=7, ianaopts=[DHCP6OptIAAddress(addr=address)])
        to_server = Raw(b"\0\2" + len(server).to_bytes(2, "big") + server)
        release = dhcpv6(GUEST, DHCP6_Release(trid=2) / name / to_server / returned)
        lan.start("web", domain("web", [interface("vnet0", "no-dhcp-spoofing", GIVEN)]))
        say(lan, release)
        time.sleep(1)
        assert held6() == [address]
        lan.stop("web", domain("web", [interface(None, "no-dhcp-spoofing", GIVEN)]))
        say(lan, release)
        _wait(lambda: held6() == [])


@pytest.mark.parametrize("options", [(), ("--dhcp-ignore-clid",)], ids=["by-identifier", "by-mac"])
def test_a_neighbours_client_identifier(lan: Wire, victim: Stack, options: Sequence[str]) -> None:
    """
    What rules can't do, as nwfilter-filter(7) says: a server that knows clients by option 61 gives a guest its
    neighbour's lease; one that goes by the MAC doesn't.
    """
    with dnsmasq(lan, BRIDGE, "10.0.9.10,10.0.9.19", options=options) as leases:
        address = victim.ask()
        assert address is not None
        lan.start("web", domain("web", [interface("vnet0", "clean-traffic", (DHCP, KNOWN))]))
        identifier = b"\x01" + bytes.fromhex(THIRD.replace(":", ""))
        asked = [("client_id", identifier), ("requested_addr", address), ("server_id", SERVER)]
        say(lan, dhcp_question("request", options=asked))
        assert held(leases, address) == (THIRD if options else GUEST)
        assert learned(lan) == ([] if options else [address])


def test_there_is_no_moment_without_a_filter(wire: Wire) -> None:
    """
    A guest that floods its tap while it is started never gets a frame out that its filter forbids, once `start` is
    answered; and what libvirt's learner lets through meanwhile (any IPv4, everything toward the guest) is none of it.
    """
    forged = [udp(src=OTHER, src_ip=NEIGHBOUR, sport=port) for port in range(20000, 20200)]
    wire.start("web", domain("web", [interface("vnet0", "clean-traffic", [DHCP])]))
    for frame in [*forged, *(ipv4(src_ip=f"10.0.7.{number}") for number in range(1, 50)), arp(sender_ip=NEIGHBOUR)]:
        assert wire.arrivals(frame) == frozenset()
    assert not wire.passes(incoming(ipv4), "vnet1", "vnet0")
    # in mode any: the very first frame already holds the guest to what it says
    wire.start("web", domain("web", [interface("vnet0", "clean-traffic")]))
    assert wire.passes(ipv4(src_ip="10.0.7.1"))
    assert all(not wire.passes(ipv4(src_ip=f"10.0.7.{number}")) for number in range(2, 50))
    assert wire.passes(ipv4(src_ip="10.0.7.1"))


def test_flooding_through_a_start(wire: Wire, tmp_path: Path) -> None:
    """Frames sent without a pause while the hook installs: after the first that is dropped, no forged one passes."""
    frame = udp(src=OTHER, src_ip=NEIGHBOUR)
    xml = tmp_path / "guest.xml"
    xml.write_text(domain("web", [interface("vnet0", "clean-traffic")]))
    with wire.inside(), xml.open("rb") as stdin:
        hook = subprocess.Popen(
            [Path(__file__).parents[2] / "hooks" / "qemu", "web", "start", "begin", "-"],
            stdin=stdin,
            env=wire.hook_environment(),
        )
    verdicts = []
    while hook.poll() is None:
        verdicts.append(wire.passes(frame))
    assert hook.returncode == 0
    verdicts += [wire.passes(frame) for _ in range(200)]
    assert verdicts[0]
    assert not verdicts[-1]
    first_drop = verdicts.index(False)
    assert not any(verdicts[first_drop:])
