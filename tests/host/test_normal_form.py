"""The normal form: what libvirt's dumpxml prints, nothing lost, nothing changed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lxml import etree

from nwfilter_hook.base.addresses import parse_mac
from nwfilter_hook.base.errors import InputError, Source
from nwfilter_hook.compiler.compile import compile_tap
from nwfilter_hook.filters.format import as_kept
from nwfilter_hook.filters.model import Filter, FilterRef, FilterRule, Setting
from nwfilter_hook.filters.parse import parse_filter
from nwfilter_hook.filters.protocols import ELEMENTS, Attribute, Element
from nwfilter_hook.filters.resolve import resolve
from nwfilter_hook.filters.types import TYPES
from nwfilter_hook.ruleset.model import Attachment
from nwfilter_hook.storage.library import Library
from tests.support.host import STOCK, normal_form
from tests.unit.compiling import lines_of

DATA = Path(__file__).resolve().parents[1] / "data"
FILES = sorted([*STOCK.glob("*.xml"), *DATA.glob("filters-2010/*.xml"), *DATA.glob("demo-filters/*.xml")])
MAC = "52:54:00:00:00:01"
ITEMS = {"A": ("1",), "IP": ("192.0.2.1", "192.0.2.2")}


def form(inner: str, attributes: str = "") -> str:
    """The normal form of a filter with that inside."""
    return normal_form(f"<filter name='x' {attributes}>{inner}</filter>".encode(), "x.xml")


def rule(inner: str) -> str:
    """The normal form of a rule's inside, on one line."""
    text = form(f"<rule action='drop' direction='in'>{inner}</rule>")
    return " ".join(line.strip() for line in text.splitlines()[2:-2])


# --- the reference, a.6 -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_attributes", "printed"),
    [
        ("", "chain='root'"),
        ("chain=''", "chain='root'"),
        ("priority=''", "chain='root'"),
        ("chain='arp'", "chain='arp' priority='-500'"),
        ("chain='mac-x'", "chain='mac-x' priority='-800'"),
        ("chain='ipv4' priority='-700'", "chain='ipv4' priority='-700'"),
        ("chain='ipv4' priority='+5'", "chain='ipv4' priority='5'"),
        ("chain='ipv4' priority='0'", "chain='ipv4' priority='0'"),
        ("chain='root' priority='0'", "chain='root'"),
        ("chain='root' priority='7'", "chain='root' priority='7'"),
    ],
)
def test_chain_and_priority(given_attributes: str, printed: str) -> None:
    """The chain always; its priority where it isn't 0, or where leaving away a 0 would mean another number."""
    assert form("", given_attributes) == f"<filter name='x' {printed}>\n</filter>\n"


@pytest.mark.parametrize(
    ("attributes", "printed"),
    [
        ("", "priority='500'"),
        ("priority='-1000'", "priority='-1000'"),
        ("statematch='1'", "priority='500'"),
        ("statematch='TRUE'", "priority='500'"),
        ("statematch='0' priority='7'", "priority='7' statematch='false'"),
        ("statematch='False'", "priority='500' statematch='false'"),
    ],
)
def test_a_rules_attributes(attributes: str, printed: str) -> None:
    """The priority always, statematch only if it is off."""
    text = form(f"<rule action='accept' direction='inout' {attributes}/>")
    assert text.splitlines()[1] == f"  <rule action='accept' direction='inout' {printed}/>"


