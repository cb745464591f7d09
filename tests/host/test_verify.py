"""verify: what somebody has changed in the kernel is found, named, and put back from the records."""

from __future__ import annotations

import pytest

from tests.support.domains import domain, interface
from tests.support.frames import GUEST, OTHER, OTHER_IP, udp
from tests.support.host import Sandbox
from tests.support.learned import command
from tests.support.netns import Wire

pytestmark = pytest.mark.netns

IP = [("IP", "10.0.0.1")]
TABLE = "bridge nwfilter"


@pytest.fixture
def guests(site: Sandbox) -> Sandbox:
    """Two guests under clean-traffic."""
    site.start("web", "vnet0", "clean-traffic", IP, mac=GUEST)
    site.start("db", "vnet1", "clean-traffic", IP, mac=OTHER)
    return site


def nft(site: Sandbox, *lines: str) -> None:
    """Somebody changes our table."""
    site.wire.apply("\n".join(lines))


def test_nothing_differs(guests: Sandbox) -> None:
    """As long as nobody has touched anything, nothing is said, nothing done, and the exit status is 0."""
    assert (guests.cli("verify").fine().out, guests.cli("verify", "--json").fine().json) == ("", [])
    with guests.unchanged():
        assert guests.cli("verify", "--repair").fine().out == ""
    assert guests.cli("verify", "web").fine().out == ""
    guests.cli("verify", "nobody").refused("nothing is installed for a guest or tap 'nobody'")


