"""
The normal form of a filter: what `dumpxml` prints and `define` stores.

In:  a `Filter`.
Out: its XML in libvirt's normal form: every default that matters written out, masks as lengths, addresses and names in
     one spelling, the positive and the negated attributes of a rule in one element each. XML comments stay.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ..base.dataclass import replace
from ..base.errors import Source
from ..base.text import xml_escaped
from .model import Filter, FilterRef, FilterRule, Parameters, Setting, Variable
from .protocols import CHAIN_PRIORITIES, ELEMENTS, chain_prefix


def format_filter(definition: Filter) -> str:
    """The filter in normal form."""
    return as_kept(definition)[0]


def as_kept(definition: Filter) -> tuple[str, Filter]:
    """The filter in normal form, and the same filter knowing the lines that it has there (`Source.kept`)."""
    text = _Text()
    last = len(definition.entries) + 1

    def comments(position: int, indent: str) -> None:
        text.add(f"{indent}<!--{comment}-->" for at, comment in definition.comments if at == position)

    comments(-1, "")
    source = text.here(definition.source)
    text.add(_start(definition))
    if definition.uuid:
        text.add([f"  <uuid>{definition.uuid}</uuid>"])
    entries: list[FilterRule | FilterRef] = []
    for position, entry in enumerate(definition.entries):
        comments(position, "  ")
        entries.append(_rule(entry, text) if isinstance(entry, FilterRule) else _filterref(entry, text))
    comments(last - 1, "  ")
    text.add(["</filter>"])
    comments(last, "")
    return text.whole(), replace(definition, entries=tuple(entries), source=source)


class _Text:
    """Lines under construction."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._line = 1

    def add(self, lines: Iterable[str]) -> None:
        for line in lines:
            self._parts.append(line + "\n")
            self._line += self._parts[-1].count("\n")

    def here(self, source: Source) -> Source:
        """The same place, knowing that it will be on the next line."""
        return Source(source.path, source.line, self._line)

    def whole(self) -> str:
        return "".join(self._parts)


def _start(definition: Filter) -> Iterator[str]:
    default = CHAIN_PRIORITIES.get(chain_prefix(definition.chain) or "", 0)
    # libvirt leaves a 0 away even where the default is another number, and so changes it
    priority = f" priority='{definition.priority}'" if definition.priority or default else ""
    yield f"<filter name={_quoted(definition.name)} chain='{definition.chain}'{priority}>"


def _filterref(reference: FilterRef, text: _Text) -> FilterRef:
    text.add(f"  <!--{comment}-->" for comment in reference.comments)
    source = text.here(reference.source)
    text.add(format_filterref(reference, "  "))
    return replace(reference, source=source)


def format_filterref(reference: FilterRef, indent: str) -> Iterator[str]:
    """The lines of a <filterref>."""
    yield from _with_parameters(f"filterref filter={_quoted(reference.filter)}", reference.parameters, indent)


def _with_parameters(start: str, parameters: Parameters, indent: str) -> Iterator[str]:
    if not parameters:
        yield f"{indent}<{start}/>"
        return
    yield f"{indent}<{start}>"
    for name, values in parameters.items():
        for value in values:
            yield f"{indent}  <parameter name='{name}' value={_quoted(value)}/>"
    yield f"{indent}</{start.split()[0]}>"


def _rule(rule: FilterRule, text: _Text) -> FilterRule:
    state = "" if rule.statematch else " statematch='false'"
    start = f"rule action='{rule.action.value}' direction='{rule.direction.value}' priority='{rule.priority}'{state}"
    source = text.here(rule.source)
    if rule.element is None and not rule.comments:
        text.add([f"  <{start}/>"])
        return replace(rule, source=source)
    text.add([f"  <{start}>", *(f"    <!--{comment}-->" for comment in rule.comments)])
    settings = dict(rule.settings)
    for sign in (False, True):
        mine = {name: each for name, each in _in_order(rule).items() if each.negated is sign}
        if rule.element is None or (not mine and (sign or settings)):
            continue
        for name, setting in mine.items():
            settings[name] = replace(setting, source=text.here(setting.source))
        attributes = "".join(f" {name}={_quoted(_value(rule, name, setting))}" for name, setting in mine.items())
        text.add([f"    <{rule.element}{' match=' + _quoted('no') if sign else ''}{attributes}/>"])
    text.add(["  </rule>"])
    return replace(rule, source=source, settings=settings)


def _in_order(rule: FilterRule) -> dict[str, Setting]:
    """The rule's settings in the order of the language's table."""
    if rule.element is None:
        return {}
    return {name: rule.settings[name] for name in ELEMENTS[rule.element].attributes if name in rule.settings}


def _value(rule: FilterRule, name: str, setting: Setting) -> str:
    assert rule.element is not None
    if isinstance(setting.value, Variable):
        return str(setting.value)
    return ELEMENTS[rule.element].attributes[name].type.format(setting.value, hexadecimal=setting.hexadecimal)


def _quoted(text: str) -> str:
    return f"'{xml_escaped(text)}'"


def rule_words(rule: FilterRule, values: Mapping[str, str]) -> str:
    """
    What a rule looks for, for people: element and attributes, "!=" where it is negated; "everything" without any.

    Args:
        values: what to write for a variable, by its name; of others the name.
    """
    if rule.element is None:
        return "everything"
    words = [rule.element]
    for name, setting in _in_order(rule).items():
        value = _value(rule, name, setting)
        if isinstance(setting.value, Variable):
            value = values.get(setting.value.name, value)
        words.append(f"{name}{'!=' if setting.negated else '='}{value}")
    return " ".join(words) if len(words) > 1 else f"any {rule.element}"
