"""Which definitions are taken and which refused: names, UUIDs, loops, references that dangle, filters in use."""

from __future__ import annotations

import uuid

import pytest

from tests.support.frames import OTHER
from tests.support.host import STOCK, Sandbox, drop_udp, filter_xml, reference

ONE = "11111111-1111-4111-8111-111111111111"
TWO = "22222222-2222-4222-8222-222222222222"


def uuid_of_filter(site: Sandbox, name: str) -> str:
    """What `list` says."""
    (found,) = [each["uuid"] for each in site.cli("list", "--json").json if each["name"] == name]
    return str(found)


# --- identity ---------------------------------------------------------------------------------------------------------


def test_a_new_filter_gets_a_uuid(library: Sandbox) -> None:
    """A definition without one is stored with a random one."""
    library.define(filter_xml("a")).fine()
    library.define(filter_xml("b")).fine()
    found = {uuid_of_filter(library, name) for name in "ab"}
    assert len({uuid.UUID(each).version for each in found}) == 1
    assert len(found) == 2


def test_a_redefinition_without_uuid_keeps_the_old_one(library: Sandbox) -> None:
    """It needs not be repeated, and the command says that it was kept."""
    library.define(filter_xml("a", uuid=ONE)).fine()
    assert f"keeps {ONE}" in library.define(filter_xml("a", drop_udp(9))).fine().out
    assert uuid_of_filter(library, "a") == ONE


def test_a_redefinition_with_its_uuid_is_taken(library: Sandbox) -> None:
    """In any spelling that libvirt takes."""
    library.define(filter_xml("a", uuid=ONE)).fine()
    library.define(filter_xml("a", drop_udp(9), uuid=ONE.replace("-", "").upper())).fine()
    assert uuid_of_filter(library, "a") == ONE


def test_the_same_name_with_another_uuid_is_refused(library: Sandbox) -> None:
    """The name is taken, and the message says by which UUID."""
    library.define(filter_xml("a", uuid=ONE)).fine()
    with library.unchanged():
        library.define(filter_xml("a", uuid=TWO)).refused("'a'", ONE)


def test_the_same_uuid_with_another_name_is_refused(library: Sandbox) -> None:
    """The UUID is taken, and the message says by which name."""
    library.define(filter_xml("a", uuid=ONE)).fine()
    with library.unchanged():
        library.define(filter_xml("b", uuid=ONE)).refused("'a'", ONE)


def test_stock_filters_defend_their_uuids_too(library: Sandbox) -> None:
    """Their names and UUIDs are taken like any other's."""
    taken = uuid_of_filter(library, "clean-traffic")
    library.define(filter_xml("mine", uuid=taken)).refused("'clean-traffic'", taken)
    library.define(filter_xml("clean-traffic", uuid=ONE)).refused("'clean-traffic'", taken)
    assert not library.filters.exists()


def test_an_undefined_uuid_is_free_again(library: Sandbox) -> None:
    """Undefine and define it under another name: that is how a filter is renamed."""
    library.define(filter_xml("a", uuid=ONE)).fine()
    library.cli("undefine", ONE).fine()
    library.define(filter_xml("b", uuid=ONE)).fine()
    assert library.names(uuid=ONE) == ["b"]


def test_a_broken_file_defends_nothing(library: Sandbox) -> None:
    """A file that is no filter doesn't keep its name from being defined, which mends it."""
    library.place("a", "<filter name='a'")
    library.define(filter_xml("a", uuid=ONE)).fine()
    assert library.names(uuid=ONE, problem=None) == ["a"]


# --- shadows ----------------------------------------------------------------------------------------------------------


def test_a_local_filter_hides_a_stock_one_visibly(library: Sandbox) -> None:
    """It carries the stock filter's UUID, and `list` tells; undefine brings the stock one back."""
    stock = uuid_of_filter(library, "allow-arp")
    library.define(filter_xml("allow-arp", drop_udp(9))).fine()
    assert uuid_of_filter(library, "allow-arp") == stock
    assert library.names(origin="local", shadows=True) == ["allow-arp"]
    (line,) = [line for line in library.cli("list").fine().out.splitlines() if " allow-arp " in line]
    assert "local, hides another" in line
    library.cli("undefine", "allow-arp").fine()
    assert library.names(origin="local") == []
    assert "allow-arp" in library.names(origin="stock", shadows=False)


def test_a_stock_filter_cannot_be_undefined(library: Sandbox) -> None:
    """It isn't the administrator's."""
    library.cli("undefine", "allow-arp").refused("'allow-arp'", "not a local one", str(STOCK))


def test_nothing_to_undefine(library: Sandbox) -> None:
    """An unknown name or UUID is an error, with what was probably meant."""
    library.cli("undefine", "alow-arp").refused("'alow-arp'", "did you mean 'allow-arp'?")
    library.cli("undefine", TWO).refused(TWO)


# --- references -------------------------------------------------------------------------------------------------------


