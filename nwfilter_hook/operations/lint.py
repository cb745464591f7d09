"""
Judge filters of the library, or files that aren't in it yet.

In:  a `Host`; names, paths, or nothing for all filters.
Out: `Finding`s.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from ..base.errors import NOWHERE, NwfilterHookError, SystemErrorAs
from ..filters.model import Filter, FilterRef, Parameters
from ..host import Host
from ..lint.findings import Finding
from ..lint.lint import judge
from ..storage.library import Library, read_filter_file
from .catalogue import find_definition
from .validate import validate


def lint_target(host: Host, target: str, parameters: Parameters) -> list[Finding]:
    """
    What is probably not meant in a filter.

    Args:
        target: its file, or a filter's name or UUID.

    Raises:
        NwfilterHookError: there is none, or it doesn't compile; all its faults.
    """
    library = host.library
    if os.sep in target or target.endswith(".xml") or os.path.isfile(target):
        with SystemErrorAs(NwfilterHookError, target):
            data = read_filter_file(target)
        entry = validate(data, target)
        library = library.with_filter(entry)
    else:
        entry = library.read(find_definition(host, target).name, NOWHERE)
    return lint_filter(library, entry, parameters, interfaces_use(host))


def lint_all(host: Host, parameters: Parameters) -> tuple[list[Finding], list[NwfilterHookError]]:
    """The findings of every filter of the library, each once; and what can't be judged."""
    found: dict[Finding, None] = {}
    wrong: list[NwfilterHookError] = []
    used = interfaces_use(host)
    for name in host.library.names():
        try:
            entry = host.library.read(name, NOWHERE)
            found.update(dict.fromkeys(lint_filter(host.library, entry, parameters, used)))
        except NwfilterHookError as error:
            wrong.append(error)
    return list(found), wrong


def lint_filter(library: Library, entry: Filter, parameters: Parameters, used: Iterable[str]) -> list[Finding]:
    """
    The findings of one filter.

    Args:
        used: the filters that interfaces refer to.

    Raises:
        InputError: it doesn't compile.
    """
    whole = entry.chain == "root" and (entry.name in used or entry.name not in _referred_to(library))
    return judge(entry, library.read, parameters, whole=whole)


def interfaces_use(host: Host) -> frozenset[str]:
    """The filters that the interfaces of running guests refer to, and the configuration's defaults."""
    defaults = {default.filter for default in (*host.config.defaults, *host.config.floors)}
    recorded = {name for record in host.state.records() for binding in record.bindings for name in binding.filters()}
    return frozenset(defaults | recorded)


def _referred_to(library: Library) -> frozenset[str]:
    """The filters that others refer to: parts."""
    found = set()
    for name in library.names():
        try:
            entries = library.read(name, NOWHERE).entries
        except NwfilterHookError:
            continue
        found |= {entry.filter for entry in entries if isinstance(entry, FilterRef)}
    return frozenset(found)
