"""
Ways past what a filter is for: an accept before the check of a source, another version of IP, a tag, no end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ...ruleset.evaluate import Way
from ...ruleset.fields import Field
from ...ruleset.model import Match, Verdict
from ...ruleset.regions import NOTHING
from ..findings import Check, Finding
from ..guards import guards
from ..places import (
    FROM_UNUSED,
    IN_SNAP,
    IPV4,
    IPV6,
    NEW,
    PROVIDER_TAGGED,
    STRANGER,
    TAGGED,
    TAGGED_ARP,
    TAGGED_IPV4,
    TAGGED_IPV6,
    TCP4,
    TCP6,
    TO_UNUSED,
    is_,
)
from ..tree import Tree, other_layer

_NAMES = {
    Field.ETHER_SRC: "MAC address",
    Field.IP_SRC: "IPv4 address",
    Field.IP6_SRC: "IPv6 address",
    Field.ARP_SRC_MAC: "MAC address in ARP",
    Field.ARP_SRC_IP: "IPv4 address in ARP",
}


def _on_entry(code: str, tree: Tree, message: str) -> Finding:
    return Finding(code, message, tree.entry.name, tree.entry.source)


def find_before_guard(tree: Tree) -> Iterator[Finding]:
    regions = tree.decisions.regions
    told = set()
    for guard in guards(tree):
        for each in tree.earlier(guard.decision):
            lets_pass = each.rule.verdict is Verdict.ACCEPT or (
                each.rule.verdict is Verdict.RETURN and each.chain is None
            )
            rule = tree.rule_at.get(each.rule.source)
            if not lets_pass or rule is None or each.rule.source in told:
                continue
            # a rule that says which source it means knows what it lets pass
            if any(match.field in guard.fields for match in each.rule.matches):
                continue
            past = regions.both(
                regions.both(each.decides, guard.drops), tree.decisions.passing(other_layer(each.stage))
            )
            if past == NOTHING:
                continue
            told.add(each.rule.source)
            wins = guard.decision.rule
            names = " or ".join(_NAMES[field] for field in guard.fields)
            message = f"this {rule.action.value} comes before the check of the source at {wins.source} ({wins.filter})"
            message += f": what it lets pass may have any {names}"
            yield Finding("NWF110", message, rule.filter, each.rule.source, wins.source, wins.filter)


def find_no_end(tree: Tree) -> Iterator[Finding]:
    """Accept rules that change nothing: what no rule names passes, too."""
    if not tree.whole:
        return
    for way, name in ((Way.FROM_GUEST, "what the guest sends"), (Way.TO_GUEST, "what comes to the guest")):
        stages = [stage for stage in way.value if stage.value != "ingress"]
        accepting = [
            each
            for each in tree.decisions.every
            if each.stage in stages
            and each.rule.verdict is Verdict.ACCEPT
            and each.decides != NOTHING
            and any(mine is each for mine in tree.by_rule.get(each.rule.source, ()))
        ]
        if not accepting:
            continue
        changes = [
            tree.decisions.passing_without(
                stage,
                [
                    each.rule
                    for each in tree.decisions.every
                    if each.stage is stage and each.rule.verdict is Verdict.ACCEPT
                ],
            )
            != tree.decisions.passing(stage)
            for stage in stages
        ]
        if not any(changes):
            first = accepting[0].rule
            message = f"of {name}, all that no rule drops passes: to accept some ({first.source}) has no effect"
            yield _on_entry("NWF111", tree, message)


def _passes(tree: Tree, way: Way, matches: Iterable[Match]) -> bool:
    regions = tree.decisions.regions
    return regions.both(tree.decisions.passing_way(way), regions.of(matches)) != NOTHING


def find_other_version(tree: Tree) -> Iterator[Finding]:
    """Of one version of IP something doesn't pass that passes of the other."""
    if not tree.whole:
        return
    own = tree.own.of
    for field, other in ((Field.IP_SRC, Field.IP6_SRC), (Field.IP6_SRC, Field.IP_SRC)):
        if not own[field]:
            continue
        mac = own[Field.ETHER_SRC][0]
        here, there = (_tcp(each) for each in (field, other))
        guarded = _passes(tree, Way.FROM_GUEST, (mac, *here, own[field][0], NEW)) and not _passes(
            tree, Way.FROM_GUEST, (mac, *here, is_(field, STRANGER[field]), NEW)
        )
        if guarded and _passes(tree, Way.FROM_GUEST, (mac, *there, is_(other, STRANGER[other]), NEW)):
            message = f"the guest may send under any {_NAMES[other]}, though only under its own {_NAMES[field]}"
            yield _on_entry("NWF112", tree, message)
            return
    for way, port in ((Way.TO_GUEST, TO_UNUSED), (Way.FROM_GUEST, TO_UNUSED)):
        passing = {
            field: _passes(tree, way, (*_tcp(field), port, FROM_UNUSED, NEW)) for field in (Field.IP_SRC, Field.IP6_SRC)
        }
        speaks_of = {field: _rules_of(tree, field, way) for field in passing}
        for closed, opened in ((Field.IP_SRC, Field.IP6_SRC), (Field.IP6_SRC, Field.IP_SRC)):
            if passing[opened] and not passing[closed] and speaks_of[closed] and not speaks_of[opened]:
                version, other_version = ("IPv4", "IPv6") if closed is Field.IP_SRC else ("IPv6", "IPv4")
                what = "comes to the guest" if way is Way.TO_GUEST else "the guest sends"
                message = f"of {other_version}, all that {what} passes: only of {version} is it said what may"
                yield _on_entry("NWF112", tree, message)
                return


