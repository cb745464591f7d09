"""A reconnect that has nothing to do is told by the generation of the ruleset; whatever has changed is seen."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from nwfilter_hook.config import read_config
from nwfilter_hook.hook import run
from nwfilter_hook.nftables import generation
from nwfilter_hook.operations import unchanged
from tests.support.domains import uuid_of
from tests.support.host import BYSTANDER, BYSTANDER_TAP, FILTER, GUEST, TAP, Sandbox, guest_xml
from tests.support.netns import Wire

pytestmark = pytest.mark.hook

OTHER, OTHER_TAP = "other", "vnet9"


def needs_no_look(box: Sandbox, xml: str, guest: str = GUEST) -> bool:
    """What a reconnect asks before it imports anything."""
    with box.inside():
        return unchanged.is_unchanged(read_config(), guest, xml.encode())


def edit(box: Sandbox, change: Callable[[list[str]], object]) -> None:
    """The lines of what was noted, changed."""
    path = box.state_dir / "seen"
    lines = path.read_text().split("\n")
    change(lines)
    path.write_text("\n".join(lines))


def word(box: Sandbox, number: int, value: str) -> None:
    """A word of the second line, of which the first is the ruleset."""

    def change(lines: list[str]) -> None:
        words = lines[1].split(" ")
        words[number] = value
        lines[1] = " ".join(words)

    edit(box, change)


def rewrite_record(box: Sandbox) -> None:
    text = box.record_path().read_text()
    box.record_path().unlink()
    box.record_path().write_text(text)
    box.record_path().chmod(0o600)


def replace_by_link(box: Sandbox) -> None:
    path = box.state_dir / "seen"
    path.rename(box.directory / "elsewhere")
    path.symlink_to(box.directory / "elsewhere")


def add_and_delete(box: Sandbox) -> None:
    box.nft_script("add table inet docker\n")
    box.nft_script("delete table inet docker\n")


def replace_by_directory(box: Sandbox) -> None:
    (box.state_dir / "seen").unlink()
    (box.state_dir / "seen").mkdir()


def namespace_of(wire: Wire) -> str:
    with wire.inside():
        return generation.namespace()


CHANGES: dict[str, Callable[[Sandbox], object]] = {
    "foreign-table": lambda box: box.nft_script("add table inet docker\n"),
    "foreign-commit-undone": add_and_delete,
    "our-table": lambda box: box.nft_script("add set bridge nwfilter ipset/x { type ipv4_addr; }\n"),
    "guard": lambda box: box.cli("guard", "on"),
    "shield-or-anything": lambda box: box.nft_script("add table netdev nwfilter-shield\n"),
    "configuration": lambda box: box.configure("# another line"),
    "another-namespace": lambda box: word(box, 0, "boot/1"),
    "another-generation": lambda box: word(box, 1, "1"),
    "looked-long-ago": lambda box: word(box, 2, str(unchanged.now_s() - unchanged.LOOKED_S)),
    "looked-in-the-future": lambda box: word(box, 2, str(unchanged.now_s() + 9)),
    "record-rewritten": rewrite_record,
    "record-lost": lambda box: box.record_path().unlink(),
    "pending": lambda box: (box.state_dir / f"domains/{uuid_of(GUEST)}.pending").write_text("{}"),
    "journal": lambda box: (box.state_dir / "domains/update.journal").write_text(""),
    "leftover": lambda box: (box.state_dir / "domains/x.json.leftover").write_text("{}"),
    "owner-lost": lambda box: (box.state_dir / "taps" / TAP).unlink(),
    "lost": lambda box: (box.state_dir / "seen").unlink(),
    "empty": lambda box: (box.state_dir / "seen").write_text(""),
    "cut-off": lambda box: edit(box, lambda lines: lines.pop()),
    "garbled": lambda box: edit(box, lambda lines: lines.__setitem__(2, "x")),
    "no-text": lambda box: (box.state_dir / "seen").write_bytes(b"\xff\0"),
    "link": replace_by_link,
    "a-directory": replace_by_directory,
    "others-may-write-there": lambda box: box.state_dir.chmod(0o722),
    "another-version-of-it": lambda box: edit(box, lambda lines: lines.__setitem__(0, "nwfilter-hook seen 2")),
}
"""What must lead to a look, even if it finds everything in place."""


@pytest.mark.parametrize("name", CHANGES)
def test_whatever_has_changed_leads_to_a_look(box: Sandbox, name: str) -> None:
    """Before it none is needed."""
    xml = box.start()
    assert not needs_no_look(box, xml)  # what the guest asks for at its start is no reconnect
    box.hook(GUEST, "reconnect", xml).fine()
    assert needs_no_look(box, xml)
    box.forget_bystander()
    CHANGES[name](box)
    assert not needs_no_look(box, xml)


def test_another_event_leads_to_a_look(box: Sandbox) -> None:
    """Another XML, or the same of another guest, isn't what was seen."""
    xml = box.start()
    box.hook(GUEST, "reconnect", xml).fine()
    assert not needs_no_look(box, xml + " ")
    assert not needs_no_look(box, xml, BYSTANDER)
    assert not needs_no_look(box, guest_xml(BYSTANDER, BYSTANDER_TAP), BYSTANDER)
    assert needs_no_look(box, xml)


