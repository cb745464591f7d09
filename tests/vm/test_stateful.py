"""
L3 rules, with real sockets: what `nwfilter-hook compile` prints is loaded, guests a and b and the host talk.

Unless a test says otherwise the filter is guest a's, and "in" and "out" are seen from there.
"""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
from click.testing import CliRunner

from nwfilter_hook.cli.main import cli
from tests.vm.flows import (
    Got,
    closed_port,
    connected,
    exchange,
    fresh_port,
    icmp,
    knock,
    listen,
    open_socket,
    ping,
    raw,
    sctp,
    tcp,
    udp,
    udplite,
)
from tests.vm.lan import Lan, Station, run
from tests.vm.packets import ethernet, send
from tests.vm.packets import udp as udp_packet

pytestmark = pytest.mark.stock_kernel

DOCUMENTS_FILTERS = Path(__file__).parents[1] / "data" / "filters-2010"
OTHER_MAC = "52:54:00:00:00:77"
SUFFIX = {4: "", 6: "-ipv6"}
both_versions = pytest.mark.parametrize("version", [4, 6])


def rule(action: str, direction: str, *elements: str, **attributes: object) -> str:
    """A <rule>; `elements` are written as "tcp dstportstart='22'"."""
    options = "".join(f" {name}='{value}'" for name, value in attributes.items())
    nodes = "".join(f"<{element}/>" for element in elements)
    return f"<rule action='{action}' direction='{direction}'{options}>{nodes}</rule>"


def drop_all(version: int = 4) -> str:
    """What ends a filter that accepts only what it names."""
    return rule("drop", "inout", f"all{SUFFIX[version]}", priority=1000)


Enforce = Callable[..., None]


@pytest.fixture
def enforce(wire: Lan, tmp_path: Path) -> Enforce:
    """
    enforce(*rules, guest=wire.a, beside=False): compile a filter of these rules and load it for the guest's tap, in the
    place of all that was loaded or beside it.
    """

    def enforce(*rules: str, guest: Station | None = None, beside: bool = False) -> None:
        (tmp_path / "under-test.xml").write_text(f"<filter name='under-test'>{''.join(rules)}</filter>")
        load(wire, guest or wire.a, "under-test", tmp_path, beside=beside)

    return enforce


def load(wire: Lan, guest: Station, name: str, directory: Path, *, beside: bool = False, **parameters: object) -> None:
    """Compile the filter `name` for the guest's tap and hand the script to the kernel, as one transaction."""
    arguments = ["compile", "--filter", name, "--filters", str(directory), "--tap", guest.tap, "--mac", guest.mac]
    arguments += [f"-p{key}={value}" for key, value in parameters.items()]
    done = CliRunner().invoke(cli, arguments)
    if done.exception:
        raise done.exception
    first = "" if beside else "add table bridge nwfilter\ndelete table bridge nwfilter\n"
    wire.nft(script=first + done.stdout)


# --- the document's examples


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    """test-eth0 and its variants, on top of the stock clean-traffic: that of 2010 lets no IPv4 out (its comment)."""
    for path in DOCUMENTS_FILTERS.glob("test-eth0*.xml"):
        shutil.copy(path, tmp_path)
    return tmp_path


@pytest.fixture(params=["b", "host"])
def peer(request: pytest.FixtureRequest, wire: Lan) -> Station:
    """Whom guest a talks with."""
    station: Station = getattr(wire, request.param)
    return station


def test_document_test_eth0(wire: Lan, examples: Path, peer: Station) -> None:
    """TCP 22 and 80 can be reached, the guest's ICMP goes out, nothing else goes either way."""
    load(wire, wire.a, "test-eth0", examples, IP=wire.a.ip)
    assert tcp(peer, wire.a, 22) is Got.ANSWER
    assert tcp(peer, wire.a, 80) is Got.ANSWER
    assert tcp(peer, wire.a, 443) is Got.NOTHING
    assert tcp(wire.a, peer, 22) is Got.NOTHING
    assert ping(wire.a, peer) is Got.ANSWER
    assert ping(peer, wire.a) is Got.NOTHING
    assert udp(wire.a, peer, 53) is Got.NOTHING
    assert udp(peer, wire.a) is Got.NOTHING


