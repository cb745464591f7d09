"""The table of the language holds together."""

from __future__ import annotations

import pytest

from nwfilter_hook.filters.protocols import CHAIN_PRIORITIES, ELEMENTS, chain_prefix
from nwfilter_hook.filters.types import TYPES
from tests.support.language import rows


def test_has_the_elements_and_attributes_of_the_documents() -> None:
    """The table has exactly the elements of the documents, and all their attributes."""
    documented: dict[str, set[str]] = {}
    for row in rows():
        documented.setdefault(row.protocol, set()).add(row.attribute)
    assert set(ELEMENTS) == set(documented)
    for name, attributes in documented.items():
        assert attributes - {"match"} <= {*ELEMENTS[name].attributes, *ELEMENTS[name].aliases}


@pytest.mark.parametrize("name", ELEMENTS)
def test_every_attribute_refers_to_what_is_there(name: str) -> None:
    """Types have parsers; masks, ends and aliases name attributes of the same element."""
    element = ELEMENTS[name]
    for attribute in element.attributes.values():
        assert TYPES[attribute.type.name] is attribute.type
        for other in (attribute.mask, attribute.end):
            assert other is None or element.attributes[other].part_of == attribute.name
        assert attribute.part_of is None or attribute.part_of in element.attributes
    assert set(element.aliases.values()) <= set(element.attributes)
    assert not set(element.aliases) & set(element.attributes)


@pytest.mark.parametrize(
    ("chain", "prefix"),
    [
        ("arp", "arp"),
        ("arp-mac", "arp"),
        ("arpfoo", "arp"),
        ("rarp", "rarp"),
        ("rarp-x", "rarp"),
        ("ipv4-ip", "ipv4"),
        ("root", None),
        ("ip", None),
    ],
)
def test_a_chain_is_known_by_how_its_name_begins(chain: str, prefix: str | None) -> None:
    """The beginning of a chain's name says what goes there; `arp` and `rarp` don't collide."""
    assert chain_prefix(chain) == prefix


def test_default_priorities() -> None:
    """Chains have the priorities of the documents, stp's among them."""
    assert CHAIN_PRIORITIES == {
        "stp": -810,
        "mac": -800,
        "vlan": -750,
        "ipv4": -700,
        "ipv6": -600,
        "arp": -500,
        "rarp": -400,
    }
