"""
Differences between the kernel and what a rule says that generated filters found, each reduced to a rule and a frame.

All of them were ours to mend: nft and the kernel are what they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from nwfilter_hook.ruleset.fields import Field
from tests.conformance.filters import ROOT, TAP, Part, Tree
from tests.conformance.kernel import OUTSIDE, TAPS, compare
from tests.conformance.packets import FRAGMENT, GUEST_MAC, OTHER_MAC, PLAIN, Shape, build
from tests.support.netns import Wire

pytestmark = pytest.mark.netns

TCP = {Field.ETHER_TYPE: 0x0800, Field.IP_PROTOCOL: 6}
TCP6 = {Field.ETHER_TYPE: 0x86DD, Field.L4_PROTOCOL: 6}
ARP = {Field.ETHER_TYPE: 0x0806}
LATER = Shape(fragment_offset=8, extensions=(FRAGMENT,))
OWN, OTHER = "52:54:00:00:00:01", "52:54:00:00:00:99"


@dataclass(frozen=True)
class Reduced:
    """A rule's protocol element; the guest sends a frame under a rule that drops what the element matches."""

    name: str
    element: str
    values: dict[Field, int]
    matches: bool
    shape: Shape = PLAIN
    payload: bytes = b"nwfilter-hook"
    attributes: str = ""


def unequal(name: str, element: str, *cases: tuple[dict[Field, int], bool], attributes: str = "") -> list[Reduced]:
    """nft merges "A != 1 B != 2", where A and B are neighbours, to "not both": one of each case must be told apart."""
    return [
        Reduced(f"{name}-{number}", element, values, matches, attributes=attributes)
        for number, (values, matches) in enumerate(cases)
    ]


STATELESS = "statematch='false'"
REDUCED = (
    *unequal(
        "mac-and-type",
        f"<mac match='no' srcmacaddr='{OTHER}' protocolid='arp'/>",
        ({Field.ETHER_SRC: GUEST_MAC, Field.ETHER_TYPE: 0x9000}, True),
        ({Field.ETHER_SRC: OTHER_MAC, Field.ETHER_TYPE: 0x9000}, False),
        ({Field.ETHER_SRC: GUEST_MAC, Field.ETHER_TYPE: 0x0806}, False),
    ),
    *unequal(
        "ports",
        "<tcp match='no' srcportstart='5' dstportstart='7'/>",
        ({**TCP, Field.SRC_PORT: 6, Field.DST_PORT: 8}, True),
        ({**TCP, Field.SRC_PORT: 5, Field.DST_PORT: 8}, False),
        ({**TCP, Field.SRC_PORT: 6, Field.DST_PORT: 7}, False),
        attributes=STATELESS,
    ),
    *unequal(
        "arp-addresses",
        f"<arp match='no' arpsrcmacaddr='{OWN}' arpsrcipaddr='10.0.0.1'/>",
        ({**ARP, Field.ARP_SRC_MAC: OTHER_MAC, Field.ARP_SRC_IP: 1}, True),
        ({**ARP, Field.ARP_SRC_MAC: GUEST_MAC, Field.ARP_SRC_IP: 1}, False),
        ({**ARP, Field.ARP_SRC_MAC: OTHER_MAC, Field.ARP_SRC_IP: 0x0A000001}, False),
    ),
    # a fragment that isn't the first has no ports; what stands there is payload
    Reduced("fragment", "<tcp srcportstart='28279'/>", TCP, False, LATER, b"nwfilter-hook", STATELESS),
    Reduced(
        "fragment-first", "<tcp srcportstart='28279'/>", {**TCP, Field.SRC_PORT: 28279}, True, attributes=STATELESS
    ),
    Reduced("fragment-not", "<tcp match='no' srcportstart='5'/>", TCP, False, LATER, attributes=STATELESS),
    Reduced("fragment6", "<tcp-ipv6 match='no' srcportstart='5'/>", TCP6, False, LATER, attributes=STATELESS),
    Reduced("fragment6-none", "<tcp-ipv6 match='no' srcportstart='5'/>", TCP6, True, attributes=STATELESS),
    Reduced("option-fragment", "<tcp match='no' option='2'/>", TCP, False, LATER, attributes=STATELESS),
    Reduced("option-none", "<tcp match='no' option='2'/>", TCP, True, attributes=STATELESS),
    # behind a tag a length is no type: the kernel shows its own number for such frames
    Reduced(
        "length-in-tag",
        "<vlan encap-protocol='0x3c'/>",
        {Field.ETHER_TYPE: 0x8100, Field.VLAN_TYPE: 0x3C},
        False,
    ),
)


@pytest.fixture(scope="module")
def wire(able: None) -> Iterator[Wire]:
    """A guest's tap and two unfiltered ones."""
    with Wire(TAPS) as wire:
        yield wire


@pytest.mark.parametrize("case", REDUCED, ids=lambda case: case.name)
def test_reduced_difference(wire: Wire, case: Reduced) -> None:
    """The kernel drops the frame if the element matches it, and the evaluator says the same."""
    line = f"<rule action='drop' direction='out' {case.attributes}>{case.element}</rule>"
    frame = build(case.values, case.shape, case.payload)
    assert compare(wire, Tree((Part(ROOT, "root", None, (line,)),), ()), [frame]) == []
    assert wire.passes(frame, TAP, OUTSIDE) is not case.matches