def test_document_test_eth0_with_dns(wire: Lan, examples: Path, peer: Station) -> None:
    """Name servers answer the guest; they can't ask it."""
    load(wire, wire.a, "test-eth0-dns", examples, IP=wire.a.ip)
    assert udp(wire.a, peer, 53) is Got.ANSWER
    assert udp(wire.a, peer, 54) is Got.NOTHING
    assert udp(peer, wire.a, sport=53) is Got.NOTHING
    assert tcp(peer, wire.a, 22) is Got.ANSWER


def test_document_test_eth0_with_ping(wire: Lan, examples: Path, peer: Station) -> None:
    """Echo requests out and replies in are all of ICMP that passes."""
    load(wire, wire.a, "test-eth0-ping", examples, IP=wire.a.ip)
    assert ping(wire.a, peer) is Got.ANSWER
    assert ping(peer, wire.a) is Got.NOTHING
    assert icmp(wire.a, peer, 13) is Got.NOTHING
    assert tcp(peer, wire.a, 80) is Got.ANSWER


@pytest.mark.parametrize("state", ["ESTABLISHED,RELATED", "ESTABLISHED"])
def test_document_general_established_rules(wire: Lan, enforce: Enforce, peer: Station, state: str) -> None:
    """New connections per port, all that is established both ways; the guest's ICMP errors only if RELATED is there."""
    enforce(
        rule("accept", "in", "all state='ESTABLISHED'"),
        rule("accept", "out", f"all state='{state}'"),
        rule("accept", "in", "tcp state='NEW' dstportstart='21'"),
        rule("accept", "in", "udp state='NEW' dstportstart='21'"),
        drop_all(),
    )
    assert tcp(peer, wire.a, 21) is Got.ANSWER
    assert tcp(peer, wire.a, 22) is Got.NOTHING
    assert tcp(wire.a, peer, 21) is Got.NOTHING
    assert udp(peer, wire.a, 21) is Got.ANSWER
    assert closed_port(peer, wire.a, 21) is (Got.REFUSED if "RELATED" in state else Got.NOTHING)


# --- accept: the stateful pair, and its stateless forms


EXCHANGES: dict[str, Callable[..., Got]] = {"tcp": tcp, "udp": udp, "sctp": sctp, "udplite": udplite}


@both_versions
@pytest.mark.parametrize("protocol", EXCHANGES)
def test_accept_out_lets_the_guest_open_connections(wire: Lan, enforce: Enforce, protocol: str, version: int) -> None:
    """The guest opens them and is answered; nobody opens one to it, and no other protocol passes."""
    enforce(rule("accept", "out", f"{protocol}{SUFFIX[version]}"), drop_all(version))
    with unchecked(wire) if protocol == "udplite" else nullcontext():
        for name, try_ in EXCHANGES.items():
            assert try_(wire.a, wire.b, version=version) is (Got.ANSWER if name == protocol else Got.NOTHING), name
        assert EXCHANGES[protocol](wire.b, wire.a, version=version) is Got.NOTHING


@contextmanager
def unchecked(wire: Lan) -> Iterator[None]:
    """Conntrack leaves checksums alone: that of UDP-Lite it computes as UDP's, and finds every packet invalid."""

    def switch(value: int) -> None:
        with wire.host.inside():
            run("sysctl", "-q", "-w", f"net.netfilter.nf_conntrack_checksum={value}")

    switch(0)
    try:
        yield
    finally:
        switch(1)


@both_versions
def test_accept_out_by_port(wire: Lan, enforce: Enforce, peer: Station, version: int) -> None:
    """The way back is open to answers only: not to a new connection from the port that may be reached."""
    enforce(rule("accept", "out", f"tcp{SUFFIX[version]} dstportstart='22'"), drop_all(version))
    assert tcp(wire.a, peer, 22, version=version) is Got.ANSWER
    assert tcp(wire.a, peer, 23, version=version) is Got.NOTHING
    assert tcp(peer, wire.a, 22, version=version) is Got.NOTHING
    assert tcp(peer, wire.a, sport=22, version=version) is Got.NOTHING


