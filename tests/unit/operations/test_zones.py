"""Which bridge has which zone of connection tracking."""

from __future__ import annotations

from nwfilter_hook.backend import Zones
from nwfilter_hook.operations.zones import FIRST_ZONE, LAST_ZONE, choose_zones


def test_a_number_follows_from_the_device() -> None:
    """The same again after somebody has flushed the map; another for a bridge that was made anew."""
    assert choose_zones({}, ["br1"], {"br1": 7}, ["br1"]) == Zones((("br1", FIRST_ZONE + 7),), ())
    known = {"br1": FIRST_ZONE + 7}
    assert choose_zones(known, ["br1"], {"br1": 7}, ["br1"]) == Zones((("br1", FIRST_ZONE + 7),), ())
    anew = choose_zones(known, ["br1"], {"br1": 9}, ["br1"])
    assert anew == Zones((("br1", FIRST_ZONE + 9),), (("br1", FIRST_ZONE + 7),))


def test_no_two_bridges_have_one() -> None:
    """Indexes that come to the same number, whether the other has it already or gets it now."""
    size = LAST_ZONE - FIRST_ZONE + 1
    both = choose_zones({}, ["a", "b"], {"a": 3, "b": 3 + size}, ["a", "b"]).apart
    assert both == (("a", FIRST_ZONE + 3), ("b", FIRST_ZONE + 4))
    later = choose_zones({"a": FIRST_ZONE + 3}, ["b"], {"b": 3 + size}, ["a", "b"])
    assert later == Zones((("b", FIRST_ZONE + 4),), ())


def test_who_loses_it() -> None:
    """A bridge on which the host has an address now, and one that isn't there any more."""
    known = {"br1": FIRST_ZONE + 1, "gone": FIRST_ZONE + 2, "br3": FIRST_ZONE + 3}
    assert choose_zones(known, ["br1"], {}, ["br1", "br3"]) == Zones(
        (), (("br1", FIRST_ZONE + 1), ("gone", FIRST_ZONE + 2))
    )


def test_when_all_are_taken() -> None:
    """The bridge has none, and the numbers of the others stay."""
    known = {f"b{number}": number for number in range(FIRST_ZONE, LAST_ZONE + 1)}
    assert choose_zones(known, ["new"], {"new": 1}, [*known, "new"]) == Zones((), ())
