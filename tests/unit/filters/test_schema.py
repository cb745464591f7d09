"""The schema for editors says the same as the parser, over everything that can be said in one element."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
from lxml import etree

from nwfilter_hook.base.errors import InputError
from nwfilter_hook.filters.parse import parse_filter
from nwfilter_hook.filters.schema import schema
from nwfilter_hook.filters.types import TYPES
from tests.support.language import STRUCTURE, Row, accepted, rejected, rows

ROOT = Path(__file__).parents[3]
CORPUS = sorted(
    path
    for folder in ("filters", "tests/data", "tests/golden", "../shared/corpus/libvirt-filters")
    for path in (ROOT / folder).rglob("*.xml")
    if b"<filter " in path.read_bytes()
)
"""libvirt's own, too, where they lie beside the repository."""
ROWS = [row for row in rows() if row.attribute != "match"]
BEYOND = re.compile(
    "needs protocol=|goes with protocol=|are of different protocols"  # attributes of a rule together
)
"""What the parser refuses and a schema can't."""


@pytest.fixture(scope="module")
def relax_ng() -> etree.RelaxNG:
    return etree.RelaxNG(etree.fromstring(schema().encode()))


def fault(text: bytes) -> str:
    """What the parser has against a filter; "" if nothing."""
    try:
        parse_filter(text, "f.xml")
    except InputError as error:
        return str(error)
    return ""


def takes(relax_ng: etree.RelaxNG, text: bytes) -> bool:
    try:
        return bool(relax_ng.validate(etree.fromstring(text)))
    except etree.XMLSyntaxError:
        return False


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: str(path.relative_to(ROOT.parent)))
def test_the_corpus(relax_ng: etree.RelaxNG, path: Path) -> None:
    """Every filter there is: stock filters, the 2010 document's, those of tests, right or wrong, libvirt's own."""
    found = fault(path.read_bytes())
    assert takes(relax_ng, path.read_bytes()) == (not found or bool(BEYOND.search(found))), found


def test_the_corpus_is_there() -> None:
    """Wrong ones among it."""
    wrong = [path for path in CORPUS if fault(path.read_bytes())]
    assert len(CORPUS) > 70
    assert len(wrong) >= 4


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_every_attribute(relax_ng: etree.RelaxNG, row: Row) -> None:
    """Each value of the language's table, accepted or not; variables; both signs."""
    variables = ("$A", "$A[@1]", "$A[7]", "$A[@1001]", "$A ", "$", "${A}", "$A[ @ 2 ] ")
    for value, negated in itertools.product((*accepted(row), *rejected(row), *variables), (False, True)):
        protocol = row.xml(value, negated=negated)
        text = f"<filter name='f'><rule action='drop' direction='out'>{protocol}</rule></filter>".encode()
        found = fault(text)
        assert takes(relax_ng, text) == (not found or bool(BEYOND.search(found))), (value, negated, found)


@pytest.mark.parametrize("place", STRUCTURE, ids=" ".join)
def test_the_structure(relax_ng: etree.RelaxNG, place: tuple[str, str]) -> None:
    """Attributes of <filter>, <rule>, <filterref>, <parameter>."""
    good, bad, text = STRUCTURE[place]
    assert [value for value in good if not takes(relax_ng, text.format(value).encode())] == []
    assert [value for value in bad if takes(relax_ng, text.format(value).encode())] == []


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("<filter name='f'/>", True),
        (
            "<filter name='f'><filterref filter='a'/><!-- why --><uuid/><rule action='drop' direction='in'/></filter>",
            True,
        ),
        ("<filter name='f'><rule action='drop' direction='in'><ip/><ip match='no' dscp='1'/></rule></filter>", True),
        ("<filter name='f'><rule action='drop' direction='in'><ip/><tcp/></rule></filter>", False),
        ("<filter name='f'><rule action='drop' direction='in'><ip><tcp/></ip></rule></filter>", False),
        ("<filter name='f'><rule action='drop' direction='in'>accept</rule></filter>", False),
        ("<filter name='f'><rule action='drop' direction='in' comment='x'/></filter>", False),
        ("<filter name='f'><uuid/><uuid/></filter>", False),
        ("<filter name='f'><rules/></filter>", False),
        ("<filter><rule action='drop' direction='in'/></filter>", False),
        ("<filterbinding/>", False),
    ],
)
def test_elements(relax_ng: etree.RelaxNG, text: str, right: bool) -> None:
    """What stands in what."""
    assert takes(relax_ng, text.encode()) is right
    assert bool(fault(text.encode())) != right


@pytest.mark.parametrize("name", TYPES)
def test_every_type_says_what_it_takes(name: str) -> None:
    """An editor shows it, in the parser's words; a comment may be anything."""
    tree = etree.fromstring(schema().encode())
    found = tree.xpath(f"string(//*[@name='{name}']/a:documentation)", namespaces={"a": tree.nsmap["a"]})
    assert bool(found) is (name != "STRING")


@pytest.mark.parametrize(
    "kind", ["ETHERTYPE", "ENCAPTYPE", "DSCP", "VLANID", "UINT8", "IP_MASK", "IPV6_MASK", "MAC_MASK"]
)
def test_bounds(kind: str) -> None:
    """Numbers around each bound, decimal and hexadecimal, and all masks nearly right."""
    pattern = etree.RelaxNG(etree.fromstring(schema().replace('<ref name="filter"/>', _only(kind)).encode()))
    numbers = {edge + by for edge in (0, 9, 16, 60, 63, 100, 255, 600, 1536, 4094, 65535, 1 << 32) for by in (-1, 0, 1)}
    texts = {form.format(each) for each in numbers if each >= 0 for form in ("{}", "{:x}", "{:#X}", " +0{}", "0{:x}")}
    octets = ("0", "00", "80", "c0", "Ff", "f", "fe")
    texts |= {":".join(each) for each in itertools.product(octets, repeat=3)}
    texts |= {f"{a}:{b}:00:0:0:0" for a, b in itertools.product(octets, repeat=2)}
    groups = ("ffff", "ff80", "0", "00", "fff1", "8000")
    texts |= {f"{a}:{b}::" for a, b in itertools.product(groups, repeat=2)} | {
        "::",
        "::0",
        "::1",
        "ffff::0:0",
        "0::ffff",
    }
    texts |= {":".join(["FFFF"] * full + ["0"] * (8 - full)) for full in range(9)} | {"ffff:0:0:0:0:0:0"}

    def reads(text: str) -> bool:
        try:
            TYPES[kind].parse(text)
        except ValueError:
            return False
        return True

    def matches(text: str) -> bool:
        return bool(pattern.validate(etree.Element("x", v=text)))

    assert {text for text in texts if reads(text) != matches(text)} == set()


def _only(kind: str) -> str:
    return f"<element name='x'><attribute name='v'><ref name='{kind}'/></attribute></element>"
