"""
The nwfilter language as a RELAX NG schema, for editors that complete and mark while one writes.

In:  the table of the language.
Out: the schema, in RELAX NG's XML syntax (https://relaxng.org/spec-20011203.html).

It says what stands in one element. What depends on another one isn't in it (ports need a protocol, a range begins
below its end, variables have values): `validate` says that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from xml.sax.saxutils import escape, quoteattr

from ..base.names import MAX_FILTER_NAME
from .model import Action, Direction
from .protocols import CHAIN_PRIORITIES, ELEMENTS, Attribute, Element
from .schema_types import VARIABLE, Pattern, any_case, patterns_of
from .types import TYPES, Type

NAMESPACE = "http://relaxng.org/ns/structure/1.0"
_HEAD = f"""<?xml version="1.0" encoding="UTF-8"?>
<!-- Made by nwfilter-hook schema. -->
<grammar xmlns="{NAMESPACE}"
         xmlns:a="http://relaxng.org/ns/compatibility/annotations/1.0"
         datatypeLibrary="http://www.w3.org/2001/XMLSchema-datatypes">
<start><ref name="filter"/></start>
"""
_FILTER_NAME = Pattern(rf"[A-Za-z0-9_][A-Za-z0-9_.:+@\-]{{0,{MAX_FILTER_NAME - 1}}}")
_PRIORITY = Pattern(r"[ \t]*[+\-]?0{0,8}(1000|[0-9]{1,3})", also=r"[ \t]*[+\-]?[0-9]{1,9}")
_CHAIN = Pattern(r"[A-Za-z0-9_.:\-]{1,12}", also=f"({'|'.join(CHAIN_PRIORITIES)}).*")
_UUID = Pattern(r"([\-\s]*[0-9a-fA-F]){32}[\-\s]*|[\-\s]*")


def schema() -> str:
    """The schema."""
    return "\n".join((_HEAD.rstrip(), *_structure(), *map(_protocol, ELEMENTS.values()), *_types(), "</grammar>", ""))


def _structure() -> Iterator[str]:
    """<filter>, <filterref>, <rule>."""
    empty = Pattern("")
    yield _define(
        "filter",
        "<element name='filter'>",
        _attribute("name", _data(_FILTER_NAME), needed=True),
        _attribute("chain", _choice([_value("root"), *map(_value, CHAIN_PRIORITIES), _data(_CHAIN), _data(empty)])),
        _attribute("priority", _choice([_data(_PRIORITY), _data(empty)])),
        f"<interleave><optional><element name='uuid'>{_data(_UUID)}</element></optional>",
        "<zeroOrMore><choice><ref name='rule'/><ref name='filterref'/></choice></zeroOrMore></interleave>",
        "</element>",
    )
    yield _define(
        "filterref",
        "<element name='filterref'>",
        _attribute("filter", _data(_FILTER_NAME), needed=True),
        "<zeroOrMore><element name='parameter'>",
        _attribute("name", _data(Pattern("[A-Za-z0-9_]+")), needed=True),
        _attribute("value", _data(Pattern("[A-Za-z0-9_.:]+")), needed=True),
        "<empty/></element></zeroOrMore></element>",
    )
    statematch = [_value(word) for word in ("false", "true")]
    statematch += [_data(Pattern(any_case(word))) for word in ("0", "false", "1", "true")]
    yield _define(
        "rule",
        "<element name='rule'>",
        _attribute("action", _choice([_value(each.value) for each in Action]), needed=True),
        _attribute("direction", _choice([_value(each.value) for each in Direction]), needed=True),
        _attribute("priority", _data(_PRIORITY)),
        _attribute("statematch", _choice(statematch)),
        "<choice><empty/>",
        *(f"<oneOrMore><ref name='protocol-{name}'/></oneOrMore>" for name in ELEMENTS),
        "</choice></element>",
    )


def _protocol(element: Element) -> str:
    """One protocol element: what can't be negated doesn't stand beside match='no'."""
    names = [(name, attribute) for name, attribute in element.attributes.items()]
    names += [(alias, element.attributes[name]) for alias, name in element.aliases.items()]
    always = [_typed(name, attribute) for name, attribute in names if attribute.signed]
    positive = [_typed(name, attribute) for name, attribute in names if not attribute.signed]
    yes, no = _attribute("match", _value("yes")), _attribute("match", _value("no"), needed=True)
    sign = _choice([no, f"<group>{''.join((yes, *positive))}</group>"])
    parts = [f"<element name={quoteattr(element.name)}>", sign, *always, "<empty/></element>"]
    return _define(f"protocol-{element.name}", *parts)


def _typed(name: str, attribute: Attribute) -> str:
    return _attribute(name, f"<ref name='{attribute.type.name}'/>")


def _types() -> Iterator[str]:
    for type_ in TYPES.values():
        literals = patterns_of(type_)
        ways = [_value(word) for word in _words(type_)] + [_data(each) for each in literals]
        if literals and type_.takes_variables:
            ways.append(_data(Pattern(VARIABLE)))
        yield _define(type_.name, _documentation(type_), _choice(ways) if literals else "<text/>")


def _words(type_: Type) -> tuple[str, ...]:
    """Words that an editor proposes."""
    written = {"BOOLEAN": ("true", "false"), "TAGGED": ("yes", "any", "no")}
    return written.get(type_.name, tuple(type_.names.values()))


def _documentation(type_: Type) -> str:
    """What the parser asks for where a value is none of this type."""
    try:
        type_.parse("\n?")
    except ValueError as error:
        variable = ", or a variable" if type_.takes_variables else ""
        return f"<a:documentation>{escape(str(error))}{variable}</a:documentation>"
    return ""


# --- the syntax -------------------------------------------------------------------------------------------------------


def _define(name: str, *parts: str) -> str:
    return f"<define name='{name}'>\n  " + "\n  ".join(filter(None, parts)) + "\n</define>"


def _attribute(name: str, value: str, *, needed: bool = False) -> str:
    found = f"<attribute name={quoteattr(name)}>{value}</attribute>"
    return found if needed else f"<optional>{found}</optional>"


def _choice(ways: Iterable[str]) -> str:
    found = list(dict.fromkeys(ways))
    return found[0] if len(found) == 1 else f"<choice>{''.join(found)}</choice>"


def _value(word: str) -> str:
    return f"<value type='string'>{escape(word)}</value>"


def _data(pattern: Pattern) -> str:
    """A value that matches; each of several `pattern` parameters must (RELAX NG's guidelines for XML Schema, 2)."""
    wanted = "".join(f"<param name='pattern'>{escape(each)}</param>" for each in (pattern.text, pattern.also) if each)
    if not wanted:
        return "<value type='string'></value>"
    but = f"<except>{_data(Pattern(pattern.but))}</except>" if pattern.but else ""
    return f"<data type='string'>{wanted}{but}</data>"
