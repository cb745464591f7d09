"""
Render rulesets as one nft transaction.

In:  the `Ruleset`s of a guest's taps, and the names of what an earlier transaction left and this one doesn't refill.
Out: a `Script` for nft's standard input, and the `Objects` it makes.

A script adds what must be there and flushes what it fills, so running it twice changes nothing; it deletes by adding
first, so deleting what isn't there is no error (nft before 1.0.8 has no `destroy`). Syntax: nft(8).

    table bridge nwfilter     maps and base chains for all taps, and per tap
        from/TAP  to/TAP      layer 2, what the guest sends and gets; from/TAP/CHAIN its sub-chains
        from-l3/TAP  to-l3/TAP
        learned-ip/TAP  connlimit/TAP/N        sets of the tap; ipset/NAME sets of the administrator (render_sets)
    table netdev nwfilter     the same chain names, as base chains of devices that are no bridge ports
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable, Mapping, Sequence

from .errors import Source
from .frozen import dataclass
from .model import (
    TRANSPORT_FIELDS,
    Attachment,
    Between,
    Chain,
    CountAbove,
    Equals,
    Field,
    InSet,
    Kind,
    Masked,
    Match,
    Present,
    Purpose,
    Rule,
    Ruleset,
    SameAs,
    Tree,
    Verdict,
)
from .render_sets import (
    RAW_FIELDS,
    RAW_ONLY,
    declaration,
    encode,
    initial_elements,
    interface_field,
    is_remembered,
    kind_of,
    names_of,
    raw_sets,
    replace_newest,
    store,
)
from .render_sets import set_name as set_name
from .values import format_mac

TABLE = "nwfilter"
EQUAL_OCTETS = "equal-octets"
"""A set of all pairs of equal octets: nft can't compare two fields of a packet, but it can look up pairs."""


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
_TREES = {tree.value: tree for tree in Tree}


@dataclass(frozen=True)
class Objects:
    """
    What one tap has in the kernel, by exact name.

    Attributes:
        family: "bridge" or "netdev".
        chains: "from/vnet0", "from/vnet0/arp-mac" …; roots have an element in their tree's map (bridge).
        sets: those of the tap (not the administrator's).
    """

    tap: str
    family: str
    chains: tuple[str, ...]
    sets: tuple[str, ...]

    def roots(self) -> tuple[tuple[Tree, str], ...]:
        """(tree, chain) for each root chain."""
        return tuple((_TREES[name.split("/")[0]], name) for name in self.chains if name.count("/") == 1)


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
    script.remove(stale, _kept(objects_of(ruleset) for ruleset in rulesets))
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


def objects_of(ruleset: Ruleset) -> Objects:
    """What `render_install` makes for `ruleset`."""
    return Objects(
        tap=ruleset.tap,
        family=ruleset.attachment.family,
        chains=tuple(chain_name(ruleset.tap, chain.tree, chain.name) for chain in ruleset.chains),
        sets=names_of(ruleset),
    )


def chain_name(tap: str, tree: Tree, name: str | None) -> str:
    """`from/vnet0`, `from/vnet0/arp-mac`. A tap's name holds no "/", so no two taps' chains can be confused."""
    root = f"{tree.value}/{tap}"
    return root if name is None else f"{root}/{encode(name)}"


_CHAIN_PREFIXES = frozenset(tree.value for tree in Tree)
_SET_PREFIXES = frozenset(purpose.value + version for purpose in Purpose for version in ("", "6"))


def is_of_tap(kind: str, name: str, tap: str) -> bool:
    """Whether a "chain" or a "set" of that name is one that we make for `tap` (an `ipset/NAME` is nobody's)."""
    prefix, _, rest = name.partition("/")
    prefixes = _CHAIN_PREFIXES if kind == "chain" else _SET_PREFIXES
    return prefix in prefixes and not prefix.startswith(Purpose.IPSET.value) and rest.split("/")[0] == tap


