"""
What is wrong with XML that is not well-formed, in words: libxml2 knows more than expat does, and goes on to the end.

Loaded when something is wrong, never before; without lxml there is expat's own line.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from xml.parsers import expat

from .errors import Source, XmlSyntaxError


def worded(error: expat.ExpatError, data: bytes, path: str, *, in_root: bool) -> XmlSyntaxError:
    """
    expat's complaint about `data` as ours; `more` has one for each further line.

    Args:
        in_root: the root element has begun. Before it there may be a document type, in an encoding that libxml2 reads
            and expat doesn't; what it declares can take libxml2 hours.
    """
    own = f"not well-formed XML: {expat.ErrorString(error.code)}, line {error.lineno}, column {error.offset + 1}"
    if in_root:
        found = [XmlSyntaxError(f"not well-formed XML: {said}", Source(path, line)) for line, said in _faults(data)]
        if found:
            found[0].more = tuple(found[1:])
            return found[0]
    return XmlSyntaxError(own, Source(path, error.lineno))


def _faults(data: bytes) -> Iterator[tuple[int, str]]:
    """(line, what) for each line but for what only follows from a tag that is missing or misspelt."""
    try:
        from lxml import etree
    except ImportError:
        return
    consequences = (etree.ErrorTypes.ERR_TAG_NAME_MISMATCH, etree.ErrorTypes.ERR_TAG_NOT_FINISHED)
    options: dict[str, Any] = {"resolve_entities": False, "no_network": True, "load_dtd": False, "huge_tree": False}
    parser = etree.XMLParser(**options)
    try:
        etree.fromstring(data, parser)
    except etree.XMLSyntaxError as error:
        first = error.lineno or 1
        yield first, error.msg or "it can't be read"
        told = {first}
        for entry in parser.error_log:
            if entry.line not in told and entry.type not in consequences:
                told.add(entry.line)
                yield entry.line, f"{entry.message}, line {entry.line}, column {entry.column}"
    except (ValueError, LookupError):
        return
