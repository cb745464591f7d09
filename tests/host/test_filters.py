"""Filters and parameters written to break out of the nft script, and filter files that are no such thing."""

from __future__ import annotations

import os
from xml.sax.saxutils import quoteattr

import pytest

from tests.support.domains import domain, interface
from tests.support.host import GUEST, TAP, Sandbox, guest_xml
from tests.support.netns import REPOSITORY

pytestmark = pytest.mark.hook

FLUSH = '";flush ruleset;add table bridge evil;#'
HOSTILE = (
    FLUSH,
    "'; flush ruleset; '",
    "x\nflush ruleset",
    "x\rflush ruleset",
    "}}; flush ruleset",
    "$(reboot)",
    "`reboot`",
    '\\"; flush ruleset',
    "../../../../etc/passwd",
    "/etc/passwd",
    "..",
    "@evil",
    "x y",
    "*",
    "\u2028flush ruleset",
    "n\u00e4me",
)


def accept_all() -> str:
    """The smallest rule."""
    return "<rule action='accept' direction='inout'><mac/></rule>"


def raw(text: str) -> str:
    """`text` as an attribute's value that a parser gives back unchanged, line breaks too."""
    return quoteattr(text, {"\n": "&#10;", "\r": "&#13;"})


def referring(name: str) -> str:
    """A guest that refers to the filter `name`, whatever is in it."""
    return guest_xml(filter_name="@NAME@").replace('"@NAME@"', raw(name))


def assert_no_injection(box: Sandbox) -> None:
    """The kernel has our table and no other."""
    tables = box.nft("list", "tables").split("\n")
    assert {line for line in tables if line} <= {"table bridge nwfilter", "table netdev nwfilter"}


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_a_hostile_reference_is_refused(box: Sandbox, name: str) -> None:
    """A filter name that could leave its directory or its place in the script is refused by name."""
    with box.unchanged():
        box.hook(GUEST, "start", referring(name)).refused(GUEST, "filter")
    assert_no_injection(box)


@pytest.mark.parametrize("name", [FLUSH, "../../../../etc/passwd", "x\nflush ruleset"], ids=ascii)
def test_a_hostile_reference_closes_a_running_guests_tap(box: Sandbox, name: str) -> None:
    """At reconnect, where nothing can be refused, the tap is closed, and the name gets nowhere either."""
    box.hook(GUEST, "reconnect", referring(name)).excused(GUEST, "filter")
    assert box.quarantined()
    assert_no_injection(box)


@pytest.mark.parametrize("name", ["a" * 100, "1", "a.b", "a:b", "x-y_z", "drop", "from", "-x"], ids=ascii)
def test_odd_but_plain_filter_names(box: Sandbox, name: str) -> None:
    """nft's words and long names are fine for a filter, and provenance fits; what isn't is refused by name."""
    box.write_filter(name, accept_all())
    ran = box.hook(GUEST, "start", guest_xml(filter_name=name))
    if ran.status:
        ran.refused(name, "letter or digit")
    else:
        ran.fine()
        assert f'"comment": "{name}:2"' in "\n".join(box.kernel(TAP))


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_a_hostile_comment_stays_text(box: Sandbox, text: str) -> None:
    """A rule's comment attribute never becomes nft syntax; the comment in the kernel is FILTER:LINE."""
    box.write_filter("mine", f"<rule action='accept' direction='inout'><mac comment={raw(text)}/></rule>")
    ran = box.hook(GUEST, "start", guest_xml(filter_name="mine"))
    if ran.status:
        ran.refused("mine.xml:2", "comment")
        box.assert_nothing_left()
    else:
        ran.fine()
        assert '"comment": "mine:2"' in "\n".join(box.kernel(TAP))
    assert_no_injection(box)


