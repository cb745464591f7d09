"""
Traffic control: queueing disciplines, the filters on them, and what those do with frames.

Out: a `Filter` for each.

include/uapi/linux/pkt_sched.h, pkt_cls.h, tc_act/tc_mirred.h
"""

from __future__ import annotations

import struct

from ..base.dataclass import dataclass
from .netlink import Message, Netlink, attribute_list, attributes, number, text

INGRESS = 0xFFFFFFF2  # TC_H_CLSACT, TC_H_MIN_INGRESS: what comes in by the device
EGRESS = 0xFFFFFFF3

_NEWQDISC, _GETQDISC, _NEWTFILTER, _GETTFILTER = 36, 38, 44, 46
_TC = struct.Struct("=BxxxiIII")  # family, device, handle, parent, information
_KIND, _OPTIONS = 1, 2
_ACTIONS = {"bpf": 1, "cgroup": 1, "matchall": 2, "basic": 3, "flower": 3, "fw": 4, "route": 6, "u32": 7, "flow": 9}
"""Where a filter of this kind keeps its actions."""
_FLAGS = {"matchall": 3, "bpf": 9, "u32": 11, "flower": 22}
_SKIP_SOFTWARE, _IN_HARDWARE = 2, 4
_BPF_FLAGS, _BPF_ID, _BPF_DIRECT = 8, 11, 1
_ACTION_KIND, _ACTION_OPTIONS = 1, 2
_MIRRED_PARAMETERS, _MIRRED = 2, struct.Struct("=20xii")  # what it does, the device
_MIRRED_DOES = {1: ("redirect", True), 2: ("mirror", True), 3: ("redirect", False), 4: ("mirror", False)}


@dataclass(frozen=True)
class Discipline:
    """A queueing discipline: "clsact", "ingress", "fq_codel" …; the device's index; its handle."""

    device: int
    kind: str
    handle: int


@dataclass(frozen=True)
class Action:
    """
    What a filter does with a frame.

    Attributes:
        kind: "police", "gact" …; of a mirred action "redirect" or "mirror".
        device: where to, an index; 0 where there is none, or many.
        sends: the frame is sent by that device; else it comes in there.
    """

    kind: str
    device: int = 0
    sends: bool = False


@dataclass(frozen=True)
class Filter:
    """
    One filter on a device.

    Attributes:
        kind: "u32", "flower", "bpf" …
        preference: lower is asked first.
        actions: None if what it does with a frame isn't known.
        program: a BPF program that decides by itself what is done; 0 without one.
        hardware: a network card carries it out too, or alone.
    """

    device: int
    kind: str
    preference: int
    actions: tuple[Action, ...] | None
    program: int = 0
    hardware: bool = False


def list_disciplines(netlink: Netlink) -> list[Discipline]:
    """Those of all devices. Raises OSError."""
    found = []
    for message in netlink.ask(_GETQDISC, _TC.pack(0, 0, 0, 0, 0), dump=True):
        if message.type == _NEWQDISC:
            _, device, handle, _, _ = _TC.unpack_from(message.payload)
            kind = text(attributes(message.payload, _TC.size).get(_KIND, b""))
            found.append(Discipline(device, kind, handle))
    return found


def list_filters(netlink: Netlink, device: int, parent: int) -> list[Filter]:
    """
    The filters of a device.

    Args:
        parent: INGRESS, EGRESS, or the handle of one of its disciplines.

    Raises:
        OSError
    """
    found = []
    for message in netlink.ask(_GETTFILTER, _TC.pack(0, device, 0, parent, 0), dump=True):
        filter_ = parse_filter(message, device) if message.type == _NEWTFILTER else None
        if filter_:
            found.append(filter_)
    return found


def parse_filter(message: Message, device: int) -> Filter | None:
    """
    The filter that a message is about; None if it is about the head of a list of filters, which does nothing.

    Args:
        device: its index, which a message about a block that several devices share doesn't have.
    """
    _, _, handle, _, information = _TC.unpack_from(message.payload)
    found = attributes(message.payload, _TC.size)
    kind = text(found.get(_KIND, b""))
    options = attributes(found.get(_OPTIONS, b""))
    if not handle and not options:
        return None
    actions = None
    if kind in _ACTIONS:
        actions = tuple(_action(data) for _, data in attribute_list(options.get(_ACTIONS[kind], b"")))
    program = 0
    if kind == "bpf" and (_BPF_ID in options or number(options.get(_BPF_FLAGS, b"")) & _BPF_DIRECT):
        program = number(options.get(_BPF_ID, b"")) or -1
    flags = number(options.get(_FLAGS.get(kind, 0), b""))
    return Filter(device, kind, information >> 16, actions, program, bool(flags & (_IN_HARDWARE | _SKIP_SOFTWARE)))


def _action(data: bytes) -> Action:
    found = attributes(data)
    kind = text(found.get(_ACTION_KIND, b""))
    if kind == "mirred":
        parameters = attributes(found.get(_ACTION_OPTIONS, b"")).get(_MIRRED_PARAMETERS, b"")
        if len(parameters) >= _MIRRED.size:
            does, device = _MIRRED.unpack_from(parameters)
            if does in _MIRRED_DOES:
                return Action(_MIRRED_DOES[does][0], device, _MIRRED_DOES[does][1])
    return Action(kind)
