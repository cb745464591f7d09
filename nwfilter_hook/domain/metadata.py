"""
Our element in the domain's <metadata>.
"""

from __future__ import annotations

from ..base.addresses import format_mac, parse_mac
from ..base.dataclass import replace
from ..base.errors import DomainError, Source
from ..base.text import did_you_mean
from ..base.xml import Element, children, local_name, source_of
from ..filters.model import FilterRef
from ..filters.parse import parse_filterref
from .model import Carrier, Interface, checked

METADATA_NAMESPACE = "https://nwfilter-hook.org/xmlns/1"
_OURS = "nwfilter-hook.org/xmlns/"
_SELECTORS = ("mac", "alias", "dev")


def apply_metadata(root: Element, path: str, interfaces: list[Interface], aliases: list[str | None]) -> list[Interface]:
    """`interfaces` with the references that our element in <metadata> holds for them."""
    result = list(interfaces)
    taken: dict[int, Source] = {}
    started = any(interface.tap for interface in interfaces)
    for element in _bindings(root, path):
        source = source_of(element, path)
        if element.tag != f"{{{METADATA_NAMESPACE}}}interface":
            raise DomainError(
                f"unknown element <{element.tag}> in <nwf:bindings>; only <nwf:interface> goes here", source
            )
        selector, wanted = _selector(element, source)
        reference = _metadata_reference(element, path, source)
        hits = [i for i, it in enumerate(interfaces) if _selects(selector, wanted, it, aliases[i])]
        if len(hits) > 1:
            raise DomainError(f"metadata: {len(hits)} interfaces have {selector}={wanted!r}", source)
        if not hits:
            # before start the XML may not know generated taps and aliases yet
            if selector == "mac" or started:
                raise DomainError(f"metadata: no interface has {selector}={wanted!r}", source)
            continue
        index = hits[0]
        if index in taken:
            raise DomainError(f"metadata: this interface has a reference already, at {taken[index]}", source)
        taken[index] = source
        result[index] = checked(replace(interfaces[index], reference=reference, carrier=Carrier.METADATA))
    return result


def _bindings(root: Element, path: str) -> list[Element]:
    """What our one element in <metadata> holds."""
    found: list[Element] = []
    for element in (each for metadata in root.all("metadata") for each in metadata):
        source, name = source_of(element, path), local_name(element)
        namespace = element.tag[1:].rpartition("}")[0]
        if _OURS not in namespace:
            continue
        if namespace != METADATA_NAMESPACE:
            raise DomainError(f"metadata: unknown namespace {namespace!r}; write {METADATA_NAMESPACE!r}", source)
        if name != "bindings":
            hint = did_you_mean(name, ("bindings",))
            message = f"unknown element <nwf:{name}> in <metadata>; only <nwf:bindings> goes here{hint}"
            raise DomainError(message, source)
        if found:
            raise DomainError("metadata: a second <nwf:bindings>; write all in one", source)
        found.append(element)
    return children(found[0], path) if found else []


def _selector(element: Element, source: Source) -> tuple[str, str]:
    for key in element.attributes:
        if key not in _SELECTORS:
            message = f"unknown attribute {key!r} on <nwf:interface>{did_you_mean(key, _SELECTORS)}"
            raise DomainError(message, source)
    given = element.items()
    if len(given) != 1:
        raise DomainError("<nwf:interface> needs exactly one of mac=, alias=, dev=", source)
    selector, wanted = given[0]
    if selector == "mac":
        try:
            wanted = format_mac(parse_mac(wanted))
        except ValueError as error:
            raise DomainError(f"metadata: mac={wanted!r} is not {error}", source) from None
    return selector, wanted


def _metadata_reference(element: Element, path: str, source: Source) -> FilterRef:
    found = children(element, path)
    names = [child.tag for child in found]
    if len(found) != 1 or names[0] not in ("filterref", f"{{{METADATA_NAMESPACE}}}filterref"):
        raise DomainError("<nwf:interface> holds exactly one <filterref filter='…'>", source)
    return parse_filterref(found[0], path, networks=True)


def _selects(selector: str, wanted: str, interface: Interface, alias: str | None) -> bool:
    return wanted == {"mac": interface.mac, "alias": alias, "dev": interface.tap}[selector]
