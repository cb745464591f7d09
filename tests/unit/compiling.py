"""
Filters as text in, compiled rules as text out: what the unit tests write down and compare.

A rule is spelled as its conditions and its verdict, as in

    "ether-type=0x800 ip-src=10.0.0.1 ip-protocol!=17 accept"

with the names of model.Field. The notation is the tests' own: the renderer has no part in it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import Union

from nwfilter_hook.backend import Installed
from nwfilter_hook.base.addresses import format_mac, parse_mac
from nwfilter_hook.base.errors import Source, UnknownFilter
from nwfilter_hook.compiler.compile import compile_tap
from nwfilter_hook.filters.bound import BoundRule
from nwfilter_hook.filters.model import Filter, FilterRef
from nwfilter_hook.filters.parse import parse_filter
from nwfilter_hook.filters.resolve import ReadFilter, resolve
from nwfilter_hook.nftables.commands import Script
from nwfilter_hook.nftables.script import install, render
from nwfilter_hook.ruleset.fields import Field, ValueType
from nwfilter_hook.ruleset.model import (
    AnyState,
    Attachment,
    Between,
    CountAbove,
    Equals,
    InSet,
    Masked,
    Match,
    OneOf,
    Present,
    Rule,
    Ruleset,
    SameAs,
    Uncounted,
)

TAP = "vnet0"
MAC = "52:54:00:00:00:01"
REFERENCE = Source("domain.xml", 1)

Values = Union[str, Sequence[str]]


def filter_xml(*entries: str, name: str = "f", chain: str = "root", priority: int | None = None) -> str:
    """A <filter>, each of `entries` on a line of its own from line 2 on."""
    own = "" if priority is None else f" priority='{priority}'"
    return "\n".join((f"<filter name='{name}' chain='{chain}'{own}>", *entries, "</filter>"))


def rule_xml(protocol: str = "", *, action: str = "drop", direction: str = "out", **attributes: object) -> str:
    """A <rule> around `protocol`."""
    others = "".join(f" {name}='{value}'" for name, value in attributes.items())
    return f"<rule action='{action}' direction='{direction}'{others}>{protocol}</rule>"


def reader(*filters: str) -> ReadFilter:
    """What reads `filters` by name, each from the file NAME.xml."""
    by_name: dict[str, Filter] = {}
    for text in filters:
        name = text.split("name='")[1].split("'")[0]
        by_name[name] = parse_filter(text.encode(), f"{name}.xml")

    def read(name: str, wanted_by: Source) -> Filter:
        if name not in by_name:
            raise UnknownFilter(f"no filter {name!r}", wanted_by)
        return by_name[name]

    return read


def reference_to(name: str, parameters: Mapping[str, Values] | None = None) -> FilterRef:
    """An interface's reference; a parameter that is one text is a list of one."""
    given = {key: (value,) if isinstance(value, str) else tuple(value) for key, value in (parameters or {}).items()}
    return FilterRef(name, given, REFERENCE)


def bound(*filters: str, parameters: Mapping[str, Values] | None = None) -> tuple[BoundRule, ...]:
    """The rules of the first of `filters` and of what it refers to, every variable bound."""
    name = filters[0].split("name='")[1].split("'")[0]
    return resolve(reference_to(name, parameters), MAC, reader(*filters))


def compiled(
    *filters: str,
    parameters: Mapping[str, Values] | None = None,
    tap: str = TAP,
    attachment: Attachment = Attachment.BRIDGE_PORT,
    end_of_chain: str = "return",
    ingress: bool = False,
) -> Ruleset:
    """The first of `filters` and what it refers to, compiled for `tap`."""
    rules = bound(*filters, parameters=parameters)
    return compile_tap(tap, attachment, parse_mac(MAC), rules, end_of_chain=end_of_chain, ingress=ingress)


def compiled_rule(
    protocol: str,
    *,
    parameters: Mapping[str, Values] | None = None,
    attachment: Attachment = Attachment.BRIDGE_PORT,
    **rule: object,
) -> Ruleset:
    """A filter of one rule, compiled; `rule` as in `rule_xml`."""
    text = filter_xml(rule_xml(protocol, **rule))  # type: ignore[arg-type]
    return compiled(text, parameters=parameters, attachment=attachment)


