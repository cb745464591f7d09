"""
Filters and XML that nobody would write: made at random, the same ones in every run.

To try others, and that many times as many: `FUZZ_FACTOR=20 pytest tests/unit/test_fuzz.py`.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterable
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nwfilter_hook.base.addresses import parse_mac
from nwfilter_hook.base.errors import InputError, NwfilterHookError, UnsupportedMatch
from nwfilter_hook.compiler import chains
from nwfilter_hook.compiler.compile import compile_tap
from nwfilter_hook.compiler.matches import reverse
from nwfilter_hook.config import Default
from nwfilter_hook.domain.parse import parse_domain, parse_identity
from nwfilter_hook.filters.parse import parse_filter
from nwfilter_hook.ruleset.fields import Field
from nwfilter_hook.ruleset.model import Attachment, Between, Chain, Equals, Masked, Match, Ruleset, Stage, Verdict
from tests.support.language import Row, accepted, rows
from tests.unit.checking import complaints
from tests.unit.compiling import MAC, bound, compiled, filter_xml, rule_xml, script, spelled

FACTOR = int(os.environ.get("FUZZ_FACTOR", "0"))


def fuzz(examples: int) -> settings:
    """Settings for a test of so many examples, the same ones in each run unless FUZZ_FACTOR asks for more."""
    return settings(
        max_examples=examples * max(FACTOR, 1),
        derandomize=not FACTOR,
        deadline=None,
        database=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )


BY_ELEMENT: dict[str, list[Row]] = {}
for _row in rows():
    if _row.attribute != "match":
        BY_ELEMENT.setdefault(_row.protocol, []).append(_row)

CHAINS = ("root", "mac", "mac-x", "stp", "vlan", "arp", "arp-a", "arp-b", "rarp", "ipv4", "ipv4-x", "ipv6", "ipv6-x")
ACTIONS = ("accept", "drop", "reject", "return", "continue")
PARAMETERS = {"A": ("192.0.2.1", "192.0.2.2"), "N": ("1", "2", "5"), "M": ("52:54:00:00:00:01", "52:54:00:00:00:02")}
_VARIABLES = {"IP_ADDR": ["$A", "$A[@1]", "$A[0]", "$IP"], "UINT16": ["$N", "$N[@1]"], "MAC_ADDR": ["$M[@2]", "$MAC"]}


# --- random filters ---------------------------------------------------------------------------------------------------


@st.composite
def nodes(draw: st.DrawFn, elements: Iterable[str]) -> str:
    """One or two nodes of one protocol element, with attributes, values and signs of all kinds."""
    element = draw(st.sampled_from(sorted(elements)))
    found = []
    for _ in range(draw(st.integers(1, 2))):
        chosen = draw(st.lists(st.sampled_from(BY_ELEMENT[element]), max_size=4, unique_by=lambda row: row.attribute))
        attributes = [draw(st.sampled_from(["", "match='no'"]))]
        for row in chosen:
            values = [
                row.value,
                *(value for value in accepted(row) if value),
                *_VARIABLES.get(row.datatype, []),
            ]
            value = draw(st.sampled_from(values)).replace("&", "&amp;").replace("'", "&apos;").replace("<", "&lt;")
            attributes.append(f"{row.attribute}='{value}'")
        found.append(f"<{element} {' '.join(attributes)}/>")
    if element in ("ip", "ipv6") and "port" in "".join(found):
        found.append(f"<{element} protocol='udp'/>")
    return "".join(found)


LAYER_2 = ("mac", "vlan", "stp", "arp", "rarp", "ip", "ipv6")


@st.composite
def rules(draw: st.DrawFn, elements: Iterable[str] = tuple(BY_ELEMENT)) -> str:
    """A <rule>."""
    return rule_xml(
        draw(st.one_of(st.just(""), nodes(elements))),
        action=draw(st.sampled_from(ACTIONS)),
        direction=draw(st.sampled_from(("in", "out", "inout"))),
        priority=draw(st.sampled_from((-1000, -720, -500, 0, 100, 500, 1000))),
        statematch=draw(st.sampled_from(("true", "true", "false"))),
    )


@st.composite
def trees(draw: st.DrawFn, elements: Iterable[str] = tuple(BY_ELEMENT)) -> list[str]:
    """A filter that refers to others, some of them more than once."""
    count = draw(st.integers(1, 4))
    names = [f"f{number}" for number in range(count)]
    texts = []
    for number, name in enumerate(names):
        entries = draw(st.lists(rules(elements), max_size=5))
        entries += [f"<filterref filter='{other}'/>" for other in names[number + 1 :] if draw(st.booleans())]
        priority = draw(st.sampled_from((None, None, -900, -500, 0, 1000)))
        texts.append(filter_xml(*entries, name=name, chain=draw(st.sampled_from(CHAINS)), priority=priority))
    return texts


def compile_or_refuse(texts: list[str], tap: str = "vnet0") -> Ruleset | None:
    """The compiled filters; None if they ask for what can't be, which must be said with file and line."""
    try:
        return compiled(*texts, parameters=PARAMETERS, tap=tap)
    except InputError as error:
        message = str(error)
    assert re.match(r"(f\d|domain)\.xml:\d+: ", message), message
    assert message.isprintable()
    return None


