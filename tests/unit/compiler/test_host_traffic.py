"""What the host makes itself reaches the guest: answers to what is rejected, later fragments of what is accepted."""

from __future__ import annotations

import pytest

from nwfilter_hook.ruleset.evaluate import Context, State, Way, evaluate
from nwfilter_hook.ruleset.model import Verdict
from tests.unit.compiling import compiled, filter_xml, rule_xml, spelled

DROP_ALL = rule_xml("<all/>", direction="inout", priority=1000)


def to_l3(*rules: str) -> list[str]:
    """What the guest's packets meet on their way to it."""
    return spelled(compiled(filter_xml(*rules)), beside=True)["to-l3"]


def test_a_rejected_guest_gets_the_answer() -> None:
    """A rule at the head for each IP version in which something is rejected; the answer is the host's and untracked."""
    reject = rule_xml("<udp/>", action="reject"), rule_xml("<tcp-ipv6/>", action="reject", direction="inout")
    answers = to_l3(*reject, DROP_ALL)[:2]
    assert answers == [
        "ether-type=0x800 ip-protocol=1 icmp-type=3 icmp-code=3 packet-type=0 ct-state=invalid accept",
        "ether-type=0x86dd l4-protocol=58 icmpv6-type=1 icmpv6-code=4 packet-type=0 ct-state=invalid accept",
    ]
    assert not any("packet-type=0" in rule for rule in to_l3(rule_xml("<udp/>"), DROP_ALL))
    # what is on its way to the guest is dropped, so there is nothing to answer
    assert not any(
        "packet-type=0" in rule for rule in to_l3(rule_xml("<udp state='NEW'/>", action="reject", direction="in"))
    )


def test_only_the_hosts_own_answer_passes() -> None:
    """Not what a neighbour sends that looks like it, nor another error of the host's."""
    ruleset = compiled(filter_xml(rule_xml("<udp/>", action="reject"), DROP_ALL))
    unreachable = bytes.fromhex(
        "525400000001 525400000099 0800 4500001c 00000000 40010000 0a000063 0a000001 03030000 00000000"
    )
    other = unreachable[:34] + b"\3\1" + unreachable[36:]

    def passes(frame: bytes, *, from_host: bool, state: State = State.INVALID) -> bool:
        return evaluate(ruleset, frame, Way.TO_GUEST, Context(state, from_host=from_host)).passes

    assert passes(unreachable, from_host=True)
    assert not passes(unreachable, from_host=False)
    assert not passes(unreachable, from_host=True, state=State.RELATED)
    assert not passes(other, from_host=True)


def test_later_fragments_pass_where_the_first_may() -> None:
    """All conditions but those on the transport header hold for them, too; once per set of such conditions."""
    rules = to_l3(
        rule_xml("<udp srcipaddr='10.0.0.9' dstportstart='53'/>", action="accept", direction="in"),
        rule_xml("<udp srcipaddr='10.0.0.9' dstportstart='54'/>", action="accept", direction="in"),
        rule_xml("<icmpv6 type='128'/>", action="accept", direction="in", statematch="false"),
        DROP_ALL,
    )
    state = "ct-state=established,new ct-direction=original"
    assert rules == [
        f"ether-type=0x800 ip-src=10.0.0.9 ip-protocol=17 ip-fragment&8191!=0 packet-type=0 {state} accept",
        f"ether-type=0x800 ip-src=10.0.0.9 ip-protocol=17 dst-port=53 {state} accept",
        "ether-type=0x800 ip-src=10.0.0.9 ip-protocol=17 ip-fragment&8191!=0 packet-type=0 ct-state=untracked accept",
        "ct-state=untracked ether-type=0x800 ip-src=10.0.0.9 ip-protocol=17 dst-port=53 accept",
        f"ether-type=0x800 ip-src=10.0.0.9 ip-protocol=17 dst-port=54 {state} accept",
        "ct-state=untracked ether-type=0x800 ip-src=10.0.0.9 ip-protocol=17 dst-port=54 accept",
        "ether-type=0x86dd ip6-fragment!=0 l4-protocol=58 packet-type=0 accept",
        "ether-type=0x86dd l4-protocol=58 icmpv6-type=128 accept",
        "ether-type=0x800 drop",
    ]


@pytest.mark.parametrize(
    "rule",
    [
        rule_xml("<udp dstportstart='53' state='NEW'/>", direction="in"),
        rule_xml("<udp/>", action="accept", direction="in"),
        rule_xml("<udp dstportstart='53' connlimit-above='3'/>", action="accept", direction="in"),
    ],
)
def test_no_rule_for_later_fragments(rule: str) -> None:
    """Not for what drops, for what asks for no port, and for what counts: a fragment is no connection."""
    assert not any("fragment" in each for each in to_l3(rule, DROP_ALL))


@pytest.mark.parametrize(("offset", "verdict"), [(0, Verdict.DROP), (1, Verdict.ACCEPT), (0x1FFF, Verdict.ACCEPT)])
def test_the_first_fragment_must_have_the_port(offset: int, verdict: Verdict) -> None:
    """The others pass without; "more fragments" and "don't fragment" make no difference."""
    ruleset = compiled(
        filter_xml(rule_xml("<udp dstportstart='53'/>", action="accept", direction="in", statematch="false"), DROP_ALL)
    )
    for flags in (0x0000, 0x2000, 0x4000):
        header = f"4500001c0000{flags | offset:04x}401100000a0000630a000001"
        frame = bytes.fromhex(f"5254000000015254000000990800{header}9c4000360008 0000")
        assert evaluate(ruleset, frame, Way.TO_GUEST, Context(State.NEW, from_host=True)).verdict is verdict
        # what a neighbour sends in pieces, connection tracking puts together; without it, the rule is as strict as ever
        assert evaluate(ruleset, frame, Way.TO_GUEST).verdict is Verdict.DROP