@both_versions
def test_accept_in_by_port(wire: Lan, enforce: Enforce, peer: Station, version: int) -> None:
    """The guest may answer from the port, and not open a connection from it."""
    enforce(rule("accept", "in", f"tcp{SUFFIX[version]} dstportstart='22'"), drop_all(version))
    assert tcp(peer, wire.a, 22, version=version) is Got.ANSWER
    assert tcp(peer, wire.a, 23, version=version) is Got.NOTHING
    assert tcp(wire.a, peer, 22, version=version) is Got.NOTHING
    assert tcp(wire.a, peer, sport=22, version=version) is Got.NOTHING


@both_versions
def test_accept_inout_is_stateless(wire: Lan, enforce: Enforce, peer: Station, version: int) -> None:
    """The port is the guest's own, whoever opens the connection; it can't reach that port of others."""
    enforce(rule("accept", "inout", f"tcp{SUFFIX[version]} dstportstart='80'"), drop_all(version))
    assert tcp(peer, wire.a, 80, version=version) is Got.ANSWER
    assert tcp(wire.a, peer, sport=80, version=version) is Got.ANSWER
    assert tcp(wire.a, peer, 80, version=version) is Got.NOTHING
    assert tcp(peer, wire.a, 81, version=version) is Got.NOTHING


@pytest.mark.parametrize("statematch", ["true", "false"])
@both_versions
def test_statematch_false_lets_both_sides_open(wire: Lan, enforce: Enforce, version: int, statematch: str) -> None:
    """The guest may open connections from the port that was to be reached."""
    accept = rule("accept", "in", f"tcp{SUFFIX[version]} dstportstart='12345'", statematch=statematch)
    enforce(accept, drop_all(version))
    assert tcp(wire.b, wire.a, 12345, version=version) is Got.ANSWER
    from_the_port = tcp(wire.a, wire.b, sport=12345, version=version)
    assert from_the_port is (Got.ANSWER if statematch == "false" else Got.NOTHING)


def test_state_makes_a_rule_one_directional(wire: Lan, enforce: Enforce) -> None:
    """The request goes in, the answer doesn't come out."""
    accept = rule("accept", "in", "udp dstportstart='22' state='NEW,ESTABLISHED'")
    enforce(accept, drop_all())
    assert udp(wire.b, wire.a, 22) is Got.THERE
    enforce(accept, rule("accept", "out", "udp srcportstart='22' state='ESTABLISHED'"), drop_all())
    assert udp(wire.b, wire.a, 22) is Got.ANSWER
    assert udp(wire.a, wire.b, sport=22) is Got.NOTHING


def test_state_none_is_stateless_and_one_directional(wire: Lan, enforce: Enforce) -> None:
    """The documented stateless pair: the guest may also send first."""
    accept = rule("accept", "in", "udp dstportstart='22' state='NONE'")
    enforce(accept, drop_all())
    assert udp(wire.b, wire.a, 22) is Got.THERE
    enforce(accept, rule("accept", "out", "udp srcportstart='22' state='NONE'"), drop_all())
    assert udp(wire.b, wire.a, 22) is Got.ANSWER
    assert udp(wire.a, wire.b, sport=22) is Got.ANSWER
    assert udp(wire.a, wire.b) is Got.NOTHING


@pytest.mark.parametrize(("element", "number"), [("esp", 50), ("ah", 51), ("igmp", 2)])
def test_protocols_without_ports(wire: Lan, enforce: Enforce, element: str, number: int) -> None:
    """One packet there is all that can be asked; what was sent there may be answered, nobody else may begin."""
    others = [other for other in (50, 51, 2, 47) if other != number]
    payload = bytes(range(32))
    enforce(rule("accept", "out", element), drop_all())
    assert raw(wire.b, wire.a, number, payload) is Got.NOTHING
    for other in others:
        assert raw(wire.a, wire.b, other, payload) is Got.NOTHING
    with wire.host.inside():
        run("conntrack", "-F")  # what was dropped on its way out opened no connection, what came in may have
    assert raw(wire.a, wire.b, number, payload) is Got.THERE
    assert raw(wire.b, wire.a, number, payload) is Got.THERE


