"""
What `lint` finds: each trap in a fixture, nothing in its clean twin, nothing untrue in a stock filter.

The fixtures are filters in tests/data/lint. A comment <!-- CODE --> says that the rule on the line behind it is found;
<!-- CODE FILTER --> that one of a stock filter is; "wins" stands before the rule that is named as the one that wins.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from nwfilter_hook.base.dataclass import replace
from nwfilter_hook.base.errors import NOWHERE, InputError, UnboundVariable
from nwfilter_hook.filters.model import Filter, FilterRef
from nwfilter_hook.filters.parse import parse_filter
from nwfilter_hook.lint.findings import Finding
from nwfilter_hook.lint.lint import all_checks, judge
from nwfilter_hook.lint.placeholders import MAC
from nwfilter_hook.operations.lint import lint_filter
from nwfilter_hook.ruleset.decisions import Decisions
from nwfilter_hook.ruleset.evaluate import Context, State, Way, evaluate
from nwfilter_hook.ruleset.fields import Field
from nwfilter_hook.ruleset.regions import NOTHING
from nwfilter_hook.storage.library import Library
from tests.conformance.filters import random_tree
from tests.conformance.packets import build
from tests.unit.compiling import filter_xml, reader, rule_xml

ROOT = Path(__file__).parents[3]
FIXTURES, STOCK = ROOT / "tests/data/lint", ROOT / "filters"
LIBRARY = Library([str(FIXTURES), str(STOCK)], trusting=True)
ENTRIES = sorted(path.stem for path in FIXTURES.glob("*.xml") if not path.stem.endswith(("-inner", "-chain")))
CLEAN = [name for name in ENTRIES if name.endswith("-clean")]
TRAPS = [name for name in ENTRIES if name not in CLEAN]


def found_in(name: str, library: Library = LIBRARY) -> list[Finding]:
    return lint_filter(library, library.read(name, NOWHERE), {}, frozenset())


def expected_in(name: str) -> Iterator[tuple[str, str, int | None]]:
    """(code, filter, line; None for any) of each finding, as the comments of the fixture and its parts say."""
    for path in (FIXTURES / f"{name}.xml", FIXTURES / f"{name}-inner.xml", FIXTURES / f"{name}-chain.xml"):
        lines = path.read_text().splitlines() if path.exists() else []
        for number, line in enumerate(lines, 1):
            for comment in re.findall(r"<!-- (.*?) -->", line):
                code, _, others = comment.partition(" ")
                if re.fullmatch(r"NWF\d+", code) and others:
                    yield from ((code, other, None) for other in re.split(r"[, ]+", others) if other[0] not in "N")
                    comment = ", ".join([code] * (not others[0].isalpha()) + re.findall(r"NWF\d+", others))
                yield from (
                    (each, path.stem, number + 1) for each in re.findall(r"NWF\d+", comment) if each != "NWF999"
                )


@pytest.mark.parametrize("name", TRAPS)
def test_a_trap_is_found(name: str) -> None:
    """Every trap is found, by its code, at its line, and nothing else is."""
    findings = found_in(name)
    expected = set(expected_in(name))
    told: set[tuple[str, str, int | None]] = {(each.code, each.filter, each.source.line) for each in findings}
    anywhere = {(code, of_filter) for code, of_filter, line in expected if line is None}
    told = {(*each[:2], None) if each[:2] in anywhere else each for each in told}
    assert told == expected
    assert expected


@pytest.mark.parametrize("name", [name for name in TRAPS if "<!-- wins" in (FIXTURES / f"{name}.xml").read_text()])
def test_who_wins(name: str) -> None:
    """The rule that decides instead is named with its own line."""
    lines = (FIXTURES / f"{name}.xml").read_text().splitlines()
    line = next(number for number, text in enumerate(lines, 2) if "<!-- wins" in text)
    assert (str(FIXTURES / f"{name}.xml"), line) in {
        (each.wins.path, each.wins.line) for each in found_in(name) if each.wins
    }


@pytest.mark.parametrize("name", CLEAN)
def test_a_clean_filter(name: str) -> None:
    """What is only near to a trap isn't found."""
    assert [each.line for each in found_in(name)] == []


def test_every_code_has_a_fixture() -> None:
    """A check that no fixture shows is none; NWF147 has a test of its own."""
    shown = {code for name in TRAPS for code, _, _ in expected_in(name)}
    assert set(all_checks()) - shown == {"NWF147"}
    assert all(
        re.fullmatch(r"NWF1\d\d", code) and check.title and len(check.text) > 80 for code, check in all_checks().items()
    )


# --- stock filters ----------------------------------------------------------------------------------------------------