def test_references_may_dangle(library: Sandbox) -> None:
    """A filter may name one that is still to come: taken, with a warning that says where."""
    ran = library.define(filter_xml("a", drop_udp(9), reference("to-come")))
    assert ran.status == 0
    assert ran.err.startswith("warning: <stdin>:3: no filter 'to-come'")
    library.define(filter_xml("to-come")).fine()
    assert library.define(filter_xml("a", drop_udp(10), reference("to-come"))).fine()


def test_a_reference_to_a_broken_filter_is_a_warning(library: Sandbox) -> None:
    """Whose error it is stands in the warning."""
    library.place("broken", "<filter name='broken'><rule/></filter>")
    ran = library.define(filter_xml("a", reference("broken")))
    assert ran.status == 0
    assert f"{library.filters}/broken.xml:1: " in ran.err


def test_a_filter_that_includes_itself(library: Sandbox) -> None:
    """The smallest loop."""
    library.define(filter_xml("a", reference("a"))).refused("<stdin>:2", "a -> a")
    assert library.names(origin="local") == []


def test_a_longer_loop_is_printed(library: Sandbox) -> None:
    """The cycle stands in the message, and the definition that would close it isn't stored."""
    library.define(filter_xml("c", drop_udp(9))).fine()
    library.define(filter_xml("b", reference("c"))).fine()
    library.define(filter_xml("a", reference("b"))).fine()
    with library.unchanged():
        library.define(filter_xml("c", reference("allow-arp"), reference("a"))).refused("c -> a -> b -> c")


def test_a_loop_that_was_waiting(library: Sandbox) -> None:
    """References that dangle may close a loop only when the last filter of it is defined."""
    assert library.define(filter_xml("a", reference("b"))).status == 0
    library.define(filter_xml("b", reference("a"))).refused("b -> a -> b")


def test_a_loop_in_the_files(library: Sandbox) -> None:
    """A loop that somebody wrote by hand is found from a filter outside of it."""
    library.write_filter("a", reference("b"))
    library.write_filter("b", reference("a"))
    library.define(filter_xml("outside", reference("a"))).refused("a -> b -> a")


def test_the_same_filter_twice_is_no_loop(library: Sandbox) -> None:
    """A filter may be reached in many ways, also in as many as would take for ever to walk."""
    library.define(filter_xml("f0")).fine()
    for number in range(1, 40):
        library.define(filter_xml(f"f{number}", *[reference(f"f{number - 1}")] * 2)).fine()
    assert len(library.names(origin="local")) == 40


def test_a_chain_deeper_than_pythons_stack(library: Sandbox) -> None:
    """Two thousand filters, each in the next: defined without a traceback."""
    library.write_filter("f0")
    for number in range(1, 2000):
        library.write_filter(f"f{number}", reference(f"f{number - 1}"))
    library.define(filter_xml("top", reference("f1999"))).fine()
    library.define(filter_xml("f0", reference("top"))).refused("f0 -> top -> f1999")


# --- in use -----------------------------------------------------------------------------------------------------------


@pytest.mark.netns
def test_a_filter_in_use_stays(site: Sandbox) -> None:
    """Directly or through others: undefine names the guests and taps that use it."""
    site.define(filter_xml("inner", drop_udp(9))).fine()
    site.define(filter_xml("outer", reference("inner"))).fine()
    site.start("web", "vnet0", "outer")
    site.start("db", "vnet1", "inner", mac=OTHER)
    with site.unchanged():
        site.cli("undefine", "inner").refused("'inner'", "in use", "web (vnet0)", "db (vnet1)")
        site.cli("undefine", "outer").refused("'outer'", "web (vnet0)")
    site.stop("db")
    site.cli("undefine", "inner").refused("web (vnet0)")
    site.stop("web")
    ran = site.cli("undefine", "inner")
    assert ran.status == 0
    assert "warning: still referred to by filter outer" in ran.err
    site.cli("undefine", "outer").fine()
    assert site.names(origin="local") == []


@pytest.mark.netns
def test_many_users_are_counted(site: Sandbox) -> None:
    """A message stays one line a person can read."""
    site.define(filter_xml("mine", drop_udp(9))).fine()
    for number in range(8):
        site.start(f"guest-{number}", f"tap{number}", "mine")
    assert site.cli("undefine", "mine").refused("guest-0 (tap0)", "and 3 more").count("tap") == 5


@pytest.mark.netns
def test_a_shadow_in_use_gives_way_to_the_stock_filter(site: Sandbox) -> None:
    """Undefine of a local filter that hides a stock one puts that into force."""
    site.start("web", "vnet0", "no-mac-spoofing")
    stock = site.rules()
    site.define(filter_xml("no-mac-spoofing", drop_udp(9))).fine()
    assert site.rules() != stock
    ran = site.cli("undefine", "no-mac-spoofing").fine()
    assert "changed: web vnet0" in ran.out
    assert site.rules() == stock
    site.check()


def test_a_default_of_the_configuration_is_told(library: Sandbox) -> None:
    """A filter that new guests would get by default may go, with a warning."""
    library.configure("[defaults]\nbridge.br0 = mine")
    library.define(filter_xml("mine")).fine()
    ran = library.cli("undefine", "mine")
    assert (ran.status, ran.err) == (0, "warning: still referred to by the configuration's bridge.br0\n")
