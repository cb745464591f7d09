"""
Tables of iptables, ip6tables and ebtables in their older form (legacy), which nf_tables doesn't show.

Out: a `LegacyTable` for each that is in use in this network namespace; asking loads no module.

include/uapi/linux/netfilter_ipv4/ip_tables.h, netfilter_ipv6/ip6_tables.h, netfilter_bridge/ebtables.h
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import socket
import struct
from collections.abc import Iterator

from ..base.dataclass import dataclass

_GET_INFO, _GET_ENTRIES = 64, 65  # IPT_SO_…, IP6T_SO_…
_INFO = struct.Struct("@32sI5I5III")  # name, hooks, where they begin, where their policies are, rules, octets
_HOOKS = ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING")
_FAMILIES = {"ip": (socket.AF_INET, socket.SOL_IP, 88), "ip6": (socket.AF_INET6, 41, 140)}
"""What sockets are asked by, and where a rule says where its target begins and the next rule is."""
_OFFSETS = struct.Struct("@HH")
_TARGET = struct.Struct("@H29sB")
_DROP = -1
_EBT_GET_INFO, _EBT_GET_ENTRIES = 128, 129
_REPLACE = struct.Struct("@32sIII6PIPP")  # struct ebt_replace: name, hooks, rules, size, 6 chains, counters …
_NAME = re.compile(rb"[A-Za-z0-9_.:+-]{2,31}(?=\0)")


@dataclass(frozen=True)
class LegacyTable:
    """
    One table.

    Attributes:
        family: "ip", "ip6" or "bridge".
        chains: of ebtables' tables every word that may be a chain's name.
        dropping: built-in chains whose policy is to drop, or that drop or reject in one of their own rules.
        policies: built-in chains whose policy is to drop.
        targets: what rules jump to that is no chain: "REJECT", "NOTRACK", "CT" …
    """

    family: str
    name: str
    chains: frozenset[str]
    dropping: frozenset[str]
    policies: frozenset[str]
    targets: frozenset[str]


def list_legacy_tables() -> list[LegacyTable]:
    """Those of this network namespace. Raises OSError."""
    return [*_ip_tables("ip"), *_ip_tables("ip6"), *_bridge_tables()]


def _ip_tables(family: str) -> Iterator[LegacyTable]:
    try:
        with open(f"/proc/thread-self/net/{family}_tables_names", encoding="ascii") as file:
            names = file.read().split()
    except FileNotFoundError:
        return
    domain, level, place = _FAMILIES[family]
    with socket.socket(domain, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        for name in names:
            info = _INFO.unpack(_ask(raw, level, _GET_INFO, name.encode().ljust(_INFO.size, b"\0")))
            question = name.encode().ljust(32, b"\0") + struct.pack("@I4x", info[-1])
            data = _ask(raw, level, _GET_ENTRIES, question + bytes(info[-1]))[len(question) :]
            yield _parse(family, name, data, info[1], info[2:7], info[7:12], place)


def _parse(
    family: str, name: str, data: bytes, hooks: int, begins: tuple[int, ...], ends: tuple[int, ...], place: int
) -> LegacyTable:
    chains, targets, dropping, policies = (set[str]() for _ in range(4))
    offset = 0
    while offset + place + _OFFSETS.size <= len(data):
        target, following = _OFFSETS.unpack_from(data, offset + place)
        if following == 0:
            break
        _, raw_name, _ = _TARGET.unpack_from(data, offset + target)
        kind = _text(raw_name)
        verdict = struct.unpack_from("@i", data, offset + target + 32)[0] if kind == "" else 0
        if kind == "ERROR":  # of a chain this is its head, the last is the table's end
            chains.add(_text(data[offset + target + 32 : offset + following]))
        elif kind:
            targets.add(kind)
        for number, hook in enumerate(_HOOKS):
            if hooks & 1 << number and begins[number] <= offset <= ends[number]:
                chains.add(hook)
                if verdict == _DROP or kind == "REJECT":
                    dropping.add(hook)
                if verdict == _DROP and offset == ends[number]:
                    policies.add(hook)
        offset += following
    frozen = (frozenset(each) for each in (chains - {"ERROR"}, dropping, policies, targets))
    return LegacyTable(family, name, *frozen)


def _bridge_tables() -> Iterator[LegacyTable]:
    """ebtables' tables, told by their modules: a question for one that isn't loaded would load it."""
    modules: set[str] | None = None  # a kernel without modules loads none
    with contextlib.suppress(FileNotFoundError), open("/proc/modules", encoding="ascii") as file:
        modules = {line.split()[0] for line in file}
    for name in ("filter", "nat"):
        if modules is None or f"ebtable_{name}" in modules:
            try:
                yield _bridge_table(name)
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENOPROTOOPT):
                    raise


def _bridge_table(name: str) -> LegacyTable:
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        question = _REPLACE.pack(name.encode(), *(0,) * 12)
        info = _REPLACE.unpack(_ask(raw, socket.SOL_IP, _EBT_GET_INFO, question))
        entries = ctypes.create_string_buffer(max(info[3], 1))
        pointer = ctypes.addressof(entries)
        question = _REPLACE.pack(name.encode(), *info[1:4], *(0,) * 8, pointer)
        _ask(raw, socket.SOL_IP, _EBT_GET_ENTRIES, question + bytes(info[3]))  # that long it must be
    none = frozenset[str]()
    words = frozenset(each.decode() for each in _NAME.findall(entries.raw))
    return LegacyTable("bridge", name, words, none, none, none)


def _ask(raw: socket.socket, level: int, option: int, question: bytes) -> bytes:
    buffer = ctypes.create_string_buffer(question, len(question))
    size = ctypes.c_int(len(question))
    library = ctypes.CDLL(None, use_errno=True)
    if library.getsockopt(raw.fileno(), level, option, buffer, ctypes.byref(size)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return buffer.raw


def _text(value: bytes) -> str:
    return value.partition(b"\0")[0].decode(errors="replace")
