"""From a guest to its rules and back, with an nft that only keeps books: what is in force, and what is known of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nwfilter_hook.backend import Rendered, Transaction
from nwfilter_hook.base.dataclass import replace
from nwfilter_hook.base.errors import DomainError, InputError, NftError, UnboundVariable
from nwfilter_hook.config import Config
from nwfilter_hook.domain.model import Domain
from nwfilter_hook.domain.parse import parse_domain
from nwfilter_hook.host import Host
from nwfilter_hook.operations.bypasses import Bypass
from nwfilter_hook.operations.lifecycle import check, install
from nwfilter_hook.operations.reconnect import quarantine_known, reconcile
from nwfilter_hook.operations.removal import plan_removal, remove
from nwfilter_hook.operations.show import read_views
from nwfilter_hook.operations.unchanged import LOOKED_S, now_s
from nwfilter_hook.ruleset.model import Ruleset
from nwfilter_hook.storage.library import Library
from nwfilter_hook.storage.state import State
from tests.unit.compiling import filter_xml, rule_xml
from tests.unit.fake_backend import FakeBackend

A, B = "aaaaaaaa-2222-3333-4444-555555555555", "bbbbbbbb-2222-3333-4444-555555555555"
SCHEMA_1 = Path(__file__).parents[2] / "data" / "records" / "schema-1.json"
FILTERS = {
    "arp": filter_xml(rule_xml("<arp/>"), name="arp"),
    "both": filter_xml(
        rule_xml("<tcp/>", direction="inout"), rule_xml("<arp opcode='1'/>", action="return"), name="both", chain="arp"
    ),
    "learns": filter_xml(rule_xml("<ip srcipaddr='$IP'/>", action="return"), rule_xml(), name="learns"),
    "wants-x": filter_xml(rule_xml("<tcp dstportstart='$X'/>"), name="wants-x"),
}


class Bench:
    """A host with the filters above, an nft that keeps books, and a state directory."""

    def __init__(self, directory: Path) -> None:
        self.backend = FakeBackend()
        self.reports: list[str] = []
        self.filters = directory / "filters"
        self.filters.mkdir()
        for name, text in FILTERS.items():
            (self.filters / f"{name}.xml").write_text(text)
        self.state = State(str(directory / "state"), self.reports.append)

    @property
    def host(self) -> Host:
        """A host as a new process finds it."""
        library = Library([str(self.filters)])
        return Host(Config(), library, self.backend, self.state, self.reports.append, self.reports.append)

    def start(self, domain: Domain) -> None:
        install(self.host, domain, "start", fresh=True)

    def reconnect(self, domain: Domain) -> bool:
        """Whether it had anything to say."""
        said = len(self.reports)
        reconcile(self.host, domain, "reconnect")
        return len(self.reports) > said

    def stop(self, domain: Domain) -> None:
        remove(self.host, domain.uuid)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def guest(uuid: str, **taps: str | None) -> Domain:
    """A guest with a bridged interface for each tap, and its filter; _ in a tap's name stands for a dash."""
    interfaces = "".join(
        f"<interface type='bridge'><mac address='52:54:00:00:00:{number:02x}'/><target dev='{tap.replace('_', '-')}'/>"
        + (f"<filterref filter='{name}'/>" if name else "")
        + "</interface>"
        for number, (tap, name) in enumerate(taps.items())
    )
    text = f"<domain><name>guest-{uuid[0]}</name><uuid>{uuid}</uuid><devices>{interfaces}</devices></domain>"
    return parse_domain(text.encode(), "domain.xml", tolerant=True)


REFUSED, GIVEN_UP = NftError("refused"), NftError("given up", unsure=True)


def test_a_guests_life(bench: Bench) -> None:
    """Between start and stop the kernel has the guest's rules and we a record of it; before and after, nothing."""
    web = guest(A, vnet0="both", vnet1="learns")
    bench.start(web)
    assert bench.backend.kernel.taps() == {"vnet0", "vnet1"}
    assert [binding.filter for record in bench.state.records() for binding in record.bindings] == ["both", "learns"]
    assert (bench.state.owner("vnet0"), bench.state.read_pending(A)) == (A, None)
    bench.stop(web)
    assert bench.backend.kernel.taps() == set()
    assert (bench.state.records(), bench.state.owner("vnet0")) == ([], None)
    bench.stop(web)
    assert len(bench.backend.scripts) == 2