@fuzz(150)
@given(trees())
def test_random_filters_compile_to_rulesets_that_hold_together(texts: list[str]) -> None:
    """Whatever filters ask for: a refusal with its line, or the same ruleset each time, whole and well named."""
    ruleset = compile_or_refuse(texts)
    if ruleset is None:
        return
    assert compiled(*texts, parameters=PARAMETERS) == ruleset
    chains = [(chain.stage, chain.name) for chain in ruleset.chains]
    assert len(set(chains)) == len(chains)
    targets = [(c.stage, rule.target) for c in ruleset.chains for rule in c.rules if rule.verdict is Verdict.JUMP]
    assert sorted(map(str, targets)) == sorted(str(chain) for chain in chains if chain[1] is not None)
    assert all(chain.rules for chain in ruleset.chains)
    for chain in ruleset.chains:
        for rule in chain.rules:
            assert reverse(reverse(rule.matches)) == rule.matches
            assert rule.verdict is not Verdict.REJECT or chain.stage is Stage.FROM_L3
            assert rule.source.path.startswith(("f", "domain"))
    for line in script(ruleset, counters="all").splitlines():
        assert line.isascii()
        assert line.isprintable()
        comments = re.findall(r'comment "([^"]*)"$', line)
        assert bool(comments) == line.startswith("add rule bridge nwfilter ") ^ ("vmap" in line)
        assert all(re.fullmatch(r"f\d:\d+", comment) for comment in comments)


@pytest.mark.netns
@fuzz(12)
@given(st.lists(trees(), min_size=10, max_size=10))
def test_nft_takes_random_filters(guests: list[list[str]]) -> None:
    """What random filters compile to is a script that nft and the kernel take, for many taps at once."""
    rulesets = [compile_or_refuse(texts, tap=f"tap{number}") for number, texts in enumerate(guests)]
    assert complaints(script(*(ruleset for ruleset in rulesets if ruleset))) == []


# --- short chains in the root chain ---------------------------------------------------------------------------------

Frame = dict[Field, int]


@st.composite
def frames(draw: st.DrawFn, rulesets: tuple[Ruleset, ...]) -> Frame:
    """Fields of a frame, many with a value that some rule asks for; a field that isn't there is missing."""
    wanted: dict[Field, set[int]] = {}
    for ruleset in rulesets:
        for chain in ruleset.chains:
            for match in (match for rule in chain.rules for match in rule.matches):
                test = match.test
                if isinstance(test, (Equals, Masked)):
                    wanted.setdefault(match.field, set()).add(test.value)
                elif isinstance(test, Between):
                    wanted.setdefault(match.field, set()).update((test.low, test.high))
    types = [0x0800, 0x0806, 0x8035, 0x86DD, 0x8100, 0x88CC]
    frame = {Field.ETHER_TYPE: draw(st.sampled_from([*types, *sorted(wanted.get(Field.ETHER_TYPE, set()))]))}
    for field in (Field.ETHER_SRC, Field.ETHER_DST):
        frame[field] = draw(st.sampled_from([int(MAC.replace(":", ""), 16), 1, *sorted(wanted.get(field, set()))]))
    others = [field for field in sorted(wanted, key=lambda field: field.value[0]) if field not in frame]
    for field in others:
        value = draw(st.sampled_from([None, 0, *sorted(wanted[field])]))
        if value is not None:
            frame[field] = value
    return frame


