"""
Devices that no guard in a bridge sees, macvtaps, ports of Open vSwitch and routed taps: closed as soon as they are
seen, until somebody has decided about them.

In:  a `Host` with its guard on, names of devices that have come.
Out: those that nobody has decided about, and that the guard claims, let nothing through, either way. They have a record
     of nobody's; a guest's own transaction takes it over, and so does away with it.

Where the kernel takes chains for a device that isn't there yet (Linux 6.16), the macvtaps that libvirt will make next
are closed beforehand. libvirt counts the names that it makes up, macvtap0, macvtap1, …, and takes none again before it
has been started anew: virNetDevGenerateName in its src/util/virnetdev.c.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterable, Iterator

from ..backend import Installed
from ..base.errors import NOWHERE
from ..guards import Guard
from ..host import Host
from ..ruleset.model import Attachment
from ..storage.records import HELD, Binding
from .compile import compile_quarantine
from .devices import Device, read_device
from .kernel import known_of
from .transaction import GuestChange, carry_out, plan

NOBODY = "(nobody)"
AHEAD = 2
"""So many devices can be made before anybody looks."""
_MADE_UP = re.compile(r"(vnet|macvtap)(\d{1,8})")
_NET = "/sys/class/net"


def hold(host: Host, names: Iterable[str]) -> tuple[str, ...]:
    """
    Close devices, in one transaction.

    Args:
        names: of devices that may have come.

    Returns:
        Those that are closed now and weren't before.

    Raises:
        NftError, StateError: nothing has changed.
    """
    names = list(names)
    if host.guard is None or not any(_claimed(host.guard, name) for name in names):
        return ()
    with host.state.locked():
        guard = host.guard
        if guard is None or not guard.carried:
            return ()
        devices = (_claimed(guard, name) for name in names)
        changes = [change for device in devices if device and (change := _closing(host, device))]
        return _carry_out(host, changes)


def hold_ahead(host: Host, last: str = "") -> tuple[str, ...]:
    """
    Close the macvtaps that libvirt will make next, if the kernel takes that, and open those whose turn is over. On a
    host without a macvtap there are none.

    Args:
        last: the device that came last, if it was a macvtap.

    Returns:
        Those that are closed now and weren't before.

    Raises:
        NftError, StateError: nothing has changed.
    """
    turns = _turns(last)
    if host.guard is None or not (turns or any(held(host))) or not host.backend.takes_absent_devices():
        return ()
    with host.state.locked():
        guard = host.guard
        if guard is None or not guard.carried:
            return ()
        wanted = {f"macvtap{turn + number}" for turn in turns for number in range(AHEAD)}
        wanted = {name for name in wanted if not any(_fits(pattern, name) for pattern in guard.allow)}
        changes = [
            GuestChange(record.guest, record.uuid, HELD, (), (), tuple(known_of(host, record.uuid, [])))
            for record in host.state.records()
            if record.held and all(each.index is None and each.tap not in wanted for each in record.bindings)
        ]
        free = (name for name in sorted(wanted) if host.state.owner(name) is None)
        absent = (Device(name, 0, is_macvtap=True, bridge=None) for name in free)
        changes += [change for device in absent if (change := _closing(host, device))]
        return _carry_out(host, changes)


def claims(guard: Guard, device: Device) -> bool:
    """
    Whether it is closed unless somebody has decided about it: a device with a name that libvirt makes up, and in every
    mode but `generated` any macvtap, and any tap that is a port of Open vSwitch.
    """
    name = device.name
    if device.bridge or name in guard.trusted or any(_fits(pattern, name) for pattern in guard.allow):
        return False
    if _MADE_UP.fullmatch(name):
        return True
    return guard.mode != "generated" and (device.is_macvtap or (_is_tap(name) and _is_in_openvswitch(name)))


def _claimed(guard: Guard, name: str) -> Device | None:
    device = read_device(name)
    return device if device and claims(guard, device) else None


def _is_tap(name: str) -> bool:
    return os.path.exists(f"{_NET}/{name}/tun_flags")


def _is_in_openvswitch(name: str) -> bool:
    return os.path.basename(os.path.realpath(f"{_NET}/{name}/master")) == "ovs-system"


def _fits(pattern: str, name: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


def _turns(last: str) -> set[int]:
    """
    The numbers that may be next: a libvirtd goes on from the last that it made, one that has been started anew from the
    highest that its guests have.
    """
    numbers = [number for name in os.listdir(_NET) if (number := _number(name)) is not None]
    latest = _number(last)
    return {number + 1 for number in (max(numbers, default=None), latest) if number is not None}


def _number(name: str) -> int | None:
    found = _MADE_UP.fullmatch(name)
    return int(found[2]) if found and found[1] == "macvtap" else None


def _closing(host: Host, device: Device) -> GuestChange | None:
    """What closes it; None if somebody has decided about it, or it is closed. An index of 0: it isn't there yet."""
    own = str(uuid.uuid4())
    owner = host.state.owner(device.name)
    record = host.state.read(owner) if owner else None
    for binding in record.bindings if record else ():
        if record and binding.tap == device.name:
            if binding.index == (device.index or None) or (binding.index is None and not record.held):
                return None
            own = record.uuid if record.held else own
    made = compile_quarantine(host, _binding(device), NOWHERE)
    return GuestChange(NOBODY, own, HELD, (made,), (), tuple(known_of(host, own, [device.name])))


def _binding(device: Device) -> Binding:
    return Binding(
        tap=device.name,
        called=device.name,
        mac="",
        type=HELD,
        attachment=Attachment.MACVTAP if device.is_macvtap else Attachment.DEVICE,
        bridge=None,
        index=device.index or None,
        carrier="",
        filter="",
        parameters={},
        installed=Installed(device.name, ()),
        fingerprint="",
        quarantined=True,
    )


def _carry_out(host: Host, changes: list[GuestChange]) -> tuple[str, ...]:
    if changes:
        carry_out(host, plan(host, changes))
    return tuple(each.binding.tap for change in changes for each in change.anew)


def held(host: Host) -> Iterator[Binding]:
    """The devices that are closed since nobody has decided about them."""
    for record in host.state.records():
        if record.held:
            yield from (each for each in record.bindings if host.state.owner(each.tap) == record.uuid)
