"""
What the nft script relies on, asked of the kernel with hand-written rules.

A failure here means that a kernel or nft behaves otherwise than the renderer believes, and that its rules don't mean
what they say; the tests of the product itself are in the other files.
"""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.vm.flows import Got, closed_port, connected, exchange, fresh_port, knock, listen, open_socket, ping, tcp, udp
from tests.vm.lan import Lan, Station, run
from tests.vm.packets import ETH_IPV6, ethernet, fragments, fragments6, send, udp6
from tests.vm.packets import udp as udp_packet

pytestmark = pytest.mark.stock_kernel

HOOKS = {
    "l2pre": "prerouting priority -300",
    "l3pre": "prerouting priority -150",
    "l3post": "postrouting priority 0",
    "l2post": "postrouting priority 300",
}


def load(wire: Lan, *declarations: str, **rules: str) -> None:
    """Load a table with `declarations` (sets, chains) and, by name in HOOKS, the rules of its base chains."""
    chains = [
        f"chain {name} {{ type filter hook {HOOKS[name]}; policy accept; {text.strip()}\n }}"
        for name, text in rules.items()
    ]
    wire.nft(script="\n".join(["table bridge facts {", *declarations, *chains, "}"]))


def counted(wire: Lan) -> dict[str, int]:
    """The packets counted by each rule that has a comment, by comment; without those that counted none."""
    listing = wire.nft("list", "table", "bridge", "facts")
    found = re.findall(r'counter packets (\d+) bytes \d+ .*comment "(.+?)"', listing)
    return {name: int(packets) for packets, name in found if packets != "0"}


FLOWS = {"guest-guest": ("a", "b"), "guest-host": ("a", "host"), "host-guest": ("host", "a")}


@pytest.fixture(params=FLOWS)
def flow(request: pytest.FixtureRequest, wire: Lan) -> tuple[Station, Station]:
    """Client and server of a flow."""
    client, server = FLOWS[request.param]
    return getattr(wire, client), getattr(wire, server)


# --- VLAN tags at L2


OF_A = "ether saddr 52:54:00:00:00:01"
ETHER_TYPES = {
    # what a frame's rule says: the frames it matches
    "ether type ip": {"untagged"},
    "ether type != ip": {"tagged", "priority-tagged", "tagged arp"},
    "ether type ip ip saddr 10.0.0.1": {"untagged"},
    "ether type ip ip protocol udp udp dport 9": {"untagged"},
    "ether type arp": set(),
    "ether type 8021q": {"tagged", "priority-tagged", "tagged arp"},
    "ether type 8021q vlan id 5": {"tagged", "tagged arp"},
    "ether type 8021q vlan type 0x0800": {"tagged", "priority-tagged"},
    # nft loads what stands side by side in the header at once
    f"{OF_A} ether type 8021q": {"tagged", "priority-tagged", "tagged arp"},
    f"ether daddr 52:54:00:00:00:02 {OF_A} ether type ip": {"untagged"},
    f"ether daddr 52:54:00:00:00:02 {OF_A} ether type 8021q": {"tagged", "priority-tagged", "tagged arp"},
    f"{OF_A} ether type 8021q vlan id 5 vlan type 0x0806": {"tagged arp"},
    "ether saddr & ff:ff:ff:00:00:00 == 52:54:00:00:00:00 ether type 8021q vlan id 0": {"priority-tagged"},
    # these look inside the tag, which libvirt's rules don't
    "ip saddr 10.0.0.1": {"untagged", "tagged", "priority-tagged"},
    "meta protocol ip": {"untagged", "tagged", "priority-tagged"},
}


@pytest.mark.parametrize("vlan_filtering", [0, 1])
def test_ether_type_is_the_outer_one(wire: Lan, vlan_filtering: int) -> None:
    """At the first hook and the last: `ether type ip` matches no tagged packet, `ether type 8021q` all of them."""
    rules = "\n".join(f'{{0}} {text} counter comment "{number}"' for number, text in enumerate(ETHER_TYPES))
    packet = udp_packet(wire.a.ip, 9, wire.b.ip, 9)
    header = wire.a.mac, wire.b.mac
    frames = {
        "untagged": ethernet(*header, packet),
        "tagged": ethernet(*header, packet, vlanid=5),
        "priority-tagged": ethernet(*header, packet, vlanid=0),
        "tagged arp": ethernet(*header, bytes(28), ethertype=0x0806, vlanid=5),
    }
    matched: dict[str, set[tuple[str, str]]] = {text: set() for text in ETHER_TYPES}
    expected: dict[str, set[tuple[str, str]]] = {text: set() for text in ETHER_TYPES}
    with _vlan_filtering(wire, vlan_filtering):
        for hook, port in (("l2pre", "iifname vnet0"), ("l2post", "oifname vnet1")):
            for name, frame in frames.items():
                # pkttype: a's kernel has something to say to multicast groups, too
                load(wire, **{hook: rules.format(f"{port} meta pkttype other")})
                send(wire.a, frame)
                for number in counted(wire):
                    matched[list(ETHER_TYPES)[int(number)]].add((hook, name))
                wire.nft("delete", "table", "bridge", "facts")
                # A bridge that filters VLANs gives a priority-tagged frame its port's VLAN, here an untagged one.
                seen_as = "untagged" if (hook, name, vlan_filtering) == ("l2post", "priority-tagged", 1) else name
                for text, names in ETHER_TYPES.items():
                    if seen_as in names:
                        expected[text].add((hook, name))
    assert matched == expected


