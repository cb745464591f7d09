"""From a guest to its rules and back, with an nft that only keeps books: what is in force, and what is known of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from nwfilter_hook.base.dataclass import replace
from nwfilter_hook.base.errors import DomainError, InputError, NftError, UnboundVariable
from nwfilter_hook.config import Config
from nwfilter_hook.domain.model import Domain
from nwfilter_hook.domain.parse import parse_domain
from nwfilter_hook.host import Host
from nwfilter_hook.operations.lifecycle import check, install, plan_removal, remove
from nwfilter_hook.operations.reconnect import quarantine_known, reconcile
from nwfilter_hook.storage.library import Library
from nwfilter_hook.storage.state import State
from tests.unit.compiling import filter_xml, rule_xml
from tests.unit.fake_nft import FakeNft

A, B = "aaaaaaaa-2222-3333-4444-555555555555", "bbbbbbbb-2222-3333-4444-555555555555"
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
        self.nft = FakeNft()
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
        return Host(Config(), library, self.nft, self.state, self.reports.append, self.reports.append)

    def start(self, domain: Domain) -> None:
        install(self.host, domain, "start", fresh=True)

    def reconnect(self, domain: Domain) -> bool:
        """Whether anything had to be done."""
        return reconcile(self.host, domain, "reconnect") is not None

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
    assert bench.nft.kernel.taps() == {"vnet0", "vnet1"}
    assert [binding.filter for record in bench.state.records() for binding in record.bindings] == ["both", "learns"]
    assert (bench.state.owner("vnet0"), bench.state.read_pending(A)) == (A, None)
    bench.stop(web)
    assert bench.nft.kernel.taps() == set()
    assert (bench.state.records(), bench.state.owner("vnet0")) == ([], None)
    bench.stop(web)
    assert len(bench.nft.scripts) == 2


def test_a_second_start_changes_nothing(bench: Bench) -> None:
    """The same event again is the same transaction: same text, same tables, same record."""
    web = guest(A, vnet0="both")
    bench.start(web)
    before = (bench.nft.kernel.chains, bench.state.read(A))
    bench.start(web)
    assert (bench.nft.kernel.chains, bench.state.read(A)) == before
    assert bench.nft.scripts[0] == bench.nft.scripts[1]


def test_a_guest_without_filter(bench: Bench) -> None:
    """A guest that names no filter leaves no trace."""
    bench.start(guest(A, vnet0=None))
    assert bench.nft.scripts == []
    assert bench.state.records() == []


def test_checking_asks_for_no_tap(bench: Bench) -> None:
    """Before start everything but the taps can be known: what is wrong is said, and nothing is done."""
    check(bench.host, guest(A, vnet0="both"))
    with pytest.raises(UnboundVariable, match=r"\$X"):
        check(bench.host, guest(A, vnet0="arp", vnet1="wants-x"))
    assert bench.nft.scripts == []
    assert not Path(bench.state.path, "domains").exists()


@pytest.mark.parametrize("tap", ["vnet0", "vnet1"])
def test_one_wrong_interface_and_nothing_is_done(bench: Bench, tap: str) -> None:
    """If one interface can't be filtered none is: the guest doesn't start."""
    with pytest.raises(InputError):
        bench.start(guest(A, **{"vnet0": "arp", "vnet1": "arp", tap: "wants-x"}))
    assert (bench.nft.scripts, bench.state.records()) == ([], [])


def test_two_interfaces_of_one_tap(bench: Bench) -> None:
    """Two interfaces can't have one tap: an error, and nothing is done."""
    (one,) = guest(A, vnet0="arp").interfaces
    web = replace(guest(A), interfaces=(one, one))
    with pytest.raises(DomainError, match="two interfaces have the tap vnet0"):
        bench.start(web)
    assert bench.nft.scripts == []


def test_a_refused_transaction_changes_nothing(bench: Bench) -> None:
    """When nft refuses, kernel and records are as before: of a new guest nothing, of a known one its old rules."""
    bench.nft.fails = REFUSED
    with pytest.raises(NftError):
        bench.start(guest(A, vnet0="both"))
    assert (bench.nft.kernel.taps(), bench.state.records(), bench.state.read_pending(A)) == (set(), [], None)
    bench.nft.fails = None
    bench.start(guest(A, vnet0="arp"))
    before = bench.state.read(A)
    bench.nft.fails = REFUSED
    with pytest.raises(NftError):
        bench.start(guest(A, vnet0="both"))
    assert bench.state.read(A) == before
    assert bench.state.read_pending(A) is None


