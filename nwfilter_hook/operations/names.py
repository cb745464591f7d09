"""
What on this host has a name that people type: for a shell that completes it.

In:  a `Host`.
Out: names, sorted; what can't be read has none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from ..base.errors import NOWHERE, NwfilterHookError
from ..filters.model import FilterRef, FilterRule
from ..filters.resolve import accesses, filters_in_tree
from ..host import Host
from .bindings import all_bindings


def taps(host: Host) -> Iterable[str]:
    """Those that have a record."""
    return sorted({binding.tap for _, binding in all_bindings(host)})


def guests(host: Host) -> Iterable[str]:
    """Those that have a record."""
    return sorted({record.guest for record, _ in all_bindings(host)})


def filters(host: Host) -> Iterable[str]:
    """Of the library."""
    return sorted(host.library.names())


def address_sets(host: Host) -> Iterable[str]:
    """Those that filters of the library look in."""
    found = set()
    for rule in _rules(host, host.library.names()):
        setting = rule.settings.get("ipset")
        if setting is not None and isinstance(setting.value, str):
            found.add(setting.value)
    return sorted(found)


def parameters(host: Host, filter_name: str) -> Iterable[str]:
    """The variables of a filter and of those that it refers to."""
    tree = filters_in_tree(filter_name, host.library.read)
    return sorted({variable.name for rule in _rules(host, tree) for _, _, variable in accesses(rule)} - {"MAC"})


def _rules(host: Host, names: Iterable[str]) -> Iterable[FilterRule]:
    for name in names:
        try:
            entries = host.library.read(name, NOWHERE).entries
        except NwfilterHookError:
            continue
        yield from (entry for entry in entries if not isinstance(entry, FilterRef))


KINDS: Mapping[str, Callable[[Host], Iterable[str]]] = {
    "tap": taps,
    "guest": guests,
    "filter": filters,
    "set": address_sets,
}