@pytest.mark.parametrize(
    ("given_node", "printed"),
    [
        ("<ip srcipaddr='10.0.0.0' srcipmask='255.0.0.0'/>", "<ip srcipaddr='10.0.0.0' srcipmask='8'/>"),
        ("<ip srcipmask='32' srcipaddr='10.0.0.1'/>", "<ip srcipaddr='10.0.0.1' srcipmask='32'/>"),
        (
            "<ipv6 srcipaddr='2001:DB8:0::' srcipmask='ffff:ffff::'/>",
            "<ipv6 srcipaddr='2001:db8::' srcipmask='32'/>",
        ),
        (
            "<mac srcmacaddr='1:2:A:B:c:D' srcmacmask='ff:FF:ff:0:0:0'/>",
            "<mac srcmacaddr='01:02:0a:0b:0c:0d' srcmacmask='ff:ff:ff:00:00:00'/>",
        ),
        ("<mac protocolid='0x806'/>", "<mac protocolid='arp'/>"),
        ("<mac protocolid='2054'/>", "<mac protocolid='arp'/>"),
        ("<mac protocolid='IPv4'/>", "<mac protocolid='ipv4'/>"),
        ("<mac protocolid='0x88CC'/>", "<mac protocolid='0x88cc'/>"),
        ("<mac protocolid='35020'/>", "<mac protocolid='35020'/>"),
        ("<ip protocol='17'/>", "<ip protocol='udp'/>"),
        ("<ip protocol='0x11'/>", "<ip protocol='udp'/>"),
        ("<ip protocol='253'/>", "<ip protocol='253'/>"),
        ("<arp opcode='1'/>", "<arp opcode='Request'/>"),
        ("<arp opcode='arp_nak'/>", "<arp opcode='ARP_NAK'/>"),
        ("<arp opcode='request_reverse'/>", "<arp opcode='Request_Reverse'/>"),
        ("<arp opcode='0x1234'/>", "<arp opcode='0x1234'/>"),
        ("<arp gratuitous='yes'/>", "<arp gratuitous='true'/>"),
        ("<tcp dstportstart='0x16'/>", "<tcp dstportstart='0x16'/>"),
        ("<tcp dstportstart='0X1F'/>", "<tcp dstportstart='0x1f'/>"),
        ("<tcp dstportstart='1f'/>", "<tcp dstportstart='0x1f'/>"),
        ("<tcp dstportstart='+022'/>", "<tcp dstportstart='22'/>"),
        ("<tcp dstportstart='$PORT[ @ 1 ]'/>", "<tcp dstportstart='$PORT[@1]'/>"),
        ("<tcp dstportstart='$PORT[2]'/>", "<tcp dstportstart='$PORT[2]'/>"),
        ("<tcp srcipaddr='$IP[@0]'/>", "<tcp srcipaddr='$IP'/>"),
        ("<tcp flags='ack,syn/SYN'/>", "<tcp flags='SYN,ACK/SYN'/>"),
        ("<tcp flags='ALL/NONE'/>", "<tcp flags='ALL/NONE'/>"),
        ("<tcp flags='PSH/'/>", "<tcp flags='PSH/NONE'/>"),
        ("<tcp state='established,new'/>", "<tcp state='NEW,ESTABLISHED'/>"),
        ("<tcp state=''/>", "<tcp/>"),
        ("<tcp connlimit-above='07'/>", "<tcp connlimit-above='7'/>"),
        ("<tcp ipset='web-set' ipsetflags='SRC,dst'/>", "<tcp ipset='web-set' ipsetflags='src,dst'/>"),
        ("<all comment='a &quot;b&quot; &apos;c&apos; &lt;'/>", "<all comment='a \"b\" &apos;c&apos; &lt;'/>"),
        ("<all comment='two&#10;lines'/>", "<all comment='two&#10;lines'/>"),
        ("<stp port_hi='9' port='3'/>", "<stp port='3' port-hi='9'/>"),
        ("<ip match='yes'/>", "<ip/>"),
        ("<ip match='no'/>", "<ip/>"),
        ("<ip match='no' srcipaddr='10.0.0.1'/>", "<ip match='no' srcipaddr='10.0.0.1'/>"),
        (
            "<ip match='no' srcipaddr='10.0.0.1'/><ip protocol='udp'/><ip match='no' dstipaddr='10.0.0.2'/>",
            "<ip protocol='udp'/> <ip match='no' srcipaddr='10.0.0.1' dstipaddr='10.0.0.2'/>",
        ),
        ("<ip protocol='udp'/><ip protocol='0xfd'/>", "<ip protocol='0xfd'/>"),
    ],
)
def test_a_rules_nodes(given_node: str, printed: str) -> None:
    """Masks as lengths, MACs in two digits, names where there are any, hex stays hex, two nodes for mixed signs."""
    assert rule(given_node) == printed
    assert rule(printed.replace("/> <", "/><")) == printed


