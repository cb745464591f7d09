"""
Connections are those of one bridge: two tenants with equal addresses on two bridges, with real sockets.

Guests a and b are on br0, c and d on br1, where c has the addresses of a and d those of b. Guest a may open
connections, and gets nothing that belongs to none.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vm import test_flows
from tests.vm.flows import Got, address, connected, exchange, fresh_port, listen, open_socket, tcp, udp
from tests.vm.hooked import Hooked
from tests.vm.lan import Lan, Routed, Station, br_netfilter, joined_by_vlan, other_bridge, run, without_address
from tests.vm.test_bounds import flood, opened_by
from tests.vm.test_flows import DROP_ALL, VERSIONS, all_of, dual, exchanges
from tests.vm.test_stateful import rule

pytestmark = pytest.mark.stock_kernel

behind = test_flows.behind
BOUND = 40
NAT_NETWORK = """
table inet libvirts {
    chain translate {
        type nat hook postrouting priority srcnat
        ip saddr 10.0.0.0/24 ip daddr != 10.0.0.0/24 masquerade
        ip6 saddr fd00::/64 ip6 daddr != fd00::/64 masquerade
    }
    chain forward {
        type filter hook forward priority filter
        oifname "br0" ip daddr 10.0.0.0/24 ct state established,related accept
        oifname "br0" ip6 daddr fd00::/64 ct state established,related accept
        iifname "br0" ip saddr 10.0.0.0/24 accept
        iifname "br0" ip6 saddr fd00::/64 accept
        iifname "br0" oifname "br0" accept
        oifname "br0" reject
        iifname "br0" reject
    }
}"""
"""What libvirt makes for <forward mode='nat'>, for both IP versions (src/network/bridge_driver_linux.c)."""
NOTRACK = """table bridge raw {
    chain in { type filter hook prerouting priority -250; udp dport 53 notrack; udp sport 53 notrack; }
}"""


@pytest.fixture(scope="module")
def other(_lan: Lan) -> Iterator[Lan]:
    """The other tenant's bridge."""
    with other_bridge(_lan) as made:
        yield made


@pytest.fixture
def hooked(wire: Lan, tmp_path: Path) -> Hooked:
    """`opens`: a guest may open connections, up to BOUND; `plain` looks at none."""
    made = Hooked(wire, tmp_path, f"[nftables]\nconnections = {BOUND}")
    made.define("opens", *dual("accept", "out", "all"), *DROP_ALL)
    made.define("plain", rule("drop", "out", "mac match='no' srcmacaddr='$MAC'"))
    return made


def taken_for_another(ours: Lan, theirs: Lan) -> set[int]:
    """
    The IP versions in which a packet of our b reaches our a as an answer, though it is their c that has asked, from the
    same address and port.
    """
    found = set()
    for version in VERSIONS:
        asking, asked = fresh_port(), fresh_port()
        sockets = {}
        for station, port in ((theirs.a, asking), (theirs.b, asked), (ours.a, asking), (ours.b, asked)):
            sockets[station] = open_socket(station, version, socket.SOCK_DGRAM)
            sockets[station].bind((address(station, version), port))
        for near, far in ((theirs.a, theirs.b), (theirs.b, theirs.a), (ours.b, ours.a)):
            sockets[near].connect(sockets[far].getsockname()[:2])
        assert exchange(sockets[theirs.a], sockets[theirs.b]) is Got.ANSWER
        sockets[ours.b].send(b"answer")
        try:
            sockets[ours.a].recv(100)
            found.add(version)
        except TimeoutError:
            pass
        finally:
            for each in sockets.values():
                each.close()
    return found


@pytest.mark.parametrize("mode", ["absent", "on"])
def test_a_bridge_without_an_address_of_the_host_is_alone(wire: Lan, other: Lan, hooked: Hooked, mode: str) -> None:
    """Whatever others do on bridges that we know nothing of; what a guest opens itself works."""
    with without_address(wire), br_netfilter(wire.host, mode):
        hooked.start(wire.a, "opens")
        assert taken_for_another(wire, other) == set()
        assert all_of(exchanges(wire.a, wire.b), Got.ANSWER)
        assert udp(wire.b, wire.a) is Got.NOTHING


