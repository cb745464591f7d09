"""
Compile one tap's bound rules into a `Ruleset`.

In:  a tap, how it is attached, the guest's MAC, and its `BoundRule`s in document order.
Out: chains of the four stages (what the guest sends and gets, at layer 2 and layer 3), in evaluation order.

Nothing here reads a file, a clock or the kernel: equal inputs give equal output.
Evaluation order: https://libvirt.org/formatnwfilter.html, "Filtering chains" and "Filtering chain priorities".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..base.errors import UnsupportedMatch
from ..filters.bound import BoundRule
from ..filters.learning import Learning
from ..filters.protocols import ELEMENTS
from ..ruleset.model import (
    Attachment,
    Chain,
    CountAbove,
    InSet,
    NamedSet,
    Ruleset,
    Segment,
    SetPurpose,
    Stage,
)
from .chains import StageBuilder
from .floor import stack
from .host_traffic import with_answers, with_host_packets, with_later_fragments
from .ingress import with_ingress
from .layer2 import compile_layer2
from .layer3 import address_field, compile_layer3
from .learning import learned_kinds, with_learning
from .macs import with_macs


def compile_tap(
    tap: str,
    attachment: Attachment,
    mac: int,
    rules: Iterable[BoundRule],
    learning: Learning | None = None,
    *,
    end_of_chain: str = "return",
    floor: Iterable[BoundRule] = (),
    floor_learning: Learning | None = None,
    ingress: bool = True,
    segment: Segment | None = None,
    inline: bool = True,
) -> Ruleset:
    """
    Compile `rules` into the chains that filter `tap`.

    Args:
        mac: the guest's address, whose frames teach the learned addresses.
        learning: how they are learned, if rules use them.
        end_of_chain: "return" to the root chain, as libvirt documents it, or "accept" as it does: ebtables accepts
            what comes to the end of a user-defined chain (ebtables(8), -N).
        floor: the rules of another filter that counts too, first; what is learned for its rules is learned as
            `floor_learning` says, for `rules` as well.
        ingress: whether a bridge port's rules may stand at the ingress of its device, too.
        segment: where the tap is among others; alone, without it.
        inline: whether short sub-chains may stand in the root chain; without, each rule is one that can be found again.

    Returns:
        For each stage that has rules: its root chain, then its sub-chains by first appearance.

    Raises:
        UnsupportedMatch: a rule can't be enforced on this kind of tap.
    """
    segment = segment or Segment()
    notes: dict[str, None] = {}
    below, rules = tuple(floor), tuple(rules)
    learning, floor_learning = learning or Learning(), floor_learning or Learning()
    base = with_macs(_chains(tap, attachment, below, end_of_chain, inline, "", notes), floor_learning.macs or (mac,))
    chains = _chains(tap, attachment, rules, end_of_chain, inline, "own-" if below else "", notes)
    chains = with_host_packets(with_macs(chains, learning.macs or (mac,)))
    taught = learned_kinds(base)
    chains = with_learning(chains, mac, learning, learned_kinds(chains) - taught, segment)
    if base:
        chains = with_answers(stack(with_later_fragments(base), chains))
        chains = with_learning(chains, mac, floor_learning, taught, segment)
    if ingress and attachment is Attachment.BRIDGE_PORT:
        chains = with_ingress(chains)
    return Ruleset(tap, attachment, tuple(chains), tuple(_sets(chains)), tuple(notes), segment=segment)


def _chains(
    tap: str,
    attachment: Attachment,
    rules: Sequence[BoundRule],
    end_of_chain: str,
    inline: bool,
    counters: str,
    notes: dict[str, None],
) -> list[Chain]:
    """
    The chains of one filter.

    Args:
        counters: what the names of its counters begin with.
        notes: what the administrator should know is added here.
    """
    # sorted() is stable: rules of equal priority keep document order
    ordered = sorted(rules, key=lambda rule: (rule.chain != "root", rule.priority))
    stages = {
        stage: StageBuilder(stage, tuple(dict.fromkeys(rule.chain for rule in rules)), end_of_chain, inline=inline)
        for stage in Stage
    }
    number = 0
    for rule in ordered:
        if rule.element is not None and ELEMENTS[rule.element].layer == 3:
            if attachment is not Attachment.BRIDGE_PORT:
                _refuse_l3(rule, tap, attachment)
            counter = None
            if "connlimit-above" in rule.conditions:
                counter = NamedSet(SetPurpose.CONNLIMIT, f"{counters}{number}", address_field(rule).kind)
                number += 1
            for stage, compiled in compile_layer3(rule, counter):
                stages[stage].add("root", 0, rule.priority, compiled)
        else:
            for stage, compiled in compile_layer2(rule):
                stages[stage].add(rule.chain, rule.chain_priority, rule.priority, compiled)
    chains = [chain for stage in Stage for chain in stages[stage].chains()]
    notes.update(dict.fromkeys(note for stage in Stage for note in stages[stage].notes))
    return chains


def check_rule(rule: BoundRule) -> None:
    """
    Raises:
        UnsupportedMatch: the rule can't be enforced on any tap.
    """
    layer3 = rule.element is not None and ELEMENTS[rule.element].layer == 3
    for _ in compile_layer3(rule, None) if layer3 else compile_layer2(rule):
        pass


def _refuse_l3(rule: BoundRule, tap: str, attachment: Attachment) -> None:
    device = "a macvtap device" if attachment is Attachment.MACVTAP else "not a bridge port"
    name = rule.element or ""
    instead = "ipv6" if ELEMENTS[name].is_ipv6 else "ip"
    protocol = name.partition("-")[0]
    instead += "" if protocol == "all" else f" protocol='{protocol}'"
    raise UnsupportedMatch(
        f"<{name}> can't be enforced on {tap}, which is {device}; only mac, vlan, stp, arp, rarp, ip, ipv6 can: "
        f"<{instead}> asks for the same packets, without connection state",
        rule.source,
    )


# --- sets ------------------------------------------------------------------------------------------------------------


def _sets(chains: Iterable[Chain]) -> list[NamedSet]:
    found: dict[NamedSet, None] = {}
    for chain in chains:
        for rule in chain.rules:
            for match in rule.matches:
                if isinstance(match.test, (InSet, CountAbove)):
                    found[match.test.set] = None
            found.update((named, None) for _, named in rule.stores)
    return list(found)