# --- connection tracking


@pytest.mark.parametrize("version", [4, 6])
def test_flows_are_tracked_in_both_directions(wire: Lan, flow: tuple[Station, Station], version: int) -> None:
    """At a's tap the client's packets are new or established and original, the server's established and reply."""
    client, server = flow
    rules = "\n".join(
        f'{{0}} tcp dport 0-65535 ct state {state} ct direction {direction} counter comment "{{1}} {state} {direction}"'
        for state in ("new", "established", "invalid", "untracked")
        for direction in ("original", "reply")
    )
    load(wire, l3pre=rules.format("iifname vnet0", "from"), l3post=rules.format("oifname vnet0", "to"))
    assert tcp(client, server, version=version) is Got.ANSWER
    asked, answered = ("from", "to") if client is wire.a else ("to", "from")
    assert set(counted(wire)) == {
        f"{asked} new original",
        f"{asked} established original",
        f"{answered} established reply",
    }


def test_an_icmp_error_about_a_connection_is_related(wire: Lan, flow: tuple[Station, Station]) -> None:
    """A port unreachable toward the client has state related, and direction reply."""
    client, server = flow
    error = "icmp type destination-unreachable ct state related ct direction reply"
    load(
        wire,
        l3pre=f'iifname {server.tap} {error} counter comment "from server"',
        l3post=f'oifname {client.tap} {error} counter comment "to client"',
    )
    assert closed_port(client, server, fresh_port()) is Got.REFUSED
    hosts_end = {wire.a: {"from server": 1}, wire.host: {"to client": 1}}
    assert counted(wire) == ({"from server": 1, "to client": 1} if wire.host not in flow else hosts_end[server])


def test_what_l2_drops_leaves_no_tracked_connection(wire: Lan) -> None:
    """Priority -300 is before conntrack's -200: a spoofed packet can't open a connection."""
    load(wire, l2pre="iifname vnet0 udp dport 1 drop", l3pre="ct state new counter accept")
    for port in (1, 2):
        send(wire.a, ethernet(wire.a.mac, wire.b.mac, udp_packet("10.0.0.77", 9, wire.b.ip, port)))
    with wire.host.inside():
        assert re.findall(r"src=10.0.0.77 .*?dport=(\d+)", run("conntrack", "-L")) == ["2"]


def test_neighbour_discovery_is_untracked(wire: Lan) -> None:
    """`ct state new` never matches it, nor does invalid: as in ip6tables."""
    load(wire, l3pre='iifname vnet0 icmpv6 type nd-neighbor-solicit ct state untracked counter comment "untracked"')
    with wire.a.inside():
        run("ip", "neighbour", "replace", "fd00::77", "lladdr", "52:54:00:00:00:77", "nud", "none", "dev", "eth0")
    with open_socket(wire.a, 6, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"?", ("fd00::77", 9))
    assert counted(wire).get("untracked", 0) >= 1


@pytest.mark.parametrize("vlan_filtering", [0, 1])
def test_tagged_packets_are_tracked_too(wire: Lan, vlan_filtering: int) -> None:
    """A packet in a VLAN tag has a state, and shares it with the untagged connection of that address and port."""
    load(
        wire,
        l3pre="""
            iifname vnet0 ether type 8021q ct state new counter comment "tagged new"
            iifname vnet0 ether type 8021q ct state established counter comment "tagged established"
            iifname vnet0 ether type ip ct state new counter comment "untagged new"
            iifname vnet1 ether type ip udp sport 9 ct state established counter comment "untagged reply" """,
    )
    with _vlan_filtering(wire, vlan_filtering):
        port = fresh_port()
        tagged = ethernet(wire.a.mac, wire.b.mac, udp_packet(wire.a.ip, port, wire.b.ip, 9), vlanid=5)
        send(wire.a, tagged)
        send(wire.b, ethernet(wire.b.mac, wire.a.mac, udp_packet(wire.b.ip, 9, wire.a.ip, port)))
        send(wire.a, tagged)
    assert counted(wire) == {"tagged new": 1, "untagged reply": 1, "tagged established": 1}


