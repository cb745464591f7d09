"""
Filters mean here what they mean to libvirt: the same frames go through libvirt's rules and through ours.

libvirt's rules are in the kernel, put there by libvirt's own driver or, for the filters of libvirt's test suite, by the
commands that the suite expects of it. Ours are the evaluator's, which test_kernel.py and tests/vm hold to be the
kernel's; so layer 3 is compared even where the kernel can't track connections on a bridge. Frames are at all places of
a connection, and well-formed: what isn't, br_netfilter drops before iptables sees it.

Where design differs from libvirt on purpose, the difference has a test of its own in test_differences.py.
"""

from __future__ import annotations

import random
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from nwfilter_hook.ruleset.evaluate import Context, Evaluation, Way, evaluate
from nwfilter_hook.ruleset.model import Ruleset
from tests.conformance.filters import Part, Tree
from tests.conformance.kernel import Tally, why
from tests.conformance.libvirt_side import Bench, Parameters, stock_definitions
from tests.conformance.mutation import cases
from tests.conformance.states import Case, sequence, state_name
from tests.conformance.summary import TALLIES

pytestmark = pytest.mark.libvirt

REPOSITORY = Path(__file__).parents[2]
LIBVIRTS = Path("/etc/libvirt/nwfilter")
SUITE = REPOSITORY.parent / "shared" / "corpus" / "libvirt-filters"
OLD = REPOSITORY / "tests" / "data" / "filters-2010"
FRAMES = 120


def _ends(tables: str, *chains: str) -> tuple[str, ...]:
    return tuple(f"{tables} -A {chain}-vnet0 -j DROP" for chain in chains)


PARAMETERS: Parameters = {"IP": ("10.0.0.1",), "IPV6": ("2001:db8::1",), "GATEWAY_MAC": ("52:54:00:00:00:99",)}
SERVERS: Mapping[str, Parameters] = {
    "allow-dhcp-server": {"DHCPSERVER": ("10.0.0.99",)},
    "allow-dhcpv6-server": {"DHCPSERVER": ("2001:db8::99",)},
}
SUITE_PARAMETERS: Parameters = {
    "IPSETNAME": ("tck_test",),
    "A": ("1.1.1.1", "2.2.2.2", "3.3.3.3", "3.3.3.3"),
    "B": ("80", "90", "80", "80"),
    "C": ("1080", "1090", "1100", "1110"),
}
STATES = {
    f"{version}{state}"
    for version in ("", "ipv6 ")
    for state in ("new", "established", "established reply", "related", "related reply")
} | {"invalid", "untracked"}
STOCK = sorted(path.stem for path in LIBVIRTS.glob("*.xml"))
OLD_NAMES = sorted(path.stem for path in OLD.glob("*.xml"))
_DROP = "<rule action='drop' direction='inout' priority='1000'>{}</rule>"
ENDS = {
    "ebtables": (_DROP.format(""), _ends("ebtables -t nat", "libvirt-J", "libvirt-P")),
    "iptables": (_DROP.format("<all/>"), _ends("iptables", "FJ", "FP")),
    "ip6tables": (_DROP.format("<all-ipv6/>"), _ends("ip6tables", "FJ", "FP")),
}
"""A final drop: the rule, and the commands for it."""
CLOSED = _DROP.format("")


def closed(name: str) -> Part:
    """A filter that lets pass what `name` accepts and nothing else at layer 2."""
    return Part(f"closed-{name}", "root", None, (f"<filterref filter='{name}'/>", CLOSED))


def old_definitions() -> dict[str, str]:
    """The filters of 2010 under names of their own, since libvirt has newer ones of the same name."""
    texts = {path.stem: path.read_text() for path in OLD.glob("*.xml")}
    names = "|".join(map(re.escape, texts))
    rename = re.compile(rf"(<filter name|<filterref filter)=(['\"])({names})\2")
    without_uuid = re.compile(r"<uuid>[^<]*</uuid>")
    return {f"old-{name}": rename.sub(r"\1=\2old-\3\2", without_uuid.sub("", text)) for name, text in texts.items()}


