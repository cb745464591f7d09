"""
Parse a <filterbinding>.
"""

from __future__ import annotations

import uuid

from ..base.addresses import format_mac, parse_mac
from ..base.errors import DomainError, Source
from ..base.xml import Element, parse_xml, source_of
from ..filters.parse import parse_filterref
from .model import Carrier, Domain, Interface, PortKind, check_tap

_NAMESPACE = uuid.UUID("6f0d0c3e-6c1f-4b54-9c55-9a3f5b1d7a10")


def parse_binding(data: bytes, path: str) -> Domain:
    """
    The one-interface guest that a <filterbinding> stands for; its UUID is the tap's own, not the owner's, so that it
    can't be taken for a libvirt guest's record.

    Raises:
        XmlSyntaxError, FilterSyntaxError, DomainError: it is not a binding.
    """
    root = parse_xml(data, path)
    source = source_of(root, path)
    if root.tag != "filterbinding":
        raise DomainError(f"the root element is <{root.tag}>, not <filterbinding>", source)
    owner = root.text_at("owner", "name")
    if not owner:
        raise DomainError("the binding has no <owner><name>", source)
    tap = check_tap(_attribute(root, "portdev", "name", source), source)
    mac_text = _attribute(root, "mac", "address", source)
    try:
        mac = format_mac(parse_mac(mac_text))
    except ValueError as error:
        raise DomainError(f"mac address {mac_text!r} is not {error}", source) from None
    element = root.first("filterref")
    if element is None:
        raise DomainError("the binding has no <filterref filter='…'>", source)
    reference = parse_filterref(element, path, networks=True)
    interface = Interface("ethernet", PortKind.ETHERNET, mac, tap, None, reference, Carrier.FILTERREF, source)
    return Domain(owner, str(uuid.uuid5(_NAMESPACE, tap)), (interface,), source)


def _attribute(root: Element, child: str, name: str, source: Source) -> str:
    found = root.first(child)
    value = None if found is None else found.get(name)
    if not value:
        raise DomainError(f"the binding has no <{child} {name}='…'/>", source)
    return value
