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

from collections.abc import Iterator

from ..base.errors import UpdateError
from ..base.text import xml_escaped
from ..domain.binding import parse_binding
from ..filters.format import format_filterref
from ..host import Host
from ..storage.records import Binding, Record
from .compile import compile_domain
from .removal import remove, sweep
from .transaction import carry_out, plan_domain

OPERATION = "binding-create"


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
    compiled = compile_domain(host, domain, tolerant=False)
    with host.state.locked():
        sweep(host)
        for record, binding in all_bindings(host):
            if binding.tap == tap:
                raise UpdateError(f"tap {tap} has a filter already, {binding.filter}, as a tap of {record.guest}")
        carry_out(host, plan_domain(host, domain, compiled, OPERATION, fresh=True))
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
            if not binding.unfiltered and host.state.owner(binding.tap) in (record.uuid, None):
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
        f"    <name>{xml_escaped(record.guest)}</name>",
        f"    <uuid>{record.uuid}</uuid>",
        "  </owner>",
        f"  <portdev name='{binding.tap}'/>",
        f"  <mac address='{binding.mac}'/>",
        *(format_filterref(binding.reference, "  ") if binding.filter else ()),
        "</filterbinding>",
    ]
    return "".join(line + "\n" for line in lines)
