"""
The guard: frames of interfaces that nobody has decided about drop, in both directions.

In:  a `Guard`; what a tap has.
Out: operations that bring it or take it away; a tap's objects with what tells that it is known.

    from-guest-l2, to-guest-l2  the catch-all element leads to the guard's chain; a known tap has an element of its own,
                                "accept" where it has no rules
    guard-from, guard-to        chains: what is allowed, then what the mode claims is counted and dropped
    guard-from, guard-to        sets: how much was dropped, by interface
    guard-reserved              in tables inet and arp

With a shield (shield.py) each tap has chains of layer 2 both ways, and their first rule sets a bit of the packet's
mark. It has to stand there: an element is looked up as the map is now, but a chain's rules as they were when the packet
came to it; so a mark set before the lookup, in a base chain, let a frame through when all was flushed meanwhile (Linux
6.1).

A bridge hands a frame to 01:80:c2:00:00:0x, which it takes for its own, to the host as if it had come in on the port
itself, past the hooks of the bridge (see compiler/ingress.py), and the host would take IP out of it. No protocol sends
IP or ARP there, so guard-reserved drops that, of every interface of the kind. Other protocols only meet hooks of a
device, and a chain can't stand on one that isn't there yet (Linux 6.1).

nft 1.0.6 and 1.1.3, on Linux 6.1 and 6.18, take catch-all elements in maps of verdicts. Like other elements they can't
change their verdicts. Who asks the kernel for the element of a name that isn't there doesn't get the catch-all one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..backend import Installed, Object
from ..base.dataclass import dataclass, replace
from ..guards import Guard
from ..ruleset.model import Attachment
from .commands import Operation
from .names import LOOKUP

FROM, TO, RESERVED = "guard-from", "guard-to", "guard-reserved"
CATCH_ALL = "*"
COMMENT = "guard"
_TABLE = "bridge"
_GENERATED = "vnet*"
"""VIR_NET_GENERATED_VNET_PREFIX in libvirt's src/util/virnetdev.h, reserved for libvirt."""
MARK = 0x40000000
_MARKS = f'meta mark set meta mark | {MARK:#x} comment "shield"'
_MAX_INTERFACES = 65535


@dataclass(frozen=True)
class Side:
    """
    One direction, seen from the interface.

    Attributes:
        name: of chain and set.
        end: "i" or "o", what nft's names of the interface and its bridge begin with.
        chain: what the name of a tap's own chain begins with.
    """

    name: str
    map: str
    end: str
    chain: str


SIDES = (Side(FROM, "from-guest-l2", "i", "from"), Side(TO, "to-guest-l2", "o", "to"))
_SHIELD_HOOKS = (
    "{ type filter hook prerouting priority -149; policy accept; }",
    "{ type filter hook postrouting priority 301; policy accept; }",
)
"""Behind all chains that may mark; connections are bounded (bounds.py) behind it."""
RESERVED_HOOKS = {
    "inet": "{ type filter hook prerouting priority -450; policy accept; }",
    "arp": "{ type filter hook input priority -450; policy accept; }",
}
"""By table; before connections are tracked and before anybody's own rules."""


def guard_operations(guard: Guard) -> Iterator[Operation]:
    """What brings it into the kernel; the table, and what looks its maps up, are there."""
    for side in SIDES:
        yield Operation("add", "map", _TABLE, side.map, value=LOOKUP)
        yield _set(side)
        yield from _chain(_TABLE, side.name, _rules(guard, side))
        yield _element(side, "add")
    for table, hook in RESERVED_HOOKS.items():
        yield Operation("add", "table", table)
        yield from _chain(table, RESERVED, _reserved_rules(guard), hook)


def guard_removal(bases: Iterable[str]) -> Iterator[Operation]:
    """What takes it away, whether it is there or not, and these base chains, which are there."""
    yield Operation("add", "table", _TABLE)
    for side in SIDES:
        yield Operation("add", "map", _TABLE, side.map, value=LOOKUP)
        yield Operation("add", "chain", _TABLE, side.name)
        yield from (_element(side, verb) for verb in ("add", "delete"))
        yield from (Operation(verb, "chain", _TABLE, side.name) for verb in ("flush", "delete"))
        yield _set(side)
        yield Operation("delete", "set", _TABLE, side.name)
    for base in bases:
        yield from (Operation(verb, "chain", _TABLE, base) for verb in ("flush", "delete"))
    for table in RESERVED_HOOKS:
        yield from (Operation(verb, "table", table) for verb in ("add", "delete"))


def needs_of_guard(guard: Guard) -> dict[str, str]:
    """See features.needs_of."""
    named = guard.mode in ("bridges", "strict")
    return {"ibrname": f"[guard] mode = {guard.mode}: this kernel can't tell bridges apart"} if named else {}


