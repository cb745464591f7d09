"""
What went well, for the journal alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from ..base.said import INSTALLED, REMOVED, Said
from ..host import Host
from ..storage.records import Record


def log_installed(host: Host, record: Record, taps: Collection[str]) -> None:
    """The record's rules of these taps are in force."""
    bindings = [binding for binding in record.bindings if binding.tap in taps]
    if bindings:
        text = f"{record.guest}: rules in force: {', '.join(f'{each.tap} ({each.filter})' for each in bindings)}"
        filters = dict.fromkeys(each.filter for each in bindings)
        of_guest = {"guest": record.guest, "uuid": record.uuid, "operation": record.operation}
        host.log(Said(text, INSTALLED, tap=(each.tap for each in bindings), filter=filters, **of_guest))


def log_removed(host: Host, guest: str, uuid: str, taps: Iterable[str]) -> None:
    """The rules of these taps are gone."""
    names = tuple(dict.fromkeys(taps))
    if names:
        host.log(Said(f"{guest}: rules removed: {', '.join(names)}", REMOVED, guest=guest, uuid=uuid, tap=names))
