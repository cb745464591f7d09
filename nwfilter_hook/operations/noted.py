"""
Notes of what our own transactions and looks have found, for unchanged.py; the lock is held.

In:  a `Host`, records, generations of the ruleset. Out: `seen` in the state directory is what is now known; a note that
can't be written is none, and then what is noted is older than the ruleset and holds no more.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from ..base.errors import NftError, StateError
from ..host import Host
from ..storage.records import Record
from ..storage.seen import NAME, NOTHING, Seen, SeenGuest, read_seen, stamp_of
from .unchanged import LOOKED_S, devices_of, now_s, stands

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..domain.model import Domain


def note_applied(
    host: Host, records: Iterable[Record], settled: Iterable[str], before: int, after: int, *, put_back: bool = False
) -> None:
    """
    A transaction of ours has made `after` of the generation `before`; the records are written.

    Args:
        settled: taps of which it has put everything in force.
        put_back: the guests want what they wanted before.
    """
    ruleset = host.backend.namespace()
    known = read_seen(host.state.path)
    if not ruleset:
        return
    same = known if known and known.ruleset == ruleset else None
    seen = _now(host, known, ruleset, before)
    seen.generation = after
    taps = set(settled)
    for record in records:
        old = same.guests.get(record.uuid) if same else None
        kept = seen.guests.pop(record.uuid, None)
        whole = taps >= {binding.tap for binding in record.bindings}
        if record.bindings and (whole or (kept and kept.stamp != NOTHING)):
            stamp = stamp_of(host.state.path, record.uuid)
            entry = SeenGuest(stamp, old.event, old.devices) if old and put_back else SeenGuest(stamp)
            seen.guests[record.uuid] = entry
    _write(host, seen)


def note_removed(host: Host, uuid: str, before: int, after: int) -> None:
    """A transaction of ours, which has made `after` of `before`, has taken everything of the guest away."""
    seen = read_seen(host.state.path)
    if seen and seen.generation == before and seen.ruleset == host.backend.namespace() != "":
        seen.generation = after
        seen.guests.pop(uuid, None)
        _write(host, seen)


def is_in_force(host: Host, record: Record) -> bool:
    """Whether nobody has changed anything since the kernel was seen to have what the record says."""
    seen = read_seen(host.state.path)
    known = seen.guests.get(record.uuid) if seen else None
    return bool(
        seen
        and known
        and known.stamp == stamp_of(host.state.path, record.uuid) != ""
        and all(host.state.owner(binding.tap) == record.uuid for binding in record.bindings)
        and seen.ruleset == host.backend.namespace() != ""
        and seen.generation == host.backend.generation()
    )


def note_in_force(host: Host, domain: Domain, record: Record, event: str, generation: int) -> None:
    """
    At this generation the kernel has what the guest's record says, and that is what the guest asks for.

    Args:
        event: digest of what it asks for, "" if that isn't known.
    """
    ruleset = host.backend.namespace()
    if not ruleset:
        return
    seen = _now(host, read_seen(host.state.path), ruleset, generation)
    stamp = stamp_of(host.state.path, record.uuid)
    taps = {binding.tap for binding in record.bindings}
    # of an interface that isn't in the record nobody would see that its device has changed
    whole = {(each.tap, each.called or each.tap) for each in domain.interfaces} == {(tap, tap) for tap in taps}
    if event and whole and not domain.problem:
        seen.guests[record.uuid] = SeenGuest(stamp, event, devices_of(taps))
    else:
        seen.guests[record.uuid] = SeenGuest(stamp, NOTHING, NOTHING)
    _write(host, seen)


def has_been_seen(host: Host, event: str) -> bool:
    """Whether, while we waited for the lock, somebody has seen that all is as this event wants it."""
    seen = read_seen(host.state.path)
    try:
        return seen is not None and stands(host.config, seen, event)
    except OSError:
        return False


def shall_look_around(host: Host) -> bool:
    """Whether it is time to look for ways past the filters of all taps; if so, that is noted."""
    seen = read_seen(host.state.path)
    try:
        ruleset, generation = host.backend.namespace(), host.backend.generation()
    except NftError:
        return True
    if not ruleset:
        return True
    if seen and seen.ruleset == ruleset:
        if 0 <= now_s() - seen.looked_s < LOOKED_S:
            return False
        seen.looked_s = now_s()
    else:
        seen = Seen(ruleset, generation, now_s(), {})
    _write(host, seen)
    return True


def _now(host: Host, known: Seen | None, ruleset: str, generation: int) -> Seen:
    """What is known of the ruleset at this generation; if that is another one, only what guests have asked for."""
    if known is None or known.ruleset != ruleset:
        return Seen(ruleset, generation, 0, {})
    if known.generation == generation:
        return known
    there = {uuid: each for uuid, each in known.guests.items() if stamp_of(host.state.path, uuid)}
    asked = {uuid: SeenGuest(NOTHING, each.event, each.devices) for uuid, each in there.items()}
    return Seen(ruleset, generation, known.looked_s, asked)


def _write(host: Host, seen: Seen) -> None:
    with contextlib.suppress(StateError):
        host.state.write(NAME, seen.text())
