"""
What a tap is on this host.
"""

from __future__ import annotations

import os

from ..base.errors import Unfilterable
from ..domain.model import Interface, PortKind
from ..ruleset.model import Attachment


def attachment_of(interface: Interface) -> Attachment:
    """
    Where the interface's traffic can be seen; an `ethernet` device, or one of which the XML tells too little, is asked
    what it is, and whether in a bridge.
    """
    if interface.kind is PortKind.MACVTAP:
        return Attachment.MACVTAP
    if interface.kind is PortKind.OPENVSWITCH:
        return Attachment.DEVICE
    if interface.kind in (PortKind.ETHERNET, PortKind.OTHER) and interface.tap:
        device = f"/sys/class/net/{interface.tap}"
        # libvirt takes a macvtap that somebody else has made, too: <target managed='no'/>
        if os.path.exists(f"{device}/macvtap"):
            return Attachment.MACVTAP
        if os.path.exists(device) and not os.path.exists(f"{device}/brport"):
            return Attachment.DEVICE
    return Attachment.BRIDGE_PORT


def can_be_closed(interface: Interface) -> bool:
    """Whether there is a place for a quarantine: the guest's frames pass no device on the host if it isn't there."""
    return interface.kind is not PortKind.OTHER or os.path.exists(f"/sys/class/net/{interface.tap}")


def refuse_userspace_datapath(interface: Interface, tap: str) -> None:
    """
    Open vSwitch's kernel datapath makes its ports belong to a device of its own (ovs-system). The userspace datapath
    reads them with packet sockets, to which the kernel gives a frame before any filter.
    """
    # the record of a routed `ethernet` tap comes back as the same kind of port
    if interface.kind is not PortKind.OPENVSWITCH or interface.type == "ethernet":
        return
    device = f"/sys/class/net/{tap}"
    if os.path.exists(device) and not os.path.exists(f"{device}/master"):
        raise Unfilterable(
            f"{tap} is a port of an Open vSwitch bridge with the userspace datapath (datapath_type=netdev), where no "
            "filter of the kernel sees what the guest sends; use the kernel's datapath",
            interface.source,
        )