STOCK_LIBRARY = Library([str(STOCK)], trusting=True)
TRUE = {
    # its own description: IPv6 and tags go to the gateway as they are, and a DHCP client needs allow-dhcp beside it
    ("clean-traffic-gateway", "NWF112"),
    ("clean-traffic-gateway", "NWF113"),
    ("clean-traffic-gateway", "NWF130"),
    # as OpenStack has it: it checks IPv4 and ARP, and has no end
    ("nova-base", "NWF111"),
    ("nova-base", "NWF112"),
    ("nova-base", "NWF113"),
}


def test_no_stock_filter_is_warned_of() -> None:
    """As they are delivered, with what their comments allow."""
    assert [each.line for name in STOCK_LIBRARY.names() for each in found_in(name, STOCK_LIBRARY)] == []


def test_what_is_true_of_stock_filters() -> None:
    """Without those comments only what is true of them, and said in their descriptions, is found."""

    def silent(definition: Filter) -> Filter:
        return replace(definition, comments=())

    bare = STOCK_LIBRARY
    for name in STOCK_LIBRARY.names():
        bare = bare.with_filter(silent(STOCK_LIBRARY.read(name, NOWHERE)))
    assert {(each.filter, each.code) for name in bare.names() for each in found_in(name, bare)} == TRUE


def test_a_part_of_others_may_be_open() -> None:
    """A filter that others refer to isn't expected to be all that a guest needs; one that interfaces use is."""
    part = filter_xml(rule_xml("<tcp dstportstart='22'/>", action="accept", direction="in"), name="part")
    whole = filter_xml("<filterref filter='part'/>", name="whole")
    library = Library([str(STOCK)], trusting=True)
    for text in (part, whole):
        library = library.with_filter(parse_filter(text.encode(), "x.xml"))
    entry = library.read("part", NOWHERE)
    assert lint_filter(library, entry, {}, frozenset()) == []
    assert [each.code for each in lint_filter(library, entry, {}, frozenset(["part"]))] == ["NWF111"]
    assert [each.code for each in lint_filter(library, library.read("whole", NOWHERE), {}, ())] == ["NWF111"]


# --- how it is judged -------------------------------------------------------------------------------------------------


def test_given_parameters_count() -> None:
    """A list that an interface gives is judged as given: here two addresses under a negation."""
    text = filter_xml(rule_xml("<ip match='no' srcipaddr='$IP'/>"), name="f", chain="ipv4")
    entry = parse_filter(text.encode(), "f.xml")
    assert judge(entry, reader(text), {}, whole=False) == []
    given = {"IP": ("10.0.0.1", "10.0.0.2")}
    assert [each.code for each in judge(entry, reader(text), given, whole=False)] == ["NWF121"]


def test_what_is_true_of_one_placeholder_only_is_not_told() -> None:
    """A variable is never taken for what happens to be its placeholder."""
    rules = [rule_xml(f"<ip dstipaddr='{address}'/>", priority=1) for address in ("192.0.2.10", "198.51.100.10")]
    text = filter_xml(*rules, rule_xml("<ip dstipaddr='$PEER'/>", priority=2, action="accept"), chain="ipv4")
    assert judge(parse_filter(text.encode(), "f.xml"), reader(text), {}, whole=False) == []
    wider = text.replace("192.0.2.10", "0.0.0.0' dstipmask='1").replace("198.51.100.10", "128.0.0.0' dstipmask='1")
    assert [each.code for each in judge(parse_filter(wider.encode(), "f.xml"), reader(wider), {}, whole=True)] == [
        "NWF101"
    ]


def test_variables_of_every_type_get_placeholders() -> None:
    """Whatever attribute a variable stands in, the filter can be judged; indexes and lists side by side, too."""
    rules = [
        rule_xml("<mac srcmacaddr='$A' srcmacmask='$B' protocolid='$C'/>"),
        rule_xml("<vlan vlanid='$D' encap-protocol='$E'/>"),
        rule_xml("<arp hwtype='$F' protocoltype='$G' opcode='$H'/>"),
        rule_xml("<ip srcipaddr='$I' srcipmask='$J' protocol='$K' dscp='$L' tagged='$T'/>"),
        rule_xml("<ipv6 srcipaddr='$M' srcipmask='$N'/>"),
        rule_xml("<tcp srcportstart='$END' srcportend='$BEGIN'/>".replace("$END", "$O").replace("$BEGIN", "$P")),
        rule_xml("<tcp ipset='$Q' ipsetflags='src'/>"),
        rule_xml("<stp root-cost='$R'/>"),
        rule_xml("<udp dstportstart='$S[3]'/>"),
        rule_xml("<udp dstipaddr='$U[@1]' srcportstart='$V[@1]'/>"),
    ]
    text = filter_xml(*rules)
    entry = parse_filter(text.encode(), "f.xml")
    with pytest.raises(UnboundVariable):
        lint_unbound(entry, text)
    assert "NWF145" not in {each.code for each in judge(entry, reader(text), {}, whole=False)}


def lint_unbound(entry: Filter, text: str) -> None:
    from nwfilter_hook.filters.resolve import resolve

    resolve(FilterRef(entry.name, {}, entry.source), MAC[0], reader(text))


