"""
A filter, or a tap's, as people look at it: what refers to what, and the order in which rules really decide.

In:  a `Host`, and a filter with parameters, or the name of a tap.
Out: a `Tree`. Chains stand where they are entered; short ones, too, which the kernel has in place.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence

from ..base.addresses import link_local, parse_mac
from ..base.dataclass import dataclass, replace
from ..base.errors import InputError, NwfilterHookError, Source
from ..base.text import one_line
from ..filters.format import rule_words
from ..filters.model import Direction, FilterRef, FilterRule, Learned, Parameters
from ..filters.resolve import RuleInstance, walk_tree
from ..host import Host
from ..lint.placeholders import SETS, unbound, values_for
from ..ruleset.model import Attachment, Chain, Rule, Ruleset, Stage, Verdict
from ..storage.library import Library
from .compile import compile_reference
from .floors import floor_below
from .lint import interfaces_use, lint_filter
from .segments import segment_of
from .verify import find_differences

_PLACES = {
    Stage.FROM_L2: ("from-guest", 2, Direction.IN),
    Stage.FROM_L3: ("from-guest", 3, Direction.IN),
    Stage.TO_L3: ("to-guest", 3, Direction.OUT),
    Stage.TO_L2: ("to-guest", 2, Direction.OUT),
}
"""In the order in which packets meet them; and the rules' direction that isn't theirs."""
_COUNTED = re.compile(r'counter packets (\d+) bytes \d+ .*comment "([^"]*)"$')
_DEAD = ("NWF101", "NWF102", "NWF103", "NWF104", "NWF106")
"""Codes of lint's: covered, said before, dropped by the other layer before or behind, impossible."""
ANY_MAC = "52:54:00:00:00:01"
"""Of a guest that nobody has named."""


@dataclass(frozen=True)
class Reference:
    """
    A filter where it is referred to.

    Attributes:
        parameters: what this reference gives it, NAME=VALUE.
        rules: how many it has of its own.
        again: it stands above already, with what it refers to.
    """

    filter: str
    chain: str
    priority: int
    parameters: tuple[str, ...]
    rules: int
    again: bool
    below: tuple[Reference, ...]


@dataclass(frozen=True)
class Step:
    """
    One rule, or a chain with its rules below it.

    Attributes:
        kind: "rule", "chain" or "learn".
        verdict: "accept", "drop" …; "" for a chain.
        text: what it looks for; of a chain its name.
        rule: FILTER:LINE; "" for what the compiler adds by itself.
        answers: it is the half of a rule of the other direction that lets answers through.
        dead: the code of lint's finding, if it never decides; else "".
        packets: that it has counted; None if it doesn't count, or nobody has asked the kernel.
    """

    kind: str
    verdict: str
    text: str
    rule: str
    priority: int | None
    answers: bool = False
    dead: str = ""
    packets: int | None = None
    below: tuple[Step, ...] = ()


@dataclass(frozen=True)
class Place:
    """Where rules are looked at: direction "from-guest" or "to-guest", layer 2 or 3. What none decides passes."""

    direction: str
    layer: int
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Tree:
    """
    Attributes:
        tap, guest: "" for a filter that no tap needs to have.
        values: of variables, as they are written in the rules.
        notes: what a person should know, one line each.
    """

    filter: str
    tap: str
    guest: str
    values: Mapping[str, str]
    references: tuple[Reference, ...]
    places: tuple[Place, ...]
    notes: tuple[str, ...]


def tree_of_filter(host: Host, name: str, parameters: Parameters, mac: str | None, library: Library) -> Tree:
    """
    Asks no kernel.

    Args:
        mac: the guest's; None to write $MAC.

    Raises:
        InputError: it doesn't compile.
    """
    source = Source(f"filter {name}", 0)
    given = {**parameters, **({"MAC": (mac,)} if mac else {})}
    walked = _walk_of(FilterRef(name, parameters, source), mac or ANY_MAC, library, given)
    reference = FilterRef(name, {**_placeholders(walked), **parameters}, source)
    ruleset = compile_reference(
        *(reference, "tap", Attachment.BRIDGE_PORT, mac or ANY_MAC, library),
        end_of_chain=host.config.end_of_chain,
        ingress=False,
        inline=False,
    )
    values = {key: ", ".join(texts) for key, texts in given.items()}
    draw = _Drawing(library, values, {})
    references = draw.references([FilterRef(name, parameters, source)])
    tree = Tree(name, "", "", values, references, draw.places(ruleset, [walked]), ruleset.notes)
    return with_dead(tree, _dead(host, library, FilterRef(name, parameters, source)))


