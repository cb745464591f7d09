"""
What stands in a transaction's way, as the kernel shows it.

In:  a transaction that was refused.
Out: one that first deletes that.
"""

from __future__ import annotations

import re

from .commands import Operation, Script
from .names import MAPS
from .netlink import Hook, read_chains, read_verdicts

_HOOKS = {
    ("netdev", "ingress"): 0,
    ("netdev", "egress"): 1,
    ("bridge", "prerouting"): 0,
    ("bridge", "postrouting"): 4,
    ("inet", "prerouting"): 0,
    ("arp", "input"): 0,
}
"""linux/netfilter.h, linux/netfilter_bridge.h, linux/netfilter_arp.h"""
_PLACE = re.compile(r" hook (\w+) .*priority (-?\d+);")


def making_room(transaction: Script) -> Script | None:
    """
    `transaction`, which first deletes what the kernel shows in its way; None if there is nothing: an element of a map
    of ours to which somebody gave another verdict, a base chain that somebody has put elsewhere, or the chain of a
    device of this name that had another hook and is gone, while its chain isn't (seen on Linux 6.18).
    """
    maps: dict[str, dict[str, str]] = {}
    hooks: dict[str, dict[str, Hook | None]] = {}
    operations: list[Operation] = []
    for each in transaction.operations:
        if each.verb == "add" and each.kind == "element" and each.value and each.table == "bridge":
            known = maps.setdefault(each.name, read_verdicts(each.name)) if each.name in MAPS else {}
            # the catch-all element has no key
            if known.pop(each.key.strip('"*'), each.value) != each.value:
                operations.append(Operation("delete", "element", each.table, each.name, each.key))
        place = _PLACE.search(each.value) if (each.verb, each.kind) == ("add", "chain") else None
        if place:
            if each.table not in hooks:
                hooks[each.table] = read_chains(each.table)
            if each.name in hooks[each.table] and not _is_at(hooks[each.table][each.name], each.table, place):
                operations += [Operation(verb, "chain", each.table, each.name) for verb in ("flush", "delete")]
        operations.append(each)
    return Script(tuple(operations)) if len(operations) > len(transaction.operations) else None


def _is_at(hook: Hook | None, table: str, place: re.Match[str]) -> bool:
    return hook is not None and (hook.number, hook.priority) == (_HOOKS[table, place[1]], int(place[2]))
