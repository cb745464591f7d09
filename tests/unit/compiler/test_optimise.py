"""
What is put into the kernel means what the filters mean: the same verdict for each frame, by the same rule.

Frames are at the bounds of both rulesets' rules; beside them stands all that the kernel may know (same_rulesets.py).
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from nwfilter_hook.base.dataclass import replace
from nwfilter_hook.base.errors import InputError, Source
from nwfilter_hook.compiler.optimise import optimised
from nwfilter_hook.filters.model import FilterRef
from nwfilter_hook.operations import compile as operation
from nwfilter_hook.operations.compile import compile_reference
from nwfilter_hook.ruleset.evaluate import Way, evaluate
from nwfilter_hook.ruleset.model import MAX_COMMENT, Attachment, Chain, Rule, Ruleset, Segment, Stage, Verdict
from nwfilter_hook.storage.library import Library
from tests.conformance.filters import random_tree
from tests.conformance.kernel import why
from tests.conformance.mutation import frames
from tests.golden.test_golden import CASES, script_of_case
from tests.support.frames import GUEST, OTHER, arp, udp
from tests.support.same_rulesets import differences
from tests.support.steps import steps
from tests.unit.compiling import MAC, compiled, filter_xml, rule_xml, spelled

REPOSITORY = Path(__file__).parents[3]
FACTOR = max(int(os.environ.get("FUZZ_FACTOR", "0")), 1)
DIRECTORIES = ("filters", "tests/data/filters-2010", "tests/data/demo-filters")
NAMES = sorted((place, path.stem) for place in DIRECTORIES for path in (REPOSITORY / place).glob("*.xml"))
GIVEN = {"GATEWAY_MAC": ("52:54:00:00:00:99",), "VLAN": ("7", "8"), "TAGGED": ("any",)}
WAYS_TO_LEARN: tuple[dict[str, tuple[str, ...]], ...] = (
    {},
    {"CTRL_IP_LEARNING": ("dhcp",), "CTRL_IPV6_LEARNING": ("any",)},
    {"CTRL_IP_LEARNING_MAX": ("3",), "CTRL_IPV6_LEARNING": ("any",)},
    {"IP": ("10.0.0.1", "10.0.0.2", "10.0.0.3"), "IPV6": ("2001:db8::1",)},
)
DEEPEST = 16
"""NFT_JUMP_STACK_SIZE (net/netfilter/nf_tables.h): chains that may lead on to each other, the base chain included."""
OF_LEARNING = 2
"""Chains that a rule which learns leads to (nftables/learning_rules.py)."""


def expect_the_same(plain: Ruleset, rng: random.Random, number: int) -> Ruleset:
    """Hold the ruleset against what it is optimised to. Returns the latter."""
    other = optimised(plain)
    sent = [frame for each in (plain, other) for frame in frames(rng, each, number)]
    for said, one, two in differences(plain, other, sent, rng):
        pytest.fail(f"{said}\nas compiled: {why(one)}\noptimised: {why(two)}")
    expect_well_formed(plain, other)
    return other


def expect_well_formed(plain: Ruleset, other: Ruleset) -> None:
    """Each chain once, and led to; not deeper than the kernel follows; what the rules name is there."""
    assert replace(other, chains=plain.chains) == plain
    for stage in Stage:
        chains = {chain.name: chain for chain in other.chains if chain.stage is stage}
        assert len(chains) == sum(chain.stage is stage for chain in other.chains)
        targets = {rule.target for chain in chains.values() for rule in chain.rules if rule.target is not None}
        assert targets == {name for name in chains if name is not None}
        assert not chains or depth(chains, None) + 1 + OF_LEARNING <= DEEPEST
    for chain in other.chains:
        for rule in chain.rules:
            assert len(rule.comment.encode()) <= MAX_COMMENT
            if rule.verdict in (Verdict.DROP, Verdict.REJECT):
                assert rule.comment == rule.provenance  # each has a counter of its own


def depth(chains: dict[str | None, Chain], name: str | None) -> int:
    """How many chains follow each other."""
    return 1 + max((depth(chains, rule.target) for rule in chains[name].rules if rule.target is not None), default=0)


def lines(ruleset: Ruleset) -> int:
    """What nft reads of it, but for sets."""
    return sum(2 + len(chain.rules) for chain in ruleset.chains)


# --- the same verdicts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("place", "name"), NAMES, ids=[f"{Path(place).name}-{name}" for place, name in NAMES])
def test_every_filter_that_comes_along(place: str, name: str) -> None:
    """Stock filters, those of libvirt of 2010, and the demo's: with addresses given and learned, on every tap."""
    library = Library([str(REPOSITORY / place), str(REPOSITORY / "filters")])
    server = ("2001:db8::2" if "dhcpv6" in name else "10.0.0.99",)
    found = 0
    for number, learning in enumerate(WAYS_TO_LEARN):
        reference = FilterRef(name, {**GIVEN, "DHCPSERVER": server, **learning}, Source("domain.xml", 1))
        for attachment, end in ((Attachment.BRIDGE_PORT, "return"), (list(Attachment)[number % 3], "accept")):
            segment = Segment("br0", guest="g") if number % 2 else Segment()
            try:
                plain = compile_reference(
                    reference, "vnet0", attachment, MAC, library, end_of_chain=end, segment=segment
                )
            except InputError:
                continue
            other = expect_the_same(plain, random.Random(f"{name}/{number}/{end}"), 8 * FACTOR)
            assert lines(other) <= lines(plain) * 1.3
            found += 1
    assert found


