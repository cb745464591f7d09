"""Every attribute of every protocol element, from the language's table: parsed, bound, compiled, taken by nft."""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

import pytest

from nwfilter_hook.base.addresses import parse_mac
from nwfilter_hook.base.errors import BadValue, FilterSyntaxError, XmlSyntaxError
from nwfilter_hook.compiler.compile import compile_tap
from nwfilter_hook.compiler.matches import rule_alternatives
from nwfilter_hook.filters.model import Filter
from nwfilter_hook.filters.parse import parse_filter
from nwfilter_hook.filters.resolve import ReadFilter, resolve
from nwfilter_hook.ruleset.evaluate import Context, Way, evaluate
from nwfilter_hook.ruleset.model import Attachment, Ruleset
from tests.support import language
from tests.support.language import STRUCTURE, Row, accepted, gaps, rejected, rows, structure_rows
from tests.unit.checking import complaints
from tests.unit.compiling import (
    MAC,
    bound,
    compiled,
    compiled_rule,
    filter_xml,
    reference_to,
    rule_xml,
    script,
    spell_match,
    spelled,
)

ROWS = [row for row in rows() if row.attribute != "match"]
ELEMENTS = sorted({row.protocol for row in rows()})
HOSTILE = ('";flush ruleset;add table x;#', "\nflush ruleset", "}}; flush ruleset", "$(reboot)", "`x`", "\\", "{", "'")
each_row = pytest.mark.parametrize("row", ROWS, ids=str)


def conditions(ruleset: Ruleset, layer: str) -> list[str]:
    """Every condition on what the guest sends; a count's comparison as a sign."""
    rules = spelled(ruleset).get("from" if layer == "L2" else "from-l3", [])
    return [word.replace(")<=", ")!=").replace(")>", ")=") for rule in rules for word in rule.split()[:-1]]


def test_the_table_is_complete() -> None:
    """The table has an example for each of its rows, and the elements and attributes of the original documents."""
    assert len(ELEMENTS) == 25
    assert {str(row): gaps(row) for row in [*rows(), *structure_rows()] if gaps(row)} == {}
    assert {row.protocol for row in rows()} == set(ELEMENTS)


