"""Filter files: what is read, and which line is named when something is wrong."""

from __future__ import annotations

import re

import pytest

from nwfilter_hook.base.errors import FilterSyntaxError, NwfilterHookError, Source, XmlSyntaxError
from nwfilter_hook.base.xml import MAX_BYTES
from nwfilter_hook.filters.model import Action, Direction, FilterRef, FilterRule, Setting, Variable
from nwfilter_hook.filters.parse import parse_filter
from tests.support.language import STRUCTURE, structure_rows
from tests.unit.compiling import filter_xml, rule_xml

UUID = "5c6d49af-b071-6127-b4ec-6f8ed4b55335"


def rule_of(protocol: str, **attributes: object) -> FilterRule:
    """The only rule of a filter, read."""
    (entry,) = parse_filter(filter_xml(rule_xml(protocol, **attributes)).encode(), "f.xml").entries  # type: ignore[arg-type]
    assert isinstance(entry, FilterRule)
    return entry


def complaint(text: str) -> str:
    """What is wrong with a filter."""
    with pytest.raises(FilterSyntaxError) as caught:
        parse_filter(text.encode(), "f.xml")
    return str(caught.value)


def test_a_filter_as_it_is_written() -> None:
    """A filter keeps name, uuid, chain, priority, rules and references in document order, each with its line."""
    found = parse_filter(
        b"""<filter name='web' chain='ipv4-web' priority='-690'>
  <uuid>5C6D49AF B0716127-b4ec6f8ed4b55335</uuid>
  <rule action='accept' direction='in' priority='100' statematch='FALSE'>
    <ip protocol='tcp' dstportstart='$PORT[@2]'/>
    <ip match='no' srcipaddr='$NET[1]'/>
  </rule>
  <filterref filter='clean-traffic'>
    <parameter name='IP' value='192.0.2.1'/>
    <parameter name='IP' value='192.0.2.2'/>
  </filterref>
</filter>""",
        "web.xml",
    )
    assert (found.name, found.chain, found.priority) == ("web", "ipv4-web", -690)
    assert found.uuid == "5c6d49af-b071-6127-b4ec-6f8ed4b55335"
    assert found.source == Source("web.xml", 1)
    rule, reference = found.entries
    assert rule == FilterRule(
        action=Action.ACCEPT,
        direction=Direction.IN,
        priority=100,
        statematch=False,
        element="ip",
        settings={
            "protocol": Setting(6, False, Source("web.xml", 4)),
            "dstportstart": Setting(Variable("PORT", iterator=2), False, Source("web.xml", 4)),
            "srcipaddr": Setting(Variable("NET", index=1), True, Source("web.xml", 5)),
        },
        source=Source("web.xml", 3),
    )
    assert reference == FilterRef("clean-traffic", {"IP": ("192.0.2.1", "192.0.2.2")}, Source("web.xml", 7))


def test_what_is_left_out_has_its_default() -> None:
    """A rule has priority 500 and connection state; a filter is in the root chain."""
    found = parse_filter(filter_xml(rule_xml()).replace(" chain='root'", "").encode(), "f.xml")
    (rule,) = found.entries
    assert (found.chain, found.priority, found.uuid) == ("root", 0, None)
    assert isinstance(rule, FilterRule)
    assert (rule.priority, rule.statematch, rule.element, rule.settings) == (500, True, None, {})


@pytest.mark.parametrize("attribute", ["chain", "priority"])
def test_an_empty_attribute_of_the_filter_is_an_absent_one(attribute: str) -> None:
    """chain='' and priority='' are as if they weren't there."""
    found = parse_filter(f"<filter name='f' {attribute}=''/>".encode(), "f.xml")
    assert (found.chain, found.priority) == ("root", 0)


def test_the_structure_is_complete() -> None:
    """Every attribute of <filter>, <rule>, <filterref> and <parameter> in the table is tested here."""
    assert set(STRUCTURE) == {(row.protocol, row.attribute) for row in structure_rows()}


