"""
Filters as named objects: list, define, undefine, reload, as virsh's nwfilter commands do; and what that means for the
taps that use them, which are compiled anew from their records and changed in one transaction, all or none.

In:  a `Host`, and a filter's XML or name.
Out: an `Update`: what was done, or with `dry_run` what would be. An error leaves files and kernel as they were.

Rules: https://libvirt.org/formatnwfilter.html and virsh(1), nwfilter-define, nwfilter-undefine.
"""

from __future__ import annotations

import difflib
import os
import uuid as uuids
from collections.abc import Callable, Iterable

from .errors import InputError, NftError, NwfilterHookError, Source, UnknownFilter, UpdateError
from .filter_format import normal_form
from .filter_xml import parse_filter
from .frozen import dataclass, replace
from .host import Host
from .library import Library, read_filter_file
from .model import Filter, FilterRef
from .pipeline import sweep
from .planning import announce, commit, compile_interface, withdraw
from .rebuild import Rebuild, interface_of, plan_rebuild, recover_update
from .render import render_lines
from .resolve import filters_in_tree

_HERE = Source("library", 1)


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


@dataclass(frozen=True)
class Update:
    """
    What a change of filters did.

    Attributes:
        changed: (guest, tap) whose rules changed.
        notes: what the administrator should know: kept UUIDs, references that dangle.
        diff: the changed taps' rules before and after, as unified diff lines.
    """

    name: str
    changed: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    diff: tuple[str, ...]


# --- look -------------------------------------------------------------------------------------------------------------


def list_definitions(host: Host) -> list[Definition]:
    """Every filter of the library, by name, also those whose file is wrong."""
    users = _users(host, host.library)
    found = []
    for name in host.library.names():
        paths = host.library.paths(name)
        if not paths:
            continue
        definition: Filter | None = None
        problem = None
        try:
            definition = host.library.read(name, _HERE)
        except NwfilterHookError as error:
            problem = str(error)
        found.append(
            Definition(
                name=name,
                uuid=definition.uuid if definition else None,
                origin=_origin(host, paths[0]),
                chain=definition.chain if definition else None,
                path=paths[0],
                shadows=len(paths) > 1,
                taps=tuple(tap for _, tap in users.get(name, ())),
                problem=problem,
            )
        )
    return found


def find_definition(host: Host, name_or_uuid: str) -> Definition:
    """
    The filter of that name or UUID.

    Raises:
        UpdateError: there is none.
    """
    wanted = name_or_uuid.lower()
    found = list_definitions(host)
    for definition in found:
        if definition.name == name_or_uuid:
            return definition
    for definition in found:
        if definition.uuid == wanted:
            return definition
    raise UpdateError(f"no filter has the name or UUID {name_or_uuid!r}")


def dump_definition(host: Host, name_or_uuid: str) -> str:
    """The filter in normal form. Raises UpdateError, InputError."""
    definition = find_definition(host, name_or_uuid)
    return normal_form(_read(definition.path), definition.path)


def _origin(host: Host, path: str) -> str:
    directory = os.path.dirname(path)
    if directory == host.library.directories[0]:
        return "local"
    return "stock" if directory == host.library.directories[-1] else directory


def _users(host: Host, library: Library) -> dict[str, list[tuple[str, str]]]:
    """(guest, tap) of the taps whose tree holds a filter, by the filter's name."""
    users: dict[str, list[tuple[str, str]]] = {}
    for record in host.state.records():
        for binding in record.bindings:
            for name in _tree(library, binding.filter) if binding.filter else ():
                users.setdefault(name, []).append((record.guest, binding.tap))
    return users


def _tree(library: Library, name: str) -> frozenset[str]:
    return filters_in_tree(name, library.read)


def _read(path: str) -> bytes:
    try:
        return read_filter_file(path)
    except OSError as error:
        raise UpdateError(f"{path}: {error.strerror}") from error


# --- change -----------------------------------------------------------------------------------------------------------


