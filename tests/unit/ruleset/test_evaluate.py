"""What a ruleset does with a frame, layer by layer, and which rules say so."""

from __future__ import annotations

from nwfilter_hook.ruleset.evaluate import Context, Evaluation, State, Way, evaluate
from nwfilter_hook.ruleset.fields import Field, ValueType
from nwfilter_hook.ruleset.model import NamedSet, Ruleset, SetPurpose, Stage, Verdict
from tests.conformance.packets import FRAGMENT, GUEST_IP, OTHER_IP, Shape, build
from tests.unit.compiling import compiled, compiled_rule, filter_xml, rule_xml

TCP = {Field.ETHER_TYPE: 0x0800, Field.IP_PROTOCOL: 6}


def sent(ruleset: Ruleset, values: dict[Field, int] | None = None, context: Context | None = None) -> Evaluation:
    """What becomes of a frame that the guest sends."""
    return evaluate(ruleset, build(values or TCP), Way.FROM_GUEST, context or Context())


def test_a_frame_meets_both_layers_and_the_rules_that_decide_are_told() -> None:
    """An accept at layer 2 ends that layer only; filter and line of each deciding rule are known."""
    text = filter_xml(
        rule_xml("<ip/>", action="accept"), rule_xml("<tcp dstportstart='80'/>", direction="inout", statematch="0")
    )
    evaluation = evaluate(compiled(text), build({**TCP, Field.DST_PORT: 80}), Way.TO_GUEST)
    assert [layer.stage for layer in evaluation.layers] == [Stage.TO_L3]
    assert evaluation.verdict is Verdict.DROP
    evaluation = sent(compiled(text), {**TCP, Field.SRC_PORT: 80})
    assert [(layer.stage, layer.verdict) for layer in evaluation.layers] == [
        (Stage.FROM_L2, Verdict.ACCEPT),
        (Stage.FROM_L3, Verdict.DROP),
    ]
    assert [str(rule.source) for rule in evaluation.applied] == ["f.xml:2", "f.xml:3"]


def test_a_layer_that_drops_is_the_last() -> None:
    """Layer 3 never sees what layer 2 drops."""
    text = filter_xml(rule_xml("<mac/>"), rule_xml("<all/>", direction="inout"))
    assert [layer.stage for layer in sent(compiled(text)).layers] == [Stage.FROM_L2]


def test_a_frame_that_no_rule_applies_to_passes() -> None:
    """And each step tells which condition failed, and at what value."""
    evaluation = sent(compiled_rule("<ip protocol='udp'/>"))
    assert evaluation.passes
    (layer,) = evaluation.layers
    assert layer.decided_by is None
    (step,) = layer.steps
    assert step.failed is not None
    assert (step.failed.field, step.value, step.applies) == (Field.IP_PROTOCOL, 6, False)


def test_return_leaves_a_sub_chain_and_ends_a_root_chain() -> None:
    """As the language has it."""
    back = rule_xml("<arp opcode='Request'/>", action="return")
    drops = (rule_xml(f"<arp opcode='{code}'/>") for code in (1, 2, 3, 4, 5, 6))
    ruleset = compiled(
        filter_xml("<filterref filter='c'/>", rule_xml()), filter_xml(back, *drops, name="c", chain="arp")
    )
    request = {Field.ETHER_TYPE: 0x0806, Field.ARP_OPCODE: 1}
    by = sent(ruleset, request).layers[0].decided_by
    assert by is not None
    assert by.filter == "f"
    assert sent(compiled(filter_xml(back, rule_xml())), request).passes


def test_what_cannot_be_read_makes_a_condition_false_negated_or_not() -> None:
    """A fragment that isn't the first has neither port 80 nor another."""
    later = build({Field.ETHER_TYPE: 0x0800, Field.IP_PROTOCOL: 6}, Shape(fragment_offset=8, extensions=(FRAGMENT,)))
    for element in (
        "<ip protocol='tcp'/><ip dstportstart='80'/>",
        "<ip protocol='tcp'/><ip match='no' dstportstart='80'/>",
    ):
        assert evaluate(compiled_rule(element), later, Way.FROM_GUEST).passes


def test_connection_state_is_the_contexts() -> None:
    """`accept out` takes new connections and what belongs to them, one way each."""
    ruleset = compiled(
        filter_xml(rule_xml("<tcp/>", action="accept"), rule_xml("<all/>", direction="inout", priority=1000))
    )
    assert sent(ruleset, context=Context(State.NEW)).passes
    assert sent(ruleset, context=Context(State.ESTABLISHED)).passes
    for context in (Context(State.ESTABLISHED, reply=True), Context(State.RELATED), Context(State.INVALID)):
        assert not sent(ruleset, context=context).passes
    reply = evaluate(ruleset, build(TCP), Way.TO_GUEST, Context(State.ESTABLISHED, reply=True))
    assert reply.passes


def test_named_sets_and_counts_are_the_contexts() -> None:
    """What is in a set of the administrator, and how many connections are counted."""
    ruleset = compiled_rule("<all ipset='friends' ipsetflags='src'/>", direction="out", statematch="0")
    friends = NamedSet(SetPurpose.IPSET, "friends", ValueType.IPV4)
    inside = Context(sets={friends: frozenset([(range(GUEST_IP, GUEST_IP + 1),)])})
    assert sent(ruleset).passes
    assert not sent(ruleset, context=inside).passes
    assert sent(ruleset, {**TCP, Field.IP_SRC: OTHER_IP}, inside).passes
    limited = compiled_rule("<tcp connlimit-above='2'/>")
    (counter,) = limited.sets
    assert sent(limited, context=Context(counts={counter: 2})).passes
    assert not sent(limited, context=Context(counts={counter: 3})).passes


def test_learning_is_carried_from_frame_to_frame() -> None:
    """The first address that the guest uses is its own from then on."""
    ruleset = compiled(filter_xml(rule_xml("<ip match='no' srcipaddr='$IP'/>")))
    first = sent(ruleset, {**TCP, Field.IP_SRC: GUEST_IP})
    assert first.passes
    after = Context(sets=first.sets)
    assert sent(ruleset, {**TCP, Field.IP_SRC: GUEST_IP}, after).passes
    assert not sent(ruleset, {**TCP, Field.IP_SRC: OTHER_IP}, after).passes
