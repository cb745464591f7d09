"""What is measured has names and labels that Prometheus takes, never too many; alerts ask for what there is."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from nwfilter_hook.guards import Guard, Refused
from nwfilter_hook.operations import metrics
from nwfilter_hook.operations.bypasses import Bypass
from nwfilter_hook.operations.exposition import OPENMETRICS, PROMETHEUS, exposition
from nwfilter_hook.operations.guard import Status
from nwfilter_hook.operations.metrics import MAX_SERIES, Family, kind_of
from nwfilter_hook.operations.show import TapView
from nwfilter_hook.storage.tallies import MAX_LABELS, Tallies, Tally
from nwfilter_hook.storage.watching import Drifted, Resynced, Watching

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "packaging/prometheus"
NASTY = 'a "guest"\\\n{x="y"} ü'
WATCHING = Watching(
    *(1, "0.1.0", "2026-01-01T00:00:00+00:00", True, "connected", "2026-01-01T00:00:00+00:00"),
    Resynced("2026-01-01T00:00:00+00:00", 3, 1, 250),
    Drifted("2026-01-01T00:00:00+00:00", ("nft (1)",), 2, ("x",), 5),
    ("web: no",),
)


def view(guest: str, tap: str, drops: dict[str, int], state: str = "in force", **more: object) -> TapView:
    values = {
        "guest": guest, "uuid": guest, "tap": tap, "mac": "", "filter": "clean-traffic", "parameters": {}, "floor": "",
        "attachment": "bridge-port", "state": state, "device": tap, "bypasses": (), "learned": (), "learned_since": {},
        "unread": (), "chains": (), "dropped": sum(drops.values()), "drops": drops, "full": (),
        "since": "", "event": "start",
    }  # fmt: skip
    return TapView(**{**values, **more})  # type: ignore[arg-type]


def families(views: list[TapView], tallies: Tallies | None = None) -> list[Family]:
    """As read_families puts them together."""
    found = list(metrics._of_taps(views))
    found += metrics._of_tallies(tallies.read() if tallies else {})
    guarded = Status(Guard("taps"), None, ("x",), ())
    found += metrics._of_guard(guarded, {"vnet7": Refused(3, 1), **{f"t{n}": Refused(1, 0) for n in range(250)}})
    return [*found, *metrics._of_service(WATCHING), *metrics.down()]


def counted(found: Tallies) -> Tallies:
    """Something of everything."""
    found.add("transactions", "start", "done", seconds=0.03)
    found.add("transactions", "start", "done", seconds=70)
    found.add("transactions", "remove", "failed", seconds=0.01)
    found.add("refused", "start", "UnknownFilter")
    found.add("repaired", "verify", "done", count=7)
    return found


@pytest.fixture
def tallies(tmp_path: Path) -> Tallies:
    return counted(Tallies(str(tmp_path / "state")))


VIEWS = [
    view("web", "vnet0", {"clean-traffic:22": 5, "f:3": 1}, learned=("10.0.0.1", "fe80::1", "52:54:00:00:00:01")),
    view(NASTY, "vnet1", {"clean-traffic:22": 2}, "replaced by another device", full=("connections", "f:7")),
    view("db", "vnet2", {}, bypasses=(Bypass("vnet2", "xdp", "text"), Bypass("vnet2", "xdp", "text"))),
]


def test_both_formats_say_the_same(tallies: Tallies) -> None:
    """Whatever a guest is called; parsers of both take it."""
    found = families(VIEWS, tallies)
    new = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parse_openmetrics(exposition(found, OPENMETRICS).decode())  # type: ignore[no-untyped-call]
        for sample in family.samples
    }
    old = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parse_text(exposition(found, PROMETHEUS).decode())
        for sample in family.samples
    }
    assert new == old
    drop = dict(new)[
        (
            "nwfilter_hook_dropped_packets_total",
            (("filter", "clean-traffic"), ("guest", "web"), ("line", "22"), ("tap", "vnet0")),
        )
    ]
    assert drop == 5
    assert new[("nwfilter_hook_taps", (("state", "in_force"),))] == 2
    assert (
        new[
            (
                "nwfilter_hook_tap_troubled",
                (("guest", NASTY), ("state", "replaced_by_another_device"), ("tap", "vnet1")),
            )
        ]
        == 1
    )
    assert new[("nwfilter_hook_tap_bypassed", (("guest", "db"), ("tap", "vnet2"), ("way", "xdp")))] == 1
    assert new[("nwfilter_hook_refused_total", (("operation", "start"), ("reason", "UnknownFilter")))] == 1
    assert new[("nwfilter_hook_repaired_taps_total", (("by", "verify"), ("result", "done")))] == 7
    base = "nwfilter_hook_transaction_duration_seconds"
    drops = [value for (name, _), value in new.items() if name == "nwfilter_hook_guard_dropped_packets_total"]
    assert (len(drops), sum(drops), max(drops)) == (2 * metrics.MAX_GUARDED + 2, 254, 51), (
        "and 51 that aren't told apart"
    )
    assert new[("nwfilter_hook_guard_dropped_packets_total", (("direction", "sent"), ("tap", "vnet7")))] == 3
    labels = (("operation", "start"), ("result", "done"))
    assert (new[(f"{base}_count", labels)], new[(f"{base}_sum", labels)]) == (2, 70.03)
    buckets = [new[(f"{base}_bucket", (("le", le), *labels))] for le in ("0.025", "0.05", "10.0", "+Inf")]
    assert buckets == [0, 1, 1, 2]
    assert new[("nwfilter_hook_watch_resync_timestamp_seconds", ())] == 1767225600
    assert new[("nwfilter_hook_watch_resync_duration_seconds", ())] == 0.25


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("10.0.0.1", "ipv4"),
        ("fe80::1", "ipv6"),
        ("2001:db8:1:2:3:4:5:6", "ipv6"),
        ("52:54:00:aa:bb:cc", "mac"),
        ("::1:2:3:4", "ipv6"),
    ],
)
def test_kinds_of_addresses(address: str, kind: str) -> None:
    assert kind_of(address) == kind


@pytest.mark.parametrize(
    ("guests", "taps", "rules", "left"),
    [
        (10, 1, 10, ("guest", "tap", "filter", "line")),
        (600, 1, 10, ("guest", "tap", "filter")),
        (300, 10, 5, ("guest", "tap")),
        (300, 20, 1, ("guest",)),
        (MAX_SERIES + 1, 1, 1, ()),
    ],
)
def test_never_too_many_series(guests: int, taps: int, rules: int, left: tuple[str, ...]) -> None:
    """A host with more gets sums, of everything."""
    views = [
        view(f"g{g}", f"t{g}-{t}", {f"{'f' if taps == 1 else rule}:{rule}": 2 for rule in range(rules)})
        for g in range(guests)
        for t in range(taps)
    ]
    (family,) = metrics._of_drops(views)
    assert 0 < len(family.samples) <= MAX_SERIES
    assert sum(sample.value for sample in family.samples) == guests * taps * rules * 2
    used = {name for sample in family.samples for name, value in zip(family.labels, sample.labels) if value}
    assert used == set(left)


# --- tallies ----------------------------------------------------------------------------------------------------------


def test_tallies_are_bounded(tmp_path: Path) -> None:
    """Whatever an operation is called; and one label stays one."""
    tallies = Tallies(str(tmp_path))
    for number in range(MAX_LABELS + 50):
        tallies.add("refused", f"an operation {number}", "X")
    found = tallies.read()["refused"]
    assert len(found) == MAX_LABELS + 1
    assert found[("other", "other")].count == 50
    assert found[("an-operation-3", "X")].count == 1


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"refused": 7}', '{"refused": {"a b": [1, 2]}}', '{"refused": {"a b": "x"}}']
)
def test_a_damaged_file_is_begun_anew(tmp_path: Path, text: str) -> None:
    tallies = Tallies(str(tmp_path))
    (tmp_path / "tallies.json").write_text(text)
    assert tallies.read() == {}
    tallies.add("refused", "start", "X")
    assert tallies.read() == {"refused": {("start", "X"): Tally(1, 0.0, (0,) * 11)}}


def test_who_cannot_count_goes_on(tmp_path: Path) -> None:
    """A directory that is a file, that others may write to, a link: nothing is raised, or written."""
    (tmp_path / "file").write_text("")
    Tallies(str(tmp_path / "file")).add("refused", "start", "X")
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    Tallies(str(open_to_all)).add("refused", "start", "X")
    assert list(open_to_all.iterdir()) == []
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "~tallies.json").symlink_to(tmp_path / "victim")
    Tallies(str(linked)).add("refused", "start", "X")
    assert not (tmp_path / "victim").exists()
    Tallies("/proc/none/of/it").add("refused", "start", "X")


def test_nobody_waits_for_a_number(tmp_path: Path) -> None:
    """Somebody has the lock for ever; others count all the same at the same time."""
    import fcntl
    import threading

    tallies = Tallies(str(tmp_path))
    threads = [threading.Thread(target=tallies.add, args=("refused", "start", "X")) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    before = tallies.read()["refused"][("start", "X")].count
    assert 1 <= before <= 8
    with (tmp_path / "tallies.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        tallies.add("refused", "start", "X")
    assert tallies.read()["refused"][("start", "X")].count == before


# --- alerts, dashboard ------------------------------------------------------------------------------------------------


def names_in(expressions: Iterator[str]) -> set[str]:
    return {name for text in expressions for name in re.findall(r"nwfilter_hook_\w+", text)}


def dashboard_expressions() -> Iterator[str]:
    found = json.loads((FOLDER / "nwfilter-hook.dashboard.json").read_text())
    yield from (target["expr"] for panel in found["panels"] for target in panel["targets"])
    yield from (each["query"] for each in found["templating"]["list"])


def test_alerts_and_dashboard_ask_for_what_there_is(tallies: Tallies) -> None:
    """And only by labels that it has; and the manual names every one."""
    found = [*families(VIEWS, tallies), *metrics._of_connections()]
    text = exposition(found, OPENMETRICS).decode()
    parsed = parse_openmetrics(text)  # type: ignore[no-untyped-call]
    known = {sample.name for family in parsed for sample in family.samples}
    rules = (FOLDER / "nwfilter-hook.rules.yml").read_text()
    asked = names_in(iter([rules])) | names_in(dashboard_expressions())
    conntrack = {f"nwfilter_hook_conntrack_{name}" for name in ("entries", "entries_limit")}
    assert asked <= known | conntrack
    labels = {label for family in found for label in family.labels} | {"instance", "le"}
    by = {
        label
        for each in [rules, *dashboard_expressions()]
        for group in re.findall(r"by \(([^)]*)\)", each)
        for label in group.split(", ")
    }
    assert by <= labels
    manual = (
        (ROOT / "packaging/man/nwfilter-hook.8.rst").read_text().split("\nMetrics\n")[1].split("\nTroubleshooting\n")[0]
    )
    listed = set(re.findall(r"`([a-z_]+)`", manual))
    for family in [*found, *[Family(name, "gauge", "", (), ()) for name in conntrack]]:
        name = family.name.removeprefix("nwfilter_hook_") + ("_total" if family.kind == "counter" else "")
        assert name in listed, name
