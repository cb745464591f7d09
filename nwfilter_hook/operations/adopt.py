"""
Take over a host from libvirt's own nwfilter driver, and give it back.

In:  a `Host`, libvirt, what the survey has found.
Out: guests that run are under rules of ours, then libvirt's filters are twins and its rules go; or the other way round.

    adopt    1 filters into the library   2 guests under our rules   3 that is verified   4 libvirtd knows the hook
             5 twins: libvirt drops its rules
    unadopt  1 libvirt's filters as they were: its rules are there   2 our rules go, tap by tap that libvirt filters

At every step a tap has the rules of at least one of both. Each step can be done again: who was killed begins anew. A
guest that starts meanwhile gets our rules by the hook, and libvirt's as long as there are any.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timezone

from ..base.dataclass import replace
from ..base.errors import NwfilterHookError, UpdateError
from ..domain.parse import parse_domain
from ..filters.format import format_filter
from ..filters.twins import twin_of
from ..host import Host
from ..libvirtd import LibvirtGuest, LibvirtManager
from ..ruleset.model import Attachment
from ..storage import adopted
from ..storage.adopted import Report
from .adopt_survey import METADATA_URI, Survey, is_twin_xml
from .define import define, undefine
from .hooked import hook_known
from .removal import remove
from .resync import FAILED, Seen, device_indexes, follow
from .show import read_service
from .verify import find_differences

Step = Callable[[str, int, int], None]
"""Called before each piece of work: what it is, how many are done of how many."""


def adopt(host: Host, libvirt: LibvirtManager, found: Survey, step: Step, *, direct: str = "") -> Report:
    """
    Take over; adopted.alone() is held.

    Args:
        direct: the filter for interfaces of type direct that nothing filters; "" leaves them so.

    Raises:
        UpdateError: a guest isn't under rules of ours; libvirt's filters are as they were.
        LibvirtError: libvirt refuses; what is done stays, and can be gone on with.
        NftError, StateError: kernel or disk refuse.
    """
    if found.faults:
        raise UpdateError(f"nothing was done: {found.faults[0]}")
    earlier = adopted.read_report()
    report = Report(
        at=_now(),
        state="adopting",
        uri=host.config.uri,
        brought=_union(earlier.brought if earlier else (), (each.name for each in found.bring)),
        twins=_union(earlier.twins if earlier else (), found.twins),
        direct=earlier.direct if earlier else (),
        guests=tuple(each.name for each in found.guests if each.running),
        notes=(*found.notes, *found.ignored),
    )
    adopted.write_report(report)
    for done, definition in enumerate(found.bring):
        step(f"filter {definition.name}", done, len(found.bring))
        define(host, format_filter(definition).encode(), f"libvirt's {definition.name}")
    host = replace(host, library=host.library.read_anew())
    if direct:
        report = _give_metadata(libvirt, found, direct, report, step)
    seen: dict[str, Seen | None] = {}
    _follow_all(host, libvirt, step, seen)
    if not hook_known():
        raise UpdateError(
            f"{len(report.guests)} guests are under rules of ours, and of libvirt's; libvirtd hasn't seen the hook yet,"
            " so a guest that starts would have none: restart libvirtd (guests go on), then run adopt again"
        )
    _twins(libvirt, found, step)
    _follow_all(host, libvirt, step, seen)  # who has started meanwhile, without a hook
    report = replace(report, at=_now(), state="adopted")
    adopted.write_report(report)
    return report


def _follow_all(host: Host, libvirt: LibvirtManager, step: Step, seen: dict[str, Seen | None]) -> None:
    """
    Every guest that runs is under our rules, and the kernel has them as recorded. Raises UpdateError.

    Args:
        seen: by what each was followed last, by UUID; filled.
    """
    running = [each for each in libvirt.guests() if each.running]
    devices = device_indexes()
    for done, guest in enumerate(running):
        step(f"guest {guest.name}", done, len(running))
        followed = follow(host, libvirt, guest.uuid, guest.name, seen.get(guest.uuid), devices)
        seen[guest.uuid] = followed.seen
        if followed.outcome == FAILED:
            raise UpdateError(f"{guest.name} could not be put under rules of ours: {followed.error}")
    uuids = {each.uuid for each in running}
    for difference in find_differences(host):
        if difference.uuid in uuids:
            raise UpdateError(f"{difference.guest}: {difference.tap}: {'; '.join(difference.texts)}")
    for record in host.state.records():
        for binding in record.bindings:
            if binding.quarantined and record.uuid in uuids:
                raise UpdateError(f"{record.guest}: {binding.tap} is quarantined; see the journal")
    missing = [f"{each.name} ({', '.join(taps)})" for each in running for taps in [_unfiltered(host, each)] if taps]
    if missing:
        raise UpdateError(f"no rules of ours for {'; '.join(missing)}")


def _unfiltered(host: Host, guest: LibvirtGuest) -> list[str]:
    """Taps that refer to a filter and have no record."""
    record = host.state.read(guest.uuid)
    recorded = {each.called for each in record.bindings} | {each.tap for each in record.bindings} if record else set()
    domain = parse_domain(guest.xml, guest.name, host.config.defaults, tolerant=True)
    return [each.tap for each in domain.interfaces if each.reference and each.tap and each.tap not in recorded]


def _twins(libvirt: LibvirtManager, found: Survey, step: Step) -> None:
    for name in found.twins:
        if not is_twin_xml(found.xml[name]):
            adopted.keep_original(name, found.xml[name])
    for done, name in enumerate(found.twins):
        step(f"twin {name}", done, len(found.twins))
        if not is_twin_xml(found.xml[name]):
            libvirt.define_filter(twin_of(found.filters[name]))


def _give_metadata(libvirt: LibvirtManager, found: Survey, name: str, report: Report, step: Step) -> Report:
    macs: dict[str, list[str]] = {}
    for each in found.direct:
        macs.setdefault(each.guest.uuid, []).append(each.mac)
    for done, (uuid, of_guest) in enumerate(macs.items()):
        step(f"metadata of {uuid}", done, len(macs))
        if METADATA_URI.encode() in next(each.xml for each in found.guests if each.uuid == uuid):
            raise UpdateError(f"guest {uuid} has metadata of ours already: add its interfaces of type direct there")
        report = replace(report, direct=_union(report.direct, [uuid]))
        adopted.write_report(report)
        interfaces = "".join(f"<interface mac='{mac}'><filterref filter='{name}'/></interface>" for mac in of_guest)
        libvirt.set_metadata(uuid, f"<bindings>{interfaces}</bindings>", METADATA_URI)
    return report


# --- back -------------------------------------------------------------------------------------------------------------


def unadopt(host: Host, libvirt: LibvirtManager, step: Step) -> Report:
    """
    Give back; adopted.alone() is held. What libvirt can't filter (direct, defaults, floors) keeps our rules, and a note
    says so.

    Raises:
        UpdateError: nothing was adopted, or the service would put our rules back. LibvirtError: libvirt refuses a
            filter; our rules stay.
    """
    report = adopted.read_report()
    if report is None or report.state == "given back":
        raise UpdateError("nothing is adopted here")
    service = read_service(host)
    if service and service.running:
        raise UpdateError("the service would put everything back: systemctl disable --now nwfilter-hook-watch")
    notes: list[str] = []
    report = replace(report, at=_now(), state="giving back", notes=())
    adopted.write_report(report)
    notes += _restore_filters(libvirt, step)
    filtered = libvirt.filtered_taps()
    twins = {name for name, xml in libvirt.filters().items() if is_twin_xml(xml)}
    for uuid in report.direct:
        _take_metadata(libvirt, uuid, notes)
    theirs = {tap for tap, name in filtered.items() if name not in twins}
    notes += _remove_ours(host, theirs, frozenset(report.direct), step)
    for name in reversed(report.brought):
        try:
            undefine(host, name)
        except NwfilterHookError as error:
            notes.append(f"filter {name} stays in the library: {error}")
    for name in adopted.originals():
        adopted.drop_original(name)
    report = replace(report, at=_now(), state="given back", notes=tuple(notes))
    adopted.write_report(report)
    return report


def _restore_filters(libvirt: LibvirtManager, step: Step) -> Iterator[str]:
    """Those that guests refer to come last: libvirt makes its rules once, when all that they lead to is there."""
    now, before = libvirt.filters(), adopted.originals()
    direct = set(libvirt.filtered_taps().values())
    order = sorted(before, key=lambda name: (name in direct, name))
    for done, name in enumerate(order):
        step(f"libvirt's {name}", done, len(order))
        if name in now and not is_twin_xml(now[name]):
            if now[name] != before[name]:
                yield f"filter {name} of libvirt is no twin any more; it is left alone"
            continue
        libvirt.define_filter(before[name])


def _remove_ours(host: Host, theirs: set[str], direct: frozenset[str], step: Step) -> Iterator[str]:
    """`direct`: guests whose interfaces of type direct had no filter before."""
    records = host.state.records()
    for done, record in enumerate(records):
        step(f"guest {record.guest}", done, len(records))
        given = {
            each.tap for each in record.bindings if each.attachment is Attachment.MACVTAP and record.uuid in direct
        }
        own = [binding.tap for binding in record.bindings if binding.tap not in theirs | given]
        if own:
            yield f"{record.guest}: {', '.join(own)}: libvirt has no rules there; ours stay, for all of the guest"
        else:
            remove(host, record.uuid)


def _take_metadata(libvirt: LibvirtManager, uuid: str, notes: list[str]) -> None:
    try:
        libvirt.set_metadata(uuid, None, METADATA_URI)
    except NwfilterHookError as error:
        notes.append(f"the metadata of guest {uuid} stay: {error}")


def _union(*lists: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for each in lists for name in each))


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