def transaction(
    *rulesets: Ruleset, stale: Iterable[Installed] = (), counters: str = "none", fresh: bool = True
) -> Script:
    """The nft transaction that installs `rulesets`."""
    return install([render(ruleset, counters) for ruleset in rulesets], stale=stale, fresh=fresh)


def script(*rulesets: Ruleset, counters: str = "none") -> str:
    """The same as text."""
    return transaction(*rulesets, counters=counters).text


def installed_by(ruleset: Ruleset) -> Installed:
    """What `ruleset` is in the kernel, without counters."""
    return render(ruleset, "none").installed


def lines_of(ruleset: Ruleset) -> list[str]:
    """Every rule as "CHAIN: RULE", without counters."""
    chains = (each for each in installed_by(ruleset).objects if each.kind == "chain")
    return [f"{each.name}: {rule}" for each in chains for rule in each.content]


UNTRACKED = AnyState(frozenset(("untracked",)))


def stands_beside(rule: Rule) -> bool:
    """
    Whether the rule stands beside one that says what its filter says: it lets through what the host makes itself or
    exempts (test_host_traffic, test_untracked), or stops what a full set can't count (test_limits).
    """
    return any(
        (match.field is Field.PACKET_TYPE and not match.negated)
        or match.test == UNTRACKED
        or isinstance(match.test, Uncounted)
        for match in rule.matches
    )


def spelled(ruleset: Ruleset, *, beside: bool = False) -> dict[str, list[str]]:
    """
    Every chain's rules, by "from", "from/arp-mac", "to", "from-l3", "to-l3" …; those that stand beside others only if
    `beside`.
    """
    return {
        chain.stage.value if chain.name is None else f"{chain.stage.value}/{chain.name}": [
            spell(rule) for rule in chain.rules if beside or not stands_beside(rule)
        ]
        for chain in ruleset.chains
    }


def spell(rule: Rule) -> str:
    """One rule: its conditions, its verdict, and the chain it jumps to or the sets it stores in."""
    words = [spell_match(match) for match in rule.matches]
    words.append(rule.verdict.value)
    if rule.target is not None:
        words.append(str(rule.target))
    words += [f"{field.value[0]}->{named.purpose.value}" for field, named in rule.stores]
    return " ".join(words)


def spell_match(match: Match) -> str:
    """One condition: FIELD=VALUE, FIELD&MASK=VALUE, FIELD=LOW..HIGH; != where it is negated."""
    field, test, equals = match.field, match.test, "!=" if match.negated else "="
    name = field.value[0]
    if isinstance(test, Equals):
        return f"{name}{equals}{_number(field, test.value)}"
    if isinstance(test, Masked):
        return f"{name}&{_number(field, test.mask)}{equals}{_number(field, test.value)}"
    if isinstance(test, Between):
        return f"{name}{equals}{_number(field, test.low)}..{_number(field, test.high)}"
    if isinstance(test, Present):
        return f"{name}{equals}{test.kind}"
    if isinstance(test, OneOf):
        return f"{name}{equals}{'|'.join(_number(field, value) for value in test.values)}"
    if isinstance(test, SameAs):
        return f"{name}{equals}{test.other.value[0]}"
    if isinstance(test, AnyState):
        return f"{name}{equals}{','.join(sorted(test.states))}"
    if isinstance(test, Uncounted):
        return f"uncounted({name})"
    if isinstance(test, CountAbove):
        return f"count({name}){'<=' if match.negated else '>'}{test.limit}"
    assert isinstance(test, InSet)
    fields = "+".join((name, *(other.value[0] for other in test.fields)))
    mask = "" if test.set.mask is None else f"&{_number(field, test.set.mask)}"
    suffix = f":{test.set.name}" if test.set.name else ""
    return f"{fields}{mask}{equals}@{test.set.purpose.value}{suffix}"


def _number(field: Field, value: int) -> str:
    if field is Field.CT_DIRECTION:
        return "reply" if value else "original"
    if field.kind is ValueType.MAC:
        return format_mac(value)
    if field.kind is ValueType.IPV4:
        return str(ipaddress.IPv4Address(value))
    if field.kind is ValueType.IPV6:
        return str(ipaddress.IPv6Address(value))
    types = (Field.ETHER_TYPE, Field.VLAN_TYPE, Field.ARP_PTYPE, Field.STP_HEADER, Field.TCP_FLAGS)
    return f"{value:#x}" if field in types else str(value)