def test_who_shares_the_hosts_zone_is_safe_from_who_does_not(wire: Lan, other: Lan, hooked: Hooked) -> None:
    """The host has an address on br0; a guest under filter keeps br1 apart from it, whether it looks at connections."""
    hooked.start(wire.a, "opens")
    assert taken_for_another(wire, other) == set(VERSIONS)  # nobody on br1 is under filter
    hooked.start(other.a, "plain", bridge="br1")
    assert taken_for_another(wire, other) == set()
    hooked.start(other.a, "opens", bridge="br1")
    assert taken_for_another(wire, other) == set()
    assert taken_for_another(other, wire) == set()
    for ours in (wire, other):
        assert all_of(exchanges(ours.a, ours.b), Got.ANSWER)


@pytest.mark.parametrize("mode", ["absent", "on"])
def test_the_hosts_own_flows_and_those_that_it_routes_are_whole(
    wire: Lan, other: Lan, behind: Routed, hooked: Hooked, mode: str
) -> None:
    """To and from the host, through it, and translated by it, beside a bridge that is kept apart."""
    hooked.start(other.a, "opens", bridge="br1")
    hooked.start(wire.a, "opens")
    with br_netfilter(wire.host, mode):
        for peer in (wire.host, behind.far, wire.b):
            assert all_of(exchanges(wire.a, peer), Got.ANSWER)
        wire.nft(script=NAT_NETWORK)
        for peer in (behind.far, wire.host, wire.b):
            assert all_of(exchanges(wire.a, peer), Got.ANSWER)


def test_the_host_is_reached_by_its_link_local_address(wire: Lan, other: Lan, hooked: Hooked) -> None:
    """On a bridge that is kept apart, from either side: what is for the host itself is in the host's zone."""
    hooked.define("serves", *dual("accept", "in", "all"), *DROP_ALL)
    hosts, guests = link_local(other.host, "br1"), link_local(other.a, "eth0")
    for station, device, (to, _), mac in (
        (other.host, "br1", guests, other.a.mac),
        (other.a, "eth0", hosts, "52:54:00:00:00:fd"),
    ):
        with station.inside():
            run("ip", "neighbour", "replace", to, "lladdr", mac, "dev", device, "nud", "permanent")
    for filter_name in ("opens", "serves"):
        hooked.start(other.a, filter_name, bridge="br1")
        assert zones(other) == [zone_of(other, "br1")]
        port = fresh_port()
        near, far = (other.a, other.host) if filter_name == "opens" else (other.host, other.a)
        to, index = hosts if filter_name == "opens" else guests
        with open_socket(far, 6, socket.SOCK_STREAM) as door, open_socket(near, 6, socket.SOCK_STREAM) as asking:
            door.bind((to, port, 0, index))
            door.listen()
            asking.connect((to, port, 0, guests[1] if near is other.a else hosts[1]))
            answering, _ = door.accept()
            with answering:
                answering.settimeout(1)
                assert exchange(asking, answering) is Got.ANSWER


def link_local(station: Station, device: str) -> tuple[str, int]:
    """The address that the kernel gave a device, and the device's index."""
    with station.inside():
        words = run("ip", "-brief", "address", "show", "dev", device, "scope", "link").split()
        (found,) = (word.partition("/")[0] for word in words if word.startswith("fe80:"))
        return found, socket.if_nametoindex(device)


def zones(wire: Lan) -> list[int]:
    """The numbers in the map."""
    listed = wire.nft("list", "map", "bridge", "nwfilter", "zones")
    return [int(part) for part in listed.replace("{", " ").replace(",", " ").split() if part.isdigit()]


def zone_of(wire: Lan, bridge: str) -> int:
    """The number that a bridge is to have."""
    with wire.host.inside():
        return 20000 + socket.if_nametoindex(bridge)