@pytest.mark.parametrize("taken", [True, False])
def test_an_nft_that_was_given_up(bench: Bench, taken: bool) -> None:
    """Whether the kernel took the transaction or not, what it may have is removed with the guest."""
    bench.nft.fails, bench.nft.takes_it_first = GIVEN_UP, taken
    web = guest(A, vnet0="both")
    with pytest.raises(NftError):
        bench.start(web)
    bench.nft.fails = None
    assert plan_removal(bench.host, A).text
    bench.stop(web)
    assert bench.nft.kernel.taps() == set()
    assert (bench.state.records(), bench.state.read_pending(A)) == ([], None)


def test_other_filters_and_other_taps(bench: Bench) -> None:
    """A guest that comes back with another filter, fewer taps or other tap names leaves nothing of the old ones."""
    bench.start(guest(A, vnet0="both", vnet1="learns"))
    bench.start(guest(A, vnet7="arp"))
    assert bench.nft.kernel.taps() == {"vnet7"}
    assert bench.nft.kernel.sets == set()
    assert [bench.state.owner(tap) for tap in ("vnet0", "vnet7")] == [None, A]
    bench.start(guest(A, vnet7=None))
    assert bench.nft.kernel.taps() == set()
    assert bench.state.records() == []


def test_two_guests_do_not_touch_each_other(bench: Bench) -> None:
    """One guest's end leaves the other's rules as they are, also if one tap's name begins with the other's."""
    web, db = guest(A, tap_web="both"), guest(B, tap_web_2="both")
    bench.start(web)
    bench.start(db)
    rules = {key: value for key, value in bench.nft.kernel.chains.items() if "tap-web-2" in key[1]}
    bench.stop(web)
    assert bench.nft.kernel.taps() == {"tap-web-2"}
    assert {key: value for key, value in bench.nft.kernel.chains.items() if "tap-web-2" in key[1]} == rules


def test_a_tap_that_was_anothers(bench: Bench) -> None:
    """A tap name that comes to another guest brings nothing of the first one's rules; the first can't remove its."""
    web, db = guest(A, vnet0="both"), guest(B, vnet0="arp")
    bench.start(web)  # its end was never heard of
    bench.start(db)
    assert {name for _, name in bench.nft.kernel.chains if "/" in name} == {"from/vnet0"}
    assert bench.state.owner("vnet0") == B
    bench.stop(web)
    assert bench.nft.kernel.taps() == {"vnet0"}
    bench.stop(db)
    assert bench.nft.kernel.taps() == set()


def test_a_failed_start_takes_no_tap_away(bench: Bench) -> None:
    """A start that failed leaves a tap to its owner, who takes its rules away when it stops."""
    old, new = guest(A, vnet0="both"), guest(B, vnet0="arp")
    bench.start(old)
    bench.nft.fails = REFUSED
    with pytest.raises(NftError):
        bench.start(new)
    bench.nft.fails = None
    bench.stop(new)
    bench.stop(old)
    assert bench.nft.kernel.taps() == set()


def test_an_unfiltered_guest_on_anothers_tap(bench: Bench) -> None:
    """A guest without filter isn't filtered by what a former owner of its tap left."""
    bench.start(guest(A, vnet0="both"))
    bench.start(guest(B, vnet0=None))
    assert bench.nft.kernel.taps() == set()


def test_what_cannot_be_removed_now_is_removed_later(bench: Bench) -> None:
    """If nft fails while a guest stops, what it has is kept in mind, and removed at any guest's next event."""
    web = guest(A, vnet0="both")
    bench.start(web)
    bench.nft.fails = REFUSED
    with pytest.raises(NftError):
        bench.stop(web)
    assert bench.state.records() == []
    bench.nft.fails = None
    bench.start(guest(B, vnet1="arp"))
    assert bench.nft.kernel.taps() == {"vnet1"}
    assert bench.state.leftovers() == []


@pytest.mark.parametrize("failure", [REFUSED, GIVEN_UP])
def test_a_failed_start_does_not_hide_what_another_left(bench: Bench, failure: NftError) -> None:
    """
    A guest whose start failed on a tap that still has a former owner's chains leaves them to be found: once nft works
    again they go, and never filter whoever has the tap then.
    """
    old, new = guest(A, vnet0="both"), guest(B, vnet0="arp")
    bench.start(old)
    bench.nft.fails = REFUSED
    with pytest.raises(NftError):
        bench.stop(old)
    bench.nft.fails = failure
    with pytest.raises(NftError):
        bench.start(new)
    bench.nft.fails = None
    bench.start(new)
    assert {name for _, name in bench.nft.kernel.chains if "/" in name} == {"from/vnet0"}
    bench.stop(new)
    assert bench.nft.kernel.taps() == set()


