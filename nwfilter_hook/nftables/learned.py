"""
Learned addresses as elements of a tap's sets: changed by hand, and read.

In:  what a tap has in the kernel, addresses; elements as the kernel lists them.
Out: a `Script`; addresses.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping

from ..backend import Installed, Object
from ..base.addresses import format_mac
from ..ruleset.model import Purpose
from .commands import Operation, Script
from .netlink import KernelElement
from .sets import LearnedName, lease_map, parse_learned

_FORGOTTEN = (
    *(Purpose.LEARNED.value, f"{Purpose.LEARNED.value}6"),
    *(Purpose.LEASED.value, Purpose.UNREAD.value, Purpose.MACS.value),
)


def learnable(installed: Installed) -> Mapping[int, int]:
    """How many addresses the tap may learn, by IP version; MACs by 0."""
    found = {name.version: name.size for _, name in _sets(installed)}
    for each in mac_sets(installed):
        found[0] = int(each.name.rpartition("-")[2])
    return found


def set_learned(installed: Installed, versions: Iterable[int], addresses: Iterable[str]) -> Script:
    """
    The transaction that forgets what was learned of `versions` (of IP; 0 are MACs), and then makes `addresses` what was
    learned.
    """
    versions = tuple(versions)
    parsed = [ipaddress.ip_address(text) for text in addresses]
    operations = []
    for each in installed.objects:
        purpose = each.name.split("/")[0]
        version = 0 if purpose == Purpose.MACS.value else 6 if purpose.endswith("6") else 4
        if purpose in _FORGOTTEN and version in versions:
            operations.append(Operation("flush", each.kind, each.table, each.name))
            operations += [_add(each, element) for element in each.content]
    for each, name in _sets(installed):
        operations += [_add(each, name.element(int(ip))) for ip in parsed if ip.version == name.version]
    operations += _lease(installed, [int(ip) for ip in parsed if ip.version == 4])
    return Script(tuple(operations))


def _lease(installed: Installed, addresses: list[int]) -> Iterator[Operation]:
    """Under DHCP, the tap has a lease, and which one."""
    tap = f'"{installed.tap}"'
    for each in installed.objects:
        if addresses and each.name == f"{Purpose.LEASED.value}/{installed.tap}":
            yield _add(each, tap)
        elif addresses and each.name == lease_map(installed.tap):
            yield Operation("add", "element", each.table, each.name, tap, f"{addresses[0]:#x}")


def _add(named: Object, element: str) -> Operation:
    return Operation("add", "element", named.table, named.name, element)


def _sets(installed: Installed) -> Iterator[tuple[Object, LearnedName]]:
    for each in installed.objects:
        name = parse_learned(each.name) if each.kind == "set" else None
        if name is not None:
            yield each, name


def whole_sets(installed: Installed) -> list[Object]:
    """The sets that hold what was learned, not a part of it nor another spelling."""
    return [each for each, name in _sets(installed) if name.mask is None]


def own_addresses(installed: Installed) -> set[str]:
    """The addresses that are the tap's from the beginning."""
    return {str(ipaddress.IPv6Address(int(element, 0))) for each in whole_sets(installed) for element in each.content}


def unread_sets(installed: Installed) -> list[Object]:
    """The sets of addresses in DHCP answers that were not understood."""
    return [each for each in installed.objects if each.name.split("/")[0] == Purpose.UNREAD.value]


def mac_sets(installed: Installed) -> list[Object]:
    """The sets of MACs that were learned."""
    return [each for each in installed.objects if each.kind == "set" and each.name.startswith(f"{Purpose.MACS.value}/")]


def mac_of(element: KernelElement) -> str:
    """The MAC that an element is."""
    return format_mac(int.from_bytes(element.key[:6], "big"))


def address_of(element: KernelElement) -> str:
    """The address that an element is."""
    return str(ipaddress.ip_address(element.key[:16] if len(element.key) >= 16 else element.key[:4]))
