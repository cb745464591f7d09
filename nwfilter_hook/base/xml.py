"""
XML from outside, read without trust: no document type, no entities, no network, a bound on its size.

In:  bytes and the name to use for them in messages.
Out: the root element; every element knows its line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from lxml import etree

from .errors import FilterSyntaxError, Source, XmlSyntaxError

MAX_BYTES = 8 * 1024 * 1024
"""libvirt's own limit for XML over its wire is 4 MiB; a guest with 100 devices has 100 KiB."""

Element = etree._Element

_OPTIONS: dict[str, Any] = {
    "resolve_entities": False,
    "no_network": True,
    "load_dtd": False,
    "dtd_validation": False,
    "huge_tree": False,
    "remove_comments": True,
    "remove_pis": True,
}
_BEFORE_DOCTYPE = re.compile(rb"[^<]+|<\?.*?\?>|<!--.*?-->", re.DOTALL)
_READABLE = 40
_CONSEQUENCES = (etree.ErrorTypes.ERR_TAG_NAME_MISMATCH, etree.ErrorTypes.ERR_TAG_NOT_FINISHED)


class _DocumentType(Exception):
    """There is one."""


class _RootElement(Exception):
    """It begins here, so there is no document type."""


class _Prolog:
    """A parser's target that lets it go no further than to a document type or to the root element."""

    def doctype(self, *_: object) -> None:
        raise _DocumentType

    def start(self, *_: object) -> None:
        raise _RootElement

    def close(self) -> None:
        """Every target has one."""


def parse_xml(data: bytes, path: str, *, comments: bool = False) -> Element:
    """
    The root element of `data`.

    Args:
        comments: whether they are kept, as children.

    Raises:
        XmlSyntaxError: empty, too large, not well-formed (its `more` names further lines), or with a document type
            (which entities need).
    """
    if len(data) > MAX_BYTES:
        raise XmlSyntaxError(f"larger than {MAX_BYTES >> 20} MiB", Source(path, 1))
    if not data.strip():
        raise XmlSyntaxError("empty: no XML here", Source(path, 1))
    parser = etree.XMLParser(**{**_OPTIONS, "remove_comments": not comments})
    try:
        _read_prolog(data)
        return etree.fromstring(data, parser)
    except _DocumentType:
        line = _doctype_line(data)
        raise XmlSyntaxError("a document type is not accepted; remove <!DOCTYPE …>", Source(path, line)) from None
    except etree.XMLSyntaxError as error:
        first = XmlSyntaxError(f"not well-formed XML: {error.msg}", Source(path, error.lineno or 1))
        first.more = tuple(_further_faults(parser, path, first.source.line))
        raise first from error
    except (ValueError, LookupError) as error:  # bytes that are no text in the declared encoding
        raise XmlSyntaxError(f"not readable XML: {error}", Source(path, 1)) from error


def _further_faults(parser: etree.XMLParser, path: str, first: int) -> Iterator[XmlSyntaxError]:
    """One for each later line, but for what only follows from a tag that is missing or misspelt."""
    told = {first}
    for entry in parser.error_log:
        if entry.line not in told and entry.type not in _CONSEQUENCES:
            told.add(entry.line)
            message = f"not well-formed XML: {entry.message}, line {entry.line}, column {entry.column}"
            yield XmlSyntaxError(message, Source(path, entry.line))


def _read_prolog(data: bytes) -> None:
    """
    Raise _DocumentType, if there is one in whatever encoding, before the parser takes in what it declares: that alone
    can last for hours. A parser that is fed ends with its target's exception; fromstring() would go on to the end.
    """
    target: Any = _Prolog()
    parser = etree.XMLParser(target=target, **_OPTIONS)
    try:
        parser.feed(data)
        parser.close()
    except _RootElement:
        return
    raise ValueError("no element in it")  # UTF-32 ends here, which etree.fromstring() could read


def _doctype_line(data: bytes) -> int:
    """The line of the document type; 1 in an encoding that isn't made of ASCII's bytes."""
    position = 0
    while match := _BEFORE_DOCTYPE.match(data, position):
        position = match.end()
    return data.count(b"\n", 0, position) + 1


def source_of(element: Element, path: str) -> Source:
    """Where `element` begins in `path`."""
    line: Any = element.sourceline
    return Source(path, int(line or 1))


def is_comment(node: Element) -> bool:
    """Whether it is a comment and no element."""
    tag: Any = node.tag
    return tag is etree.Comment


def comments_in(element: Element) -> tuple[str, ...]:
    """The text of every comment in it, however deep."""
    return tuple(str(node.text) for node in element.iter(etree.Comment))


def comments_around(root: Element) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The text of every comment before and behind the root element."""
    before = [str(node.text) for node in root.itersiblings(preceding=True) if is_comment(node)]
    return tuple(reversed(before)), tuple(str(node.text) for node in root.itersiblings() if is_comment(node))


def text_of(element: Element) -> str:
    """The text in it, whatever comments interrupt it."""
    return (element.text or "") + "".join(child.tail or "" for child in element)


def local_name(element: Element) -> str:
    """The name without its namespace."""
    return str(element.tag).rpartition("}")[2]


def children(element: Element, path: str) -> list[Element]:
    """
    The child elements of an element that may hold elements and white space only.

    Raises:
        FilterSyntaxError: there is text.
    """
    for fault in text_faults(element, path):
        raise fault
    return list(element)


def text_faults(element: Element, path: str) -> Iterator[FilterSyntaxError]:
    """A fault for each text between the children of `element`, such as is left of a child whose "<" is missing."""
    for child, text in ((None, element.text), *((child, child.tail) for child in element)):
        stripped = text and text.strip()
        if text and stripped:
            line = source_of(element, path).line if child is None else _end_line(child)
            line += text.count("\n", 0, text.index(stripped[0]))
            shown = " ".join(stripped.split())
            shown = shown if len(shown) <= _READABLE else shown[:_READABLE] + "…"
            message = f"text {shown!r} in <{local_name(element)}>: no text goes in there; is a '<' missing before it?"
            yield FilterSyntaxError(message, Source(path, line))


def _end_line(element: Element) -> int:
    """Where `element` ends; a comment's line is its last."""
    if is_comment(element):
        line: Any = element.sourceline
        return int(line or 1)
    if len(element):
        return _end_line(element[-1]) + (element[-1].tail or "").count("\n")
    line = element.sourceline
    return int(line or 1) + (element.text or "").count("\n")