@pytest.mark.parametrize("case", STRUCTURE, ids="-".join)
def test_structural_attributes(case: tuple[str, str]) -> None:
    """Structural attributes take what the table says, and nothing else."""
    accepted, rejected, template = STRUCTURE[case]
    for value in accepted:
        parse_filter(template.format(value).encode(), "f.xml")
    for value in rejected:
        assert complaint(template.format(value)).startswith("f.xml:1: ")


@pytest.mark.parametrize(
    ("text", "variable"),
    [
        ("$X", Variable("X")),
        ("$_9a", Variable("_9a")),
        ("$X[@0]", Variable("X")),
        ("$X[@1000]", Variable("X", iterator=1000)),
        ("$X[0]", Variable("X", index=0)),
        ("$X[ @ 3 ]", Variable("X", iterator=3)),
        ("$X[ 12 ] ", Variable("X", index=12)),
    ],
)
def test_variables(text: str, variable: Variable) -> None:
    """A variable is $NAME, $NAME[@ITERATOR] or $NAME[INDEX], blanks allowed inside the brackets."""
    assert rule_of(f"<ip srcipaddr='{text}'/>").settings["srcipaddr"].value == variable


@pytest.mark.parametrize(
    "text", ["$", "$A-B", "$A/24", "$A[", "$A[]", "$A[@x]", "$A[@1001]", "$A[-1]", "$A ", "$$A", "${A}"]
)
def test_malformed_variables(text: str) -> None:
    """Anything else that begins with $ is an error that names the attribute."""
    assert "srcipaddr on <ip>: " in complaint(filter_xml(rule_xml(f"<ip srcipaddr='{text}'/>")))


def test_several_nodes_of_one_name_are_one_rule() -> None:
    """Nodes of one name are merged; an attribute given twice has the later value and sign."""
    settings = rule_of("<arp opcode='1' hwtype='1'/><arp match='no' opcode='2'/>").settings
    assert {name: (setting.value, setting.negated) for name, setting in settings.items()} == {
        "opcode": (2, True),
        "hwtype": (1, False),
    }


def test_an_empty_state_is_no_state() -> None:
    """state='' is as if it weren't there."""
    assert rule_of("<tcp state=''/>").settings == {}


@pytest.mark.parametrize(
    ("protocol", "message"),
    [
        ("<ip srcportstart='22'/>", "srcportstart on <ip> needs protocol='tcp'"),
        ("<ip protocol='$P' dstportend='22'/>", "dstportend on <ip> needs protocol"),
        ("<ipv6 protocol='icmpv6' dstportstart='22'/>", "dstportstart on <ipv6> needs protocol"),
        ("<ip match='no' protocol='tcp'/><ip srcportstart='22'/>", "srcportstart on <ip> needs protocol"),
        ("<ipv6 protocol='tcp' type='1'/>", "type on <ipv6> goes with protocol='icmpv6' only"),
        ("<ipv6 match='no' protocol='$P' type='1'/>", "type on <ipv6> goes with protocol='icmpv6' only"),
    ],
)
def test_ports_need_their_protocol(protocol: str, message: str) -> None:
    """Ports on <ip> and <ipv6> stand beside a protocol that has them, an ICMPv6 type beside no other."""
    assert message in complaint(filter_xml(rule_xml(protocol)))


@pytest.mark.parametrize("protocol", ["6", "17", "33", "132", "TCP", "0x11"])
def test_ports_with_their_protocol(protocol: str) -> None:
    """The protocols with ports are tcp, udp, dccp and sctp; the node that names it may come later."""
    rule_of(f"<ip dstportstart='22'/><ip protocol='{protocol}'/>")


def test_a_type_beside_a_protocol_that_is_bound_later() -> None:
    """An ICMPv6 type may stand beside a variable, whose value is nobody's to know yet."""
    assert rule_of("<ipv6 protocol='$P' type='135'/>").settings["protocol"].value == Variable("P")


@pytest.mark.parametrize("attribute", ["state", "flags", "ipsetflags"])
def test_no_variable_where_libvirt_gets_it_wrong(attribute: str) -> None:
    """A variable that libvirt would ignore, or not exchange in the other direction, is an error."""
    message = f"{attribute}='$A' on <tcp>: a variable has no effect here; write the value"
    assert message in complaint(filter_xml(rule_xml(f"<tcp {attribute}='$A'/>")))