def test_references() -> None:
    """A parameter a line; lists stay lists."""
    values = "".join(f"<parameter value='{value}' name='{name}'/>" for name, value in ("B1", "A2", "B3"))
    inner = f"<filterref filter='a'>{values}</filterref>"
    assert form(inner + "<filterref filter='b'/>").splitlines()[1:-1] == [
        "  <filterref filter='a'>",
        "    <parameter name='B' value='1'/>",
        "    <parameter name='B' value='3'/>",
        "    <parameter name='A' value='2'/>",
        "  </filterref>",
        "  <filterref filter='b'/>",
    ]


def test_comments_stay() -> None:
    """Wherever they stand: before and behind the filter, in it, in rules, nodes, references, in the UUID."""
    xml = (
        "<!--c0--><?pi?><!-- c1\n  of two lines -->\n<filter name='x'><!--c2--><uuid><!--c3--></uuid>"
        "<rule action='drop' direction='in'><!--c4--><tcp><!--c5--></tcp><!--c6--></rule>"
        "<filterref filter='a'><!--c7--><parameter name='A' value='1'><!--c8--></parameter></filterref>"
        "<!-- &amp; <c9> -->"
        "</filter><!--c10-->"
    )
    text = normal_form(xml.encode(), "x.xml")
    comments = re.findall(r"<!--(.*?)-->", text, re.DOTALL)
    assert comments == re.findall(r"<!--(.*?)-->", xml, re.DOTALL)
    assert normal_form(text.encode(), "x.xml") == text


def test_a_uuid_is_written_where_it_is_missing() -> None:
    """`define` hands in the one to keep; one that is there stays."""
    one, two = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
    data = b"<filter name='x'/>"
    assert f"  <uuid>{one}</uuid>\n" in normal_form(data, "x.xml", one)
    assert normal_form(normal_form(data, "x.xml", one).encode(), "x.xml", two) == normal_form(data, "x.xml", one)


# --- nothing changes --------------------------------------------------------------------------------------------------