def test_a_second_start_changes_nothing(bench: Bench) -> None:
    """The same event again is the same transaction: same text, same tables, same record."""
    web = guest(A, vnet0="both")
    bench.start(web)
    before = (bench.backend.kernel.chains, bench.state.read(A))
    bench.start(web)
    assert (bench.backend.kernel.chains, bench.state.read(A)) == before
    assert bench.backend.scripts[0] == bench.backend.scripts[1]


def test_a_guest_without_filter(bench: Bench) -> None:
    """A guest that names no filter leaves no trace."""
    bench.start(guest(A, vnet0=None))
    assert bench.backend.scripts == []
    assert bench.state.records() == []


def test_checking_asks_for_no_tap(bench: Bench) -> None:
    """Before start everything but the taps can be known: what is wrong is said, and nothing is done."""
    check(bench.host, guest(A, vnet0="both"))
    with pytest.raises(UnboundVariable, match=r"\$X"):
        check(bench.host, guest(A, vnet0="arp", vnet1="wants-x"))
    assert bench.backend.scripts == []
    assert not Path(bench.state.path, "domains").exists()


@pytest.mark.parametrize("tap", ["vnet0", "vnet1"])
def test_one_wrong_interface_and_nothing_is_done(bench: Bench, tap: str) -> None:
    """If one interface can't be filtered none is: the guest doesn't start."""
    with pytest.raises(InputError):
        bench.start(guest(A, **{"vnet0": "arp", "vnet1": "arp", tap: "wants-x"}))
    assert (bench.backend.scripts, bench.state.records()) == ([], [])


def test_two_interfaces_of_one_tap(bench: Bench) -> None:
    """Two interfaces can't have one tap: an error, and nothing is done."""
    (one,) = guest(A, vnet0="arp").interfaces
    web = replace(guest(A), interfaces=(one, one))
    with pytest.raises(DomainError, match="two interfaces have the tap vnet0"):
        bench.start(web)
    assert bench.backend.scripts == []


def test_a_refused_transaction_changes_nothing(bench: Bench) -> None:
    """When nft refuses, kernel and records are as before: of a new guest nothing, of a known one its old rules."""
    bench.backend.fails = REFUSED
    with pytest.raises(NftError):
        bench.start(guest(A, vnet0="both"))
    assert (bench.backend.kernel.taps(), bench.state.records(), bench.state.read_pending(A)) == (set(), [], None)
    bench.backend.fails = None
    bench.start(guest(A, vnet0="arp"))
    before = bench.state.read(A)
    bench.backend.fails = REFUSED
    with pytest.raises(NftError):
        bench.start(guest(A, vnet0="both"))
    assert bench.state.read(A) == before
    assert bench.state.read_pending(A) is None


@pytest.mark.parametrize("taken", [True, False])
def test_an_nft_that_was_given_up(bench: Bench, taken: bool) -> None:
    """Whether the kernel took the transaction or not, what it may have is removed with the guest."""
    bench.backend.fails, bench.backend.takes_it_first = GIVEN_UP, taken
    web = guest(A, vnet0="both")
    with pytest.raises(NftError):
        bench.start(web)
    bench.backend.fails = None
    assert plan_removal(bench.host, A).text
    bench.stop(web)
    assert bench.backend.kernel.taps() == set()
    assert (bench.state.records(), bench.state.read_pending(A)) == ([], None)


def test_other_filters_and_other_taps(bench: Bench) -> None:
    """A guest that comes back with another filter, fewer taps or other tap names leaves nothing of the old ones."""
    bench.start(guest(A, vnet0="both", vnet1="learns"))
    bench.start(guest(A, vnet7="arp"))
    assert bench.backend.kernel.taps() == {"vnet7"}
    assert bench.backend.kernel.sets == set()
    assert [bench.state.owner(tap) for tap in ("vnet0", "vnet7")] == [None, A]
    bench.start(guest(A, vnet7=None))
    assert bench.backend.kernel.taps() == set()
    assert bench.state.records() == []


def test_two_guests_do_not_touch_each_other(bench: Bench) -> None:
    """One guest's end leaves the other's rules as they are, also if one tap's name begins with the other's."""
    web, db = guest(A, tap_web="both"), guest(B, tap_web_2="both")
    bench.start(web)
    bench.start(db)
    rules = {key: value for key, value in bench.backend.kernel.chains.items() if "tap-web-2" in key[1]}
    bench.stop(web)
    assert bench.backend.kernel.taps() == {"tap-web-2"}
    assert {key: value for key, value in bench.backend.kernel.chains.items() if "tap-web-2" in key[1]} == rules


