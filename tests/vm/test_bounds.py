"""One guest can't fill the connection table: a bound per tap, by hooks and with a flood. Nobody else loses by it."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.vm.flows import Got, exchange, tcp, udp, udp_connected
from tests.vm.hooked import Hooked
from tests.vm.lan import Lan, Station, run
from tests.vm.packets import ethernet, ipv4
from tests.vm.test_stateful import drop_all, rule

pytestmark = pytest.mark.stock_kernel

BOUND, FLOOD = 40, 300
STATEFUL = (rule("accept", "inout", "all state='NEW,ESTABLISHED'"), drop_all())
STATELESS = (rule("drop", "out", "mac match='no' srcmacaddr='$MAC'"),)


@pytest.fixture
def hooked(wire: Lan, tmp_path: Path) -> Hooked:
    """Filters with rules of layer 3 and without; each guest may have BOUND connections."""
    made = Hooked(wire, tmp_path, f"[nftables]\nconnections = {BOUND}")
    made.define("stateful", *STATEFUL)
    made.define("stateless", *STATELESS)
    return made


def flood(sender: Station, receiver: Station) -> None:
    """The first packets of FLOOD connections, UDP from port after port."""
    with sender.inside():
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    with wire:
        wire.bind(("eth0", 0))
        for port in range(10000, 10000 + FLOOD):
            datagram = struct.pack("!HHHH", port, 9, 12, 0) + b"data"
            wire.send(ethernet(sender.mac, receiver.mac, ipv4(sender.ip, receiver.ip, 17, datagram)))


def opened_by(wire: Lan, guest: Station) -> int:
    """How many connections of the guest the kernel tracks."""
    with wire.host.inside():
        return run("conntrack", "-L", "-s", str(guest.ip)).count(f" src={guest.ip} ")


def opens(wire: Lan, sender: Station, receiver: Station) -> int:
    """How many connections a flood leaves behind."""
    with wire.host.inside():
        run("conntrack", "-F")
    flood(sender, receiver)
    return opened_by(wire, sender)


@contextmanager
def talking(near: Station, far: Station) -> Iterator[None]:
    """A connection is open before and goes on afterwards."""
    with udp_connected(near, far) as (one, other):
        assert exchange(one, other) is Got.ANSWER
        yield
        assert exchange(one, other) is Got.ANSWER


@pytest.mark.parametrize("way", ["bridged", "to the host"])
def test_a_guest_has_a_share_of_the_table(wire: Lan, hooked: Hooked, way: str) -> None:
    """With rules of layer 3 and without; what is open goes on, the other guest and the host don't notice."""
    hooked.start(wire.a, "stateful")
    hooked.start(wire.b, "stateless")
    for guest, other in ((wire.a, wire.b), (wire.b, wire.a)):
        receiver = other if way == "bridged" else wire.host
        with wire.host.inside():
            run("conntrack", "-F")
        with talking(guest, receiver):
            flood(guest, receiver)
            assert opened_by(wire, guest) == BOUND
            assert udp(guest, receiver) is Got.NOTHING
            assert hooked.shown()[str(guest)].full == ("connections",)
            assert tcp(other, guest) is Got.ANSWER
            assert tcp(other, wire.host) is Got.ANSWER
            assert tcp(wire.host, guest) is Got.ANSWER
    assert hooked.shown()[str(wire.a)].state == "in force"
    with wire.host.inside():
        run("conntrack", "-F")
    assert tcp(wire.a, wire.b) is Got.ANSWER


def test_an_interface_may_have_a_bound_of_its_own(wire: Lan, hooked: Hooked) -> None:
    """Less or more, or none; from one start to the next."""
    hooked.start(wire.a, "stateful")
    for value, expected in (("10", 10), ("100", 100), ("none", FLOOD)):
        hooked.start(wire.b, "stateless", [("CTRL_CONNECTIONS_MAX", value)])
        assert opens(wire, wire.b, wire.a) == expected
        assert opens(wire, wire.a, wire.b) == BOUND
    hooked.start(wire.b, "stateless")
    assert opens(wire, wire.b, wire.a) == BOUND


def test_what_a_filter_drops_does_not_count(wire: Lan, hooked: Hooked) -> None:
    """A guest whose filter lets little through has its whole share for that."""
    hooked.define("little", rule("accept", "out", "tcp"), drop_all())
    hooked.start(wire.a, "little")
    assert opens(wire, wire.a, wire.b) == 0
    assert tcp(wire.a, wire.b) is Got.ANSWER
    assert hooked.shown()["a"].full == ()


def test_nothing_is_tracked_for_the_bounds_alone(wire: Lan, hooked: Hooked) -> None:
    """Not before a guest's rules look at connections, nor after the last one has gone; unless it is asked for."""
    hooked.start(wire.b, "stateless")
    assert opens(wire, wire.b, wire.a) == 0
    hooked.start(wire.a, "stateful")
    assert opens(wire, wire.b, wire.a) == BOUND
    hooked.stop(wire.a, "stateful")
    assert opens(wire, wire.b, wire.a) == 0
    hooked.start(wire.b, "stateless", [("CTRL_CONNECTIONS_MAX", "10")])
    assert opens(wire, wire.b, wire.a) == 10
    hooked.stop(wire.b, "stateless")
    assert opens(wire, wire.b, wire.a) == 0


def test_an_update_keeps_the_count(wire: Lan, hooked: Hooked) -> None:
    """Starts of others, and the same guest's rules put in force again, give nobody a second share."""
    hooked.start(wire.a, "stateful")
    hooked.start(wire.b, "stateless")
    assert opens(wire, wire.b, wire.a) == BOUND
    hooked.start(wire.a, "stateful")
    assert hooked.hook(wire.b, "reconnect", "stateless") == 0
    hooked.start(wire.b, "stateless")
    flood(wire.b, wire.host)
    assert opened_by(wire, wire.b) == BOUND