def _placeholders(instances: Sequence[RuleInstance]) -> dict[str, tuple[str, ...]]:
    """Values to compile with for variables that nobody gives, nor are learned; compiling says which can't have one."""
    wanted = {name: uses for name, uses in unbound(instances).items() if name not in ("IP", "MAC", "LINK_LOCAL")}
    return values_for(wanted, SETS[0])


def _dead(host: Host, library: Library, reference: FilterRef) -> dict[str, str]:
    """By FILTER:LINE the code of lint's finding, of rules that never decide; none if lint can't follow the filter."""
    try:
        entry = library.read(reference.filter, reference.source)
        findings = lint_filter(library, entry, reference.parameters, interfaces_use(host))
    except InputError:
        return {}
    return {
        f"{each.filter}:{each.source.kept or each.source.line}": each.code for each in findings if each.code in _DEAD
    }


def tree_of_tap(host: Host, tap: str) -> Tree:
    """
    A tap under filter: with what it was given and has learned, and what its rules have counted.

    Raises:
        NwfilterHookError: there is no such tap, or its filter doesn't compile any more; NftError: the kernel can't be
            asked.
    """
    found = [(record, each) for record in host.state.records() for each in record.bindings if each.tap == tap]
    if not found:
        raise NwfilterHookError(f"nothing is installed for a tap {one_line(tap)!r}")
    record, binding = found[0]
    floor = floor_below(host, binding.bridge, binding.reference)
    ruleset = compile_reference(
        *(binding.reference, tap, binding.attachment, binding.mac, host.library),
        end_of_chain=host.config.end_of_chain,
        floor=floor,
        ingress=False,
        segment=segment_of(binding, record.uuid),
        inline=False,
    )
    seen = host.backend.look([binding.installed])[tap]
    values = {"MAC": binding.mac, **{name: ", ".join(texts) for name, texts in binding.parameters.items()}}
    learned = [each.address for each in seen.learned]
    values.update({f"learned {name}": _learned(name, learned) for name in ("IP", "IPV6", "MAC")})
    differs = find_differences(host, [tap])
    counted = [] if differs else host.backend.statements(host.backend.with_counts(binding.installed))
    draw = _Drawing(host.library, values, dict(_counts(counted)))
    references = [each for each in (floor, binding.reference) if each]
    given = {**binding.parameters, "MAC": (binding.mac,)}
    walks = [_walk_of(each, binding.mac, host.library, {**given, **each.parameters}) for each in references]
    notes = [*ruleset.notes]
    if binding.quarantined:
        notes.append(f"{tap} is quarantined, and everything is dropped: this is what its filter would be")
    elif differs:
        notes.append(f"this is as recorded; it isn't what there is, and counts nothing: nwfilter-hook verify {tap}")
    shown = {name.removeprefix("learned "): text for name, text in values.items() if text and not _hidden(name, values)}
    places = draw.places(ruleset, walks)
    tree = Tree(binding.filter, tap, record.guest, shown, draw.references(references), places, tuple(notes))
    dead = {rule: code for each in references for rule, code in _dead(host, host.library, each).items()}
    return with_dead(tree, dead)


def _hidden(name: str, values: Mapping[str, str]) -> bool:
    """Whether a learned value is none, or stands there as given."""
    return name.startswith("learned ") and (values[name].startswith("(") or name.removeprefix("learned ") in values)


def _learned(name: str, addresses: Sequence[str]) -> str:
    version = {"IP": 4, "IPV6": 6, "MAC": 0}[name]
    found = [each for each in addresses if _version(each) == version]
    return f"{', '.join(found)} (learned)" if found else "(not learned yet)"


def _version(address: str) -> int:
    try:
        return ipaddress.ip_address(address).version
    except ValueError:
        return 0  # a MAC


def _counts(statements: Sequence[str]) -> Iterator[tuple[tuple[str, str], int]]:
    """(Stage, comment) and packets, of rules that count."""
    counted: dict[tuple[str, str], int] = {}
    for statement in statements:
        chain, _, rule = statement.partition(": ")
        found = _COUNTED.search(rule)
        comment = found[2] if found else rule.rpartition('comment "')[2].rstrip('"')
        if " counter " in f" {rule} ":
            key = chain.split("/")[0], comment
            counted[key] = counted.get(key, 0) + (int(found[1]) if found else 0)
    yield from counted.items()


def _walk_of(reference: FilterRef, mac: str, library: Library, given: Parameters) -> tuple[RuleInstance, ...]:
    outer = {**reference.parameters, **given}
    if "MAC" in given:
        outer.setdefault("LINK_LOCAL", (str(ipaddress.IPv6Address(link_local(parse_mac(given["MAC"][0])))),))
    return tuple(walk_tree(reference, dict(outer), library.read))


