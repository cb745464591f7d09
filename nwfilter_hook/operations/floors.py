"""
Floors: the filter that the configuration has for all interfaces of a bridge, whatever the guest's XML says.

In:  a `Host`, whose configuration says floor.BRIDGE = FILTER, and a guest's interfaces.
Out: the reference to the floor's filter, for those that have one.
"""

from __future__ import annotations

from ..base.dataclass import replace
from ..base.errors import InputError
from ..domain.model import Carrier, Domain, Interface, checked
from ..domain.parse import parse_domain, reference_of
from ..filters.model import FilterRef
from ..host import Host
from .devices import bridge_of, read_device


def read_domain(host: Host, data: bytes, path: str, *, tolerant: bool = False) -> Domain:
    """
    The guest that the domain XML describes; an interface that names no filter has its bridge's floor.

    Raises:
        InputError: see parse_domain.
    """
    domain = parse_domain(data, path, host.config.defaults, tolerant=tolerant)
    if not host.config.floors:
        return domain
    return replace(domain, interfaces=tuple(_floored(host, each, tolerant) for each in domain.interfaces))


def _floored(host: Host, interface: Interface, tolerant: bool) -> Interface:
    if interface.reference or interface.problem:
        return interface
    floor = _floor_of(host, bridge_of(interface, read_device(interface.tap) if interface.tap else None))
    if floor is None:
        return interface
    try:
        return checked(replace(interface, reference=floor, carrier=Carrier.DEFAULT))
    except InputError as error:
        if not tolerant:
            raise
        return replace(interface, problem=error)


def floor_below(host: Host, bridge: str | None, reference: FilterRef) -> FilterRef | None:
    """The floor that counts beside `reference`; None without one, or if it is the same."""
    floor = _floor_of(host, bridge)
    same = floor and (floor.filter, dict(floor.parameters)) == (reference.filter, dict(reference.parameters))
    return None if same else floor


def _floor_of(host: Host, bridge: str | None) -> FilterRef | None:
    floor = next((each for each in host.config.floors if each.fits(bridge)), None)
    return reference_of(floor) if floor else None


def describe(floor: FilterRef | None) -> str:
    """As a record holds it, and the configuration: FILTER NAME=VALUE …; "" for none."""
    if floor is None:
        return ""
    words = (f"{name}={value}" for name, values in floor.parameters.items() for value in values)
    return " ".join((floor.filter, *words))