def test_a_comment_may_begin_with_a_dollar() -> None:
    """A rule's comment is text: no variable."""
    assert rule_of("<tcp comment='$5 a month'/>").settings["comment"].value == "$5 a month"


@pytest.mark.parametrize(
    ("inside", "where"),
    [
        ("rule action='drop' direction='in'/>", "filter"),
        ("<rule action='accept' direction='in'>tcp dstportstart='22'/></rule>", "rule"),
        ("<rule action='accept' direction='in'><tcp dstportstart='22'/>tcp dstportstart='23'/></rule>", "rule"),
        ("<rule action='accept' direction='in'><tcp>dstportstart='22'</tcp></rule>", "tcp"),
        ("<filterref filter='x'>parameter name='A' value='1'/></filterref>", "filterref"),
        ("<filterref filter='x'><parameter name='A' value='1'>2</parameter></filterref>", "parameter"),
        ("<uuid/>x", "filter"),
    ],
)
def test_text_is_refused_in_every_element(inside: str, where: str) -> None:
    """Text in an element, which may be one that lost its "<", is an error: without it a rule would mean another."""
    found = complaint(f"<filter name='f'>\n{inside}</filter>")
    assert found.startswith("f.xml:2: text ")
    assert f" in <{where}>: no text goes in there; is a '<' missing before it?" in found


@pytest.mark.parametrize(
    ("inside", "message"),
    [
        ("<rule action='drop' direction='in'><tcp><udp/></tcp></rule>", "<udp> in <tcp>: no element goes in there"),
        (
            "<filterref filter='x'><parameter name='A' value='1'><parameter/></parameter></filterref>",
            "<parameter> in <parameter>: no element goes in there",
        ),
        (f"<uuid>{UUID}<rule/></uuid>", "<rule> in <uuid>: no element goes in there"),
        (f"<uuid filter='x'>{UUID}</uuid>", "unknown attribute 'filter' on <uuid>"),
        (f"<uuid/><uuid>{UUID}</uuid>", "a second <uuid>; a filter has one"),
        (f"<uuid>{UUID}</uuid><uuid>{UUID}</uuid>", "a second <uuid>; a filter has one"),
    ],
)
def test_nothing_is_passed_over(inside: str, message: str) -> None:
    """A child or an attribute where none goes is an error, and so is a second uuid."""
    assert complaint(f"<filter name='f'>\n{inside}</filter>") == f"f.xml:2: {message}"


def test_a_uuid_may_have_a_comment_in_it() -> None:
    """A comment in the middle of a uuid means nothing there either."""
    found = parse_filter(f"<filter name='f'><uuid>{UUID[:9]}<!-- x -->{UUID[9:]}</uuid></filter>".encode(), "f.xml")
    assert found.uuid == UUID


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("<filters name='f'/>", 1, "the root element is <filters>, not <filter>"),
        ("<filter/>", 1, "a filter needs a name"),
        ("<filter name='f' chian='arp'/>", 1, "unknown attribute 'chian' on <filter>; did you mean 'chain'?"),
        ("<filter name='f'>\n<rul/></filter>", 2, "unknown element <rul> in <filter>; did you mean 'rule'?"),
        ("<filter name='f'>\n<rule direction='in'/></filter>", 2, "<rule> needs action='…', one of accept drop"),
        ("<filter name='f'>\n<rule action='drop'/></filter>", 2, "<rule> needs direction='…', one of in out inout"),
        ("<filter name='f'>\n<rule action='dorp' direction='in'/></filter>", 2, "did you mean 'drop'?"),
        ("<filter name='f'>\n<filterref/></filter>", 2, "<filterref> needs filter='NAME'"),
        ("<filter name='f'><filterref filter='x'>\n<param/></filterref></filter>", 2, "unknown element <param>"),
        ("<filter name='f'>\n<filterref filter='x' chain='y'/></filter>", 2, "unknown attribute 'chain'"),
        (
            "<filter name='f'><filterref filter='x'>\n<parameter name='A' value='1' typ='x'/></filterref></filter>",
            2,
            "unknown attribute 'typ' on <parameter>",
        ),
        (
            "<filter name='f'><rule action='drop' direction='in'>\n\n<ip srpipaddr='1.1.1.1'/></rule></filter>",
            3,
            "unknown attribute 'srpipaddr' on <ip>; did you mean 'srcipaddr'?",
        ),
        ("<filter name='f'><rule action='drop' direction='in'>\n<tpc/></rule></filter>", 2, "did you mean 'tcp'?"),
        (
            "<filter name='f'><rule action='drop' direction='in'><ip/>\n<arp/></rule></filter>",
            2,
            "<arp> beside <ip> in one rule",
        ),
    ],
)
def test_an_error_names_line_and_remedy(text: str, line: int, message: str) -> None:
    """Whatever is wrong, the message has file and line, what was found, and what was probably meant."""
    found = complaint(text)
    assert found.startswith(f"f.xml:{line}: ")
    assert message in found