# --- reconnect --------------------------------------------------------------------------------------------------------


def _alter(rules: list[str]) -> None:
    rules[0] = f"ether type 0x9999 {rules[0]}"


DAMAGES: dict[str, Callable[[FakeNft], object]] = {
    "all flushed": lambda nft: nft.kernel.__init__(),  # type: ignore[misc]
    "a rule gone": lambda nft: nft.kernel.chains["bridge", "from/vnet0"].pop(),
    "a rule that drops something else": lambda nft: _alter(nft.kernel.chains["bridge", "from/vnet0"]),
    "a rule more": lambda nft: nft.kernel.chains["bridge", "from/vnet0"].insert(0, 'accept comment "x:1"'),
    "out of the map": lambda nft: nft.kernel.elements.pop(("from-guest-l2", "vnet0")),
    "a base chain flushed": lambda nft: nft.kernel.chains["bridge", "l2-prerouting"].clear(),
}


def test_in_order_nothing_is_done(bench: Bench) -> None:
    """A guest whose rules are in force as recorded is left alone."""
    web = guest(A, vnet0="both")
    bench.start(web)
    assert not bench.reconnect(web)
    assert len(bench.nft.scripts) == 1


def test_rules_that_cant_be_compared_stay(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """An nft that doesn't show what it would give the kernel is no reason to touch rules of the right verdicts."""
    web = guest(A, vnet0="both")
    bench.start(web)
    monkeypatch.setattr(bench.nft, "programs_of", lambda text: None)
    assert not bench.reconnect(web)
    assert len(bench.nft.scripts) == 1


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_is_repaired(bench: Bench, damage: str) -> None:
    """Whatever is missing in the kernel or too much is put right, and then left alone."""
    web = guest(A, vnet0="both")
    bench.start(web)
    before = dict(bench.nft.kernel.chains), dict(bench.nft.kernel.elements)
    bench.nft.kernel.chains = {key: list(rules) for key, rules in bench.nft.kernel.chains.items()}
    DAMAGES[damage](bench.nft)
    assert bench.reconnect(web)
    assert (bench.nft.kernel.chains, bench.nft.kernel.elements) == before
    assert not bench.reconnect(web)


def test_a_repair_keeps_what_was_learned(bench: Bench) -> None:
    """A repair doesn't forget the guest's address; a start does."""
    web = guest(A, vnet0="learns")
    bench.start(web)
    bench.nft.kernel.chains["bridge", "from/vnet0"] = []
    bench.reconnect(web)
    assert ["flush set" in script for script in bench.nft.scripts] == [True, False]


def test_an_unknown_guest_that_runs(bench: Bench) -> None:
    """A guest that runs and isn't known, as after a reinstallation, gets its rules."""
    assert bench.reconnect(guest(A, vnet0="both"))
    assert bench.nft.kernel.taps() == {"vnet0"}


@pytest.mark.parametrize("name", ["wants-x", "gone"])
def test_what_cannot_be_made_is_quarantined(bench: Bench, name: str) -> None:
    """A running guest's tap whose filter can't be made is cut off; its other taps get theirs."""
    web = guest(A, vnet0=name, vnet1="arp")
    bench.reconnect(web)
    rules = bench.nft.kernel.chains
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
    assert "ether type arp" in bench.nft.kernel.chains["bridge", "from/vnet0"][0]
    assert not bench.reconnect(web)


def test_rules_in_force_stay_if_their_successors_cannot_be_made(bench: Bench) -> None:
    """A guest whose rules are in force keeps them when its filter has become unusable meanwhile."""
    bench.start(guest(A, vnet0="arp"))
    before = dict(bench.nft.kernel.chains)
    assert not bench.reconnect(guest(A, vnet0="wants-x"))
    assert bench.nft.kernel.chains == before
    assert "stay in force" in bench.reports[-1]


def test_a_guest_known_by_its_record_alone(bench: Bench) -> None:
    """With an XML that is of no use, a running guest keeps what is in force, and is cut off if that isn't there."""
    bench.start(guest(A, vnet0="both"))
    assert not quarantine_known(bench.host, A, InputError("broken", guest(A).source))
    bench.nft.kernel.__init__()  # type: ignore[misc]
    assert quarantine_known(bench.host, A, InputError("broken", guest(A).source))
    assert all("drop" in rules[0] for (_, name), rules in bench.nft.kernel.chains.items() if "/" in name)
    assert not quarantine_known(bench.host, B, InputError("broken", guest(A).source))