def define(host: Host, data: bytes, path: str, *, dry_run: bool = False) -> Update:
    """
    Define or redefine the filter in `data`, and put it into force on every tap that uses it.

    Args:
        path: what to call `data` in messages.

    Raises:
        InputError: `data` is not a filter.
        UpdateError: another filter has its name or UUID, it would close a loop, or a tap's rules can't be made from it.
        NftError, StateError: the kernel or the disk refused.
    """
    parsed = parse_filter(data, path)
    with host.state.locked():
        sweep(host)
        uuid, notes = _identity(host, parsed)
        text = normal_form(data, path, uuid)
        stored = host.library.path_of(parsed.name)
        anew = parse_filter(text.encode(), stored)
        library = Library(host.library.directories, defined={parsed.name: anew})
        notes += _check_references(library, anew, path)
        if os.path.exists(stored) and _same_file(stored, text):
            return Update(parsed.name, (), ("nothing changes: its normal form is the same", *notes), ())
        return _put_in_force(host, library, anew.name, notes, dry_run, text=text)


def undefine(host: Host, name_or_uuid: str, *, dry_run: bool = False) -> Update:
    """
    Remove a local filter; a stock filter that it hid comes back into force.

    Raises:
        UpdateError: there is none, it is not a local one, or it is in use.
    """
    with host.state.locked():
        sweep(host)
        definition = find_definition(host, name_or_uuid)
        if definition.origin != "local":
            where = os.path.dirname(definition.path)
            raise UpdateError(f"filter {definition.name!r} is not a local one, it comes with {where}")
        users = _users(host, host.library).get(definition.name, [])
        if users and not definition.shadows:
            named = ", ".join(f"{guest} ({tap})" for guest, tap in users[:5])
            more = f" and {len(users) - 5} more" if len(users) > 5 else ""
            raise UpdateError(f"filter {definition.name!r} is in use by {named}{more}")
        library = Library(host.library.directories, hidden=frozenset((definition.path,)))
        notes = _left_dangling(library, definition) if not definition.shadows else ()
        return _put_in_force(host, library, definition.name, notes, dry_run, text=None)


def reload(host: Host, *, dry_run: bool = False) -> Update:
    """
    Put the library into force as its files are, after they were changed by other means.

    Raises:
        UpdateError: a tap's rules can't be made; nothing has changed.
        NftError, StateError: the kernel or the disk refused.
    """
    with host.state.locked():
        recover_update(host)
        sweep(host)
        rebuild = plan_rebuild(host, lambda binding: True)
        update = _describe("", rebuild, (), ())
        if not dry_run:
            _commit(host, rebuild, lambda: None)
        return update


def _identity(host: Host, parsed: Filter) -> tuple[str, tuple[str, ...]]:
    """The UUID under which the filter is stored, and what to say about it."""
    known: Filter | None = None
    for name in host.library.names():
        try:
            other = host.library.read(name, _HERE)
        except NwfilterHookError:
            continue  # a broken file has no identity to defend; list shows it
        if name == parsed.name:
            known = other
        elif parsed.uuid and other.uuid == parsed.uuid:
            raise UpdateError(f"{parsed.source}: filter {name!r} has the uuid {parsed.uuid} already")
    if known and known.uuid and parsed.uuid and known.uuid != parsed.uuid:
        hint = "a redefinition carries the same one, or none"
        raise UpdateError(f"{parsed.source}: filter {parsed.name!r} has the uuid {known.uuid}; {hint}")
    if parsed.uuid:
        return parsed.uuid, ()
    if known and known.uuid:
        return known.uuid, (f"no uuid given: it keeps {known.uuid}",)
    return str(uuids.uuid4()), ()