@pytest.mark.parametrize(
    "case", [case for case in CASES if (case / "expected.nft").exists()], ids=lambda case: case.name
)
def test_every_golden_case(case: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a case shows."""
    plain: list[Ruleset] = []

    def recorded(ruleset: Ruleset) -> Ruleset:
        plain.append(ruleset)
        return optimised(ruleset)

    monkeypatch.setattr(operation, "optimised", recorded)
    monkeypatch.chdir(case)
    script_of_case("yes")
    for number, ruleset in enumerate(plain):
        expect_the_same(ruleset, random.Random(f"{case.name}/{number}"), 25 * FACTOR)
    assert (
        plain
        or "optimise = no" in (case / "nwfilter-hook.conf").read_text()
        or "counters = all" in (case / "nwfilter-hook.conf").read_text()
    )


@pytest.mark.parametrize("part", range(6))
def test_random_trees(part: int) -> None:
    """Filters that nobody would write, on taps of every kind."""
    before = after = 0
    for number in range(part * 40 * FACTOR, (part + 1) * 40 * FACTOR):
        rng = random.Random(f"optimise/{number}")
        attachment = rng.choice((Attachment.BRIDGE_PORT,) * 4 + (Attachment.DEVICE, Attachment.MACVTAP))
        plain = random_tree(rng, stateful=rng.random() < 0.6, attachment=attachment).compile()
        other = expect_the_same(plain, rng, 25)
        before, after = before + lines(plain), after + lines(other)
    assert after < before


# --- a proof that can fail --------------------------------------------------------------------------------------------


def _spoilt(ruleset: Ruleset) -> Iterator[Ruleset]:
    """The ruleset without one rule, in every way; and with the order of two rules reversed, of different verdicts."""
    for place, chain in enumerate(ruleset.chains):
        for index in range(len(chain.rules)):
            rest = chain.rules[:index] + chain.rules[index + 1 :]
            yield _with(ruleset, place, rest)
            if index and chain.rules[index].verdict is not chain.rules[index - 1].verdict:
                swapped = [*chain.rules]
                swapped[index - 1 : index + 1] = swapped[index], swapped[index - 1]
                yield _with(ruleset, place, tuple(swapped))


def _with(ruleset: Ruleset, place: int, rules: tuple[Rule, ...]) -> Ruleset:
    chains = list(ruleset.chains)
    chains[place] = Chain(chains[place].stage, chains[place].name, rules)
    return replace(ruleset, chains=tuple(chains))


def test_a_spoilt_ruleset_is_noticed() -> None:
    """One rule less, or two in the wrong order, is found nearly always (of two that exclude each other, the order is
    the same to all frames)."""
    plain = clean_traffic()
    rng = random.Random(1)
    sent = list(frames(rng, plain, 400))
    spoilt = list(_spoilt(optimised(plain)))
    unnoticed = [each for each in spoilt if next(differences(plain, each, sent, rng), None) is None]
    assert len(spoilt) >= 30
    assert len(unnoticed) < len(spoilt) * 0.25


def clean_traffic(*addresses: str) -> Ruleset:
    """The stock filter for a guest with these addresses."""
    reference = FilterRef("clean-traffic", {"IP": addresses or ("192.0.2.1",)}, Source("domain.xml", 1))
    return compile_reference(reference, "vnet0", Attachment.BRIDGE_PORT, MAC, Library([str(REPOSITORY / "filters")]))


# --- fewer steps ------------------------------------------------------------------------------------------------------


def test_clean_traffic_costs_at_most_half() -> None:
    """IPv4 from the guest, and nothing else costs more: ARP, and what the guest gets."""
    plain = clean_traffic()
    other = optimised(plain)
    ipv4, request = udp(src=GUEST, dst=OTHER, src_ip="192.0.2.1"), arp(src=GUEST, sender_ip="192.0.2.1")

    def cost(ruleset: Ruleset, frame: bytes, way: Way) -> int:
        found = evaluate(ruleset, frame, way)
        assert found.passes
        return steps(found, Stage.FROM_L2, Stage.TO_L2)

    assert cost(other, ipv4, Way.FROM_GUEST) <= cost(plain, ipv4, Way.FROM_GUEST) / 2
    for frame, way in ((request, Way.FROM_GUEST), (ipv4, Way.TO_GUEST), (request, Way.TO_GUEST)):
        assert cost(other, frame, way) <= cost(plain, frame, way)
    assert lines(other) < lines(plain)


def shown(*filters: str, **more: str) -> dict[str, list[str]]:
    """What the filters are optimised to."""
    return spelled(optimised(compiled(*filters, parameters=more)))


def test_an_ether_type_is_asked_for_once() -> None:
    """It leads to a chain in which nobody asks again, and where only rules are that such a frame can pass."""
    addresses = [rule_xml(f"<ip srcipaddr='10.0.0.{n}' protocol='tcp'/>", action="accept") for n in (1, 2)]
    sixes = [rule_xml("<ipv6 protocol='udp'/>", action="accept")]
    rest = [rule_xml("<ip srcipaddr='10.0.9.9'/>"), rule_xml("<ip/>", action="accept"), rule_xml()]
    assert shown(filter_xml(*addresses, *sixes, *rest)) == {
        "from": ["ether-type=0x800 goto o-ip", "ether-type=0x86dd l4-protocol=17 accept", "drop"],
        "from/o-ip": [
            "ip-src=10.0.0.1 ip-protocol=6 accept",
            "ip-src=10.0.0.2 ip-protocol=6 accept",
            "ip-src=10.0.9.9 drop",
            "accept",
        ],
    }


def test_a_sub_chain_stands_where_it_is_jumped_to() -> None:
    """Who returns gets the verdict of what follows, which is told to decide, and keeps the way to it."""
    chain = filter_xml(
        *(rule_xml(f"<ip srcipaddr='{ip}'/>", action="return") for ip in ("10.0.0.1", "10.0.0.2")),
        *(rule_xml("<ip dstipaddr='10.0.0.9'/>"), rule_xml("<ip protocol='tcp'/>"), rule_xml()),
        name="c",
        chain="ipv4-c",
    )
    root = filter_xml("<filterref filter='c'/>", rule_xml("<ip/>", action="accept"), rule_xml())
    assert shown(root, chain) == {
        "from": ["ether-type=0x800 goto o-ip", "drop"],
        "from/o-ip": [
            "ip-src=10.0.0.1 accept",
            "ip-src=10.0.0.2 accept",
            "ip-dst=10.0.0.9 drop",
            "ip-protocol=6 drop",
            "drop",
        ],
    }
    found = optimised(compiled(root, chain))
    own = next(each for each in found.chains if each.name == "o-ip")
    assert [rule.comment for rule in own.rules[:3]] == ["f:3 after c:2", "f:3 after c:3", "c:4"]


def test_a_rule_behind_one_for_all_its_frames_is_gone() -> None:
    """Nobody comes to it."""
    rules = (
        rule_xml("<ip srcipaddr='10.0.0.0' srcipmask='8'/>"),
        rule_xml("<ip srcipaddr='10.1.2.3'/>", action="accept"),
    )
    assert shown(filter_xml(*rules)) == {"from": ["ether-type=0x800 ip-src&255.0.0.0=10.0.0.0 drop"]}


def test_values_in_one_set() -> None:
    """Neighbours that let pass become one rule, of as many as its comment can name; what drops only within one rule."""
    ports = [rule_xml(f"<tcp dstportstart='{n}'/>", action="accept", statematch="false") for n in range(80, 84)]
    found = optimised(compiled(filter_xml(*ports, rule_xml("<all/>", statematch="false"))))
    merged = [rule for chain in found.chains for rule in chain.rules if len(rule.provenances) > 1]
    assert [rule.comment for rule in merged if rule.verdict is Verdict.ACCEPT] == ["f:2 or f:3 or f:4 or f:5"] * len(
        merged
    )
    assert merged
    drops = [rule_xml(f"<ip srcipaddr='10.0.0.{n}'/>") for n in range(4)]
    assert len(optimised(compiled(filter_xml(*drops))).chains[-1].rules) == 4
    one = filter_xml(rule_xml("<ip srcipaddr='$A'/>"), rule_xml("<ip/>", action="accept"))
    values = {"A": ("10.0.0.3", "10.0.0.1", "10.0.0.2")}
    of_one = optimised(compiled(one, parameters=values))
    assert [rule.comment for rule in of_one.chains[-1].rules] == ["f:2", "f:3"]


def test_a_comment_names_all_or_they_stay_apart() -> None:
    """No provenance is lost to the length of a comment."""
    name = "a-filter-with-a-long-name-" * 2
    ports = [rule_xml(f"<tcp dstportstart='{n}'/>", action="accept", statematch="false") for n in range(80, 90)]
    ruleset = compiled(filter_xml(*ports, rule_xml("<all/>", statematch="false"), name=name))
    plain = {rule.provenance for chain in ruleset.chains for rule in chain.rules}
    found = optimised(ruleset)
    assert {each for chain in found.chains for rule in chain.rules for each in rule.provenances} == plain
    assert all(len(rule.comment) <= MAX_COMMENT for chain in found.chains for rule in chain.rules)


def test_many_sub_chains_are_not_too_deep() -> None:
    """A filter with more chains than the kernel follows from one to the next."""
    chains = [
        filter_xml(
            rule_xml(f"<ip srcipaddr='10.0.{n}.1'/>", action="return"),
            *(rule_xml(f"<ip srcipaddr='10.0.{n}.{m}'/>") for m in range(2, 8)),
            rule_xml(f"<ip dstipaddr='10.0.{n}.1'/>", action="return"),
            name=f"c{n}",
            chain=f"ipv4-{n}",
        )
        for n in range(20)
    ]
    root = filter_xml(
        *(f"<filterref filter='c{n}'/>" for n in range(20)), rule_xml("<ip/>", action="accept"), rule_xml()
    )
    plain = compiled(root, *chains)
    expect_the_same(plain, random.Random(1), 100)


def test_what_asks_a_set_keeps_its_place() -> None:
    """A rule that counts or asks what was learned isn't moved, merged or thrown away for another."""
    plain = clean_traffic_learning()
    found = optimised(plain)

    def asking(ruleset: Ruleset) -> set[str]:
        return {rule.provenance for chain in ruleset.chains for rule in chain.rules if rule.verdict is Verdict.LEARN}

    assert asking(found) == asking(plain) != set()
    expect_the_same(plain, random.Random(2), 100)


def clean_traffic_learning() -> Ruleset:
    """With addresses that are leased."""
    parameters = {"CTRL_IP_LEARNING": ("dhcp",)}
    reference = FilterRef("clean-traffic", parameters, Source("domain.xml", 1))
    return compile_reference(reference, "vnet0", Attachment.BRIDGE_PORT, MAC, Library([str(REPOSITORY / "filters")]))
