"""Domain XML that is no XML, too much of it, or made by somebody who wants more than a guest."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.domains import domain, filterref, interface
from tests.support.host import GUEST, HOOK, NOT_XML, TAP, Sandbox, guest_xml

pytestmark = pytest.mark.hook

LAUGHS = "".join(f"<!ENTITY lol{n} '{f'&lol{n - 1};' * 10}'>" for n in range(1, 12))
SECRET = "root:x:0:0"


def with_head(head: str, name: str = GUEST) -> bytes:
    """A guest behind a document type."""
    return (head + guest_xml().replace(f"<name>{GUEST}", f"<name>{name}")).encode()


def padded(size: int) -> bytes:
    """A well-formed domain of this many bytes, most of them in its metadata."""
    xml = guest_xml()
    return xml.replace("<metadata>", f"<metadata><x>{'y' * (size - len(xml))}</x>").encode()


def nested(depth: int) -> bytes:
    """A well-formed domain with elements that deep."""
    return guest_xml().replace("<metadata>", f"<metadata>{'<x>' * depth}{'</x>' * depth}").encode()


BAD: dict[str, Callable[[], bytes]] = {
    "not-xml": NOT_XML.encode,
    "empty": lambda: b"",
    "blanks": lambda: b" \n\t\n",
    "nul": lambda: b"\0" * 100,
    "random": lambda: bytes(range(256)) * 8,
    "truncated": lambda: guest_xml().encode()[:-30],
    "two-roots": lambda: guest_xml().encode() * 2,
    "unbound-prefix": lambda: guest_xml().replace("<metadata>", "<metadata><a:b/>").encode(),
    "wrong-encoding": lambda: b"<?xml version='1.0' encoding='utf-8'?>" + guest_xml("w\xe9b").encode("latin-1"),
    "unknown-encoding": lambda: b"<?xml version='1.0' encoding='klingon'?>" + guest_xml().encode(),
    "dtd": lambda: with_head("<!DOCTYPE domain>"),
    "dtd-lower-case": lambda: with_head("<!doctype domain>"),
    "entity": lambda: with_head("<!DOCTYPE domain [<!ENTITY e 'web'>]>", "&e;"),
    "external-entity": lambda: with_head("<!DOCTYPE domain [<!ENTITY e SYSTEM 'file:///etc/passwd'>]>", "&e;"),
    "external-dtd": lambda: with_head("<!DOCTYPE domain SYSTEM 'http://192.0.2.1/d.dtd'>"),
    "parameter-entity": lambda: with_head("<!DOCTYPE d [<!ENTITY % p SYSTEM 'file:///etc/passwd'> %p;]>"),
    "billion-laughs": lambda: with_head(f"<!DOCTYPE d [<!ENTITY lol0 'lol'>{LAUGHS}]>", "&lol11;"),
    "undefined-entity": lambda: guest_xml().replace("<name>", "<name>&nosuch;").encode(),
    "entity-in-utf-16": lambda: with_head("<!DOCTYPE d [<!ENTITY e 'web'>]>", "&e;").decode().encode("utf-16"),
    "laughs-in-utf-16": lambda: (
        with_head(f"<!DOCTYPE d [<!ENTITY lol0 'lol'>{LAUGHS}]>", "&lol11;").decode().encode("utf-16")
    ),
    "9-megabytes": lambda: padded(9 << 20),
    "100-megabytes": lambda: padded(100 << 20),
    "100-megabytes-of-nothing": lambda: b" " * (100 << 20),
    "nested-100000": lambda: nested(100_000),
    "other-root": lambda: b"<network><name>filterref</name></network>",
    "a-filter": lambda: b"<filter name='x'><filterref filter='y'/></filter>",
    "no-name": lambda: guest_xml().replace(f"<name>{GUEST}</name>", "").encode(),
    "no-uuid": lambda: domain(GUEST, [interface(TAP, "clean-traffic")]).replace("uuid>", "guid>").encode(),
    "uuid-path": lambda: guest_xml().replace("<uuid>", "<uuid>../../").encode(),
    "uuid-slash": lambda: guest_xml().replace("-", "/").encode(),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_domain_is_refused(box: Sandbox, name: str) -> None:
    """start refuses what is no domain XML: one line, nothing changed, in bounded time."""
    xml = BAD[name]()
    with box.unchanged():
        began = time.monotonic()
        line = box.hook(GUEST, "start", xml).refused(GUEST, "domain XML of")
        assert time.monotonic() - began < 10
        assert len(line) < 1000
        assert SECRET not in line


RUNNING = (
    "not-xml",
    "empty",
    "nul",
    "truncated",
    "billion-laughs",
    "9-megabytes",
    "nested-100000",
    "no-uuid",
    "uuid-path",
)


@pytest.mark.parametrize("name", RUNNING)
def test_what_is_no_domain_is_never_a_failure_of_a_running_guest(box: Sandbox, name: str) -> None:
    """reconnect with a useless XML keeps the rules that are in force, and libvirt hears of no failure."""
    box.running()
    before = box.kernel(TAP, exact=True)
    box.hook(GUEST, "reconnect", BAD[name]()).excused(GUEST)
    assert box.kernel(TAP, exact=True) == before
    assert box.record()["guest"] == GUEST
    box.check_tidy()


def test_a_useless_xml_at_the_end_is_replaced_by_the_guests_name(box: Sandbox) -> None:
    """stopped with a useless XML removes the guest of that name, and no other."""
    box.running()
    box.start("other", "vnet9")
    box.hook(GUEST, "stopped", NOT_XML).excused(GUEST, "name")
    box.assert_nothing_left()
    assert box.in_force("vnet9")
    assert box.record("other")["guest"] == "other"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-8-sig", "latin-1"])
def test_other_encodings_are_read_or_refused(box: Sandbox, encoding: str) -> None:
    """XML in another encoding means what it says, or is refused: a reference never goes unseen."""
    declared = {"utf-16-le": "utf-16", "utf-16-be": "utf-16", "utf-8-sig": "utf-8"}.get(encoding, encoding)
    xml = f"<?xml version='1.0' encoding='{declared}'?>{guest_xml()}".encode(encoding)
    ran = box.hook(GUEST, "start", xml)
    if ran.status:
        ran.refused(GUEST)
        box.assert_nothing_left()
    else:
        ran.fine()
        assert box.in_force()


def test_a_reference_hidden_in_utf_7_never_goes_unseen(box: Sandbox) -> None:
    """The bytes that say "filterref" can be spelled otherwise; then it is seen all the same, or refused."""
    xml = guest_xml().replace("filterref", "+AGYAaQBsAHQAZQByAHIAZQBm-")
    ran = box.hook(GUEST, "start", f"<?xml version='1.0' encoding='utf-7'?>{xml}".encode())
    assert ran.status == 1 or box.in_force()


@pytest.mark.parametrize("depth", [50, 200])
def test_a_deep_domain_is_read(box: Sandbox, depth: int) -> None:
    """Elements in each other are fine as deep as anybody needs them."""
    box.hook(GUEST, "start", nested(depth)).fine()
    assert box.in_force()


def test_a_large_domain_is_read(box: Sandbox) -> None:
    """A domain XML of 7 MiB is read."""
    box.hook(GUEST, "start", padded(7 << 20)).fine()
    assert box.in_force()


def test_comments_and_processing_instructions_carry_nothing(box: Sandbox) -> None:
    """A reference in a comment or in CDATA is no reference."""
    hidden = f"<!-- {filterref('no-such')} --><?filterref filter='no-such'?><x><![CDATA[{filterref('no')}]]></x>"
    with box.unchanged():
        box.hook(GUEST, "start", guest_xml(filter_name=None).replace("<metadata>", f"<metadata>{hidden}")).fine()


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


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_any_guest_name_works(box: Sandbox, name: str) -> None:
    """Whatever the guest is called it starts, and stops without a trace; a message about it is one line."""
    xml = xml_for(name, "clean-traffic")
    outside = sorted(path.name for path in box.directory.iterdir())
    box.hook(name, "start", xml).fine()
    assert box.in_force()
    ran = box.hook(name, "start", xml_for(name, "no-such-filter"))
    assert (ran.status, len(ran.lines)) == (1, 1)
    box.hook(name, "stopped", xml).fine()
    assert box.kernel(TAP) == []
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
BAD_TAPS = (
    "",
    ".",
    "..",
    "sixteen-chars-00",
    "tap*",
    "*",
    "tap\\*",
    'tap"',
    "tap'",
    "tap;",
    'vnet0" : accept }; flush ruleset; #',
    "vnet0;reboot",
    "a b",
    " vnet0",
    "a/b",
    "../lock",
    "a:b",
    "a@b",
    "tap$x",
    "$(reboot)",
    "t\u00e4p",
    "tap\u200b",
    "&#10;vnet0",
    "vnet0&#10;add rule",
    "&#9;",
    "{ }",
    "#",
    "%d",
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


@pytest.mark.parametrize("tap", BAD_TAPS, ids=ascii)
def test_any_other_tap_name_is_refused(box: Sandbox, tap: str) -> None:
    """A name that could mean something in an nft script or a path is refused, in one line, and nothing changes."""
    xml = guest_xml(tap="@TAP@").replace("@TAP@", tap.replace('"', "&quot;"))
    with box.unchanged():
        box.hook(GUEST, "start", xml).refused(GUEST, "tap")


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


@pytest.mark.parametrize("reference", ["<filterref/>", "<filterref filtr='clean-traffic'/>", "<filterref filter=''/>"])
def test_a_reference_that_names_no_filter_never_leaves_the_tap_open(box: Sandbox, reference: str) -> None:
    """The same for an interface's own reference."""
    xml = guest_xml(filter_name=None).replace("<target ", f"{reference}<target ")
    assert reference in xml
    with box.unchanged():
        box.hook(GUEST, "start", xml).refused("names no filter")
    box.hook(GUEST, "reconnect", xml).excused("names no filter")
    assert box.quarantined()


MACS = ("", "52:54:00:00:00", "52:54:00:00:00:01;accept", "zz:54:00:00:00:01", "52:54:00:00:00:01\n", "$MAC")


@pytest.mark.parametrize("mac", MACS, ids=ascii)
def test_a_wrong_mac_is_refused(box: Sandbox, mac: str) -> None:
    """What is no MAC address is refused, and nothing changes."""
    with box.unchanged():
        ran = box.hook(GUEST, "start", guest_xml(mac=mac))
    ran.refused(GUEST, "address")


def test_no_hook_is_too_long_for_its_command_line(box: Sandbox) -> None:
    """A guest with 60 interfaces is one transaction and one record."""
    taps = [f"tap{n}" for n in range(60)]
    xml = domain(GUEST, [interface(tap, "clean-traffic", mac=f"52:54:00:00:01:{n:02x}") for n, tap in enumerate(taps)])
    box.hook(GUEST, "start", xml, command=(HOOK,)).fine()
    assert box.in_force(*taps)
    box.stop()
    box.assert_nothing_left(GUEST, *taps)
