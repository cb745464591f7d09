"""
Read nf_tables by netlink: no process, no text of nft's that changes with its versions.

In:  a table of ours, a chain, a set.
Out: what the kernel holds, as values.

Formats: linux/netlink.h (messages and attributes, in the machine's byte order), linux/netfilter/nf_tables.h (the
attributes' numbers; their integers are in network byte order).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

from ..base.dataclass import dataclass
from ..base.errors import NftError
from ..network.door import Door
from ..network.netlink import NETFILTER
from .names import TABLE

_SUBSYSTEM = 10 << 8  # NFNL_SUBSYS_NFTABLES
_GET_TABLE, _NEW_CHAIN, _GET_CHAIN, _NEW_RULE, _GET_RULE, _NEW_SET, _GET_SET = 1, 3, 4, 6, 7, 9, 10
_NEW_ELEMENT, _GET_ELEMENT = 12, 13
_ERROR, _DONE = 2, 3
_REQUEST, _DUMP, _MULTI, _INTERRUPTED = 0x1, 0x300, 0x2, 0x10
_NESTED, _IS_NESTED = 0x3FFF, 0x8000  # the other bits of an attribute's type are flags
_INTERFACE_BYTES = 16  # IFNAMSIZ, linux/if.h
_FAMILIES = {"inet": 1, "arp": 3, "bridge": 7, "netdev": 5}
_ENOENT = 2
_ANONYMOUS = "__set"
_RETRIES = 20
_TIMEOUT_S = 20.0

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")


@dataclass(frozen=True)
class Hook:
    """Where a base chain stands: the hook's number and priority, and for family netdev the device."""

    number: int
    priority: int
    device: str


@dataclass(frozen=True)
class KernelRule:
    """
    One rule.

    Attributes:
        comment: as nft stores it in the rule's user data.
        program: its expressions, in the kernel's own form, without what its counter counted and the names of sets that
            are its own: the kernel makes them up.
        sets: these.
        stops: it drops or rejects.
        packets, octets: of its counter; None without one.
    """

    chain: str
    comment: str
    program: bytes
    stops: bool
    packets: int | None
    octets: int | None
    sets: tuple[str, ...] = ()


@dataclass(frozen=True)
class KernelElement:
    """
    One element of a set or map.

    Attributes:
        key: the octets that are looked up.
        data: what they map to: octets, or the name of the verdict.
        left_s: until it goes; None if it stays.
        packets: of its counter; None without one.
    """

    key: bytes
    data: bytes | str | None
    left_s: int | None
    packets: int | None = None

    @property
    def text(self) -> str:
        """Of an interface's name, which stands for itself."""
        return _text(self.key)


def read_chains(table: str) -> dict[str, Hook | None]:
    """The chains of our table in this family, a base chain with its hook; {} without the table. Raises NftError."""
    chains: dict[str, Hook | None] = {}
    for kind, attributes in _ask(_GET_CHAIN, table, {1: TABLE}):
        if kind == _NEW_CHAIN and _text(attributes[1]) == TABLE:
            chains[_text(attributes[3])] = _hook(attributes[4]) if 4 in attributes else None
    return chains


def read_sets(table: str) -> list[str]:
    """The names of the sets and maps of our table in this family. Raises NftError."""
    found = _ask(_GET_SET, table, {1: TABLE})
    return [_text(attributes[2]) for kind, attributes in found if kind == _NEW_SET and _text(attributes[1]) == TABLE]


def read_rules(table: str, chain: str | None = None) -> list[KernelRule]:
    """The rules of a chain, or of all chains of our table in this family, in their order. Raises NftError."""
    wanted = {1: TABLE} if chain is None else {1: TABLE, 2: chain}
    found = _ask(_GET_RULE, table, wanted)
    return [
        rule
        for kind, attributes in found
        if kind == _NEW_RULE and _text(attributes[1]) == TABLE
        for rule in [_rule(attributes)]
        if chain in (None, rule.chain)
    ]


