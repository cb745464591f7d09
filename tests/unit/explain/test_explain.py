"""Why a frame passes or not: what is told of each rule, which decides, and what the nearest other lacked."""

from __future__ import annotations

from typing import Any

import pytest

from nwfilter_hook.explain.capture import Judge
from nwfilter_hook.explain.conditions import text_of
from nwfilter_hook.explain.explain import Explanation, explain
from nwfilter_hook.packets.state import guess_state
from nwfilter_hook.packets.words import Guest, build
from nwfilter_hook.ruleset.evaluate import Context, State, Way, evaluate_frame
from nwfilter_hook.ruleset.fields import Field, ValueType
from nwfilter_hook.ruleset.frame import decode_frame
from nwfilter_hook.ruleset.model import (
    AnyState,
    Between,
    CountAbove,
    Equals,
    InSet,
    Masked,
    Match,
    NamedSet,
    Present,
    Ruleset,
    SameAs,
    SetPurpose,
    Stage,
    Uncounted,
)
from tests.unit.compiling import compiled, filter_xml, rule_xml

GUEST = Guest(0x525400000001, 0x0A000007, 0x20010DB8000000000000000000000077)
OUT = Way.FROM_GUEST

ACCEPT_ADDRESS = rule_xml("<ip srcipaddr='10.0.0.7'/>", action="accept", priority=1)
ACCEPT_PORT = rule_xml(
    "<tcp srcipaddr='10.0.0.7' dstportstart='443'/>", action="accept", priority=2, statematch="false"
)
DROP = rule_xml("<all/>", priority=900, statematch="false")


def told(ruleset: Ruleset, words: dict[str, Any], way: Way = OUT, **context: Any) -> Explanation:
    frame = decode_frame(build(words, GUEST, way).data)
    known = Context(context.pop("state", guess_state(frame).state), **context)
    found = explain(ruleset, frame, way, known, lambda rule: f"<line {rule.source.line}>")
    assert found.passes is evaluate_frame(ruleset, frame, way, known).passes
    return found


def test_each_rule_with_the_first_condition_that_failed() -> None:
    """In the order of the kernel, the frame's value beside it."""
    found = told(compiled(filter_xml(ACCEPT_ADDRESS, DROP)), {"udp": True, "src": "10.0.0.9"})
    assert not found.passes
    first = found.layers[0].rules[0]
    assert (first.rule, first.verdict, first.xml) == ("f:2", "accept", "<line 2>")
    assert first.failed
    assert first.failed.line == "ip saddr 10.0.0.7: the frame has 10.0.0.9"
    assert found.layers[0].decided_by is None
    assert found.decided_by
    assert (found.decided_by.rule, found.decided_by.xml, found.decided_by.failed) == ("f:3", "<line 3>", None)
    assert found.deciding
    assert found.deciding.layer == "layer 3, from the guest"


def test_the_nearest_rule_and_what_it_lacked() -> None:
    """The rule with the fewest conditions unmet, if meeting them turns the verdict."""
    ruleset = compiled(filter_xml(ACCEPT_PORT, DROP))
    near = told(ruleset, {"tcp": True, "src": "10.0.0.7", "dst": ":80"}).otherwise
    assert near
    assert near.rule
    assert (near.rule.rule, near.rule.verdict, near.behind) == ("f:2", "accept", False)
    assert [each.line for each in near.needed] == ["dport 443: the frame has 80"]
    far = told(ruleset, {"tcp": True, "src": "10.0.0.9", "dst": ":80"}).otherwise
    assert far
    assert [each.text for each in far.needed] == ["ip saddr 10.0.0.7", "dport 443"]


def test_a_rule_that_would_not_turn_the_verdict_is_not_the_nearest() -> None:
    """Layer 2 accepts anyway; only the rule of layer 3 helps."""
    other = told(compiled(filter_xml(ACCEPT_ADDRESS, ACCEPT_PORT, DROP)), {"tcp": True, "dst": ":80"}).otherwise
    assert other
    assert other.rule
    assert other.rule.rule == "f:3"


