"""
Bindings by hand: a filter on a tap that libvirt doesn't manage, as virsh's nwfilter-binding commands do it.

In:  <filterbinding> XML, as libvirt has it.
Out: the tap under filter, with a record of its own.

    <filterbinding>
      <owner><name>web</name><uuid>…</uuid></owner>
      <portdev name='tap7'/>
      <mac address='52:54:00:00:00:07'/>
      <filterref filter='clean-traffic'><parameter name='IP' value='192.0.2.7'/></filterref>
    </filterbinding>

Format: https://libvirt.org/formatnwfilter.html, and virsh(1), nwfilter-binding-create.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from xml.sax.saxutils import escape

from ..base.errors import DomainError, Source, UpdateError
from ..base.xml import Element, parse_xml, source_of
from ..domain.parse import check_tap
from ..filters.format import format_filterref
from ..filters.model import Carrier, Domain, Interface, PortKind
from ..filters.parse import parse_filterref
from ..filters.types import format_mac, parse_mac
from ..host import Host
from ..storage.records import Binding, Record
from .lifecycle import remove, sweep
from .transaction import apply_plan, plan

_NAMESPACE = uuid.UUID("6f0d0c3e-6c1f-4b54-9c55-9a3f5b1d7a10")
OPERATION = "binding-create"


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
    owner = (root.findtext("owner/name") or "").strip()
    if not owner:
        raise DomainError("the binding has no <owner><name>", source)
    tap = check_tap(_attribute(root, "portdev", "name", source), source)
    mac_text = _attribute(root, "mac", "address", source)
    try:
        mac = format_mac(parse_mac(mac_text))
    except ValueError as error:
        raise DomainError(f"mac address {mac_text!r} is not {error}", source) from None
    element = root.find("filterref")
    if element is None:
        raise DomainError("the binding has no <filterref filter='…'>", source)
    reference = parse_filterref(element, path)
    interface = Interface("ethernet", PortKind.ETHERNET, mac, tap, None, reference, Carrier.FILTERREF, source)
    return Domain(owner, str(uuid.uuid5(_NAMESPACE, tap)), (interface,), source)


def _attribute(root: Element, child: str, name: str, source: Source) -> str:
    found = root.find(child)
    value = None if found is None else found.get(name)
    if not value:
        raise DomainError(f"the binding has no <{child} {name}='…'/>", source)
    return value


def create_binding(host: Host, data: bytes, path: str) -> str:
    """
    Put the binding into force.

    Returns:
        The tap.

    Raises:
        InputError: it is wrong.
        UpdateError: the tap has a filter already.
        MissingFeature, NftError, StateError: it can't be put into force; nothing has changed.
    """
    domain = parse_binding(data, path)
    tap = domain.interfaces[0].tap or ""
    with host.state.locked():
        sweep(host)
        for record, binding in all_bindings(host):
            if binding.tap == tap:
                raise UpdateError(f"tap {tap} has a filter already, {binding.filter}, as a tap of {record.guest}")
        apply_plan(host, plan(host, domain, OPERATION, fresh=True))
    return tap


def delete_binding(host: Host, tap: str) -> None:
    """
    Take the filter of a tap away that `create_binding` put there.

    Raises:
        UpdateError: it has none, or it is a libvirt guest's.
        NftError, StateError: what is left is removed at the next event.
    """
    record, _ = find_binding(host, tap)
    if record.operation != OPERATION:
        raise UpdateError(f"tap {tap} belongs to the guest {record.guest}: stop it, or change its filterref")
    remove(host, record.uuid)


def all_bindings(host: Host) -> Iterator[tuple[Record, Binding]]:
    """Every tap under filter, by guest; not what an older record says of a tap that is another guest's by now."""
    for record in host.state.records():
        for binding in record.bindings:
            if host.state.owner(binding.tap) in (record.uuid, None):
                yield record, binding


def find_binding(host: Host, tap: str) -> tuple[Record, Binding]:
    """Raises UpdateError if the tap has no filter."""
    for record, binding in all_bindings(host):
        if binding.tap == tap:
            return record, binding
    raise UpdateError(f"tap {tap!r} has no filter")


def format_binding(record: Record, binding: Binding) -> str:
    """The binding as XML."""
    lines = [
        "<filterbinding>",
        "  <owner>",
        f"    <name>{escape(record.guest)}</name>",
        f"    <uuid>{record.uuid}</uuid>",
        "  </owner>",
        f"  <portdev name='{binding.tap}'/>",
        f"  <mac address='{binding.mac}'/>",
        *(format_filterref(binding.reference("record"), "  ") if binding.filter else ()),
        "</filterbinding>",
    ]
    return "".join(line + "\n" for line in lines)
