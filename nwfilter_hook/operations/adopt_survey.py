"""
What `adopt` finds: libvirt's filters, the guests that refer to them, and what stands in the way.

In:  a `Host`, libvirt. Nothing is changed.
Out: a `Survey`: what would be brought into the library, what would become a twin, what would be filtered otherwise.

Filters are read twice: as libvirt gives them, which is what it enforces, and from its files, where a filter that
somebody wrote by hand still has what libvirt ignores without a word.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping

from ..base.dataclass import dataclass, replace
from ..base.errors import NOWHERE, InputError, NwfilterHookError
from ..base.names import filter_name_fault
from ..domain.model import Domain
from ..filters.model import Filter
from ..filters.parse import parse_filter
from ..filters.twins import is_twin, referred, same_rules
from ..host import Host
from ..libvirtd import LibvirtGuest, LibvirtManager
from ..storage.adopted import originals
from .compile import check_domain, compile_domain
from .floors import read_domain

LIBVIRTS_FILES = "/etc/libvirt/nwfilter"
LIBVIRTS_STOCK = "/usr/share/libvirt/nwfilter"
METADATA_URI = "https://nwfilter-hook.org/xmlns/1"


@dataclass(frozen=True)
class Direct:
    """An interface of type direct that nothing filters: libvirt has dropped its reference."""

    guest: LibvirtGuest
    mac: str


@dataclass(frozen=True)
class Survey:
    """
    Attributes:
        guests: all of them.
        filters: libvirt's, by name, as far as they can be read; xml: as libvirt gives them.
        used: names of those that guests' filters lead to; referred: that guests refer to themselves.
        bring: filters for the library, those that others refer to first.
        twins: names of filters that become twins, those that guests refer to first: then the others are nobody's, and
            libvirt rebuilds no guest's rules for them.
        faults: why it can't be done. ignored: what libvirt ignores in files of used filters, without a word.
        direct: interfaces that nothing filters.
        notes: what else is to be known.
    """

    guests: tuple[LibvirtGuest, ...]
    filters: Mapping[str, Filter]
    xml: Mapping[str, str]
    used: frozenset[str]
    referred: frozenset[str]
    bring: tuple[Filter, ...]
    twins: tuple[str, ...]
    faults: tuple[str, ...]
    ignored: tuple[str, ...]
    direct: tuple[Direct, ...]
    notes: tuple[str, ...]


def survey(host: Host, libvirt: LibvirtManager) -> Survey:
    """
    Look at everything.

    Raises:
        LibvirtError: libvirt doesn't say. StateError: what was adopted before can't be read.
    """
    guests, xml = libvirt.guests(), libvirt.filters()
    before = originals()
    faults: list[str] = []
    notes: list[str] = []
    filters: dict[str, Filter] = {}
    unread: dict[str, str] = {}
    for name, now in xml.items():
        text = before[name] if name in before and is_twin_xml(now) else now
        if filter_name_fault(name):
            unread[name] = f"filter {name!r} of libvirt has a name that no file can have"
            continue
        try:
            filters[name] = parse_filter(text.encode(), f"libvirt's {name}")
        except InputError as error:
            unread[name] = str(error)
    domains = {guest.uuid: _domain(host, guest, faults) for guest in guests}
    named = {
        interface.reference.filter
        for domain in domains.values()
        if domain
        for interface in domain.interfaces
        if interface.reference
    }
    named |= set(libvirt.filtered_taps().values())
    used = frozenset(_closure(named, filters))
    faults += [unread[name] for name in sorted(used & set(unread))]
    notes += [f"not read, and used by no guest: {unread[name]}" for name in sorted(set(unread) - used)]
    candidates = (filters[name] for name in _leaves_first(used & set(filters), filters))
    bring = [each for each in candidates if _is_brought(host, each, notes)]
    library = host.library
    for definition in bring:
        library = library.with_filter(definition)
    ready = replace(host, library=library)
    for guest in guests:
        faults += _uncompilable(ready, guest, domains[guest.uuid])
    known = set(library.names()) | {each.name for each in bring}
    twins = [name for name in sorted(named & set(filters)) if name in known]
    twins += [name for name in sorted(set(filters) - named) if name in known]
    notes += [f"filter {name} isn't used, and stays libvirt's alone" for name in sorted(set(filters) - known)]
    return Survey(
        guests=tuple(guests),
        filters=filters,
        xml=xml,
        used=used,
        referred=frozenset(named),
        bring=tuple(bring),
        twins=tuple(twins),
        faults=tuple(faults),
        ignored=tuple(_ignored(used)),
        direct=tuple(_direct(guests, domains)),
        notes=tuple(notes),
    )


def is_twin_xml(xml: str) -> bool:
    """Whether it is a twin."""
    try:
        return is_twin(parse_filter(xml.encode(), "libvirt"))
    except InputError:
        return False


def _domain(host: Host, guest: LibvirtGuest, faults: list[str]) -> Domain | None:
    try:
        return read_domain(host, guest.xml, f"domain XML of {guest.name}", tolerant=guest.running)
    except NwfilterHookError as error:
        faults.append(str(error))
        return None


def _closure(names: Iterable[str], filters: Mapping[str, Filter]) -> Iterator[str]:
    todo, seen = list(names), set[str]()
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            yield name
            todo += referred(filters[name]) if name in filters else []


def _leaves_first(names: Iterable[str], filters: Mapping[str, Filter]) -> list[str]:
    found: list[str] = []

    def visit(name: str, above: tuple[str, ...]) -> None:
        if name not in filters or name in found or name in above:
            return
        for inner in referred(filters[name]):
            visit(inner, (*above, name))
        found.append(name)

    for name in sorted(names):
        visit(name, ())
    return found


def _is_brought(host: Host, definition: Filter, notes: list[str]) -> bool:
    """Whether the library needs libvirt's filter: it has none of the name, or a stock one that says something else."""
    name = definition.name
    try:
        ours = host.library.read(name, NOWHERE)
    except NwfilterHookError:
        return not is_twin(definition)
    if is_twin(definition) or same_rules(ours, definition):
        return False
    if host.library.paths(name)[0].startswith(host.library.directories[0] + os.sep):
        notes.append(f"filter {name}: the library has its own, which says something else than libvirt's; it counts")
        return False
    return not _is_libvirts_stock(definition)


