"""
Parse one <rule> of a filter.

In:  the element, the path to name in messages, and the `Faults` that collect what is wrong.
Out: a `FilterRule`; its attributes may still hold variables.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from ..base.errors import FilterSyntaxError, Source
from ..base.faults import Faults
from ..base.xml import Element as XmlElement
from ..base.xml import comments_in, source_of
from .model import Action, Direction, FilterRule, Setting, Value, Variable
from .nodes import attributes_of, children_of, refuse_children
from .protocols import ELEMENTS, IMPLIED_PROTOCOLS, PORT_PROTOCOLS, Attribute, Element
from .types import STRING

DEFAULT_RULE_PRIORITY = 500
_INTEGER = re.compile(r"[ \t]*[+-]?[0-9]{1,9}")
_VARIABLE = re.compile(r"\$([A-Za-z0-9_]+)(?:\[[ \t]*(@?)[ \t]*([0-9]{1,6})[ \t]*\])?[ \t]*")
_PLAIN_VARIABLE = re.compile(r"\$[A-Za-z0-9_]+[ \t]+")
_MAX_ITERATOR = 1000

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    _E = TypeVar("_E", Action, Direction)


def parse_rule(node: XmlElement, path: str, faults: Faults) -> FilterRule | None:
    """The rule; None if there are faults in it."""
    source, before = source_of(node, path), len(faults)
    given = attributes_of(node, ("action", "direction", "priority", "statematch"), path, faults)
    action, direction, priority, statematch = Action.DROP, Direction.INOUT, DEFAULT_RULE_PRIORITY, True
    with faults:
        action = _enum(given, "action", Action, source)
    with faults:
        direction = _enum(given, "direction", Direction, source)
    with faults:
        priority = parse_priority(given.get("priority"), DEFAULT_RULE_PRIORITY, source)
    with faults:
        statematch = _statematch(given.get("statematch", "true"), source)
    element: Element | None = None
    settings: dict[str, Setting] = {}
    wrong: set[str] = set()
    for child in children_of(node, path, faults):
        place = source_of(child, path)
        found = ELEMENTS.get(child.tag)
        if found is None:
            from .mends import ELEMENT_NAMES, word_meant

            meant = word_meant(child.tag, ELEMENTS, ELEMENT_NAMES)
            message = f"unknown protocol <{child.tag}>{meant}"
            faults.add(FilterSyntaxError(message, place))
        elif element is not None and found is not element:
            message = f"<{found.name}> beside <{element.name}> in one rule: libvirt would ignore it; use two rules"
            faults.add(FilterSyntaxError(message, place))
            _settings(child, found, place, faults, set())
        else:
            element = found
            settings.update(_settings(child, found, place, faults, wrong))
    if element is not None:
        _check_together(element, settings, wrong, source, faults)
    if len(faults) > before:
        return None
    name = element.name if element else None
    return FilterRule(action, direction, priority, statematch, name, settings, source, tuple(comments_in(node)))


def parse_priority(text: str | None, default: int, source: Source) -> int:
    """
    The priority of a rule or a chain.

    Raises:
        FilterSyntaxError: it is not a number from -1000 to 1000.
    """
    if text is None:
        return default
    if not _INTEGER.fullmatch(text) or not -1000 <= int(text) <= 1000:
        meant = f"; write {text.strip()!r}" if text != text.strip() and _INTEGER.fullmatch(text.strip()) else ""
        raise FilterSyntaxError(f"priority {text!r} is not a number from -1000 to 1000{meant}", source)
    return int(text)


def _enum(given: Mapping[str, str], name: str, kind: type[_E], source: Source) -> _E:
    text = given.get(name)
    words = [member.value for member in kind]
    if text is None:
        raise FilterSyntaxError(f"<rule> needs {name}='…', one of {' '.join(words)}", source)
    if text not in words:
        from .mends import ACTIONS, DIRECTIONS, word_meant

        meant = word_meant(text, words, ACTIONS if name == "action" else DIRECTIONS)
        raise FilterSyntaxError(f"{name} {text!r} is not one of {' '.join(words)}{meant}", source)
    return kind(text)


def _statematch(text: str, source: Source) -> bool:
    if text.lower() not in ("0", "false", "1", "true"):
        from .mends import yes_or_no

        meant = yes_or_no(text, ("true", "false"))
        raise FilterSyntaxError(f"statematch {text.lower()!r} is not false (or 0) or true (or 1){meant}", source)
    return text.lower() in ("1", "true")


def _settings(
    node: XmlElement, element: Element, source: Source, faults: Faults, wrong: set[str]
) -> dict[str, Setting]:
    """The attributes of one node; those with a wrong value, or that are probably meant, are added to `wrong`."""
    sign = node.get("match", "yes")
    if sign not in ("yes", "no"):
        from .mends import yes_or_no

        meant = yes_or_no(sign, ("yes", "no"))
        faults.add(FilterSyntaxError(f"match={sign!r} is neither 'yes' nor 'no'{meant}", source))
    refuse_children(node, source.path, faults)
    settings: dict[str, Setting] = {}
    for key, text in node.items():
        name = element.aliases.get(key, key)
        if name == "match" or (name == "state" and not text.strip()):
            continue
        if faults.too_many:
            break
        attribute = element.attributes.get(name)
        if attribute is None:
            known = [*element.attributes, *element.aliases, "match"]
            from .mends import attribute_meant

            probably = attribute_meant(name, known)
            hint = f"; did you mean {probably!r}?" if probably else ""
            message = f"unknown attribute {name!r} on <{element.name}>{hint}"
            faults.add(FilterSyntaxError(message, source))
            wrong.add(probably or name)
            continue
        wrong.add(name)
        with faults:
            if sign == "no" and not attribute.signed:
                message = f"{name} on <{element.name}> can't be negated: put it into a node without match='no'"
                raise FilterSyntaxError(message, source)
            value = _value(text, attribute, element, source)
            hexadecimal = not isinstance(value, Variable) and attribute.type.is_hexadecimal(text, value)
            settings[name] = Setting(value, sign == "no", source, hexadecimal)
            wrong.discard(name)
    return settings


def _value(text: str, attribute: Attribute, element: Element, source: Source) -> Value | Variable:
    if text.startswith("$") and attribute.type is not STRING:
        if not attribute.type.takes_variables:
            message = f"{attribute.name}={text!r} on <{element.name}>: a variable has no effect here; write the value"
            raise FilterSyntaxError(message, source)
        return parse_variable(text, f"{attribute.name} on <{element.name}>", source)
    try:
        return attribute.type.parse(text)
    except ValueError as error:
        from .mends import mend

        message = f"{attribute.name}={text!r} on <{element.name}> is not {error}{mend(text, attribute, element)}"
        raise FilterSyntaxError(message, source) from None


def parse_variable(text: str, where: str, source: Source) -> Variable:
    """
    A variable access.

    Raises:
        FilterSyntaxError: neither $NAME nor $NAME[INDEX] nor $NAME[@ITERATOR].
    """
    match = _VARIABLE.fullmatch(text)
    if not match or _PLAIN_VARIABLE.fullmatch(text):
        from .mends import variable_meant

        meant = variable_meant(text)
        raise FilterSyntaxError(f"{where}: {text!r} is not $NAME, $NAME[INDEX] or $NAME[@ITERATOR]{meant}", source)
    name, at, digits = match[1], match[2], match[3]
    if digits is None:
        return Variable(name)
    if at:
        if int(digits) > _MAX_ITERATOR:
            raise FilterSyntaxError(f"{where}: iterator {digits} is larger than {_MAX_ITERATOR}", source)
        return Variable(name, iterator=int(digits))
    return Variable(name, index=int(digits))


def _check_together(
    element: Element, settings: Mapping[str, Setting], wrong: Collection[str], source: Source, faults: Faults
) -> None:
    """
    Ports on <ip> and <ipv6> need a protocol that has them, as a literal. A type on <ipv6> implies icmpv6, as
    what is about neighbour discovery does, and what is about DHCP implies udp; what a variable beside it holds is
    checked when it is bound.
    """
    if element.layer != 2 or "protocol" not in element.attributes or "protocol" in wrong:
        return
    given = [*settings, *sorted(wrong)]
    protocol = settings.get("protocol")
    ports = [name for name in given if name.startswith(("srcport", "dstport"))]
    if ports and (protocol is None or protocol.negated or protocol.value not in PORT_PROTOCOLS):
        message = f"{ports[0]} on <{element.name}> needs protocol='tcp', 'udp', 'sctp' or '33' in the same rule"
        faults.add(FilterSyntaxError(message, source))
    implying = [name for name in IMPLIED_PROTOCOLS if name in given]
    for name in implying[:1]:
        word, number = IMPLIED_PROTOCOLS[name]
        other = next((each for each in implying if IMPLIED_PROTOCOLS[each][1] != number), None)
        if other:
            message = f"{name} and {other} on <{element.name}> are of different protocols: no packet has both"
            faults.add(FilterSyntaxError(message, source))
        elif protocol and (protocol.negated or not (protocol.value == number or isinstance(protocol.value, Variable))):
            message = f"{name} on <{element.name}> goes with protocol='{word}' only; write that, or no protocol"
            faults.add(FilterSyntaxError(message, source))
