"""
The beginning of a guest's rules: check and install.

In:  a `Domain` and a `Host`.
Out: the kernel and the records are as the operation asks; or an error, and nothing has changed.

What a failure means for libvirt is hook.py's matter.
"""

from __future__ import annotations

from ..base.dataclass import replace
from ..base.errors import DomainError
from ..domain.model import Domain
from ..host import Host
from .compile import check_domain, compile_domain
from .devices import read_device
from .removal import sweep
from .transaction import carry_out, plan_domain


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
        for binding in record.bindings if record and not record.held else ():
            if record and binding.tap == interface.tap and binding.index in (None, device.index):
                raise DomainError(
                    f"{domain.name} can't have the tap {binding.tap}: {record.guest} runs with it; "
                    f"if it doesn't any more: nwfilter-hook replay {record.guest} stopped",
                    interface.source,
                )
