"""
Network devices.

Out: a `Link` for each; `parse_link` makes one of an event's message too (RTM_NEWLINK, RTM_DELLINK).

include/uapi/linux/rtnetlink.h, if_link.h
"""

from __future__ import annotations

import errno
import struct

from ..base.dataclass import dataclass
from .netlink import ROUTE, Message, Netlink, attribute, attributes, number, text

NEWLINK, DELLINK, GETLINK = 16, 17, 18
LINK_GROUP = 1
UP = 0x1
"""In `Link.flags`: IFF_UP."""

_INFO = struct.Struct("=BxHiII")  # family, device type, index, flags, changed flags
_ADDRESS, _NAME, _LOWER, _MASTER, _LINKINFO, _NETNSID, _XDP, _WANTED = 1, 3, 5, 10, 18, 37, 43, 29
_KIND = 1  # in LINKINFO
_XDP_MODES = {5: "native", 6: "generic", 7: "hardware"}  # in XDP: DRV_PROG_ID, SKB_PROG_ID, HW_PROG_ID
_NO_STATISTICS = 1 << 3  # RTEXT_FILTER_SKIP_STATS


@dataclass(frozen=True)
class XdpProgram:
    """A BPF program that gets a device's frames before anything else: "native", "generic" or "hardware"; its number."""

    mode: str
    id: int


@dataclass(frozen=True)
class Link:
    """
    One network device.

    Attributes:
        kind: "bridge", "tun", "vlan" …; "" for a physical one.
        master: index of the bridge, bond … that it is a port of; 0 without one.
        lower: index of the device in this namespace that it stands on (a VLAN, a macvtap); 0 without one.
        flags: IFF_UP and the like.
    """

    index: int
    name: str
    kind: str
    mac: str
    master: int
    lower: int
    flags: int
    xdp: tuple[XdpProgram, ...]


def list_links(netlink: Netlink, kind: str = "") -> list[Link]:
    """Every device, or those of one kind. Raises OSError."""
    question = _INFO.pack(0, 0, 0, 0, 0) + attribute(_WANTED, struct.pack("=I", _NO_STATISTICS))
    if kind:
        question += attribute(_LINKINFO, attribute(_KIND, kind.encode() + b"\0"))
    found = (parse_link(message) for message in netlink.ask(GETLINK, question, dump=True) if message.type == NEWLINK)
    # of a kind that it has no module for the kernel lists every device
    return [link for link in found if kind in ("", link.kind)]


def find_link(netlink: Netlink, device: str | int) -> Link | None:
    """The device of this name or index, None if there is none. Raises OSError."""
    if isinstance(device, int):
        question = _INFO.pack(0, 0, device, 0, 0)
    else:
        question = _INFO.pack(0, 0, 0, 0, 0) + attribute(_NAME, device.encode(errors="surrogateescape") + b"\0")
    try:
        found = netlink.ask(GETLINK, question)
    except OSError as error:
        if error.errno in (errno.ENODEV, errno.EINVAL, errno.ERANGE):  # the last two: no device can have that name
            return None
        raise
    return next((parse_link(message) for message in found if message.type == NEWLINK), None)


def parse_link(message: Message) -> Link:
    """The device that a message is about."""
    _, _, index, flags, _ = _INFO.unpack_from(message.payload)
    found = attributes(message.payload, _INFO.size)
    info = attributes(found.get(_LINKINFO, b""))
    xdp = attributes(found.get(_XDP, b""))
    return Link(
        index=index,
        name=text(found.get(_NAME, b"")),
        kind=text(info.get(_KIND, b"")),
        mac=found.get(_ADDRESS, b"").hex(":"),
        master=number(found.get(_MASTER, b"")),
        lower=0 if _NETNSID in found else number(found.get(_LOWER, b"")),
        flags=flags,
        xdp=tuple(XdpProgram(mode, number(xdp[kind])) for kind, mode in _XDP_MODES.items() if kind in xdp),
    )


def open_route(*groups: int) -> Netlink:
    """A socket to ask about devices and traffic control, and to hear of `groups`. Raises OSError."""
    return Netlink(ROUTE, groups)