def holds(match: Match, frame: Frame) -> bool:
    """Whether a condition holds; neither it nor its negation does for a field that isn't there."""
    if match.field not in frame:
        return False
    value, test = frame[match.field], match.test
    if isinstance(test, Equals):
        found = value == test.value
    elif isinstance(test, Masked):
        found = value & test.mask == test.value
    elif isinstance(test, Between):
        found = test.low <= value <= test.high
    else:  # what isn't modelled here counts as an outside fact that is the same for both rulesets
        found = zlib.crc32(f"{match.field.value[0]} {test}".replace("own-", "").encode()) % 2 == 0
    return found is not match.negated


def verdict(ruleset: Ruleset, tree: Stage, frame: Frame) -> str:
    """What a tree says of a frame."""
    chains = {chain.name: chain for chain in ruleset.chains if chain.stage is tree}

    def walk(chain: Chain) -> Verdict | None:
        for rule in chain.rules:
            if not all(holds(match, frame) for match in rule.matches):
                continue
            if rule.verdict is Verdict.JUMP:
                found = walk(chains[rule.target])
                if found is not None:
                    return found
            elif rule.verdict is Verdict.RETURN:
                return None
            elif rule.verdict in (Verdict.ACCEPT, Verdict.DROP, Verdict.REJECT):
                return rule.verdict
        return None

    found = walk(chains[None]) if None in chains else None
    return "drop" if found in (Verdict.DROP, Verdict.REJECT) else "accept"


@fuzz(150)
@given(trees(LAYER_2), st.data())
def test_inlining_changes_no_verdict(texts: list[str], data: st.DataObject) -> None:
    """Where a short chain's rules stand in the root chain, every frame meets the verdict that the chain would give."""
    inlined = compile_or_refuse(texts)
    if inlined is None:
        return
    with mock.patch.object(chains, "_inlined", return_value=None):
        apart = compiled(*texts, parameters=PARAMETERS)
    for _ in range(10):
        frame = data.draw(frames((inlined, apart)))
        for tree in (Stage.FROM_L2, Stage.TO_L2):
            found = verdict(inlined, tree, frame), verdict(apart, tree, frame)
            assert found[0] == found[1], (frame, tree, spelled(inlined), spelled(apart))


@fuzz(150)
@given(trees(), trees(), st.data())
def test_what_passes_a_floor_and_a_filter(floor: list[str], own: list[str], data: st.DataObject) -> None:
    """With a floor below it a filter lets a frame pass if both let it pass, each by itself."""
    alone = [ruleset for ruleset in map(compile_or_refuse, (floor, own)) if ruleset]
    if len(alone) < 2:
        return
    below, above = (bound(*texts, parameters=PARAMETERS) for texts in (floor, own))
    both = compile_tap("vnet0", Attachment.BRIDGE_PORT, parse_mac(MAC), above, floor=below)
    assert complaints_of_names(both) == []
    for _ in range(10):
        frame = data.draw(frames((*alone, both)))
        for tree in (Stage.FROM_L2, Stage.FROM_L3, Stage.TO_L2):
            wanted = "accept" if {verdict(each, tree, frame) for each in alone} == {"accept"} else "drop"
            assert verdict(both, tree, frame) == wanted, (frame, tree, [spelled(each) for each in (*alone, both)])


def complaints_of_names(ruleset: Ruleset) -> list[str]:
    """Chains that nobody jumps to, jumps to nowhere, two chains or two counters of one name."""
    names = [(chain.stage, chain.name) for chain in ruleset.chains]
    targets = {(c.stage, rule.target) for c in ruleset.chains for rule in c.rules if rule.verdict is Verdict.JUMP}
    found = [f"{name} twice" for name in names if names.count(name) > 1]
    found += [f"{target} missing" for target in targets - set(names)]
    found += [f"{name} unused" for name in names if name[1] is not None and name not in targets]
    return found