def without_places(value: Any) -> Any:
    """A model without lines and paths."""
    if isinstance(value, Source):
        return None
    if isinstance(value, Mapping):
        return {key: without_places(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_places(each) for each in value]
    if isinstance(value, (Filter, FilterRule, FilterRef)) or type(value).__name__ == "Setting":
        return {slot: without_places(getattr(value, slot)) for slot in type(value).__annotations__}
    return value


def places(found: Filter, given_filter: Filter | None = None) -> Iterator[int | None]:
    """The line of every part of a filter; of one that is kept where it will be, read where `given_filter` says."""
    mine: list[Filter | FilterRule | FilterRef | Setting] = [found, *found.entries]
    rules = [each for each in found.entries if isinstance(each, FilterRule)]
    mine += [each.settings[name] for each in rules for name in sorted(each.settings)]
    if given_filter is not None:
        read = list(places(given_filter))
        assert [each.source.line for each in mine] == read
    yield from (each.source.line if given_filter is None else each.source.kept for each in mine)


def assert_same_meaning(data: bytes, text: str) -> None:
    """The normal form is the same filter, and its own normal form."""
    assert normal_form(text.encode(), "x.xml") == text
    assert without_places(parse_filter(text.encode(), "x.xml")) == without_places(parse_filter(data, "x.xml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_filters_that_are_in_use(path: Path) -> None:
    """The stock filters and those of the documents: same filter, same rules, apart from their lines."""
    data = path.read_bytes()
    text = normal_form(data, str(path))
    assert_same_meaning(data, text)
    library = (str(path.parent), str(STOCK))
    here = Library(library).read(path.stem, Source("here", 1))
    there = parse_filter(text.encode(), str(path))
    compiled = [rules_of(Library(library, defined={path.stem: each})) for each in (here, there)]
    assert compiled[0] == compiled[1]
    assert compiled[0] or path.stem.startswith(("allow-incoming", "no-"))


def rules_of(library: Library) -> list[str] | str:
    """The rules of every defined filter without the lines in their comments; or why there are none."""
    found: list[str] = []
    for name in library._filters.copy():
        reference = FilterRef(name, ITEMS, Source("here", 1))
        try:
            bound = resolve(reference, MAC, library.read)
            ruleset = compile_tap("vnet0", Attachment.BRIDGE_PORT, parse_mac(MAC), bound, ingress=False)
        except InputError as error:
            return type(error).__name__
        found += lines_of(ruleset)
    return [re.sub(r":\d+\"$", '"', line) for line in found]


NUMBERS = {"UINT8": 0xFF, "UINT16": 0xFFFF, "UINT32": 0xFFFFFFFF, "DSCP": 63, "VLANID": 4094, "OPCODE": 0xFFFF}
NUMBERS.update(
    {"PROTOCOL": 0xFF, "ETHERTYPE": 0xFFFF, "ENCAPTYPE": 0xFFFF, "PROTOCOLTYPE": 0xFFFF, "CONNLIMIT": 0xFFFF}
)
LOWEST = {"ETHERTYPE": 0x600, "ENCAPTYPE": 0x3C}
WORDS = {
    "BOOLEAN": ("true", "1", "yes", "false", "0", "no"),
    "TAGGED": ("yes", "any", "no"),
    "STATES": ("NEW", "new,established", "RELATED INVALID", "NONE", ""),
    "TCPFLAGS": ("SYN/SYN", "all/none", "FIN,SYN,RST,PSH,ACK,URG/ACK", "NONE/NONE"),
    "IPSETNAME": ("a", "web set", "x.y:z+1-2"),
    "IPSETFLAGS": ("src", "dst,src", "SRC,SRC,dst"),
    "PROTOCOL": ("tcp", "UDP", "icmpv6", "sctp"),
    "ETHERTYPE": ("arp", "IPv6", "vlan"),
    "OPCODE": ("Request", "reply_reverse", "ARP_NAK", "InARP_Request", "DRARP_Error"),
}
VARIABLES = ("$A", "$A[@1]", "$A[@ 2]", "$A[0]", "$IP", "$MAC")


def prefix(bits: int, length: int) -> int:
    """`length` ones at the front of `bits`."""
    return (1 << bits) - (1 << bits - length)


def macs(value: int, upper: bool) -> str:
    """A MAC, its groups as short as they may be."""
    text = ":".join(f"{value >> shift & 255:x}" for shift in range(40, -1, -8))
    return text.upper() if upper else text


def texts(attribute: Attribute) -> st.SearchStrategy[str]:
    """What may stand in an attribute."""
    kind = attribute.type.name
    options: list[st.SearchStrategy[str]] = []
    if kind in NUMBERS:
        numbers = st.integers(LOWEST.get(kind, 0), NUMBERS[kind])
        spellings = ["{:d}", "0{:d}", "+{:d}"] + (["{:#x}", "0X{:X}"] if kind != "CONNLIMIT" else [])
        options.append(
            st.builds(lambda spelling, value: str(spelling.format(value)), st.sampled_from(spellings), numbers)
        )
    if kind in WORDS:
        options.append(st.sampled_from(WORDS[kind]))
    if kind == "MAC_ADDR":
        options.append(st.builds(macs, st.integers(0, (1 << 48) - 1), st.booleans()))
    if kind == "MAC_MASK":
        options.append(st.builds(macs, st.builds(prefix, st.just(48), st.integers(0, 48)), st.booleans()))
    if kind in ("IP_ADDR", "IPV6_ADDR"):
        options.append(st.ip_addresses(v=4 if kind == "IP_ADDR" else 6).map(str))
        options.append(st.sampled_from(["::ffff:1.2.3.4", "FE80::1"] if kind == "IPV6_ADDR" else ["0.0.0.0"]))
    if kind in ("IP_MASK", "IPV6_MASK"):
        options.append(st.integers(0, 32 if kind == "IP_MASK" else 128).map(str))
        options.append(st.sampled_from(["255.255.128.0", "0.0.0.0"] if kind == "IP_MASK" else ["ffff::", "::"]))
    if kind == "STRING":
        characters = st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="\ufffe\uffff")
        options.append(st.text(st.one_of(characters, st.sampled_from("\n\t\r'\"<>&$")), max_size=300))
    if TYPES[kind].takes_variables:
        options.append(st.sampled_from(VARIABLES))
    return st.one_of(options)


@st.composite
def nodes(draw: st.DrawFn, element: Element) -> etree._Element:
    """One protocol node."""
    node = etree.Element(element.name)
    if draw(st.booleans()):
        node.set("match", draw(st.sampled_from(["yes", "no"])))
    names = draw(st.lists(st.sampled_from(sorted(element.attributes)), max_size=6, unique=True))
    for name in names:
        node.set(name, draw(texts(element.attributes[name])))
    return node


@st.composite
def filters(draw: st.DrawFn) -> bytes:
    """A filter with a few rules and references of every kind."""
    root = etree.Element("filter", name="x")
    if draw(st.booleans()):
        root.set("chain", draw(st.sampled_from(["root", "arp", "mac-x", "stp", "ipv4", "vlan.1", "rarp", "ipv6"])))
    if draw(st.booleans()):
        root.set("priority", str(draw(st.one_of(st.integers(-1000, 1000), st.just(0)))))
    for _ in range(draw(st.integers(0, 4))):
        kind = draw(st.sampled_from(["rule", "rule", "filterref", "comment"]))
        if kind == "comment":
            root.append(etree.Comment(draw(st.sampled_from(["x", " a\n b ", "&amp;", "<x/>", "ä€"]))))
            continue
        child = etree.SubElement(root, kind)
        if kind == "filterref":
            child.set("filter", draw(st.sampled_from(["a", "b.c", "9@x+y:z"])))
            for _ in range(draw(st.integers(0, 3))):
                name, value = draw(st.sampled_from("AB")), draw(st.sampled_from(["1", "a:b", "1.2.3.4"]))
                etree.SubElement(child, "parameter", name=name, value=value)
            continue
        child.set("action", draw(st.sampled_from(["drop", "accept", "reject", "return", "continue"])))
        child.set("direction", draw(st.sampled_from(["in", "out", "inout"])))
        if draw(st.booleans()):
            child.set("priority", str(draw(st.integers(-1000, 1000))))
        if draw(st.booleans()):
            child.set("statematch", draw(st.sampled_from(["0", "1", "false", "TRUE"])))
        element = ELEMENTS[draw(st.sampled_from(sorted(ELEMENTS)))]
        for _ in range(draw(st.integers(0, 3))):
            child.append(draw(nodes(element)))
    # a line for each: rules that are equal in everything, the line too, are compiled once
    return etree.tostring(root, pretty_print=True)


@settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(filters())
def test_any_filter(data: bytes) -> None:
    """The normal form is the same filter, compiles to the same rules, and is its own normal form."""
    try:
        given_filter = parse_filter(data, "x.xml")
    except InputError:
        return
    text, kept = as_kept(given_filter)
    assert text == normal_form(data, "x.xml")
    assert_same_meaning(data, text)
    stored = parse_filter(text.encode(), "x.xml")
    assert list(places(kept, given_filter)) == list(places(stored))
    empty = {name: Filter(name, None, "root", 0, (), Source("x", 1)) for name in ("a", "b.c", "9@x+y:z")}
    assert rules_of(Library((), defined={**empty, "x": given_filter})) == rules_of(
        Library((), defined={**empty, "x": stored})
    )
