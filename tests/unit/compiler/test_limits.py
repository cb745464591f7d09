"""What counts connections has an answer for when it is full: closed."""

from __future__ import annotations

import pytest

from nwfilter_hook.ruleset.evaluate import Context, State, Way, evaluate
from nwfilter_hook.ruleset.fields import Field
from tests.conformance.packets import build
from tests.unit.compiling import compiled, filter_xml, rule_xml, spelled

HEAD = "ether-type=0x800 ip-protocol=6"
TRACKED = "ct-state=established,new,related"
DROP_ALL = rule_xml("<all/>", direction="inout", priority=1000)
TCP = {Field.ETHER_TYPE: 0x0800, Field.IP_PROTOCOL: 6, Field.TCP_FLAGS: 2}


@pytest.mark.parametrize("action", ["drop", "reject"])
@pytest.mark.parametrize("sign", ["", " match='no'"])
def test_what_stops_by_a_number_stops_what_cannot_be_counted(action: str, sign: str) -> None:
    """A second rule, directly behind, for the same packets."""
    rules = spelled(compiled(filter_xml(rule_xml(f"<tcp{sign} connlimit-above='3'/>", action=action))), beside=True)
    counted = f"count(ip-src){'<=' if sign else '>'}3"
    expected = [f"{HEAD} {TRACKED} {counted} {action}", f"{HEAD} {TRACKED} uncounted(ip-src) {action}"]
    assert rules["from-l3"][:2] == expected


def test_each_way_to_be_counted_has_one() -> None:
    """A negated pair makes two rules with one counter: what neither has counted isn't in the set."""
    found = spelled(
        compiled(filter_xml(rule_xml("<icmp match='no' type='8' code='0' connlimit-above='3'/>"))), beside=True
    )
    kinds = [rule.split()[-2].partition("(")[0] for rule in found["from-l3"] if "count" in rule]
    assert kinds == ["count", "count", "uncounted", "uncounted"]


@pytest.mark.parametrize("action", ["accept", "return", "continue"])
def test_what_lets_pass_by_a_number_needs_none(action: str) -> None:
    """What can't be counted isn't let through by that rule."""
    rules = spelled(compiled(filter_xml(rule_xml("<tcp connlimit-above='3'/>", action=action))), beside=True)
    assert not any("uncounted" in rule for rule in rules["from-l3"])


@pytest.mark.parametrize("sign", ["", " match='no'"])
@pytest.mark.parametrize("action", ["accept", "drop", "reject"])
@pytest.mark.parametrize("state", [State.NEW, State.ESTABLISHED, State.RELATED])
def test_a_full_set_lets_nobody_in(action: str, sign: str, state: State) -> None:
    """Whatever the rule says; with room the number decides."""
    limit = rule_xml(f"<tcp{sign} connlimit-above='3'/>", action=action, priority=100)
    ruleset = compiled(filter_xml(limit, *((DROP_ALL,) if action == "accept" else ())))
    (counter,) = ruleset.sets
    frame = build(TCP)

    def passes(count: int, **full: frozenset[object]) -> bool:
        context = Context(state, counts={counter: count}, **full)  # type: ignore[arg-type]
        return evaluate(ruleset, frame, Way.FROM_GUEST, context).passes

    assert not passes(1, full=frozenset((counter,)))
    assert passes(1) is not passes(4)