@pytest.mark.parametrize(
    ("line", "missing"),
    [
        ("tcp,L3,window,UINT16,0,65535,yes,yes,no,", ["an example", "its frames"]),
        ("tcp,L3,dscp,COLOUR,,,yes,yes,no,", ["an accepted value"]),
        ("rule,n/a,colour,STRING,,,no,no,no,", ["an accepted value"]),
        ("rule,n/a,priority,INT,-1000,2000,no,no,no,", ["its bound 2000"]),
    ],
)
def test_a_row_without_its_examples_is_noticed(
    line: str, missing: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A row that comes into the table without an example, or a type or a structural bound without values, fails the test
    above. Other bounds are tried as the table has them.
    """
    longer = tmp_path / "attributes.csv"
    longer.write_text(language.TABLE.read_text() + line + "," * len(language.EXAMPLE) + "\n")
    monkeypatch.setattr(language, "TABLE", longer)
    added = [*rows(), *structure_rows()][-1] if line.startswith("rule") else rows()[-1]
    assert set(missing) <= set(gaps(added))


@each_row
def test_a_value_becomes_a_condition(row: Row) -> None:
    """An attribute compiles to its own condition on what the guest sends."""
    found = conditions(compiled_rule(row.xml()), row.layer)
    assert found.count(row.condition.format(s="=")) == (1 if row.condition else 0)


@each_row
def test_match_no_negates_it(row: Row) -> None:
    """
    match='no' turns the attribute's condition round, and no other; where it has no sign, nothing changes, or it is an
    error.
    """
    if row.sign == "refused":
        with pytest.raises(FilterSyntaxError, match=rf"^f.xml:2: {row.attribute} on <{row.protocol}> can't be negated"):
            compiled_rule(row.xml(negated=True))
        return
    positive = conditions(compiled_rule(row.xml()), row.layer)
    found = conditions(compiled_rule(row.xml(negated=True)), row.layer)
    if row.sign == "none" or not row.condition:
        assert found == positive
        return
    assert found.count(row.condition.format(s="!=")) == 1
    assert row.condition.format(s="=") not in found
    assert row.negatable or row.documented_only or row.beside or row.attribute.startswith("dstport")


@pytest.mark.parametrize("row", [row for row in rows() if row.attribute == "match"], ids=str)
@pytest.mark.parametrize("sign", ["yes", "no"])
def test_an_element_alone(row: Row, sign: str) -> None:
    """An element is its frame type and protocol; match='no' without attributes doesn't turn them round."""
    (rule,) = bound(filter_xml(rule_xml(row.xml(sign))))
    (matches,) = rule_alternatives(rule)
    assert " ".join(map(spell_match, matches)) == row.condition


@pytest.mark.parametrize("row", [row for row in rows() if row.matches or row.attribute == "match"], ids=str)
def test_a_frame_matches_and_another_does_not(row: Row) -> None:
    """By our own evaluator; tests/wire/test_language.py asks the kernel."""
    verdicts = {
        negated: [
            not evaluate(compiled_rule(row.xml(negated=negated)), each, Way.FROM_GUEST, Context()).passes
            for each in row.frames()
        ]
        for negated in ((False,) if row.sign else (False, True))
    }
    matches_all = row.attribute == "match" and not row.differs
    assert verdicts[False] == [True, matches_all]
    assert verdicts.get(True, [False, True]) == [False, True]


@each_row
def test_every_value_inside_the_bounds_is_accepted(row: Row) -> None:
    """Lowest and highest value are accepted, decimal and hexadecimal, and every name, in upper and lower case."""
    for value in accepted(row):
        compiled_rule(row.xml(value))


@each_row
def test_every_value_outside_the_bounds_is_an_error(row: Row) -> None:
    """A value just outside, or of another form, is an error that names attribute, element, value and line."""
    for value in rejected(row):
        text = filter_xml("", rule_xml(row.xml(value)))
        with pytest.raises(FilterSyntaxError, match=rf"^f.xml:3: [-\w]+='.*' on <{row.protocol}> is not ") as caught:
            bound(text)
        assert f"{_canonical(row.attribute)}=" in str(caught.value)


@each_row
def test_no_value_holds_nft(row: Row) -> None:
    """A right value with something behind it that means something to nft is wrong; a comment is no part of a script."""
    for text in HOSTILE:
        protocol = row.xml(row.value + text)
        if row.datatype == "STRING":
            assert script(compiled_rule(protocol)) == script(compiled_rule(f"<{row.protocol}/>"))
        else:
            with pytest.raises(FilterSyntaxError, match=rf"^f.xml:2: .* on <{row.protocol}> is not "):
                compiled_rule(protocol)


@pytest.mark.parametrize("case", STRUCTURE, ids="-".join)
def test_no_structural_value_holds_nft(case: tuple[str, str]) -> None:
    """The same of names, chains, priorities, actions, parameters."""
    (good, *_), _, template = STRUCTURE[case]
    for text in HOSTILE:
        with pytest.raises(FilterSyntaxError, match=r"^f.xml:1: ") as caught:
            parse_filter(template.format(good + escape(text, {"'": "&apos;", "\n": "&#10;"})).encode(), "f.xml")
        assert str(caught.value).isprintable()


def _canonical(attribute: str) -> str:
    return {"port_hi": "port-hi", "msg-age": "age", "msg-age-hi": "age-hi"}.get(attribute, attribute)


@each_row
def test_a_variable_stands_for_a_value(row: Row) -> None:
    """With a variable the attribute compiles to what its value would; one that can't have a variable says so."""
    protocol = row.xml("$V")
    if row.datatype == "STRING":  # a comment is text, whatever it begins with
        compiled_rule(protocol)
    elif row.allows_variable or (row.documented_only and row.datatype != "TCPFLAGS"):
        literal = compiled_rule(row.xml())
        assert compiled_rule(protocol, parameters={"V": row.value}) == literal
    else:
        with pytest.raises(FilterSyntaxError, match=rf"^f.xml:2: {row.attribute}='\$V' .* no effect here"):
            compiled_rule(protocol, parameters={"V": row.value})


@each_row
def test_a_variables_value_is_typed_when_bound(row: Row) -> None:
    """A parameter that its attribute can't hold is an error that names parameter, attribute and both places."""
    if row.datatype in ("STRING", "TCPFLAGS", "IPSETFLAGS", "BOOLEAN", "STATELIST"):
        return  # these have no variables
    ends_a_range = row.attribute.endswith(("from", "to"))
    for value in rejected(row):
        if "/" in value and row.datatype in ("IP_ADDR", "IPV6_ADDR") and not ends_a_range:
            continue  # a network: test_networks
        with pytest.raises(BadValue, match=r"^domain.xml:1: parameter V: .* at f.xml:2: it is not ") as caught:
            compiled_rule(row.xml("$V"), parameters={"V": value})
        assert f"can't be {_canonical(row.attribute)} on <{row.protocol}>" in str(caught.value)


@pytest.mark.parametrize("element", ELEMENTS)
def test_match_is_yes_or_no(element: str) -> None:
    """match is 'yes' or 'no' on every element; anything else is an error, since libvirt would take it for 'yes'."""
    compiled_rule(f"<{element} match='yes'/>")
    compiled_rule(f"<{element} match='no'/>")
    for word in ("No", "false", "0", ""):
        with pytest.raises(FilterSyntaxError, match="is neither 'yes' nor 'no'"):
            compiled_rule(f"<{element} match='{word}'/>")


@pytest.mark.parametrize("element", ELEMENTS)
def test_no_other_attribute(element: str) -> None:
    """An attribute that the table doesn't have is an error on every element."""
    known = {row.attribute for row in rows() if row.protocol == element}
    # of igmp-ipv6 the table has what the 2010 document shows; we take what every L3 element has
    extra = {row.attribute for row in rows() if row.protocol == "all-ipv6"} if element == "igmp-ipv6" else set()
    for attribute in {row.attribute for row in rows()} - known - extra:
        with pytest.raises(
            FilterSyntaxError, match=f"unknown attribute '{attribute}' on <{element}>|unknown attribute"
        ):
            compiled_rule(f"<{element} {attribute}='1'/>")


@pytest.mark.parametrize("row", [row for row in ROWS if not rejected(row)], ids=str)
def test_every_text_is_a_comment(row: Row) -> None:
    """The rows without a value that is rejected are the comments; what no XML can hold they can't either."""
    assert row.attribute == "comment"
    with pytest.raises(XmlSyntaxError, match=r"^f.xml:2: "):
        compiled_rule(f"<{row.protocol} comment='\x01'/>")


@pytest.mark.parametrize("case", STRUCTURE, ids="-".join)
def test_the_structure_has_no_variables(case: tuple[str, str]) -> None:
    """$V in an attribute of <filter>, <rule>, <filterref>, <parameter> is an error, as the table says."""
    (row,) = (row for row in structure_rows() if (row.protocol, row.attribute) == case)
    assert not row.allows_variable
    assert not row.negatable
    with pytest.raises(FilterSyntaxError, match=r"^f.xml:1: "):
        parse_filter(STRUCTURE[case][2].format("$V").encode(), "f.xml")


@pytest.mark.netns
def test_nft_takes_every_value_of_every_attribute() -> None:
    """
    What the table allows becomes a script that nft and kernel take: each bound, each name, a variable, negated, both
    ways.
    """
    rulesets = []
    for number, row in enumerate(ROWS):
        values = [row.value, *accepted(row)]
        if row.allows_variable:
            values.append("$V")
        nodes = [
            row.xml(value, negated=negated)
            for value in values
            for negated in ((False,) if row.sign == "refused" else (False, True))
        ]
        # a BPDU's destination is fixed, so there is nothing to exchange for 'inout'
        directions = ("in", "out") if row.protocol == "stp" else ("inout",)
        text = filter_xml(
            *(rule_xml(each, direction=way) for each in nodes for way in directions), name=f"row-{number}"
        )
        rules = bound(text, parameters={"V": row.value})
        rulesets.append(compile_tap(f"tap{number}", Attachment.BRIDGE_PORT, parse_mac(MAC), rules, ingress=False))
    assert complaints(script(*rulesets)) == []


def _either(own: Filter, other: Filter) -> ReadFilter:
    """What reads `own` by its name, and `other` by every other."""
    return lambda name, _: own if name == own.name else other


@pytest.mark.netns
def test_nft_takes_every_match_and_every_structure() -> None:
    """The same of match='yes' and match='no' on every element, and of every value of a structural attribute."""
    lines = [rule_xml(f"<{element} match='{sign}'/>") for element in ELEMENTS for sign in ("yes", "no")]
    rulesets = [compile_tap("match", Attachment.BRIDGE_PORT, parse_mac(MAC), bound(filter_xml(*lines)), ingress=False)]
    other = parse_filter(filter_xml(rule_xml("<all ipset='$A' ipsetflags='src'/>")).encode(), "f.xml")
    for good, _, template in STRUCTURE.values():
        for value in good:
            own = parse_filter(template.format(value).encode(), "f.xml")
            rules = resolve(reference_to(own.name, {"A": "set"}), MAC, _either(own, other))
            assert rules
            tap = f"tap{len(rulesets)}"
            rulesets.append(compile_tap(tap, Attachment.BRIDGE_PORT, parse_mac(MAC), rules, ingress=False))
    assert complaints(script(*rulesets)) == []


@pytest.mark.netns
@pytest.mark.parametrize("action", ["accept", "drop", "reject", "return", "continue"])
@pytest.mark.parametrize("direction", ["in", "out", "inout"])
def test_nft_takes_every_action_and_direction(action: str, direction: str) -> None:
    """Every element alone, under every action in every direction, becomes a script that nft and the kernel take."""
    rules = (rule_xml(f"<{element}/>", action=action, direction=direction) for element in ELEMENTS)
    assert complaints(script(compiled(filter_xml(*rules)), counters="all")) == []
