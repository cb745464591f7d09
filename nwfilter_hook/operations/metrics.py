"""
What there is to measure: taps, drops, learned addresses, connections, transactions, repairs, refusals, the service.

In:  a `Host`; libvirt isn't asked, nothing is changed.
Out: families of samples in Prometheus' terms (https://prometheus.io/docs/practices/naming/); exposition.py writes them.

How many series there are is bounded: states, operations and reasons are short lists; of what has a tap's name there are
a few for each tap; and of drops, which have a rule's place too, at most `MAX_SERIES`: a host with more gets sums by tap
and filter, by tap, or by guest. A rule that has dropped nothing has no series.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime

from .. import __version__
from ..base.dataclass import dataclass
from ..base.errors import NwfilterHookError
from ..guards import Refused
from ..host import Host
from ..network.tracked import tracked
from ..storage.tallies import REFUSED, REPAIRED, TRANSACTIONS, Labels, Tally
from ..storage.watching import Watching
from .devices import Whereabouts
from .guard import Status, read_status
from .show import TapView, read_service, read_views

PREFIX = "nwfilter_hook_"
MAX_SERIES = 5000
MAX_GUARDED = 200
"""Interfaces that the guard tells apart."""
STATES = (
    *("in force", "quarantined", "missing", "held", "passes all", "cut off"),
    *(each.value for each in Whereabouts if each is not Whereabouts.THERE),
)
_WELL = ("in_force", "passes_all", "held")
DROP_LABELS = ("guest", "tap", "filter", "line")
_UP = "Whether the kernel could be asked what it has."


@dataclass(frozen=True)
class Sample:
    """A value, or what was counted and measured, under the values of its family's labels."""

    labels: tuple[str, ...]
    value: float
    tally: Tally | None = None


@dataclass(frozen=True)
class Family:
    """
    Attributes:
        name: without the ending that its kind has (_total).
        kind: gauge, counter, or histogram (of seconds, by `BUCKETS_S`).
    """

    name: str
    kind: str
    help: str
    labels: tuple[str, ...]
    samples: tuple[Sample, ...]


def read_families(host: Host) -> list[Family]:
    """Everything; where the kernel can't be asked, what is left, and `up` is 0."""
    try:
        views = read_views(host)
    except NwfilterHookError:
        views = None
    found = [
        _one("info", "The version that runs, as a label; always 1.", 1, ("version", __version__)),
        _one("up", _UP, views is not None),
    ]
    if views is not None:
        found += _of_taps(views)
        with contextlib.suppress(NwfilterHookError):
            found += _of_guard(read_status(host), host.backend.guard.refused() if host.guard else {})
    found += _of_connections()
    found += _of_tallies(host.state.tallies.read())
    found += _of_service(read_service(host))
    return found


def down() -> list[Family]:
    """What there is to tell where the configuration can't be read."""
    return [_one("up", _UP, 0)]


def _family(kind: str, name: str, help: str, labels: Sequence[str], samples: Iterable[Sample]) -> Family:
    return Family(PREFIX + name, kind, help, tuple(labels), tuple(samples))


def _one(name: str, help: str, value: float, label: tuple[str, str] | None = None) -> Family:
    """A gauge of one sample."""
    names, values = ((label[0],), (label[1],)) if label else ((), ())
    return _family("gauge", name, help, names, [Sample(values, float(value))])


def _word(state: str) -> str:
    return state.partition(":")[0].replace(" ", "_")


# --- taps -------------------------------------------------------------------------------------------------------------


def _of_taps(views: Sequence[TapView]) -> Iterator[Family]:
    yield _one("guests", "Guests that have taps under filter.", len({view.uuid for view in views}))
    states = Counter(_word(view.state) for view in views)
    by_state = (Sample((state,), states[state]) for state in map(_word, STATES))
    yield _family(
        "gauge", "taps", "Taps under filter, by what has become of their rules and devices.", ("state",), by_state
    )
    ways = sorted({(view.guest, view.tap, bypass.way) for view in views for bypass in view.bypasses})
    text = "Taps past whose filter frames may go; 1 for each way."
    yield _family("gauge", "tap_bypassed", text, ("guest", "tap", "way"), (Sample(each, 1) for each in ways))
    not_so = [(view.guest, view.tap, _word(view.state)) for view in views if _word(view.state) not in _WELL]
    text = "Taps whose rules are not in force as recorded; 1 for each."
    yield _family("gauge", "tap_troubled", text, ("guest", "tap", "state"), (Sample(each, 1) for each in not_so))
    full = [(view.guest, view.tap, rule) for view in views for rule in view.full]
    text = "Rules that count connections and have no room for a further one; 1 for each."
    yield _family("gauge", "tap_full", text, ("guest", "tap", "rule"), (Sample(each, 1) for each in full))
    yield from _of_drops(views)
    learned = {
        (view.guest, view.tap, kind): sum(kind_of(address) == kind for address in view.learned)
        for view in views
        for kind in sorted({kind_of(address) for address in view.learned})
    }
    text = "Addresses that the kernel has learned of a tap."
    samples = (Sample(labels, count) for labels, count in learned.items())
    yield _family("gauge", "learned_addresses", text, ("guest", "tap", "kind"), samples)


