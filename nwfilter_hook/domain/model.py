"""
A guest and its interfaces; frozen, compared with ==.
"""

from __future__ import annotations

import enum

from ..base.addresses import is_tap_name
from ..base.dataclass import dataclass
from ..base.errors import DomainError, InputError, Source
from ..filters.model import FilterRef


class PortKind(enum.Enum):
    """
    What the host end of an interface really is, whatever its <interface type=…> says; OTHER is all of which it isn't
    known that the guest's frames pass a hook of the kernel that a filter can stand on.
    """

    BRIDGE = "bridge"
    ETHERNET = "ethernet"
    MACVTAP = "macvtap"
    OPENVSWITCH = "openvswitch"
    OTHER = "other"


FILTERABLE = {
    ("bridge", ""): PortKind.BRIDGE,
    ("bridge", "openvswitch"): PortKind.OPENVSWITCH,
    ("direct", ""): PortKind.MACVTAP,
    ("direct", "802.1Qbg"): PortKind.MACVTAP,
    ("direct", "802.1Qbh"): PortKind.MACVTAP,
    ("ethernet", ""): PortKind.ETHERNET,
}
"""
Interface type and <virtualport type=…> ("" without one) that are known to be filterable; a `network` interface is a
`bridge` or a `direct` one underneath. A tap with another <virtualport> is given to an agent (midonet) or to no bridge
at all: libvirt's virNetDevTapAttachBridge() knows two types and does nothing for the others.
"""


class Carrier(enum.Enum):
    """Where an interface's filterref was found; a later one here wins over an earlier."""

    DEFAULT = "default"
    FILTERREF = "filterref"
    METADATA = "metadata"


@dataclass(frozen=True)
class Interface:
    """
    One interface of a guest.

    Attributes:
        type: as in the XML; `kind` is what it is underneath.
        mac: canonical text, or "" if the XML has none.
        tap: name of the host device, or None where the XML doesn't know it (yet, or any more).
        bridge: name of the bridge, or None.
        reference: the filter to enforce, or None.
        problem: why the reference can't be enforced, where the reader wanted to go on (None: nothing is wrong).
        called: what the XML calls the tap, where the host has another name for it by now.
        virtualport: type of its <virtualport>, "" without one.
    """

    type: str
    kind: PortKind
    mac: str
    tap: str | None
    bridge: str | None
    reference: FilterRef | None
    carrier: Carrier | None
    source: Source
    problem: InputError | None = None
    called: str | None = None
    virtualport: str = ""


@dataclass(frozen=True)
class Domain:
    """
    A guest, as its domain XML describes it.

    Attributes:
        problem: what is wrong with it beside its interfaces, where the reader wanted to go on.
    """

    name: str
    uuid: str
    interfaces: tuple[Interface, ...]
    source: Source
    problem: InputError | None = None


def check_tap(name: str, source: Source) -> str:
    """
    `name`, if it can name chains and stand in a verdict map; libvirt's own schema allows no more.

    Raises:
        DomainError: it can't.
    """
    if not is_tap_name(name):
        raise DomainError(f"tap name {name!r}: use up to 15 of A-Z a-z 0-9 _ . -", source)
    return name


def checked(interface: Interface) -> Interface:
    """`interface`, whose reference can be enforced, as far as its XML shows."""
    if interface.kind is PortKind.OTHER:
        raise DomainError(_why_unfilterable(interface), interface.source)
    if not interface.mac:
        raise DomainError("the interface has a filter but no <mac address='…'/>", interface.source)
    if interface.tap is not None:
        check_tap(interface.tap, interface.source)
    return interface


def _why_unfilterable(interface: Interface) -> str:
    if interface.type != "network" and (interface.type, "") not in FILTERABLE:
        return f"an interface of type {interface.type!r} has no tap on the host to filter"
    ports = [f"<virtualport type='{port}'/>" for kind, port in FILTERABLE if port and kind == interface.type]
    return (
        f"an interface of type {interface.type!r} with <virtualport type={interface.virtualport!r}/> can't be "
        "filtered: its frames may go where no filter stands; filters work "
        + " or ".join(["without <virtualport>", *(f"with {port}" for port in ports)])
    )
