"""
Parse a domain XML, as libvirt hands it to a hook, into a `Domain`.

In:  bytes; the configuration's default filters.
Out: the guest's name, UUID and interfaces, each with the reference that applies to it.

A reference comes from three carriers (the later wins): the configuration's default for a network or bridge, <filterref>
in the interface, and our element in <metadata>, for hosts without libvirt's nwfilter driver and for interfaces whose
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
from collections.abc import Sequence

from ..base.addresses import format_mac, parse_mac
from ..base.dataclass import replace
from ..base.errors import DomainError, InputError, Source
from ..base.xml import Element, children, parse_xml, source_of
from ..config import Default
from ..filters.model import FilterRef
from ..filters.parse import freeze, parse_filterref
from .metadata import apply_metadata
from .model import FILTERABLE, Carrier, Domain, Interface, PortKind, checked

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def parse_domain(data: bytes, path: str, defaults: Sequence[Default] = (), *, tolerant: bool = False) -> Domain:
    """
    The guest that `data` describes.

    Args:
        path: what to call the XML in messages.
        defaults: for interfaces that name no filter; the first that fits counts.
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
    name = root.text_at("name")
    if not name:
        raise DomainError("the domain has no name", source)
    interfaces: list[Interface] = []
    aliases: list[str | None] = []
    for element in (each for devices in root.all("devices")[:1] for each in devices.all("interface")):
        interfaces.append(_interface(element, path, defaults, tolerant))
        aliases.append(_attribute(element, "alias", "name"))
    problem: InputError | None = None
    try:
        interfaces = apply_metadata(root, path, interfaces, aliases)
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
    uuid = root.text_at("uuid").lower()
    if not _UUID.fullmatch(uuid):
        raise DomainError(f"the domain's uuid {uuid!r} is not a UUID", source)
    return uuid


def _attribute(element: Element, child: str, name: str) -> str | None:
    found = element.first(child)
    return None if found is None else found.attributes.get(name)


def _interface(element: Element, path: str, defaults: Sequence[Default], tolerant: bool) -> Interface:
    source = source_of(element, path)
    type_name = element.get("type")
    try:
        return _parsed(element, path, type_name, defaults, source)
    except InputError as error:
        if not tolerant:
            raise
        tap = _attribute(element, "target", "dev")
        kind = _kind(element, type_name)
        return Interface(type_name, kind, "", tap, None, None, None, source, problem=error)


def _parsed(element: Element, path: str, type_name: str, defaults: Sequence[Default], source: Source) -> Interface:
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
    else:
        network = _attribute(element, "source", "network") if type_name == "network" else None
        names = {"network": network, "bridge": bridge}
        default = next((each for each in defaults if each.fits(names[each.kind])), None)
        if default:
            reference, carrier = reference_of(default), Carrier.DEFAULT
    port = _virtualport(element)
    interface = Interface(type_name, kind, mac, tap, bridge, reference, carrier, source, virtualport=port)
    return checked(interface) if reference else interface


def reference_of(default: Default) -> FilterRef:
    """The reference that the configuration gives."""
    parameters: dict[str, list[str]] = {}
    for name, value in default.parameters:
        parameters.setdefault(name, []).append(value)
    return FilterRef(default.filter, freeze(parameters), Source(default.path, default.line))


def _reference(found: list[Element], interface: str, path: str) -> FilterRef:
    for another in found[1:]:
        raise DomainError(f"{interface} has a second <filterref>", source_of(another, path))
    if not found[0].get("filter"):
        given = "".join(f" {name}={value!r}" for name, value in found[0].items())
        message = f"{interface}: <filterref{given}> names no filter; write <filterref filter='NAME'>"
        raise DomainError(message, source_of(found[0], path))
    return parse_filterref(found[0], path, networks=False)


def _kind(element: Element, type_name: str) -> PortKind:
    """What the interface is underneath: live XML of a `network` interface tells by its <source>."""
    virtualport = _virtualport(element)
    underneath = type_name
    if type_name == "network":
        # before start neither bridge nor mode is known, but only macvtaps have these ports
        waiting = _attribute(element, "source", "bridge") is None and virtualport in ("802.1Qbg", "802.1Qbh")
        underneath = "direct" if waiting or _attribute(element, "source", "mode") is not None else "bridge"
    return FILTERABLE.get((underneath, virtualport), PortKind.OTHER)


def _virtualport(element: Element) -> str:
    return _attribute(element, "virtualport", "type") or ""
