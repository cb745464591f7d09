"""
Guests on a tap that is in no bridge: the host has an address on it and routes, with its own IP stack and real sockets.

The filter stands at the tap itself: what the guest sends meets it before the host's IP stack sees anything, and what
the host sends, or passes on from behind, meets it last.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.domains import device, domain
from tests.support.frames import (
    GUEST,
    GUEST_IP,
    GUEST_IP6,
    OTHER,
    OTHER_IP,
    OTHER_IP6,
    THIRD,
    arp,
    icmp,
    neighbour_solicitation,
    ping6,
    udp,
    udp6,
    vlan,
)
from tests.support.netns import Wire

pytestmark = pytest.mark.netns

TAP = "vnet0"
# the host is OTHER on the tap; behind it, another network
FAR_IP, FAR_IP6 = "198.51.100.9", "2001:db8:f::9"
GATEWAY_IP, GATEWAY_IP6 = "198.51.100.1", "2001:db8:f::1"
FORGED_IP, FORGED_IP6 = "10.0.0.66", "2001:db8::66"
SERVICE, CLOSED = 7, 9

FILTER = f"""\
<filter name='own' chain='root'>
<rule action='drop' direction='in' priority='-1000'><ip protocol='udp' dstportstart='{CLOSED}'/></rule>
<rule action='drop' direction='in' priority='-1000'><ipv6 protocol='udp' dstportstart='{CLOSED}'/></rule>
<filterref filter='clean-traffic-dual'/>
</filter>
"""
HONEST = {"ping": icmp(), "ping6": ping6(), "arp": arp(), "neighbour": neighbour_solicitation()}
FORGED = {
    "mac": icmp(src=THIRD),
    "mac6": ping6(src=THIRD),
    "ip": icmp(src_ip=FORGED_IP),
    "ip6": ping6(src_ip=FORGED_IP6),
    "arp-ip": arp(sender_ip=FORGED_IP),
    "arp-mac": arp(sender=THIRD),
    "neighbour": neighbour_solicitation(src_ip=FORGED_IP6),
}


@dataclass(frozen=True)
class Behind:
    """The network behind the host: UDP sockets there and on the host, IPv4 and IPv6, all on port SERVICE."""

    far: socket.socket
    far6: socket.socket
    host: socket.socket
    host6: socket.socket

    @property
    def ends(self) -> tuple[tuple[socket.socket, str], ...]:
        """The IPv4 sockets with their addresses, then those of IPv6."""
        return (self.host, OTHER_IP), (self.far, FAR_IP), (self.host6, OTHER_IP6), (self.far6, FAR_IP6)


def set_sysctl(name: str, value: int) -> None:
    """Set /proc/sys/net/`name` of the namespace that the calling thread is in."""
    Path("/proc/sys/net", name).write_text(f"{value}\n")


@pytest.fixture
def behind(wire: Wire) -> Iterator[Behind]:
    """Give the host an address on the tap, and lay a network behind it."""
    with ExitStack() as stack:
        far = stack.enter_context(Wire(()))
        with far.inside():
            namespace = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        stack.callback(os.close, namespace)
        wire.ip(
            f"link set {TAP} nomaster address {OTHER}",
            f"link add out0 type veth peer name out1 netns /proc/{os.getpid()}/fd/{namespace}",
            "link set out0 up",
        )
        far.ip("link set out1 up")
        for namespace_of, devices in ((wire, (TAP, "out0")), (far, ("out1",))):
            with namespace_of.inside():
                for name in devices:
                    set_sysctl(f"ipv6/conf/{name}/accept_dad", 0)
                    set_sysctl(f"ipv6/conf/{name}/disable_ipv6", 0)
                    set_sysctl(f"ipv4/conf/{name}/rp_filter", 0)
                set_sysctl("ipv4/conf/all/rp_filter", 0)
                set_sysctl("ipv4/ip_forward", 1)
                set_sysctl("ipv6/conf/all/forwarding", 1)
        wire.ip(
            f"address add {OTHER_IP}/24 dev {TAP}",
            f"address add {OTHER_IP6}/64 dev {TAP} nodad",
            f"address add {GATEWAY_IP}/24 dev out0",
            f"address add {GATEWAY_IP6}/64 dev out0 nodad",
            # answers go to the guest at once, whoever it says it is
            *(
                f"neighbour add {address} lladdr {GUEST} dev {TAP} nud permanent"
                for address in (GUEST_IP, GUEST_IP6, FORGED_IP, FORGED_IP6)
            ),
        )
        far.ip(
            f"address add {FAR_IP}/24 dev out1",
            f"address add {FAR_IP6}/64 dev out1 nodad",
            f"route add default via {GATEWAY_IP}",
            f"route add ::/0 via {GATEWAY_IP6}",
        )

        def bound(place: Wire, address: str) -> socket.socket:
            with place.inside():
                family = socket.AF_INET6 if ":" in address else socket.AF_INET
                made = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
            made.bind((address, SERVICE))
            made.settimeout(2)
            return made

        yield Behind(bound(far, FAR_IP), bound(far, FAR_IP6), bound(wire, OTHER_IP), bound(wire, OTHER_IP6))


def web(filter_name: str = "own", tap: str | None = TAP) -> str:
    """The guest that these tests are about."""
    parameters = [("IP", GUEST_IP), ("IPV6", GUEST_IP6), ("LINK_LOCAL", "fe80::1")]
    return domain("web", [device("ethernet", tap, filter_name, parameters, source="")])


def use(wire: Wire, directory: Path, name: str, text: str) -> None:
    """Define the filter `name`."""
    (directory / f"{name}.xml").write_text(text)
    wire.configure(filter_dirs=[directory])


def is_answer(frame: bytes) -> bool:
    """Is it an echo reply, an ARP reply or a neighbour advertisement?"""
    arp_reply = frame[12:14] == b"\x08\x06" and frame[21] == 2
    echo_reply = frame[12:14] == b"\x08\x00" and frame[23] == 1 and frame[34] == 0
    return arp_reply or echo_reply or (frame[12:14] == b"\x86\xdd" and frame[20] == 58 and frame[54] in (129, 136))


PATIENCE_S, MOMENT_S = 5.0, 0.3
"""What is expected may take long on a busy machine; what isn't would be there soon."""