@contextmanager
def _vlan_filtering(wire: Lan, on: int) -> Iterator[None]:
    """Turn it on, with VLAN 5 allowed on every port."""

    def switch(value: int) -> None:
        with wire.host.inside():
            run("ip", "link", "set", "br0", "type", "bridge", "vlan_filtering", str(value))
            for port in ("vnet0", "vnet1"):
                run("bridge", "vlan", "add" if value else "delete", "dev", port, "vid", "5")

    if on:
        switch(1)
    try:
        yield
    finally:
        if on:
            switch(0)


@pytest.mark.parametrize("tracking", ["", "ct state invalid drop"], ids=["untracked", "tracked"])
def test_fragments_are_put_together_between_the_layers(wire: Lan, tracking: str) -> None:
    """Once there is a `ct` rule, only L2 from the guest sees fragments; else every chain does."""
    count = """
        {0} ether type ip udp dport 0-65535 ip frag-off & 0x3fff == 0 counter comment "{1} whole"
        {0} ether type ip ip frag-off & 0x3fff != 0 counter comment "{1} fragment" """
    port = {"l2pre": "iifname vnet0", "l3pre": "iifname vnet0", "l3post": "oifname vnet1", "l2post": "oifname vnet1"}
    rules = {chain: count.format(port[chain], chain) for chain in HOOKS}
    load(wire, **{**rules, "l3pre": f"{tracking}\n{rules['l3pre']}"})
    datagram = struct.pack("!HHHH", 9, fresh_port(), 3008, 0) + bytes(3000)
    for piece in fragments(wire.a.ip, wire.b.ip, socket.IPPROTO_UDP, datagram, size=1400):
        send(wire.a, ethernet(wire.a.mac, wire.b.mac, piece))
    later = {f"{chain} whole": 1 for chain in HOOKS} if tracking else {f"{chain} fragment": 3 for chain in HOOKS}
    later.pop("l2pre whole", None)
    assert counted(wire) == {**later, "l2pre fragment": 3}


@pytest.mark.parametrize("tracking", ["", "ct state invalid drop"], ids=["untracked", "tracked"])
def test_small_ipv6_fragments_are_lost_if_connections_are_looked_at(wire: Lan, tracking: str) -> None:
    """
    Before a packet leaves, the kernel cuts it as it was, and refuses if the largest fragment was below 1280 octets, the
    least MTU of IPv6 (br_ip6_fragment in net/ipv6/netfilter.c).
    """
    load(wire, l3pre=tracking)
    arrived = []
    for size in (1072, 1272, 1280):
        port = fresh_port()
        datagram = udp6(wire.a.ip6, 9, wire.b.ip6, port, bytes(2000))
        pieces = fragments6(wire.a.ip6, wire.b.ip6, socket.IPPROTO_UDP, datagram, size=size)
        with open_socket(wire.b, 6, socket.SOCK_DGRAM) as sock:
            sock.bind((str(wire.b.ip6), port))
            send(wire.a, *(ethernet(wire.a.mac, wire.b.mac, piece, ethertype=ETH_IPV6) for piece in pieces))
            try:
                arrived.append(len(sock.recv(10000)))
            except TimeoutError:
                arrived.append(0)
    assert arrived == ([0, 0, 2000] if tracking else [2000, 2000, 2000])


# --- reject, meta ibrname, ct count, sets


@pytest.mark.parametrize("version", [4, 6])
def test_reject_in_prerouting_answers_the_guest(wire: Lan, version: int) -> None:
    """At once, whether the packet is for another guest or for the host."""
    port = fresh_port()
    for server in (wire.b, wire.host):
        assert tcp(wire.a, server, port, version=version) is Got.ANSWER
        assert udp(wire.a, server, port, version=version) is Got.ANSWER
    load(wire, l3pre=f"iifname vnet0 tcp dport {port} reject with tcp reset\n iifname vnet0 udp dport {port} reject")
    for server in (wire.b, wire.host):
        assert tcp(wire.a, server, port, version=version) is Got.REFUSED
        assert udp(wire.a, server, port, version=version) is Got.REFUSED


def test_reject_is_refused_in_postrouting(wire: Lan) -> None:
    """So toward the guest it has to be a drop."""
    load(wire, l3pre="reject")
    with pytest.raises(RuntimeError, match="Operation not supported"):
        load(wire, l3post="reject")


