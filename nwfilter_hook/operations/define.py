"""
Change filters as named objects: define, undefine, reload, as virsh's nwfilter commands do; and what that means for the
taps that use them, which are compiled anew from their records and changed in one transaction, all or none.

In:  a `Host`, and a filter's XML or name.
Out: an `Update`: what was done, or with `dry_run` what would be. An error leaves files and kernel as they were.

Rules: https://libvirt.org/formatnwfilter.html and virsh(1), nwfilter-define, nwfilter-undefine.
"""

from __future__ import annotations

import difflib
import os
import uuid as uuids
from collections.abc import Iterable, Iterator, Mapping

from ..base.dataclass import dataclass, replace
from ..base.errors import NOWHERE, InputError, NwfilterHookError, StateError, UpdateError
from ..base.said import FAILED, Said
from ..base.text import one_line
from ..filters.format import as_kept, format_filter
from ..filters.model import Filter, FilterRef
from ..host import Host
from ..storage.library import Library
from .bypasses import connections_that_go_on
from .catalogue import Definition, find_definition, read_definition, tree_of, users_of
from .removal import sweep
from .transaction import FileChange, carry_out
from .update import TapChanges, plan_update, recover
from .validate import validate

_MAX_WARNINGS = 20


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


def define(
    host: Host,
    data: bytes,
    path: str,
    *,
    dry_run: bool = False,
    expected: Mapping[str, tuple[str, bytes]] | None = None,
) -> Update:
    """
    Define or redefine the filter in `data`, and put it into force on every tap that uses it.

    Args:
        path: what to call `data` in messages.
        expected: by filter name, what `read_definition` must still say.

    Raises:
        InputError: `data` is not a filter; all its faults.
        UpdateError: another filter has its name or UUID, it would close a loop, a tap's rules can't be made from it, or
            someone else has changed what is `expected`.
        NftError, StateError: the kernel or the disk refused.
    """
    parsed = validate(data, path)
    with host.state.locked():
        if not dry_run:
            sweep(host)
        for name, before in (expected or {}).items():
            if read_definition(host, name) != before:
                where = before[0] or host.library.path_of(name)
                raise UpdateError(f"{where} was changed by someone else meanwhile; look at it before you go on")
        known = _known(host, parsed)
        uuid, notes = _identity(parsed, known)
        text, anew = as_kept(replace(parsed, uuid=uuid))
        library = host.library.with_filter(anew)
        notes += _check_references(library, anew)
        notes += _warnings(host, library, parsed)
        if known and known.source.path == host.library.path_of(anew.name) and format_filter(known) == text:
            return Update(parsed.name, (), ("nothing changes: its normal form is the same", *notes), ())
        return _put_in_force(host, library, anew.name, notes, dry_run, text=text)


def undefine(host: Host, name_or_uuid: str, *, dry_run: bool = False) -> Update:
    """
    Remove a local filter; a stock filter that it hid comes back into force.

    Raises:
        UpdateError: there is none, it is not a local one, or it is in use.
        NftError, StateError: the kernel or the disk refused.
    """
    with host.state.locked():
        if not dry_run:
            sweep(host)
        definition = find_definition(host, name_or_uuid)
        if definition.origin != "local":
            where = os.path.dirname(definition.path)
            raise UpdateError(f"filter {definition.name!r} is not a local one, it comes with {where}")
        users = users_of(host, host.library).get(definition.name, [])
        if users and not definition.shadows:
            named = ", ".join(f"{guest} ({tap})" for guest, tap in users[:5])
            more = f" and {len(users) - 5} more" if len(users) > 5 else ""
            raise UpdateError(f"filter {definition.name!r} is in use by {named}{more}")
        library = host.library.without_file(definition.name, definition.path)
        notes = _left_dangling(host, library, definition) if not definition.shadows else ()
        return _put_in_force(host, library, definition.name, notes, dry_run, text=None)


def reload(host: Host, *, dry_run: bool = False) -> Update:
    """
    Put the library into force as its files are, after they were changed by other means.

    Raises:
        UpdateError: a tap's rules can't be made; nothing has changed.
        NftError, StateError: the kernel or the disk refused.
    """
    with host.state.locked():
        if not dry_run:
            sweep(host)
        planned = plan_update(host, lambda binding: True)
        if not dry_run and planned.plan.records:
            carry_out(host, planned.plan, FileChange("", lambda: None, lambda: None), operation="reload")
        return _describe("", planned, (), _diff(host, planned) if dry_run else ())


def _known(host: Host, parsed: Filter) -> Filter | None:
    """
    The filter that has the name already.

    Raises:
        UpdateError: another one has the UUID.
    """
    known: Filter | None = None
    for name in host.library.names():
        try:
            other = host.library.read(name, NOWHERE)
        except NwfilterHookError:
            continue  # a broken file has no identity to defend; list shows it
        if name == parsed.name:
            known = other
        elif parsed.uuid and other.uuid == parsed.uuid:
            raise UpdateError(f"{parsed.source}: filter {name!r} has the uuid {parsed.uuid} already")
    return known


