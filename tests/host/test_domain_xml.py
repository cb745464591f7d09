"""Domain XML that is no XML, too much of it, or made by somebody who wants more than a guest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.domains import domain, interface
from tests.support.host import GUEST, HOOK, NOT_XML, TAP, Sandbox, guest_xml

pytestmark = pytest.mark.hook


def padded(size: int) -> bytes:
    """A well-formed domain of this many bytes, most of them in its metadata."""
    xml = guest_xml()
    return xml.replace("<metadata>", f"<metadata><x>{'y' * (size - len(xml))}</x>").encode()


BAD: dict[str, Callable[[], bytes]] = {
    "not-xml": NOT_XML.encode,
    "9-megabytes": lambda: padded(9 << 20),
    "100-megabytes-of-nothing": lambda: b" " * (100 << 20),
    "no-uuid": lambda: guest_xml().replace("uuid>", "guid>").encode(),
    "uuid-path": lambda: guest_xml().replace("<uuid>", "<uuid>../../").encode(),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_domain(box: Sandbox, name: str) -> None:
    """
    start refuses it: one line, nothing changed, in bounded time; reconnect keeps the rules that are in force, and
    libvirt hears of no failure.
    """
    xml = BAD[name]()
    with box.unchanged():
        line = box.hook(GUEST, "start", xml, timeout_s=10).refused(GUEST, "domain XML of")
        assert len(line) < 1000
    box.running()
    with box.unchanged():
        box.hook(GUEST, "reconnect", xml).excused(GUEST)
    box.check_tidy()


def test_a_useless_xml_at_the_end_is_replaced_by_the_guests_name(box: Sandbox) -> None:
    """stopped with a useless XML removes the guest of that name, and no other."""
    box.running()
    box.start("other", "vnet9")
    box.hook(GUEST, "stopped", NOT_XML).excused(GUEST, "name")
    box.assert_nothing_left()
    assert box.in_force("vnet9")
    assert box.record("other")["guest"] == "other"


def test_a_large_domain_is_read(box: Sandbox) -> None:
    """A domain XML of 7 MiB is read."""
    box.hook(GUEST, "start", padded(7 << 20)).fine()
    assert box.in_force()


# --- guest names ------------------------------------------------------------------------------------------------------

NAMES = (
    "two words",
    "quo'te",
    'double"quote',
    "back\\slash",
    "new\nline",
    "carriage\rreturn",
    "esc\x1b[2J\x1b]0;title\x07",
    "../../../../tmp/evil",
    "--help",
    "",
    "n\u00e4me-\u4e2d\u6587",
    "right\u202eto-left",
    "line\u2028separator",
    "x" * 4000,
    "%s%n%d",
)


def xml_for(name: str, filter_name: str) -> str:
    """The guest's XML; a name that XML can't hold is left out of it, as an attacker of the argument would."""
    safe = "".join(char if char.isprintable() and char not in "<&" else "_" for char in name).strip() or "nameless"
    return domain(safe, [interface(TAP, filter_name)])


def test_any_guest_name_works(box: Sandbox) -> None:
    """Whatever the guest is called it starts, and stops without a trace; a message about it is one line."""
    outside = sorted(path.name for path in box.directory.iterdir())
    for name in NAMES:
        xml = xml_for(name, "clean-traffic")
        box.hook(name, "start", xml).fine()
        assert box.in_force(), name
        box.hook(name, "start", xml_for(name, "no-such-filter")).refused()
        box.hook(name, "stopped", xml).fine()
        assert box.kernel(TAP) == [], name
        assert not any(GUEST in path or TAP in path for path in box.files())
        assert sorted(path.name for path in box.directory.iterdir()) == outside
    assert not Path("/tmp/evil").exists()


@pytest.mark.parametrize("name", [b"\xff\xfe", b"caf\xe9"], ids=ascii)
def test_a_guest_name_that_is_no_text_works(box: Sandbox, name: bytes) -> None:
    """Bytes that are no UTF-8 are spelled out in the message."""
    ran = box.finish(box.begin(name.decode(errors="surrogateescape"), "start"), guest_xml(filter_name="no-such"))
    assert (ran.status, ran.out, len(ran.lines)) == (1, "", 1)
    assert ran.lines[0].isascii()


def test_the_xml_says_who_the_guest_is(box: Sandbox) -> None:
    """A hostile name inside the XML is kept as text, and shows as one line."""
    name = "evil&#27;[2J&#10;nwfilter-hook: all is well"
    xml = guest_xml(filter_name="no-such").replace(f"<name>{GUEST}</name>", f"<name>{name}</name>")
    box.hook(GUEST, "start", xml.replace("&#27;", "")).refused("no-such")


# --- tap names --------------------------------------------------------------------------------------------------------

GOOD_TAPS = (
    "0tap",
    "1",
    "0x1f",
    "tap.100",
    "...",
    "a.",
    "tap_1",
    "tap-web-01-if00",
    "TAP",
    "-tap",
    "mac",
    "arp",
    "ip",
    "ip6",
    "vlan",
    "accept",
    "drop",
    "jump",
    "iifname",
    "table",
    "flush",
    "tap.tmp",
    "lo",
)


def test_any_tap_name_that_libvirt_takes_works(box: Sandbox) -> None:
    """Start, reconnect and stop work with every name that the kernel and libvirt take, nft's own words too."""
    macs = [f"52:54:00:00:02:{number:02x}" for number in range(len(GOOD_TAPS))]
    xml = domain(GUEST, [interface(tap, "clean-traffic", mac=mac) for tap, mac in zip(GOOD_TAPS, macs)])
    box.hook(GUEST, "start", xml).fine()
    assert box.in_force(*GOOD_TAPS)
    box.hook(GUEST, "reconnect", xml).fine()
    box.stop()
    box.assert_nothing_left(GUEST, *GOOD_TAPS)