def test_a_look_after_a_foreign_commit_is_noted(box: Sandbox) -> None:
    """The next reconnect needs none, until somebody changes something again; what he has changed is put back."""
    xml = box.start()
    clean = box.kernel()
    box.hook(GUEST, "reconnect", xml).fine()
    box.nft_script("add table inet docker\n")
    box.hook(GUEST, "reconnect", xml).fine()
    assert needs_no_look(box, xml)
    box.nft_script(f"delete table inet docker\nflush chain bridge nwfilter from/{TAP}\n")
    box.hook(GUEST, "reconnect", xml).excused(TAP, "repaired")
    assert box.kernel() == clean
    assert needs_no_look(box, xml)


def test_our_own_transactions_need_no_look(box: Sandbox) -> None:
    """Other guests start and stop, a filter of theirs is redefined: this guest's rules are what they were."""
    xml = box.start()
    box.hook(GUEST, "reconnect", xml).fine()
    box.write_filter("own", "<rule action='drop' direction='out'/>")
    box.hook(OTHER, "start", guest_xml(OTHER, OTHER_TAP, "own")).fine()
    assert needs_no_look(box, xml)
    box.define("<filter name='own'><rule action='accept' direction='out'/></filter>").fine()
    assert needs_no_look(box, xml)
    box.hook(OTHER, "stopped", guest_xml(OTHER, None)).fine()
    assert needs_no_look(box, xml)


def test_our_own_transaction_after_a_foreign_one_proves_nothing(box: Sandbox) -> None:
    """Somebody flushes this guest's chain, another guest starts: what was noted before doesn't hold any more."""
    xml = box.start()
    clean = box.kernel(TAP)
    box.hook(GUEST, "reconnect", xml).fine()
    box.nft_script(f"flush chain bridge nwfilter from/{TAP}\n")
    box.hook(OTHER, "start", guest_xml(OTHER, OTHER_TAP)).fine()
    assert not needs_no_look(box, xml)
    box.hook(OTHER, "reconnect", guest_xml(OTHER, OTHER_TAP)).fine()
    assert not needs_no_look(box, xml)
    box.hook(GUEST, "reconnect", xml).excused(TAP, "repaired")
    assert box.kernel(TAP) == clean


def test_the_same_state_in_another_network_namespace(box: Sandbox) -> None:
    """Its ruleset is another one, though its generation may be the same."""
    xml = box.start()
    box.hook(GUEST, "reconnect", xml).fine()
    with Wire(()) as wire:
        elsewhere = Sandbox(box.directory, wire)
        with wire.inside():
            word(box, 1, str(generation.ask_generation()))
        assert not needs_no_look(elsewhere, xml)
        word(box, 0, namespace_of(wire))
        assert needs_no_look(elsewhere, xml)  # nothing else told them apart


