"""A guest that libvirt starts under clean-traffic and nothing else gets its address by DHCP, and keeps to it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.libvirt.conftest import Guest, Guests, Host
from tests.support.frames import GUEST, GUEST_IP, OTHER, arp, udp
from tests.support.guest import filterref_xml, interface_xml, mark
from tests.support.libvirtd import Wire, wait_for
from tests.support.netns import command_line

pytestmark = pytest.mark.libvirt

SERVER, NEIGHBOUR = "10.0.0.254", "10.0.0.77"
POOL = tuple(f"10.0.0.{number}" for number in range(50, 60))
SCRIPT = (
    r"printf '#!/bin/sh\n[ $1 = bound ] || [ $1 = renew ] || exit 0\n"
    r"busybox ip addr flush dev $interface\nbusybox ip addr add $ip/24 dev $interface\n' >/tmp/lease;"
    "chmod +x /tmp/lease"
)
DHCP = (("CTRL_IP_LEARNING", "dhcp"), ("DHCPSERVER", SERVER))


@pytest.fixture
def server(host: Host, tmp_path: Path) -> Iterator[None]:
    """dnsmasq on the host's bridge."""
    if shutil.which("dnsmasq") is None:
        pytest.skip("dnsmasq is missing: apt-get install dnsmasq-base")
    pid = tmp_path / "pid"
    host.run(
        *("dnsmasq", "--conf-file=/dev/null", "--port=0", "--user=root", "--no-ping", "--dhcp-authoritative"),
        *("--interface=br0", "--except-interface=lo", "--bind-interfaces", f"--pid-file={pid}"),
        *(f"--dhcp-range={POOL[0]},{POOL[-1]},255.255.255.0,120s", f"--dhcp-leasefile={tmp_path / 'leases'}"),
    )
    wait_for("dnsmasq", lambda: pid.exists() and pid.read_text().strip() != "")
    yield
    host.run("kill", pid.read_text().strip())  # its number in there


def boot(guests: Guests, name: str, *parameters: tuple[str, str]) -> Guest:
    """Boot a guest under clean-traffic."""
    reference = filterref_xml("clean-traffic", *parameters)
    return guests.boot(name, interface_xml(GUEST, "<source bridge='br0'/>", reference=reference))


def lease(guest: Guest) -> str:
    """Ask for an address and take it."""
    guest.shell.check(SCRIPT)
    guest.shell.check("busybox udhcpc -i eth0 -q -n -f -s /tmp/lease -t 5 -T 3")
    listed = guest.shell.check("busybox ip -4 -o addr show dev eth0")
    return listed.split("inet ")[1].split("/")[0]


def learned(host: Host) -> list[str]:
    """What `show` says."""
    (view,) = json.loads(host.run(*command_line(), "show", "--json").stdout)
    return list(view["learned"])


@pytest.mark.parametrize("parameters", [(), DHCP], ids=["any", "dhcp"])
def test_a_guest_gets_its_address_and_keeps_to_it(
    host: Host, guests: Guests, server: None, parameters: tuple[tuple[str, str], ...]
) -> None:
    """It asks, gets an address, reaches the host, is reachable, and no other address works; a daemon's restart neither
    gives it another chance nor costs it the address."""
    guest = boot(guests, "dhcp-guest", *parameters)
    address = lease(guest)
    assert address in POOL
    guest.shell.check(f"busybox ping -c 1 -W 20 {SERVER}")
    assert learned(host) == [address]
    host.run("busybox", "ping", "-c", "1", "-W", "20", address)
    host.restart_libvirtd()
    assert learned(host) == [address]
    guest.shell.check(f"busybox ping -c 1 -W 20 {SERVER}")
    guest.shell.check(f"busybox ip addr flush dev eth0; busybox ip addr add {NEIGHBOUR}/24 dev eth0")
    assert guest.shell.run(f"busybox ping -c 1 -W 2 {SERVER}")[0] != 0
    assert learned(host) == [address]


def test_a_guest_that_takes_a_neighbours_address_first(host: Host, guests: Guests, server: None) -> None:
    """With a server named, an address that nobody leased never leaves the guest."""
    guest = boot(guests, "greedy", *DHCP)
    guest.shell.check(f"busybox ip addr add {NEIGHBOUR}/24 dev eth0")
    assert guest.shell.run(f"busybox ping -c 1 -W 2 {SERVER}")[0] != 0
    assert learned(host) == []
    guest.shell.check("busybox ip addr flush dev eth0")
    assert lease(guest) in POOL
    guest.shell.check(f"busybox ping -c 1 -W 20 {SERVER}")


def test_there_is_no_gap_at_start(host: Host, guests: Guests, wire: Wire) -> None:
    """
    When libvirt starts QEMU, the rules that learn are in the kernel: a guest that sends forged frames as soon as it
    runs gets none of them out, and what it says first under its own MAC is what it is held to.
    """
    reference = filterref_xml("clean-traffic")
    guest = guests.start("hasty", interface_xml(GUEST, "<source bridge='br0'/>", reference=reference))
    guest.shell.wait_until_up()
    _, start, _ = host.events("hasty")[-3:]
    assert not start.qemu_runs
    assert f"learned/{guest.tap}" in start.table
    forged = [mark(udp(src=OTHER, src_ip=NEIGHBOUR)), mark(arp(src=OTHER, sender=OTHER, sender_ip=NEIGHBOUR))]
    honest = mark(arp())
    late = mark(arp(sender_ip=NEIGHBOUR))
    twin = mark(udp())
    for frame in (*forged, honest, late, twin):
        guest.shell.send(frame)
    wait_for("the guest's honest frames", partial(wire.heard, twin))
    assert wire.heard(honest)
    assert not any(wire.heard(frame) for frame in (*forged, late))
    assert learned(host) == [GUEST_IP]
