"""
The normal form of a filter: what `dumpxml` prints and `define` stores.

In:  a filter's XML.
Out: the same filter in libvirt's normal form: every default that matters written out, masks as lengths, addresses and
     names in one spelling, the positive and the negated attributes of a rule in one element each. XML comments stay.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Any
from xml.sax.saxutils import escape

from lxml import etree

from ..base.addresses import format_mac
from .model import Filter, FilterRef, FilterRule, Parameters, SetFlags, TcpFlags, Variable
from .parse import parse_filter
from .protocols import CHAIN_PRIORITIES, ELEMENTS, Element, chain_prefix
from .types import ARP_OPCODES, ETHERTYPES, PROTOCOLS, STATES, TCP_FLAG_BITS, parse_comment

_NAMES = {
    "ETHERTYPE": {number: name for name, number in ETHERTYPES.items()},
    "ENCAPTYPE": {number: name for name, number in ETHERTYPES.items()},
    "PROTOCOL": {number: name for name, number in PROTOCOLS.items()},
    "OPCODE": {
        number: "_".join(part.upper() if part in ("arp", "nak") else part.capitalize() for part in name.split("_"))
        for name, number in ARP_OPCODES.items()
    },
}
_NAMES["OPCODE"].update({5: "DRARP_Request", 6: "DRARP_Reply", 7: "DRARP_Error", 8: "InARP_Request"})
_FLAG_ORDER = ("SYN", "ACK", "URG", "PSH", "FIN", "RST")
_HEXADECIMAL = re.compile(r"[ \t]*\+?0[xX]")


def normal_form(data: bytes, path: str, uuid: str | None = None) -> str:
    """
    The filter in `data`, in normal form.

    Args:
        uuid: to write if `data` has none.

    Raises:
        XmlSyntaxError, FilterSyntaxError: it is not a filter.
    """
    parsed = parse_filter(data, path)
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, remove_pis=True)
    root = etree.fromstring(data, parser)
    return "".join(line + "\n" for line in _filter(parsed, root, uuid))


def _filter(parsed: Filter, root: Any, uuid: str | None) -> Iterator[str]:
    yield from reversed([_comment(node) for node in root.itersiblings(preceding=True) if _is_comment(node)])
    default = CHAIN_PRIORITIES.get(chain_prefix(parsed.chain) or "", 0)
    # libvirt leaves a 0 away even where the default is another number, and so changes it
    priority = f" priority='{parsed.priority}'" if parsed.priority or default else ""
    yield f"<filter name={_quoted(parsed.name)} chain='{parsed.chain}'{priority}>"
    if parsed.uuid or uuid:
        yield f"  <uuid>{parsed.uuid or uuid}</uuid>"
    entries = iter(parsed.entries)
    for node in root:
        if _is_comment(node):
            yield f"  {_comment(node)}"
        elif node.tag in ("rule", "filterref"):
            entry = next(entries)
            yield from _rule(entry, node) if isinstance(entry, FilterRule) else _filterref(entry, node)
        elif node.tag == "uuid":
            yield from _comments_in(node, "  ")
    yield "</filter>"
    yield from (_comment(node) for node in root.itersiblings() if _is_comment(node))


def _is_comment(node: Any) -> bool:
    return node.tag is etree.Comment


def _comment(node: Any) -> str:
    return f"<!--{node.text}-->"


def _comments_in(node: Any, indent: str) -> list[str]:
    return [indent + _comment(child) for child in node.iter(etree.Comment)]


def _filterref(reference: FilterRef, node: Any) -> Iterator[str]:
    yield from _comments_in(node, "  ")
    yield from format_filterref(reference, "  ")


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


def _rule(rule: FilterRule, node: Any) -> Iterator[str]:
    state = "" if rule.statematch else " statematch='false'"
    start = f"rule action='{rule.action.value}' direction='{rule.direction.value}' priority='{rule.priority}'{state}"
    lines = [*_comments_in(node, "    "), *_elements(rule, node)]
    if not lines:
        yield f"  <{start}/>"
        return
    yield f"  <{start}>"
    yield from lines
    yield "  </rule>"


def _elements(rule: FilterRule, node: Any) -> Iterator[str]:
    if rule.element is None:
        return
    element = ELEMENTS[rule.element]
    spelled = _spelled(node, element)
    positive, negated = (
        [
            f" {name}={_quoted(_value(element, name, setting.value, spelled[name]))}"
            for name, setting in sorted(rule.settings.items(), key=lambda item: list(element.attributes).index(item[0]))
            if setting.negated is sign
        ]
        for sign in (False, True)
    )
    if positive or not negated:
        yield f"    <{rule.element}{''.join(positive)}/>"
    if negated:
        yield f"    <{rule.element} match='no'{''.join(negated)}/>"


def _spelled(node: Any, element: Element) -> dict[str, str]:
    """Each attribute's text; of one that stands twice the later, as the parser takes it."""
    texts: dict[str, str] = {}
    for child in node:
        if isinstance(child.tag, str):
            texts.update({element.aliases.get(str(key), str(key)): str(text) for key, text in child.items()})
    return texts


def _value(element: Element, name: str, value: Any, spelled: str) -> str:
    type_name = element.attributes[name].type
    if isinstance(value, Variable):
        return str(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, frozenset):
        return ",".join(state.upper() for state in STATES if state in value)
    if isinstance(value, TcpFlags):
        return f"{_flags(value.mask)}/{_flags(value.flags)}"
    if isinstance(value, SetFlags):
        return ",".join("src" if source else "dst" for source in value.source)
    if not isinstance(value, int):
        return parse_comment(str(value))
    if type_name in ("MAC_ADDR", "MAC_MASK"):
        return format_mac(value)
    if type_name in ("IP_ADDR", "IPV6_ADDR"):
        return str(ipaddress.IPv4Address(value) if type_name == "IP_ADDR" else ipaddress.IPv6Address(value))
    if type_name in ("IP_MASK", "IPV6_MASK"):
        return str(bin(value).count("1"))
    known = _NAMES.get(type_name, {}).get(value)
    return known or (f"{value:#x}" if _is_hexadecimal(spelled) else str(value))


def _is_hexadecimal(spelled: str) -> bool:
    return bool(_HEXADECIMAL.match(spelled)) or not spelled.strip(" \t+").isdigit()


def _flags(bits: int) -> str:
    if bits == TCP_FLAG_BITS["ALL"]:
        return "ALL"
    return ",".join(name for name in _FLAG_ORDER if bits & TCP_FLAG_BITS[name]) or "NONE"


def _quoted(text: str) -> str:
    return "'" + escape(text, {"'": "&apos;", "\n": "&#10;", "\r": "&#13;", "\t": "&#9;"}) + "'"
