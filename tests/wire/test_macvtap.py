"""
Guests on macvtap devices: the filter stands at the device itself, before the frame meets anything else.

What a guest sends goes out of its macvtap (egress), what it gets comes in by it (ingress); that holds for what two
guests on one device send each other too, which never sees the wire outside.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.support.domains import device, domain, uuid_of
from tests.support.frames import (
    GUEST,
    GUEST_IP,
    OTHER,
    THIRD,
    arp,
    incoming,
    incoming_arp,
    ipv4,
    ipv6,
    ping6,
    rarp_announce,
    stp_bpdu,
    udp,
    vlan,
)
from tests.support.netns import Wire

pytestmark = pytest.mark.netns

TAP, PEER_TAP, LOWER = "macvtap0", "macvtap1", "lower0"
PEER, PEER_IP = "52:54:00:00:00:02", "10.0.0.2"
_numbers = (f"{high}.{low}" for high in range(256) for low in range(1, 255))
MODES = {"bridge": "bridge", "vepa": "vepa", "private": "private", "passthrough": "passthru"}
"""Modes as libvirt calls them, and as the kernel does."""

UNWANTED = "10.0.0.66"
# what is behind clean-traffic may be sent and received, but for what the first two rules say
FILTER = f"""\
<filter name='own' chain='root'>
<rule action='drop' direction='in' priority='-1000'><ip srcipaddr='{UNWANTED}'/></rule>
<rule action='drop' direction='in' priority='-1000'><mac srcmacaddr='{THIRD}'/></rule>
<filterref filter='clean-traffic'/>
</filter>
"""
HONEST = (udp(), ipv4(), arp(), arp(opcode=2, dst=OTHER))
FORGED = {
    "mac": udp(src=THIRD),
    "mac-broadcast": arp(src=THIRD),
    "neighbours-mac": udp(src=PEER),
    "ip": udp(src_ip="10.0.0.9"),
    "arp-mac": arp(sender=THIRD),
    "arp-ip": arp(sender_ip="10.0.0.9"),
    "rarp": rarp_announce(THIRD, src=GUEST),
    "ipv6": ipv6(),
    "tagged": vlan(udp()),
    "tagged-twice": vlan(vlan(udp(src=THIRD)), 9, ethertype=0x88A8),
    "priority-tag": vlan(udp(src=THIRD), 0),
    "bridge": stp_bpdu(),
}
WELCOME = (incoming(udp), incoming(ipv4), incoming_arp(dst=GUEST), incoming_arp())
UNWELCOME = {
    "ip": incoming(udp, src_ip=UNWANTED),
    "mac": incoming(udp, src=THIRD),
    "broadcast": incoming_arp(src=THIRD),
    "broadcast-ip": incoming(udp, dst="ff:ff:ff:ff:ff:ff", src_ip=UNWANTED),
    "ipv6": incoming(ping6),
    "tagged": vlan(incoming(udp)),
    "priority-tag": vlan(incoming(udp, src_ip=UNWANTED), 0),
}


def macvtap(
    tap: str | None, filter_name: str = "own", *, mac: str = GUEST, ip: str = GUEST_IP, mode: str = "bridge"
) -> str:
    """The interface of a guest on a macvtap device."""
    source = f"<source dev='{LOWER}' mode='{mode}'/>"
    return device("direct", tap, filter_name, [("IP", ip)], mac=mac, source=source)


def web(filter_name: str = "own", *, tap: str | None = TAP, mode: str = "bridge") -> str:
    """The guest that these tests are about."""
    return domain("web", [macvtap(tap, filter_name, mode=mode)])


def use(wire: Wire, directory: Path, *filters: str) -> None:
    """Define filters; each of them is one line up to its name."""
    for text in filters:
        (directory / f"{text.split(chr(39))[1]}.xml").write_text(text)
    wire.configure(filter_dirs=[directory])


def arrives(wire: Wire, frame: bytes, sender: str, to: str) -> bool:
    """
    Does `frame` from the guest of `sender` reach the guest of `to`, however long the kernel takes?

    It works off what is broadcast from outside later, but in order: what hasn't arrived before the welcome question
    that is sent behind it was dropped.
    """
    wire.guests[to].receive()  # what arrived before
    wire.guests[sender].send(frame)
    found = wire.guests[to].receive()
    if sender == LOWER:
        mark = incoming_arp(sender_ip=f"10.1.{next(_numbers)}")
        wire.guests[sender].send(mark)
        deadline = time.monotonic() + 5
        while mark not in found:
            assert time.monotonic() < deadline, "the broadcast behind the frame is lost"
            found += wire.guests[to].receive(0.1)
    return frame in found


def assert_free(wire: Wire) -> None:
    """Nothing is filtered, and nothing of a guest is left in kernel and state."""
    assert arrives(wire, FORGED["mac"], TAP, LOWER)
    assert arrives(wire, UNWELCOME["ip"], LOWER, TAP)
    assert "macvtap" not in wire.ruleset()
    assert not wire.rules("netdev")
    assert list(wire.state_dir.glob("domains/*")) == []


@pytest.mark.parametrize("mode", MODES)
def test_what_the_guest_sends(wire: Wire, tmp_path: Path, mode: str) -> None:
    """In every mode a guest sends under its own MAC and addresses only, untagged; before and after, what it likes."""
    wire.plug_macvtap(TAP, GUEST, LOWER, mode=MODES[mode])
    use(wire, tmp_path, FILTER)
    for frame in (*HONEST, *FORGED.values()):
        assert arrives(wire, frame, TAP, LOWER)
    wire.start("web", web(mode=mode))
    assert all(arrives(wire, frame, TAP, LOWER) for frame in HONEST)
    assert [kind for kind, frame in FORGED.items() if arrives(wire, frame, TAP, LOWER)] == []
    wire.stop("web", web(mode=mode, tap=None))
    assert_free(wire)


@pytest.mark.parametrize("mode", MODES)
def test_what_the_guest_gets(wire: Wire, tmp_path: Path, mode: str) -> None:
    """In every mode rules for what comes in hold for unicast, broadcast and tagged frames from outside."""
    wire.plug_macvtap(TAP, GUEST, LOWER, mode=MODES[mode])
    use(wire, tmp_path, FILTER)
    for frame in (*WELCOME, *UNWELCOME.values()):
        assert arrives(wire, frame, LOWER, TAP)
    wire.start("web", web(mode=mode))
    assert all(arrives(wire, frame, LOWER, TAP) for frame in WELCOME)
    assert [kind for kind, frame in UNWELCOME.items() if arrives(wire, frame, LOWER, TAP)] == []
    wire.stop("web", web(mode=mode, tap=None))
    assert_free(wire)


def test_two_guests_on_one_device(wire: Wire, tmp_path: Path) -> None:
    """
    In mode bridge the kernel hands frames from one guest to the other without the wire outside: they meet the rules of
    both, unicast and broadcast, and a neighbour without a filter gets nothing past those of the filtered guest.
    """
    wire.plug_macvtap(TAP, GUEST, LOWER)
    wire.plug_macvtap(PEER_TAP, PEER, LOWER)
    use(wire, tmp_path, FILTER)
    honest = [udp(dst=PEER), arp(), arp(dst=PEER, opcode=2)]
    forged = [udp(src=THIRD, dst=PEER), udp(src_ip="10.0.0.9", dst=PEER), arp(sender=THIRD), arp(src=PEER)]
    forged += [vlan(udp(dst=PEER)), ipv6(dst=PEER), arp(sender_ip=PEER_IP)]
    welcome = [udp(src=PEER, src_ip=PEER_IP, dst=GUEST), arp(src=PEER, sender=PEER, sender_ip=PEER_IP)]
    unwelcome = [udp(src=THIRD, dst=GUEST), udp(src=PEER, dst=GUEST, src_ip=UNWANTED), arp(src=THIRD)]
    unwelcome += [vlan(udp(src=PEER, src_ip=PEER_IP, dst=GUEST)), ipv6(src=PEER, dst=GUEST)]

    def passing(frames: list[bytes], sender: str, to: str) -> list[bytes]:
        return [frame for frame in frames if arrives(wire, frame, sender, to)]

    assert passing(honest + forged, TAP, PEER_TAP) == honest + forged
    assert passing(welcome + unwelcome, PEER_TAP, TAP) == welcome + unwelcome
    wire.start("web", web())
    assert passing(honest + forged, TAP, PEER_TAP) == honest
    assert passing(welcome + unwelcome, PEER_TAP, TAP) == welcome
    # the neighbour may still send to the outside what it likes, until it has a filter itself
    assert arrives(wire, udp(src=THIRD), PEER_TAP, LOWER)
    wire.start("db", domain("db", [macvtap(PEER_TAP, mac=PEER, ip=PEER_IP)]))
    assert passing(honest + forged, TAP, PEER_TAP) == honest
    assert passing(welcome + unwelcome, PEER_TAP, TAP) == welcome
    assert not arrives(wire, udp(src=THIRD), PEER_TAP, LOWER)
    assert arrives(wire, udp(src=PEER, src_ip=PEER_IP), PEER_TAP, LOWER)


def test_one_of_two_guests_ends(wire: Wire, tmp_path: Path) -> None:
    """With one guest go its rules, and not those of the other on the same device."""
    wire.plug_macvtap(TAP, GUEST, LOWER)
    wire.plug_macvtap(PEER_TAP, PEER, LOWER)
    use(wire, tmp_path, FILTER)
    wire.start("web", web())
    wire.start("db", domain("db", [macvtap(PEER_TAP, mac=PEER, ip=PEER_IP)]))
    assert not arrives(wire, udp(src=THIRD), PEER_TAP, LOWER)
    wire.stop("db", domain("db", [macvtap(None, mac=PEER, ip=PEER_IP)]))
    assert arrives(wire, udp(src=THIRD), PEER_TAP, LOWER)
    assert not arrives(wire, udp(src=THIRD), TAP, LOWER)
    assert not arrives(wire, udp(src=PEER, dst=GUEST, src_ip=UNWANTED), PEER_TAP, TAP)
    wire.stop("web", web(tap=None))
    assert_free(wire)


def test_tagged_frames(wire: Wire, tmp_path: Path) -> None:
    """A guest that may use one VLAN gets and sends frames of that one, and what is in the tag is judged as tagged."""
    wire.plug_macvtap(TAP, GUEST, LOWER)
    trunk = """\