@pytest.mark.parametrize(
    ("attributes", "rules"),
    [
        (f"chain={raw('mac-' + FLUSH)}", accept_all()),
        ("chain='mac-x y'", accept_all()),
        ("chain='../mac'", accept_all()),
        ("chain='mac/../..'", accept_all()),
        (f"priority={raw('1' + FLUSH)}", accept_all()),
        ("", f"<rule action={raw('accept' + FLUSH)} direction='inout'/>"),
        ("", f"<rule action='accept' direction={raw('in' + FLUSH)}/>"),
        ("", f"<rule action='accept' direction='in' priority={raw('1' + FLUSH)}/>"),
        ("", f"<rule action='accept' direction='in'><mac srcmacaddr={raw('$MAC' + FLUSH)}/></rule>"),
        ("", f"<rule action='accept' direction='in'><mac srcmacaddr={raw('$' + FLUSH)}/></rule>"),
        ("", f"<rule action='accept' direction='in'><mac srcmacaddr={raw(FLUSH)}/></rule>"),
        ("", f"<rule action='accept' direction='in'><mac protocolid={raw('ipv4' + FLUSH)}/></rule>"),
        ("", f"<rule action='accept' direction='in'><ip srcipaddr={raw('10.0.0.1' + FLUSH)}/></rule>"),
        ("", f"<rule action='accept' direction='in'><ip protocol={raw('tcp' + FLUSH)}/></rule>"),
        ("", f"<rule action='accept' direction='in'><vlan vlanid={raw('1' + FLUSH)}/></rule>"),
        ("", f"<rule action='accept' direction='in'><all ipset={raw('x' + FLUSH)} ipsetflags='src'/></rule>"),
        ("", f"<rule action='accept' direction='in'><all ipset='x' ipsetflags={raw('src' + FLUSH)}/></rule>"),
        ("", f"<rule action='accept' direction='in'><tcp flags={raw('SYN/' + FLUSH)}/></rule>"),
        ("", f"<rule action='accept' direction='in'><all state={raw('NEW' + FLUSH)}/></rule>"),
        ("", "<mac/>"),
        ("", f"<filterref filter={raw(FLUSH)}/>"),
        ("", f"<filterref filter='no-mac-spoofing'><parameter name='X' value={raw(FLUSH)}/></filterref>"),
        ("", f"<filterref filter='no-mac-spoofing'><parameter name={raw(FLUSH)} value='X'/></filterref>"),
        ("xmlns='urn:x'", accept_all()),
        ("evil='1'", accept_all()),
    ],
)
def test_a_hostile_attribute_is_refused_at_its_line(box: Sandbox, attributes: str, rules: str) -> None:
    """Whatever attribute holds nft syntax, the filter is refused with file and line, and nothing changes."""
    box.write_filter("mine", rules, attributes=attributes)
    with box.unchanged():
        box.hook(GUEST, "start", guest_xml(filter_name="mine")).refused("mine.xml:")
    assert_no_injection(box)


@pytest.mark.parametrize("text", ["plain", "with.dot-and_dash:", "a/b", "a b", "a'b", "a{b", "a\u00e4"], ids=ascii)
def test_an_odd_set_name_is_encoded_or_refused(box: Sandbox, text: str) -> None:
    """The name of an ipset never becomes nft syntax."""
    rule = f"<rule action='drop' direction='in' statematch='0'><all ipset={raw(text)} ipsetflags='src'/></rule>"
    box.write_filter("mine", rule)
    ran = box.hook(GUEST, "start", guest_xml(filter_name="mine"))
    if ran.status:
        ran.refused("mine.xml:2")
        box.assert_nothing_left()
    else:
        ran.fine()
        assert box.in_force()
    assert_no_injection(box)


@pytest.mark.parametrize("value", HOSTILE, ids=ascii)
def test_a_hostile_parameter_is_refused(box: Sandbox, value: str) -> None:
    """A parameter's value or name with anything but plain characters is refused by name."""
    xml = guest_xml(parameters=[("IP", "@VALUE@")]).replace('"@VALUE@"', raw(value))
    other = guest_xml(parameters=[("@NAME@", "1")]).replace('"@NAME@"', raw(value))
    with box.unchanged():
        box.hook(GUEST, "start", xml).refused("parameter IP")
        box.hook(GUEST, "prepare", other).refused("parameter name")
    assert_no_injection(box)


