"""How many connections a guest may have open: the parameter, and what a floor makes of it."""

from __future__ import annotations

import pytest

from nwfilter_hook.base.errors import BadValue
from nwfilter_hook.filters.connections import CONNECTIONS, MAX_CONNECTIONS, read_connections, under_floor
from nwfilter_hook.filters.model import Filter, FilterRef
from nwfilter_hook.filters.parse import parse_filter
from nwfilter_hook.operations.compile import compile_reference
from nwfilter_hook.ruleset.model import Attachment, Ruleset
from nwfilter_hook.storage.library import Library
from tests.unit.compiling import MAC, filter_xml, reference_to, rule_xml

HOLDS: dict[str, Filter] = {"f": parse_filter(filter_xml(rule_xml("<arp/>")).encode(), "f.xml")}


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1", 1), ("0x10", 16), (str(MAX_CONNECTIONS), MAX_CONNECTIONS), ("none", 0), ("NONE", 0)],
)
def test_a_number_or_none(text: str, expected: int) -> None:
    """In the forms that numbers have elsewhere."""
    assert read_connections(reference_to("f", {CONNECTIONS: text})) == expected
    assert read_connections(reference_to("f")) is None


@pytest.mark.parametrize("text", ["", "0", "-1", str(MAX_CONNECTIONS + 1), "many", "1/32", "2.5", "192.0.2.1"])
def test_anything_else_is_an_error(text: str) -> None:
    """Which names the parameter and its bounds."""
    message = f"parameter {CONNECTIONS}: {text!r} is not none or a number from 1 to {MAX_CONNECTIONS}"
    with pytest.raises(BadValue, match=r"^domain\.xml:1: ") as caught:
        read_connections(reference_to("f", {CONNECTIONS: text}))
    assert str(caught.value) == f"domain.xml:1: {message}"


def test_it_is_given_once() -> None:
    """Two numbers are no list."""
    with pytest.raises(BadValue, match=f"parameter {CONNECTIONS} is given 2 times; it is one number$"):
        read_connections(reference_to("f", {CONNECTIONS: ("5", "6")}))


@pytest.mark.parametrize(
    ("own", "floor", "expected"),
    [(None, None, None), (5, None, 5), (5, 0, 5), (None, 7, 7), (5, 7, 5), (9, 7, 7), (0, 7, 7), (0, 0, 0)],
)
def test_a_floor_is_an_upper_bound(own: int | None, floor: int | None, expected: int | None) -> None:
    """Whatever the guest's reference says."""
    assert under_floor(own, floor) == expected


def compiled(attachment: Attachment, own: FilterRef, floor: FilterRef | None = None) -> Ruleset:
    """What an interface gets."""
    return compile_reference(own, "vnet0", attachment, MAC, Library([], defined=HOLDS), floor=floor)


def test_the_rules_say_it() -> None:
    """Of the reference, or of what stands below it."""
    own, floor = reference_to("f", {CONNECTIONS: "500"}), reference_to("f", {CONNECTIONS: "70"})
    assert compiled(Attachment.BRIDGE_PORT, own).connections == 500
    assert compiled(Attachment.BRIDGE_PORT, own, floor).connections == 70
    assert compiled(Attachment.BRIDGE_PORT, reference_to("f")).connections is None


@pytest.mark.parametrize("attachment", [Attachment.DEVICE, Attachment.MACVTAP])
def test_only_of_bridge_ports(attachment: Attachment) -> None:
    """Elsewhere nothing is counted: an error rather than a bound that isn't there."""
    with pytest.raises(BadValue, match=f"parameter {CONNECTIONS}: connections are counted of bridge ports only"):
        compiled(attachment, reference_to("f", {CONNECTIONS: "500"}))
    assert compiled(attachment, reference_to("f", {CONNECTIONS: "none"})).connections == 0
