"""
XML from outside, read without trust: no document type, no entities, no network, bounds on size and depth.

In:  bytes and the name to use for them in messages.
Out: the root element; every element knows its line. Names in a namespace are "{URI}NAME".

Python's expat reads UTF-8, UTF-16 and encodings of one byte per character.
"""

from __future__ import annotations

from collections.abc import Iterator
from xml.parsers import expat

from .errors import FilterSyntaxError, Source, XmlSyntaxError

MAX_BYTES = 8 * 1024 * 1024
"""libvirt's own limit for XML over its wire is 4 MiB; a guest with 100 devices has 100 KiB."""
MAX_DEPTH = 256
MAX_ELEMENTS = 200_000
"""A guest with 100 devices has 2,000."""

_READABLE = 40


class Comment:
    """
    A comment, where comments are asked for; it stands among the children of an element.

    Attributes:
        tail, tail_line: as an Element's.
    """

    def __init__(self, text: str) -> None:
        self.text, self.tail, self.tail_line = text, "", 0


class Element:
    """
    One element.

    Attributes:
        line: where it begins, from 1.
        text: what stands before the first child, at `text_line`.
        tail: what stands behind it in its parent, at `tail_line`.
        before, behind: comments around the root.
    """

    def __init__(self, tag: str, attributes: dict[str, str], line: int) -> None:
        self.tag, self.attributes, self.line = tag, attributes, line
        self.nodes: list[Node] = []
        self.text, self.tail = "", ""
        self.text_line = self.tail_line = 0
        self.before: list[str] = []
        self.behind: list[str] = []

    def __iter__(self) -> Iterator[Element]:
        """The child elements."""
        return (node for node in self.nodes if isinstance(node, Element))

    def get(self, name: str, default: str = "") -> str:
        """An attribute's value."""
        return self.attributes.get(name, default)

    def items(self) -> list[tuple[str, str]]:
        """The attributes in their order."""
        return list(self.attributes.items())

    def all(self, tag: str) -> list[Element]:
        """The child elements of that name."""
        return [child for child in self if child.tag == tag]

    def first(self, *path: str) -> Element | None:
        """The first child of the first name, of that the first of the second …; None if one isn't there."""
        found: Element | None = self
        for tag in path:
            found = next((child for child in found if child.tag == tag), None) if found is not None else None
        return found

    def text_at(self, *path: str) -> str:
        """The text in the element that `first` finds, without white space around it; "" if there is none."""
        found = self.first(*path)
        return "" if found is None else found.text.strip()


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Union

    Node = Union[Element, Comment]


class _DocumentType(Exception):
    """There is one."""


class _TooMuch(Exception):
    """Of what, and how much may be."""


class _Builder:
    """Makes the tree while expat reads."""

    def __init__(self, *, comments: bool) -> None:
        self.root: Element | None = None
        self._open: list[Element] = []
        self._count = 0
        self._last: Node | None = None
        """What ended last in the innermost open element: the next text is its tail."""
        self._parts: list[str] = []
        """Of that text, what has been read."""
        self._line = 0
        self._before: list[str] = []
        self.parser = parser = expat.ParserCreate(namespace_separator="}")
        parser.ordered_attributes = True
        parser.buffer_text = True
        parser.buffer_size = 1 << 16
        parser.StartDoctypeDeclHandler = self._doctype
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text
        if comments:
            parser.CommentHandler = self._comment

    def _doctype(self, *_: object) -> None:
        raise _DocumentType

    def _start(self, name: str, attributes: list[str]) -> None:
        self._put_text()
        pairs = zip(attributes[::2], attributes[1::2])
        element = Element(_name(name), {_name(key): value for key, value in pairs}, self.parser.CurrentLineNumber)
        if self._open:
            self._open[-1].nodes.append(element)
        else:
            self.root = element
            element.before = self._before
        self._open.append(element)
        self._last = None
        self._count += 1
        if self._count > MAX_ELEMENTS:
            raise _TooMuch(f"more than {MAX_ELEMENTS} elements")
        if len(self._open) > MAX_DEPTH:
            raise _TooMuch(f"elements are more than {MAX_DEPTH} deep")

    def _end(self, _: str) -> None:
        self._put_text()
        self._last = self._open.pop()

    def _text(self, data: str) -> None:
        if not self._parts:
            # expat has gone on to what follows
            self._line = self.parser.CurrentLineNumber - data.count("\n")
        self._parts.append(data)

    def _put_text(self) -> None:
        if not self._parts:
            return
        text = "".join(self._parts)
        self._parts.clear()
        if self._last is None:
            self._open[-1].text, self._open[-1].text_line = text, self._line
        else:
            self._last.tail, self._last.tail_line = text, self._line

    def _comment(self, data: str) -> None:
        self._put_text()
        if self._open:
            comment = Comment(data)
            self._open[-1].nodes.append(comment)
            self._last = comment
        elif self.root is None:
            self._before.append(data)
        else:
            self.root.behind.append(data)


def _name(name: str) -> str:
    return "{" + name if "}" in name else name


def parse_xml(data: bytes, path: str, *, comments: bool = False) -> Element:
    """
    The root element of `data`.

    Args:
        comments: whether they are kept, as nodes beside the child elements.

    Raises:
        XmlSyntaxError: empty, too large, too deep, not well-formed (its `more` names further lines), or with a document
            type (which entities need).
    """
    if len(data) > MAX_BYTES:
        raise XmlSyntaxError(f"larger than {MAX_BYTES >> 20} MiB", Source(path, 1))
    if not data.strip():
        raise XmlSyntaxError("empty: no XML here", Source(path, 1))
    builder = _Builder(comments=comments)
    here = builder.parser
    try:
        here.Parse(data, True)
    except _DocumentType:
        source = Source(path, here.CurrentLineNumber)
        raise XmlSyntaxError("a document type is not accepted; remove <!DOCTYPE …>", source) from None
    except _TooMuch as error:
        raise XmlSyntaxError(str(error), Source(path, here.CurrentLineNumber)) from None
    except expat.ExpatError as error:
        from .xml_faults import worded

        raise worded(error, data, path, in_root=builder.root is not None) from error
    except (ValueError, LookupError) as error:  # an encoding that expat and Python don't have
        raise XmlSyntaxError(f"not readable XML: {error}", Source(path, 1)) from error
    assert builder.root is not None
    return builder.root


def source_of(element: Element, path: str) -> Source:
    """Where `element` begins in `path`."""
    return Source(path, element.line)


def comments_in(node: Node) -> Iterator[str]:
    """The text of every comment in it, however deep."""
    if isinstance(node, Comment):
        yield node.text
    else:
        for inner in node.nodes:
            yield from comments_in(inner)


def text_of(element: Element) -> str:
    """The text in it, whatever comments interrupt it."""
    return element.text + "".join(node.tail for node in element.nodes)


def local_name(element: Element) -> str:
    """The name without its namespace."""
    return element.tag.rpartition("}")[2]


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
    tails = ((node.tail, node.tail_line) for node in element.nodes)
    for text, line in ((element.text, element.text_line), *tails):
        stripped = text.strip()
        if stripped:
            shown = " ".join(stripped.split())
            shown = shown if len(shown) <= _READABLE else shown[:_READABLE] + "…"
            message = f"text {shown!r} in <{local_name(element)}>: no text goes in there; is a '<' missing before it?"
            yield FilterSyntaxError(message, Source(path, line + text.count("\n", 0, text.index(stripped[0]))))
