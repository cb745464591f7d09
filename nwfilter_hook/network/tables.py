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
_CHAIN_TABLE, _CHAIN_NAME, _CHAIN_HOOK, _CHAIN_POLICY, _CHAIN_TYPE = 1, 3, 4, 5, 7
_HOOK_NUMBER, _HOOK_PRIORITY, _HOOK_DEVICE, _HOOK_DEVICES = 1, 2, 3, 4
_HOOKS = ("prerouting", "input", "forward", "output", "postrouting")
_HOOKS_ON_DEVICES = ("ingress", "egress")
_IMMEDIATE_DATA, _DATA_VERDICT, _VERDICT_CODE, _LOOKUP_RESULT = 2, 2, 1, 3
_RULE_TABLE, _RULE_CHAIN, _RULE_EXPRESSIONS = 1, 2, 4
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


@dataclass(frozen=True)
class Chain:
    """
    A chain.

    Attributes:
        hook: of a base chain "forward", "ingress" …; "" for any other. `priority` and `policy` ("accept", "drop") are
            its, too.
        kind: of a base chain "filter", "nat", "route".
    """

    family: str
    table: str
    name: str
    hook: str
    priority: int
    policy: str
    kind: str
    devices: Devices

    def __str__(self) -> str:
        return f"{self.family} {self.table} {self.name}"


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
    found = {statement for each in list_statements(netlink, family, table).values() for statement in each}
    return frozenset(found & {"fwd", "dup", "broute"})


def list_statements(netlink: Netlink, family: int, table: str) -> dict[str, frozenset[str]]:
    """
    By chain of a table, what its rules do: "drop", "accept", "reject", "notrack", "fwd", "dup", "broute"; "map" for a
    verdict that stands in a map.

    Raises:
        OSError
    """
    found: dict[str, set[str]] = {}
    question = attribute(_RULE_TABLE, table.encode(errors="surrogateescape") + b"\0")
    for _, data in _ask(netlink, _GETRULE, family, question):
        statements = found.setdefault(text(data.get(_RULE_CHAIN, b"")), set())
        for kind, element in attribute_list(data.get(_RULE_EXPRESSIONS, b"")):
            expression = attributes(element) if kind == _ELEMENT else {}
            name = text(expression.get(_EXPRESSION_NAME, b""))
            statements.add(_statement(name, attributes(expression.get(_EXPRESSION_DATA, b""))))
    return {chain: frozenset(statements - {""}) for chain, statements in found.items()}


def _statement(name: str, values: dict[int, bytes]) -> str:
    """What an expression does; "" if it only looks, or goes to another chain."""
    if name == "meta":
        key = number(values.get(_META_KEY, b""), network_order=True)
        return "broute" if _META_SOURCE in values and key == _BROUTE else ""
    if name == "immediate":
        verdict = attributes(attributes(values.get(_IMMEDIATE_DATA, b"")).get(_DATA_VERDICT, b""))
        code = number(verdict.get(_VERDICT_CODE, b"\377"), network_order=True)
        return {0: "drop", 1: "accept"}.get(code, "")
    if name == "lookup":
        return "map" if _LOOKUP_RESULT in values and not number(values[_LOOKUP_RESULT]) else ""
    return name if name in ("fwd", "dup", "reject", "notrack") else ""


def list_all_chains(netlink: Netlink) -> list[Chain]:
    """Every chain of every family. Raises OSError."""
    found = []
    for family, data in _ask(netlink, _GETCHAIN, 0):
        hook = attributes(data.get(_CHAIN_HOOK, b""))
        named = attribute(_DEVICE_NAME, hook[_HOOK_DEVICE]) if _HOOK_DEVICE in hook else b""
        policy = number(data[_CHAIN_POLICY], network_order=True) if _CHAIN_POLICY in data else 1
        found.append(
            Chain(
                family=_family(family),
                table=text(data.get(_CHAIN_TABLE, b"")),
                name=text(data.get(_CHAIN_NAME, b"")),
                hook=_hook(family, number(hook.get(_HOOK_NUMBER, b""), network_order=True)) if hook else "",
                priority=_signed(hook.get(_HOOK_PRIORITY, b"")),
                policy="accept" if policy else "drop",
                kind=text(data.get(_CHAIN_TYPE, b"")),
                devices=_devices(named + hook.get(_HOOK_DEVICES, b"")),
            )
        )
    return found


def _hook(family: int, number_: int) -> str:
    # linux/netfilter.h; of inet, ingress comes after the five
    names = _HOOKS_ON_DEVICES if _family(family) == "netdev" else (*_HOOKS, "ingress")
    return names[number_] if number_ < len(names) else str(number_)


def _signed(value: bytes) -> int:
    return int.from_bytes(value, "big", signed=True)


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