# --- drop and reject


@both_versions
def test_drop_is_two_directional(wire: Lan, enforce: Enforce, version: int) -> None:
    """`drop out` to port 25 also drops what comes from port 25, and nothing else."""
    enforce(rule("drop", "out", f"tcp{SUFFIX[version]} dstportstart='25'"))
    assert tcp(wire.a, wire.b, 25, version=version) is Got.NOTHING
    assert tcp(wire.b, wire.a, sport=25, version=version) is Got.NOTHING
    assert tcp(wire.b, wire.a, 25, version=version) is Got.ANSWER
    assert tcp(wire.a, wire.b, 26, version=version) is Got.ANSWER


def test_drop_in_all_blocks_the_guests_own_connections(wire: Lan, enforce: Enforce, peer: Station) -> None:
    """And with `state` it doesn't."""
    enforce(rule("drop", "in", "all"))
    assert udp(wire.a, peer) is Got.NOTHING
    assert udp(peer, wire.a) is Got.NOTHING
    enforce(rule("drop", "in", "all state='NEW'"))
    assert udp(wire.a, peer) is Got.ANSWER
    assert udp(peer, wire.a) is Got.NOTHING


@both_versions
def test_the_answer_to_a_rejected_packet_passes(wire: Lan, enforce: Enforce, peer: Station, version: int) -> None:
    """Whatever else is dropped, the guest gets the ICMP error that its rule asks for."""
    enforce(rule("reject", "out", f"udp{SUFFIX[version]}", priority=400), drop_all(version))
    assert closed_port(wire.a, peer, fresh_port(), version=version) is Got.REFUSED
    assert closed_port(peer, wire.a, fresh_port(), version=version) is Got.NOTHING
    assert ping(wire.a, peer, version=version) is Got.NOTHING


# --- MAC addresses


def test_mac_is_compared_in_the_rules_own_direction(wire: Lan, enforce: Enforce) -> None:
    """`accept in` from b's MAC: b is answered by the guest, although its own frames have another source MAC."""
    enforce(rule("accept", "in", f"tcp srcmacaddr='{wire.b.mac}' dstportstart='22'"), drop_all())
    assert tcp(wire.b, wire.a, 22) is Got.ANSWER
    assert tcp(wire.host, wire.a, 22) is Got.NOTHING
    enforce(rule("accept", "out", "tcp srcmacaddr='$MAC' dstportstart='22'"), drop_all())
    assert tcp(wire.a, wire.b, 22) is Got.ANSWER
    enforce(rule("accept", "out", f"tcp srcmacaddr='{OTHER_MAC}' dstportstart='22'"), drop_all())
    assert tcp(wire.a, wire.b, 22) is Got.NOTHING


def test_mac_alone_makes_no_rule_for_the_other_direction(wire: Lan, enforce: Enforce) -> None:
    """An accepted request isn't answered; `drop out` for foreign MACs drops nothing that comes to the guest."""
    enforce(rule("accept", "in", f"udp srcmacaddr='{wire.b.mac}'"), drop_all())
    assert udp(wire.b, wire.a) is Got.THERE
    enforce(rule("drop", "out", "all match='no' srcmacaddr='$MAC'"))
    assert udp(wire.a, wire.b) is Got.ANSWER
    assert udp(wire.b, wire.a) is Got.ANSWER
    assert _arrives(wire, wire.a.mac)
    assert not _arrives(wire, OTHER_MAC)


def test_mac_is_forgotten_in_the_other_direction(wire: Lan, enforce: Enforce) -> None:
    """The documented trap: with a port beside it, whatever comes to the guest for that port is dropped."""
    enforce(rule("drop", "out", "udp match='no' srcmacaddr='$MAC'", "udp srcportstart='25'"))
    assert udp(wire.b, wire.a, 25) is Got.NOTHING
    assert udp(wire.b, wire.a, 26) is Got.ANSWER
    assert _arrives(wire, OTHER_MAC, sport=24)
    assert not _arrives(wire, OTHER_MAC, sport=25)
    assert _arrives(wire, wire.a.mac, sport=25)