def test_a_tap_that_was_anothers(bench: Bench) -> None:
    """A tap name that comes to another guest brings nothing of the first one's rules; the first can't remove its."""
    web, db = guest(A, vnet0="both"), guest(B, vnet0="arp")
    bench.start(web)  # its end was never heard of
    bench.start(db)
    assert {name for table, name in bench.backend.kernel.chains if "/" in name and table == "bridge"} == {"from/vnet0"}
    assert bench.state.owner("vnet0") == B
    bench.stop(web)
    assert bench.backend.kernel.taps() == {"vnet0"}
    bench.stop(db)
    assert bench.backend.kernel.taps() == set()


def test_a_failed_start_takes_no_tap_away(bench: Bench) -> None:
    """A start that failed leaves a tap to its owner, who takes its rules away when it stops."""
    old, new = guest(A, vnet0="both"), guest(B, vnet0="arp")
    bench.start(old)
    bench.backend.fails = REFUSED
    with pytest.raises(NftError):
        bench.start(new)
    bench.backend.fails = None
    bench.stop(new)
    bench.stop(old)
    assert bench.backend.kernel.taps() == set()


def test_an_unfiltered_guest_on_anothers_tap(bench: Bench) -> None:
    """A guest without filter isn't filtered by what a former owner of its tap left."""
    bench.start(guest(A, vnet0="both"))
    bench.start(guest(B, vnet0=None))
    assert bench.backend.kernel.taps() == set()


def test_what_cannot_be_removed_now_is_removed_later(bench: Bench) -> None:
    """If nft fails while a guest stops, what it has is kept in mind, and removed at any guest's next event."""
    web = guest(A, vnet0="both")
    bench.start(web)
    bench.backend.fails = REFUSED
    with pytest.raises(NftError):
        bench.stop(web)
    assert bench.state.records() == []
    bench.backend.fails = None
    bench.start(guest(B, vnet1="arp"))
    assert bench.backend.kernel.taps() == {"vnet1"}
    assert bench.state.leftovers() == []


