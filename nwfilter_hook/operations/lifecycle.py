"""
From a guest to its rules in the kernel and back: read > parse > resolve > compile > render > apply > record.

In:  a `Domain` (or a guest's UUID) and a `Host`, which knows library, nft and state.
Out: the kernel and the records are as the operation asks; or an error, and nothing has changed.

Each public function is what one libvirt operation does; what a failure means for libvirt is hook.py's matter.
"""

from __future__ import annotations

from ..base.errors import NftError, NwfilterHookError
from ..domain.model import Domain
from ..host import Host
from ..nftables.features import check_features
from ..nftables.script import Script, render_remove
from .compile import compile_on
from .transaction import Plan, apply_plan, own_objects, own_records, plan, remove_objects, unrecorded_objects
from .update import recover_update


def check(host: Host, domain: Domain) -> None:
    """
    What can be known before the guest has taps: every filter is there, every variable bound, everything compiles.

    Raises:
        InputError, MissingFeature: what libvirt should refuse the start for.
    """
    filtered = [interface for interface in domain.interfaces if interface.reference]
    check_features(host, [compile_on(host, interface, interface.tap or "tap") for interface in filtered])


def install(host: Host, domain: Domain, operation: str, *, fresh: bool, tolerant: bool = False) -> Plan:
    """
    Put the guest's filters in force, in one transaction.

    Raises:
        InputError, MissingFeature, NftError, StateError: nothing has changed; if nft was given up, what it may have
            done is remembered and removed with the guest.
    """
    with host.state.locked():
        sweep(host)
        planned = plan(host, domain, operation, fresh=fresh, tolerant=tolerant)
        apply_plan(host, planned)
        if planned.record.bindings:
            host.state.keep_configuration(host.config.text)
        return planned


def plan_removal(host: Host, uuid: str) -> Script:
    """The transaction that `remove` would run; empty if there is nothing to remove."""
    objects = (each for record in own_records(host, uuid) for each in record.objects())
    return render_remove(own_objects(host, uuid, objects))


def remove(host: Host, uuid: str) -> None:
    """
    Take everything of the guest out of the kernel and forget it; nothing to do is fine.

    Raises:
        NftError, StateError: what is left is remembered and removed at the next event.
    """
    with host.state.locked():
        objects = [each for record in own_records(host, uuid) for each in record.objects()]
        try:
            # of a record that can't be read any more, the taps are known, and the kernel tells the rest
            objects += unrecorded_objects(host, uuid, (), objects)
            remove_objects(host, uuid, objects)
        except NftError:
            host.state.set_leftover(uuid)
            raise
        host.state.delete(uuid)
        for tap in host.state.taps_of(uuid):
            host.state.clear_owner(tap)
        sweep(host)


def sweep(host: Host) -> None:
    """
    Finish what others left unfinished: an update of filters that was cut off, guests that stopped while nft failed.
    Its own failures are logged and tried again at the next event.
    """
    host.state.drop_temporaries()
    try:
        recover_update(host)
    except NwfilterHookError as error:
        host.log(f"an update of filters was cut off and can't be finished yet: {error}")
    for name, record in host.state.leftovers():
        if record is None:
            continue
        try:
            remove_objects(host, record.uuid, record.objects())
            host.state.delete_leftover(name)
        except NwfilterHookError as error:
            host.log(f"{record.guest}: still not removed: {error}")
            if isinstance(error, NftError) and error.unsure:
                return  # nft hangs: others wait for the lock