def test_a_filter_that_does_not_compile_is_an_error() -> None:
    """Not a finding."""
    text = filter_xml("<filterref filter='nowhere'/>")
    with pytest.raises(InputError):
        judge(parse_filter(text.encode(), "f.xml"), reader(text), {}, whole=True)


def test_too_large_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where not even a program can follow all frames that is told, and what needs no regions is found anyhow."""
    monkeypatch.setattr("nwfilter_hook.ruleset.regions.MAX_NODES", 50)
    text = filter_xml(rule_xml("<ip dstipaddr='10.0.0.5' dstipmask='24'/>"), chain="ipv4")
    codes = [each.code for each in judge(parse_filter(text.encode(), "f.xml"), reader(text), {}, whole=True)]
    assert codes == ["NWF147", "NWF144"]


def test_a_thousand_addresses_are_judged() -> None:
    """A list of a thousand is nothing."""
    text = filter_xml(
        rule_xml("<ip srcipaddr='$FRIENDS'/>", action="accept"), rule_xml("<ip/>", priority=900), chain="ipv4"
    )
    given = {"FRIENDS": tuple(f"10.0.{number >> 8}.{number & 255}" for number in range(1000))}
    found = judge(parse_filter(text.encode(), "f.xml"), reader(text), given, whole=False)
    assert [each.code for each in found] == ["NWF143"]


def test_comments_that_allow() -> None:
    """In the rule, before it, for the file, at the rule that wins, in the filter that is judged; others count on."""
    early, late = "<ip protocol='udp'/>", "<ip protocol='udp' dstportstart='53'/>"
    allow = "<!-- nwfilter-hook: allow NWF101 because -->"

    def codes(first: str = "", between: str = "", inside: str = "", last: str = "") -> list[str]:
        text = filter_xml(
            first + rule_xml(early, priority=1),
            between,
            rule_xml(inside + late, priority=2, action="accept"),
            last,
            chain="ipv4",
        )
        return [each.code for each in judge(parse_filter(text.encode(), "f.xml"), reader(text), {}, whole=True)]

    assert codes() == ["NWF101"]
    assert codes(between=allow) == codes(inside=allow) == codes(last=allow) == codes(first=allow) == []
    assert codes(between=allow.replace("101", "102")) == ["NWF101"]
    assert codes(between="<!-- nwfilter-hook is not to allow NWF101 -->") == ["NWF101"]


# --- regions against the evaluator ------------------------------------------------------------------------------------


def test_a_rule_that_decides_is_never_called_dead() -> None:
    """
    Random trees and frames: what the evaluator says of a frame is in what is known of all frames. No rule that decides
    a frame is said never to; a way that is said to be shut lets nothing pass.
    """
    rng = random.Random(13)
    frames = [build(values) for values in FRAMES]
    decided = dead = 0
    for number in range(60):
        tree = random_tree(rng, stateful=number % 2 == 0)
        ruleset = tree.compile(ingress=False)
        decisions = Decisions(ruleset)
        never = {id(each.rule) for each in decisions.every} - {
            id(each.rule) for each in decisions.every if each.decides != NOTHING
        }
        dead += len(never)
        for data in frames:
            for way in Way:
                state = (
                    rng.choice((State.NEW, State.ESTABLISHED))
                    if data[12:14] in (b"\x08\x00", b"\x86\xdd")
                    else State.UNTRACKED
                )
                found = evaluate(ruleset, data, way, Context(state))
                decided += len(found.applied)
                assert not [rule for rule in found.applied if id(rule) in never], tree.text()
                assert not found.passes or decisions.passing_way(way) != NOTHING, tree.text()
    assert decided > 2000
    assert dead > 20


STATES = (State.NEW, State.ESTABLISHED)


def _frames() -> Iterator[dict[Field, int]]:
    ipv4, ipv6, arp = {Field.ETHER_TYPE: 0x0800}, {Field.ETHER_TYPE: 0x86DD}, {Field.ETHER_TYPE: 0x0806}
    for source, protocol, port in itertools.product((0x0A000001, 0x0A000063, 0), (6, 17, 1), (22, 80, 40000)):
        yield {
            **ipv4,
            Field.IP_PROTOCOL: protocol,
            Field.IP_SRC: source,
            Field.DST_PORT: port,
            Field.IP_DST: 0x0A000002,
        }
    for opcode in (1, 2):
        yield {**arp, Field.ARP_OPCODE: opcode, Field.ARP_SRC_IP: 0x0A000001}
    for kind in (128, 135, 136):
        yield {**ipv6, Field.L4_PROTOCOL: 58, Field.ICMPV6_TYPE: kind}
    yield {Field.ETHER_TYPE: 0x8100, Field.VLAN_ID: 7, Field.VLAN_TYPE: 0x0800}
    yield {Field.ETHER_TYPE: 0x9000}


FRAMES = list(_frames())
