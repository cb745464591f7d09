"""
Zones of connection tracking: what is tracked in one is unknown in another, whatever the addresses.

In:  bridges with their numbers, what taps have in the kernel.
Out: operations that make the map from bridges to zones, and what puts packets there before they are tracked.

A packet that is addressed to the host itself stays in the zone of the host's own packets, 0, where the answer will be:
by IPv6's link-local address a guest can reach the host on every bridge. What an administrator exempts from tracking, or
puts into a zone of his own, before us stays as it is.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

from ..backend import Object, Zones
from .bounds import tracks
from .commands import Operation
from .netlink import KernelElement

MAP, CHAIN = "zones", "zone-prerouting"
_TABLE = "bridge"
_DECLARATION = "{ typeof meta ibrname : ct zone; }"
# after layer 2 from the guest, before connection tracking (-200)
_HOOK = "{ type filter hook prerouting priority -210; policy accept; }"
_RULE = f"meta pkttype != host ct state != untracked ct zone set meta ibrname map @{MAP}"


def zone_operations(objects: Iterable[Object], zones: Zones) -> Iterator[Operation]:
    """What must be there for taps that have `objects`."""
    tracking = tracks(objects)
    if not (zones.apart or zones.gone or tracking):
        return
    yield Operation("add", "map", _TABLE, MAP, value=_DECLARATION)
    for bridge, number in zones.gone:
        yield Operation("add", "element", _TABLE, MAP, f'"{bridge}"', str(number))  # if somebody has taken it out
        yield Operation("delete", "element", _TABLE, MAP, f'"{bridge}"')
    for bridge, number in zones.apart:
        yield Operation("add", "element", _TABLE, MAP, f'"{bridge}"', str(number))
    if tracking:
        yield Operation("add", "chain", _TABLE, CHAIN, value=_HOOK)
        yield Operation("flush", "chain", _TABLE, CHAIN)
        yield Operation("add", "rule", _TABLE, CHAIN, value=_RULE)


def zone_of(element: KernelElement) -> int:
    """The number that an element of the map holds."""
    assert isinstance(element.data, bytes)
    return int.from_bytes(element.data[:2], sys.byteorder)