def test_a_list_in_one_parameter_has_its_remedy() -> None:
    """A comma in a parameter's value gets the advice to repeat the parameter."""
    reference = "<filterref filter='x'><parameter name='IP' value='1.1.1.1,2.2.2.2'/></filterref>"
    assert complaint(filter_xml(reference)).endswith("for a list repeat the parameter")


@pytest.mark.parametrize("value", ["1001", "x" * 100_000, "9" * 100_000])
def test_a_message_stays_readable(value: str) -> None:
    """A huge value doesn't make a huge message."""
    assert len(complaint(filter_xml(rule_xml(f"<ip dscp='{value}'/>")))) < 1000


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b" \n ", "empty"),
        (b"<filter name='f'>", "not well-formed"),
        (b"filter", "not well-formed"),
        (b"\x00\x01\x02", "not well-formed"),
        (b"<?xml version='1.0' encoding='nosuch'?><filter name='f'/>", "not"),
        (b"<!DOCTYPE filter><filter name='f'/>", "document type"),
        (b"<!DOCTYPE f [<!ENTITY x 'y'>]><filter name='&x;'/>", "document type"),
        ("<?xml version='1.0' encoding='utf-16'?><!DOCTYPE f><filter name='f'/>".encode("utf-16"), "document type"),
        (b"<filter name='&x;'/>", "not well-formed"),
        (b"<filter name='f'/>" + b" " * MAX_BYTES, "larger than 8 MiB"),
        (b"<a>" * 100_000, "elements are more than 256 deep"),
        (b"<a>" + b"<b/>" * 200_000 + b"</a>", "more than 200000 elements"),
    ],
    ids=lambda value: repr(value[:24]),
)
def test_what_is_no_xml_of_ours(data: bytes, message: str) -> None:
    """Not XML, a document type, entities, too much, too deep: an error of one line; none of it is acted on."""
    with pytest.raises(XmlSyntaxError, match=message) as caught:
        parse_filter(data, "f.xml")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "name",
    [
        *('a"; add table x', "a'b", "x\ny", "$(id)", "a{b}", "a#b", "<", "a\\", "`reboot`", "../../etc/passwd", ".."),
        *("/x", "@evil", "x y", "*", "\u2028x", "n\u00e4me", "-x", ".x", "x" * 101),
    ],
)
def test_a_name_cannot_hold_nft(name: str) -> None:
    """A filter's name, which stands in nft comments, holds nothing that means something there."""
    escaped = re.sub(r"[\"'<&\n]", lambda match: f"&#{ord(match[0])};", name)
    with pytest.raises(NwfilterHookError, match="filter name") as caught:
        parse_filter(f"<filter name='{escaped}'/>".encode(), "f.xml")
    assert "\n" not in str(caught.value)


def test_comments_and_instructions_mean_nothing() -> None:
    """XML comments and processing instructions may stand anywhere."""
    text = "<!-- a --><?b c?><filter name='f'><!-- d --><rule action='drop' direction='in'><?e?><ip/></rule></filter>"
    (rule,) = parse_filter(text.encode(), "f.xml").entries
    assert isinstance(rule, FilterRule)
    assert rule.element == "ip"