@pytest.mark.parametrize("value", ["10.0.0.256", "10.0.0", "1", "::1", "accept", "10.0.0.1.", "0.0.0.0.0", "drop"])
def test_a_value_of_another_type_is_refused(box: Sandbox, value: str) -> None:
    """A parameter that its attribute can't hold is an error naming parameter, filter and line."""
    with box.unchanged():
        line = box.hook(GUEST, "start", guest_xml(parameters=[("IP", value)])).refused("IP", value)
    assert ".xml:" in line


def test_the_same_parameter_many_times_is_a_list(box: Sandbox) -> None:
    """A hundred addresses are a hundred rules, not a command line that is too long."""
    xml = guest_xml(parameters=[("IP", f"10.0.{n // 250}.{n % 250 + 1}") for n in range(100)])
    box.hook(GUEST, "start", xml).fine()
    assert "10.0.0.100" in "\n".join(box.kernel(TAP))


# --- filter files -----------------------------------------------------------------------------------------------------


def test_a_filter_file_may_be_a_link(box: Sandbox) -> None:
    """The administrator may link one filter's file to another place."""
    target = box.directory / "elsewhere.xml"
    target.write_text(f"<filter name='mine'>{accept_all()}</filter>")
    (box.filters / "mine.xml").symlink_to(target)
    box.hook(GUEST, "start", guest_xml(filter_name="mine")).fine()
    assert box.in_force()


@pytest.mark.parametrize("kind", ["directory", "dangling", "loop", "fifo", "device", "passwd", "empty", "socket"])
def test_a_filter_file_that_is_none_is_refused(box: Sandbox, kind: str) -> None:
    """A file that can't hold a filter is an error naming it, in bounded time."""
    path = box.filters / "mine.xml"
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "empty":
        path.touch()
    elif kind == "socket":
        box.run("python3", "-c", f"import socket; socket.socket(socket.AF_UNIX).bind({str(path)!r})")
    else:
        targets = {"dangling": "/nowhere", "loop": str(path), "device": "/dev/zero", "passwd": "/etc/passwd"}
        path.symlink_to(targets[kind])
    with box.unchanged():
        line = box.hook(GUEST, "start", guest_xml(filter_name="mine"), timeout_s=10).refused("mine")
    assert "root:x" not in line


@pytest.mark.parametrize(
    "how", ["file", "group", "owner", "directory", "sticky directory", "directory's owner", "above"]
)
def test_a_filter_that_others_may_write_is_refused(box: Sandbox, how: str) -> None:
    """Whoever may write a filter, or put another into its place, would decide; so no filter is looked for there."""
    path = box.write_filter("mine", accept_all())
    box.hook(GUEST, "prepare", guest_xml(filter_name="mine")).fine()
    if how == "file":
        path.chmod(0o646)
    elif how == "group":
        os.chown(path, 0, 1000)
        path.chmod(0o664)
    elif "owner" in how:
        os.chown(path if how == "owner" else box.filters, 1000, 0)
    else:
        target = box.filters.parent if how == "above" else box.filters
        target.chmod(0o1777 if how == "sticky directory" else 0o777)
    with box.unchanged():
        for operation in ("prepare", "start"):
            line = box.hook(GUEST, operation, guest_xml(filter_name="mine")).refused(" ch")
            assert "'mine' is not looked for where others may write: " in line or how == "above"
        if "directory" in how:  # where a filter could be planted that hides the stock one
            box.hook(GUEST, "start", guest_xml()).refused("'clean-traffic' is not looked for where others may write: ")


def test_a_broken_filter_of_the_administrator_hides_the_stock_filter(box: Sandbox) -> None:
    """The first directory that has a file of this name decides; one that can't be used is no reason to go on."""
    (box.filters / "clean-traffic.xml").mkdir()
    (box.filters / "no-mac-spoofing.xml").symlink_to("/nowhere")
    with box.unchanged():
        box.hook(GUEST, "start", guest_xml(filter_name="clean-traffic")).refused("clean-traffic")
        box.hook(GUEST, "start", guest_xml(filter_name="no-mac-spoofing")).refused("no-mac-spoofing")