BASE = f"add chain {TABLE} l2-prerouting {{ type filter hook prerouting priority 20; policy accept; }}"
CHANGES = {
    "ruleset flushed": ("flush ruleset", "chain from/vnet0 is missing"),
    "table deleted": (f"delete table {TABLE}", "map from-guest-l2 has no element for it"),
    "chain flushed": (f"flush chain {TABLE} from/vnet0", "chain from/vnet0 lacks a rule of clean-traffic:"),
    "rule inserted": (f"insert rule {TABLE} from/vnet0 accept", "from/vnet0 has a rule more, without a comment"),
    "element deleted": (
        f'delete element {TABLE} from-guest-l2 {{ "vnet0" }}',
        "map from-guest-l2 has no element for it",
    ),
    "element exchanged": (
        f'delete element {TABLE} from-guest-l2 {{ "vnet0" }}; add element {TABLE} from-guest-l2 {{ "vnet0" : accept }}',
        "map from-guest-l2 has 'accept' for it, not 'jump from/vnet0'",
    ),
    "base chain flushed": (f"flush chain {TABLE} l2-prerouting", "base chain l2-prerouting, which looks up map"),
    "base chain moved": (
        f"flush chain {TABLE} l2-prerouting; delete chain {TABLE} l2-prerouting; {BASE}; "
        f"add rule {TABLE} l2-prerouting iifname vmap @from-guest-l2",
        "base chain l2-prerouting, which looks up map from-guest-l2, is missing, empty or misplaced",
    ),
    "rule changed": (
        f"flush chain {TABLE} from/vnet0; "
        + "; ".join(f'add rule {TABLE} from/vnet0 accept comment "clean-traffic:{line}"' for line in (1,)),
        "chain from/vnet0 has a rule more, 'clean-traffic:1'",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_named_and_put_back(guests: Sandbox, change: str) -> None:
    """Each is told by the tap that it is about, in words; --repair makes everything as it was, and frames obey."""
    script, words = CHANGES[change]
    spoofed = udp(src_ip=OTHER_IP)
    assert not guests.wire.passes(spoofed)
    rules = guests.rules()
    nft(guests, *script.split("; "))
    said = guests.cli("verify")
    assert (said.status, said.err) == (1, "")
    (line,) = [line for line in said.out.splitlines() if line.startswith("web: vnet0: ")]
    assert words in line
    found = guests.cli("verify", "vnet0", "--json")
    assert (found.status, [each["tap"] for each in found.json]) == (1, ["vnet0"])
    assert guests.cli("verify", "--repair").fine().out.count("; put back\n") >= 1
    assert guests.rules() == rules
    assert not guests.wire.passes(spoofed)
    assert guests.cli("verify").fine().out == ""
    guests.check()


def test_only_what_was_asked_for(guests: Sandbox) -> None:
    """A guest's name, or a tap's, is looked at alone; the other stays as it is."""
    nft(guests, f"flush chain {TABLE} from/vnet0", f"flush chain {TABLE} from/vnet1")
    assert guests.cli("verify", "db", "--repair").fine().out.startswith("db: vnet1: ")
    said = guests.cli("verify").out
    assert "vnet0" in said
    assert "vnet1" not in said


def test_a_tap_that_nobody_knows(guests: Sandbox) -> None:
    """An element that lets a tap through of which no record tells is found and removed."""
    nft(guests, f'add element {TABLE} from-guest-l2 {{ "vnet9" : accept }}')
    assert guests.cli("verify").out == "vnet9: no record knows of this tap, but our table has an element for it\n"
    assert guests.cli("verify", "--repair").fine().out.endswith("; removed\n")
    guests.check()


def test_counts_stay(guests: Sandbox) -> None:
    """What rules have counted isn't lost when they are put back."""
    for _ in range(3):
        assert not guests.wire.passes(udp(src_ip=OTHER_IP))
    nft(guests, f"insert rule {TABLE} from/vnet0 accept")
    guests.cli("verify", "--repair").fine()
    (web,) = [each for each in guests.cli("show", "--json").json if each["tap"] == "vnet0"]
    assert web["dropped"] == 3


def test_rules_that_nft_takes_no_more(guests: Sandbox) -> None:
    """One guest's recorded rules are refused: it is compiled anew, and the other one put back all the same."""
    path = next(iter((guests.state_dir / "domains").glob(f"{guests.record('web')['uuid']}.json")))
    path.write_text(path.read_text().replace("counter drop", "counter nonsense", 1))
    nft(guests, "flush ruleset")
    lines = guests.cli("verify", "--repair").fine().out.splitlines()
    assert [line.rpartition("; ")[2] for line in lines] == ["put back", "made anew"]
    guests.check()


def test_nft_is_broken(guests: Sandbox) -> None:
    """What can't be put back is said, and the exit status tells; the next try does it."""
    nft(guests, f"flush chain {TABLE} from/vnet0")
    guests.fake_nft("echo refused >&2; exit 1")
    said = guests.cli("verify", "--repair")
    assert said.status == 1
    assert "; NOT repaired: " in said.out
    guests.configure()
    guests.cli("verify", "--repair").fine()
    guests.check()


def test_devices(able: None) -> None:
    """A device that was renamed gets its rules under its new name, one that is gone or another loses them."""
    with Wire() as wire:
        _devices(wire)


def _devices(wire: Wire) -> None:
    wire.start("web", domain("web", [interface("vnet0", "clean-traffic", IP)]))
    assert command(wire, "verify") == ""
    wire.ip("link set vnet0 down", "link set vnet0 name web0", "link set web0 up")
    assert wire.passes(udp(src_ip=OTHER_IP))
    assert command(wire, "verify", "--repair") == "web: vnet0: the device is renamed to web0; made anew\n"
    assert not wire.passes(udp(src_ip=OTHER_IP))
    assert wire.passes(udp())
    assert command(wire, "verify") == ""
    assert {rule.tap for rule in wire.rules()} - {""} == {"web0"}
    wire.ip("link set web0 nomaster")
    assert command(wire, "verify", "--repair").startswith("web: web0: the device is out of its bridge; ")
    assert command(wire, "verify") == ""
    wire.unplug("vnet0")
    assert command(wire, "verify", "--repair") == "web: web0: the device is gone; its rules are removed\n"
    assert [rule for rule in wire.rules() + wire.rules("netdev") if rule.tap] == []
