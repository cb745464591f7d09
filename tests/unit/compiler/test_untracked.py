"""Packets that the host exempts from connection tracking: the fields of a rule that lets packets pass decide."""

from __future__ import annotations

import pytest

from nwfilter_hook.ruleset.evaluate import Context, State, Way, evaluate
from nwfilter_hook.ruleset.fields import Field
from tests.conformance.packets import AUTHENTICATION, GUEST_MAC, OTHER_MAC, PLAIN, Shape, build
from tests.unit.compiling import compiled, filter_xml, rule_xml, spelled

HEAD = "ct-state=untracked ether-type=0x800 ip-protocol=17"


def exempt(protocol: str, action: str = "accept", direction: str = "out", **others: object) -> dict[str, list[str]]:
    """What one rule becomes for such packets, by tree; a rule of the root that returns accepts."""
    rules = spelled(compiled(filter_xml(rule_xml(protocol, action=action, direction=direction, **others))), beside=True)
    found = {
        tree: [rule.removesuffix(" accept") for rule in rules if "untracked" in rule and "fragment" not in rule]
        for tree, rules in rules.items()
    }
    return {tree: rules for tree, rules in found.items() if rules}


@pytest.mark.parametrize("action", ["accept", "return"])
@pytest.mark.parametrize(
    ("options", "direction", "expected"),
    [
        ("state='NEW'", "out", {"from-l3": [f"{HEAD} dst-port=53"]}),
        ("state='ESTABLISHED,RELATED'", "in", {"to-l3": [f"{HEAD} dst-port=53"]}),
        ("state='NEW,INVALID'", "inout", {"from-l3": [f"{HEAD} src-port=53"], "to-l3": [f"{HEAD} dst-port=53"]}),
        # neither is about a connection's own packets
        ("state='RELATED'", "in", {}),
        ("state='INVALID'", "in", {}),
        # without a state all packets are met
        ("state='NONE'", "in", {}),
    ],
)
def test_a_rule_with_states(action: str, options: str, direction: str, expected: dict[str, list[str]]) -> None:
    """Such a packet may be new or established, for all that can be known."""
    assert exempt(f"<udp dstportstart='53' {options}/>", action, direction) == expected


def test_a_stateful_pair() -> None:
    """Each half, the way in which it stands."""
    udp = "<udp dstipaddr='10.0.0.9' dstportstart='53'/>"
    there = ["ct-state=untracked ether-type=0x800 ip-dst=10.0.0.9 ip-protocol=17 dst-port=53"]
    back = ["ct-state=untracked ether-type=0x800 ip-src=10.0.0.9 ip-protocol=17 src-port=53"]
    assert exempt(udp) == {"from-l3": there, "to-l3": back}
    assert exempt(udp, direction="in") == {"from-l3": back, "to-l3": there}
    assert exempt("<icmp type='8'/>") == {"from-l3": ["ct-state=untracked ether-type=0x800 ip-protocol=1 icmp-type=8"]}


@pytest.mark.parametrize("action", ["drop", "reject", "continue"])
@pytest.mark.parametrize("states", ["NEW", "INVALID", "NEW,ESTABLISHED,RELATED,INVALID"])
def test_nothing_is_stopped_for_a_state_that_it_lacks(action: str, states: str) -> None:
    """`drop` of what is invalid or new means no packet without a state."""
    assert exempt(f"<udp state='{states}'/>", action) == {}


def test_what_counts_connections_is_told_apart_already() -> None:
    """A packet without a connection counts as one."""
    assert exempt("<udp connlimit-above='3'/>") == {}


DROP_ALL = rule_xml("<all-ipv6/>", direction="inout", priority=1000)
EVERYTHING = ("all-ipv6", "icmpv6", "ah-ipv6")


def passes(*elements: str, type_: int, shape: Shape = PLAIN, options: str = "", protocol: int = 58) -> bool:
    """Whether an untracked packet of a neighbour passes a filter that accepts these elements out, and no others."""
    accepted = (rule_xml(f"<{element}/>", action="accept") for element in elements)
    established = rule_xml("<all-ipv6 state='ESTABLISHED'/>", action="accept", direction="in") if options else ""
    ruleset = compiled(filter_xml(*accepted, *filter(None, [established]), DROP_ALL))
    values = {
        Field.ETHER_TYPE: 0x86DD,
        Field.ETHER_SRC: OTHER_MAC,
        Field.ETHER_DST: GUEST_MAC,
        Field.L4_PROTOCOL: protocol,
        Field.ICMPV6_TYPE: type_,
    }
    return evaluate(ruleset, build(values, shape), Way.TO_GUEST, Context(State.UNTRACKED)).passes


@pytest.mark.parametrize("type_", [*range(130, 137), 143])
@pytest.mark.parametrize("element", EVERYTHING)
@pytest.mark.parametrize("shape", [PLAIN, Shape(extensions=(AUTHENTICATION,))], ids=["plain", "behind-ah"])
def test_what_the_kernel_never_tracks_is_not_exempt(element: str, type_: int, shape: Shape) -> None:
    """A neighbour's router advertisement is no answer to the guest; nor is one behind a header that nft stops at."""
    assert not passes(element, type_=type_, shape=shape)
    assert not passes(element, type_=type_, shape=shape, options="established")


def test_everything_else_of_icmpv6_is() -> None:
    """A ping's answer that the host has exempted passes."""
    for element in ("all-ipv6", "icmpv6"):
        for type_ in (129, 137, 144):
            assert passes(element, type_=type_)
    assert passes("all-ipv6", type_=0, protocol=17)
    assert not passes("icmpv6", type_=0, protocol=17)


@pytest.mark.parametrize("sign", ["", " match='no'"])
@pytest.mark.parametrize("type_", [129, 135])
def test_a_rule_for_one_type(sign: str, type_: int) -> None:
    """It has a twin, but for the types that are never tracked."""
    found = exempt(f"<icmpv6{sign} type='{type_}'/>").get("from-l3", [])
    equals = "!=" if sign else "="
    never = " icmpv6-type!=130..136 icmpv6-type!=143" if sign else ""
    conditions = sorted(f"icmpv6-type{equals}{type_}{never}".split())
    expected = [] if type_ == 135 and not sign else [conditions]
    assert [sorted(rule.split()[3:]) for rule in found] == expected