def _arrives(wire: Lan, mac: str, *, sport: int = 9, vlanid: int | None = None) -> bool:
    """Whether a UDP datagram from guest a under this source MAC gets to guest b's wire."""
    port = fresh_port()
    with wire.b.inside():
        tapped = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    with tapped:
        tapped.bind(("eth0", 0x0003))
        tapped.settimeout(0.3)
        packet = udp_packet(wire.a.ip, sport, wire.b.ip, port)
        send(wire.a, ethernet(mac, wire.b.mac, packet, vlanid=vlanid))
        try:
            # A tag may have been taken off the frame, and is then told beside it; the packet is there anyhow.
            while not tapped.recv(2000).endswith(packet):
                pass
        except TimeoutError:
            return False
    return True


@pytest.mark.parametrize("spoofing_is_stopped", [True, False])
def test_no_way_in_through_anothers_connection(wire: Lan, enforce: Enforce, spoofing_is_stopped: bool) -> None:
    """
    Whatever is established, a frame under another guest's addresses ends at layer 2, before connection tracking has
    seen it. Without the stock filter it does get into that guest's connection.
    """
    own = f"<filterref filter='clean-traffic'><parameter name='IP' value='{wire.a.ip}'/></filterref>"
    established = (rule("accept", "out", "all state='ESTABLISHED'"), rule("accept", "in", "all"), drop_all())
    enforce(*((own,) if spoofing_is_stopped else ()), *established)
    port, sport = fresh_port(), fresh_port()
    with open_socket(wire.host, 4, socket.SOCK_DGRAM) as far, open_socket(wire.b, 4, socket.SOCK_DGRAM) as near:
        far.bind((str(wire.host.ip), port))
        near.bind((str(wire.b.ip), sport))
        near.connect((str(wire.host.ip), port))
        near.send(b"own")
        assert far.recvfrom(100) == (b"own", (str(wire.b.ip), sport))
        far.sendto(b"answer", (str(wire.b.ip), sport))
        assert near.recv(100) == b"answer"
        spoofed = udp_packet(wire.b.ip, sport, wire.host.ip, port, b"spoofed.")
        send(wire.a, ethernet(wire.b.mac, wire.host.mac, spoofed))
        near.send(b"own again")
        received = [far.recv(100) for _ in range(1 if spoofing_is_stopped else 2)]
    assert received == [b"own again"] if spoofing_is_stopped else [b"spoofed.", b"own again"]


def test_l3_rules_do_not_look_into_vlan_tags(wire: Lan, enforce: Enforce) -> None:
    """As in libvirt, where iptables never sees tagged frames: L2 rules decide over those."""
    enforce(drop_all())
    assert not _arrives(wire, wire.a.mac)
    assert _arrives(wire, wire.a.mac, vlanid=5)
    enforce(drop_all(), rule("drop", "inout", "vlan"))
    assert not _arrives(wire, wire.a.mac, vlanid=5)


# --- connlimit, ipset


@both_versions
def test_connlimit_in_counts_per_client(wire: Lan, enforce: Enforce, version: int) -> None:
    """One connection each; a second one only when the first is closed."""
    tcp_ = f"tcp{SUFFIX[version]}"
    enforce(
        rule("drop", "in", f"{tcp_} connlimit-above='1'", priority=400),
        rule("accept", "in", f"{tcp_} dstportstart='22'"),
        drop_all(version),
    )
    with listen(wire.a, 22, version=version) as door:
        with connected(wire.b, door) as (near, far):
            assert knock(wire.b, door) is Got.NOTHING
            assert knock(wire.host, door) is Got.ANSWER
            assert exchange(near, far) is Got.ANSWER
        assert any(knock(wire.b, door) is Got.ANSWER for _ in range(10))


def test_connlimit_out_counts_the_guests_connections(wire: Lan, enforce: Enforce) -> None:
    """The documented example: one ping at a time."""
    enforce(
        rule("drop", "out", "icmp connlimit-above='1'", priority=400),
        rule("accept", "out", "icmp"),
        drop_all(),
    )
    assert [ping(wire.a, wire.b), ping(wire.a, wire.b)] == [Got.ANSWER, Got.NOTHING]


