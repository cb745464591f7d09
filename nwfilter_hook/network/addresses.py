"""
The host's own IP addresses.

Out: those of one device.

include/uapi/linux/if_addr.h
"""

from __future__ import annotations

import ipaddress
import struct

from .links import find_link
from .netlink import Netlink, attributes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Union

    Address = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]
else:
    Address = object

_NEWADDR, _GETADDR = 20, 22
_INFO = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, device
_ADDRESS, _LOCAL = 1, 2
"""Behind a point-to-point link the first is the other end's."""


def addresses_of(netlink: Netlink, device: str) -> list[Address]:
    """The addresses that the host has on this device; [] if there is no such device. Raises OSError."""
    link = find_link(netlink, device)
    if link is None:
        return []
    found = []
    for message in netlink.ask(_GETADDR, _INFO.pack(0, 0, 0, 0, 0), dump=True):
        _, _, _, _, index = _INFO.unpack_from(message.payload)
        if message.type == _NEWADDR and index == link.index:
            values = attributes(message.payload, _INFO.size)
            found.append(ipaddress.ip_address(values.get(_LOCAL) or values[_ADDRESS]))
    return found
