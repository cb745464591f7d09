"""
The bound on the connections that a guest may have open, so that one guest can't fill the table that all share.

In:  what taps have in the kernel; the host's bound.
Out: a tap's element in the map `bounds`; operations that make what the elements lead to.

    bound-prerouting    looks up the tap that the first packet of a connection comes from
    bound, bound-N      the host's bound, and one that a tap has of its own
    over-bound          what becomes of a packet that begins one too many

They stand behind layer 3 from the guest, so what a filter drops doesn't count. While no rule looks at connections the
kernel tracks none on bridges; a rule with `ct` in it would have it begin, so until then `bound` is empty.

To count, the kernel walks a list of the tap's connections, and before Linux 6.18 (of 6.1, before 6.1.160 at the latest)
each packet that is one too many makes the list longer than a walk makes it shorter (net/netfilter/nf_conncount.c). So a
tap that is at its bound isn't asked again for a moment.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..backend import Object
from .commands import Operation
from .names import BOUNDS, LOOKUP

_TABLE = "bridge"
_DEFAULT, _OVER = "bound", "over-bound"
_AT_BOUND, _MOMENT = "at-bound", "20ms"
OVER_BOUND, _SHOWN_S = "over-bound", 60
"""The set of taps that were over their bounds within that time."""
_MAX_TAPS = 65535


def bound_element(tap: str, connections: int | None) -> Object:
    """
    The tap's element.

    Args:
        connections: how many it may have open; None for the host's bound.
    """
    chain = _DEFAULT if connections is None else f"{_DEFAULT}-{connections}"
    return Object("element", _TABLE, BOUNDS.map, f'"{tap}"', (f"jump {chain}",))


def leading_to(objects: Iterable[Object]) -> list[Operation]:
    """Make the map if an element of it is among `objects`, and the chains that they lead to, unless they are there."""
    names = {each.content[0].partition(" ")[2] for each in objects if _is_bound(each) and each.content}
    return [_map(), *(Operation("add", "chain", _TABLE, name) for name in sorted(names))] if names else []


def bound_operations(objects: Iterable[Object], limit: int, *, counters: str) -> Iterator[Operation]:
    """
    What must be there for `objects`, beside their own.

    Args:
        limit: the host's bound; 0 for none.
        counters: which rules count packets: "none", "drops", "all".
    """
    objects = tuple(objects)
    leading = leading_to(objects)
    yield from leading
    own = (each.name for each in leading if each.kind == "chain" and each.name != _DEFAULT)
    limits = {name: int(name[len(_DEFAULT) + 1 :]) for name in own}
    if limit and any(_looks_at_connections(each) for each in objects):
        limits[_DEFAULT] = limit
    if not limits:
        return
    yield _map()
    yield from _sets(limits.values())
    counter = "" if counters == "none" else "counter "
    over = (f"update @{OVER_BOUND} {{ iifname }}", f"add @{_AT_BOUND} {{ iifname }}", f"{counter}drop")
    yield from _chain(_OVER, *over)
    for name, most in sorted(limits.items()):
        counting = f"@{_counted(most)}"
        yield from _chain(
            name,
            f"iifname @{_AT_BOUND} {counter}drop",
            f"add {counting} {{ iifname ct count over {most} }} jump {_OVER}",
            f"iifname != {counting} {counter}drop",  # no room to count it
        )
    hook = f"{{ type filter hook {BOUNDS.hook} priority {BOUNDS.priority}; policy accept; }}"
    yield from _chain(BOUNDS.name, f"{BOUNDS.selector} vmap @{BOUNDS.map}", hook=hook)


def tracks(objects: Iterable[Object]) -> bool:
    """Whether they have the kernel track connections: by a rule, or since a tap has a bound of its own."""
    return any(_looks_at_connections(each) or (_is_bound(each) and is_own(*each.content)) for each in objects)


def is_filled_to_count(chain: str) -> bool:
    """Whether it is a chain that has the kernel track connections for the sake of bounds."""
    return chain == _DEFAULT or chain.startswith(f"{_DEFAULT}-")


def is_own(verdict: str) -> bool:
    """Whether the tap of an element with this verdict has a bound of its own."""
    return verdict != f"jump {_DEFAULT}"


def _is_bound(each: Object) -> bool:
    return each.kind == "element" and each.name == BOUNDS.map


def _looks_at_connections(each: Object) -> bool:
    """No filter's name, in a comment, holds a blank."""
    return each.kind == "chain" and any(" ct " in f" {rule}" for rule in each.content)


def _counted(limit: int) -> str:
    return f"connections-{limit}"


def _sets(limits: Iterable[int]) -> Iterator[Operation]:
    for most in sorted(set(limits)):
        # the kernel keeps the limit with each element: another limit is another set
        yield _set(_counted(most), "flags dynamic;")
    yield _set(_AT_BOUND, f"flags dynamic,timeout; timeout {_MOMENT};")
    yield _set(OVER_BOUND, f"flags dynamic,timeout; timeout {_SHOWN_S}s;")


def _map() -> Operation:
    return Operation("add", "map", _TABLE, BOUNDS.map, value=LOOKUP)


def _set(name: str, flags: str) -> Operation:
    return Operation("add", "set", _TABLE, name, value=f"{{ type ifname; size {_MAX_TAPS}; {flags} }}")


def _chain(name: str, *rules: str, hook: str = "") -> Iterator[Operation]:
    yield Operation("add", "chain", _TABLE, name, value=hook)
    yield Operation("flush", "chain", _TABLE, name)
    for rule in rules:
        yield Operation("add", "rule", _TABLE, name, value=rule)