def test_a_rule_behind_the_one_that_decided() -> None:
    """It would apply as it is, and comes too late; so it is with what people call a dead rule."""
    late = rule_xml("<tcp dstportstart='443'/>", action="accept", priority=950, statematch="false")
    other = told(compiled(filter_xml(DROP, late)), {"tcp": True, "dst": ":443"}).otherwise
    assert other
    assert other.rule
    assert (other.rule.rule, other.behind, other.needed) == ("f:3", True, ())


def test_without_the_rule_it_would_pass() -> None:
    """No rule accepts; the end of the layer does."""
    other = told(compiled(filter_xml(DROP)), {"tcp": True}).otherwise
    assert other
    assert (other.rule, other.behind) == (None, True)


def test_nothing_decides() -> None:
    """An empty filter: passes at the end of every layer, and no rule could stop it."""
    found = told(compiled(filter_xml()), {"tcp": True})
    assert (found.passes, found.decided_by, found.otherwise) == (True, None, None)


def test_jumps_are_told_and_their_conditions_needed() -> None:
    """A rule in a chain that the frame doesn't come to needs what leads there, too."""
    drop = rule_xml("", direction="inout", priority=1000)
    rules = [rule_xml(f"<arp arpsrcipaddr='10.0.0.{number}'/>", action="accept") for number in (7, 8, 10, 11)]
    inner = filter_xml(*rules, drop, name="g", chain="arp-x")
    ruleset = compiled(filter_xml("<filterref filter='g'/>", drop), inner)
    found = told(ruleset, {"arp": "request", "src": "10.0.0.9"})
    assert [(each.rule, each.chain, each.verdict) for each in found.layers[0].rules] == [
        ("g:2", "", "jump arp-x"),
        *((f"g:{line}", "arp-x", "accept") for line in (2, 3, 4, 5)),
        ("g:6", "arp-x", "drop"),
    ]
    other = told(ruleset, {"tcp": True}).otherwise
    assert other
    assert other.rule
    assert other.rule.rule == "g:5"
    assert other.needed[0].line == "ether type arp: the frame has ipv4"


def test_states() -> None:
    """A stateful accept lets answers pass; the state is a condition like others."""
    ruleset = compiled(filter_xml(rule_xml("<tcp dstportstart='443'/>", action="accept"), DROP))
    assert told(ruleset, {"tcp": True}, state=State.NEW).passes
    answer = {"tcp": True, "src": "192.0.2.9:443", "flags": "syn,ack"}
    assert told(ruleset, answer, Way.TO_GUEST, state=State.ESTABLISHED, reply=True).passes
    invalid = told(ruleset, {"tcp": True}, state=State.INVALID)
    failed = invalid.layers[-1].rules[0].failed
    assert failed
    assert failed.line == "ct state established,new: the frame has invalid"


def test_as_json() -> None:
    """The keys that programs rely on."""
    found = told(compiled(filter_xml(ACCEPT_PORT, DROP)), {"udp": True}).as_json()
    assert set(found) == {"verdict", "layers", "otherwise"}
    assert found["verdict"] == "drop"
    layer = found["layers"][-1]
    assert set(layer) == {"layer", "verdict", "decided_by", "rules"}
    assert set(layer["rules"][0]) == {"rule", "chain", "verdict", "xml", "failed"}
    assert set(layer["rules"][0]["failed"]) == {"text", "value"}
    assert set(found["otherwise"]) == {"layer", "rule", "needed", "behind"}