def test_ibrname_is_the_bridge_of_the_port(wire: Lan) -> None:
    """In prerouting."""
    load(wire, l2pre='iifname vnet0 meta ibrname br0 counter comment "br0"\n meta ibrname br1 counter comment "br1"')
    assert ping(wire.a, wire.b) is Got.ANSWER
    assert counted(wire) == {"br0": 1}


def test_ct_count_counts_connections_per_source(wire: Lan) -> None:
    """`add @set { ip saddr ct count over 2 }` matches the third connection of a guest, not the second guest's first."""
    load(
        wire,
        "set per_source { type ipv4_addr; size 65535; flags dynamic; }",
        l3pre="iifname { vnet0, vnet1 } tcp dport 7777 add @per_source { ip saddr ct count over 2 } counter drop",
    )
    with listen(wire.host, 7777) as door, connected(wire.a, door) as (near, far), connected(wire.a, door):
        assert knock(wire.a, door) is Got.NOTHING
        assert knock(wire.b, door) is Got.ANSWER
        assert exchange(near, far) is Got.ANSWER


def test_a_dynamic_set_of_one_learns_one_address(wire: Lan) -> None:
    """`add @learned` matches for the first address and what is in there; a second is neither added nor matched."""
    load(
        wire,
        "set learned { type ipv4_addr; size 1; flags dynamic; }",
        l2pre="""
            iifname vnet0 ether type ip ip saddr @learned counter accept comment "known"
            iifname vnet0 ether type ip add @learned { ip saddr } counter accept comment "added"
            iifname vnet0 ether type ip counter drop comment "foreign" """,
    )
    for source in ("10.0.0.1", "10.0.0.1", "10.0.0.77", "10.0.0.1"):
        send(wire.a, ethernet(wire.a.mac, wire.b.mac, udp_packet(source, 9, wire.b.ip, 9)))
    assert counted(wire) == {"added": 1, "known": 2, "foreign": 1}


# --- what the host itself sends toward a guest


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("how", ["reject", "reject with tcp reset"])
def test_the_answer_of_reject_is_local_and_untracked(wire: Lan, version: int, how: str) -> None:
    """It passes postrouting, where it differs from all that came in through a port: pkttype host and state invalid."""
    family = {4: "ip", 6: "ip6"}[version]
    # not everything: IPv6 has traffic of its own
    unreachable = {4: "icmp", 6: "icmpv6"}[version] + " type destination-unreachable"
    load(
        wire,
        l3pre=f"iifname vnet0 ether type {family} meta l4proto tcp ct state new {how}",
        l3post=f"""
            oifname vnet0 ether type {family} meta pkttype host ct state invalid counter accept comment "answer"
            oifname vnet0 ether type {family} meta l4proto tcp counter comment "other"
            oifname vnet0 ether type {family} {unreachable} counter comment "other" """,
    )
    assert tcp(wire.a, wire.b, version=version, patience_s=6) is Got.REFUSED
    # A TCP6 socket may need a second try (test_stateful.py).
    assert set(counted(wire)) == {"answer"}


@pytest.mark.parametrize("version", [4, 6])
def test_bridged_packets_are_not_of_pkttype_host(wire: Lan, version: int) -> None:
    """So a peer can't forge what passes for an answer of `reject`."""
    load(
        wire,
        l3pre="ct state invalid accept",
        l3post="""
            oifname vnet0 meta pkttype other counter comment "bridged"
            oifname vnet0 meta pkttype host counter comment "local" """,
    )
    assert ping(wire.b, wire.a, version=version) is Got.ANSWER
    assert set(counted(wire)) == {"bridged"}
    assert ping(wire.host, wire.a, version=version) is Got.ANSWER
    assert set(counted(wire)) == {"bridged", "local"}


@pytest.mark.parametrize("version", [4, 6])
def test_the_hosts_fragments_come_in_pieces_with_the_connections_state(wire: Lan, version: int) -> None:
    """Nobody puts them together: later ones have no port to match, but state and direction."""
    later = {4: "ether type ip ip frag-off & 0x1fff != 0", 6: "ether type ip6 frag frag-off != 0"}[version]
    load(
        wire,
        l3post=f"""
            oifname vnet0 udp sport 9 counter comment "with port"
            oifname vnet0 {later} ct state established ct direction reply counter comment "later" """,
    )
    assert udp(wire.a, wire.host, 9, size=4000, version=version) is Got.ANSWER
    assert counted(wire) == {"with port": 1, "later": 2}
