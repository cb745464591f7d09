"""
libvirt's operation to what is to be done, for the hook and for those who replay an event by hand.

In:  a `Host`, a guest's name, an operation, the domain XML.
Out: it is done; what the administrator should know goes to `host.report`.

Each operation imports what it needs: what compiles takes half of all imports, and a guest that stops has no need of it.
"""

from __future__ import annotations

from collections.abc import Callable

from ..base.errors import InputError, NwfilterHookError
from ..base.said import FAILED, QUARANTINED, WARNING, Said
from ..base.text import one_line
from ..host import Host
from .removal import Check, remove, unchecked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..domain.model import Domain


def run_operation(host: Host, guest: str, operation: str, data: bytes) -> None:
    """
    Do what `operation` asks for; one that isn't known asks for nothing.

    Args:
        data: the domain XML.

    Raises:
        NwfilterHookError: it can't be done; what that means for the guest is the caller's matter.
    """
    if operation in _OPERATIONS:
        _OPERATIONS[operation](host, guest, operation, data)


def _check(host: Host, guest: str, operation: str, data: bytes) -> None:
    from .floors import read_domain
    from .lifecycle import check

    check(host, read_domain(host, data, _path(guest)))


def _install(host: Host, guest: str, operation: str, data: bytes) -> None:
    from .advice import advice
    from .floors import read_domain
    from .lifecycle import install

    domain = read_domain(host, data, _path(guest))
    install(host, domain, operation, fresh=operation == "start")
    if operation == "start":
        for tap, line in advice(domain, host.library):
            host.report(Said(f"{tap}: {line}", WARNING, tap=tap))


def reconnect(
    host: Host,
    guest: str,
    operation: str,
    data: bytes,
    *,
    narrow: Callable[[Domain], Domain] = lambda domain: domain,
    recheck: Check = unchecked,
    noted: bool = False,
    look_around: bool = True,
) -> None:
    """
    A guest that runs has what its XML asks for; see reconnect.reconcile.

    Args:
        narrow: what of the guest counts.
        recheck: called under the lock, before anything is done; what it raises, too.
        noted: such an event is one that `unchanged` is asked about.
        look_around: tell of ways past the filters.

    Raises:
        NwfilterHookError: it can't be done.
    """
    from .floors import read_domain

    try:
        domain = narrow(read_domain(host, data, _path(guest), tolerant=True))
    except InputError as error:
        _keep_or_quarantine(host, guest, data, error, recheck)
        raise
    from .reconnect import reconcile
    from .unchanged import digest_of

    if domain.problem:
        host.report(Said(str(domain.problem), FAILED))
    event = digest_of(host.config, guest, data) if noted else ""
    reconcile(host, domain, operation, recheck, event=event, look_around=look_around)


def _reconnect(host: Host, guest: str, operation: str, data: bytes) -> None:
    reconnect(host, guest, operation, data, noted=True)


def _remove(host: Host, guest: str, operation: str, data: bytes) -> None:
    for uuid in _uuids(host, guest, data):
        remove(host, uuid)


_OPERATIONS = {
    "prepare": _check,
    "migrate": _check,
    "restore": _check,
    "start": _install,
    "attach": _install,
    "reconnect": _reconnect,
    "stopped": _remove,
    "release": _remove,
}


def _path(guest: str) -> str:
    return f"domain XML of {one_line(guest)}"


def _uuids(host: Host, guest: str, data: bytes) -> list[str]:
    """The guest's UUID; if its XML is of no use, the UUIDs of records under its name."""
    from ..domain.parse import parse_identity

    try:
        return [parse_identity(data, _path(guest))]
    except InputError as error:
        host.report(Said(f"{error}; going by the guest's name", FAILED))
        return [record.uuid for record in host.state.records() if record.guest == guest]


def _keep_or_quarantine(host: Host, guest: str, data: bytes, error: NwfilterHookError, recheck: Check) -> None:
    from .reconnect import quarantine_known

    for uuid in _uuids(host, guest, data):
        if quarantine_known(host, uuid, error, recheck):
            host.report(Said(f"quarantined, nothing passes in or out: {error}", QUARANTINED))
