"""Several hooks at once: libvirt starts guests in parallel."""

from __future__ import annotations

import pytest

from tests.host.sandbox import BYSTANDER, BYSTANDER_TAP, FILTER, GUEST, HANGS_S, TAP, Ran, Sandbox, guest_xml
from tests.support.domains import key_of

pytestmark = pytest.mark.hook

Call = tuple[str, str, str]
"""Guest, operation, domain XML."""


def at_once(box: Sandbox, calls: list[Call]) -> list[Ran]:
    """Run hooks at the same time: all are there before the first gets its XML."""
    processes = [box.begin(guest, operation) for guest, operation, _ in calls]
    ended = []
    for process, (_, _, xml) in zip(processes, calls):
        assert process.stdin is not None
        process.stdin.write(xml.encode())
        process.stdin.close()
        process.stdin = None
    for process in processes:
        ended.append(box.finish(process, b"", timeout_s=HANGS_S * 3))
    for ran in ended:
        box.check(ran)
    return ended


def test_two_hooks_for_one_guest(box: Sandbox) -> None:
    """The same start twice at once leaves what one start leaves."""
    xml = box.running()
    clean, record = box.kernel(), box.record()
    box.stop()
    for ran in at_once(box, [(GUEST, "start", xml)] * 2):
        ran.fine()
    assert box.kernel() == clean
    assert box.record() == record
    box.assert_tidy()


def test_five_hooks_for_one_guest_with_different_filters(box: Sandbox) -> None:
    """Whichever start comes last wins as a whole; kernel and record agree."""
    names = (FILTER, "no-mac-spoofing", "no-arp-spoofing", "allow-arp", "no-ip-spoofing")
    for ran in at_once(box, [(GUEST, "start", guest_xml(filter_name=name)) for name in names]):
        ran.fine()
    winner = box.record()["bindings"][0]["filter"]
    together = box.kernel()
    box.stop()
    box.start(filter_name=winner)
    assert box.kernel() == together
    box.assert_tidy()


def test_fifty_guests_at_once(box: Sandbox) -> None:
    """Fifty starts at once put fifty filters in force; fifty stops at once leave nothing."""
    guests = {f"guest-{number}": f"tap{number}" for number in range(50)}
    before = box.kernel()
    for ran in at_once(box, [(guest, "start", guest_xml(guest, tap)) for guest, tap in guests.items()]):
        ran.fine()
    listing = box.by_tap()
    assert set(listing) == {BYSTANDER_TAP, *guests.values()}
    for guest, tap in guests.items():
        assert [line.replace(tap, TAP).replace(key_of(guest), key_of(BYSTANDER)) for line in listing[tap]] == [
            line.replace(BYSTANDER_TAP, TAP) for line in listing[BYSTANDER_TAP]
        ]
        assert box.record(guest)["bindings"][0]["tap"] == tap
    box.assert_tidy()
    for ran in at_once(box, [(guest, "stopped", guest_xml(guest, None)) for guest in guests]):
        ran.fine()
    assert box.kernel() == before
    assert len(box.files()) == 2


@pytest.mark.parametrize("attempt", range(4))
def test_a_start_and_a_stop_race(box: Sandbox, attempt: int) -> None:
    """After a start and a stop at once the guest is there as a whole or not at all."""
    xml = box.running()
    clean = box.kernel()
    if attempt % 2:
        box.stop()
    calls = [(GUEST, "start", xml), (GUEST, "stopped", guest_xml(GUEST, None))]
    for ran in at_once(box, calls if attempt < 2 else calls[::-1]):
        ran.fine()
    if box.record_path().exists():
        assert box.kernel() == clean
        box.assert_tidy()
    else:
        box.assert_nothing_left()


def test_every_operation_of_one_guest_at_once(box: Sandbox) -> None:
    """Whatever comes at the same time, kernel and record agree afterwards, and the end leaves nothing."""
    xml, end = guest_xml(), guest_xml(GUEST, None)
    box.start()
    clean = box.kernel(TAP)
    calls = [(GUEST, operation, xml) for operation in ("start", "reconnect", "prepare", "started", "start")]
    calls += [(GUEST, "stopped", end), (GUEST, "release", end), (GUEST, "reconnect", xml)]
    for ran in at_once(box, calls):
        assert ran.status == 0
    assert box.kernel(TAP) == (clean if box.record_path().exists() else [])
    box.stop()
    box.assert_nothing_left()


def test_one_tap_for_two_guests_at_once(box: Sandbox) -> None:
    """Two guests whose XML names one tap: the last one's filter is in force, as a whole."""
    alone = {}
    for guest, filter_name in (("a", FILTER), ("b", "no-mac-spoofing")):
        box.start(guest, TAP, filter_name)
        alone[guest] = box.kernel(TAP)
        box.stop(guest)
    calls = [("a", "start", guest_xml("a")), ("b", "start", guest_xml("b", filter_name="no-mac-spoofing"))]
    for ran in at_once(box, calls):
        assert ran.status in (0, 1)
    assert box.kernel(TAP) in (alone["a"], alone["b"])
    box.stop("a")
    box.stop("b")
    assert box.kernel(TAP) == []
    assert not (box.state_dir / "taps" / TAP).exists()
