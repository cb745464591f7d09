"""
What is installed, for people and programs: the records beside what the kernel shows.

In:  a `Host`.
Out: a `TapView` for each tap under filter.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from ..backend import Seen
from ..base.dataclass import as_dict, dataclass
from ..host import Host
from ..ruleset.model import Attachment
from ..storage.records import Binding, Record
from ..storage.watching import Watching, read_watching
from .bypasses import Bypass, find_bypasses
from .devices import Whereabouts, locate, without_ingress
from .reconnect import OLD_RULES_STAY


@dataclass(frozen=True)
class TapView:
    """
    One tap under filter.

    Attributes:
        floor: the filter that the configuration has for all of its bridge, FILTER NAME=VALUE …; "" without one.
        filter: "" for an interface that names none, which is known for the guard's sake.
        state: "held: …" (see held.py), "in force", "in force, but …" (its filter is another now, and the service, which
            runs, was refused it), "quarantined", "missing" (what the record names is not in
            the kernel), "passes all: it names no filter" or "cut off: …", or what became of the device since: one of
            `Whereabouts`.
        device: what the device is called now; None if it is gone or can't be told.
        bypasses: ways past the filter that root, or another program of root's, has put onto the tap.
        learned: the addresses that the kernel has learned.
        learned_since: of those of which the kernel tells it, ISO 8601 in UTC.
        unread: addresses in DHCP answers to the guest that taught nothing, since their type could not be read.
        dropped: packets that its drop and reject rules counted; None if they don't count.
        drops: the same by FILTER:LINE, of rules that have dropped any.
        since, event: when its record was written last (ISO 8601 in UTC), and what for: libvirt's operation, `resync` if
            no hook was told, `binding-create`.
        full: FILTER:LINE of rules that count connections and have no room for a further source, whom they shut out.
    """

    guest: str
    uuid: str
    tap: str
    mac: str
    filter: str
    parameters: Mapping[str, tuple[str, ...]]
    floor: str
    attachment: str
    state: str
    device: str | None
    bypasses: tuple[Bypass, ...]
    learned: tuple[str, ...]
    learned_since: Mapping[str, str]
    unread: tuple[str, ...]
    chains: tuple[str, ...]
    dropped: int | None
    drops: Mapping[str, int]
    full: tuple[str, ...]
    since: str
    event: str

    def as_json(self) -> dict[str, Any]:
        """For `show --json`; the keys are a contract."""
        found: dict[str, Any] = as_dict(self)
        return found


def read_views(host: Host) -> list[TapView]:
    """
    Every tap under filter, by guest, taps in the order of the guest's XML.

    Raises:
        NftError: the kernel can't be asked.
    """
    records = host.state.records()
    bindings = [(record, binding) for record in records for binding in record.bindings]
    seen = host.backend.look([binding.installed for _, binding in bindings])
    filtered = [binding for _, binding in bindings if not binding.unfiltered]
    service = read_service(host)
    said = service.refused if service and service.running else ()
    refused = {tap for tap, _, text in (line.partition(": ") for line in said) if text.startswith(OLD_RULES_STAY)}
    bypasses = find_bypasses(*(binding.tap for binding in filtered))
    ports = [binding for binding in filtered if binding.attachment is Attachment.BRIDGE_PORT]
    if ports and not host.backend.sees_ingress():
        bypasses += tuple(Bypass(each.tap, "reserved-destinations", without_ingress(each.bridge)) for each in ports)
    return [
        _view(
            record,
            binding,
            seen[binding.tap],
            tuple(each for each in bypasses if each.tap == binding.tap),
            host.state.written_s(record.uuid),
            refused=binding.tap in refused,
        )
        for record, binding in bindings
    ]


def _view(
    record: Record, binding: Binding, seen: Seen, bypasses: tuple[Bypass, ...], written_s: float, *, refused: bool
) -> TapView:
    since = {each.address: each.since_s for each in seen.learned if each.since_s is not None}
    where, device = locate(binding.tap, binding.index, binding.attachment, binding.bridge)
    state = "missing" if seen.missing else "quarantined" if binding.quarantined else "in force"
    if refused and state == "in force":
        state = "in force, but its filter is refused now"
    if binding.unfiltered and not seen.missing:
        state = f"{'cut off' if binding.quarantined else 'passes all'}: it names no filter"
    if where is not Whereabouts.THERE:
        state = where.value
    if binding.held and not seen.missing:
        state = "held: nobody has decided about it" if device else "held: it isn't there yet"
    return TapView(
        guest=record.guest,
        uuid=record.uuid,
        tap=binding.tap,
        mac=binding.mac,
        filter=binding.filter,
        parameters=binding.parameters,
        floor=binding.floor,
        attachment=binding.attachment.value,
        state=state,
        device=device.name if device else None,
        bypasses=bypasses,
        learned=tuple(each.address for each in seen.learned),
        learned_since={address: _iso(at) for address, at in since.items()},
        unread=seen.unread,
        chains=binding.installed.names("chain"),
        dropped=None if seen.dropped is None else sum(seen.dropped.values()),
        drops={rule: count for rule, count in (seen.dropped or {}).items() if count},
        full=seen.full,
        since=_iso(written_s),
        event=record.operation,
    )


def _iso(at: float) -> str:
    return datetime.fromtimestamp(int(at), timezone.utc).isoformat()


def read_service(host: Host) -> Watching | None:
    """What the service tells; None if none has run since the host was started."""
    return read_watching(host.config.state_dir)


def format_service(found: Watching | None) -> list[str]:
    """Lines for people."""
    if found is None:
        return []
    runs = f"runs since {_local(found.since)}, process {found.pid}" if found.running else "does NOT run any more"
    lines = [f"watch: {runs}; libvirt: {found.libvirt}"]
    resynced, drifted = found.resynced, found.drifted
    if resynced:
        failed = f", {resynced.failed} of which failed" if resynced.failed else ""
        lines.append(
            f"watch: {resynced.guests} guests looked at until {_local(resynced.at)}, in {resynced.ms} ms{failed}"
        )
    if drifted:
        by = f" by {', '.join(drifted.who)}" if drifted.who else ""
        back = "NOT all are back" if drifted.ms is None else f"back after {drifted.ms} ms"
        lines.append(f"watch: rules of {drifted.taps} taps changed{by} at {_local(drifted.at)}, {back}")
    return [*lines, *(f"watch: {line}" for line in found.refused)]


def _local(iso: str) -> str:
    return f"{datetime.fromisoformat(iso).astimezone():%Y-%m-%d %H:%M:%S}"


def format_state(view: TapView) -> str:
    """For a table: "in force", what gets past, and what has no room."""
    renamed = f" to {view.device}" if view.state == Whereabouts.RENAMED.value else ""
    passed = ["bypassed: " + ", ".join(dict.fromkeys(each.way for each in view.bypasses))] if view.bypasses else []
    return "; ".join([view.state + renamed, *passed, *(f"full: {rule}" for rule in view.full)])


def format_since(view: TapView) -> str:
    """For a table: "2026-11-23 12:00:05 by start", when and by which event it got its rules, in local time."""
    return f"{_local(view.since)} by {view.event}"


def format_learned(view: TapView) -> str:
    """For a table: "10.0.0.7 since 2026-11-23 12:00:05", in local time; "-" where nothing is learned."""
    found = []
    for address in view.learned:
        since = view.learned_since.get(address)
        when = f" since {_local(since)}" if since else ""
        found.append(f"{address}{when}")
    found += [f"DHCP answer with {address} not understood" for address in view.unread]
    return ", ".join(found) or "-"