def _identity(parsed: Filter, known: Filter | None) -> tuple[str, tuple[str, ...]]:
    """The UUID under which the filter is stored, and what to say about it."""
    if known and known.uuid and parsed.uuid and known.uuid != parsed.uuid:
        hint = "a redefinition carries the same one, or none"
        raise UpdateError(f"{parsed.source}: filter {parsed.name!r} has the uuid {known.uuid}; {hint}")
    if parsed.uuid:
        return parsed.uuid, ()
    if known and known.uuid:
        return known.uuid, (f"no uuid given: it keeps {known.uuid}",)
    return str(uuids.uuid4()), ()


def _check_references(library: Library, anew: Filter) -> tuple[str, ...]:
    """Refuse a loop through the filter; name the references that dangle."""
    notes: list[str] = []
    trail = [anew.name]
    waiting = [_references(anew)]
    done: set[str] = set()
    while waiting:
        reference = next(waiting[-1], None)
        if reference is None:
            waiting.pop()
            done.add(trail.pop())
            continue
        name = reference.filter
        if name in trail:
            cycle = " -> ".join((*trail[trail.index(name) :], name))
            raise UpdateError(f"{reference.source}: filters would include each other: {cycle}")
        if name in done:
            continue
        try:
            inner = library.read(name, reference.source)
        except InputError as error:
            notes.append(f"warning: {error}")
        else:
            trail.append(name)
            waiting.append(_references(inner))
    return tuple(dict.fromkeys(notes))


def _warnings(host: Host, library: Library, parsed: Filter) -> tuple[str, ...]:
    """What is probably not meant in the filter; of one that doesn't compile nothing is known."""
    from .lint import interfaces_use, lint_filter

    try:
        findings = lint_filter(library.with_filter(parsed), parsed, {}, interfaces_use(host))
    except InputError:
        return ()
    told = [f"warning: {each.line}" for each in findings[:_MAX_WARNINGS]]
    if len(findings) > len(told):
        told.append(f"warning: {len(findings) - len(told)} more: nwfilter-hook lint {parsed.name}")
    return tuple(told)


def _references(definition: Filter) -> Iterator[FilterRef]:
    return (entry for entry in definition.entries if isinstance(entry, FilterRef))


def _left_dangling(host: Host, library: Library, definition: Definition) -> tuple[str, ...]:
    users = []
    for name in library.names():
        if name == definition.name:
            continue
        try:
            found = library.read(name, NOWHERE)
        except NwfilterHookError:
            continue
        if any(reference.filter == definition.name for reference in _references(found)):
            users.append(f"filter {name}")
    configured = (*host.config.defaults, *host.config.floors)
    defaults = [default for default in configured if default.filter == definition.name]
    users += [f"the configuration's {default.kind}.{default.pattern}" for default in defaults]
    return (f"warning: still referred to by {', '.join(users)}",) if users else ()


def _put_in_force(
    host: Host, library: Library, name: str, notes: tuple[str, ...], dry_run: bool, *, text: str | None
) -> Update:
    """Compile every tap whose tree holds `name`, before or after; then file and kernel together."""
    after = replace(host, library=library)
    trees: dict[str, bool] = {}

    def affected(filter_name: str) -> bool:
        if filter_name not in trees:
            trees[filter_name] = name in tree_of(host.library, filter_name) | tree_of(library, filter_name)
        return trees[filter_name]

    planned = plan_update(after, lambda binding: any(map(affected, binding.filters())))
    update = _describe(name, planned, notes, _diff(host, planned) if dry_run else ())
    if dry_run:
        return update
    files = host.library
    if text is None:
        change = FileChange("", lambda: None, lambda: files.remove(name))
    else:
        new = text
        temporary = files.temporary_of(name)
        change = FileChange(temporary, lambda: files.write_temporary(name, new), lambda: files.rename_temporary(name))
    try:
        carry_out(host, planned.plan, change, operation="define")
    except StateError:
        # if only the file was not changed, the journal says so: the kernel goes back to the old one
        try:
            recover(host)
        except NwfilterHookError as again:
            host.report(Said(f"the kernel has the new rules until the next event: {again}", FAILED))
        raise
    return update


# --- describe ---------------------------------------------------------------------------------------------------------


def _describe(name: str, planned: TapChanges, notes: Iterable[str], diff: Iterable[str]) -> Update:
    changed = tuple((change.guest, change.before.tap) for change in planned.changes)
    notes = (*notes, *connections_that_go_on(*(tap for _, tap in changed)))
    return Update(name, changed, tuple(notes), tuple(diff))


def _diff(host: Host, planned: TapChanges) -> tuple[str, ...]:
    """Each changed tap's rules, before (as they are recorded) and after."""
    lines: list[str] = []
    for change in planned.changes:
        before, after = (host.backend.statements(each.installed) for each in (change.before, change.after))
        title = one_line(f"{change.guest} {change.before.tap}")
        lines += difflib.unified_diff(before, after, f"{title} now", f"{title} then", n=1, lineterm="")
    return tuple(lines)
