"""XML as such: what a document type can't do, and text where no text goes."""

from __future__ import annotations

import time

import pytest

from nwfilter_hook.base.errors import FilterSyntaxError, XmlSyntaxError
from nwfilter_hook.base.xml import children, parse_xml


def bomb(kind: str) -> str:
    """A document type whose entities make 10 to the power of 30 of one."""
    sign, use = ("% ", "&#37;") if kind == "parameter" else ("", "&")
    entities = "".join(f"<!ENTITY {sign}a{n + 1} '{f'{use}a{n};' * 10}'>" for n in range(30))
    return f"<!DOCTYPE f [<!ENTITY {sign}a0 '<!--x-->'>{entities}{'%a30;' if kind == 'parameter' else ''}]>"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32", "utf-32-le", "utf-7", "cp037"])
@pytest.mark.parametrize("kind", ["parameter", "general"])
def test_entities_cost_nothing(kind: str, encoding: str) -> None:
    """Entities of entities are refused before the parser has looked into them, in every encoding."""
    use = "&a30;" if kind == "general" else ""
    text = f"<?xml version='1.0' encoding='{encoding}'?>{bomb(kind)}<f a='{use}'>{use}</f>"
    began = time.monotonic()
    with pytest.raises(XmlSyntaxError, match=r"^f.xml:1: (a document type|not)"):
        parse_xml(text.encode(encoding), "f.xml")
    assert time.monotonic() - began < 1


def test_a_long_document_behind_a_document_type_isnt_read() -> None:
    """What uses an entity two million times makes no two million errors."""
    data = b"<!DOCTYPE f [<!ENTITY a 'b'>]><f>" + b"&a;" * 2_000_000 + b"</f>"
    began = time.monotonic()
    with pytest.raises(XmlSyntaxError, match="document type"):
        parse_xml(data, "f.xml")
    assert time.monotonic() - began < 1


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"<!DOCTYPE f><f/>", 1),
        (b"<?xml version='1.0'?>\n\n<!DOCTYPE f>\n<f/>", 3),
        (b"\xef\xbb\xbf<!-- <!DOCTYPE f>\n -->\n<?x\n?><!DOCTYPE f [\n<!-- -->]>\n<f/>", 4),
        ("<?xml version='1.0' encoding='utf-16'?>\n<!DOCTYPE f><f/>".encode("utf-16"), 2),
    ],
)
def test_a_document_type_is_refused_by_its_line(data: bytes, line: int) -> None:
    """A document type, which can stand before the root element only, is refused."""
    with pytest.raises(XmlSyntaxError, match=rf"^f.xml:{line}: a document type is not accepted; remove <!DOCTYPE …>$"):
        parse_xml(data, "f.xml")


@pytest.mark.parametrize(
    "text",
    [
        "<!-- <!DOCTYPE x> --><f/>",
        "<?x <!DOCTYPE x> ?><f/>",
        "<f><!-- <!DOCTYPE x> --></f>",
        "<f><![CDATA[<!DOCTYPE x>]]></f>",
        "<f/><!-- <!DOCTYPE x> -->",
    ],
)
def test_a_document_type_may_be_mentioned(text: str) -> None:
    """In a comment, an instruction or CDATA it means nothing."""
    assert parse_xml(text.encode(), "f.xml").tag == "f"
    assert parse_xml(f"<?xml version='1.0' encoding='utf-16'?>{text}".encode("utf-16"), "f.xml").tag == "f"


@pytest.mark.parametrize("space", ["", " \t\r\n", "&#32;&#10;", "<![CDATA[ \n]]>", "<!-- text --> <?text?>"])
def test_white_space_is_no_text(space: str) -> None:
    """Between elements white space may stand in every form, and comments and instructions."""
    root = parse_xml(f"<f>{space}<a/>{space}<b/>{space}</f>".encode(), "f.xml")
    assert [child.tag for child in children(root, "f.xml")] == ["a", "b"]


@pytest.mark.parametrize(
    ("inside", "line", "shown"),
    [
        ("x", 1, "'x'"),
        ("\n\n x\n", 3, "'x'"),
        ("\n<a/>\n\nx", 4, "'x'"),
        ("<a>\n<b>\n\n</b>\n<c/>text\n</a>\n x", 7, "'x'"),
        ("<!-- a -->x", 1, "'x'"),
        ("<a/><?b c?>x", 1, "'x'"),
        ("<a/> <!-- b --> x", 1, "'x'"),
        ("<![CDATA[<a/>]]>", 1, "'<a/>'"),
        ("&lt;a/>", 1, "'<a/>'"),
        ("a='1'/>", 1, "\"a='1'/>\""),
        ("a\n  b&#13;c", 1, "'a b c'"),
        ("&#x202e;a", 1, "'\\u202ea'"),
        ("x" * 40, 1, f"'{'x' * 40}'"),
        ("x" * 1_000_000, 1, f"'{'x' * 40}…'"),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_text_between_elements_is_refused(inside: str, line: int, shown: str) -> None:
    """Text is refused by its line, wherever it stands among the children, and shown in short, on one line."""
    root = parse_xml(f"<n:f xmlns:n='x'>{inside}</n:f>".encode(), "f.xml")
    with pytest.raises(FilterSyntaxError) as caught:
        children(root, "f.xml")
    message = f"f.xml:{line}: text {shown} in <f>: no text goes in there; is a '<' missing before it?"
    assert str(caught.value) == message
