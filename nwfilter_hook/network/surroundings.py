"""
All that stands around taps and isn't ours, read once: devices, traffic control, BPF programs, other tables.

Out: a `Surroundings`. What can't be read is left out, and said in it: there is always an answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from ..base.dataclass import dataclass
from .links import Link, find_link, list_links, open_route
from .netlink import Netlink
from .programs import tcx_programs
from .sockets import brouting_rules, devices_with_packet_sockets
from .tables import (
    BRIDGE,
    DeviceChain,
    Flowtable,
    list_detours,
    list_device_chains,
    list_flowtables,
    list_tables,
    open_netfilter,
)
from .traffic_control import EGRESS, INGRESS, Discipline, Filter, list_disciplines, list_filters

_OWN_TABLES = re.compile(r"nwfilter(-shield|-trace-\d+)?")
_AT_INGRESS = ("ingress", "clsact")
_WITHOUT_FILTERS = ("noqueue", "pfifo_fast", "pfifo", "bfifo", "fq", "mq", "noop")


def is_own_table(name: str) -> bool:
    """Whether a table of nf_tables is ours: the rules, the shield, or a trace that runs."""
    return _OWN_TABLES.fullmatch(name) is not None


@dataclass(frozen=True)
class Surroundings:
    """
    What there is on the host.

    Attributes:
        ingress: filters of traffic control on what comes in by a device; `others` are all the rest.
        tcx: by index of a tap, numbers of programs.
        chains: base chains on devices, ours too.
        detours: by family and name of a table that isn't ours, its statements that send frames elsewhere.
        brouting_rules: how many ebtables' legacy table broute has.
        packet_sockets: indexes of devices.
        unreadable: what could not be looked at, with the reason.
    """

    links: tuple[Link, ...] = ()
    ingress: tuple[Filter, ...] = ()
    others: tuple[Filter, ...] = ()
    tcx: tuple[tuple[int, tuple[int, ...]], ...] = ()
    flowtables: tuple[Flowtable, ...] = ()
    chains: tuple[DeviceChain, ...] = ()
    detours: tuple[tuple[tuple[int, str], frozenset[str]], ...] = ()
    brouting_rules: int = 0
    packet_sockets: frozenset[int] = frozenset()
    unreadable: tuple[str, ...] = ()

    def named(self, name: str) -> Link | None:
        """The device of this name."""
        return next((link for link in self.links if link.name == name), None)

    def indexed(self, index: int) -> Link | None:
        """The device of this index."""
        return next((link for link in self.links if link.index == index), None)


def look_around(taps: Collection[str]) -> Surroundings:
    """What there is around these taps, and on the whole host; of devices those that have to do with them."""
    return _look(
        {
            "devices and traffic control": lambda: _devices_and_traffic_control(taps),
            "flowtables": _flowtables,
            "other tables": _tables,
            "ebtables' table broute": lambda: {"brouting_rules": brouting_rules()},
            "packet sockets": lambda: {"packet_sockets": devices_with_packet_sockets()},
        }
    )


def look_at_flowtables(taps: Collection[str]) -> Surroundings:
    """The taps, their bridges, and flowtables; nothing else."""
    return _look({"devices": lambda: {"links": _taps_and_bridges(taps)}, "flowtables": _flowtables})


def _look(looks: dict[str, Callable[[], dict[str, Any]]]) -> Surroundings:
    found: dict[str, Any] = {}
    unreadable = []
    for what, look in looks.items():
        try:
            found.update(look())
        except OSError as error:
            unreadable.append(f"{what}: {error.strerror or error}")
    return Surroundings(**found, unreadable=tuple(unreadable))


def _taps_and_bridges(taps: Collection[str]) -> tuple[Link, ...]:
    with open_route() as route:
        return tuple(_known(route, taps))


def _known(route: Netlink, devices: Collection[str | int]) -> list[Link]:
    """These devices and their masters; those that are there."""
    found = [link for link in (find_link(route, device) for device in devices) if link]
    masters = {link.master for link in found if link.master} - {link.index for link in found}
    return found + [link for link in (find_link(route, index) for index in sorted(masters)) if link]


def _devices_and_traffic_control(taps: Collection[str]) -> dict[str, Any]:
    with open_route() as route:
        disciplines = list_disciplines(route)
        ingress = [
            each for it in disciplines if it.kind in _AT_INGRESS for each in list_filters(route, it.device, INGRESS)
        ]
        others = list(_others(route, disciplines))
        links = {link.index: link for link in [*_known(route, taps), *list_links(route, "vlan")]}
        named = {each.device for each in ingress + others}
        named |= {action.device for each in ingress + others for action in each.actions or ()} - {0}
        links.update({link.index: link for link in _known(route, sorted(named - set(links)))})
    return {
        "links": tuple(links.values()),
        "ingress": tuple(ingress),
        "others": tuple(others),
        "tcx": tuple((link.index, tcx_programs(link.index)) for link in links.values() if link.name in taps),
    }


def _others(route: Netlink, disciplines: Sequence[Discipline]) -> Iterable[Filter]:
    for each in disciplines:
        if each.kind == "clsact":
            yield from list_filters(route, each.device, EGRESS)
        elif each.handle and each.kind not in (*_AT_INGRESS, *_WITHOUT_FILTERS):
            yield from list_filters(route, each.device, each.handle)


def _flowtables() -> dict[str, Any]:
    with open_netfilter() as netfilter:
        return {"flowtables": tuple(list_flowtables(netfilter))}


def _tables() -> dict[str, Any]:
    with open_netfilter() as netfilter:
        chains = tuple(list_device_chains(netfilter))
        tables = {(chain.family, chain.table) for chain in chains}
        tables |= {(BRIDGE, table) for table in list_tables(netfilter, BRIDGE)}
        foreign = sorted(each for each in tables if not is_own_table(each[1]))
        return {"chains": chains, "detours": tuple((each, list_detours(netfilter, *each)) for each in foreign)}