def _check_references(library: Library, anew: Filter, path: str) -> tuple[str, ...]:
    """Refuse a loop through the filter; name the references that dangle."""
    notes: list[str] = []

    def walk(current: Filter, trail: tuple[str, ...]) -> None:
        for reference in (entry for entry in current.entries if isinstance(entry, FilterRef)):
            name = reference.filter
            if name in (anew.name, *trail):
                cycle = " -> ".join((*trail[trail.index(name) :], name) if name in trail else (*trail, name))
                raise UpdateError(f"{path}: filters would include each other: {cycle}")
            try:
                inner = library.read(name, reference.source)
            except UnknownFilter:
                notes.append(f"warning: no filter {name!r} yet, referred to at {reference.source}")
            except InputError as error:
                notes.append(f"warning: {error}")
            else:
                walk(inner, (*trail, name))

    walk(anew, (anew.name,))
    return tuple(dict.fromkeys(notes))


def _left_dangling(library: Library, definition: Definition) -> tuple[str, ...]:
    users = []
    for name in library.names():
        if name == definition.name:
            continue
        try:
            found = library.read(name, _HERE)
        except NwfilterHookError:
            continue
        if any(isinstance(entry, FilterRef) and entry.filter == definition.name for entry in found.entries):
            users.append(name)
    return (f"warning: {', '.join(users)} refer to it",) if users else ()


def _same_file(path: str, text: str) -> bool:
    try:
        return normal_form(read_filter_file(path), path) == text
    except (OSError, NwfilterHookError):
        return False


def _put_in_force(
    host: Host, library: Library, name: str, notes: tuple[str, ...], dry_run: bool, *, text: str | None
) -> Update:
    """Compile every tap whose tree holds `name`, before or after; then file and kernel together."""
    after = replace(host, library=library)
    trees: dict[str, bool] = {}

    def affected(filter_name: str) -> bool:
        if filter_name not in trees:
            trees[filter_name] = name in _tree(host.library, filter_name) | _tree(library, filter_name)
        return trees[filter_name]

    rebuild = plan_rebuild(after, lambda binding: affected(binding.filter))
    update = _describe(name, rebuild, notes, _diff(host, rebuild) if dry_run else ())
    if dry_run:
        return update
    if text is None:
        _commit(host, rebuild, lambda: host.library.remove(name))
        return update
    temporary = host.library.write_temporary(name, text)
    try:
        _commit(host, rebuild, lambda: host.library.rename_temporary(temporary, name), temporary)
    except BaseException:
        host.library.discard(temporary)
        raise
    return update


def _commit(host: Host, rebuild: Rebuild, change_file: Callable[[], None], temporary: str = "") -> None:
    """The kernel, then the file, then the records; the journal goes round it (rebuild.py says how)."""
    if not rebuild.changes:
        change_file()
        return
    host.state.write_journal(temporary)
    try:
        announce(host, rebuild.plan)
    except NwfilterHookError:
        host.state.delete_journal()
        raise
    try:
        host.nft.apply_script(rebuild.plan.script)
    except NftError as error:
        if not error.unsure:
            withdraw(host, rebuild.plan)
            host.state.delete_journal()
        raise
    try:
        change_file()
    except NwfilterHookError:
        recover_update(host)  # the file is the old one, so the kernel goes back to it
        raise
    commit(host, rebuild.plan)
    host.state.delete_journal()


# --- describe ---------------------------------------------------------------------------------------------------------


def _describe(name: str, rebuild: Rebuild, notes: Iterable[str], diff: Iterable[str]) -> Update:
    changed = tuple((change.guest, change.binding.tap) for change in rebuild.changes)
    return Update(name, changed, tuple(notes), tuple(diff))


def _diff(host: Host, rebuild: Rebuild) -> tuple[str, ...]:
    """Each changed tap's rules, before (by the library as it is) and after."""
    lines: list[str] = []
    for change in rebuild.changes:
        try:
            compiled = compile_interface(host, interface_of(change.binding, "record"))
            before = render_lines(compiled.ruleset, "none")
        except NwfilterHookError:
            before = []
        after = render_lines(change.compiled.ruleset, "none")
        title = f"{change.guest} {change.binding.tap}"
        lines += difflib.unified_diff(before, after, f"{title} now", f"{title} then", n=1, lineterm="")
    return tuple(lines)