def own_filters() -> dict[str, str]:
    """Filters of ours that are there for these tests."""
    return {part.name: part.xml() for part in map(closed, STOCK)}


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    """libvirt with all filters that are compared."""
    bench = Bench({**stock_definitions(LIBVIRTS), **old_definitions(), **own_filters()})
    try:
        bench.libvirtd.start()
        yield bench
    finally:
        bench.close()


@pytest.fixture(scope="module")
def suite_bench() -> Iterator[Bench]:
    """A bench without libvirtd, for commands."""
    bench = Bench({})
    try:
        yield bench
    finally:
        bench.close()


def tree_of(name: str, parameters: Parameters) -> Tree:
    """What a reference to the filter leads to, by our reading of it."""
    part = Part("reference", "root", None, (f"<filterref filter='{name}'/>",))
    return Tree((part,), tuple(parameters.items()), texts={**old_definitions(), **own_filters()})


def as_libvirt_reads_it(tree: Tree) -> Ruleset:
    """`tree` compiled with what libvirt does at the end of a sub-chain, see test_differences.py."""
    return replace(tree, end_of_chain="accept").compile(ingress=False)


def is_ordinary(frame: bytes) -> bool:
    """False for ARP with other address lengths than Ethernet's and IPv4's: see test_differences.py."""
    return frame[12:14] not in (b"\x08\x06", b"\x80\x35") or frame[18:20] == b"\6\4"


def disagreements(
    bench: Bench, ruleset: Ruleset, seed: str, frames: int = FRAMES, *, tally_as: str = "libvirt"
) -> tuple[list[str], Counter[bool]]:
    """Frames with different verdicts, told as text, and how many passed and how many didn't, by libvirt."""
    rng = random.Random(seed)
    found: list[str] = []
    both: Counter[bool] = Counter()
    tally = TALLIES.setdefault(tally_as, Tally())
    tally.filters += 1
    for values in cases(rng, ruleset, frames):
        case = sequence(rng, values)
        seen = bench.observe(case)
        if seen is None or not is_ordinary(case.frame):
            continue
        for way, libvirts in seen.passed.items():
            evaluation = evaluate(ruleset, case.frame, way, seen.context)
            both[libvirts] += 1
            tally.frames += 1
            tally.dropped += not libvirts
            tally.states[state_name(case.frame, seen.context)] += 1
            if evaluation.passes is not libvirts:
                found.append(told(case, way, libvirts, evaluation, seen.context))
    return found, both


def told(case: Case, way: Way, libvirts: bool, evaluation: Evaluation, context: Context) -> str:
    """One disagreement."""
    before = [frame.hex() for frame in case.before]
    verdict = "passes" if libvirts else "drops"
    return (
        f"{case.frame.hex()} {way.name} {context.state} {context.reply} after {before}\n{verdict} in libvirt\n"
        + why(evaluation)
    )


@pytest.mark.parametrize("name", STOCK)
def test_stock_filter(bench: Bench, name: str) -> None:
    """
    libvirt's stock filter by libvirt, and ours of the same name by us; what merely accepts is looked at with a drop
    behind it.
    """
    parameters = {**PARAMETERS, **SERVERS.get(name, {})}
    subject = f"closed-{name}" if name.startswith("allow-") else name
    with bench.bind(subject, parameters):
        found, both = disagreements(bench, as_libvirt_reads_it(tree_of(subject, parameters)), name)
    assert not found, "\n\n".join(found[:3])
    assert sum(both.values()) > FRAMES


@pytest.mark.parametrize("name", OLD_NAMES)
def test_filter_of_2010(bench: Bench, name: str) -> None:
    """The first document's filters, by both."""
    with bench.bind(f"old-{name}", PARAMETERS):
        found, both = disagreements(bench, as_libvirt_reads_it(tree_of(f"old-{name}", PARAMETERS)), name)
    assert not found, "\n\n".join(found[:3])
    assert sum(both.values()) > FRAMES


