"""The guard: ports that nobody has decided about pass nothing, either way; those that somebody has pass as ever."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator

import pytest

from tests.support.domains import domain, interface
from tests.support.frames import OTHER, THIRD, ether, udp
from tests.support.host import Ran, Sandbox, filter_xml
from tests.support.netns import BRIDGE, Wire

pytestmark = pytest.mark.netns

HONEST, FORGED = ether(), ether(src=THIRD)
PORT = 4711


def configure(site: Sandbox, guard: str = "") -> None:
    """Section [guard] of a host without libvirt."""
    site.configure(f"[guard]\n{guard}\n[watch]\nuri = none")


@pytest.fixture
def host(able: None) -> Iterator[Sandbox]:
    """A bridge with vnet0, where a guest is to be, and taps that are nobody's; the guard's default mode."""
    with Wire(("vnet0", "vnet1", "vnet2", "tap-lab")) as wire:
        site = Sandbox(wire.directory, wire)
        configure(site)
        for name, match in (("layer-3", "<udp dstportstart='7'/>"), ("to-only", "<mac protocolid='0x9001'/>")):
            site.place(name, filter_xml(name, f"<rule action='drop' direction='in'>{match}</rule>"))
        yield site


def reached(site: Sandbox, sender: str, frame: bytes = HONEST) -> set[str]:
    """Who gets a frame."""
    return set(site.wire.arrivals(frame, sender))


def guard(site: Sandbox, *arguments: str) -> Ran:
    """`guard on` and the like."""
    return site.cli("guard", *arguments)


def bare(site: Sandbox, guest: str, operation: str, tap: str = "vnet0") -> None:
    """An event of a guest whose interface names no filter."""
    site.event(guest, operation, domain(guest, [interface(tap, None)])).fine()


def elements(site: Sandbox, name: str) -> dict[str, str]:
    """What leads where in one of the maps."""
    listing = site.wire.nft("list", "map", "bridge", "nwfilter", name)
    return {key.strip('"'): verdict for key, verdict in re.findall(r'("[^"]+"|\*) : (\w+(?: [^,\s}]+)?)', listing)}


def test_what_is_unknown_drops(host: Sandbox) -> None:
    """Taps with libvirt's names that no hook has told of neither send nor get; the guest and all others do."""
    host.start("web", "vnet0", "no-mac-spoofing")
    assert reached(host, "vnet1") == {"vnet0", "vnet2", "tap-lab"}  # the twin: without the guard
    before = host.kernel()
    ran = guard(host, "on")
    assert (ran.status, ran.err) == (1, "")
    assert ran.out.splitlines() == [
        "vnet1 on br0: would be cut off, nobody has decided about it",
        "vnet2 on br0: would be cut off, nobody has decided about it",
        "the guard is as it was; name in [guard] allow what is to pass, or say --yes",
    ]
    assert host.kernel() == before
    assert guard(host, "on", "--yes").fine().out.splitlines()[-1] == "the guard is on, mode generated"
    assert elements(host, "from-guest-l2") == {"vnet0": "jump from/vnet0", "*": "goto guard-from"}
    assert elements(host, "to-guest-l2") == {"vnet0": "accept", "*": "goto guard-to"}
    assert reached(host, "vnet1") == reached(host, "vnet2") == set()
    assert reached(host, "vnet0") == {"tap-lab"}
    assert reached(host, "tap-lab") == reached(host, BRIDGE) - {"tap-lab"} == {"vnet0"}
    assert reached(host, "vnet0", FORGED) == set()
    host.check()
    assert guard(host, "off").fine().out == "the guard is off\n"
    assert host.kernel() == before
    assert reached(host, "vnet1") == {"vnet0", "vnet2", "tap-lab"}
    assert guard(host, "off").fine().out == "the guard was off\n"
    host.check()


