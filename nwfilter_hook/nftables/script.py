"""
Render rulesets as one nft transaction.

In:  the `Ruleset`s of a guest's taps, and the names of what an earlier transaction left and this one doesn't refill.
Out: a `Script` for nft's standard input, and the `Objects` it makes.

A script adds what must be there and flushes what it fills, so running it twice changes nothing; it deletes by adding
first, so deleting what isn't there is no error (nft before 1.0.8 has no `destroy`). Syntax: nft(8).

    table bridge nwfilter     maps and base chains for all taps, and per tap
        from/TAP  to/TAP      layer 2, what the guest sends and gets; from/TAP/CHAIN its sub-chains
        from-l3/TAP  to-l3/TAP
        learned/TAP  connlimit/TAP/N        sets of the tap; ipset/NAME sets of the administrator (render_sets)
    table netdev nwfilter     the same chain names, as base chains of devices that are no bridge ports
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

from ..base.dataclass import dataclass
from ..base.errors import Source
from ..ruleset.model import Attachment, Chain, Purpose, Rule, Ruleset, SameAs, Tree, Verdict
from .expressions import EQUAL_OCTETS, render_rule
from .names import Objects, chain_name, kept_names, objects_of, without
from .sets import declaration, initial_elements, is_remembered, kind_of, names_of, set_name

TABLE = "nwfilter"


@dataclass(frozen=True)
class BaseChain:
    """One of our four hooks: which map it looks the interface up in, and where it stands (kernel hook, priority)."""

    tree: Tree
    name: str
    map: str
    hook: str
    priority: int
    selector: str


BASE_CHAINS = (
    BaseChain(Tree.FROM_L2, "l2-prerouting", "from-guest-l2", "prerouting", -300, "iifname"),
    BaseChain(Tree.FROM_L3, "l3-prerouting", "from-guest-l3", "prerouting", -150, "iifname"),
    BaseChain(Tree.TO_L3, "l3-postrouting", "to-guest-l3", "postrouting", 0, "oifname"),
    BaseChain(Tree.TO_L2, "l2-postrouting", "to-guest-l2", "postrouting", 300, "oifname"),
)
_BASE = {base.tree: base for base in BASE_CHAINS}


@dataclass(frozen=True)
class Script:
    """
    One transaction.

    Attributes:
        sources: 1-based line of the text to (filter, where its rule stands).
        statements: (family, chain) to the rules that the chain is filled with.
        digest: of the text; equal digests leave equal rules in the kernel.
    """

    text: str
    sources: Mapping[int, tuple[str, Source]]
    statements: Mapping[tuple[str, str], list[str]]

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    def digest_of(self, objects: Objects) -> str:
        """`ruleset_digest` of the ruleset that `objects` were made for by this script."""
        chains = ((name, self.statements[objects.family, name]) for name in objects.chains)
        return _digest((f"{name}: {line}" for name, lines in chains for line in lines), objects)


@dataclass(frozen=True)
class Options:
    """
    Attributes:
        counters: which rules count packets: "none", "drops" (drop and reject), "all".
        fresh: forget learned addresses (the guest starts anew).
    """

    counters: str = "drops"
    fresh: bool = True


def render_install(
    rulesets: Sequence[Ruleset], stale: Iterable[Objects] = (), options: Options | None = None
) -> Script:
    """
    The transaction after which exactly `rulesets` filter their taps.

    Args:
        stale: what may be in the kernel for these or other taps and is to go unless it is refilled.
    """
    script = _Builder(options or Options())
    families = sorted({ruleset.attachment.family for ruleset in rulesets})
    for family in families:
        script.base(family, {chain.tree for ruleset in rulesets for chain in ruleset.chains})
    if any(_compares_fields(ruleset) for ruleset in rulesets):
        for family in families:
            script.equal_octets(family)
    for ruleset in rulesets:
        script.sets(ruleset)
        script.chains(ruleset)
    for ruleset in rulesets:
        script.fill(ruleset)
    script.remove(stale, kept_names(objects_of(ruleset) for ruleset in rulesets))
    return script.finish()


def render_remove(objects: Iterable[Objects]) -> Script:
    """The transaction after which none of `objects` is in the kernel, whether it was or not."""
    script = _Builder(Options())
    script.remove(objects, set())
    return script.finish()


def render_lines(ruleset: Ruleset, counters: str) -> list[str]:
    """Every rule of the tap as "CHAIN: STATEMENT", in evaluation order: for comparing and for reading."""
    return [
        f"{chain_name(ruleset.tap, chain.tree, chain.name)}: {statement}"
        for chain in ruleset.chains
        for rule in chain.rules
        for statement in render_rule(ruleset, chain.tree, rule, counters)
    ]


def ruleset_digest(ruleset: Ruleset, counters: str) -> str:
    """Equal digests: equal rules and sets."""
    return _digest(render_lines(ruleset, counters), objects_of(ruleset))


def _digest(lines: Iterable[str], objects: Objects) -> str:
    return hashlib.sha256("\n".join((*lines, *objects.sets)).encode()).hexdigest()


def quarantine(tap: str, attachment: Attachment, source: Source) -> Ruleset:
    """The ruleset that lets nothing through, neither way."""
    drop = Rule((), Verdict.DROP, "quarantine", source)
    chains = (Chain(Tree.FROM_L2, None, (drop,)), Chain(Tree.TO_L2, None, (drop,)))
    return Ruleset(tap, attachment, chains, ())


def _compares_fields(ruleset: Ruleset) -> bool:
    return any(
        isinstance(match.test, SameAs) for chain in ruleset.chains for rule in chain.rules for match in rule.matches
    )


class _Builder:
    """Collects the lines of one script."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._lines: list[str] = []
        self._sources: dict[int, tuple[str, Source]] = {}
        self._statements: dict[tuple[str, str], list[str]] = {}

    def finish(self) -> Script:
        return Script("".join(line + "\n" for line in self._lines), self._sources, self._statements)

    def _add(self, *lines: str) -> None:
        self._lines += lines

    def _table(self, family: str) -> None:
        self._add(f"add table {family} {TABLE}")
        if family == "bridge":
            self._add(*(f"add map bridge {TABLE} {base.map} {{ type ifname : verdict; }}" for base in BASE_CHAINS))

    def base(self, family: str, trees: set[Tree]) -> None:
        """The table; for bridge ports the maps, and those base chains that have something to look up."""
        self._table(family)
        if family != "bridge":
            return
        for base in (base for base in BASE_CHAINS if base.tree in trees):
            where = f"type filter hook {base.hook} priority {base.priority}; policy accept;"
            self._add(
                f"add chain bridge {TABLE} {base.name} {{ {where} }}",
                f"flush chain bridge {TABLE} {base.name}",
                f"add rule bridge {TABLE} {base.name} {base.selector} vmap @{base.map}",
            )

    def equal_octets(self, family: str) -> None:
        pairs = ", ".join(f"{octet} . {octet}" for octet in range(256))
        self._add(
            f"add set {family} {TABLE} {EQUAL_OCTETS} {{ typeof @nh,112,8 . @nh,192,8; }}",
            f"add element {family} {TABLE} {EQUAL_OCTETS} {{ {pairs} }}",
        )

    def sets(self, ruleset: Ruleset) -> None:
        """The tap's sets; what was learned stays in them unless the guest starts anew."""
        family = ruleset.attachment.family
        for named in ruleset.sets:
            if named.purpose is Purpose.IPSET:
                self._add(render_set(family, set_name(ruleset.tap, named), named.dimensions))
        for name in names_of(ruleset):
            self._add(render_set(family, name))
            if self._options.fresh or not is_remembered(name):
                self._add(f"flush {kind_of(name)} {family} {TABLE} {name}")
        for name, element in initial_elements(ruleset):
            self._add(f"add element {family} {TABLE} {name} {{ {element} }}")

    def chains(self, ruleset: Ruleset) -> None:
        family = ruleset.attachment.family
        for chain in ruleset.chains:
            name = chain_name(ruleset.tap, chain.tree, chain.name)
            hook = _device_hook(ruleset, chain)
            self._add(f"add chain {family} {TABLE} {name}{hook}", f"flush chain {family} {TABLE} {name}")

    def fill(self, ruleset: Ruleset) -> None:
        family = ruleset.attachment.family
        for chain in ruleset.chains:
            name = chain_name(ruleset.tap, chain.tree, chain.name)
            statements = self._statements.setdefault((family, name), [])
            for rule in chain.rules:
                for statement in render_rule(ruleset, chain.tree, rule, self._options.counters):
                    statements.append(statement)
                    self._add(f"add rule {family} {TABLE} {name} {statement}")
                    self._sources[len(self._lines)] = (rule.filter, rule.source)
        if ruleset.attachment is Attachment.BRIDGE_PORT:
            for tree, name in objects_of(ruleset).roots():
                self._add(f'add element bridge {TABLE} {_BASE[tree].map} {{ "{ruleset.tap}" : jump {name} }}')

    def remove(self, objects: Iterable[Objects], kept: set[tuple[str, str]]) -> None:
        """Delete `objects` but for `kept` (family, name): map elements first, then chains, then sets."""
        gone = without(objects, kept)
        for family in sorted({each.family for each in gone}):
            self._table(family)
        for each in gone:
            for name in each.chains:
                self._add(f"add chain {each.family} {TABLE} {name}", f"flush chain {each.family} {TABLE} {name}")
            if each.family == "bridge":
                for tree, name in each.roots():
                    key = f'bridge {TABLE} {_BASE[tree].map} {{ "{each.tap}"'
                    self._add(f"add element {key} : jump {name} }}", f"delete element {key} }}")
        for each in gone:
            self._add(*(f"delete chain {each.family} {TABLE} {name}" for name in each.chains))
            for name in each.sets:
                self._add(render_set(each.family, name))
                self._add(f"delete {kind_of(name)} {each.family} {TABLE} {name}")


def _device_hook(ruleset: Ruleset, chain: Chain) -> str:
    """The hook of a netdev base chain: what the guest sends is ingress of a tap, but egress of a macvtap."""
    if ruleset.attachment is Attachment.BRIDGE_PORT or chain.name is not None:
        return ""
    sends = chain.tree is Tree.FROM_L2
    hook = "ingress" if sends is (ruleset.attachment is Attachment.DEVICE) else "egress"
    return f' {{ type filter hook {hook} device "{ruleset.tap}" priority -300; policy accept; }}'


def render_set(family: str, name: str, dimensions: int = 1) -> str:
    """The command that makes the set or map `name` (of render_sets) unless it is there."""
    return f"add {kind_of(name)} {family} {TABLE} {name} {declaration(name, dimensions)}"