def test_connlimit_negated_is_at_most(wire: Lan, enforce: Enforce) -> None:
    """`accept` for up to two connections, stateless and one-directional."""
    enforce(
        rule("accept", "in", "tcp match='no' connlimit-above='2'"),
        rule("accept", "out", "tcp state='ESTABLISHED'"),
        drop_all(),
    )
    with listen(wire.a, 22) as door, connected(wire.b, door), connected(wire.b, door):
        assert knock(wire.b, door) is Got.NOTHING
        assert knock(wire.host, door) is Got.ANSWER


@pytest.mark.parametrize("flags", ["src", "dst"])
@both_versions
def test_ipset_is_a_named_set_of_the_table(wire: Lan, enforce: Enforce, version: int, flags: str) -> None:
    """Its addresses are compared with the side that `ipsetflags` says; what leaves the set is no longer accepted."""
    direction = "in" if flags == "src" else "out"
    set_rule = rule("accept", direction, f"udp{SUFFIX[version]} ipset='friends' ipsetflags='{flags}'")
    enforce(set_rule, drop_all(version))

    def try_(peer: Station) -> Got:
        ends = (peer, wire.a) if flags == "src" else (wire.a, peer)
        return udp(*ends, version=version)

    (name,) = _sets(wire)
    friend = str(wire.b.ip if version == 4 else wire.b.ip6)
    assert [try_(wire.b), try_(wire.host)] == [Got.NOTHING, Got.NOTHING]
    wire.nft("add", "element", "bridge", "nwfilter", name, f"{{ {friend} }}")
    assert [try_(wire.b), try_(wire.host)] == [Got.ANSWER, Got.NOTHING]
    enforce(set_rule, drop_all(version), beside=True)
    assert [try_(wire.b), try_(wire.host)] == [Got.ANSWER, Got.NOTHING]
    wire.nft("delete", "element", "bridge", "nwfilter", name, f"{{ {friend} }}")
    assert try_(wire.b) is Got.NOTHING


def _sets(wire: Lan) -> list[str]:
    lines = wire.nft("--terse", "list", "sets", "bridge").splitlines()
    return [line.split()[1] for line in lines if line.strip().startswith("set ")]


# --- ICMP types


@both_versions
def test_typed_icmp_rules_make_no_way_back(wire: Lan, enforce: Enforce, version: int) -> None:
    """Ping needs a rule for each direction."""
    element, request, reply = _echo(version)
    out = rule("accept", "out", f"{element} type='{request}'")
    enforce(out, drop_all(version))
    assert icmp(wire.a, wire.b, request, version=version) is Got.THERE
    assert ping(wire.a, wire.b, version=version) is Got.NOTHING
    enforce(out, rule("accept", "in", f"{element} type='{reply}'"), drop_all(version))
    assert ping(wire.a, wire.b, version=version) is Got.ANSWER
    assert ping(wire.b, wire.a, version=version) is Got.NOTHING


@both_versions
def test_typed_icmp_inout_works_both_ways(wire: Lan, enforce: Enforce, version: int) -> None:
    """Where libvirt makes no rule at all."""
    element, request, reply = _echo(version)
    enforce(*(rule("accept", "inout", f"{element} type='{kind}'") for kind in (request, reply)), drop_all(version))
    assert ping(wire.a, wire.b, version=version) is Got.ANSWER
    assert ping(wire.b, wire.a, version=version) is Got.ANSWER
    enforce(rule("drop", "inout", f"{element} type='{request}'"))
    assert ping(wire.a, wire.b, version=version) is Got.NOTHING
    assert ping(wire.b, wire.a, version=version) is Got.NOTHING


def _echo(version: int) -> tuple[str, int, int]:
    return ("icmp", 8, 0) if version == 4 else ("icmpv6", 128, 129)


# --- the layers, several guests, a connection's life