@pytest.mark.parametrize("filter_name", ["layer-3", "to-only", "no-mac-spoofing", "clean-traffic", None])
@pytest.mark.parametrize("order", ["guest first", "guard first"])
def test_what_is_known_passes(host: Sandbox, filter_name: str | None, order: str) -> None:
    """Whatever its filter has no rules for: one direction, layer 2, anything at all; and nothing is left of it."""
    options = [("IP", "10.0.0.1")] if filter_name == "clean-traffic" else []
    frame = udp(dst=OTHER)
    if order == "guard first":
        guard(host, "on", "--yes").fine()
    if filter_name:
        host.start("web", "vnet0", filter_name, options)
    else:
        bare(host, "web", "start")
    if order == "guest first":
        guard(host, "on", "--yes").fine()
        if not filter_name:  # without libvirt nobody has told of it
            assert reached(host, "vnet0", frame) == set()
            bare(host, "web", "reconnect")
    assert reached(host, "vnet0", frame) == {"tap-lab"}
    assert set(elements(host, "from-guest-l2")) == set(elements(host, "to-guest-l2")) == {"vnet0", "*"}
    host.check()
    assert host.cli("verify").fine().out == ""
    host.stop("web")
    assert set(elements(host, "from-guest-l2")) == set(elements(host, "to-guest-l2")) == {"*"}
    assert reached(host, "vnet0", frame) == reached(host, "tap-lab", frame) == set()
    host.check()


def test_no_filter_no_network(host: Sandbox) -> None:
    """With `unfiltered = drop` a guest that names no filter runs, and nothing passes; off, or accept, lets it."""
    configure(host, "unfiltered = drop\nmode = taps\nallow = tap-lab vnet1")
    guard(host, "on", "--yes").fine()
    bare(host, "web", "start")
    host.start("db", "vnet2", "no-mac-spoofing")
    assert reached(host, "vnet0") == set()
    assert reached(host, "tap-lab", FORGED) == {"vnet1", "vnet2"}
    (view,) = [each for each in host.cli("show", "--json").json if each["guest"] == "web"]
    assert (view["state"], view["filter"]) == ("cut off: it names no filter", "")
    bare(host, "web", "reconnect")
    host.check()
    configure(host, "mode = taps\nallow = tap-lab vnet1")
    guard(host, "on", "--yes").fine()
    assert reached(host, "vnet0") == {"tap-lab", "vnet1", "vnet2"}
    (view,) = [each for each in host.cli("show", "--json").json if each["guest"] == "web"]
    assert (view["state"], view["filter"]) == ("passes all: it names no filter", "")
    assert [each["tap"] for each in host.cli("binding-list", "--json").json] == ["vnet2"]
    host.check()
    configure(host, "mode = taps\nunfiltered = drop\nallow = tap-lab vnet1")
    guard(host, "on", "--yes").fine()
    assert reached(host, "vnet0") == set()
    guard(host, "off").fine()
    assert reached(host, "vnet0") == {"tap-lab", "vnet1", "vnet2"}
    assert not (host.state_dir / "taps" / "vnet0").exists()
    host.check()


def test_a_filter_comes_and_goes(host: Sandbox) -> None:
    """An interface that gets a filter while the guest runs, another one, and loses it: it is known all the time."""
    guard(host, "on", "--yes").fine()
    bare(host, "web", "start")
    for name in ("no-mac-spoofing", "to-only", "clean-traffic", "layer-3", None, "to-only"):
        assert host.event("web", "reconnect", domain("web", [interface("vnet0", name)])).status == 0
        assert reached(host, "vnet0", udp(dst=OTHER)) == {"tap-lab"}, name
        host.check()
    host.define(filter_xml("to-only", "<rule action='drop' direction='out'><mac protocolid='0x9001'/></rule>")).fine()
    assert elements(host, "to-guest-l2") == {"vnet0": "accept", "*": "goto guard-to"}
    assert reached(host, "tap-lab") == {"vnet0"}
    host.check()