class _Drawing:
    """
    Args:
        values: by variable, and by "learned" and a variable, what to write.
        counts: by stage and FILTER:LINE; {} if nothing counts.
    """

    def __init__(self, library: Library, values: Mapping[str, str], counts: Mapping[tuple[str, str], int]) -> None:
        self._library, self._values, self._counts = library, values, counts
        self._rules: dict[Source, tuple[FilterRule, dict[str, str]]] = {}

    def references(self, roots: Sequence[FilterRef]) -> tuple[Reference, ...]:
        """The trees below these; each filter once, where it is met first."""
        seen: set[str] = set()
        return tuple(self._reference(each, seen) for each in roots)

    def _reference(self, reference: FilterRef, seen: set[str]) -> Reference:
        found = self._library.read(reference.filter, reference.source)
        again = found.name in seen
        seen.add(found.name)
        inner = [] if again else [each for each in found.entries if isinstance(each, FilterRef)]
        return Reference(
            found.name,
            found.chain,
            found.priority,
            tuple(f"{name}={text}" for name, texts in reference.parameters.items() for text in texts),
            sum(isinstance(each, FilterRule) for each in found.entries),
            again and any(isinstance(each, FilterRef) for each in found.entries),
            tuple(self._reference(each, seen) for each in inner),
        )

    def places(self, ruleset: Ruleset, walks: Sequence[Sequence[RuleInstance]]) -> tuple[Place, ...]:
        """All four, also those without a rule."""
        for instance in (each for walk in walks for each in walk):
            names = {name: self._written(name, items) for name, items in instance.parameters.items()}
            known = {name: f"{self._values.get(f'learned {name}', f'${name}')}" for name in ("IP", "IPV6")}
            _, before = self._rules.get(instance.rule.source, (instance.rule, {}))
            self._rules[instance.rule.source] = instance.rule, _joined(before, {**known, **names})
        return tuple(
            Place(direction, layer, self._steps(stage, None, ruleset.chains, other))
            for stage, (direction, layer, other) in _PLACES.items()
        )

    def _written(self, name: str, items: Sequence[str | Learned]) -> str:
        return ", ".join(
            self._values.get(f"learned {name}", f"${name}") if isinstance(item, Learned) else item for item in items
        )

    def _steps(
        self,
        stage: Stage,
        name: str | None,
        chains: Sequence[Chain],
        other: Direction,
        inside: tuple[str, ...] = (),
    ) -> tuple[Step, ...]:
        rules = next((each.rules for each in chains if (each.stage, each.name) == (stage, name)), ())
        found: list[Step] = []
        for rule in rules:
            if rule.verdict is Verdict.JUMP and rule.target and rule.target not in inside:
                below = self._steps(stage, rule.target, chains, other, (*inside, rule.target))
                priority = self._library.read(rule.filter, rule.source).priority
                found.append(Step("chain", "", rule.target, "", priority, below=below))
                continue
            step = self._step(stage, rule, other)
            if not found or found[-1] != step:  # one rule of the filter may be many
                found.append(step)
        return tuple(found)

    def _step(self, stage: Stage, rule: Rule, other: Direction) -> Step:
        known = self._rules.get(rule.source)
        if known is None:
            return Step("rule", rule.verdict.value, f"({rule.filter})", "", None)
        written, values = known
        if rule.verdict is Verdict.LEARN:
            return Step("learn", "learn", "addresses that the guest shows or is leased", rule.provenance, None)
        verdict = written.action.value if rule.verdict.value != "return" else "return"
        return Step(
            "rule",
            verdict,
            rule_words(written, values),
            rule.provenance,
            written.priority,
            answers=written.direction is other,
            packets=self._counts.get((stage.value, rule.provenance)),
        )


def _joined(before: Mapping[str, str], values: Mapping[str, str]) -> dict[str, str]:
    """Of a filter that is referred to with several parameters, all of them."""
    both = {name: dict.fromkeys([before.get(name, text), text]) for name, text in values.items()}
    return {name: ", ".join(texts) for name, texts in both.items()}


def with_dead(tree: Tree, codes: Mapping[str, str]) -> Tree:
    """The same; `codes` has lint's by FILTER:LINE."""
    return replace(tree, places=tuple(replace(each, steps=_marked(each.steps, codes)) for each in tree.places))


def _marked(steps: Sequence[Step], codes: Mapping[str, str]) -> tuple[Step, ...]:
    return tuple(
        replace(each, dead="" if each.answers else codes.get(each.rule, ""), below=_marked(each.below, codes))
        for each in steps
    )