def known(installed: Installed, attachment: Attachment, guard: Guard | None) -> Installed:
    """See Backend.known."""
    objects = _of_filter(installed)
    if guard is not None and attachment is Attachment.BRIDGE_PORT:
        led = {each.name for each in objects if each.kind == "element"}
        bare = [side for side in SIDES if side.map not in led]
        chains = {side.map: f"{side.chain}/{installed.tap}" for side in SIDES}
        if guard.shield:
            marked = set(chains.values())
            objects = tuple(
                replace(each, content=(_MARKS, *each.content)) if each.kind == "chain" and each.name in marked else each
                for each in objects
            )
            objects += tuple(Object("chain", _TABLE, chains[side.map], "", (_MARKS,)) for side in bare)
        for side in bare:
            verdict = f"jump {chains[side.map]}" if guard.shield else "accept"
            objects += (Object("element", _TABLE, side.map, f'"{installed.tap}"', (verdict,)),)
    return installed if objects == installed.objects else replace(installed, objects=objects)


def _of_filter(installed: Installed) -> tuple[Object, ...]:
    """What the tap has for its filter's sake."""
    objects = installed.objects
    only_mark = {each.name for each in objects if each.kind == "chain" and each.content == (_MARKS,)}
    for_guard = {"accept", *(f"jump {name}" for name in only_mark)}
    maps = {side.map for side in SIDES}
    found = []
    for each in objects:
        if each.kind == "chain" and each.name in only_mark:
            continue
        if each.kind == "element" and each.name in maps and for_guard.intersection(each.content):
            continue
        if each.kind == "chain" and each.content[:1] == (_MARKS,):
            each = replace(each, content=each.content[1:])
        found.append(each)
    return tuple(found)


def shield_rules(guard: Guard) -> Iterator[tuple[str, str, list[str]]]:
    """Name, hook and rules of each chain of the shield's table."""
    for side, hook in zip(SIDES, _SHIELD_HOOKS):
        seen = f"meta mark set meta mark & {0xFFFFFFFF ^ MARK:#x}"  # leaves no trace behind us
        unseen = (
            f'{claimed}meta mark & {MARK:#x} == 0 counter drop comment "{COMMENT}"'
            for claimed in _claimed(guard, side.end)
        )
        yield side.name, hook, [*_allowed(guard, side.end), *unseen, f"meta mark & {MARK:#x} != 0 {seen}"]


def _chain(table: str, name: str, rules: Iterator[str], hook: str = "") -> Iterator[Operation]:
    yield Operation("add", "chain", table, name, value=hook)
    yield Operation("flush", "chain", table, name)
    for rule in rules:
        yield Operation("add", "rule", table, name, value=rule)


def _set(side: Side) -> Operation:
    return Operation(
        "add", "set", _TABLE, side.name, value=f"{{ type ifname; size {_MAX_INTERFACES}; flags dynamic; }}"
    )


def _element(side: Side, verb: str) -> Operation:
    verdict = f"goto {side.name}" if verb == "add" else ""
    return Operation(verb, "element", _TABLE, side.map, CATCH_ALL, verdict)


def _rules(guard: Guard, side: Side) -> Iterator[str]:
    yield from _allowed(guard, side.end)
    for claimed in _claimed(guard, side.end):
        # a set that has no room would end the rule
        yield f'{claimed}update @{side.name} {{ {side.end}ifname counter }} comment "{COMMENT}"'
        yield f'{claimed}drop comment "{COMMENT}"'


def _reserved_rules(guard: Guard) -> Iterator[str]:
    """The bridge isn't known there: where the mode names bridges, it is every tap, or all that isn't trusted."""
    yield from _allowed(guard, "i")
    # @ll is the Ethernet header: 01:80:c2:00:00:00 to 0f, as its first 44 bits
    yield f'{_interface(guard.mode, "i")}@ll,0,44 0x180c200000 drop comment "{COMMENT}"'


def _allowed(guard: Guard, end: str) -> Iterator[str]:
    # a rule for each: nft (1.0.6) refuses a set in which one pattern is within another, and a set has another name each
    # time, by which the kernel's rules would differ
    names = dict.fromkeys((*guard.trusted, *guard.allow))
    return (f'{end}ifname "{name}" accept comment "{COMMENT}: allow"' for name in names)


def _claimed(guard: Guard, end: str) -> Iterator[str]:
    interface = _interface(guard.mode, end)
    if guard.mode in ("bridges", "strict"):
        return (f'{interface}meta {end}brname "{name}" ' for name in guard.bridges)
    return iter((interface,))


def _interface(mode: str, end: str) -> str:
    if mode == "generated":
        return f'{end}ifname "{_GENERATED}" '
    return "" if mode == "strict" else f'meta {end}ifkind "tun" '
