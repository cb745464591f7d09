"""
A forbidden message behind tags, in SNAP, behind extension headers or in fragments doesn't get past a filter that
forbids it; what is allowed does, wrapped or not, where the filter can look into it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from tests.support import wrapping
from tests.support.discovery import advertise, detect, redirect, router_advertisement, router_solicitation, solicit
from tests.support.domains import Parameters, domain, interface
from tests.support.frames import (
    GUEST,
    GUEST_IP,
    GUEST_IP6,
    OTHER,
    OTHER_IP,
    arp,
    dhcp_discover,
    dhcp_offer,
    dhcp_question,
    dhcpv6_question,
    dhcpv6_reply,
    dhcpv6_solicit,
    ipv4,
    ipv6,
    ping6,
    tcp,
    udp,
    udp6,
    vlan,
)
from tests.support.netns import Wire

pytestmark = pytest.mark.netns

LINK_LOCAL = "fe80::5054:ff:fe00:1"
OWN = (("IP", GUEST_IP), ("IPV6", GUEST_IP6), ("LINK_LOCAL", LINK_LOCAL))
BIG = 500


def every_wrapping(frame: bytes) -> dict[str, bytes]:
    """The message in everything that it can be wrapped in, itself included; of two fragments the one that has it."""
    wrapped = {"plain": frame, **wrapping.in_tags(frame)}
    if frame[12:14] == b"\x86\xdd":
        wrapped.update(wrapping.behind_headers(frame))
        for name, pair in (
            ("fragments", wrapping.in_fragments(frame)),
            ("nested-fragments", wrapping.in_nested_fragments(frame)),
            ("fragments-in-vlan-0", [vlan(part, 0) for part in wrapping.in_fragments(frame)]),
        ):
            wrapped.update({f"{name}-{number}": part for number, part in enumerate(pair)})
    elif frame[12:14] == b"\x08\x00":
        wrapped.update(wrapping.in_ipv4(frame))
        wrapped["first-fragment"] = wrapping.fragmented(frame)[0]
    return wrapped


@dataclass(frozen=True)
class Guard:
    """
    A filter, what it forbids, and what it lets through; each is tried under one start.

    Attributes:
        forbidden: messages, none of which gets out in any wrapping.
        allowed: frames that pass as they are.
    """

    forbidden: Mapping[str, bytes]
    allowed: Mapping[str, bytes]
    parameters: Parameters = ()


ROUTER = {"advertisement": router_advertisement(src_ip=LINK_LOCAL), "redirect": redirect(src_ip=LINK_LOCAL)}
DISCOVERY = {
    "advertises-another": advertise("2001:db8::99", src_ip=LINK_LOCAL),
    "solicits-from-another": solicit(src_ip="2001:db8::99"),
    "another-mac": advertise(mac=OTHER),
    "detects-another": detect("2001:db8::99"),
}
SERVER = {"answer": dhcp_offer(src=GUEST, src_ip=GUEST_IP), "answer-6": dhcpv6_reply(src=GUEST, src_ip=LINK_LOCAL)}
IDENTITY = {
    "release": dhcp_question("release", client=OTHER, own=OTHER_IP),
    "discover": dhcp_question("discover", client=OTHER),
    "release-6": dhcpv6_question(8, src_ip=LINK_LOCAL),
}
SPOOFED = {
    "ipv4": ipv4(src_ip=OTHER_IP),
    "udp": udp(src_ip=OTHER_IP),
    "arp": arp(opcode=2, sender=GUEST, sender_ip=OTHER_IP),
    "release": dhcp_question("release", src_ip=OTHER_IP, own=OTHER_IP),
}
PLAIN = {"ipv4": ipv4(), "arp": arp(), "ipv6": ipv6(), "tcp": tcp(), "udp": udp(), "udp6": udp6(), "ping6": ping6()}
ASKS = {"discover": dhcp_discover(), "dhcpv6": dhcpv6_solicit(src_ip=LINK_LOCAL)}
LIFE = {
    **ASKS,
    "router-solicitation": router_solicitation(src_ip=LINK_LOCAL),
    "solicits": solicit(src_ip=LINK_LOCAL),
    "advertises": advertise(),
    "detects": detect(),
}
IN_ONE_TAG = {f"{name}-in-a-tag": vlan(frame) for name, frame in {**PLAIN, **LIFE}.items()}
EVERYTHING = {**PLAIN, **LIFE, **IN_ONE_TAG}

GUARDS = {
    "no-router-advertisements": Guard(ROUTER, EVERYTHING),
    "no-ipv6-nd-spoofing": Guard(DISCOVERY, EVERYTHING, OWN[1:]),
    "no-dhcp-server": Guard(SERVER, EVERYTHING),
    "no-dhcp-spoofing": Guard(IDENTITY, EVERYTHING, OWN[:1]),
    "clean-traffic": Guard(
        {**SPOOFED, **ROUTER, **DISCOVERY},
        {name: PLAIN[name] for name in ("ipv4", "arp", "tcp", "udp")},
        OWN[:1],
    ),
    "clean-traffic-dual": Guard({**SPOOFED, **ROUTER, **DISCOVERY, **IDENTITY}, {**PLAIN, **LIFE}, OWN),
}


def start(wire: Wire, name: str, parameters: Parameters) -> None:
    """The guest under the filter."""
    wire.start("web", domain("web", [interface("vnet0", name, parameters)]))


@pytest.mark.parametrize("name", GUARDS)
def test_no_wrapping_passes_a_guard(wire: Wire, name: str) -> None:
    """Each forbidden message passes where no filter is, and in no wrapping under the guard; what is allowed passes."""
    check_guard(wire, name)


def check_guard(wire: Wire, name: str) -> None:
    """That it is so for one guard."""
    guard = GUARDS[name]
    wrapped = {
        f"{what} {how}": frame
        for what, message in guard.forbidden.items()
        for how, frame in every_wrapping(message).items()
    }
    assert [how for how, frame in wrapped.items() if not wire.passes(frame)] == []
    start(wire, name, guard.parameters)
    assert [how for how, frame in wrapped.items() if wire.passes(frame)] == []
    assert [what for what, frame in guard.allowed.items() if not wire.passes(frame)] == []


@pytest.mark.parametrize("name", GUARDS)
def test_large_datagrams_pass_a_guard(wire: Wire, name: str) -> None:
    """A datagram in fragments has its ports in the first only; all of it passes, in a tag too where tags do."""
    start(wire, name, GUARDS[name].parameters)
    parts = wrapping.fragmented(udp(payload=bytes(BIG)))
    if name != "clean-traffic":
        parts += wrapping.fragmented(udp6(payload=bytes(BIG)))
    if not name.startswith("clean-traffic"):
        parts += [vlan(part) for part in parts]
    assert [part for part in parts if not wire.passes(part)] == []


@pytest.mark.parametrize("name", ["no-ip-spoofing", "no-ip-multicast", "no-ipv6-multicast", "no-arp-spoofing"])
def test_no_encapsulation_beside_filters_of_libvirt(wire: Wire, name: str) -> None:
    """They don't see what is behind a tag or in SNAP; with no-encapsulation beside them nothing of it gets out."""
    forbidden = {
        "no-ip-spoofing": ipv4(src_ip=OTHER_IP),
        "no-ip-multicast": udp(dst_ip="224.0.0.251"),
        "no-ipv6-multicast": udp6(dst_ip="ff02::fb"),
        "no-arp-spoofing": arp(opcode=2, sender_ip=OTHER_IP),
    }[name]
    start(wire, name, OWN[:1])
    wrapped = wrapping.in_tags(forbidden)
    assert not wire.passes(forbidden)
    assert [how for how, frame in wrapped.items() if not wire.passes(frame)] == []
    directory = wire.directory / "filters"
    directory.mkdir()
    (directory / "both.xml").write_text(
        f"<filter name='both'><filterref filter='{name}'/><filterref filter='no-encapsulation'/></filter>"
    )
    wire.configure(filter_dirs=[directory])
    start(wire, "both", OWN[:1])
    assert [how for how, frame in wrapped.items() if wire.passes(frame)] == []
    assert all(wire.passes(frame) for frame in (ipv4(), arp(), ipv6()))


@pytest.mark.parametrize("name", ["no-router-advertisements", "no-dhcp-server"])
def test_no_wrapping_passes_a_guard_on_a_macvtap(wire: Wire, name: str) -> None:
    """There the kernel doesn't look for ports and types behind a tag, so what has them there is dropped."""
    guard = GUARDS[name]
    wire.plug_macvtap("macvtap0", GUEST, "lower0")
    direct = (
        f"<interface type='direct'><mac address='{GUEST}'/><source dev='lower0' mode='bridge'/>"
        f"<target dev='macvtap0'/><filterref filter='{name}'/></interface>"
    )
    wire.start("web", domain("web", [direct]))
    wrapped = [frame for message in guard.forbidden.values() for frame in every_wrapping(message).values()]
    assert [frame for frame in wrapped if wire.passes(frame, "macvtap0", "lower0")] == []
    for frame in (*PLAIN.values(), *LIFE.values(), vlan(ipv4()), vlan(arp()), vlan(tcp())):
        assert wire.passes(frame, "macvtap0", "lower0")