def without(objects: Iterable[Objects], kept: set[tuple[str, str]]) -> list[Objects]:
    """`objects` without those in `kept` (family, name); each name once, whoever names it how often."""
    seen = set(kept)
    rest = []
    for each in objects:
        chains = tuple(name for name in each.chains if (each.family, name) not in seen)
        sets = tuple(name for name in each.sets if (each.family, name) not in seen)
        seen.update((each.family, name) for name in chains + sets)
        if chains or sets:
            rest.append(Objects(each.tap, each.family, chains, sets))
    return rest


def stale_objects(known: Iterable[Objects], rulesets: Iterable[Ruleset]) -> tuple[Objects, ...]:
    """What of `known` is not made anew for `rulesets`."""
    return tuple(without(known, _kept(objects_of(ruleset) for ruleset in rulesets)))


def _kept(made: Iterable[Objects]) -> set[tuple[str, str]]:
    return {(each.family, name) for each in made for name in _names(each)}


def _names(objects: Objects) -> tuple[str, ...]:
    return objects.chains + objects.sets


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


# --- rules -----------------------------------------------------------------------------------------------------------

_ETHER_TYPES = {0x0800: "ip", 0x0806: "arp", 0x86DD: "ip6", 0x8100: "vlan"}
_PORT_HEADERS = {6: "tcp", 17: "udp", 33: "dccp", 132: "sctp"}
_RARP = 0x8035
_CT_STATES = ("new", "established", "related", "invalid", "untracked")

_SYMBOLIC = {
    Field.ETHER_SRC: "ether saddr",
    Field.ETHER_DST: "ether daddr",
    Field.ETHER_TYPE: "ether type",
    Field.VLAN_ID: "vlan id",
    Field.VLAN_TYPE: "vlan type",
    Field.ARP_HTYPE: "arp htype",
    Field.ARP_PTYPE: "arp ptype",
    Field.ARP_HLEN: "arp hlen",
    Field.ARP_PLEN: "arp plen",
    Field.ARP_OPCODE: "arp operation",
    Field.ARP_SRC_MAC: "arp saddr ether",
    Field.ARP_SRC_IP: "arp saddr ip",
    Field.ARP_DST_MAC: "arp daddr ether",
    Field.ARP_DST_IP: "arp daddr ip",
    Field.IP_SRC: "ip saddr",
    Field.IP_DST: "ip daddr",
    Field.IP_PROTOCOL: "ip protocol",
    Field.IP_DSCP: "ip dscp",
    Field.IP_FRAGMENT: "ip frag-off",
    Field.IP6_SRC: "ip6 saddr",
    Field.IP6_DST: "ip6 daddr",
    Field.IP6_DSCP: "ip6 dscp",
    Field.IP6_FRAGMENT: "frag frag-off",
    Field.L4_PROTOCOL: "meta l4proto",
    Field.TCP_FLAGS: "tcp flags",
    Field.TCP_OPTION: "tcp option",
    Field.ICMP_TYPE: "icmp type",
    Field.ICMP_CODE: "icmp code",
    Field.ICMPV6_TYPE: "icmpv6 type",
    Field.ICMPV6_CODE: "icmpv6 code",
    Field.IP6_NEXT_HEADER: "ip6 nexthdr",
    Field.IP6_LENGTH: "ip6 length",
    Field.PACKET_TYPE: "meta pkttype",
    Field.CT_STATE: "ct state",
    Field.CT_DIRECTION: "ct direction",
}
# base and bit offset, for headers that nft has no names for: RFC 826 behind the network header, IEEE 802.1D 9.3.1
# behind the Ethernet header
_ARP_OFFSETS = {
    Field.ARP_HTYPE: 0,
    Field.ARP_PTYPE: 16,
    Field.ARP_HLEN: 32,
    Field.ARP_PLEN: 40,
    Field.ARP_OPCODE: 48,
    Field.ARP_SRC_MAC: 64,
    Field.ARP_SRC_IP: 112,
    Field.ARP_DST_MAC: 144,
    Field.ARP_DST_IP: 192,
}
_STP_OFFSETS = {
    Field.STP_HEADER: 112,
    Field.STP_TYPE: 160,
    Field.STP_FLAGS: 168,
    Field.STP_ROOT_PRIORITY: 176,
    Field.STP_ROOT_ADDRESS: 192,
    Field.STP_ROOT_COST: 240,
    Field.STP_SENDER_PRIORITY: 272,
    Field.STP_SENDER_ADDRESS: 288,
    Field.STP_PORT: 336,
    Field.STP_AGE: 352,
    Field.STP_MAX_AGE: 368,
    Field.STP_HELLO_TIME: 384,
    Field.STP_FORWARD_DELAY: 400,
}


