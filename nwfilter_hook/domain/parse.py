"""
Parse a domain XML, as libvirt hands it to a hook, into a `Domain`.

In:  bytes; the default filters per bridge.
Out: the guest's name, UUID and interfaces, each with the reference that applies to it.

A reference comes from three carriers (the later wins): the configuration's default for a bridge, <filterref> in the
interface, and our element in <metadata>, for hosts without libvirt's nwfilter driver and for interfaces whose
<filterref> libvirt drops:

    <metadata>
      <nwf:bindings xmlns:nwf="https://nwfilter-hook.org/xmlns/1">
        <nwf:interface mac="52:54:00:00:00:04">     (or alias="ua-lan", or dev="tap-web")
          <filterref filter="clean-traffic"><parameter name="IP" value="192.0.2.1"/></filterref>
        </nwf:interface>
      </nwf:bindings>
    </metadata>

A guest has one <nwf:bindings>, since libvirt keeps one element per namespace; a second one, or another element of our
namespace, is an error.

Format: https://libvirt.org/formatdomain.html, "Network interfaces" and "General metadata".
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..base.dataclass import replace
from ..base.errors import DomainError, InputError, Source, did_you_mean
from ..base.xml import Element, children, local_name, parse_xml, source_of
from ..filters.model import Carrier, Domain, FilterRef, Interface, PortKind
from ..filters.parse import parse_filterref
from ..filters.types import format_mac, is_tap_name, parse_mac

METADATA_NAMESPACE = "https://nwfilter-hook.org/xmlns/1"
_OURS = "nwfilter-hook.org/xmlns/"
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SELECTORS = ("mac", "alias", "dev")


def parse_domain(
    data: bytes, path: str, default_filters: Mapping[str, str] | None = None, *, tolerant: bool = False
) -> Domain:
    """
    The guest that `data` describes.

    Args:
        path: what to call the XML in messages.
        default_filters: bridge name to filter name, for interfaces that name no filter.
        tolerant: keep an interface's error in its `problem` instead of raising it (for a guest that runs already).

    Raises:
        XmlSyntaxError: not well-formed, too large, or with a document type.
        DomainError: no name or UUID, a wrong tap name, a reference that names no filter, one in metadata that fits no
            interface, an unknown element of ours there.
        FilterSyntaxError: a wrong <filterref>, or text where one may stand.
    """
    root = parse_xml(data, path)
    source = source_of(root, path)
    uuid = _uuid(root, source)
    name = (root.findtext("name") or "").strip()
    if not name:
        raise DomainError("the domain has no name", source)
    interfaces: list[Interface] = []
    aliases: list[str | None] = []
    devices = root.find("devices")
    for element in [] if devices is None else devices.iterfind("interface"):
        interfaces.append(_interface(element, path, default_filters or {}, tolerant))
        aliases.append(_attribute(element, "alias", "name"))
    problem: InputError | None = None
    try:
        interfaces = _apply_metadata(root, path, interfaces, aliases)
    except InputError as error:
        if not tolerant:
            raise
        problem = error
        # whose reference it was can't be told: it may be any interface's that names no filter itself
        interfaces = [each if each.reference else replace(each, problem=error) for each in interfaces]
    return Domain(name, uuid, tuple(interfaces), source, problem)


def parse_identity(data: bytes, path: str) -> str:
    """
    The guest's UUID and nothing else: for operations that need no more of the XML.

    Raises:
        XmlSyntaxError, DomainError: not a domain XML.
    """
    root = parse_xml(data, path)
    return _uuid(root, source_of(root, path))


def _uuid(root: Element, source: Source) -> str:
    if root.tag != "domain":
        raise DomainError(f"the root element is <{root.tag}>, not <domain>", source)
    uuid = (root.findtext("uuid") or "").strip().lower()
    if not _UUID.fullmatch(uuid):
        raise DomainError(f"the domain's uuid {uuid!r} is not a UUID", source)
    return uuid


def check_tap(name: str, source: Source) -> str:
    """
    `name`, if it can name chains and stand in a verdict map; libvirt's own schema allows no more.

    Raises:
        DomainError: it can't.
    """
    if not is_tap_name(name):
        raise DomainError(f"tap name {name!r}: use up to 15 of A-Z a-z 0-9 _ . -", source)
    return name


def _attribute(element: Element, child: str, name: str) -> str | None:
    found = element.find(child)
    return None if found is None else found.get(name)


def _interface(element: Element, path: str, default_filters: Mapping[str, str], tolerant: bool) -> Interface:
    source = source_of(element, path)
    type_name = element.get("type", "")
    try:
        return _parsed(element, path, type_name, default_filters, source)
    except InputError as error:
        if not tolerant:
            raise
        tap = _attribute(element, "target", "dev")
        kind = _kind(element, type_name)
        return Interface(type_name, kind, "", tap, None, None, None, source, problem=error)


def _parsed(
    element: Element, path: str, type_name: str, default_filters: Mapping[str, str], source: Source
) -> Interface:
    mac_text = _attribute(element, "mac", "address") or ""
    try:
        mac = format_mac(parse_mac(mac_text)) if mac_text else ""
    except ValueError as error:
        raise DomainError(f"interface address {mac_text!r} is not {error}", source) from None
    tap = _attribute(element, "target", "dev")
    kind = _kind(element, type_name)
    bridge = _attribute(element, "source", "bridge") if type_name in ("bridge", "network") else None
    reference: FilterRef | None = None
    carrier: Carrier | None = None
    found = [child for child in children(element, path) if child.tag == "filterref"]
    if found:
        reference, carrier = _reference(found, f"interface {tap or mac}", path), Carrier.FILTERREF
    elif bridge is not None and bridge in default_filters:
        reference, carrier = FilterRef(default_filters[bridge], {}, source), Carrier.DEFAULT
    interface = Interface(type_name, kind, mac, tap, bridge, reference, carrier, source)
    return _checked(interface) if reference else interface


def _reference(found: list[Element], interface: str, path: str) -> FilterRef:
    for another in found[1:]:
        raise DomainError(f"{interface} has a second <filterref>", source_of(another, path))
    if not found[0].get("filter"):
        given = "".join(f" {name!s}={str(value)!r}" for name, value in found[0].items())
        message = f"{interface}: <filterref{given}> names no filter; write <filterref filter='NAME'>"
        raise DomainError(message, source_of(found[0], path))
    return parse_filterref(found[0], path)


def _checked(interface: Interface) -> Interface:
    """`interface`, whose reference can be enforced, as far as its XML shows."""
    if interface.kind is PortKind.OTHER:
        raise DomainError(f"an interface of type {interface.type!r} has no tap on the host to filter", interface.source)
    if not interface.mac:
        raise DomainError("the interface has a filter but no <mac address='…'/>", interface.source)
    if interface.tap is not None:
        check_tap(interface.tap, interface.source)
    return interface


def _kind(element: Element, type_name: str) -> PortKind:
    """What the interface is underneath: live XML of a `network` interface tells by its <source>."""
    if type_name == "direct" or (type_name == "network" and _attribute(element, "source", "mode") is not None):
        return PortKind.MACVTAP
    if _attribute(element, "virtualport", "type") == "openvswitch":
        return PortKind.OPENVSWITCH
    if type_name in ("bridge", "network"):
        return PortKind.BRIDGE
    return PortKind.ETHERNET if type_name == "ethernet" else PortKind.OTHER


def _apply_metadata(
    root: Element, path: str, interfaces: list[Interface], aliases: list[str | None]
) -> list[Interface]:
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
        result[index] = _checked(replace(interfaces[index], reference=reference, carrier=Carrier.METADATA))
    return result


def _bindings(root: Element, path: str) -> list[Element]:
    """What our one element in <metadata> holds."""
    found: list[Element] = []
    for element in root.iterfind("metadata/*"):
        source, name = source_of(element, path), local_name(element)
        namespace = str(element.tag)[1:].rpartition("}")[0]
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
    for key in element.keys():
        if key not in _SELECTORS:
            message = f"unknown attribute {key!r} on <nwf:interface>{did_you_mean(str(key), _SELECTORS)}"
            raise DomainError(message, source)
    given = [(key, value) for key, value in element.items()]
    if len(given) != 1:
        raise DomainError("<nwf:interface> needs exactly one of mac=, alias=, dev=", source)
    selector, wanted = str(given[0][0]), str(given[0][1])
    if selector == "mac":
        try:
            wanted = format_mac(parse_mac(wanted))
        except ValueError as error:
            raise DomainError(f"metadata: mac={wanted!r} is not {error}", source) from None
    return selector, wanted


def _metadata_reference(element: Element, path: str, source: Source) -> FilterRef:
    found = children(element, path)
    names = [str(child.tag) for child in found]
    if len(found) != 1 or names[0] not in ("filterref", f"{{{METADATA_NAMESPACE}}}filterref"):
        raise DomainError("<nwf:interface> holds exactly one <filterref filter='…'>", source)
    return parse_filterref(found[0], path)


def _selects(selector: str, wanted: str, interface: Interface, alias: str | None) -> bool:
    return wanted == {"mac": interface.mac, "alias": alias, "dev": interface.tap}[selector]