def test_a_bridge_that_gets_an_address_joins_the_host(wire: Lan, other: Lan, hooked: Hooked) -> None:
    """With the next start on it; what is for the host is whole before. And leaves again."""
    hooked.start(wire.a, "plain")
    for device in ("br1", "mac1"):
        if device == "mac1":
            run("ip", "-netns", wire.host.namespace, "link", "add", "link", "br1", "name", "mac1", "type", "macvlan")
        hooked.start(other.a, "opens", bridge="br1")
        assert zones(wire) == [zone_of(wire, "br1")]
        run("ip", "-netns", wire.host.namespace, "address", "add", "10.77.0.1/24", "dev", device)
        hooked.start(other.a, "opens", bridge="br1")
        assert zones(wire) == []
        assert all_of(exchanges(other.a, other.b), Got.ANSWER)
        run("ip", "-netns", wire.host.namespace, "address", "delete", "10.77.0.1/24", "dev", device)
    run("ip", "-netns", wire.host.namespace, "link", "delete", "mac1")


def test_bridges_that_a_vlan_joins_are_one(wire: Lan, other: Lan, hooked: Hooked) -> None:
    """A guest on br1, whose port br0.10 is a VLAN of br0 where its peer is: what it opens is answered."""
    with without_address(wire), joined_by_vlan(wire, other) as beyond:
        hooked.start(wire.a, "plain")
        hooked.start(other.a, "opens", bridge="br1")
        assert zones(wire) == []
        assert all_of(exchanges(other.a, beyond), Got.ANSWER)
        assert all_of(exchanges(beyond, other.a), Got.NOTHING)


def test_a_flush_by_somebody_else(wire: Lan, other: Lan, hooked: Hooked, capsys: pytest.CaptureFixture[str]) -> None:
    """`reconnect` brings the same zone back, in which connections go on; of all rules or of the one for zones."""
    hooked.start(other.a, "opens", bridge="br1")
    hooked.start(wire.a, "opens")
    with listen(other.b, fresh_port()) as door, connected(other.a, door) as (near, far):
        for command in (["flush", "ruleset"], ["flush", "chain", "bridge", "nwfilter", "zone-prerouting"]):
            before = zones(wire)
            wire.nft(*command)
            for guest, bridge in ((wire.a, "br0"), (other.a, "br1")):
                assert hooked.hook(guest, "reconnect", "opens", bridge=bridge) == 0
            assert "repaired" in capsys.readouterr().err
            assert zones(wire) == before == [zone_of(wire, "br1")]
            assert exchange(far, near) is Got.ANSWER
            assert taken_for_another(wire, other) == set()
    for guest, bridge in ((wire.a, "br0"), (other.a, "br1")):
        assert hooked.hook(guest, "reconnect", "opens", bridge=bridge) == 0
    assert capsys.readouterr().err == ""


def test_a_share_of_the_table_is_counted_in_zones_too(wire: Lan, other: Lan, hooked: Hooked) -> None:
    """What is open counts whatever the zone, and what has gone doesn't."""
    hooked.start(other.a, "opens", bridge="br1")
    for _ in range(2):
        with wire.host.inside():
            run("conntrack", "-F")
        for _ in range(2):
            flood(other.a, other.b)
            assert opened_by(wire, other.a) == BOUND
        assert udp(other.a, other.b) is Got.NOTHING
        with wire.host.inside():
            run("conntrack", "-F")
        assert tcp(other.a, other.b) is Got.ANSWER


def test_the_administrators_own_word_counts(wire: Lan, other: Lan, hooked: Hooked) -> None:
    """
    What he exempts from tracking isn't tracked, and so has no direction; after the last guest whose rules look at
    connections nothing is tracked.
    """
    hooked.start(other.a, "opens", bridge="br1")
    with wire.host.inside():
        run("conntrack", "-F")
    wire.nft(script=NOTRACK)
    for port, tracked, asked in ((53, 0, Got.ANSWER), (54, 1, Got.NOTHING)):
        assert udp(other.b, other.a, port) is asked
        assert udp(other.a, other.b, port) in (Got.ANSWER, Got.THERE)
        assert opened_by(wire, other.a) == tracked
    wire.nft("delete", "table", "bridge", "raw")
    hooked.stop(other.a, "opens")
    with wire.host.inside():
        run("conntrack", "-F")
    assert all_of(exchanges(other.b, other.a), Got.ANSWER)
    assert opened_by(wire, other.a) == opened_by(wire, other.b) == 0