_IN_TRANSPORT_HEADER = (*TRANSPORT_FIELDS, *RAW_ONLY)
# The kernel has a short cut for loads of 1, 2 or 4 octets, and there it takes what is in a fragment that isn't the
# first for the header (nft_payload_fast_eval in net/netfilter/nf_tables_core.c). It refuses a load of 3.
_HAS_TRANSPORT_HEADER = "@th,0,24 >= 0x0"


@dataclass(frozen=True)
class _Frame:
    """
    What the matches of a rule say about the frame, where nft's spelling of a match depends on it.

    Attributes:
        apart: fields whose "!=" must not be merged with another one: nft (1.0.6 at least) makes of `A != 1 B != 2`,
            where A and B are neighbours in a header, `A.B != 1.2`, which is "not both". A mask keeps them apart.
    """

    is_rarp: bool
    port_header: str
    apart: frozenset[Field]
    interface: str


def render_rule(ruleset: Ruleset, tree: Tree, rule: Rule, counters: str) -> tuple[str, ...]:
    """
    `rule` of a tap as nft statements, without "add rule …" in front: one, or several if a negated comparison or a
    store needs them.
    """
    frame = _frame(ruleset, tree, rule.matches)
    comment = f'comment "{rule.filter}:{rule.source.line}"'
    variants: list[list[str]] = [[]]
    for match in rule.matches:
        texts = _match(ruleset.tap, match, frame)
        if match.field in _IN_TRANSPORT_HEADER and not any(_HAS_TRANSPORT_HEADER in variant for variant in variants):
            variants = [[*variant, _HAS_TRANSPORT_HEADER] for variant in variants]
        variants = [[*variant, text] for variant in variants for text in texts]
    ends = _stores(ruleset, rule, frame) if rule.verdict is Verdict.LEARN else (_verdict(ruleset.tap, tree, rule),)
    counter = _counter(rule, counters)
    return tuple(" ".join([*variant, *counter, end, comment]) for variant in variants for end in ends)


def _frame(ruleset: Ruleset, tree: Tree, matches: Sequence[Match]) -> _Frame:
    exact = {match.field: match.test.value for match in matches if isinstance(match.test, Equals) and not match.negated}
    protocol = exact.get(Field.IP_PROTOCOL, exact.get(Field.L4_PROTOCOL))
    unequal = [match.field for match in matches if isinstance(match.test, Equals) and match.negated]
    apart = frozenset(field for field in unequal[1:] if field.bits % 8 == 0 and field is not Field.L4_PROTOCOL)
    interface = interface_field(tree, ruleset.attachment)
    return _Frame(exact.get(Field.ETHER_TYPE) == _RARP, _PORT_HEADERS.get(protocol or 0, "th"), apart, interface)


def _counter(rule: Rule, counters: str) -> tuple[str, ...]:
    stops = rule.verdict in (Verdict.DROP, Verdict.REJECT)
    return ("counter",) if counters == "all" or (counters == "drops" and stops) else ()


def _verdict(tap: str, tree: Tree, rule: Rule) -> str:
    return f"jump {chain_name(tap, tree, rule.target)}" if rule.verdict is Verdict.JUMP else rule.verdict.value


def _stores(ruleset: Ruleset, rule: Rule, frame: _Frame) -> tuple[str, ...]:
    raw = raw_sets(ruleset)
    first, second = replace_newest(ruleset.tap, rule.stores, raw, frame.interface)
    stores = [
        store(ruleset.tap, _field(field, frame), RAW_FIELDS.get(field, ""), named, raw=named in raw)
        for field, named in rule.stores
        if not named.newest
    ]
    return (*first, " ".join(filter(None, [second, *stores])))


