"""The kernel gives vnet0 to the next guest while the last one's end has failed."""

from __future__ import annotations

import pytest

from tests.support.domains import domain, interface, key_of, uuid_of
from tests.support.host import FILTER, GUEST, TAP, Sandbox, guest_xml

pytestmark = pytest.mark.hook

OTHER = "other"
HANGS = "exec sleep 300"
FAILS = "exit 1"
OTHER_XML = guest_xml(OTHER, TAP, "no-mac-spoofing", mac="52:54:00:00:00:09")


def fail_stop(box: Sandbox, body: str, *, guest: str = GUEST) -> None:
    """The guest's end, while nft is like this; nft works again afterwards."""
    box.fake_nft(body, timeout_s=0.5)
    box.hook(guest, "stopped", guest_xml(guest, None)).excused(guest, "nft")
    assert box.hook(guest, "release", guest_xml(guest, None)).status == 0
    box.configure()


def alone(box: Sandbox) -> list[str]:
    """What the other guest has on the tap when nobody had it before."""
    box.hook(OTHER, "start", OTHER_XML).fine()
    found = box.kernel(TAP)
    box.stop(OTHER)
    return found


@pytest.mark.parametrize("body", [HANGS, FAILS, '$NFT "$@"; exec sleep 300'], ids=("hangs", "fails", "hangs-late"))
def test_the_next_guest_has_its_own_rules(box: Sandbox, body: str) -> None:
    """The next guest on the tap has exactly its rules; events of neither guest disturb them; the end leaves nothing."""
    clean = alone(box)
    box.start()
    fail_stop(box, body)
    box.hook(OTHER, "start", OTHER_XML).fine()
    assert box.kernel(TAP) == clean
    kept = box.kernel(TAP, exact=True)
    for operation in ("stopped", "release"):
        box.hook(GUEST, operation, guest_xml(GUEST, None)).fine()
        assert box.kernel(TAP, exact=True) == kept
    box.hook(OTHER, "reconnect", OTHER_XML).fine()
    box.start("third", "vnet8")
    assert box.kernel(TAP, exact=True) == kept
    box.check_tidy()
    box.stop(OTHER)
    box.assert_nothing_left(OTHER, TAP)


def test_the_next_guest_also_fails_once(box: Sandbox) -> None:
    """The last guest's end and the next guest's start both fail; whatever comes then, nothing is left behind."""
    box.running()
    fail_stop(box, FAILS)
    box.fake_nft(FAILS)
    assert box.hook(OTHER, "start", OTHER_XML).status == 1
    box.configure()
    box.stop(OTHER)
    box.start("third", "vnet8")
    box.assert_nothing_left_of_tap(TAP)
    box.assert_nothing_left(GUEST)
    box.assert_nothing_left(OTHER)


def test_the_next_guest_succeeds_at_its_second_attempt(box: Sandbox) -> None:
    """The same, and then the next guest starts: its rules are as if nobody had been there."""
    clean = alone(box)
    box.start()
    fail_stop(box, FAILS)
    box.fake_nft(FAILS)
    assert box.hook(OTHER, "start", OTHER_XML).status == 1
    box.configure()
    box.hook(OTHER, "start", OTHER_XML).fine()
    assert box.kernel(TAP) == clean
    box.check_tidy()


def test_an_unfiltered_guest_gets_the_tap(box: Sandbox) -> None:
    """A guest without filter on the tap isn't under the last one's rules for longer than one event."""
    box.running()
    fail_stop(box, FAILS)
    box.hook(OTHER, "start", guest_xml(OTHER, TAP, None)).fine()
    box.start("third", "vnet8")
    box.assert_nothing_left_of_tap(TAP)


def test_an_unfiltered_guest_isnt_under_the_last_ones_rules(box: Sandbox) -> None:
    """Even a guest without filter makes the hook remove what a stopped guest left on its tap."""
    box.running()
    fail_stop(box, FAILS)
    box.hook(OTHER, "start", guest_xml(OTHER, TAP, None)).fine()
    box.assert_nothing_left_of_tap(TAP)