BAD_FILES = {
    "other-name": "<filter name='yours'/>",
    "no-name": "<filter/>",
    "not-xml": "<filter name='mine'>",
    "doctype": "<!DOCTYPE filter [<!ENTITY x SYSTEM '/etc/passwd'>]><filter name='mine'>&x;</filter>",
    "huge": "<filter name='mine'>" + " " * (9 << 20) + "</filter>",
    "deep": "<filter name='mine'>" + "<rule>" * 5000 + "</rule>" * 5000 + "</filter>",
    "includes-itself": "<filter name='mine'><filterref filter='mine'/></filter>",
    "includes-nothing": "<filter name='mine'><filterref filter='no-such'/></filter>",
    "a-domain": "<domain><name>mine</name></domain>",
    "unbound": "<filter name='mine'><rule action='drop' direction='in'><mac srcmacaddr='$X'/></rule></filter>",
    "lost-bracket": "<filter name='mine'><rule action='accept' direction='in'>tcp dstportstart='22'/></rule></filter>",
    "typo": "<filter name='mine'><rule action='drop' direction='in'><mac srcmcaddr='$MAC'/></rule></filter>",
    "many-faults": "<filter name='mine' colour='red'><rul/><rule/></filter>",
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_wrong_filter_file_is_refused_at_its_line(box: Sandbox, name: str) -> None:
    """A filter file that is wrong is named with a line; the guest isn't started and nothing changes."""
    (box.filters / "mine.xml").write_text(BAD_FILES[name])
    with box.unchanged():
        for operation in ("prepare", "start"):
            line = box.hook(GUEST, operation, guest_xml(filter_name="mine")).refused("mine.xml:")
            assert len(line) < 1000


def test_a_loop_shows_its_cycle(box: Sandbox) -> None:
    """Filters that include each other are refused, with the names on the way."""
    for one, other in (("a", "b"), ("b", "c"), ("c", "a")):
        box.write_filter(one, f"<filterref filter='{other}'/>")
    with box.unchanged():
        box.hook(GUEST, "start", guest_xml(filter_name="a")).refused("a", "b", "c")


def test_a_filter_cannot_multiply_without_end(box: Sandbox) -> None:
    """Thirty filters, each including the next one twice, aren't a thousand million rules: equal rules count once."""
    for number in range(30):
        box.write_filter(f"twice{number}", f"<filterref filter='twice{number + 1}'/>" * 2)
    box.write_filter("twice30", accept_all())
    box.hook(GUEST, "start", guest_xml(filter_name="twice0"), timeout_s=10).fine()
    assert len([line for line in box.kernel(TAP) if "twice30" in line]) <= 3  # one each way


@pytest.mark.parametrize("filter_dirs", ["/nowhere", "/etc/passwd", "/dev/null"])
def test_a_filter_directory_that_is_none_holds_no_filters(box: Sandbox, filter_dirs: str) -> None:
    """The message says where the filter was looked for."""
    box.conf.write_text(f"[paths]\nstate_dir = {box.state_dir}\nfilter_dirs = {filter_dirs}\n")
    with box.unchanged():
        box.hook(GUEST, "start", guest_xml()).refused("clean-traffic", filter_dirs)


def test_a_rule_that_nft_refuses_is_named(box: Sandbox) -> None:
    """nft's complaint comes with the filter and the XML line of the rule that caused it."""
    body = 'awk \'/"mine:3"/ { print "/dev/stdin:" NR ":1-9: Error: Could not process rule" > "/dev/stderr" }\'; exit 1'
    box.write_filter("mine", f"{accept_all()}\n{accept_all()}\n{accept_all()}")
    box.fake_nft(body)
    box.hook(GUEST, "start", guest_xml(filter_name="mine")).refused("mine", "mine.xml:3", "Could not process rule")


def test_many_guests_of_one_filter(box: Sandbox) -> None:
    """A guest with interfaces of every stock filter starts and stops without a trace."""
    names = sorted(path.stem for path in (REPOSITORY / "filters").glob("*.xml"))
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