def answered(wire: Wire, frames: dict[str, bytes], patience_s: float = PATIENCE_S) -> list[str]:
    """Which of the questions that the guest asks the host's IP stack answers."""
    found = []
    for kind, frame in frames.items():
        wire.guests[TAP].receive()
        wire.guests[TAP].send(frame)
        end = time.monotonic() + patience_s
        while kind not in found and time.monotonic() < end:
            found += [kind] * any(is_answer(each) for each in wire.guests[TAP].receive(end - time.monotonic()))
    return found


def said(wire: Wire, end: socket.socket, address: str, *, source: str, patience_s: float = PATIENCE_S) -> bool:
    """Does a datagram that the guest sends as `source` arrive at `end`?"""
    build = udp6 if ":" in address else udp
    end.settimeout(patience_s)
    wire.guests[TAP].send(build(src_ip=source, dst_ip=address, dport=SERVICE))
    try:
        return bool(end.recvfrom(100)[1][0] == source)
    except TimeoutError:
        return False


def heard(wire: Wire, end: socket.socket, port: int, patience_s: float = PATIENCE_S) -> bool:
    """Does the guest get a datagram that `end` sends to its `port`?"""
    address = GUEST_IP6 if end.family is socket.AF_INET6 else GUEST_IP
    payload = os.urandom(16)
    wire.guests[TAP].receive()
    end.sendto(payload, (address, port))
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        if any(payload in frame for frame in wire.guests[TAP].receive(deadline - time.monotonic())):
            return True
    return False


def assert_free(wire: Wire, behind: Behind) -> None:
    """The guest may say what it likes, and is told everything."""
    assert answered(wire, HONEST) == [*HONEST]
    assert answered(wire, FORGED) == [*FORGED]
    for end, address in behind.ends:
        assert said(wire, end, address, source=FORGED_IP6 if ":" in address else FORGED_IP)
        assert heard(wire, end, CLOSED)
    assert not wire.rules("netdev")
    assert not wire.rules("bridge")


def assert_filtered(wire: Wire, behind: Behind) -> None:
    """The guest talks with the host and what is behind it, under its own addresses, and not on the closed port."""
    assert answered(wire, HONEST) == [*HONEST]
    assert answered(wire, FORGED, MOMENT_S) == []
    for end, address in behind.ends:
        assert said(wire, end, address, source=GUEST_IP6 if ":" in address else GUEST_IP)
        assert not said(wire, end, address, source=FORGED_IP6 if ":" in address else FORGED_IP, patience_s=MOMENT_S)
        assert heard(wire, end, SERVICE)
        assert not heard(wire, end, CLOSED, MOMENT_S)


def test_both_ways(wire: Wire, behind: Behind, tmp_path: Path) -> None:
    """From start to stop, and after lost rules came back, a guest speaks for itself only, with host and world."""
    use(wire, tmp_path, "own", FILTER)
    assert_free(wire, behind)
    wire.start("web", web())
    assert_filtered(wire, behind)
    wire.nft("flush", "ruleset")
    assert_free(wire, behind)
    assert wire.hook("web", "reconnect", web()).returncode == 0
    assert_filtered(wire, behind)
    wire.stop("web", web(tap=None))
    assert_free(wire, behind)


def test_a_tagged_frame_never_reaches_the_host(wire: Wire, behind: Behind, tmp_path: Path) -> None:
    """A tag 0 says "no VLAN", and the host's IP stack takes such a frame; the filter takes it for a tagged one."""
    use(wire, tmp_path, "own", FILTER)
    tagged = {"ping": vlan(icmp(), 0), "forged": vlan(icmp(src_ip=FORGED_IP), 0), "6": vlan(ping6(src=THIRD), 0)}
    assert answered(wire, tagged) == [*tagged]
    wire.start("web", web())
    assert answered(wire, tagged, MOMENT_S) == []
    assert answered(wire, HONEST) == [*HONEST]


def test_a_guest_that_runs_is_cut_off_rather_than_open(wire: Wire, behind: Behind, tmp_path: Path) -> None:
    """When libvirtd comes back and the filter can't be enforced, nothing passes the tap, neither way."""
    use(wire, tmp_path, "l3", "<filter name='l3'><rule action='drop' direction='in'><tcp/></rule></filter>")
    assert answered(wire, HONEST) == [*HONEST]
    finished = wire.hook("web", "reconnect", web("l3"))
    assert finished.returncode == 0
    assert f"{TAP}: quarantined, nothing passes in or out" in finished.stderr
    assert answered(wire, HONEST | FORGED, MOMENT_S) == []
    assert not any(heard(wire, end, SERVICE, MOMENT_S) for end, _ in behind.ends)
    wire.stop("web", web("l3", tap=None))
    assert_free(wire, behind)