def test_a_tap_that_is_another_guests_now(box: Sandbox) -> None:
    """Its record is as it was, and nobody but us has changed the ruleset."""
    xml = box.start()
    box.hook(GUEST, "reconnect", xml).fine()
    box.hook(OTHER, "start", guest_xml(OTHER, TAP)).fine()
    assert not needs_no_look(box, xml)


def test_a_flush_is_repaired_for_all_at_once(box: Sandbox) -> None:
    """By the first who comes; the others have nothing to do, and are told of in the journal's lines of the first."""
    box.forget_bystander()
    guests = {GUEST: TAP, OTHER: OTHER_TAP, BYSTANDER: BYSTANDER_TAP}
    xmls = {guest: guest_xml(guest, tap) for guest, tap in guests.items()}
    for guest in (GUEST, OTHER):
        box.start(guest, guests[guest])
    for guest, xml in xmls.items():
        box.hook(guest, "reconnect", xml)
    clean = box.kernel()
    box.nft_script("flush ruleset\n")
    assert not any(needs_no_look(box, xml, guest) for guest, xml in xmls.items())
    box.hook(OTHER, "reconnect", xmls[OTHER]).excused(OTHER_TAP, "repaired")
    assert box.kernel() == clean
    assert all(needs_no_look(box, xml, guest) for guest, xml in xmls.items())


def test_who_can_be_put_back_doesnt_wait_for_who_cant(box: Sandbox) -> None:
    """A record that names a rule that nft doesn't take leaves all others, and itself, to their own events."""
    box.forget_bystander()
    xml = box.start()
    box.start(OTHER, OTHER_TAP)
    path = box.record_path(OTHER)
    path.write_text(path.read_text().replace("ether saddr", "ether sadr"))
    box.nft_script("flush ruleset\n")
    box.hook(GUEST, "reconnect", xml).excused(TAP, "repaired")
    assert box.in_force(TAP)
    box.hook(OTHER, "reconnect", guest_xml(OTHER, OTHER_TAP)).excused(OTHER_TAP, "repaired")
    assert box.in_force(OTHER_TAP)


def test_a_device_that_is_another_leads_to_a_look(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made anew under its name, in another bridge, or gone."""
    net = box.directory / "net"

    def device(index: str, bridge: str) -> None:
        (net / TAP / "brport").mkdir(parents=True, exist_ok=True)
        (net / TAP / "ifindex").write_text(index)
        link = net / TAP / "brport" / "bridge"
        link.unlink(missing_ok=True)
        link.symlink_to(f"../../{bridge}")

    monkeypatch.setattr(unchanged, "_NET", str(net))
    monkeypatch.setattr("nwfilter_hook.operations.devices._NET", str(net))
    device("7", "br0")
    xml = box.start()
    with box.inside():
        assert run(GUEST, "reconnect", xml.encode()) == 0
    assert needs_no_look(box, xml)
    for index, bridge in (("8", "br0"), ("7", "br1")):
        device(index, bridge)
        assert not needs_no_look(box, xml)
    device("7", "br0")
    assert needs_no_look(box, xml)
    os.rename(net / TAP, net / "vnet7")
    assert not needs_no_look(box, xml)


def test_a_quarantine_is_looked_at_each_time(box: Sandbox) -> None:
    """What isn't as the guest wants it is never noted as if it were, and it is said again."""
    box.start()
    broken = guest_xml(GUEST, TAP, "not-there")
    for _ in range(2):
        box.hook(GUEST, "reconnect", broken).excused(TAP, "not-there")
        assert not needs_no_look(box, broken)


def test_a_floor_is_looked_at_each_time(box: Sandbox) -> None:
    """It goes by the bridge that a device is in, of interfaces that no record names, too."""
    box.configure(f"[defaults]\nfloor.br0 = {FILTER}")
    xml = box.start()
    box.hook(GUEST, "reconnect", xml).fine()
    assert not needs_no_look(box, xml)
