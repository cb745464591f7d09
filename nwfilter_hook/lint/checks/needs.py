"""
What a guest can't do without: its address, and its neighbours'.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ...ruleset.evaluate import Way
from ...ruleset.fields import Field
from ...ruleset.model import Match
from ...ruleset.regions import NOTHING
from ..findings import Check, Finding
from ..places import (
    ARP_ANSWERS,
    ARP_ASKS,
    DHCP_ANSWERS,
    DHCP_ASKS,
    IPV4,
    IPV6,
    ND_ANSWERS,
    ND_ASKS,
    TCP4,
    TCP6,
)
from ..tree import Tree


def _passes(tree: Tree, way: Way, *matches: Match) -> bool:
    regions = tree.decisions.regions
    return regions.both(tree.decisions.passing_way(way), regions.of(matches)) != NOTHING


def _speaks(tree: Tree, *matches: Match) -> bool:
    """Whether such packets pass both ways, as they must for a connection."""
    return _passes(tree, Way.FROM_GUEST, *matches, *tree.own.of[Field.ETHER_SRC][:1]) and _passes(
        tree, Way.TO_GUEST, *matches
    )


def _blocked(tree: Tree, pairs: Iterable[tuple[Way, tuple[Match, ...], str]]) -> list[str]:
    mac = tree.own.of[Field.ETHER_SRC][0]
    found = []
    for way, matches, name in pairs:
        sender = (mac,) if way is Way.FROM_GUEST else ()
        if not _passes(tree, way, *matches, *sender):
            found.append(name)
    return found


def _on_entry(code: str, tree: Tree, message: str) -> Finding:
    return Finding(code, message, tree.entry.name, tree.entry.source)


def find_no_dhcp(tree: Tree) -> Iterator[Finding]:
    learned = "IP" in tree.parameters and "IP" not in tree.given
    if not tree.whole or not learned or not _speaks(tree, IPV4, TCP4):
        return
    blocked = _blocked(
        tree, ((Way.FROM_GUEST, DHCP_ASKS, "its requests"), (Way.TO_GUEST, DHCP_ANSWERS, "a server's answers"))
    )
    if blocked:
        message = f"a guest without parameter IP gets no address by DHCP: {' and '.join(blocked)} are dropped"
        yield _on_entry("NWF130", tree, message)


def find_no_neighbours(tree: Tree) -> Iterator[Finding]:
    if not tree.whole:
        return
    way_out, way_in = Way.FROM_GUEST, Way.TO_GUEST
    if _speaks(tree, IPV4, TCP4):
        blocked = _blocked(
            tree,
            (
                (way_out, ARP_ASKS, "what it asks"),
                (way_in, ARP_ANSWERS, "the answers to that"),
                (way_in, ARP_ASKS, "what it is asked"),
                (way_out, ARP_ANSWERS, "its answers"),
            ),
        )
        if blocked:
            yield _on_entry("NWF131", tree, f"IPv4 passes, but not the ARP it needs: {', '.join(blocked)}")
    if _speaks(tree, IPV6, TCP6):
        blocked = _blocked(
            tree,
            (
                (way_out, ND_ASKS, "solicitations of the guest"),
                (way_in, ND_ANSWERS, "advertisements of others"),
                (way_in, ND_ASKS, "solicitations of others"),
                (way_out, ND_ANSWERS, "advertisements of the guest"),
            ),
        )
        if blocked:
            message = f"IPv6 passes, but not the neighbour discovery it needs: {', '.join(blocked)}"
            yield _on_entry("NWF131", tree, message)


CHECKS = (
    Check(
        "NWF130",
        "DHCP needed, but never allowed",
        "The filter learns the guest's address where no parameter IP gives it, and such guests mostly have it from "
        "DHCP; but what a client sends without an address (from 0.0.0.0 to 255.255.255.255) is dropped, or what a "
        "server answers. Refer to allow-dhcp or allow-dhcp-server; or give IP to every interface and suppress this.",
        find_no_dhcp,
    ),
    Check(
        "NWF131",
        "ARP or neighbour discovery blocked",
        "The filter lets IP pass, but not what finds the MAC address of the other end (or what others ask to find the "
        "guest's). Nothing can be sent to a host on the same link then, the router included. allow-arp, "
        "no-arp-spoofing and an accept, or types 133 to 136 of icmpv6 mend it.",
        find_no_neighbours,
    ),
)
