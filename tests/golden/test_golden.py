"""
A directory for each case: domain.xml and filters/ go in, expected.nft or expected.err comes out.

A case shows one thing and is named for it. Filters that a case doesn't have itself come from the stock filters; a case
may have a configuration of its own, nwfilter-hook.conf. What is expected are rules as the filters have them; where
optimised.nft is, too, it is what is put into the kernel (`optimise = yes`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from nwfilter_hook.base.errors import NwfilterHookError
from nwfilter_hook.config import Config, parse_config
from nwfilter_hook.host import Host
from nwfilter_hook.nftables.backend import NftBackend
from nwfilter_hook.nftables.process import Nft
from nwfilter_hook.operations.compile import compile_domain
from nwfilter_hook.operations.floors import read_domain
from nwfilter_hook.operations.transaction import plan_domain
from nwfilter_hook.ruleset.model import Ruleset
from nwfilter_hook.storage.library import Library
from nwfilter_hook.storage.state import State
from tests.unit.checking import complaints, complaints_about_listing

HERE = Path(__file__).parent
STOCK = "../../../filters"  # as seen from a case
CASES = sorted(path for path in HERE.iterdir() if path.is_dir() and path.name != "__pycache__")


class Unasked(NftBackend):
    """nftables on a kernel that has everything."""

    def check(self, rulesets: Iterable[Ruleset]) -> None:
        pass

    def sees_ingress(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _no_bridges(monkeypatch: pytest.MonkeyPatch) -> None:
    """What bridges there are, and with which addresses, is the machine's affair."""
    monkeypatch.setattr("nwfilter_hook.operations.transaction.zones_for", lambda *_: None)


def script_of_case(optimise: str = "no") -> str:
    """The transaction that starts the guest of the case in the working directory."""
    conf = Path("nwfilter-hook.conf")
    config = parse_config(conf.read_text(), conf.name) if conf.exists() else Config()
    config.optimise = optimise
    state = State("/nonexistent", print, readonly=True)
    backend = Unasked(Nft("/nonexistent", 1), config.counters, dict, print)
    host = Host(config, Library(["filters", STOCK]), backend, state, print, print)
    domain = read_domain(host, Path("domain.xml").read_bytes(), "domain.xml")
    compiled = compile_domain(host, domain, tolerant=False)
    return plan_domain(host, domain, compiled, "start", fresh=True).transaction.text


def test_there_are_cases() -> None:
    """Every directory is a case, with one expected file; most scripts, and errors too."""
    assert len(CASES) >= 30
    for case in CASES:
        assert (case / "domain.xml").is_file(), case.name
        assert len(list(case.glob("expected.*"))) == 1, case.name
    assert len(list(HERE.glob("*/expected.err"))) >= 10


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_compiles_to_what_is_expected(case: Path, update_golden: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A case's domain.xml and filters/ compile to exactly its expected.nft, or fail with exactly its expected.err."""
    monkeypatch.chdir(case)
    try:
        name, actual = "expected.nft", script_of_case()
    except NwfilterHookError as error:
        name, actual = "expected.err", f"{error}\n"
    if update_golden:
        for old in case.glob("expected.*"):
            old.unlink()
        (case / name).write_text(actual)
    assert (case / name).is_file(), f"no {name} in {case}, but this came out:\n{actual}"
    assert (case / name).read_text() == actual


OPTIMISED = [case for case in CASES if (case / "optimised.nft").exists()]


@pytest.mark.parametrize("case", OPTIMISED, ids=lambda case: case.name)
def test_optimised(case: Path, update_golden: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is put into the kernel, where nobody asks for rules as they are written."""
    monkeypatch.chdir(case)
    actual = script_of_case("yes")
    if update_golden:
        (case / "optimised.nft").write_text(actual)
    assert (case / "optimised.nft").read_text() == actual


def test_some_are_optimised() -> None:
    """Of layer 2 and 3, with addresses given and learned, on a tap and a macvtap."""
    assert len(OPTIMISED) >= 6


@pytest.mark.netns
def test_nft_takes_every_script_optimised(monkeypatch: pytest.MonkeyPatch) -> None:
    """nft and the kernel take what every case is optimised to, and its own listing of that."""
    scripts = []
    for case in CASES:
        if (case / "expected.nft").exists():
            monkeypatch.chdir(case)
            scripts.append(script_of_case("yes"))
    text = "".join(scripts)
    devices = sorted(set(re.findall(r'device "([^"]+)"', text)))
    assert complaints(text, devices) == []
    assert complaints_about_listing(text, devices) == ""


@pytest.mark.netns
def test_nft_takes_every_expected_script() -> None:
    """nft and the kernel take every expected script, in one run, in a network namespace with the devices it names."""
    text, devices = every_expected_script()
    assert complaints(text, devices) == []


def test_being_asked_does_not_wear_out_a_limit() -> None:
    """
    No rule looks up in a set whose elements hold a limit: the kernel counts that as well, so that the same lookup fails
    as soon as it is repeated (nft_lookup_eval in net/netfilter/nft_lookup.c).
    """
    text, _ = every_expected_script()
    limited = set(re.findall(r" (?:add|update) @(\S+) \{ [^}]*\blimit ", text))
    assert limited
    asked = set(re.findall(r"(?<!add )(?<!update )(?<!delete )@([a-z]\S+)", text))
    assert limited & asked == set()


@pytest.mark.netns
def test_nft_takes_its_own_listing_again() -> None:
    """What `nft list ruleset` prints of ours can be loaded: who keeps it for the next boot keeps a firewall."""
    text, devices = every_expected_script()
    assert complaints_about_listing(text, devices) == ""


def every_expected_script() -> tuple[str, list[str]]:
    """All expected scripts, one after the other, and the devices that they name."""
    text = "".join(path.read_text() for case in CASES for path in [case / "expected.nft"] if path.exists())
    return text, sorted(set(re.findall(r'device "([^"]+)"', text)))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_error_is_one_line_that_says_where(case: Path) -> None:
    """Every expected error is one line that begins with a file of the case and a line that is in it."""
    path = case / "expected.err"
    if not path.exists():
        return
    (line,) = path.read_text().splitlines()
    match = re.match(r"([^:]+):(\d+): \S", line)
    assert match, line
    assert 1 <= int(match[2]) <= len((case / match[1]).read_text().splitlines())
