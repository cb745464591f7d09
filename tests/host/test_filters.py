"""Filters and parameters written to break out of the nft script, and filter files that are no such thing."""

from __future__ import annotations

from xml.sax.saxutils import quoteattr

import pytest

from tests.support.domains import domain, interface
from tests.support.host import GUEST, STOCK, TAP, Sandbox, guest_xml

pytestmark = pytest.mark.hook

FLUSH = '";flush ruleset;add table bridge evil;#'
ACCEPT_ALL = "<rule action='accept' direction='inout'><mac/></rule>"


def raw(text: str) -> str:
    """`text` as an attribute's value that a parser gives back unchanged, line breaks too."""
    return quoteattr(text, {"\n": "&#10;", "\r": "&#13;"})


def assert_no_injection(box: Sandbox) -> None:
    """The kernel has our table and no other."""
    tables = box.nft("list", "tables").split("\n")
    assert {line for line in tables if line} <= {"table bridge nwfilter", "table netdev nwfilter"}


@pytest.mark.parametrize("name", [FLUSH, "../../../../etc/passwd", "x\nflush ruleset"], ids=ascii)
def test_a_hostile_reference(box: Sandbox, name: str) -> None:
    """A start is refused; at reconnect, where nothing can be, the tap is closed; the name gets nowhere."""
    xml = guest_xml(filter_name="@NAME@").replace('"@NAME@"', raw(name))
    with box.unchanged():
        box.hook(GUEST, "start", xml).refused(GUEST, "filter name")
    box.hook(GUEST, "reconnect", xml).excused(GUEST, "filter name")
    assert box.quarantined()
    assert_no_injection(box)


def test_hostile_texts_stay_texts(box: Sandbox) -> None:
    """A comment, and the name of a set, never become nft syntax; nft's own words may be names of filters."""
    for name in ("drop", "a" * 100, "a.b", "a:b", "x-y_z", "1"):
        lines = [
            f"<rule action='accept' direction='inout'><mac comment={raw(comment)}/></rule>"
            for comment in (FLUSH, "x\nflush ruleset", "}}; flush ruleset", "$(reboot)")
        ]
        lines += [
            f"<rule action='drop' direction='in' statematch='0'><all ipset='{each}' ipsetflags='src'/></rule>"
            for each in ("with.dot-and_dash:", "a b")
        ]
        box.write_filter(name, *lines)
        box.hook(GUEST, "start", guest_xml(filter_name=name)).fine()
        assert f'"comment": "{name}:2"' in "\n".join(box.kernel(TAP))
        assert_no_injection(box)


def test_a_wrong_filter_file_is_refused_at_its_line(box: Sandbox) -> None:
    """It is named with a line; the guest isn't started and nothing changes."""
    box.write_filter("mine", "", "<rule action='drop' direction='in'><mac srcmcaddr='$MAC'/></rule>")
    with box.unchanged():
        for operation in ("prepare", "start"):
            box.hook(GUEST, operation, guest_xml(filter_name="mine")).refused("mine.xml:3: unknown attribute")


def test_a_filter_file_may_be_a_link(box: Sandbox) -> None:
    """The administrator may link one filter's file to another place."""
    target = box.directory / "elsewhere.xml"
    target.write_text(f"<filter name='mine'>{ACCEPT_ALL}</filter>")
    (box.filters / "mine.xml").symlink_to(target)
    box.hook(GUEST, "start", guest_xml(filter_name="mine")).fine()
    assert box.in_force()


@pytest.mark.parametrize("how", ["file", "directory"])
def test_a_filter_that_others_may_write_is_refused(box: Sandbox, how: str) -> None:
    """Whoever may write a filter, or put another into its place, would decide; so no filter is looked for there."""
    path = box.write_filter("mine", ACCEPT_ALL)
    box.hook(GUEST, "prepare", guest_xml(filter_name="mine")).fine()
    (path if how == "file" else box.filters).chmod(0o777)
    with box.unchanged():
        for operation in ("prepare", "start"):
            line = box.hook(GUEST, operation, guest_xml(filter_name="mine")).refused("; chmod ")
            assert "'mine' is not looked for where others may write: " in line
        if how == "directory":  # where a filter could be planted that hides the stock one
            box.hook(GUEST, "start", guest_xml()).refused("'clean-traffic' is not looked for where others may write: ")


def test_many_guests_of_one_filter(box: Sandbox) -> None:
    """A guest with interfaces of every stock filter starts and stops without a trace."""
    names = sorted(path.stem for path in STOCK.glob("*.xml"))
    assert len(names) >= 24
    interfaces = [
        interface(
            f"tap{number}",
            name,
            [
                ("DHCPSERVER", "2001:db8::2" if "v6" in name else "10.0.0.2"),
                ("IPV6", "2001:db8::1"),
                ("LINK_LOCAL", "fe80::1"),
                ("GATEWAY_MAC", "52:54:00:00:00:ff"),
                ("VLAN", "7"),
                ("TAGGED", "any"),
            ],
            mac=f"52:54:00:00:00:{number:02x}",
        )
        for number, name in enumerate(names)
    ]
    taps = [f"tap{number}" for number in range(len(names))]
    box.hook(GUEST, "start", domain(GUEST, interfaces)).fine()
    assert box.in_force(*taps)
    box.hook(GUEST, "reconnect", domain(GUEST, interfaces)).fine()
    box.stop()
    box.assert_nothing_left(GUEST, *taps)