def test_the_same_guest_gets_another_tap(box: Sandbox) -> None:
    """A guest whose end failed and that starts again on another tap has nothing on the old one."""
    box.running(tap="vnet4")
    fail_stop(box, HANGS)
    box.start(tap="vnet5")
    assert box.kernel("vnet4") == []
    assert not (box.state_dir / "taps" / "vnet4").exists()
    assert box.in_force("vnet5")
    box.check_tidy()
    box.stop()
    box.assert_nothing_left(GUEST, "vnet4", "vnet5")


def test_two_guests_swap_taps(box: Sandbox) -> None:
    """Both guests' ends failed, and each starts on the other's tap: both are right."""
    box.running("a", "vnet1", FILTER)
    box.start("b", "vnet2", "no-mac-spoofing")
    clean = {tap: [line.replace(key_of("a"), key_of("b")) for line in lines] for tap, lines in box.by_tap().items()}
    fail_stop(box, FAILS, guest="a")
    fail_stop(box, FAILS, guest="b")
    box.start("a", "vnet2", "no-mac-spoofing")
    box.start("b", "vnet1", FILTER)
    assert box.by_tap() == clean
    box.check_tidy()
    box.stop("a")
    assert box.kernel("vnet1") == clean["vnet1"]
    box.stop("b")
    box.assert_nothing_left("b", "vnet1", "vnet2")


def test_one_of_a_guests_taps_is_taken(box: Sandbox) -> None:
    """Of a guest with two taps whose end failed, another guest takes one: only the other one is cleaned up."""
    xml = domain(GUEST, [interface(TAP, FILTER), interface("vnet1", FILTER, mac="52:54:00:00:00:02")])
    clean = alone(box)
    box.hook(GUEST, "start", xml).fine()
    fail_stop(box, HANGS)
    box.hook(OTHER, "start", OTHER_XML).fine()
    assert box.kernel(TAP) == clean
    assert box.kernel("vnet1") == []
    assert not (box.state_dir / "taps" / "vnet1").exists()
    box.check_tidy()


def test_a_guest_that_never_stopped_loses_its_tap(box: Sandbox) -> None:
    """libvirt never told of the last guest's end (it was killed too): the next guest has its own rules all the same."""
    clean = alone(box)
    box.start()
    box.hook(OTHER, "start", OTHER_XML).fine()
    assert box.kernel(TAP) == clean
    box.hook(GUEST, "stopped", guest_xml(GUEST, None)).fine()
    assert box.kernel(TAP) == clean
    assert not box.record_path().exists()
    box.stop(OTHER)
    box.assert_nothing_left(OTHER, TAP)


def test_a_tap_moves_from_bridge_to_device(box: Sandbox) -> None:
    """The next guest has the tap outside a bridge: nothing of the last one's is left in the bridge's table."""
    box.running()
    fail_stop(box, FAILS)
    box.plug(TAP)
    xml = OTHER_XML.replace('<source bridge="br0"/>', '<source bridge="br0"/><virtualport type="openvswitch"/>')
    box.hook(OTHER, "start", xml).fine()
    assert {'"netdev"' in line for line in box.kernel(TAP)} == {True}
    box.stop(OTHER)
    box.assert_nothing_left(OTHER, TAP)


def test_a_name_that_looks_like_a_temporary_file_is_a_name(box: Sandbox) -> None:
    """Another guest's start on tap `x` doesn't unsettle who owns tap `x.tmp`."""
    box.running(GUEST, "x.tmp")
    fail_stop(box, FAILS)
    box.start(OTHER, "x.tmp", "no-mac-spoofing")
    kept = box.kernel("x.tmp", exact=True)
    box.start("third", "x")
    box.start("fourth", "y")
    assert box.kernel("x.tmp", exact=True) == kept
    assert (box.state_dir / "taps" / "x.tmp").read_text() == uuid_of(OTHER)
