"""
XML from outside, read without trust: no document type, no entities, no network, a bound on its size.

In:  bytes and the name to use for them in messages.
Out: the root element; every element knows its line.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lxml import etree

from .errors import Source, XmlSyntaxError

MAX_BYTES = 8 * 1024 * 1024
"""libvirt's own limit for XML over its wire is 4 MiB; a guest with 100 devices has 100 KiB."""

Element = etree._Element


def parse_xml(data: bytes, path: str) -> Element:
    """
    The root element of `data`.

    Raises:
        XmlSyntaxError: empty, too large, not well-formed, or with a document type (which entities need).
    """
    if len(data) > MAX_BYTES:
        raise XmlSyntaxError(f"larger than {MAX_BYTES >> 20} MiB", Source(path, 1))
    if not data.strip():
        raise XmlSyntaxError("empty: no XML here", Source(path, 1))
    if b"<!DOCTYPE" in data:
        line = data[: data.index(b"<!DOCTYPE")].count(b"\n") + 1
        raise XmlSyntaxError("a document type is not accepted; remove <!DOCTYPE …>", Source(path, line))
    parser = etree.XMLParser(
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        dtd_validation=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        root = etree.fromstring(data, parser)
    except etree.XMLSyntaxError as error:
        line = error.lineno or 1
        raise XmlSyntaxError(f"not well-formed XML: {error.msg}", Source(path, line)) from error
    except (ValueError, LookupError) as error:  # bytes that are no text in the declared encoding
        raise XmlSyntaxError(f"not readable XML: {error}", Source(path, 1)) from error
    if getattr(root.getroottree().docinfo, "doctype", ""):  # in an encoding where the bytes above don't show
        raise XmlSyntaxError("a document type is not accepted", Source(path, 1))
    return root


def source_of(element: Element, path: str) -> Source:
    """Where `element` begins in `path`."""
    line: Any = element.sourceline
    return Source(path, int(line or 1))


def children(element: Element) -> Iterator[Element]:
    """The child elements (no entity references or other nodes)."""
    return (child for child in element if isinstance(child.tag, str))