def comparable(text: str) -> str:
    """
    A filter of the suite, or its commands, without what can't be compared: a sender whose MAC is a multicast address,
    which no bridge takes, and <ip dscp=…>, see test_differences.py.
    """
    unicast = re.sub(r"\b0?1:0?2:0?3:0?4:0?5:0?6\b", "02:02:03:04:05:06", text)
    return re.sub(r"--ip-tos \S+ \\\n|(<ip [^>]*?)dscp=(['\"])\w*\2", lambda match: match[1] or "", unicast)


OF_SUITE = {
    path.name[:-11]: (path.with_name(path.name.replace("-linux.args", ".xml")).read_text(), path.read_text())
    for path in sorted(SUITE.glob("*-linux.args"))
}
OF_OUR_OWN = {
    "our-ssh": (
        "<filter name='our-ssh'><rule action='accept' direction='out'><tcp dstportstart='22'/></rule>"
        "<rule action='drop' direction='in'><arp opcode='Request'/></rule></filter>",
        """\
iptables -A FJ-vnet0 -p tcp --dport 22 -m conntrack --ctstate NEW,ESTABLISHED -m conntrack --ctdir Original -j RETURN
iptables -A HJ-vnet0 -p tcp --dport 22 -m conntrack --ctstate NEW,ESTABLISHED -m conntrack --ctdir Original -j RETURN
iptables -A FP-vnet0 -p tcp --sport 22 -m conntrack --ctstate ESTABLISHED -m conntrack --ctdir Reply -j ACCEPT
ebtables -t nat -A libvirt-P-vnet0 -p ARP --arp-opcode 1 -j DROP
""",
    )
}
"""Of the same kind, with the commands for it: compared where libvirt's suite isn't there, too."""


@pytest.mark.parametrize("case", [*OF_OUR_OWN, *OF_SUITE])
def test_filter_of_libvirts_suite(suite_bench: Bench, case: str) -> None:
    """The commands that libvirt's test suite expects for a filter, and the filter by us."""
    xml, commands = map(comparable, {**OF_SUITE, **OF_OUR_OWN}[case])
    name = re.search(r"<filter name=['\"]([^'\"]*)", xml)
    assert name is not None
    # behind it, what makes the difference between "accepted" and "no rule applied"
    ends = [end for tables, end in ENDS.items() if re.search(rf"^{tables} ", commands, re.MULTILINE)]
    part = Part("reference", "root", None, (f"<filterref filter='{name[1]}'/>", *(rule for rule, _ in ends)))
    tree = Tree((part,), tuple(SUITE_PARAMETERS.items()), texts={name[1]: xml})
    suite_bench.carry_out("\n".join([commands, *(last for _, lasts in ends for last in lasts)]))
    found, both = disagreements(suite_bench, tree.compile(ingress=False), case)
    assert not found, f"{len(found)} of {both}\n" + "\n\n".join(found[:3])


def test_says_what_is_compared(capsys: pytest.CaptureFixture[str]) -> None:
    """Where libvirt's test suite isn't there, the run says so; frames were at all places of a connection."""
    suite = len(list(SUITE.glob("*-linux.args")))
    with capsys.disabled():
        print(f"\nlibvirt against us: {len(STOCK)} stock filters, {len(OLD_NAMES)} of 2010, {suite} of libvirt's suite")
    if not suite:
        warnings.warn(f"libvirt's own test filters are not at {SUITE}: compared without them", stacklevel=1)
    tally = TALLIES.get("libvirt", Tally())
    if tally.filters == len(STOCK) + len(OLD_NAMES) + suite:
        assert set(tally.states) >= STATES
    assert len(STOCK) >= 24
    assert len(OLD_NAMES) >= 6