def test_accept_at_l2_does_not_skip_l3(wire: Lan, enforce: Enforce) -> None:
    """And a drop at L2 is final."""
    enforce(rule("accept", "inout", "ip"), rule("drop", "out", "udp dstportstart='9'"))
    assert udp(wire.a, wire.b, 9) is Got.NOTHING
    assert udp(wire.a, wire.b, 10) is Got.ANSWER
    enforce(rule("drop", "out", "ip protocol='udp' dstportstart='10'"), rule("accept", "out", "udp"), drop_all())
    assert udp(wire.a, wire.b, 10) is Got.NOTHING
    assert udp(wire.a, wire.b, 11) is Got.ANSWER


def test_return_accepts_and_continue_goes_on(wire: Lan, enforce: Enforce) -> None:
    """`return` leaves the tap's rules, in both directions; `continue` does nothing."""
    enforce(rule("return", "out", "udp dstportstart='9'"), rule("continue", "out", "udp dstportstart='10'"), drop_all())
    assert udp(wire.a, wire.b, 9) is Got.ANSWER
    assert udp(wire.b, wire.a, sport=9) is Got.ANSWER
    assert udp(wire.a, wire.b, 10) is Got.NOTHING


def test_both_guests_filters_must_let_it_pass(wire: Lan, enforce: Enforce) -> None:
    """The sender's on the way in, the receiver's on the way out."""
    accept_out = rule("accept", "out", "tcp"), drop_all()
    accept_in = rule("accept", "in", "tcp dstportstart='22'"), drop_all()
    enforce(*accept_out, guest=wire.a)
    enforce(*accept_in, guest=wire.b, beside=True)
    assert tcp(wire.a, wire.b, 22) is Got.ANSWER
    assert tcp(wire.a, wire.b, 23) is Got.NOTHING
    assert tcp(wire.a, wire.host, 23) is Got.ANSWER
    assert tcp(wire.b, wire.a, 22) is Got.NOTHING


def test_an_older_connection_counts_as_new_where_it_is_seen_first(wire: Lan, enforce: Enforce) -> None:
    """A connection from before the rules is picked up in the middle by its next packet, in that packet's direction."""
    rules = rule("accept", "out", "tcp"), drop_all()
    for sender_first, expected in (("guest", Got.ANSWER), ("peer", Got.NOTHING)):
        wire.reset()
        with listen(wire.b, fresh_port()) as door, connected(wire.a, door) as (near, far):
            enforce(*rules)
            assert exchange(*((near, far) if sender_first == "guest" else (far, near))) is expected


@both_versions
def test_large_datagrams_pass_rules_on_ports(wire: Lan, enforce: Enforce, version: int) -> None:
    """Fragments from a port of the bridge are put together before L3 looks at them."""
    enforce(rule("accept", "out", f"udp{SUFFIX[version]} dstportstart='9'"), drop_all(version))
    assert udp(wire.a, wire.b, 9, size=4000, version=version) is Got.ANSWER
    assert udp(wire.a, wire.b, 10, size=4000, version=version) is Got.NOTHING


@both_versions
def test_large_datagrams_of_the_host_pass_rules_on_ports(wire: Lan, enforce: Enforce, version: int) -> None:
    """So do those that the host itself has cut."""
    enforce(rule("accept", "out", f"udp{SUFFIX[version]} dstportstart='9'"), drop_all(version))
    assert udp(wire.a, wire.host, 9, size=4000, version=version) is Got.ANSWER
    assert udp(wire.a, wire.host, 10, size=4000, version=version) is Got.NOTHING


def test_no_rule_without_its_twin(wire: Lan, peer: Station) -> None:
    """With no filter everything above gets through: what was dropped, a rule dropped."""
    for version in (4, 6):
        for try_ in EXCHANGES.values():
            assert try_(wire.a, peer, version=version) is Got.ANSWER
            assert try_(peer, wire.a, version=version) is Got.ANSWER
        assert ping(wire.a, peer, version=version) is Got.ANSWER
        assert ping(peer, wire.a, version=version) is Got.ANSWER
    for protocol in (2, 47, 50, 51):
        assert raw(wire.a, peer, protocol, bytes(range(32))) is Got.THERE