def kind_of(address: str) -> str:
    """ipv4, ipv6 or mac."""
    return "ipv4" if "." in address else "mac" if address.count(":") == 5 and "::" not in address else "ipv6"


def _of_drops(views: Sequence[TapView]) -> Iterator[Family]:
    drops: dict[Labels, int] = {}
    for view in views:
        for rule, count in view.drops.items():
            place = rule.split(" ")[0]
            name, colon, line = place.rpartition(":")
            labels = (view.guest, view.tap, name if colon else place, line if colon else "")
            drops[labels] = drops.get(labels, 0) + count
    found, level = drops, len(DROP_LABELS)
    while len(found) > MAX_SERIES:
        level -= 1
        found = _summed(drops, level)
    text = "Packets that drop and reject rules have counted since they were made."
    yield _family("counter", "dropped_packets", text, DROP_LABELS, (Sample(*each) for each in found.items()))


def _summed(drops: Mapping[Labels, int], level: int) -> dict[Labels, int]:
    """Under the first `level` labels; the others are empty."""
    found: dict[Labels, int] = {}
    for labels, count in drops.items():
        key = (*labels[:level], *("",) * (len(labels) - level))
        found[key] = found.get(key, 0) + count
    return found


def _of_guard(found: Status, refused: Mapping[str, Refused]) -> Iterator[Family]:
    yield _one(
        "guard_on", "Whether the guard cuts off interfaces that nobody has decided about.", found.guard is not None
    )
    yield _one("guard_faults", "Things of the guard that the kernel has otherwise, or hasn't.", len(found.faults))
    yield _one("guard_unknown_ports", "Ports that it cuts off; if it is off, would cut off.", len(found.unknown))
    drops: dict[Labels, int] = {}
    for number, (tap, each) in enumerate(refused.items()):
        for direction, count in (("sent", each.sent), ("received", each.received)):
            labels = (tap if number < MAX_GUARDED else "", direction)
            drops[labels] = drops.get(labels, 0) + count
    text = "Packets that the guard has dropped, by interface and whether that sent or would have received them."
    yield _family(
        "counter", "guard_dropped_packets", text, ("tap", "direction"), (Sample(*each) for each in drops.items())
    )


# --- the host ---------------------------------------------------------------------------------------------------------


def _of_connections() -> Iterator[Family]:
    numbers = tracked()
    if numbers:
        yield _one("conntrack_entries", "Connections that the kernel tracks, the host's own among them.", numbers[0])
        yield _one("conntrack_entries_limit", "Connections that the kernel can track.", numbers[1])


def _of_tallies(tallies: Mapping[str, Mapping[Labels, Tally]]) -> Iterator[Family]:
    text = "Transactions with the kernel and the records, and how long they took."
    samples = [Sample(labels, each.count, each) for labels, each in sorted(tallies.get(TRANSACTIONS, {}).items())]
    yield _family("histogram", "transaction_duration_seconds", text, ("operation", "result"), samples)
    text = "Events that libvirt was told to refuse, by operation and what was wrong."
    yield _family("counter", "refused", text, ("operation", "reason"), _counts(tallies.get(REFUSED, {})))
    text = "Taps whose rules were not as recorded, by who saw it and whether they were put back."
    yield _family("counter", "repaired_taps", text, ("by", "result"), _counts(tallies.get(REPAIRED, {})))


def _counts(found: Mapping[Labels, Tally]) -> list[Sample]:
    return [Sample(labels, each.count) for labels, each in sorted(found.items())]


def _of_service(found: Watching | None) -> Iterator[Family]:
    yield _one("watch_up", "Whether the service runs.", bool(found and found.running))
    if found is None:
        return
    yield _one("watch_libvirt_connected", "Whether the service is connected to libvirt.", found.libvirt == "connected")
    yield _one("watch_troubled_guests", "Lines that the service has to say of guests.", len(found.refused))
    if found.resynced:
        text = "When the service has last looked at all guests."
        yield _one("watch_resync_timestamp_seconds", text, _epoch(found.resynced.at))
        yield _one("watch_resync_duration_seconds", "How long that took.", found.resynced.ms / 1000)
        yield _one("watch_resync_guests", "How many guests there were.", found.resynced.guests)
        yield _one("watch_resync_failed_guests", "How many of them could not be followed.", found.resynced.failed)
    if found.drifted:
        text = "When the service has last seen that somebody had changed rules."
        yield _one("watch_drift_timestamp_seconds", text, _epoch(found.drifted.at))


def _epoch(iso: str) -> float:
    return datetime.fromisoformat(iso).timestamp()
