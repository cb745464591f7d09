"""
Parse one filter's XML into a `Filter`, strictly.

In:  bytes, and the path to name in messages.
Out: a `Filter`; its rules may still hold variables.

What libvirt ignores (an unknown attribute, a value out of range, a misspelt element) is an error here, because there
a typo widens a rule. Grammar: https://libvirt.org/formatnwfilter.html, "Writing your own filters".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

from ..base.errors import FilterSyntaxError, Source
from ..base.text import did_you_mean
from ..base.xml import Element as XmlElement
from ..base.xml import children, local_name, parse_xml, source_of
from .model import Action, Direction, Filter, FilterRef, FilterRule, Parameters, Setting, Value, Variable
from .protocols import CHAIN_PRIORITIES, ELEMENTS, ICMPV6_ONLY, PORT_PROTOCOLS, Attribute, Element, chain_prefix
from .types import NO_VARIABLES, TYPES

MAX_NAME = 100
DEFAULT_RULE_PRIORITY = 500
_FILTER_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:+@-]*")
_CHAIN = re.compile(r"[A-Za-z0-9_.:-]{1,12}")
_INTEGER = re.compile(r"[ \t]*[+-]?[0-9]{1,9}")
_PARAMETER_NAME = re.compile(r"[A-Za-z0-9_]+")
_PARAMETER_VALUE = re.compile(r"[A-Za-z0-9_.:]+")
_VARIABLE = re.compile(r"\$([A-Za-z0-9_]+)(?:\[[ \t]*(@?)[ \t]*([0-9]{1,6})[ \t]*\])?[ \t]*")
_PLAIN_VARIABLE = re.compile(r"\$[A-Za-z0-9_]+[ \t]+")
_MAX_ITERATOR = 1000

_E = TypeVar("_E", Action, Direction)


def parse_filter(data: bytes, path: str) -> Filter:
    """
    The filter in `data`.

    Raises:
        XmlSyntaxError: not well-formed, too large, or with a document type.
        FilterSyntaxError: anything that is not nwfilter, with its line and what was probably meant.
    """
    root = parse_xml(data, path)
    source = source_of(root, path)
    if root.tag != "filter":
        raise FilterSyntaxError(f"the root element is <{root.tag}>, not <filter>", source)
    _only(root, ("name", "chain", "priority"), source)
    name = check_filter_name(root.get("name") or "", source)
    chain = _chain(root.get("chain") or "root", source)
    default = CHAIN_PRIORITIES.get(chain_prefix(chain) or "", 0)
    priority = _priority(root.get("priority") or None, default, source)
    nodes = children(root, path)
    uuid = _uuid([child for child in nodes if child.tag == "uuid"], path)
    entries: list[FilterRule | FilterRef] = []
    for child in nodes:
        if child.tag == "rule":
            entries.append(_rule(child, path))
        elif child.tag == "filterref":
            entries.append(parse_filterref(child, path))
        elif child.tag != "uuid":
            known = ("rule", "filterref", "uuid")
            message = f"unknown element <{child.tag}> in <filter>{did_you_mean(str(child.tag), known)}"
            raise FilterSyntaxError(message, source_of(child, path))
    return Filter(name, uuid, chain, priority, tuple(entries), source)


def check_filter_name(name: str, source: Source) -> str:
    """
    `name`, if it can be a file's name and stand in an nft comment.

    Raises:
        FilterSyntaxError: it can't.
    """
    if not name:
        raise FilterSyntaxError("a filter needs a name", source)
    if len(name) > MAX_NAME or not _FILTER_NAME.fullmatch(name):
        raise FilterSyntaxError(
            f"filter name {name!r}: use up to {MAX_NAME} of A-Z a-z 0-9 _ . : + @ -, beginning with a letter or digit",
            source,
        )
    return name


def parse_filterref(element: XmlElement, path: str) -> FilterRef:
    """
    A <filterref> with its <parameter>s, from a filter or from a domain.

    Raises:
        FilterSyntaxError: an unknown attribute or child, text, a wrong name or value.
    """
    source = source_of(element, path)
    _only(element, ("filter",), source)
    name = element.get("filter")
    if not name:
        raise FilterSyntaxError("<filterref> needs filter='NAME'", source)
    check_filter_name(name, source)
    parameters: dict[str, list[str]] = {}
    for child in children(element, path):
        place = source_of(child, path)
        if local_name(child) != "parameter":
            raise FilterSyntaxError(
                f"unknown element <{local_name(child)}> in <filterref>; only <parameter> goes here", place
            )
        _only(child, ("name", "value"), place)
        _refuse(children(child, path), child, path)
        key, value = child.get("name") or "", child.get("value") or ""
        check_parameter(key, value, place)
        parameters.setdefault(key, []).append(value)
    return FilterRef(name, freeze(parameters), source)


def check_parameter(name: str, value: str, source: Source) -> None:
    """
    Refuse what libvirt would silently drop.

    Raises:
        FilterSyntaxError: a name or value with a character that isn't allowed.
    """
    if not _PARAMETER_NAME.fullmatch(name):
        raise FilterSyntaxError(f"parameter name {name!r}: use A-Z a-z 0-9 _", source)
    if not _PARAMETER_VALUE.fullmatch(value):
        hint = "; for a list repeat the parameter" if "," in value else ""
        raise FilterSyntaxError(f"parameter {name}: value {value!r} may only hold A-Z a-z 0-9 _ . :{hint}", source)


def freeze(parameters: Mapping[str, list[str]]) -> Parameters:
    """Lists to tuples."""
    return {name: tuple(values) for name, values in parameters.items()}


def _only(element: XmlElement, known: tuple[str, ...], source: Source) -> None:
    for name in element.keys():
        if name not in known:
            message = f"unknown attribute {name!r} on <{local_name(element)}>{did_you_mean(str(name), known)}"
            raise FilterSyntaxError(message, source)


def _refuse(found: Iterable[XmlElement], element: XmlElement, path: str) -> None:
    """Refuse the children of an element that has none."""
    for child in found:
        message = f"<{local_name(child)}> in <{local_name(element)}>: no element goes in there"
        raise FilterSyntaxError(message, source_of(child, path))


def _chain(name: str, source: Source) -> str:
    if name == "root" or (_CHAIN.fullmatch(name) and chain_prefix(name)):
        return name
    prefixes = " ".join(CHAIN_PRIORITIES)
    raise FilterSyntaxError(
        f"chain {name!r}: use root, or up to 12 of A-Z a-z 0-9 _ . : - beginning with one of {prefixes}", source
    )


def _priority(text: str | None, default: int, source: Source) -> int:
    if text is None:
        return default
    if not _INTEGER.fullmatch(text) or not -1000 <= int(text) <= 1000:
        raise FilterSyntaxError(f"priority {text!r} is not a number from -1000 to 1000", source)
    return int(text)


def _uuid(found: list[XmlElement], path: str) -> str | None:
    if not found:
        return None
    element, source = found[0], source_of(found[0], path)
    for another in found[1:]:
        raise FilterSyntaxError("a second <uuid>; a filter has one", source_of(another, path))
    _only(element, (), source)
    _refuse(element, element, path)
    text = element.text or ""
    digits = re.sub(r"[-\s]", "", text).lower()
    if not digits:
        return None
    if not re.fullmatch(r"[0-9a-f]{32}", digits):
        raise FilterSyntaxError(f"uuid {text.strip()!r} is not 32 hexadecimal digits", source)
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def _enum(element: XmlElement, name: str, kind: type[_E], source: Source) -> _E:
    text = element.get(name)
    words = [member.value for member in kind]
    if text is None:
        raise FilterSyntaxError(f"<rule> needs {name}='…', one of {' '.join(words)}", source)
    if text not in words:
        raise FilterSyntaxError(f"{name} {text!r} is not one of {' '.join(words)}{did_you_mean(text, words)}", source)
    return kind(text)


def _rule(element: XmlElement, path: str) -> FilterRule:
    source = source_of(element, path)
    _only(element, ("action", "direction", "priority", "statematch"), source)
    action = _enum(element, "action", Action, source)
    direction = _enum(element, "direction", Direction, source)
    statematch = element.get("statematch", "true").lower()
    if statematch not in ("0", "false", "1", "true"):
        raise FilterSyntaxError(f"statematch {statematch!r} is not false (or 0) or true (or 1)", source)
    protocol: Element | None = None
    settings: dict[str, Setting] = {}
    for child in children(element, path):
        place = source_of(child, path)
        found = ELEMENTS.get(str(child.tag))
        if found is None:
            message = f"unknown protocol <{child.tag}>{did_you_mean(str(child.tag), ELEMENTS)}"
            raise FilterSyntaxError(message, place)
        if protocol is not None and found is not protocol:
            message = f"<{found.name}> beside <{protocol.name}> in one rule: libvirt would ignore it; use two rules"
            raise FilterSyntaxError(message, place)
        protocol = found
        settings.update(_settings(child, found, place))
    if protocol is not None:
        _check_ports(protocol, settings, source)
    return FilterRule(
        action=action,
        direction=direction,
        priority=_priority(element.get("priority"), DEFAULT_RULE_PRIORITY, source),
        statematch=statematch in ("1", "true"),
        element=protocol.name if protocol else None,
        settings=settings,
        source=source,
    )


def _settings(node: XmlElement, element: Element, source: Source) -> dict[str, Setting]:
    sign = node.get("match", "yes")
    if sign not in ("yes", "no"):
        raise FilterSyntaxError(f"match={sign!r} is neither 'yes' nor 'no'", source)
    _refuse(children(node, source.path), node, source.path)
    settings = {}
    for key, text in node.items():
        name = element.aliases.get(str(key), str(key))
        if name == "match" or (name == "state" and not str(text).strip()):
            continue
        attribute = element.attributes.get(name)
        if attribute is None:
            known = [*element.attributes, *element.aliases, "match"]
            message = f"unknown attribute {name!r} on <{element.name}>{did_you_mean(name, known)}"
            raise FilterSyntaxError(message, source)
        value = _value(str(text), attribute, element, source)
        settings[name] = Setting(value, sign == "no", source)
    return settings


def _value(text: str, attribute: Attribute, element: Element, source: Source) -> Value | Variable:
    if text.startswith("$") and attribute.type != "STRING":
        if attribute.type in NO_VARIABLES:
            message = f"{attribute.name}={text!r} on <{element.name}>: a variable has no effect here; write the value"
            raise FilterSyntaxError(message, source)
        return parse_variable(text, f"{attribute.name} on <{element.name}>", source)
    try:
        return TYPES[attribute.type](text)
    except ValueError as error:
        message = f"{attribute.name}={text!r} on <{element.name}> is not {error}"
        raise FilterSyntaxError(message, source) from None


def parse_variable(text: str, where: str, source: Source) -> Variable:
    """
    A variable access.

    Raises:
        FilterSyntaxError: neither $NAME nor $NAME[INDEX] nor $NAME[@ITERATOR].
    """
    match = _VARIABLE.fullmatch(text)
    if not match or _PLAIN_VARIABLE.fullmatch(text):
        raise FilterSyntaxError(f"{where}: {text!r} is not $NAME, $NAME[INDEX] or $NAME[@ITERATOR]", source)
    name, at, digits = match[1], match[2], match[3]
    if digits is None:
        return Variable(name)
    if at:
        if int(digits) > _MAX_ITERATOR:
            raise FilterSyntaxError(f"{where}: iterator {digits} is larger than {_MAX_ITERATOR}", source)
        return Variable(name, iterator=int(digits))
    return Variable(name, index=int(digits))


def _check_ports(element: Element, settings: Mapping[str, Setting], source: Source) -> None:
    """
    Ports on <ip> and <ipv6> need a protocol that has them, as a literal. A type on <ipv6> implies icmpv6, as
    what is about neighbour discovery does; what a variable beside it holds is checked when it is bound.
    """
    if element.layer != 2 or "protocol" not in element.attributes:
        return
    protocol = settings.get("protocol")
    ports = [name for name in settings if name.startswith(("srcport", "dstport"))]
    if ports and (protocol is None or protocol.negated or protocol.value not in PORT_PROTOCOLS):
        message = f"{ports[0]} on <{element.name}> needs protocol='tcp', 'udp', 'sctp' or '33' in the same rule"
        raise FilterSyntaxError(message, source)
    types = [name for name in ICMPV6_ONLY if name in settings]
    if types and protocol and (protocol.negated or not (protocol.value == 58 or isinstance(protocol.value, Variable))):
        message = f"{types[0]} on <{element.name}> goes with protocol='icmpv6' only"
        raise FilterSyntaxError(message, source)