def read_places(table: str) -> dict[int, tuple[str, str]]:
    """Chain and comment of each rule of our table in this family, by the rule's number. Raises NftError."""
    return {
        int.from_bytes(attributes[3], "big"): (_text(attributes[2]), _comment(attributes.get(7, b"")))
        for kind, attributes in _ask(_GET_RULE, table, {1: TABLE})
        if kind == _NEW_RULE and _text(attributes[1]) == TABLE
    }


def read_counted(table: str, owner: str) -> dict[str, int]:
    """By chain, the packets that its rules have counted, of a table `owner` of this family. Raises NftError."""
    counted: dict[str, int] = {}
    for kind, attributes in _ask(_GET_RULE, table, {1: owner}):
        if kind == _NEW_RULE and _text(attributes[1]) == owner:
            rule = _rule(attributes)
            counted[rule.chain] = counted.get(rule.chain, 0) + (rule.packets or 0)
    return counted


def has_table(table: str, name: str) -> bool:
    """Whether there is a table of that name in this family. Raises NftError."""
    return bool(_ask(_GET_TABLE, table, {1: name}, dump=False))


def read_elements(table: str, name: str) -> list[KernelElement]:
    """The elements of a set or map of our table; [] if it isn't there. Raises NftError."""
    found: list[KernelElement] = []
    for kind, attributes in _ask(_GET_ELEMENT, table, {1: TABLE, 2: name}):
        if kind == _NEW_ELEMENT:
            found += [_element(dict(_attributes(value))) for _, value in _attributes(attributes.get(3, b""))]
    return found


def read_verdicts(map_name: str) -> dict[str, str]:
    """Interface to verdict, of one of our maps; {} if it isn't there. Raises NftError."""
    return {element.text: str(element.data) for element in read_elements("bridge", map_name)}


def read_chain(table: str, name: str) -> dict[str, Hook | None]:
    """As `read_chains`, of one chain; {} if it isn't there. Raises NftError."""
    found = _ask(_GET_CHAIN, table, {1: TABLE, 3: name}, dump=False)
    return {_text(attributes[3]): _hook(attributes[4]) if 4 in attributes else None for _, attributes in found}


def read_verdict(map_name: str, interface: str) -> str | None:
    """As `read_verdicts`, of one interface. Raises NftError."""
    key = _nested(1, _nested(1, _packed(1, interface.encode().ljust(_INTERFACE_BYTES, b"\0"))))
    for _, attributes in _ask(_GET_ELEMENT, "bridge", {1: TABLE, 2: map_name}, dump=False, more=_nested(3, key)):
        for _, value in _attributes(attributes.get(3, b"")):
            return str(_element(dict(_attributes(value))).data)
    return None


def _hook(nested: bytes) -> Hook:
    attributes = dict(_attributes(nested))
    device = attributes.get(3)
    if device is None and 4 in attributes:  # a list of devices
        device = next((value for _, value in _attributes(attributes[4])), b"")
    number, priority = (int.from_bytes(attributes[key], "big", signed=True) for key in (1, 2))
    return Hook(number, priority, _text(device or b""))


def _rule(attributes: dict[int, bytes]) -> KernelRule:
    program = bytearray()
    packets = octets = None
    stops = False
    sets: list[str] = []
    for _, expression in _attributes(attributes.get(4, b"")):
        parts = dict(_attributes(expression))
        name, body = _text(parts[1]), parts.get(2, b"")
        if name == "counter":
            counted = dict(_attributes(body))
            octets, packets = (int.from_bytes(counted[key], "big") for key in (1, 2))
            body = b""
        elif name == "lookup" and _text(dict(_attributes(body))[1]).startswith(_ANONYMOUS):
            sets.append(_text(dict(_attributes(body))[1]))
            body = b"".join(value for kind, value in _attributes(body) if kind != 1)
        stops = (
            stops
            or name == "reject"
            or (name == "immediate" and _verdict(dict(_attributes(body)).get(2, b"")) == "drop")
        )
        program += struct.pack("=HI", len(name), len(body)) + name.encode() + body
    comment = _comment(attributes.get(7, b""))
    return KernelRule(_text(attributes[2]), comment, bytes(program), stops, packets, octets, tuple(sets))


