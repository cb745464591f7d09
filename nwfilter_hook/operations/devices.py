"""
What a tap is on this host, as /sys tells.
"""

from __future__ import annotations

import contextlib
import enum
import os

from ..base.dataclass import dataclass
from ..base.errors import Unfilterable
from ..domain.model import Interface, PortKind
from ..ruleset.model import Attachment

_NET = "/sys/class/net"


@dataclass(frozen=True)
class Device:
    """
    A network device of this host.

    Attributes:
        index: as the kernel counts devices; a device made anew under the same name has another.
        bridge: the bridge that it is a port of, or None.
    """

    name: str
    index: int
    is_macvtap: bool
    bridge: str | None


def read_device(name: str) -> Device | None:
    """The device of that name; None if there is none."""
    path = f"{_NET}/{name}"
    try:
        with open(f"{path}/ifindex", encoding="ascii") as file:
            index = int(file.read())
    except (OSError, ValueError):
        return None
    bridge = None
    with contextlib.suppress(OSError):
        bridge = os.path.basename(os.readlink(f"{path}/brport/bridge"))
    return Device(name, index, os.path.exists(f"{path}/macvtap"), bridge)


def find_device(index: int) -> Device | None:
    """The device of that index, whatever it is called; None if there is none."""
    with contextlib.suppress(OSError):
        for name in os.listdir(_NET):
            device = read_device(name)
            if device is not None and device.index == index:
                return device
    return None


class Whereabouts(enum.Enum):
    """What became of the device of a tap since its rules were made."""

    THERE = "there"
    RENAMED = "renamed"
    REPLACED = "replaced by another device"
    GONE = "gone"
    UNBRIDGED = "out of its bridge"
    MOVED = "in another bridge"


def locate(
    tap: str, index: int | None, attachment: Attachment, bridge: str | None
) -> tuple[Whereabouts, Device | None]:
    """
    The device that a tap was, and what became of it.

    Args:
        index, attachment, bridge: what it was; an index of None was not known, and then nothing can be told.
    """
    device = read_device(tap)
    if index is None:
        return Whereabouts.THERE, device
    if device is None or device.index != index:
        other = find_device(index)
        if other is not None:
            return Whereabouts.RENAMED, other
        return (Whereabouts.GONE, None) if device is None else (Whereabouts.REPLACED, device)
    if attachment is Attachment.BRIDGE_PORT and device.bridge is None:
        return Whereabouts.UNBRIDGED, device
    moved = device.bridge != (bridge if attachment is Attachment.BRIDGE_PORT else None)
    return (Whereabouts.MOVED if moved else Whereabouts.THERE), device


def attachment_of(interface: Interface, device: Device | None) -> Attachment:
    """Where the interface's traffic can be seen: what the XML says, unless the device shows something else."""
    if interface.kind is PortKind.MACVTAP:
        return Attachment.MACVTAP
    if interface.kind is PortKind.OPENVSWITCH:
        return Attachment.DEVICE
    if device is not None:
        # libvirt takes a macvtap that somebody else has made, too: <target managed='no'/>
        if device.is_macvtap:
            return Attachment.MACVTAP
        if device.bridge is None:
            return Attachment.DEVICE
    return Attachment.BRIDGE_PORT


def bridge_of(interface: Interface, device: Device | None) -> str | None:
    """The bridge that the interface is a port of; before there is a device, the one that the XML names."""
    return (device.bridge if device else None) or interface.bridge


def can_be_closed(interface: Interface) -> bool:
    """Whether there is a place for a quarantine: the guest's frames pass no device on the host if it isn't there."""
    return interface.kind is not PortKind.OTHER or read_device(interface.tap or "") is not None


def without_ingress(bridge: str | None) -> str:
    """What is left open on a bridge port of a kernel that has no rules at the ingress of a device."""
    return (
        "what it sends to 01:80:c2:00:00:00 to 0f is not filtered: this kernel lacks CONFIG_NETFILTER_INGRESS; "
        f"`ip link set {bridge or 'BRIDGE'} type bridge no_linklocal_learn 1` at least keeps the bridge from learning "
        "from it"
    )


def refuse_userspace_datapath(interface: Interface, tap: str) -> None:
    """
    Open vSwitch's kernel datapath makes its ports belong to a device of its own (ovs-system). The userspace datapath
    reads them with packet sockets, to which the kernel gives a frame before any filter.

    Raises:
        Unfilterable: it is such a port.
    """
    if interface.kind is not PortKind.OPENVSWITCH:
        return
    device = f"/sys/class/net/{tap}"
    if os.path.exists(device) and not os.path.exists(f"{device}/master"):
        raise Unfilterable(
            f"{tap} is a port of an Open vSwitch bridge with the userspace datapath (datapath_type=netdev), where no "
            "filter of the kernel sees what the guest sends; use the kernel's datapath",
            interface.source,
        )
