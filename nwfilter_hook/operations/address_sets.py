"""
The administrator's address sets: what `ipset='NAME'` in a rule looks addresses up in.

In:  a set's name and addresses as text.
Out: elements of a named set in our table: `ipset/NAME` for IPv4, `ipset6/NAME` for IPv6.

A set comes into being with the first rule or the first address that names it, outlives guests and updates, and is
emptied by nobody but the administrator (and by whoever flushes the whole ruleset). An element is an address, a network
(192.0.2.0/24) or a range (192.0.2.1-192.0.2.9); for a rule with several `ipsetflags`, as many of them joined by commas.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from ..base.dataclass import dataclass
from ..base.errors import NwfilterHookError
from ..filters.values import parse_set_name
from ..host import Host
from ..ruleset.fields import ValueType, max_dimensions
from ..ruleset.model import NamedSet, SetPurpose

_VERSIONS = {4: ValueType.IPV4, 6: ValueType.IPV6}


@dataclass(frozen=True)
class Element:
    """One element of a set, as nft writes it, and the set it belongs to."""

    named: NamedSet
    text: str


def parse_element(name: str, text: str) -> Element:
    """
    An element that was typed as `text`.

    Raises:
        NwfilterHookError: it is no address, network or range, or mixes IPv4 and IPv6; or the name can't be a set's.
    """
    try:
        parse_set_name(name)
    except ValueError as error:
        raise NwfilterHookError(f"set {name!r}: it needs {error}") from None
    parts = [_part(part.strip()) for part in text.split(",")]
    versions = {version for version, _ in parts}
    kind = _VERSIONS[min(versions)]
    if len(versions) > 1 or len(parts) > max_dimensions(kind):
        raise NwfilterHookError(
            f"{text!r}: addresses of one family make an element, up to {max_dimensions(ValueType.IPV4)} of IPv4 or "
            f"{max_dimensions(ValueType.IPV6)} of IPv6"
        )
    named = NamedSet(SetPurpose.IPSET, name, kind, dimensions=len(parts))
    return Element(named, " . ".join(written for _, written in parts))


def _part(text: str) -> tuple[int, str]:
    """(IP version, nft's spelling) of an address, a network or a range."""
    try:
        first, dash, last = text.partition("-")
        if dash:
            low, high = ipaddress.ip_address(first), ipaddress.ip_address(last)
            if low.version != high.version or int(low) > int(high):
                raise ValueError
            return low.version, f"{low}-{high}" if low != high else str(low)
        if "/" in text:
            network = ipaddress.ip_network(text, strict=False)
            return network.version, str(network)
        if "%" in text:
            raise ValueError
        address = ipaddress.ip_address(text)
    except ValueError:
        raise NwfilterHookError(f"{text!r} is no address, network or range of addresses") from None
    return address.version, str(address)


def change_set(host: Host, operation: str, name: str, texts: Iterable[str]) -> None:
    """
    Add elements to a set or delete them, all or none.

    Args:
        operation: "add" or "delete".

    Raises:
        NwfilterHookError: a wrong element; or nft refused (it is not there, it overlaps another).
    """
    elements = [parse_element(name, text) for text in texts]
    if operation == "delete":
        list_set(host, name)
    host.backend.change_set(operation, [(element.named, element.text) for element in elements])


def flush_set(host: Host, name: str) -> None:
    """Empty every set of that name. Raises NwfilterHookError if there is none."""
    if not host.backend.flush_sets(_sets(name)):
        raise NwfilterHookError(f"no set {name!r}")


def list_set(host: Host, name: str) -> list[str]:
    """The elements of every set of that name. Raises NwfilterHookError if there is none."""
    found = host.backend.list_sets(_sets(name))
    if found is None:
        raise NwfilterHookError(f"no set {name!r}")
    return found


def _sets(name: str) -> list[NamedSet]:
    """The sets that `name` may mean. Raises NwfilterHookError if it can't be a set's."""
    try:
        parse_set_name(name)
    except ValueError as error:
        raise NwfilterHookError(f"set {name!r}: it needs {error}") from None
    return [
        NamedSet(SetPurpose.IPSET, name, kind, dimensions=dimensions)
        for kind in (ValueType.IPV4, ValueType.IPV6)
        for dimensions in range(1, max_dimensions(kind) + 1)
    ]
