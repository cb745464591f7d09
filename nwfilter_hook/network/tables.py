"""
What other tables of nftables have that takes frames past ours: flowtables, chains on devices, and statements that send
a frame elsewhere.

include/uapi/linux/netfilter/nf_tables.h; numbers in network order.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator

from ..base.dataclass import dataclass
from .netlink import NETFILTER, Message, Netlink, attribute, attribute_list, attributes, number, text

FAMILIES = {0: "any", 1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}
BRIDGE = 7
_ON_DEVICES = (1, 5)
"""Families whose base chains may stand on a device: inet, netdev."""

_SUBSYSTEM = 10 << 8
_GETTABLE, _GETCHAIN = _SUBSYSTEM | 1, _SUBSYSTEM | 4
_GETRULE, _GETFLOWTABLE = _SUBSYSTEM | 7, _SUBSYSTEM | 23
_TABLE_NAME = 1
_HEAD = struct.Struct(">BBH")  # family, version, resource
_ELEMENT = 1  # of a list
_DEVICE_NAME, _DEVICE_PREFIX = 1, 2
_FLOWTABLE_TABLE, _FLOWTABLE_NAME, _FLOWTABLE_HOOK, _FLOWTABLE_FLAGS = 1, 2, 3, 7
_FLOWTABLE_DEVICES, _HARDWARE = 3, 1
_CHAIN_TABLE, _CHAIN_HOOK = 1, 4
_HOOK_DEVICE, _HOOK_DEVICES = 3, 4
_RULE_TABLE, _RULE_EXPRESSIONS = 1, 4
_EXPRESSION_NAME, _EXPRESSION_DATA = 1, 2
_META_KEY, _META_SOURCE, _BROUTE = 2, 3, 35


@dataclass(frozen=True)
class Devices:
    """Devices by name; a `prefix` stands for all whose names begin with it (kernel 6.17 and newer)."""

    names: tuple[str, ...]
    prefixes: tuple[str, ...] = ()

    def include(self, name: str) -> bool:
        """Whether the device of this name is one of them."""
        return name in self.names or name.startswith(self.prefixes)


@dataclass(frozen=True)
class Flowtable:
    """Connections that are forwarded between its devices before any chain is asked; a card may do it (hardware)."""

    family: str
    table: str
    name: str
    devices: Devices
    hardware: bool

    def __str__(self) -> str:
        return f"{self.family} {self.table} {self.name}"


@dataclass(frozen=True)
class DeviceChain:
    """A base chain on devices, in whatever family."""

    family: int
    table: str
    devices: Devices


def open_netfilter() -> Netlink:
    """A socket to ask about tables. Raises OSError."""
    return Netlink(NETFILTER)


def list_flowtables(netlink: Netlink) -> list[Flowtable]:
    """Those of all tables. Raises OSError."""
    found = []
    for family, data in _ask(netlink, _GETFLOWTABLE, 0):
        hook = attributes(data.get(_FLOWTABLE_HOOK, b""))
        flags = number(data.get(_FLOWTABLE_FLAGS, b""), network_order=True)
        table, name = text(data.get(_FLOWTABLE_TABLE, b"")), text(data.get(_FLOWTABLE_NAME, b""))
        devices = _devices(hook.get(_FLOWTABLE_DEVICES, b""))
        found.append(Flowtable(_family(family), table, name, devices, bool(flags & _HARDWARE)))
    return found


def list_tables(netlink: Netlink, family: int) -> list[str]:
    """The names of a family's tables. Raises OSError."""
    return [text(data.get(_TABLE_NAME, b"")) for _, data in _ask(netlink, _GETTABLE, family)]


def list_device_chains(netlink: Netlink) -> list[DeviceChain]:
    """The base chains that stand on devices. Raises OSError."""
    found = []
    for family, data in [each for number_ in _ON_DEVICES for each in _ask(netlink, _GETCHAIN, number_)]:
        hook = attributes(data.get(_CHAIN_HOOK, b""))
        named = attribute(_DEVICE_NAME, hook[_HOOK_DEVICE]) if _HOOK_DEVICE in hook else b""
        devices = _devices(named + hook.get(_HOOK_DEVICES, b""))
        if devices.names or devices.prefixes:
            found.append(DeviceChain(family, text(data.get(_CHAIN_TABLE, b"")), devices))
    return found


def list_detours(netlink: Netlink, family: int, table: str) -> frozenset[str]:
    """The statements of a table that send frames where no later chain is asked: fwd, dup, broute. Raises OSError."""
    found = set()
    question = attribute(_RULE_TABLE, table.encode(errors="surrogateescape") + b"\0")
    for _, data in _ask(netlink, _GETRULE, family, question):
        for kind, element in attribute_list(data.get(_RULE_EXPRESSIONS, b"")):
            expression = attributes(element) if kind == _ELEMENT else {}
            name = text(expression.get(_EXPRESSION_NAME, b""))
            if name == "meta":
                values = attributes(expression.get(_EXPRESSION_DATA, b""))
                if _META_SOURCE in values and number(values.get(_META_KEY, b""), network_order=True) == _BROUTE:
                    found.add("broute")
            elif name in ("fwd", "dup"):
                found.add(name)
    return frozenset(found)


def _ask(netlink: Netlink, kind: int, family: int, question: bytes = b"") -> Iterator[tuple[int, dict[int, bytes]]]:
    """Family and attributes of everything that is listed; nothing where the kernel has no such thing."""
    try:
        found: list[Message] = netlink.ask(kind, _HEAD.pack(family, 0, 0) + question, dump=True)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EOPNOTSUPP, errno.EINVAL, errno.EPROTONOSUPPORT):
            return
        raise
    for message in found:
        yield message.payload[0], attributes(message.payload, _HEAD.size)


def _devices(data: bytes) -> Devices:
    found = list(attribute_list(data))
    names = tuple(text(value) for kind, value in found if kind == _DEVICE_NAME)
    return Devices(names, tuple(text(value) for kind, value in found if kind == _DEVICE_PREFIX))


def _family(number_: int) -> str:
    return FAMILIES.get(number_, str(number_))
