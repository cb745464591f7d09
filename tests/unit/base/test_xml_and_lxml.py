"""
Our reader against lxml: the same tree, or both refuse; but for two things about namespaces. lxml overlooks a prefix
that nobody declares if the document declares others; and it refuses a namespace that isn't a URI.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Union

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from lxml import etree

from nwfilter_hook.base.errors import XmlSyntaxError
from nwfilter_hook.base.xml import Comment, Element, parse_xml

DATA = Path(__file__).parents[2] / "data"
DOCUMENTS = sorted([*DATA.rglob("*.xml"), *(Path(__file__).parents[3] / "filters").glob("*.xml")])
Tree = tuple[str, dict[str, str], str, list[Union["Tree", str]], str]

PIECES = (
    *(
        "<filter name='f'>",
        "</filter>",
        "<rule action='drop' direction='in'>",
        "</rule>",
        "<mac/>",
        "<x y='&#65;&lt;'/>",
    ),
    *("<!-- c -->", "<!-->", "<!-- a -- b -->", "<?pi x?>", "<?xml version='1.0'?>", "<![CDATA[<a>]]>", "]]>"),
    *(
        "text",
        " ",
        "\n",
        "\r\n",
        "\r",
        "\t",
        "&amp;",
        "&x;",
        "&#0;",
        "&#x202e;",
        "ä€😀",
        "\x01",
        "\ufffe",
        "<",
        ">",
        "'",
    ),
    *("<n:a xmlns:n='u'>", "</n:a>", "<n:b/>", "<a n:c='1'/>", "<a xmlns='v'/>", "<a b='1' b='2'/>", "<a b=1/>"),
    *("<a b='\n\t'/>", "<a b='<'/>", "<1/>", "<a:b:c/>", "<xml:a/>", "<a xml:lang='x'/>"),
)


def theirs(data: bytes) -> Tree | None:
    """The tree as lxml has it, or None."""
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, remove_pis=True)
    try:
        found = _theirs(etree.fromstring(data, parser))
        return None if any(":" in name.rpartition("}")[2] for name in names(found)) else found
    except (etree.XMLSyntaxError, ValueError, LookupError):
        return None


def names(tree: Tree) -> Iterator[str]:
    """The names of all its elements and attributes."""
    tag, attributes, _, nodes, _ = tree
    yield from (tag, *attributes)
    for node in nodes:
        if not isinstance(node, str):
            yield from names(node)


def same(data: bytes) -> bool:
    """Whether both have the same tree of it, or none."""
    one, other = ours(data), theirs(data)
    no_uri = one is not None and any(re.search(r"[^!#-;=?-Z_a-z~]", name.rpartition("}")[0][1:]) for name in names(one))
    return one == other or (other is None and no_uri)


def _theirs(node: etree._Element) -> Tree:
    nodes: list[Tree | str] = []
    for child in node:
        comment = child.tag is etree.Comment  # type: ignore[comparison-overlap]
        nodes.append(f"{child.text}\0{child.tail or ''}" if comment else _theirs(child))
    attributes = {str(key): str(value) for key, value in node.items()}
    return str(node.tag), attributes, node.text or "", nodes, node.tail or ""


def ours(data: bytes) -> Tree | None:
    """The tree as we read it, or None."""
    try:
        return _ours(parse_xml(data, "f.xml", comments=True))
    except XmlSyntaxError:
        return None


def _ours(element: Element) -> Tree:
    nodes: list[Tree | str] = [
        f"{node.text}\0{node.tail}" if isinstance(node, Comment) else _ours(node) for node in element.nodes
    ]
    return element.tag, element.attributes, element.text, nodes, element.tail


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_the_same_tree_of_every_document(path: Path) -> None:
    """Filters, domains and bindings, ours and libvirt's."""
    data = path.read_bytes()
    assert same(data) or b"<!DOCTYPE" in data


@given(st.lists(st.sampled_from(PIECES), max_size=12), st.sampled_from(["utf-8", "utf-16", "iso-8859-15"]))
@example(["<filter name='f'>", "text", "<!-- c -->", "text", "<mac/>", "text", "</filter>", "<!-- c -->"], "utf-8")
def test_the_same_tree_of_pieces(pieces: list[str], encoding: str) -> None:
    """Whatever is put together: what the one takes the other takes for the same."""
    text = "".join(pieces)
    if encoding != "utf-8":
        text = f"<?xml version='1.0' encoding='{encoding}'?>{text}"
    data = text.encode(encoding, errors="xmlcharrefreplace")
    assert same(data)


@given(st.data())
def test_the_same_tree_of_a_broken_document(data: st.DataObject) -> None:
    """A document with some bytes changed, taken away or added."""
    text = bytearray(data.draw(st.sampled_from(DOCUMENTS[:40])).read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text)))
        text[at : at + data.draw(st.integers(0, 3))] = data.draw(st.sampled_from(PIECES)).encode()[:4]
    if b"<!DOCTYPE" not in text:
        assert same(bytes(text))
