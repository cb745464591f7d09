"""
Which bridges keep their connections apart from those of others.

In:  taps that a transaction is about, a `Host`.
Out: the zones of their bridges.

Two tenants may have the same addresses on two bridges; what the one has opened must not be established for the other.
Where the host has an address it may route or translate what comes from the bridge: networks that it routes can't
overlap, and a connection whose packets go one way over the bridge alone, the other by way of the host, is one. Where it
has none all is bridged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..backend import Zones
from ..base.addresses import is_tap_name
from ..base.said import WARNING, Said
from ..host import Host
from ..network.bridges import alone, list_bridges
from ..network.links import open_route
from ..ruleset.model import Attachment
from ..storage.records import Binding

FIRST_ZONE, LAST_ZONE = 20000, 65535
"""Ours; an administrator who has zones of his own is likely to have taken small numbers."""
_ZONES = LAST_ZONE - FIRST_ZONE + 1


def zones_for(host: Host, bindings: Iterable[Binding]) -> Zones | None:
    """Of the bridges that taps of `bindings` are ports of; None if this kernel has none, which is said."""
    filtered = [each for each in bindings if each.installed.objects and not each.unfiltered]
    ports = [each for each in filtered if each.attachment is Attachment.BRIDGE_PORT]
    bridges = sorted({each.bridge for each in ports if each.bridge})
    if not bridges:
        return Zones()
    if any(host.backend.tracks(each.installed) for each in ports) and not host.backend.has_zones():
        _warn(host, bridges, "this kernel lacks CONFIG_NFT_BRIDGE_META or CONFIG_NF_CONNTRACK_ZONES")
        return None
    unusable = [name for name in bridges if not is_tap_name(name)]
    if unusable:
        _warn(host, [ascii(name) for name in unusable], "such a name can't be written down for nft")
    wanted = [name for name in bridges if name not in unusable]
    known = host.backend.zones()
    try:
        with open_route() as netlink:
            there = alone(netlink, wanted)
            # a bridge that is new is looked up among all, so that the map doesn't grow for ever
            existing = known.keys() if there.keys() <= known.keys() else list_bridges(netlink)
    except OSError as error:
        _warn(host, wanted, f"the kernel doesn't say what addresses the host has: {error.strerror}")
        return Zones()
    zones = choose_zones(known, wanted, there, existing)
    left_out = sorted(there.keys() - dict(zones.apart).keys())
    if left_out:
        _warn(host, left_out, f"{_ZONES} others have all zones")
    return zones


def _warn(host: Host, bridges: Iterable[str], reason: str) -> None:
    names = ", ".join(bridges)
    host.report(
        Said(f"warning: connections on {names} are not kept apart from those on other bridges: {reason}", WARNING)
    )


def choose_zones(
    known: Mapping[str, int], bridges: Iterable[str], there: Mapping[str, int], existing: Iterable[str]
) -> Zones:
    """
    A number of its own for each bridge that is to have one.

    It follows from the index of the device, which the kernel gives to no other one for long: the same after somebody
    has flushed all rules, and another for a bridge made anew, which must not inherit connections.

    Args:
        known: what the kernel has, by bridge.
        bridges: what is to be settled.
        there: of these, the ones that are to be kept apart, with their indexes.
        existing: bridges of the host; any others lose their numbers.
    """
    there_still = set(existing)
    kept = {name: number for name, number in known.items() if name in there_still}
    apart: dict[str, int] = {}
    for name in bridges:
        kept.pop(name, None)
    for name in bridges:
        if name in there:
            taken = {*kept.values(), *apart.values()}
            numbers = (FIRST_ZONE + (there[name] + step) % _ZONES for step in range(_ZONES))
            number = next((each for each in numbers if each not in taken), None)
            if number is not None:
                apart[name] = number
    gone = [(name, number) for name, number in known.items() if name not in kept and apart.get(name) != number]
    return Zones(tuple(apart.items()), tuple(gone))
