"""
Transactions: typed operations on what is in our tables, written down last.

In:  `Ruleset`s of taps, or what records hold of them; the names of what is to go.
Out: a `Script`.

A script adds what must be there and flushes what it fills, so running it twice changes nothing; it deletes by adding
first, so deleting what isn't there is no error (nft before 1.0.8 has no `destroy`). Syntax: nft(8).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..backend import Installed, Object, Rendered, Zones
from ..base.errors import Source
from ..guards import Guard
from ..ruleset.fields import ValueType
from ..ruleset.model import Attachment, Chain, Rule, Ruleset, SetPurpose, Stage
from .bounds import bound_element, bound_operations, leading_to
from .commands import Operation, Script
from .expressions import EQUAL_OCTETS, comment_of, render_rule
from .guard import SIDES, guard_operations
from .learning_rules import is_learning_rule, learning_rule_of
from .names import BASE_CHAINS, LOOKUP, MAP_OF, chain_name
from .sets import (
    declaration,
    initial_elements,
    is_remembered,
    kind_of,
    names_of,
    parse_learned,
    segment_set,
    segment_sets,
    set_name,
)
from .zones import zone_operations

# --- what a ruleset becomes -------------------------------------------------------------------------------------------


def render(ruleset: Ruleset, counters: str, *, bounded: bool = False) -> Rendered:
    """
    What `ruleset` is in the kernel.

    Args:
        counters: which rules count packets: "none", "drops" (drop and reject), "all".
        bounded: the host has a bound on the connections of taps that have none of their own.
    """
    home = ruleset.attachment.family
    sets = [*_shared_sets(ruleset, home), *_own_sets(ruleset, home), *_reservations(ruleset, home)]
    chains, elements = [], []
    origins: dict[tuple[str, str], list[tuple[str, Source]]] = {}
    for chain, lines in _chains_of(ruleset, counters):
        name = chain_name(ruleset.tap, chain.stage, chain.name)
        table = "netdev" if chain.stage is Stage.INGRESS else home
        origins[table, name] = [(rule.filter, rule.source) for rule, _ in lines]
        chains.append(Object("chain", table, name, _device_hook(ruleset, chain), tuple(line for _, line in lines)))
        if table == "bridge" and chain.name is None:
            elements.append(element_of(ruleset.tap, MAP_OF[chain.stage], f"jump {name}"))
    own = ruleset.connections
    if home == "bridge" and ruleset.chains and own != 0 and (bounded or own):
        elements.append(bound_element(ruleset.tap, own))
    return Rendered(Installed(ruleset.tap, (*sets, *chains, *elements)), origins)


def _chains_of(ruleset: Ruleset, counters: str) -> Iterable[tuple[Chain, list[tuple[Rule, str]]]]:
    """Every chain with its statements; a rule that learns leads to chains of its own."""
    learning_rules = 0
    for chain in ruleset.chains:
        lines: list[tuple[Rule, str]] = []
        more: list[tuple[str, Rule, tuple[str, ...]]] = []
        for rule in chain.rules:
            entrance = rule
            if is_learning_rule(rule):
                jump = chain_name(ruleset.tap, chain.stage, f"learn-{learning_rules}-new")
                made = learning_rule_of(ruleset, chain.stage, rule, learning_rules, jump, counted=counters == "all")
                entrance = made.entrance
                more += [(name, rule, statements) for name, statements in made.chains]
                learning_rules += 1
            lines += [(rule, line) for line in render_rule(ruleset, chain.stage, entrance, counters)]
        yield chain, lines
        for name, rule, statements in more:
            yield Chain(chain.stage, name, ()), [(rule, f"{statement} {comment_of(rule)}") for statement in statements]


def element_of(tap: str, map_name: str, verdict: str) -> Object:
    """The tap's element in one of the maps."""
    return Object("element", "bridge", map_name, f'"{tap}"', (verdict,))


def _shared_sets(ruleset: Ruleset, table: str) -> Iterable[Object]:
    for named in ruleset.sets:
        if named.purpose is SetPurpose.IPSET:
            name = set_name(ruleset.tap, named)
            yield Object("shared", table, name, declaration(name, named.dimensions))
    if ruleset.segment.name:
        for name in segment_sets(ruleset):
            yield Object("shared", table, name, declaration(name))


def _reservations(ruleset: Ruleset, table: str) -> Iterable[Object]:
    segment = ruleset.segment
    for kind in (ValueType.IPV4, ValueType.IPV6):
        # a tap that is alone keeps nothing from others
        reserved = segment.reserved if segment.name else segment.hosts
        spans = sorted({(each.low, each.high) for each in reserved if each.kind is kind})
        if spans:
            name = segment_set(SetPurpose.RESERVED_BY, kind, segment.name or ruleset.tap)
            yield Object(
                "reserved", table, name, " ".join([ruleset.tap, *(f"{low:#x}-{high:#x}" for low, high in spans)])
            )


