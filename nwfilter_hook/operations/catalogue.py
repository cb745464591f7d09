"""
What is in the filter library, for people to look at: names, UUIDs, origins, and the taps that use each filter.

In:  a `Host`, and a filter's name or UUID.
Out: `Definition`s, also of files that can't be read as filters.
"""

from __future__ import annotations

import os
import uuid as uuids

from ..base.dataclass import dataclass, replace
from ..base.errors import NOWHERE, NwfilterHookError, SystemErrorAs, UpdateError
from ..base.text import did_you_mean
from ..filters.format import format_filter
from ..filters.model import Filter
from ..filters.resolve import filters_in_tree
from ..host import Host
from ..storage.library import Library


@dataclass(frozen=True)
class Definition:
    """
    One filter of the library.

    Attributes:
        uuid, chain: None if the file can't be read as a filter.
        origin: "local" (first directory), "stock", or the directory it is in.
        shadows: whether a filter of that name in a later directory is hidden by it.
        taps: taps whose tree holds it.
        problem: why it can't be used, or None.
    """

    name: str
    uuid: str | None
    origin: str
    chain: str | None
    path: str
    shadows: bool
    taps: tuple[str, ...]
    problem: str | None


def list_definitions(host: Host) -> list[Definition]:
    """Every filter of the library, by name, also those whose file is wrong."""
    users = users_of(host, host.library)
    found = (_definition(host, name) for name in host.library.names())
    return [replace(each, taps=tuple(tap for _, tap in users.get(each.name, ()))) for each in found if each]


def _definition(host: Host, name: str) -> Definition | None:
    """What there is under that name, without the taps that use it."""
    paths = host.library.paths(name)
    if not paths:
        return None
    definition: Filter | None = None
    problem = None
    try:
        definition = host.library.read(name, NOWHERE)
    except NwfilterHookError as error:
        problem = str(error)
    return Definition(
        name=name,
        uuid=definition.uuid if definition else None,
        origin=_origin(host, paths[0]),
        chain=definition.chain if definition else None,
        path=paths[0],
        shadows=len(paths) > 1,
        taps=(),
        problem=problem,
    )


def find_definition(host: Host, name_or_uuid: str) -> Definition:
    """
    The filter of that name or UUID, without the taps that use it.

    Raises:
        UpdateError: there is none.
    """
    names = host.library.names()
    if name_or_uuid in names:
        found = _definition(host, name_or_uuid)
        if found:
            return found
    try:
        wanted = str(uuids.UUID(name_or_uuid))
    except ValueError:
        near = did_you_mean(name_or_uuid, names)
        raise UpdateError(f"no filter has the name {name_or_uuid!r}{near}") from None
    for name in names:
        found = _definition(host, name)
        if found and found.uuid == wanted:
            return found
    raise UpdateError(f"no filter has the name or uuid {name_or_uuid!r}")


def dump_definition(host: Host, name_or_uuid: str) -> str:
    """The filter in normal form. Raises UpdateError, InputError."""
    definition = find_definition(host, name_or_uuid)
    return format_filter(host.library.read(definition.name, NOWHERE))


def read_definition(host: Host, name: str) -> tuple[str, bytes]:
    """The path of the filter's file and what is in it; ("", b"") if there is none. Raises UpdateError."""
    paths = host.library.paths(name)
    if not paths:
        return "", b""
    with SystemErrorAs(UpdateError, paths[0]):
        return paths[0], host.library.data_of(paths[0])


def _origin(host: Host, path: str) -> str:
    directory = os.path.dirname(path)
    if directory == host.library.directories[0]:
        return "local"
    return "stock" if directory == host.library.directories[-1] else directory


def users_of(host: Host, library: Library) -> dict[str, list[tuple[str, str]]]:
    """(guest, tap) of the taps whose tree holds a filter, by the filter's name."""
    users: dict[str, list[tuple[str, str]]] = {}
    trees: dict[str, frozenset[str]] = {}
    for record in host.state.records():
        for binding in record.bindings:
            if host.state.owner(binding.tap) not in (record.uuid, None):
                continue
            for used in binding.filters():
                if used not in trees:
                    trees[used] = tree_of(library, used)
            for name in frozenset().union(*(trees[used] for used in binding.filters())):
                users.setdefault(name, []).append((record.guest, binding.tap))
    return users


def tree_of(library: Library, name: str) -> frozenset[str]:
    """The names of all filters that a reference to `name` leads to."""
    return filters_in_tree(name, library.read)
