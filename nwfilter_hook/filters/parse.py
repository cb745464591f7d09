"""
Parse one filter's XML into a `Filter`, strictly.

In:  bytes, and the path to name in messages.
Out: a `Filter`; its rules may still hold variables.

What libvirt ignores (an unknown attribute, a value out of range, a misspelt element) is an error here, because there
a typo widens a rule. Grammar: https://libvirt.org/formatnwfilter.html, "Writing your own filters".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from ..base.errors import FilterSyntaxError, Source
from ..base.faults import Faults
from ..base.names import filter_name_fault, parameter_fault
from ..base.text import did_you_mean
from ..base.xml import Comment, Element, comments_in, local_name, parse_xml, source_of, text_of
from .model import Filter, FilterRef, FilterRule, Parameters
from .nodes import attributes_of, children_of, refuse_children
from .parse_rule import parse_priority, parse_rule
from .protocols import CHAIN_PRIORITIES, chain_prefix

_CHAIN = re.compile(r"[A-Za-z0-9_.:-]{1,12}")


def parse_filter(data: bytes, path: str) -> Filter:
    """
    The filter in `data`.

    Raises:
        XmlSyntaxError: not well-formed, too large, or with a document type.
        FilterSyntaxError: anything that is not nwfilter, with its line and what was probably meant; its `more` has the
            other faults of the file.
    """
    faults = Faults()
    found = read_filter(data, path, faults)
    faults.raise_first()
    return found


def read_filter(data: bytes, path: str, faults: Faults) -> Filter:
    """
    The filter in `data`, as far as it can be read: rules that are wrong are left out, `faults` say why.

    Raises:
        XmlSyntaxError, FilterSyntaxError: there is no filter in it.
    """
    root = parse_xml(data, path, comments=True)
    source = source_of(root, path)
    if root.tag != "filter":
        from .mends import ROOTS

        hint = ROOTS.get(root.tag, "")
        raise FilterSyntaxError(f"the root element is <{root.tag}>, not <filter>{hint}", source)
    given = attributes_of(root, ("name", "chain", "priority"), path, faults)
    name, chain = "", "root"
    with faults:
        name = check_filter_name(given.get("name", ""), source)
    with faults:
        chain = _chain(given.get("chain") or "root", source)
    priority = CHAIN_PRIORITIES.get(chain_prefix(chain) or "", 0)
    with faults:
        priority = parse_priority(given.get("priority") or None, priority, source)
    uuids: list[Element] = []
    entries: list[FilterRule | FilterRef | None] = []
    for child in children_of(root, path, faults):
        if child.tag == "rule":
            entries.append(parse_rule(child, path, faults))
        elif child.tag == "filterref":
            entries.append(_filterref(child, path, faults))
        elif child.tag == "uuid":
            uuids.append(child)
        else:
            message = f"unknown element <{child.tag}> in <filter>"
            hint = did_you_mean(child.tag, ("rule", "filterref", "uuid"))
            faults.add(FilterSyntaxError(message + hint, source_of(child, path)))
    uuid = _uuid(uuids, path, faults)
    return Filter(name, uuid, chain, priority, tuple(filter(None, entries)), source, tuple(_comments(root)))


def _comments(root: Element) -> Iterator[tuple[int, str]]:
    """Those between the entries, and in the <uuid>, which is always written first."""
    yield from ((-1, text) for text in root.before)
    entries = 0
    for node in root.nodes:
        if not isinstance(node, Comment) and node.tag in ("rule", "filterref"):
            entries += 1
        else:
            yield from ((entries, text) for text in comments_in(node))
    yield from ((entries + 1, text) for text in root.behind)


def check_filter_name(name: str, source: Source) -> str:
    """
    `name`, if it can be a file's name and stand in an nft comment.

    Raises:
        FilterSyntaxError: it can't.
    """
    fault = filter_name_fault(name)
    if fault:
        raise FilterSyntaxError(fault, source)
    return name


def parse_filterref(element: Element, path: str, *, networks: bool) -> FilterRef:
    """
    A <filterref> with its <parameter>s, from a domain.

    Args:
        networks: whether parameters may be networks, see check_parameter.

    Raises:
        FilterSyntaxError: an unknown attribute or child, text, a wrong name or value.
    """
    faults = Faults()
    found = _filterref(element, path, faults, networks=networks)
    faults.raise_first()
    assert found
    return found


def _filterref(element: Element, path: str, faults: Faults, *, networks: bool = False) -> FilterRef | None:
    source, before = source_of(element, path), len(faults)
    name = attributes_of(element, ("filter",), path, faults).get("filter")
    with faults:
        if not name:
            raise FilterSyntaxError("<filterref> needs filter='NAME'", source)
        check_filter_name(name, source)
    parameters: dict[str, list[str]] = {}
    for child in children_of(element, path, faults):
        place = source_of(child, path)
        if local_name(child) != "parameter":
            message = f"unknown element <{local_name(child)}> in <filterref>; only <parameter> goes here"
            faults.add(FilterSyntaxError(message, place))
            continue
        given = attributes_of(child, ("name", "value"), path, faults)
        refuse_children(child, path, faults)
        key, value = given.get("name", ""), given.get("value", "")
        with faults:
            check_parameter(key, value, place, networks=networks)
        parameters.setdefault(key, []).append(value)
    if len(faults) > before:
        return None
    return FilterRef(name or "", freeze(parameters), source, tuple(comments_in(element)))


def check_parameter(name: str, value: str, source: Source, *, networks: bool) -> None:
    """
    Refuse what libvirt would silently drop.

    Args:
        networks: whether a value may be a network, see parameter_fault.

    Raises:
        FilterSyntaxError: a name or value with a character that isn't allowed.
    """
    fault = parameter_fault(name, value, networks=networks)
    if fault:
        raise FilterSyntaxError(fault, source)


def freeze(parameters: Mapping[str, list[str]]) -> Parameters:
    """Lists to tuples."""
    return {name: tuple(values) for name, values in parameters.items()}


def _chain(name: str, source: Source) -> str:
    if name == "root" or (_CHAIN.fullmatch(name) and chain_prefix(name)):
        return name
    from .mends import chain_meant

    rule = "use root, or up to 12 of A-Z a-z 0-9 _ . : - beginning with one of " + " ".join(CHAIN_PRIORITIES)
    raise FilterSyntaxError(f"chain {name!r}: {rule}{chain_meant(name, 12)}", source)


def _uuid(found: list[Element], path: str, faults: Faults) -> str | None:
    for another in found[1:]:
        faults.add(FilterSyntaxError("a second <uuid>; a filter has one", source_of(another, path)))
    uuid = None
    for element in found:
        attributes_of(element, (), path, faults)
        for child in element:
            message = f"<{local_name(child)}> in <uuid>: no element goes in there"
            faults.add(FilterSyntaxError(message, source_of(child, path)))
        text = text_of(element)
        digits = re.sub(r"[-\s]", "", text).lower()
        if re.fullmatch(r"[0-9a-f]{32}", digits):
            uuid = "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
        elif digits:
            hint = "; write it without the braces" if digits.strip("{}") != digits else ""
            message = f"uuid {text.strip()!r} is not 32 hexadecimal digits{hint}"
            faults.add(FilterSyntaxError(message, source_of(element, path)))
    return uuid
