"""
The end of a guest's rules, and cleaning up after others.

In:  a guest's UUID and a `Host`.
Out: nothing of the guest is in the kernel or written down; or an error, and what is left is remembered.

Nothing is compiled here, and what compiles is not imported: a guest that stops has no use for it.
"""

from __future__ import annotations

from collections.abc import Callable

from ..backend import Transaction
from ..base.errors import NftError, NwfilterHookError
from ..base.said import FAILED, Said
from ..host import Host
from ..storage.records import Record
from .kernel import own, remove_installed, unrecorded
from .told import log_removed

Check = Callable[[], None]
"""Raises Overtaken if what led to an operation is old news."""


def unchecked() -> None:
    """There is nothing to check."""


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
        if host.state.read_journal() is not None:
            from .update import recover  # compiles

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