def _comment(userdata: bytes) -> str:
    """Of libnftnl's user data (type, length, value): type 0 is the comment."""
    position = 0
    while position + 2 <= len(userdata):
        kind, length = userdata[position], userdata[position + 1]
        if kind == 0:
            return _text(userdata[position + 2 : position + 2 + length])
        position += 2 + length
    return ""


def _element(attributes: dict[int, bytes]) -> KernelElement:
    key = dict(_attributes(attributes.get(1, b""))).get(1, b"")
    value = _verdict(attributes.get(2, b"")) or dict(_attributes(attributes.get(2, b""))).get(1)
    left_s = int.from_bytes(attributes[5], "big") // 1000 if 5 in attributes else None
    expression = dict(_attributes(attributes.get(7, b"")))
    is_counter = _text(expression.get(1, b"")) == "counter"
    packets = int.from_bytes(dict(_attributes(expression[2]))[2], "big") if is_counter else None
    return KernelElement(key, value, left_s, packets)


def _verdict(data: bytes) -> str | None:
    """The verdict in an attribute of data, as nft writes it; None if there is none."""
    found = dict(_attributes(data)).get(2)
    if found is None:
        return None
    verdict = dict(_attributes(found))
    code = int.from_bytes(verdict[1], "big", signed=True)
    word = {-3: "jump", -4: "goto", 1: "accept", 0: "drop"}.get(code, str(code))
    return f"{word} {_text(verdict[2])}" if 2 in verdict else word


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")


# --- messages ---------------------------------------------------------------------------------------------------------


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    position = 0
    while position + 4 <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, position)
        if length < 4:
            return
        yield kind & _NESTED, data[position + 4 : position + length]
        position += length + 3 & ~3


def _attribute(kind: int, text: str) -> bytes:
    return _packed(kind, text.encode() + b"\0")


def _nested(kind: int, value: bytes) -> bytes:
    return _packed(kind | _IS_NESTED, value)


def _packed(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def _ask(
    request: int, table: str, wanted: dict[int, str] | None = None, *, dump: bool = True, more: bytes = b""
) -> list[tuple[int, dict[int, bytes]]]:
    """
    (kind, attributes) of each message of the answer.

    Raises:
        NftError: the kernel refuses to answer, or the ruleset didn't stand still long enough for a whole answer.
    """
    body = struct.pack("=BBH", _FAMILIES.get(table, 0), 0, 0)
    body += b"".join(_attribute(kind, text) for kind, text in (wanted or {}).items()) + more
    flags = _REQUEST | (_DUMP if dump else 0)
    message = _HEADER.pack(_HEADER.size + len(body), _SUBSYSTEM | request, flags, 1, 0) + body
    try:
        for _ in range(_RETRIES):
            with Door(NETFILTER) as door:
                door.settimeout(_TIMEOUT_S)
                door.send(message)
                answer = _answer(door)
            if answer is not None:
                return answer
    except OSError as error:
        if error.errno == _ENOENT:
            return []
        raise NftError(f"the kernel's ruleset can't be read: {error.strerror or error}") from error
    raise NftError("the kernel's ruleset changes too often to be read")


def _answer(door: Door) -> list[tuple[int, dict[int, bytes]]] | None:
    """Every message up to the last; None if the ruleset changed meanwhile. Raises OSError with the kernel's errno."""
    found: list[tuple[int, dict[int, bytes]]] = []
    while True:
        data = door.recv(1 << 17)
        position = 0
        while position < len(data):
            length, kind, flags, _, _ = _HEADER.unpack_from(data, position)
            payload = data[position + _HEADER.size : position + length]
            position += length + 3 & ~3
            if flags & _INTERRUPTED:
                return None
            if kind in (_ERROR, _DONE):
                (code,) = struct.unpack_from("=i", payload)
                if code < 0:
                    raise OSError(-code, os.strerror(-code))
                return found
            found.append((kind & 0xFF, dict(_attributes(payload[4:]))))
            if not flags & _MULTI:
                return found