def _own_sets(ruleset: Ruleset, table: str) -> Iterable[Object]:
    initial: dict[str, list[str]] = {}
    for name, element in initial_elements(ruleset):
        initial.setdefault(name, []).append(element)
    for name in names_of(ruleset):
        yield Object(kind_of(name), table, name, declaration(name), tuple(initial.get(name, ())))


def _device_hook(ruleset: Ruleset, chain: Chain) -> str:
    """The hook of a netdev base chain: what the guest sends is ingress of a tap, but egress of a macvtap."""
    if chain.name is not None or (ruleset.attachment is Attachment.BRIDGE_PORT and chain.stage is not Stage.INGRESS):
        return ""
    sends = chain.stage in (Stage.INGRESS, Stage.FROM_L2)
    hook = "egress" if sends is (ruleset.attachment is Attachment.MACVTAP) else "ingress"
    priority = -500 if chain.stage is Stage.INGRESS else -300
    return f'{{ type filter hook {hook} device "{ruleset.tap}" priority {priority}; policy accept; }}'


# --- transactions -----------------------------------------------------------------------------------------------------


def install(
    anew: Sequence[Rendered],
    put_back: Iterable[Installed] = (),
    stale: Iterable[Installed] = (),
    *,
    fresh: bool,
    bound: int = 0,
    counters: str = "drops",
    zones: Zones | None = None,
    guard: Guard | None = None,
) -> Script:
    """
    The transaction after which `anew` and `put_back` are in the kernel, and none of `stale` that isn't in them.

    Args:
        fresh: of `anew`, forget what was learned.
        bound: on the connections of taps that have none of their own; 0 for none.
        counters: whether what stops packets there counts them.
        zones: None if the kernel has none.
        guard: brought along, if it is carried.
    """
    everything = [*anew, *(Rendered(installed, {}) for installed in put_back)]
    objects = [each for rendered in everything for each in rendered.installed.objects]
    carried = guard if guard and guard.carried else None
    tables = {each.table for each in objects} | ({"bridge"} if carried else set())
    maps = {each.name for each in objects if each.kind == "element"}
    maps |= {side.map for side in SIDES} if carried else set()
    operations = [operation for table in sorted(tables) for operation in _base(table, maps)]
    operations += guard_operations(carried) if carried else ()
    operations += bound_operations(objects, bound, counters=counters)
    operations += zone_operations(objects, zones) if zones else ()
    compared = {each.table for each in objects if any(f"@{EQUAL_OCTETS}" in line for line in each.content)}
    operations += [operation for table in sorted(compared) for operation in _equal_octets(table)]
    for position, rendered in enumerate(everything):
        operations += _sets(rendered.installed, fresh=fresh, anew=position < len(anew))
        operations += _chains(rendered.installed)
    for rendered in everything:
        operations += _fill(rendered)
    operations += _remove(stale, objects)
    return Script(tuple(operations), _first(anew) if carried else ())


def remove(installed: Iterable[Installed], guard: Guard | None = None) -> Script:
    """The transaction after which none of `installed` is in the kernel, whether it was or not; see `install`."""
    return Script((*install((), guard=guard, fresh=False).operations, *_remove(installed, ())))


def _base(table: str, maps: set[str]) -> Iterable[Operation]:
    """The table; for bridge ports the maps, and those base chains that have something to look up."""
    yield Operation("add", "table", table)
    if table != "bridge":
        return
    for base in BASE_CHAINS:
        yield Operation("add", "map", table, base.map, value=LOOKUP)
    for base in BASE_CHAINS:
        if base.map in maps:
            where = f"{{ type filter hook {base.hook} priority {base.priority}; policy accept; }}"
            yield Operation("add", "chain", table, base.name, value=where)
            yield Operation("flush", "chain", table, base.name)
            yield Operation("add", "rule", table, base.name, value=f"{base.selector} vmap @{base.map}")


def _first(anew: Iterable[Rendered]) -> tuple[str, ...]:
    """The chains that the taps' elements of layer 2 lead to."""
    maps = {side.map for side in SIDES}
    elements = (each for made in anew for each in made.installed.objects if each.kind == "element")
    return tuple(
        each.content[0][len("jump ") :] for each in elements if each.name in maps and each.content != ("accept",)
    )


def _equal_octets(table: str) -> Iterable[Operation]:
    pairs = ", ".join(f"{octet} . {octet}" for octet in range(256))
    yield Operation("add", "set", table, EQUAL_OCTETS, value="{ typeof @nh,112,8 . @nh,192,8; }")
    yield Operation("add", "element", table, EQUAL_OCTETS, key=pairs)