IPSET = NamedSet(SetPurpose.IPSET, "bad", ValueType.IPV4)
COUNTS = NamedSet(SetPurpose.CONNLIMIT, "1", ValueType.IPV4)
TEXTS = {
    "ether saddr 52:54:00:00:00:01": Match(Field.ETHER_SRC, Equals(0x525400000001)),
    "ether type != arp": Match(Field.ETHER_TYPE, Equals(0x0806), negated=True),
    "ether type 0x0835": Match(Field.ETHER_TYPE, Equals(0x0835)),
    "ip saddr 10.0.0.0/8": Match(Field.IP_SRC, Masked(0xFF000000, 0x0A000000)),
    "ip6 daddr != fe80::/10": Match(Field.IP6_DST, Masked(0x3FF << 118, 0x3FA << 118), negated=True),
    "ip saddr & 255.0.0.255 == 10.0.0.1": Match(Field.IP_SRC, Masked(0xFF0000FF, 0x0A000001)),
    "ether saddr & ff:00:00:00:00:ff == 52:00:00:00:00:01": Match(
        Field.ETHER_SRC, Masked(0xFF00000000FF, 0x520000000001)
    ),
    "dport 1-1024": Match(Field.DST_PORT, Between(1, 1024)),
    "protocol tcp": Match(Field.L4_PROTOCOL, Equals(6)),
    "tcp flags & syn,ack == syn": Match(Field.TCP_FLAGS, Masked(0x12, 0x02)),
    "no tcp option 5": Match(Field.TCP_OPTION, Present(5), negated=True),
    "arp saddr ether other than ether saddr": Match(Field.ARP_SRC_MAC, SameAs(Field.ETHER_SRC), negated=True),
    "ct state established,new": Match(Field.CT_STATE, AnyState(frozenset(("new", "established")))),
    "ct direction original": Match(Field.CT_DIRECTION, Equals(0)),
    "icmpv6 type 135 (nd-neighbor-solicit)": Match(Field.ICMPV6_TYPE, Equals(135)),
    "not more than 3 connections of ip saddr": Match(Field.IP_SRC, CountAbove(COUNTS, 3), negated=True),
    "no room to count connections of ip saddr": Match(Field.IP_SRC, Uncounted(COUNTS)),
    "ip saddr not in set bad (192.0.2.0-192.0.2.255, 198.51.100.7)": Match(Field.IP_SRC, InSet(IPSET), negated=True),
}


@pytest.mark.parametrize("text", TEXTS)
def test_conditions_in_words(text: str) -> None:
    """As nft and tcpdump call them."""
    elements = frozenset(((range(0xC0000200, 0xC0000300),), (range(0xC6336407, 0xC6336408),)))
    assert text_of(TEXTS[text], Context(sets={IPSET: elements})) == text


def test_what_the_frame_has_of_a_header_that_it_hasnt() -> None:
    """The header is named, not a number invented."""
    ruleset = compiled(filter_xml(ACCEPT_PORT, DROP))
    found = told(ruleset, {"udp": True, "src": "10.0.0.7"})
    assert [rule.failed.value for rule in found.layers[-1].rules if rule.failed] == ["udp"]
    ports = compiled(filter_xml(rule_xml("<vlan vlanid='5'/>", action="accept"), rule_xml("")))
    first = told(ports, {"tcp": True}).layers[0].rules[0].failed
    assert first
    assert first.line in ("vlan id 5: the frame has no VLAN tag", "ether type vlan: the frame has ipv4")


def test_a_capture_is_counted_by_rule() -> None:
    """By direction, verdict and rule; the first frame of each is named."""
    ruleset = compiled(filter_xml(ACCEPT_PORT, DROP))
    judge = Judge(ruleset, Context(), lambda rule: "")
    for number, port in enumerate((443, 80, 443, 22, 80), 1):
        frame = decode_frame(build({"tcp": True, "src": "10.0.0.7", "dst": f":{port}"}, GUEST, OUT).data)
        judge.add(number, frame, OUT, guess_state(frame))
    found = [(each.verdict, each.rule, each.frames, each.first) for each in judge.decisions()]
    assert found == [("drop", "f:3", 3, 2), ("pass", "f:2", 2, 1)]
    assert judge.decisions()[0].packet == "TCP 10.0.0.7:40000 > 198.51.100.9:80 syn"
    assert Stage.FROM_L3 in Way.FROM_GUEST.value
