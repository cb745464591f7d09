"""
A guest's rules from its start to its end: check, install, remove, and clean up after others.

In:  a `Domain` (or a guest's UUID) and a `Host`.
Out: the kernel and the records are as the operation asks; or an error, and nothing has changed.

What a failure means for libvirt is hook.py's matter.
"""

from __future__ import annotations

from collections.abc import Callable

from ..backend import Transaction
from ..base.dataclass import replace
from ..base.errors import DomainError, NftError, NwfilterHookError
from ..base.said import FAILED, Said
from ..domain.model import Domain
from ..host import Host
from ..storage.records import Record
from .compile import check_domain, compile_domain
from .devices import read_device
from .kernel import own, remove_installed, unrecorded
from .told import log_removed
from .transaction import carry_out, plan_domain
from .update import recover

Check = Callable[[], None]
"""Raises Overtaken if what led to an operation is old news."""


def unchecked() -> None:
    """There is nothing to check."""


def check(host: Host, domain: Domain) -> None:
    """
    What can be known before the guest has taps: every filter is there, every variable bound, everything compiles.

    Raises:
        InputError, MissingFeature: what libvirt should refuse the start for.
    """
    check_domain(host, domain)


def install(host: Host, domain: Domain, operation: str, *, fresh: bool) -> None:
    """
    Put the guest's filters in force, in one transaction. What takes long, to compile them, is done before the lock.

    Raises:
        InputError, MissingFeature, NftError, StateError: nothing has changed; if nft was given up, what it may have
            done is remembered and removed with the guest.
    """
    compiled = compile_domain(host, domain, tolerant=False)
    with host.state.locked():
        sweep(host)
        refuse_taken(host, domain)
        if not host.library.is_current() or compiled.guard != host.guard:
            host = replace(host, library=host.library.read_anew())
            compiled = compile_domain(host, domain, tolerant=False)
        planned = plan_domain(host, domain, compiled, operation, fresh=fresh)
        carry_out(host, planned)
        if planned.record.bindings:
            host.state.keep_configuration(host.config.text)


def refuse_taken(host: Host, domain: Domain) -> None:
    """
    Refuse a tap that another guest has, unless the kernel shows that its device is gone.

    Raises:
        DomainError: naming both guests.
    """
    for interface in domain.interfaces:
        owner = host.state.owner(interface.tap) if interface.tap else None
        device = read_device(interface.tap or "")
        if owner in (None, domain.uuid) or device is None:
            continue
        record = host.state.read(owner or "")
        for binding in record.bindings if record else ():
            if record and binding.tap == interface.tap and binding.index in (None, device.index):
                raise DomainError(
                    f"{domain.name} can't have the tap {binding.tap}: {record.guest} runs with it; "
                    f"if it doesn't any more: nwfilter-hook replay {record.guest} stopped",
                    interface.source,
                )


def plan_removal(host: Host, uuid: str) -> Transaction:
    """The transaction that `remove` would run; empty if there is nothing to remove."""
    installed = (each for record in _own_records(host, uuid) for each in record.installed())
    return host.backend.remove(own(host, uuid, installed), host.guard)


def remove(host: Host, uuid: str, recheck: Check = unchecked) -> None:
    """
    Take everything of the guest out of the kernel and forget it; nothing to do is fine.

    Args:
        recheck: called under the lock, before anything is done; what it raises, too.

    Raises:
        NftError, StateError: what is left is remembered and removed at the next event.
    """
    with host.state.locked():
        recheck()
        records = _own_records(host, uuid)
        guest = records[0].guest if records else uuid
        installed = [each for record in records for each in record.installed()]
        try:
            # of a record that can't be read any more, the taps are known, and the kernel tells the rest
            installed += unrecorded(host, uuid, (), installed)
            remove_installed(host, uuid, installed)
        except NftError:
            host.state.set_leftover(uuid)
            raise
        host.state.delete(uuid)
        for tap in host.state.taps_of(uuid):
            host.state.clear_owner(tap)
        sweep(host)
    log_removed(host, guest, uuid, (each.tap for each in installed))


def _own_records(host: Host, uuid: str) -> list[Record]:
    """The guest's record, and the one of a transaction that was cut off."""
    return [record for record in (host.state.read(uuid), host.state.read_pending(uuid)) if record]


def sweep(host: Host) -> None:
    """
    Finish what others left unfinished: an update of filters that was cut off, guests that stopped while nft failed.
    Its own failures are logged and tried again at the next event.
    """
    host.state.drop_temporaries()
    try:
        recover(host)
    except NwfilterHookError as error:
        host.log(Said(f"an update of filters was cut off and can't be finished yet: {error}", FAILED))
    for name, record in host.state.leftovers():
        if record is None:
            continue
        try:
            remove_installed(host, record.uuid, record.installed())
            host.state.delete_leftover(name)
        except NwfilterHookError as error:
            host.log(Said(f"{record.guest}: still not removed: {error}", FAILED, guest=record.guest, uuid=record.uuid))
            if isinstance(error, NftError) and error.unsure:
                return  # nft hangs: others wait for the lock
