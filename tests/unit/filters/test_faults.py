"""Everything that is wrong with a filter is told at once, each fault once, by line."""

from __future__ import annotations

import pytest

from nwfilter_hook.base.errors import InputError
from nwfilter_hook.base.faults import MAX_FAULTS
from nwfilter_hook.filters.parse import parse_filter
from nwfilter_hook.operations.validate import validate
from tests.unit.compiling import filter_xml, rule_xml


def faults(text: str) -> list[str]:
    """What is wrong with a filter, each line without the file's name."""
    with pytest.raises(InputError) as caught:
        validate(text.encode(), "f.xml")
    assert all(line.startswith("f.xml:") and line.isprintable() for line in caught.value.lines())
    return [line[len("f.xml:") :] for line in caught.value.lines()]


EVERYWHERE = """<filter name='bad name' chain='apr' priority='2000' colour='red'>
  <uuid>xyz</uuid>
  <rule action='dorp' direction='sideways' priority='x' statematch='perhaps' state='NEW'>
    <ip srpipaddr='1.2.3.4' dscp='99' srcipaddr='1.2.3' match='not'/>
    <ip srcipmask='33'><x/></ip>
  </rule>
  <rule action='accept' direction='in'>
    <tpc dstportstart='22'/>
    <arp opcode='Requst' gratuitous='maybe'/>
    tcp dstportstart='23'/>
    <tcp dstportstart='70000'/>
  </rule>
  <filterref filter='no such name'>
    <parameter name='A' value='1,2'/>
    <parameter name='A-B' value='3'>x</parameter>
    <param/>
  </filterref>
  <rul/>
  <uuid>uvw</uuid>
</filter>"""


def test_every_fault_is_told_by_line() -> None:
    """Of every element and attribute, whatever is wrong beside it; in the order of the lines."""
    found = faults(EVERYWHERE)
    assert [int(line.partition(":")[0]) for line in found] == [
        *(1, 1, 1, 1, 2, 3, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5),
        *(8, 9, 9, 10, 11, 11, 13, 14, 15, 15, 16, 18, 19, 19),
    ]
    words = ["'colour'", "'xyz'", "'dorp'", "'sideways'", "'perhaps'", "'99'", "<x>", "<tpc>", "'Requst'", "'uvw'"]
    for word in (*words, "text \"tcp dstportstart='23'/>\"", "<tcp> beside <arp>", "'70000'", "<param>", "<rul>"):
        assert sum(word in line for line in found) == 1, word


def test_a_hook_keeps_to_the_first() -> None:
    """`str()`, which a hook shows, is one line: the first fault's."""
    with pytest.raises(InputError) as caught:
        parse_filter(EVERYWHERE.encode(), "f.xml")
    assert str(caught.value) == "f.xml:1: " + faults(EVERYWHERE)[0].partition(": ")[2]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("<filter nmae='f'/>", ["1: unknown attribute 'nmae' on <filter>; did you mean 'name'?"]),
        (
            filter_xml("<rule actoin='drop' direction='in'/>"),
            ["2: unknown attribute 'actoin' on <rule>; did you mean 'action'?"],
        ),
        (
            filter_xml(rule_xml("<ip protocl='tcp' dstportstart='22'/>")),
            ["2: unknown attribute 'protocl' on <ip>; did you mean 'protocol'?"],
        ),
        (
            filter_xml(rule_xml("<ip protocol='tpc' dstportstart='22'/>")),
            [
                "2: protocol='tpc' on <ip> is not a number from 0 to 255 or one of tcp udp udplite esp ah icmp igmp "
                "sctp icmpv6; did you mean 'tcp'?"
            ],
        ),
        (filter_xml(rule_xml("<tpc dstport='22'/>")), ["2: unknown protocol <tpc>; did you mean 'tcp'?"]),
        (
            filter_xml("<filterref fliter='x'/>"),
            ["2: unknown attribute 'fliter' on <filterref>; did you mean 'filter'?"],
        ),
    ],
)
def test_one_mistake_is_told_once(text: str, lines: list[str]) -> None:
    """What is missing only because something is misspelt isn't told as well."""
    assert faults(text) == lines


def test_rules_that_no_tap_can_have() -> None:
    """What is only found out when a rule is compiled is told with the rest, as far as no variable decides."""
    text = filter_xml(
        rule_xml("<tcp dstportstart='90' dstportend='80'/>"),
        rule_xml("<tcp dstportstart='$A' dstportend='80'/>"),
        rule_xml("<ipv6 type='9' typeend='8'/>"),
        rule_xml("<stp srcmacaddr='2:0:0:0:0:1'/>", direction="inout"),
        rule_xml("<all-ipv6 ipset='x' ipsetflags='src,src,src,src,src'/>"),
        "<rule/>",
    )
    assert faults(text) == [
        "2: dstportstart=90 is above dstportend=80; exchange them",
        "4: type=9 is above typeend=8; exchange them",
        "5: <stp srcmacaddr=…> can't be 'inout': a BPDU's destination is fixed; write a rule each for 'in' and 'out'",
        "6: ipsetflags: 5 addresses are more than the 4 that a key of a set can hold",
        "7: <rule> needs action='…', one of accept drop reject return continue",
        "7: <rule> needs direction='…', one of in out inout",
    ]


def test_a_right_filter_has_none() -> None:
    """The twin: what is right is read, the same as by a hook."""
    text = filter_xml(rule_xml("<tcp dstportstart='80' dstportend='90'/>"), "<filterref filter='x'/>").encode()
    assert validate(text, "f.xml") == parse_filter(text, "f.xml")


def test_lines_that_are_no_xml() -> None:
    """Of what isn't well-formed each line is told; not what only follows from it."""
    found = faults("<filter name='f'>\n<rule a='1' a='2'/>\n<rule/>&x;\n<rule b=1/>\n<tcp></filter>")
    assert [line[:18] for line in found] == [f"{line}: not well-formed" for line in (2, 3, 4)]
    assert len(faults("<filter name='f'>\n<rule>\n<tcp>\n</rule>\n</filter>")) == 1


@pytest.mark.parametrize(
    "text",
    [
        filter_xml(*["<rul/>"] * (MAX_FAULTS + 500)),
        filter_xml("x<rule/>" * (MAX_FAULTS + 500)),
        filter_xml(rule_xml("<ip " + " ".join(f"a{n}=''" for n in range(MAX_FAULTS + 500)) + "/>")),
        f"<filter {' '.join(f'a{n}=' + repr('') for n in range(MAX_FAULTS + 500))}/>",
    ],
    ids=["elements", "texts", "attributes", "attributes of the filter"],
)
def test_it_ends_somewhere(text: str) -> None:
    """More than a thousand faults aren't looked for, and that is said."""
    found = faults(text)
    assert len(found) == MAX_FAULTS
    assert found[-1].endswith(": 1000 faults or more; no more are shown")
