"""
Filters made at random mean here what they mean to libvirt.

test_libvirt.py compares filters that somebody has written; a rule that our compiler gets wrong, and that none of them
has, is seen here. libvirt's driver puts each tree on the tap; frames at the bounds of the rules go through its rules in
the kernel and, as the evaluator has them, through ours.

Left out is what nwfilter-differences(7) says differs, by its numbers: rules in `listed`; and in `tree_of` addresses
that are learned (8), chains without a priority (3), chains of one priority (17) and the end of a chain (12). No frame
has an Authentication header before another header of IPv6 (16), and of ARP only frames of the usual lengths are
compared (13).
"""

from __future__ import annotations

import random
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator

import pytest

from nwfilter_hook.filters.protocols import CHAIN_PRIORITIES, ELEMENTS
from tests.conformance.filters import IPS, MAC, MACS, Maker, Part, Tree
from tests.conformance.kernel import Tally
from tests.conformance.libvirt_side import Bench
from tests.conformance.summary import TALLIES
from tests.conformance.test_libvirt import disagreements

pytestmark = pytest.mark.libvirt

TREES, FRAMES, SEED = 40, 60, 1
TALLY = "libvirt at random"
LAYER_2 = frozenset(name for name, element in ELEMENTS.items() if element.layer == 2)
ONLY_SOURCE_MAC = frozenset(("tcp", "udp", "sctp"))
"""At layer 3 these have libvirt compare a MAC as documented, which is the source's, without a mask."""
OURS = frozenset(("tagged", "snap", "laterfragment"))
SIDES, OPEN = ("src", "dst"), ("0", "0.0.0.0", "::")
PRIORITIES = (-900, -810, -800, -750, -700, -600, -500, -400, 0, 500)
"""Of chains, each at most once: 17."""


def listed(line: str) -> int | None:
    """The first number of nwfilter-differences(7) that has something in the rule."""
    rule = ET.fromstring(line)
    if not len(rule):
        return None
    name = rule[0].tag
    base, six = name.replace("-ipv6", ""), name.endswith("ipv6") or name == "icmpv6"
    given = {key for node in rule for key in node.keys()} - {"match", "comment"}
    negated = {key for node in rule if node.get("match") == "no" for key in node.keys()} - {"match"}
    found = {
        2: "ipset" in given
        or (name == "ip" and "dscp" in given)
        or "encap-protocol" in given
        or "arpdstipmask" in given
        or ("arpsrcipmask" in given and "arpdstipaddr" in given)
        or (six and "dstipto" in given)
        or (name == "tcp-ipv6" and "flags" in given)
        or (bool(negated & {"srcportstart", "dstportstart"}) and "dstportstart" in given),
        4: base in ("icmp", "icmpv6") and bool(given & {"type", "code"}) and rule.get("direction") == "inout",
        5: name == "igmp-ipv6"
        or (name not in LAYER_2 and base not in ONLY_SOURCE_MAC and bool(given & {"srcmacmask", "dstmacaddr"})),
        7: (name not in LAYER_2 and rule.get("action") == "continue")
        or any(node.get("option") in ("0", "0x0") for node in rule)
        or (name == "ipv6" and bool(given & {"type", "typeend", "code", "codeend"}) and "protocol" not in given)
        or any(node.get("match") == "no" and node.get(f"{side}ipmask") in OPEN for node in rule for side in SIDES),
        10: "connlimit-above" in given,
        11: bool(given & OURS)
        or any(key.startswith(("nd", "dhcp")) for key in given)
        or (base.startswith("icmp") and bool(given & {"typeend", "codeend"})),
        15: name == "stp" and bool(given - {"srcmacaddr", "srcmacmask"}),
    }
    return next((number for number, is_it in found.items() if is_it), None)


def random_rule(rng: random.Random, maker: Maker, prefix: str | None) -> str:
    """A rule that no difference is known of."""
    while True:
        line = mac_rule(rng) if rng.random() < 0.15 else maker.rule(prefix)
        # ebtables reads a hardware type as decimal only, and libvirt hands it over as it is written or given
        if listed(line) is None and not re.search(r' hwtype="(0x|\$)', line):
            return line