@pytest.mark.parametrize("harm", ["flush ruleset", "delete table bridge nwfilter", "delete element", "flush chain"])
def test_it_comes_back(host: Sandbox, harm: str) -> None:
    """After a flush by others the next event of any guest brings it along; `verify --repair` does it, too."""
    guard(host, "on", "--yes").fine()
    bare(host, "web", "start")
    commands = {
        "delete element": "delete element bridge nwfilter from-guest-l2 { * }",
        "flush chain": "flush chain bridge nwfilter guard-to",
    }
    for mend in ("event", "repair", "stop"):
        host.wire.apply(commands.get(harm, harm))
        ran = host.cli("verify")
        assert ran.status == 1
        assert "guard: " in ran.out
        assert guard(host, "status", "--json").json["faults"]
        if mend == "event":
            host.start("db", "vnet2", "no-mac-spoofing")
        elif mend == "repair":
            host.cli("verify", "--repair").fine()
        else:
            host.stop("db")
            host.cli("verify", "--repair").fine()
        assert guard(host, "status", "--json").fine().json["faults"] == []
        assert reached(host, "vnet1") == set()
    host.cli("verify", "--repair").fine()
    assert reached(host, "vnet0") == {"tap-lab"}
    host.check()


def test_status(host: Sandbox) -> None:
    """Who is cut off, and how many of its frames, from it and to it; what the configuration has otherwise."""
    assert guard(host, "status").fine().out.splitlines()[:2] == ["the guard is off", "it would cut off:"]
    guard(host, "on", "--yes").fine()
    for _ in range(3):
        assert reached(host, "vnet1") == set()
    assert reached(host, "tap-lab") == set()
    found = guard(host, "status", "--json").fine().json
    assert found["on"] is True
    assert found["guard"]["mode"] == "generated"
    assert [(each["name"], each["bridge"]) for each in found["unknown"]] == [(f"vnet{n}", "br0") for n in range(3)]
    assert found["unknown"][1]["refused"] == {"sent": 3, "received": 1}
    assert found["unknown"][2]["refused"] == {"sent": 0, "received": 1}
    guard(host, "on", "--yes").fine()  # once more: nothing is forgotten
    assert guard(host, "status", "--json").fine().json["unknown"][1]["refused"]["sent"] == 3
    lines = guard(host, "status").fine().out.splitlines()
    assert lines[0] == "the guard is on, mode generated; interfaces without a filter: accept"
    assert [line.split() for line in lines if line.startswith("vnet1")] == [["vnet1", "br0", "3", "1"]]
    configure(host, "mode = taps")
    assert "the configuration has it otherwise: nwfilter-hook guard on" in guard(host, "status").fine().out
    configure(host, "mode = off")
    assert "the configuration has it otherwise" in guard(host, "status").fine().out
    guard(host, "on", "--yes").refused("[guard] mode = off in the configuration")
    assert reached(host, "vnet1") == set()


def test_allowed_and_trusted(host: Sandbox) -> None:
    """What [guard] names passes in every mode, by its name or by the beginning of it."""
    configure(host, "mode = taps\nallow = tap-* vnet1\ntrusted = vnet2")
    assert guard(host, "on").out.splitlines()[:-1] == ["vnet0 on br0: would be cut off, nobody has decided about it"]
    guard(host, "on", "--yes").fine()
    assert reached(host, "vnet1") == {"vnet2", "tap-lab"}
    assert reached(host, "vnet0") == set()
    assert reached(host, BRIDGE) == {"vnet1", "vnet2", "tap-lab"}


def test_a_container_passes(host: Sandbox) -> None:
    """A port that is no tap is not claimed, whatever it is called, but in mode generated by its name."""
    host.wire.ip("link add vnet7 type veth peer name peer0", "link set vnet7 master br0 up", "link set peer0 up")
    with host.wire.inside(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x9000)) as peer:
        peer.bind(("peer0", 0))
        peer.settimeout(0.2)

        def passes() -> bool:
            peer.send(HONEST)
            return HONEST in host.wire.guests["tap-lab"].receive()

        for mode, expected in (("taps", True), ("generated", False)):
            configure(host, f"mode = {mode}\nallow = tap-lab")
            guard(host, "on", "--yes").fine()
            assert passes() is expected, mode


