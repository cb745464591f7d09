"""
Bridges, and whether anything goes from them another way than over themselves.

In:  names of bridges.
Out: those that are alone: the host has no address there, and no VLAN joins them to another bridge.

include/uapi/linux/if_addr.h
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator

from .links import Link, find_link, list_links
from .netlink import Netlink

_NEW_ADDRESS, _GET_ADDRESS = 20, 22
_INFO = struct.Struct("=BBBBi")  # family, length of the prefix, flags, scope, index of the device
_LINK_SCOPE = 253
_IPV6 = 10
_VLANS = "/proc/thread-self/net/vlan"
"""There if the kernel's module for VLANs is loaded."""
_DEPTH = 8
"""So many devices may stand one on another."""


def alone(netlink: Netlink, names: Iterable[str]) -> dict[str, int]:
    """
    The indexes of those of these bridges on which the host has no address, nor on a device that stands on them (a VLAN,
    a macvlan), and which no VLAN device joins to another bridge. IPv6's addresses of one link don't count: every device
    has one, and nothing is routed by it.

    Raises:
        OSError: the kernel can't be asked.
    """
    known: dict[int, Link | None] = {}
    in_company = {_lowest(netlink, known, index) for index in set(_with_addresses(netlink))}
    for vlan in list_links(netlink, "vlan") if os.path.exists(_VLANS) else ():
        known[vlan.index] = vlan
        if vlan.master:
            lowest = _lowest(netlink, known, vlan.index)
            link = known[lowest]
            if link and link.kind == "bridge":
                in_company |= {vlan.master, lowest}
    bridges = {name: find_link(netlink, name) for name in names}
    return {name: link.index for name, link in bridges.items() if link and link.index not in in_company}


def list_bridges(netlink: Netlink) -> set[str]:
    """The names of all. Raises OSError."""
    return {link.name for link in list_links(netlink, "bridge")}


def _with_addresses(netlink: Netlink) -> Iterator[int]:
    """The indexes of devices that have addresses; one for each address."""
    for message in netlink.ask(_GET_ADDRESS, _INFO.pack(0, 0, 0, 0, 0), dump=True):
        if message.type == _NEW_ADDRESS:
            family, _, _, scope, index = _INFO.unpack_from(message.payload)
            if not (family == _IPV6 and scope == _LINK_SCOPE):
                yield index


def _lowest(netlink: Netlink, known: dict[int, Link | None], index: int) -> int:
    """
    The index of what the device stands on in the end, or its own.

    Args:
        known: devices by index, to which it adds what it looks at.
    """
    for _ in range(_DEPTH):
        if index not in known:
            known[index] = find_link(netlink, index)
        link = known[index]
        if link is None or not link.lower or link.lower == index:
            break
        index = link.lower
    return index