<filter name='trunk' chain='root'>
<rule action='drop' direction='out' priority='-1000'><mac srcmacaddr='$MAC' match='no'/></rule>
<rule action='accept' direction='inout' priority='100'><vlan vlanid='7' encap-protocol='arp'/></rule>
<rule action='accept' direction='inout' priority='100'><vlan vlanid='8'/></rule>
<rule action='drop' direction='inout' priority='200'><vlan/></rule>
<rule action='drop' direction='inout' priority='300'><ip/></rule>
</filter>
"""
    use(wire, tmp_path, trunk)
    wanted = {vlan(arp(), 7): True, vlan(udp(), 7): False, vlan(udp(), 8): True, vlan(udp(), 9): False}
    wanted |= {vlan(arp(src=THIRD), 7): False, vlan(udp(src=THIRD), 8): False, udp(): False, arp(): True}
    incomers = {vlan(incoming_arp(dst=GUEST), 7): True, vlan(incoming(udp), 7): False, vlan(incoming(udp), 8): True}
    incomers |= {vlan(incoming(udp), 9): False, vlan(incoming(udp), 0): False, incoming(udp): False}
    assert all(arrives(wire, frame, TAP, LOWER) for frame in wanted)
    assert all(arrives(wire, frame, LOWER, TAP) for frame in incomers)
    wire.start("web", web("trunk"))
    assert {frame: arrives(wire, frame, TAP, LOWER) for frame in wanted} == wanted
    assert {frame: arrives(wire, frame, LOWER, TAP) for frame in incomers} == incomers


@pytest.mark.parametrize("fault", ["filter", "kernel"])
def test_a_failed_start_leaves_nothing(wire: Wire, tmp_path: Path, fault: str) -> None:
    """If the second of two interfaces can't be filtered, the first isn't either: no chain, no record."""
    wire.plug_macvtap(TAP, GUEST, LOWER)
    wire.plug_macvtap(PEER_TAP, PEER, LOWER)
    use(wire, tmp_path, FILTER)
    if fault == "kernel":
        # a base chain: no rule can jump there
        hook = f'type filter hook ingress device "{LOWER}" priority 0;'
        wire.apply(f"table netdev nwfilter {{ chain from/{PEER_TAP}/o-arp {{ {hook} }}; }}")
    before = wire.ruleset()
    second = macvtap(PEER_TAP, "nothing-like-it" if fault == "filter" else "own", mac=PEER, ip=PEER_IP)
    finished = wire.hook("web", "start", domain("web", [macvtap(TAP), second]))
    assert finished.returncode == 1
    assert ("nothing-like-it" if fault == "filter" else "nft refused this rule") in finished.stderr
    assert wire.ruleset() == before
    assert not (wire.state_dir / "domains" / f"{uuid_of('web')}.json").exists()
    assert arrives(wire, FORGED["mac"], TAP, LOWER)
    wire.nft("flush", "ruleset")
    wire.start("web", domain("web", [macvtap(TAP), macvtap(PEER_TAP, mac=PEER, ip=PEER_IP)]))
    assert not arrives(wire, FORGED["mac"], TAP, LOWER)


def test_a_lost_stop_and_a_new_device_of_that_name(wire: Wire, tmp_path: Path) -> None:
    """The device is gone without a word and comes again under its name: the next start filters it."""
    wire.plug_macvtap(TAP, GUEST, LOWER)
    use(wire, tmp_path, FILTER)
    wire.start("web", web())
    wire.unplug(TAP)
    wire.ip(f"link del {TAP}")
    wire.plug_macvtap(TAP, GUEST, LOWER)
    wire.start("web", web())
    assert all(arrives(wire, frame, TAP, LOWER) for frame in HONEST)
    assert [kind for kind, frame in FORGED.items() if arrives(wire, frame, TAP, LOWER)] == []
    assert [kind for kind, frame in UNWELCOME.items() if arrives(wire, frame, LOWER, TAP)] == []
    wire.unplug(TAP)
    wire.ip(f"link del {TAP}")
    wire.stop("web", web(tap=None))
    assert "macvtap" not in wire.ruleset()


def test_a_lost_stop_and_another_kind_of_device(wire: Wire, tmp_path: Path) -> None:
    """A tap comes under the name of a lost macvtap, whose chains hang on its other hooks: the next start filters it."""
    wire.plug_macvtap("tap9", GUEST, LOWER)
    use(wire, tmp_path, FILTER)
    wire.start("web", web(tap="tap9"))
    wire.unplug("tap9")
    wire.ip("link del tap9")
    wire.plug("tap9")
    wire.ip("link set tap9 nomaster")
    wire.start("db", domain("db", [device("ethernet", "tap9", "own", [("IP", GUEST_IP)], source="")]))
    assert "hook ingress" in wire.nft("list", "chain", "netdev", "nwfilter", "from/tap9")
    assert "hook egress" in wire.nft("list", "chain", "netdev", "nwfilter", "to/tap9")


def test_an_ethernet_interface_on_a_macvtap(wire: Wire, tmp_path: Path) -> None:
    """
    An interface of type `ethernet` may be given a macvtap device that somebody else has made (libvirt: managed='no'):
    what it sends goes out of the device there too.
    """
    wire.plug_macvtap(TAP, GUEST, LOWER)
    use(wire, tmp_path, FILTER)
    xml = domain("web", [device("ethernet", TAP, "own", [("IP", GUEST_IP)], source="")])
    wire.start("web", xml.replace(f'<target dev="{TAP}"', f'<target dev="{TAP}" managed="no"'))
    assert all(arrives(wire, frame, TAP, LOWER) for frame in HONEST)
    assert [kind for kind, frame in FORGED.items() if arrives(wire, frame, TAP, LOWER)] == []
    assert all(arrives(wire, frame, LOWER, TAP) for frame in WELCOME)
    assert [kind for kind, frame in UNWELCOME.items() if arrives(wire, frame, LOWER, TAP)] == []
    wire.stop("web", xml)
    assert_free(wire)