@pytest.mark.parametrize("tap", ["", "..", "vnet0; reboot"], ids=ascii)
def test_no_tap_name_fails_a_reconnect(box: Sandbox, tap: str) -> None:
    """A running guest with such a tap gets a message, and nothing changes."""
    with box.unchanged():
        box.hook(GUEST, "reconnect", guest_xml(tap=tap)).excused(GUEST, "tap")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("tap-web", "tap-web-2"),
        ("vnet1", "vnet10"),
        ("tap", "tap.tmp"),
        ("a", "A"),
    ],
)
def test_taps_with_similar_names_are_strangers(box: Sandbox, one: str, other: str) -> None:
    """Whichever of two taps goes first, the other keeps its rules to the last handle."""
    for first, second in ((one, other), (other, one)):
        box.start("guest-b", second)
        box.start("guest-a", first)
        kept = box.kernel(second, exact=True)
        owner = box.state_dir / "taps" / second
        assert owner.exists()
        box.hook("guest-a", "stopped", guest_xml("guest-a", None)).fine()
        box.assert_nothing_left("guest-a", first)
        assert box.kernel(second, exact=True) == kept
        assert owner.exists()
        box.hook("guest-b", "stopped", guest_xml("guest-b", None)).fine()
        box.assert_nothing_left("guest-b", second)


def test_two_interfaces_cannot_share_a_tap(box: Sandbox) -> None:
    """A domain that names one tap twice is refused."""
    twice = [interface(TAP, "clean-traffic"), interface(TAP, "no-mac-spoofing", mac="52:54:00:00:00:02")]
    with box.unchanged():
        box.hook(GUEST, "start", domain(GUEST, twice)).refused(TAP)


BINDINGS = "https://nwfilter-hook.org/xmlns/1"
REFERENCE = f"<n:interface dev='{TAP}'><filterref filter='clean-traffic'/></n:interface>"
MISSPELT = {
    "element": f"<n:binding xmlns:n='{BINDINGS}'>{REFERENCE}</n:binding>",
    "namespace": f"<n:bindings xmlns:n='{BINDINGS}0'>{REFERENCE}</n:bindings>",
    "lost-bracket": f"<n:bindings xmlns:n='{BINDINGS}'>{REFERENCE[1:]}</n:bindings>".replace("</n:interface>", ""),
    "twice": f"<n:bindings xmlns:n='{BINDINGS}'/><n:bindings xmlns:n='{BINDINGS}'>{REFERENCE}</n:bindings>",
}


@pytest.mark.parametrize("name", MISSPELT)
def test_a_misspelt_reference_in_metadata_never_leaves_the_tap_open(box: Sandbox, name: str) -> None:
    """Where the filter is named nowhere else: the guest doesn't start, and the tap of a running one is closed."""
    xml = domain(GUEST, [interface(TAP, None)], metadata=MISSPELT[name])
    with box.unchanged():
        for operation in ("prepare", "start"):
            box.hook(GUEST, operation, xml).refused(GUEST)
    box.hook(GUEST, "reconnect", xml).excused(GUEST)
    assert box.quarantined()


def test_no_hook_is_too_long_for_its_command_line(box: Sandbox) -> None:
    """A guest with 60 interfaces is one transaction and one record."""
    taps = [f"tap{n}" for n in range(60)]
    xml = domain(GUEST, [interface(tap, "clean-traffic", mac=f"52:54:00:00:01:{n:02x}") for n, tap in enumerate(taps)])
    box.hook(GUEST, "start", xml, command=(HOOK,)).fine()
    assert box.in_force(*taps)
    box.stop()
    box.assert_nothing_left(GUEST, *taps)