def test_what_is_noted_hinders_no_removal(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that doesn't tell its ruleset's generation is no reason to leave rules where they are."""

    def untold() -> int:
        raise REFUSED

    web = guest(A, vnet0="both")
    bench.start(web)
    monkeypatch.setattr(bench.backend, "generation", untold)
    bench.stop(web)
    assert bench.backend.kernel.taps() == set()
    assert bench.state.leftovers() == []


@pytest.mark.parametrize("failure", [REFUSED, GIVEN_UP])
def test_a_failed_start_does_not_hide_what_another_left(bench: Bench, failure: NftError) -> None:
    """
    A guest whose start failed on a tap that still has a former owner's chains leaves them to be found: once nft works
    again they go, and never filter whoever has the tap then.
    """
    old, new = guest(A, vnet0="both"), guest(B, vnet0="arp")
    bench.start(old)
    bench.backend.fails = REFUSED
    with pytest.raises(NftError):
        bench.stop(old)
    bench.backend.fails = failure
    with pytest.raises(NftError):
        bench.start(new)
    bench.backend.fails = None
    bench.start(new)
    assert {name for table, name in bench.backend.kernel.chains if "/" in name and table == "bridge"} == {"from/vnet0"}
    bench.stop(new)
    assert bench.backend.kernel.taps() == set()


def test_rules_are_compiled_before_the_lock(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for one guest's rules; a filter that has changed meanwhile is compiled anew, under the lock."""
    events: list[str] = []
    render, locked = bench.backend.render, bench.state.locked

    def rendering(ruleset: Ruleset) -> Rendered:
        events.append("compiled")
        return render(ruleset)

    @contextlib.contextmanager
    def locking() -> Iterator[None]:
        events.append("locked")
        with locked():
            yield

    monkeypatch.setattr(bench.backend, "render", rendering)
    monkeypatch.setattr(bench.state, "locked", locking)
    bench.start(guest(A, vnet0="arp"))
    assert events == ["compiled", "locked"]

    @contextlib.contextmanager
    def changing() -> Iterator[None]:
        (bench.filters / "arp.xml").write_text(filter_xml(rule_xml("<rarp/>"), name="arp"))
        with locking():
            yield

    events.clear()
    monkeypatch.setattr(bench.state, "locked", changing)
    bench.start(guest(A, vnet0="arp"))
    assert events == ["compiled", "locked", "compiled"]
    assert "ether type 0x8035" in bench.backend.kernel.chains["bridge", "from/vnet0"][0]


# --- reconnect --------------------------------------------------------------------------------------------------------


def _alter(rules: list[str]) -> None:
    rules[0] = f"ether type 0x9999 {rules[0]}"


DAMAGES: dict[str, Callable[[FakeBackend], object]] = {
    "all flushed": lambda backend: backend.kernel.__init__(),  # type: ignore[misc]
    "a rule gone": lambda backend: backend.kernel.chains["bridge", "from/vnet0"].pop(),
    "a rule that drops something else": lambda backend: _alter(backend.kernel.chains["bridge", "from/vnet0"]),
    "a rule more": lambda backend: backend.kernel.chains["bridge", "from/vnet0"].insert(0, 'accept comment "x:1"'),
    "out of the map": lambda backend: backend.kernel.elements.pop(("from-guest-l2", '"vnet0"')),
    "a base chain flushed": lambda backend: backend.kernel.chains["bridge", "l2-prerouting"].clear(),
}


def test_what_is_recorded_is_put_back(bench: Bench) -> None:
    """A guest that wants what is recorded gets it back without a compiler; once it is there nothing is done."""
    web = guest(A, vnet0="both")
    bench.start(web)
    before = dict(bench.backend.kernel.chains), dict(bench.backend.kernel.elements)
    (bench.filters / "both.xml").unlink()
    bench.backend.kernel.__init__()  # type: ignore[misc]
    assert bench.reconnect(web)
    assert not bench.reconnect(web)
    assert len(bench.backend.scripts) == 2
    assert (bench.backend.kernel.chains, bench.backend.kernel.elements) == before


def test_recorded_rules_that_nft_takes_no_more(bench: Bench) -> None:
    """They are made anew, as after an upgrade of nft."""
    web = guest(A, vnet0="both")
    bench.start(web)
    apply, tries = bench.backend.apply, []

    def refuse_once(transaction: Transaction) -> int:
        tries.append(transaction)
        if len(tries) == 1:
            raise REFUSED
        return apply(transaction)

    bench.backend.kernel.chains["bridge", "from/vnet0"].clear()
    bench.backend.apply = refuse_once  # type: ignore[method-assign]
    assert bench.reconnect(web)
    assert len(tries) == 2


def test_a_record_of_the_schema_before(bench: Bench) -> None:
    """It has names and no rules: the guest's rules are made anew, and what is stale goes."""
    web = guest(A, vnet0="both")
    bench.start(web)
    path = Path(bench.state.path, "domains", f"{A}.json")
    path.write_bytes(SCHEMA_1.read_bytes())
    bench.backend.kernel.chains["bridge", "from/vnet0/mac-old"] = []
    assert bench.reconnect(web)
    assert ("bridge", "from/vnet0/mac-old") not in bench.backend.kernel.chains
    record = bench.state.read(A)
    assert record
    assert record.bindings[0].installed.whole
    assert not bench.reconnect(web)


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_is_repaired(bench: Bench, damage: str) -> None:
    """Whatever is missing in the kernel or too much is put right, and then left alone."""
    web = guest(A, vnet0="both")
    bench.start(web)
    before = dict(bench.backend.kernel.chains), dict(bench.backend.kernel.elements)
    bench.backend.kernel.chains = {key: list(rules) for key, rules in bench.backend.kernel.chains.items()}
    DAMAGES[damage](bench.backend)
    assert bench.reconnect(web)
    assert (bench.backend.kernel.chains, bench.backend.kernel.elements) == before
    assert not bench.reconnect(web)


def test_a_repair_keeps_what_was_learned(bench: Bench) -> None:
    """A repair doesn't forget the guest's address; a start does."""
    web = guest(A, vnet0="learns")
    bench.start(web)
    bench.backend.kernel.chains["bridge", "from/vnet0"] = []
    bench.reconnect(web)
    assert ["flush set bridge nwfilter learned/" in script for script in bench.backend.scripts] == [True, False]


def test_an_unknown_guest_that_runs(bench: Bench) -> None:
    """A guest that runs and isn't known, as after a reinstallation, gets its rules."""
    assert bench.reconnect(guest(A, vnet0="both"))
    assert bench.backend.kernel.taps() == {"vnet0"}


@pytest.mark.parametrize("name", ["wants-x", "gone"])
def test_what_cannot_be_made_is_quarantined(bench: Bench, name: str) -> None:
    """A running guest's tap whose filter can't be made is cut off; its other taps get theirs."""
    web = guest(A, vnet0=name, vnet1="arp")
    bench.reconnect(web)
    rules = bench.backend.kernel.chains
    assert [len(rules["bridge", f"{way}/vnet0"]) for way in ("from", "to")] == [1, 1]
    assert all("drop" in rules["bridge", f"{way}/vnet0"][0] for way in ("from", "to"))
    assert "ether type arp" in rules["bridge", "from/vnet1"][0]
    record = bench.state.read(A)
    assert record
    assert [binding.quarantined for binding in record.bindings] == [True, False]


def test_a_quarantine_ends_when_its_reason_does(bench: Bench) -> None:
    """Once the filter can be made the tap has it."""
    web = guest(A, vnet0="gone")
    bench.reconnect(web)
    (bench.filters / "gone.xml").write_text(filter_xml(rule_xml("<arp/>"), name="gone"))
    assert bench.reconnect(web)
    assert "ether type arp" in bench.backend.kernel.chains["bridge", "from/vnet0"][0]
    assert not bench.reconnect(web)


def test_rules_in_force_stay_if_their_successors_cannot_be_made(bench: Bench) -> None:
    """A guest whose rules are in force keeps them when its filter has become unusable meanwhile."""
    bench.start(guest(A, vnet0="arp"))
    before = dict(bench.backend.kernel.chains)
    assert bench.reconnect(guest(A, vnet0="wants-x"))
    assert bench.backend.kernel.chains == before
    assert "stay in force" in bench.reports[-1]


def test_a_guest_known_by_its_record_alone(bench: Bench) -> None:
    """With an XML that is of no use, a running guest gets what is recorded, and is cut off if that isn't known."""
    bench.start(guest(A, vnet0="both"))
    bench.backend.kernel.__init__()  # type: ignore[misc]
    assert not quarantine_known(bench.host, A, InputError("broken", guest(A).source))
    assert bench.backend.kernel.taps() == {"vnet0"}
    Path(bench.state.path, "domains", f"{A}.json").write_bytes(SCHEMA_1.read_bytes())
    bench.backend.kernel.__init__()  # type: ignore[misc]
    assert quarantine_known(bench.host, A, InputError("broken", guest(A).source))
    assert all("drop" in rules[0] for (_, name), rules in bench.backend.kernel.chains.items() if "/" in name)
    assert not quarantine_known(bench.host, B, InputError("broken", guest(A).source))


def test_a_kernel_without_rules_before_the_bridge(bench: Bench) -> None:
    """What is left open is said at the start, and shown as long as it is so."""
    bench.backend.kernel_has_ingress = False
    bench.start(guest(A, vnet0="arp"))
    assert any("01:80:c2:00:00:00 to 0f is not filtered" in line for line in bench.reports)
    (view,) = read_views(bench.host)
    assert [each.way for each in view.bypasses if each.way != "unreadable"] == ["reserved-destinations"]
    bench.backend.kernel_has_ingress = True
    (view,) = read_views(bench.host)
    assert [each.way for each in view.bypasses if each.way != "unreadable"] == []


def test_ways_past_filters_are_looked_for_once_for_all(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """libvirtd has the hook called for every guest in a row; the first looks for all, and the journal has it."""
    web, db = guest(A, vnet0="both"), guest(B, vnet1="both", vnet2=None)
    for each in (web, db):
        bench.start(each)
    looked: list[tuple[str, ...]] = []

    def find(*taps: str) -> tuple[Bypass, ...]:
        looked.append(taps)
        return tuple(Bypass(tap, "tcx", "a way past") for tap in taps)

    monkeypatch.setattr("nwfilter_hook.operations.reconnect.find_bypasses", find)
    bench.reports.clear()
    reconcile(bench.host, web, "reconnect", event="web")
    assert bench.reports == ["vnet0: a way past", "guest-b: vnet1: a way past"]
    reconcile(bench.host, db, "reconnect", event="db")
    assert looked == [("vnet0", "vnet1"), ()]
    monkeypatch.setattr("nwfilter_hook.operations.noted.now_s", lambda: now_s() + LOOKED_S)
    reconcile(bench.host, db, "reconnect", event="db")
    assert looked[2:] == [("vnet1", "vnet0")]
    reconcile(bench.host, db, "reconnect")  # by the service, of one guest
    assert looked[3:] == [("vnet1",)]