def _rules_of(tree: Tree, field: Field, way: Way) -> bool:
    """Whether a rule accepts something of this version on this way, and not of every frame."""
    regions = tree.decisions.regions
    version = regions.of([IPV4 if field is Field.IP_SRC else IPV6])
    return any(
        each.rule.verdict is Verdict.ACCEPT
        and each.stage in way.value
        and each.decides != NOTHING
        and regions.without(each.could, version) == NOTHING
        for each in tree.decisions.every
    )


def _tcp(field: Field) -> tuple[Match, ...]:
    return (IPV4, TCP4) if field is Field.IP_SRC else (IPV6, TCP6)


def find_tagged(tree: Tree) -> Iterator[Finding]:
    """What a guard of a source in a packet doesn't see in a VLAN tag, or in SNAP."""
    if not tree.whole:
        return
    inner = {Field.IP_SRC: TAGGED_IPV4, Field.IP6_SRC: TAGGED_IPV6, Field.ARP_SRC_IP: TAGGED_ARP}
    mac = tree.own.of[Field.ETHER_SRC][0]
    for guard in guards(tree):
        for field in (field for field in guard.fields if field in inner):
            wrapped = {
                "a VLAN tag": (TAGGED, inner[field], is_(field, STRANGER[field])),
                "a provider's VLAN tag (802.1ad)": (PROVIDER_TAGGED,),
                "SNAP": IN_SNAP,
            }
            open_ways = [name for name, matches in wrapped.items() if _passes(tree, Way.FROM_GUEST, (mac, *matches))]
            if open_ways:
                wins = guard.decision.rule
                message = f"in {' and '.join(open_ways)} the guest may send under any {_NAMES[field]}"
                message += f": {wins.source} ({wins.filter}) doesn't look in"
                yield Finding("NWF113", message, tree.entry.name, tree.entry.source, wins.source, wins.filter)
                return


CHECKS = (
    Check(
        "NWF110",
        "an accept before the check of a source",
        "A filter of this tree drops what the guest sends under an address that isn't its own. This rule is tested "
        "before, and what it accepts is never checked. Give it a higher priority than the chain that checks (stock "
        "filters check at -800 to -500), or say which source it means.",
        find_before_guard,
    ),
    Check(
        "NWF111",
        "a filter that accepts everything in the end",
        "What no rule decides passes. Where some frames are accepted and none of the rest is dropped, the accept rules "
        "have no effect, and the filter is open. End it with a drop: no-other-l2-traffic, or <all/> and <all-ipv6/>. "
        "A filter that only forbids, or that other filters refer to, isn't meant.",
        find_no_end,
    ),
    Check(
        "NWF112",
        "one version of IP guarded, the other open",
        "What the filter forbids over one version of IP passes over the other one, which most guests speak unasked. "
        "<ip>, <tcp>, <all> are of IPv4 only; <ipv6>, <tcp-ipv6>, <all-ipv6> of IPv6. Drop what isn't wanted of the "
        "other, or guard it, too: clean-traffic-dual does.",
        find_other_version,
    ),
    Check(
        "NWF113",
        "tagged frames past a guard",
        "A rule about IPv4, IPv6 or ARP doesn't see a packet in a VLAN tag, and nothing drops tagged frames. A "
        "neighbour that strips tags gets it. no-encapsulation beside the filter drops what is wrapped; where a guest "
        "may use tags, tagged='any' at a rule looks behind them.",
        find_tagged,
    ),
)
