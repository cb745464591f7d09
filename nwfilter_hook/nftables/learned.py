"""
Learned addresses as elements of a tap's sets: changed by hand, and read.

In:  what a tap has in the kernel, addresses; elements as the kernel lists them.
Out: a `Script`; addresses.
"""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping

from ..backend import Installed, LearnedAddress, Object
from ..base.addresses import format_mac
from ..ruleset.model import SetPurpose
from .commands import Operation, Script
from .netlink import KernelElement, read_elements
from .segments import claim, give_back
from .sets import TIMEOUT_S, LearnedName, lease_map, parse_learned, segment_set

_FLUSHED = {SetPurpose.LEASED.value: 4, SetPurpose.UNREAD.value: 4, SetPurpose.MACS.value: 0}
_ANYHOW = ("add", "delete")
"""What may be gone by itself is added first."""


def learnable(installed: Installed) -> Mapping[int, int]:
    """How many addresses the tap may learn, by IP version; MACs by 0."""
    found = {name.version: name.size for _, name in _sets(installed)}
    for each in mac_sets(installed):
        found[0] = int(each.name.rpartition("-")[2])
    return found


def set_learned(installed: Installed, versions: Iterable[int], addresses: Iterable[str], now_s: int) -> Script:
    """
    The transaction that forgets what was learned of `versions` (of IP; 0 are MACs), and then makes `addresses` what was
    learned: it is refused if another tap of the segment has one of them. It takes out what the kernel shows now, and no
    more: the guest may learn meanwhile. Raises NftError.
    """
    versions = tuple(versions)
    parsed = [ipaddress.ip_address(text) for text in addresses]
    operations: list[Operation] = []
    for each, name in _sets(installed):
        if name.version in versions:
            known = [int.from_bytes(element.key, "big") for element in read_elements(each.table, each.name)]
            gone = [f"{address:#x}" for address in known if f"{address:#x}" not in each.content]
            operations += [
                Operation(verb, "element", each.table, each.name, ", ".join(gone)) for verb in _ANYHOW if gone
            ]
            if name.mask is None:
                operations += give_back(each.table, each.name, known)
    for each in installed.objects:
        if _FLUSHED.get(each.name.split("/")[0]) in versions:
            operations.append(Operation("flush", each.kind, each.table, each.name))
    for each, name in _sets(installed):
        mine = [int(ip) for ip in parsed if ip.version == name.version]
        operations += [_add(each, name.element(address)) for address in mine]
        if name.mask is None:
            operations += claim(each.table, each.name, mine, now_s)
    operations += _lease(installed, [int(ip) for ip in parsed if ip.version == 4])
    return Script(tuple(operations))


def _lease(installed: Installed, addresses: list[int]) -> Iterator[Operation]:
    """Under DHCP, the tap has a lease, and which one."""
    tap = f'"{installed.tap}"'
    for each in installed.objects:
        if addresses and each.name == f"{SetPurpose.LEASED.value}/{installed.tap}":
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
    return [each for each in installed.objects if each.name.split("/")[0] == SetPurpose.UNREAD.value]


def mac_sets(installed: Installed) -> list[Object]:
    """The sets of MACs that were learned."""
    return [
        each for each in installed.objects if each.kind == "set" and each.name.startswith(f"{SetPurpose.MACS.value}/")
    ]


def learned_macs(installed: Installed, now_s: int) -> list[LearnedAddress]:
    """What MACs the kernel has learned for the tap, and since when, as what is left of their time tells."""
    found = (element for each in mac_sets(installed) for element in read_elements(each.table, each.name))
    return [
        LearnedAddress(
            format_mac(int.from_bytes(element.key[:6], "big")),
            None if element.left_s is None else now_s - (TIMEOUT_S - element.left_s),
        )
        for element in found
    ]


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Union

    Since = Callable[[str, str], Mapping[bytes, Union[bytes, str, None]]]
else:
    Since = object


def since(table: str, name: str) -> Mapping[bytes, bytes | str | None]:
    """By address, when the taps of a segment have learned it, of the map that says so. Raises NftError."""
    return {element.key: element.data for element in read_elements(table, name)}


def learned_addresses(installed: Installed, since: Since) -> list[LearnedAddress]:
    """What the kernel has learned for the tap, and since when. Raises NftError."""
    found = []
    for each, name in _sets(installed):
        if name.mask is None:
            times = since(each.table, segment_set(SetPurpose.SINCE, name.kind, name.segment))
            found += [
                LearnedAddress(address_of(element), _seconds(times.get(element.key)))
                for element in read_elements(each.table, each.name)
            ]
    return found


def _seconds(nanoseconds: bytes | str | None) -> int | None:
    """What `meta time` stores: nanoseconds since the epoch, in the machine's byte order."""
    return int.from_bytes(nanoseconds, sys.byteorder) // 10**9 if isinstance(nanoseconds, bytes) else None


def address_of(element: KernelElement) -> str:
    """The address that an element is."""
    return str(ipaddress.ip_address(element.key[:16] if len(element.key) >= 16 else element.key[:4]))