def _is_libvirts_stock(definition: Filter) -> bool:
    """Whether it is as libvirt ships it: ours of that name has the same verdicts."""
    path = os.path.join(LIBVIRTS_STOCK, f"{definition.name}.xml")
    try:
        with open(path, "rb") as file:
            return same_rules(parse_filter(file.read(), path), definition)
    except (OSError, InputError):
        return False


def _uncompilable(host: Host, guest: LibvirtGuest, domain: Domain | None) -> Iterator[str]:
    """Why the guest can't have its filters from the library; nothing of the kernel is changed."""
    if domain is None:
        return
    if domain.problem:
        yield f"{guest.name}: {domain.problem}"
    try:
        if guest.running:
            for tap, error in compile_domain(host, domain, tolerant=True).failed:
                yield f"{guest.name}: {tap}: {error}"
        else:
            check_domain(host, domain)
    except NwfilterHookError as error:
        yield f"{guest.name}: {error}"


def _ignored(names: Iterable[str]) -> Iterator[str]:
    """What our parser has against libvirt's files: libvirt has gone over it without a word."""
    for name in sorted(names):
        path = os.path.join(LIBVIRTS_FILES, f"{name}.xml")
        try:
            with open(path, "rb") as file:
                parse_filter(file.read(), path)
        except OSError:
            continue
        except InputError as error:
            yield from error.lines()


def _direct(guests: Iterable[LibvirtGuest], domains: Mapping[str, Domain | None]) -> Iterator[Direct]:
    for guest in guests:
        domain = domains[guest.uuid]
        for interface in domain.interfaces if domain else ():
            if interface.type == "direct" and not interface.reference and not interface.problem:
                yield Direct(guest, interface.mac)