def _sets(installed: Installed, *, fresh: bool, anew: bool) -> Iterable[Operation]:
    """
    The tap's sets. What was learned stays in them unless the guest starts anew; connections are counted anew under new
    rules, since a set may be another rule's by now.
    """
    for each in installed.objects:
        if each.kind == "shared":
            yield Operation("add", kind_of(each.name), each.table, each.name, value=each.definition)
    sets = [each for each in installed.objects if each.kind in ("set", "map")]
    for each in sets:
        yield Operation("add", each.kind, each.table, each.name, value=each.definition)
        if anew and (fresh or not is_remembered(each.name)):
            yield Operation("flush", each.kind, each.table, each.name)
    for each in sets:
        for element in each.content:
            yield Operation("add", "element", each.table, each.name, key=element)
    for each in installed.objects:
        if each.kind == "reserved":
            yield from _reserve(each)
    # what has changed hands, or is never to be learned, is looked at anew
    for table, name in dict.fromkeys(_seen_sets(installed)):
        yield Operation("flush", "set", table, name)


def _seen_sets(installed: Installed) -> Iterable[tuple[str, str]]:
    for each in installed.objects:
        learned = parse_learned(each.name) if each.kind == "set" else None
        if learned is not None:
            yield each.table, segment_set(SetPurpose.SEEN, learned.kind, learned.segment)
        elif each.kind == "reserved":
            yield each.table, each.name.replace(SetPurpose.RESERVED_BY.value, SetPurpose.SEEN.value, 1)


def _reserve(reserved: Object) -> Iterable[Operation]:
    """What "TAP FIRST-LAST FIRST-LAST …" becomes: nobody learns it, because of this tap."""
    spans = [span.split("-") for span in reserved.definition.split(" ")[1:]]
    yield Operation("add", "element", reserved.table, reserved.name, ", ".join(key for _, _, key in _parts(reserved)))
    for purpose, chosen in (
        (SetPurpose.RESERVED, [low for low, high in spans if low == high]),
        (SetPurpose.RESERVED_NETS, [f"{low}-{high}" for low, high in spans if low != high]),
    ):
        if chosen:
            name = reserved.name.replace(SetPurpose.RESERVED_BY.value, purpose.value, 1)
            yield Operation("add", "element", reserved.table, name, ", ".join(chosen))


def _parts(reserved: Object) -> list[tuple[str, str, str]]:
    """Table, name and key of each element of reserved-by/SEG that a "reserved" object is."""
    tap, *spans = reserved.definition.split(" ")
    return [(reserved.table, reserved.name, " . ".join([*span.split("-"), f'"{tap}"'])) for span in spans]


def _chains(installed: Installed) -> Iterable[Operation]:
    for each in installed.objects:
        if each.kind == "chain":
            yield Operation("add", "chain", each.table, each.name, value=each.definition)
            yield Operation("flush", "chain", each.table, each.name)


def _fill(rendered: Rendered) -> Iterable[Operation]:
    for each in rendered.installed.objects:
        if each.kind == "chain":
            known = rendered.origins.get((each.table, each.name), ())
            origins = (*(None,) * (len(each.content) - len(known)), *known)  # what stands before is no filter's
            for rule, origin in zip(each.content, origins):
                yield Operation("add", "rule", each.table, each.name, value=rule, origin=origin)
    for each in rendered.installed.objects:
        if each.kind == "element":
            yield Operation("add", "element", each.table, each.name, each.definition, each.content[0])


def _remove(stale: Iterable[Installed], kept: Iterable[Object]) -> list[Operation]:
    """Delete what is in `stale` and not `kept`: map elements first, then chains, then sets; each once."""
    seen = {each.key for each in kept}
    staying = {part for each in kept if each.kind == "reserved" for part in _parts(each)}
    gone: list[Object] = []
    reserved: list[Object] = []
    for installed in stale:
        for each in installed.objects:
            if each.key not in seen and each.kind != "shared":
                seen.add(each.key)
                (reserved if each.kind == "reserved" else gone).append(each)
    chains = [each for each in gone if each.kind == "chain"]
    tables = sorted({each.table for each in (*gone, *reserved)})
    operations = [operation for table in tables for operation in _base(table, set())]
    operations += leading_to(gone)
    for each in chains:
        operations.append(Operation("add", "chain", each.table, each.name))
        operations.append(Operation("flush", "chain", each.table, each.name))
    for each in gone:
        if each.kind == "element":
            operations.append(Operation("add", "element", each.table, each.name, each.definition, each.content[0]))
            operations.append(Operation("delete", "element", each.table, each.name, each.definition))
    operations += [Operation("delete", "chain", each.table, each.name) for each in chains]
    for each in reserved:
        keys = ", ".join(key for table, name, key in _parts(each) if (table, name, key) not in staying)
        if keys:
            operations.append(Operation("add", "set", each.table, each.name, value=declaration(each.name)))
            operations += (Operation(verb, "element", each.table, each.name, keys) for verb in ("add", "delete"))
    for each in gone:
        if each.kind in ("set", "map"):
            if each.definition:  # else it was seen in the kernel
                operations.append(Operation("add", each.kind, each.table, each.name, value=each.definition))
            operations.append(Operation("delete", each.kind, each.table, each.name))
    return operations