def test_ip_by_way_of_a_reserved_address(host: Sandbox) -> None:
    """What a bridge takes for its own it gives to the host as the tap's: of an unknown tap, IP in it drops."""
    wire = host.wire
    wire.ip("addr add 10.0.0.99/24 dev br0")
    for tap in ("vnet1", "tap-lab"):
        wire.run("sysctl", "-qw", f"net.ipv4.conf.{tap}.rp_filter=0", "net.ipv4.conf.all.rp_filter=0")
    with wire.inside(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as service:
        service.bind(("10.0.0.99", PORT))
        service.settimeout(0.2)

        def heard(tap: str) -> bool:
            wire.guests[tap].send(udp(dst="01:80:c2:00:00:0e", dst_ip="10.0.0.99", dport=PORT))
            try:
                return bool(service.recv(100))
            except TimeoutError:
                return False

        assert heard("vnet1")  # the twin: without the guard
        guard(host, "on", "--yes").fine()
        assert not heard("vnet1")
        assert heard("tap-lab")


def test_modes_that_this_kernel_cant(host: Sandbox) -> None:
    """Where the kernel can't tell bridges apart, modes that name them are refused with the config symbol."""
    configure(host, "mode = bridges\nbridges = br0")
    ran = guard(host, "on", "--yes")
    if ran.status == 0:
        pytest.skip("this kernel can")
    assert "it lacks CONFIG_NFT_BRIDGE_META (module nft_meta_bridge)" in ran.refused("[guard] mode = bridges")
    assert guard(host, "status", "--json").fine().json["on"] is False


def test_a_broken_state(host: Sandbox) -> None:
    """If nobody can read how it was put on, it stays on, as the configuration has it, and that is said."""
    guard(host, "on", "--yes").fine()
    (host.state_dir / "guard").write_text("{}")
    xml = domain("web", [interface("vnet0", "to-only")])
    host.event("web", "start", xml).excused("the guard stays on, as the configuration has it")
    assert elements(host, "from-guest-l2") == {"vnet0": "accept", "*": "goto guard-from"}
    assert "guard can't be read: " in guard(host, "status").err
    guard(host, "on", "--yes")
    assert guard(host, "status").fine().err == ""
    host.check()


def test_nft_fails(host: Sandbox) -> None:
    """Neither on nor off half-way: what nft refuses leaves kernel, state and records as they were."""
    host.start("web", "vnet0", "to-only")
    bad = 'case "$*" in *-f*) cat >/dev/null; echo "Error: no" >&2; exit 1;; esac; exec $NFT "$@"'
    host.fake_nft(bad)
    with host.unchanged():
        ran = guard(host, "on", "--yes")
        assert (ran.status, "no" in ran.err) == (1, True)
    configure(host)
    guard(host, "on", "--yes").fine()
    host.fake_nft(bad)
    with host.unchanged():
        assert guard(host, "off").status == 1
    assert reached(host, "vnet1") == set()
    configure(host)
    guard(host, "off").fine()
    host.check()


def test_nft_fails_between(host: Sandbox) -> None:
    """A new tap's chains come a transaction before what leads to them: if that is refused, they go again."""
    guard(host, "on", "--yes").fine()
    host.fake_nft(
        'case "$*" in *-f*) ;; *) exec $NFT "$@";; esac; script=$(cat); '
        'case "$script" in *vmap*) echo "Error: no" >&2; exit 1;; esac; printf "%s\n" "$script" | $NFT "$@"'
    )
    with host.unchanged():
        host.event("web", "start", domain("web", [interface("vnet0", "no-mac-spoofing")])).refused("no")