def _match(tap: str, match: Match, frame: _Frame) -> tuple[str, ...]:
    """The match as nft expressions: any one of them suffices."""
    field, test, sign = match.field, match.test, "!= " if match.negated else ""
    name = _field(field, frame)
    if isinstance(test, Equals):
        if field is Field.CT_DIRECTION:
            return (f"{name} {'reply' if test.value else 'original'}",)
        if match.negated and field in frame.apart:
            test = Masked((1 << field.bits) - 1, test.value)
            return _match(tap, Match(field, test, negated=True), frame)
        return (f"{name} {sign}{_number(field, test.value, raw=name.startswith('@'))}",)
    if isinstance(test, Masked):
        raw = name.startswith("@")
        operator = "!=" if match.negated else "=="
        return (f"{name} & {_number(field, test.mask, raw=raw)} {operator} {_number(field, test.value, raw=raw)}",)
    if isinstance(test, Between):
        raw = name.startswith("@")
        return (f"{name} {sign}{_number(field, test.low, raw=raw)}-{_number(field, test.high, raw=raw)}",)
    if isinstance(test, Present):
        return (f"{name} {test.kind} {'missing' if match.negated else 'exists'}",)
    if isinstance(test, SameAs):
        return _same(field, test.other, match.negated)
    if isinstance(test, InSet):
        if test.set.mask is not None:
            name = f"{name} & {_number(field, test.set.mask, raw=name.startswith('@'))}"
        key = " . ".join([name, *(_field(other, frame) for other in test.fields)])
        raw = name.startswith("@") and test.set.purpose is Purpose.LEARNED
        return (f"{key} {sign}@{set_name(tap, test.set, raw=raw)}",)
    if isinstance(test, CountAbove):
        over = "" if match.negated else "over "
        return (f"add @{set_name(tap, test.set)} {{ {name} ct count {over}{test.limit} }}",)
    states = ",".join(state for state in _CT_STATES if state in test.states)
    return (f"{name} {states}",)


def _same(field: Field, other: Field, negated: bool) -> tuple[str, ...]:
    """Equal: every octet's pair is in the set of equal pairs. Different: one octet's pair isn't."""
    operator = "!= " if negated else ""
    octets = tuple(
        f"@nh,{_ARP_OFFSETS[field] + bit},8 . @nh,{_ARP_OFFSETS[other] + bit},8 {operator}@{EQUAL_OCTETS}"
        for bit in range(0, field.bits, 8)
    )
    return octets if negated else (" ".join(octets),)


def _field(field: Field, frame: _Frame) -> str:
    if field in _STP_OFFSETS:
        return f"@ll,{_STP_OFFSETS[field]},{field.bits}"
    if frame.is_rarp and field in _ARP_OFFSETS:
        return f"@nh,{_ARP_OFFSETS[field]},{field.bits}"
    if field in RAW_ONLY:
        return RAW_ONLY[field]
    if field is Field.TAP:
        return frame.interface
    if field in (Field.SRC_PORT, Field.DST_PORT):
        return f"{frame.port_header} {'sport' if field is Field.SRC_PORT else 'dport'}"
    return _SYMBOLIC[field]


def _number(field: Field, value: int, *, raw: bool = False) -> str:
    if raw:
        return f"{value:#x}"
    if field.kind is Kind.MAC:
        return format_mac(value)
    if field.kind is Kind.IPV4:
        return str(ipaddress.IPv4Address(value))
    if field.kind is Kind.IPV6:
        return str(ipaddress.IPv6Address(value))
    if field is Field.ETHER_TYPE:
        return _ETHER_TYPES.get(value, f"{value:#06x}")
    if field in (Field.VLAN_TYPE, Field.ARP_PTYPE):
        return f"{value:#06x}"
    if field is Field.TCP_FLAGS:
        return f"{value:#x}"
    return str(value)