# --- random XML -------------------------------------------------------------------------------------------------------

REPOSITORY = Path(__file__).parents[2]
BR0 = Default("bridge", "br0", "f", (), "conf", 1)
SEEDS = [path.read_bytes() for path in sorted((REPOSITORY / "filters").glob("c*.xml"))]
SEEDS += [filter_xml(rule_xml("<tcp dstportstart='$P[@1]' state='NEW'/>", priority=5)).encode()]
DOMAINS = [path.read_bytes() for path in sorted((REPOSITORY / "tests/data/hook-events").glob("*start*.xml"))]
DOMAINS += [
    b"<domain><name>g</name><uuid>11111111-2222-3333-4444-555555555555</uuid><metadata>"
    b"<n:bindings xmlns:n='https://nwfilter-hook.org/xmlns/1'>"
    b"<n:interface dev='t'><filterref filter='f'/></n:interface></n:bindings></metadata>"
    b"<devices><interface type='bridge'><mac address='2:0:0:0:0:1'/><target dev='t'/></interface>"
    b"</devices></domain>"
]
WORDS = [
    *(b"", b"<", b">", b"'", b'"', b"/", b"&", b"&lt;", b"&#10;", b"&#0;", b"]]>", b"<!--", b"<!DOCTYPE x>", b"<?x?>"),
    *(
        b"\x00",
        b"\xff\xfe",
        b"\xc3",
        "ä".encode(),
        b"\n",
        b" ",
        b"$",
        b"$X",
        b"[@1]",
        b"-1",
        b"0x",
        b"9" * 5000,
        b"xmlns=''",
    ),
    *(
        b"<filter name='f'>",
        b"</filter>",
        b"<rule action='drop' direction='in'>",
        b"<tcp/>",
        b"<filterref/>",
        b"match='no'",
    ),
    *(b"<interface>", b"<uuid/>", b"<mac address='x'/>", b"<target dev='../x'/>", b"<alias/>", b"<name>\n</name>"),
]


@st.composite
def mutated(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """A seed with some pieces cut out, doubled, or replaced by what means something in XML or here."""
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(1, 6))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.sampled_from((0, 0, 1, 2, 8, 40, 400))))
        piece = draw(st.one_of(st.sampled_from(WORDS), st.just(data[start:end] * 2), st.binary(max_size=3)))
        data = data[:start] + piece + data[end:]
    return data


def refused_or_read(parse: object, data: bytes) -> None:
    """Nothing but an error of ours, on one printable line, comes out."""
    assert callable(parse)
    message = ""
    try:
        parse(data)
    except NwfilterHookError as error:
        message = str(error)
    assert message.isprintable()


@fuzz(300)
@given(st.one_of(mutated(SEEDS), mutated(DOMAINS), st.binary(max_size=60)))
def test_broken_filters(data: bytes) -> None:
    """Whatever a filter file holds, the answer is a filter or an error of ours."""
    refused_or_read(lambda data: parse_filter(data, "f.xml"), data)


@fuzz(300)
@given(st.one_of(mutated(DOMAINS), mutated(SEEDS), st.binary(max_size=60)))
def test_broken_domains(data: bytes) -> None:
    """Whatever comes for a domain XML, the answer is a domain or an error of ours, however it is read."""
    refused_or_read(lambda data: parse_domain(data, "d.xml", [BR0]), data)
    refused_or_read(lambda data: parse_domain(data, "d.xml", tolerant=True), data)
    refused_or_read(lambda data: parse_identity(data, "d.xml"), data)


def test_random_filters_are_not_all_refused() -> None:
    """The random filters are worth their while: most of them compile, and some ask for what can't be."""
    outcomes: list[bool] = []

    @fuzz(60)
    @given(trees())
    def collect(texts: list[str]) -> None:
        outcomes.append(compile_or_refuse(texts) is not None)

    collect()
    assert sum(outcomes) > len(outcomes) / 2
    with pytest.raises(UnsupportedMatch):
        compiled(filter_xml(rule_xml("<tcp srcportstart='2' srcportend='1'/>")))