def mac_rule(rng: random.Random) -> str:
    """A layer 3 rule with a MAC, beside a condition that may be true of every packet."""
    version = rng.choice(("", "-ipv6"))
    zero, widths = ("::", (0, 1, 64)) if version else (rng.choice(IPS), (0, 1, 24))
    side = rng.choice(SIDES)
    other = rng.choice((f" {side}ipaddr='{zero}' {side}ipmask='{rng.choice(widths)}'", f" dscp='{rng.choice((0, 1))}'"))
    attributes = f"action='{rng.choice(('accept', 'drop'))}' direction='{rng.choice(('in', 'out', 'inout'))}'"
    element = rng.choice(("tcp", "udp", "sctp", "all")) + version
    return f"<rule {attributes}><{element} srcmacaddr='{rng.choice((MAC, *MACS[:3]))}'{other}/></rule>"


def tree_of(number: int) -> Tree:
    """The tree of that number, always the same."""
    rng = random.Random(f"{SEED}/{number}")
    maker = Maker(rng, stateful=True)
    maker.parameters["IP"] = tuple(rng.sample(IPS[:3], maker.values_each))  # not learned: 8
    name, priorities = f"random-{number}", rng.sample(PRIORITIES, 3)
    parts = []
    for index in range(rng.choice((0, 1, 1, 2, 3))):
        prefix = rng.choice(tuple(CHAIN_PRIORITIES))
        chain = rng.choice(("root", f"{prefix}-{index}"))
        lines = tuple(random_rule(rng, maker, prefix if chain != "root" else None) for _ in range(rng.randint(1, 6)))
        parts.append(Part(f"{name}-{index}", chain, None if chain == "root" else priorities[index], lines))
    own = [random_rule(rng, maker, None) for _ in range(rng.randint(1, 6))]
    own += [f"<filterref filter='{part.name}'/>" for part in parts]
    rng.shuffle(own)
    whole = (Part(name, "root", None, tuple(own)), *parts)
    return Tree(whole, tuple(maker.parameters.items()), end_of_chain="accept")


@pytest.fixture(scope="module")
def trees() -> list[Tree]:
    """By their numbers."""
    return [tree_of(number) for number in range(TREES)]


@pytest.fixture(scope="module")
def bench(trees: list[Tree]) -> Iterator[Bench]:
    """libvirt with all of them."""
    bench = Bench({part.name: part.xml() for tree in trees for part in tree.parts})
    try:
        bench.libvirtd.start()
        yield bench
    finally:
        bench.close()


@pytest.mark.parametrize("number", range(TREES))
def test_random_filter(bench: Bench, trees: list[Tree], number: int) -> None:
    """Every frame that libvirt lets pass passes ours, and no other does."""
    tree, seed = trees[number], f"{SEED}/{number}"
    with bench.bind(tree.parts[0].name, dict(tree.parameters)):
        found, both = disagreements(bench, tree.compile(ingress=False), seed, FRAMES, tally_as=TALLY)
    assert not found, f"{seed}: {len(found)} of {sum(both.values())}\n{tree.text()}\n{found[0]}"
    assert sum(both.values()) > FRAMES


def test_says_something() -> None:
    """Both verdicts are common if all trees have been compared."""
    tally = TALLIES.get(TALLY, Tally())
    if tally.filters == TREES:
        assert 0.1 < tally.dropped / tally.frames < 0.9


def test_trees_have_what_went_wrong_before(trees: list[Tree]) -> None:
    """A MAC beside an address with a mask of 0: a rule that was left out in the other direction."""
    lines = [line for tree in trees for part in tree.parts for line in part.lines]
    assert sum("-ipv6 srcmacaddr" in line and "ipmask='0'" in line for line in lines) >= 2
    assert sum("srcmacaddr" in line and "ipmask='0'" in line for line in lines) >= 5
