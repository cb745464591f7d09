"""
The deliberate differences from libvirt, by their numbers in nwfilter-differences(7): libvirt's own rules in the kernel,
put there by libvirt, and ours by the evaluator, which test_kernel.py and tests/vm hold to be the kernel's.

Every test's name has a number of the list in it, and the last test asks that none is missing. tests/unit has tests of
the same numbers for what a compiled ruleset shows without frames.
"""

from __future__ import annotations

import re
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from nwfilter_hook.base.errors import FilterSyntaxError, Source
from nwfilter_hook.domain.parse import parse_domain
from nwfilter_hook.filters.model import FilterRef
from nwfilter_hook.filters.parse import parse_filter
from nwfilter_hook.operations.compile import compile_reference
from nwfilter_hook.operations.devices import attachment_of
from nwfilter_hook.ruleset.evaluate import Context, State, Way, evaluate
from nwfilter_hook.ruleset.fields import Field
from nwfilter_hook.ruleset.model import Attachment, NamedSet, Ruleset, SetPurpose, Stage
from nwfilter_hook.storage.library import Library
from tests.conformance.filters import MAC, TAP, Part
from tests.conformance.libvirt_side import Bench, Parameters
from tests.conformance.packets import (
    AUTHENTICATION,
    GUEST_IP,
    GUEST_MAC,
    OTHER_IP,
    OTHER_MAC,
    PAYLOAD,
    PLAIN,
    Shape,
    Values,
    build,
)
from tests.conformance.states import Case
from tests.support.frames import dhcp_offer
from tests.support.libvirtd import wait_for
from tests.support.netns import Guest

pytestmark = pytest.mark.libvirt

MANUAL = Path(__file__).parents[2] / "packaging/man/nwfilter-differences.7.rst"
PARAMETERS: Parameters = {"IP": ("10.0.0.1",)}


@dataclass(frozen=True)
class Difference:
    """
    A filter, and a frame that passes libvirt's rules and not ours, or the other way round.

    Attributes:
        name: begins with the number.
        lines: of a root filter.
        libvirt: the frame passes there; it doesn't here, or the other way round.
        chain: of another filter that it refers to, with its line.
        shape: of the frame.
    """

    name: str
    lines: tuple[str, ...]
    values: dict[Field, int]
    libvirt: bool
    way: Way = Way.FROM_GUEST
    chain: tuple[str, str] | None = None
    shape: Shape = PLAIN

    def parts(self) -> tuple[Part, ...]:
        """The filters."""
        if self.chain is None:
            return (Part(f"different-{self.name}", "root", None, self.lines),)
        inner = Part(f"inner-{self.name}", self.chain[0], None, (self.chain[1],))
        lines = (*self.lines, f"<filterref filter='{inner.name}'/>")
        return Part(f"different-{self.name}", "root", None, lines), inner


def _drops(protocol: str, direction: str = "out") -> tuple[str, ...]:
    return (f"<rule action='drop' direction='{direction}'>{protocol}</rule>",)


DROP_ALL = "<rule action='drop' direction='inout' priority='1000'><all/></rule>"
TCP = {Field.ETHER_TYPE: 0x0800, Field.IP_PROTOCOL: 6, Field.TCP_FLAGS: 2}
UDP = {Field.ETHER_TYPE: 0x0800, Field.IP_PROTOCOL: 17}
ARP = {Field.ETHER_TYPE: 0x0806}
TCP6 = {Field.ETHER_TYPE: 0x86DD, Field.L4_PROTOCOL: 6}
PING6 = {Field.ETHER_TYPE: 0x86DD, Field.L4_PROTOCOL: 58}
PING = {Field.ETHER_TYPE: 0x0800, Field.IP_PROTOCOL: 1, Field.ICMP_TYPE: 8}
SOLICITATION = {
    Field.ETHER_TYPE: 0x86DD,
    Field.L4_PROTOCOL: 58,
    Field.ICMPV6_TYPE: 135,
    Field.ND_TARGET: 0xFE80 << 112 | 2,
}
TCP6_25 = {**TCP6, Field.DST_PORT: 25}
BEHIND_AH = Shape(extensions=(AUTHENTICATION,))
BPDU = {
    Field.STP_FLAGS: 1,
    Field.STP_ROOT_PRIORITY: 0x0203,
    Field.STP_ROOT_ADDRESS: 0x040506070809,
    Field.STP_ROOT_COST: 0x0A0B0C0D,
    Field.STP_SENDER_PRIORITY: 0x0E0F,
    Field.STP_SENDER_ADDRESS: 0x101112131415,
    Field.STP_PORT: 0x1617,
    Field.STP_AGE: 0x1819,
    Field.STP_MAX_AGE: 0x1A1B,
    Field.STP_HELLO_TIME: 0x1C1D,
    Field.STP_FORWARD_DELAY: 0x1E1F,
}
"""Of type 0, and every octet after that is one more than the one before."""
ONE_OCTET_EARLY = (
    "<stp type='0' flags='0' root-priority='0x102' root-address='03:04:05:06:07:08' root-cost='0x090a0b0c'"
    " sender-priority='0x0d0e' sender-address='0f:10:11:12:13:14' port='0x1516' age='0x1718' max-age='0x191a'"
    " hello-time='0x1b1c' forward-delay='0x1d1e'/>"
)
# libvirt's kernel reads 0x101 = 257 here, one octet early, and in its own spelling there is a range to 257
PORT_256, AGE_256 = {Field.STP_PORT: 256}, {Field.STP_AGE: 256}
TO_GUEST = {Field.ETHER_SRC: OTHER_MAC, Field.ETHER_DST: GUEST_MAC, Field.IP_SRC: OTHER_IP}
DIFFERENCES = (
    Difference("2-dstport", _drops("<tcp match='no' dstportstart='80'/>"), {**TCP, Field.DST_PORT: 81}, libvirt=True),
    # with both attributes libvirt makes a rule without the set, so the set needn't be there
    Difference("2-ipset", _drops("<tcp ipset='foes' ipsetflags='src'/>"), TCP, libvirt=False),
    Difference("2-flags", _drops("<tcp-ipv6 flags='SYN/SYN'/>"), {**TCP6, Field.TCP_FLAGS: 16}, libvirt=False),
    Difference("2-dscp", _drops("<ip dscp='46'/>"), {**UDP, Field.IP_DSCP: 46}, libvirt=True),
    Difference(
        "2-encap",
        _drops("<vlan encap-protocol='arp'/>"),
        {Field.ETHER_TYPE: 0x8100, Field.VLAN_TYPE: 0x0806},
        libvirt=True,
    ),
    Difference(
        "2-arp-mask",
        _drops("<arp arpsrcipaddr='10.0.0.0' arpsrcipmask='24' arpdstipaddr='10.0.0.99'/>"),
        {**ARP, Field.ARP_DST_IP: 0x0A000062},
        libvirt=False,
    ),
    Difference(
        "3-stp-chain",
        ("<rule action='accept' direction='out' priority='-100'/>",),
        {Field.STP_TYPE: 0, Field.ETHER_SRC: GUEST_MAC},
        libvirt=True,
        chain=("stp", "<rule action='drop' direction='out'/>"),
    ),
    Difference("3-port_hi", _drops("<stp port='255' port_hi='257'/>"), PORT_256, libvirt=True),
    Difference("3-msg-age", _drops("<stp type='0' msg-age='7'/>"), {Field.STP_AGE: 8}, libvirt=False),
    Difference("3-msg-age-hi", _drops("<stp age='255' msg-age-hi='257'/>"), AGE_256, libvirt=True),
    Difference(
        "4-icmp",
        ("<rule action='accept' direction='inout'><icmp type='8'/></rule>", DROP_ALL),
        PING,
        libvirt=False,
        way=Way.TO_GUEST,
    ),
    Difference("5-igmp-ipv6", _drops("<igmp-ipv6/>"), UDP, libvirt=False),
    Difference(
        "5-srcmacmask",
        _drops("<icmp srcmacaddr='52:54:00:00:00:00' srcmacmask='ff:ff:ff:00:00:00'/>"),
        PING,
        libvirt=True,
    ),
    Difference("5-dstmacaddr", _drops("<all dstmacaddr='52:54:00:00:00:98'/>"), UDP, libvirt=False),
    Difference("11-ndtarget", _drops("<ipv6 protocol='icmpv6' ndtarget='fe80::1'/>"), SOLICITATION, libvirt=False),
    Difference("11-ndlength", _drops("<ipv6 protocol='icmpv6' ndlength='24'/>"), SOLICITATION, libvirt=False),
    Difference("11-tagged", _drops("<ip tagged='yes'/>"), UDP, libvirt=False),
    Difference("11-snap", _drops("<mac snap='yes'/>"), UDP, libvirt=False),
    Difference("11-laterfragment", _drops("<ip laterfragment='yes'/>"), UDP, libvirt=False),
    Difference("11-dhcpop", _drops("<ip protocol='udp' dhcpop='2'/>"), UDP, libvirt=False),
    Difference("11-dhcptype", _drops("<ipv6 dhcptype='8'/>"), PING6, libvirt=False),
    Difference(
        "11-ndmacaddr",
        _drops(f"<ipv6 protocol='icmpv6'/><ipv6 match='no' ndmacaddr='{MAC}'/>"),
        SOLICITATION,
        libvirt=False,
    ),
    Difference(
        "12-end-of-chain",
        ("<rule action='drop' direction='inout' priority='1000'/>",),
        UDP,
        libvirt=True,
        chain=("ipv4", "<rule action='accept' direction='out'><ip protocol='tcp'/></rule>"),
    ),
    Difference(
        "13-address",
        _drops("<arp match='no' arpsrcipaddr='10.0.0.1'/>"),
        {**ARP, Field.ARP_HLEN: 5},
        libvirt=False,
    ),
    Difference("19-reserved", _drops("<vlan/>"), {**UDP, Field.ETHER_DST: 0x0180C2000000}, libvirt=True),
    Difference("13-mac", _drops(f"<arp arpsrcmacaddr='{MAC}'/>"), {**ARP, Field.ARP_PLEN: 5}, libvirt=False),
    Difference("15-type", _drops("<stp type='128'/>"), {Field.STP_TYPE: 128}, libvirt=True),
    Difference("15-flags", _drops("<stp flags='0'/>"), {Field.STP_FLAGS: 1}, libvirt=False),
    Difference(
        "15-root-priority", _drops("<stp root-priority='32768'/>"), {Field.STP_ROOT_PRIORITY: 32768}, libvirt=True
    ),
    Difference("15-one-octet-early", _drops(ONE_OCTET_EARLY), BPDU, libvirt=False),
    Difference("15-not-configuration", _drops("<stp flags='0'/>"), {Field.STP_TYPE: 128}, libvirt=True),
    Difference("16-port", _drops("<ipv6 protocol='tcp' dstportstart='25'/>"), TCP6_25, libvirt=False, shape=BEHIND_AH),
    Difference("16-protocol", _drops("<ipv6 protocol='ah'/>"), TCP6_25, libvirt=True, shape=BEHIND_AH),
)
FILTERS = {
    "typo": Part("typo", "root", None, _drops("<tcp dstportstrat='22'/>")),
    "drop-all": Part("drop-all", "root", None, (DROP_ALL,)),
    "drop-out": Part("drop-out", "root", None, _drops("<all/>")),
    "reject-out": Part("reject-out", "root", None, ("<rule action='reject' direction='out'><all/></rule>",)),
    "ask-only": Part("ask-only", "root", None, ("<rule action='accept' direction='out'><udp/></rule>", DROP_ALL)),
    "continue": Part(
        "continue",
        "root",
        None,
        ("<rule action='continue' direction='out'><all/></rule>", *_drops("<tcp/>")),
    ),
    "libvirts-spelling": Part(
        "libvirts-spelling",
        "root",
        None,
        (*_drops("<stp port='255' port-hi='257'/>"), *_drops("<stp age='255' age-hi='257'/>")),
    ),
    "option-0": Part("option-0", "root", None, _drops("<tcp option='0'/>")),
    "open-negated": Part("open-negated", "root", None, _drops("<all match='no' dstipaddr='10.0.0.99' dstipmask='0'/>")),
    "any-icmpv6": Part("any-icmpv6", "root", None, _drops("<ipv6 type='128'/>")),
    "own-address": Part(
        "own-address",
        "root",
        None,
        (*_drops("<ip match='no' srcipaddr='$IP'/>"), *_drops("<ip match='no' dstipaddr='$IP'/>", "in")),
    ),
    "one-connection": Part("one-connection", "root", None, _drops("<tcp connlimit-above='1'/>")),
    "unknown-set": Part("unknown-set", "root", None, _drops("<all ipset='nobody' ipsetflags='src'/>")),
    "own-ipv6": Part("own-ipv6", "root", None, _drops("<ipv6 match='no' srcipaddr='$IPV6'/>")),
}


EQUALS = [Part(f"equal-{letter}", f"arp-{letter}", None, _drops("<arp opcode='9'/>")) for letter in "hgfedcba"]
FILTERS.update({part.name: part for part in EQUALS})
FILTERS["equals"] = Part("equals", "root", None, tuple(f"<filterref filter='{part.name}'/>" for part in EQUALS))


def xml_by_name() -> dict[str, str]:
    """Every filter here."""
    parts = [part for difference in DIFFERENCES for part in difference.parts()]
    return {part.name: part.xml() for part in (*parts, *FILTERS.values())}


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    """libvirt with the filters."""
    bench = Bench(xml_by_name())
    try:
        bench.libvirtd.start()
        yield bench
    finally:
        bench.close()


def ours(name: str, parameters: Parameters) -> Ruleset:
    """The filter as the hook compiles it."""
    known = {key: parse_filter(text.encode(), f"{key}.xml") for key, text in xml_by_name().items() if key != "typo"}
    reference = FilterRef(name, dict(parameters), Source("domain.xml", 1))
    return compile_reference(reference, TAP, Attachment.BRIDGE_PORT, MAC, Library([], defined=known))


def passes_ours(ruleset: Ruleset, frames: Sequence[Values], way: Way = Way.FROM_GUEST) -> list[bool]:
    """Whether each of the frames passes after the ones before it, all of them new connections."""
    context = Context(State.NEW)
    passed = []
    for values in frames:
        evaluation = evaluate(ruleset, build(values), way, context)
        context = Context(State.NEW, sets=evaluation.sets)
        passed.append(evaluation.passes)
    return passed


def passes_libvirt(bench: Bench, values: Values, way: Way = Way.FROM_GUEST) -> bool:
    """Whether the frame passes what libvirt has in the kernel now."""
    seen = bench.observe(Case((), build(values)))
    assert seen is not None
    return seen.passed[way]


@pytest.mark.parametrize("difference", DIFFERENCES, ids=lambda difference: difference.name)
def test_deliberate_difference(bench: Bench, difference: Difference) -> None:
    """libvirt's verdict is the one that the manual says it is, and ours the other."""
    case = Case((), build(difference.values, difference.shape))
    ruleset = ours(f"different-{difference.name}", PARAMETERS)
    with bench.bind(f"different-{difference.name}", PARAMETERS):
        seen = bench.observe(case)
    assert seen is not None
    assert seen.passed[difference.way] is difference.libvirt
    assert evaluate(ruleset, case.frame, difference.way, seen.context).passes is not difference.libvirt


def test_deliberate_difference_1_a_typo(bench: Bench) -> None:
    """`dstportstrat='22'` makes libvirt drop all TCP; here it is an error with file, line and a suggestion."""
    with bench.bind("typo", PARAMETERS):
        assert not passes_libvirt(bench, {**TCP, Field.DST_PORT: 80})
        assert passes_libvirt(bench, UDP)
    with pytest.raises(FilterSyntaxError, match=r"^typo.xml:2: unknown attribute .* did you mean 'dstportstart'"):
        parse_filter(FILTERS["typo"].xml().encode(), "typo.xml")


def test_deliberate_difference_2_dstipto(bench: Bench) -> None:
    """
    An IPv6 range must end with an IPv4 address for libvirt to define the filter; ip6tables then refuses the range, so
    no guest starts with it. Here it is a range of IPv6 addresses.
    """
    text = "<filter name='range'><rule action='drop' direction='out'>{}</rule></filter>"
    range_ = "<all-ipv6 dstipfrom='2001:db8::1' dstipto='{}'/>"
    refused = define(bench, text.format(range_.format("2001:db8::9")))
    assert "dstipto has illegal value 2001:db8::9" in refused
    assert define(bench, text.format(range_.format("10.0.0.9"))) == ""
    assert "Bad value" in refusal(bench, "range", PARAMETERS)

    rules = FilterRef("range", {}, Source("domain.xml", 1))
    known = {"range": parse_filter(text.format(range_.format("2001:db8::9")).encode(), "range.xml")}
    ruleset = compile_reference(rules, TAP, Attachment.BRIDGE_PORT, MAC, Library([], defined=known))
    ends = [{**TCP6, Field.IP6_DST: 0x20010DB8 << 96 | number} for number in (0, 1, 9, 10)]
    assert passes_ours(ruleset, ends) == [True, False, False, True]


def test_deliberate_difference_3_one_spelling_for_libvirt(bench: Bench) -> None:
    """What passes libvirt's rules in the cases 3-port_hi and 3-msg-age-hi doesn't under the spelling that it reads."""
    with bench.bind("libvirts-spelling", PARAMETERS):
        assert not passes_libvirt(bench, PORT_256)
        assert not passes_libvirt(bench, AGE_256)
    assert passes_ours(ours("libvirts-spelling", PARAMETERS), [PORT_256, AGE_256]) == [False, False]


def test_deliberate_difference_6_host_to_guest(bench: Bench) -> None:
    """What the host itself sends to a guest meets no layer 3 rule of libvirt's; here it does."""
    values = {**UDP, Field.ETHER_SRC: OTHER_MAC, Field.ETHER_DST: GUEST_MAC}
    with bench.bind("drop-all", PARAMETERS):
        assert not passes_libvirt(bench, values, Way.TO_GUEST)
        assert bench.host_sends(build(values))
    assert passes_ours(ours("drop-all", PARAMETERS), [values], Way.TO_GUEST) == [False]


def test_deliberate_difference_6_routed(bench: Bench) -> None:
    """What the host routes to a guest meets no layer 3 rule of libvirt's; here it does."""
    with bench.inside():
        outside = Guest("routed0")
    bench.host.ip(
        "address add 10.0.0.254/24 dev br0",
        f"neighbour add 10.0.0.1 lladdr {MAC} dev br0 nud permanent",
        "address add 192.0.2.1/24 dev routed0",
        "link set routed0 up",
    )
    bench.host.run("sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")
    router = bytes.fromhex(bench.host.run("cat", "/sys/class/net/routed0/address").stdout.replace(":", ""))
    values = {**UDP, Field.IP_SRC: 0xC0000207, Field.IP_DST: GUEST_IP, Field.ETHER_DST: int.from_bytes(router, "big")}
    try:
        with bench.bind("drop-all", PARAMETERS):
            bench.guests[TAP].receive()
            outside.send(build(values))
            (routed,) = (frame for frame in bench.guests[TAP].receive() if PAYLOAD in frame)
    finally:
        outside.close()
        bench.host.run("sh", "-c", "echo 0 >/proc/sys/net/ipv4/ip_forward")
        bench.host.ip("address flush dev br0")
    assert not evaluate(ours("drop-all", PARAMETERS), routed, Way.TO_GUEST, Context(State.NEW)).passes


@pytest.mark.parametrize("action", ["drop", "reject"])
def test_deliberate_difference_6_but_one_way(bench: Bench, action: str) -> None:
    """The other half of a one-way drop or reject is for bridged packets: what the host sends passes, as in libvirt."""
    values = {**UDP, Field.ETHER_SRC: OTHER_MAC, Field.ETHER_DST: GUEST_MAC}
    name = f"{action}-out"
    with bench.bind(name, PARAMETERS):
        assert not passes_libvirt(bench, values, Way.TO_GUEST)
        assert bench.host_sends(build(values))
    rules = ours(name, PARAMETERS)
    assert passes_ours(rules, [values], Way.TO_GUEST) == [False]
    assert evaluate(rules, build(values), Way.TO_GUEST, Context(State.NEW, from_host=True)).passes


def test_deliberate_difference_7_continue(bench: Bench) -> None:
    """With `continue` at layer 3 libvirt's rules can't be made and no guest starts; here the next rule decides."""
    assert "CONTINUE" in refusal(bench, "continue", PARAMETERS)
    assert passes_ours(ours("continue", PARAMETERS), [TCP, UDP]) == [False, True]


REFUSED = (
    ("option-0", "Bad TCP option", [{**TCP, Field.TCP_OPTION: 0}, TCP], [False, True]),
    ("open-negated", "10.0.0.99/0", [TCP, UDP], [True, True]),
    (
        "any-icmpv6",
        "ip6-icmp-type",
        [{**PING6, Field.ICMPV6_TYPE: 128}, {**PING6, Field.ICMPV6_TYPE: 129}, TCP6],
        [False, True, True],
    ),
)


@pytest.mark.parametrize(("name", "said", "frames", "passed"), REFUSED, ids=[name for name, *_ in REFUSED])
def test_deliberate_difference_7_refused(
    bench: Bench, name: str, said: str, frames: list[Values], passed: list[bool]
) -> None:
    """A rule that iptables or ebtables refuses keeps libvirt's guest from starting; here it means what it says."""
    assert said in refusal(bench, name, PARAMETERS)
    assert passes_ours(ours(name, PARAMETERS), frames) == passed


CAPTURE_S = 0.5
"""libvirt's capture says what it has seen so often."""
_LEARNING = re.compile(r"chain libvirt-I-vnet0 {[^}]*\tether type arp counter accept\n")
_LEARNED = re.compile(r"chain libvirt-I-vnet0 {[^}]* ip saddr != 10.0.0.1 counter drop\n")


def learns(bench: Bench, stage: re.Pattern[str] = _LEARNING) -> bool:
    """
    Whether the rules that libvirt's learning thread makes first are in force, or those of another `stage`.

    Asked with nft, which only reads: with `ebtables -L` beside it one of libvirt's own ebtables commands now and then
    fails ("RULE_DELETE failed"), and with it the learning, for good.
    """
    listed = bench.host.run("nft", "--stateless", "list", "table", "bridge", "nat", check=False).stdout
    return stage.search(listed) is not None


def learning_begins(bench: Bench) -> None:
    """Wait for the rules that libvirt's learning thread makes first."""
    wait_for("libvirt's learning begins", lambda: learns(bench))


def teach(bench: Bench, sender: str, frame: bytes) -> None:
    """Send what teaches 10.0.0.1 until libvirt's rules hold the guest to it; the capture begins when it likes to."""

    def taught() -> bool:
        bench.guests[sender].send(frame)
        return learns(bench, _LEARNED)

    wait_for("libvirt has learned", taught)


LEARNING: Parameters = {"CTRL_IP_LEARNING": ("any",)}
SECOND = {**UDP, Field.IP_SRC: GUEST_IP + 1}


def test_deliberate_difference_8_arp_teaches(bench: Bench) -> None:
    """ARP under 10.0.0.1 says nothing to libvirt, so the guest may then speak as 10.0.0.2; not so here."""
    with bench.bind("own-address", LEARNING):
        learning_begins(bench)
        assert passes_libvirt(bench, ARP)
        time.sleep(3 * CAPTURE_S)
        assert learns(bench)
        assert passes_libvirt(bench, SECOND)
    assert passes_ours(ours("own-address", LEARNING), [ARP, SECOND]) == [True, False]


def test_deliberate_difference_8_in_force_at_once(bench: Bench) -> None:
    """
    libvirt's rules come some time after the frame that teaches them: one with another address that follows at once
    passes, and is held back once they are there. Here the first frame has taught and the second is dropped.
    """
    with bench.bind("own-address", LEARNING):
        guest, other = bench.guests[TAP], bench.guests["vnet1"]
        learning_begins(bench)
        other.receive()
        guest.send(build(UDP))
        guest.send(build(SECOND))
        assert build(SECOND) in other.receive()
        teach(bench, TAP, build(UDP))
        assert not passes_libvirt(bench, SECOND)
        assert passes_libvirt(bench, UDP)
    assert passes_ours(ours("own-address", LEARNING), [UDP, SECOND]) == [True, False]


def test_deliberate_difference_8_nothing_passes_before(bench: Bench) -> None:
    """Before libvirt has learned, all that comes to the guest passes; here the rules about $IP are in force."""
    values = {**UDP, **TO_GUEST, Field.IP_DST: GUEST_IP}
    with bench.bind("own-address", LEARNING):
        learning_begins(bench)
        assert passes_libvirt(bench, values, Way.TO_GUEST)
    assert passes_ours(ours("own-address", LEARNING), [values], Way.TO_GUEST) == [False]


def test_deliberate_difference_8_a_restart(bench: Bench) -> None:
    """
    libvirt forgets what it has learned when the daemon starts again, and takes the strict rules away: the guest may
    have another address then. Here there is no daemon, and the address stays in the kernel.
    """
    with bench.bind("own-address", LEARNING):
        learning_begins(bench)
        teach(bench, TAP, build(UDP))
        assert not passes_libvirt(bench, SECOND)
        bench.libvirtd.stop()
        assert not passes_libvirt(bench, SECOND)
        bench.libvirtd.start()
        learning_begins(bench)
        assert passes_libvirt(bench, SECOND)
    assert passes_ours(ours("own-address", LEARNING), [UDP, SECOND, SECOND]) == [True, False, False]


def test_deliberate_difference_8_a_new_lease(bench: Bench) -> None:
    """Under `dhcp` a guest's second lease changes nothing in libvirt's rules; here it takes the place of the first."""
    leasing: Parameters = {"CTRL_IP_LEARNING": ("dhcp",)}
    first, second = (dhcp_offer(dst=MAC, offered=address, kind="ack") for address in ("10.0.0.1", "10.0.0.2"))
    with bench.bind("own-address", leasing):
        assert not passes_libvirt(bench, UDP)
        teach(bench, "vnet1", first)
        assert passes_libvirt(bench, UDP)
        bench.guests["vnet1"].send(second)
        time.sleep(3 * CAPTURE_S)
        assert not passes_libvirt(bench, SECOND)
        assert passes_libvirt(bench, UDP)

    ruleset = ours("own-address", leasing)
    context = Context(State.NEW)
    passed = []
    for frame, way in (
        (build(UDP), Way.FROM_GUEST),
        (first, Way.TO_GUEST),
        (build(UDP), Way.FROM_GUEST),
        (second, Way.TO_GUEST),
        (build(SECOND), Way.FROM_GUEST),
        (build(UDP), Way.FROM_GUEST),
    ):
        evaluation = evaluate(ruleset, frame, way, context)
        context = Context(State.NEW, sets=evaluation.sets)
        passed.append(evaluation.passes)
    assert passed[::2] == [False, True, True]
    assert not passed[-1]


DOMAIN = f"""<domain type='qemu'>
<name>direct</name>
<memory unit='MiB'>32</memory>
<os><type arch='x86_64'>hvm</type></os>
<metadata><nwf:bindings xmlns:nwf='https://nwfilter-hook.org/xmlns/1'><nwf:interface mac='{MAC}'>
  <filterref filter='own-address'><parameter name='IP' value='10.0.0.1'/></filterref>
</nwf:interface></nwf:bindings></metadata>
<devices><interface type='direct'>
  <mac address='{MAC}'/><source dev='vnet2' mode='bridge'/>
  <filterref filter='own-address'><parameter name='IP' value='10.0.0.1'/></filterref>
</interface></devices>
</domain>"""


def test_deliberate_difference_9_direct(bench: Bench) -> None:
    """
    libvirt takes a reference to a filter out of a `direct` interface and says nothing. Here the metadata, which it
    keeps, says what filters the interface; tests/libvirt has a guest with it.
    """
    bench.host.write("/run/direct.xml", DOMAIN)
    bench.libvirtd.virsh("define", "/run/direct.xml")
    kept = bench.libvirtd.virsh("dumpxml", "direct").stdout
    bench.libvirtd.virsh("undefine", "direct")
    assert "<interface type='direct'>" in kept
    assert "<filterref" not in kept.partition("<devices>")[2]

    (interface,) = parse_domain(kept.encode(), "direct.xml").interfaces
    assert interface.reference is not None
    assert attachment_of(interface, None) is Attachment.MACVTAP
    known = {"own-address": parse_filter(FILTERS["own-address"].xml().encode(), "own-address.xml")}
    library = Library([], defined=known)
    ruleset = compile_reference(interface.reference, TAP, Attachment.MACVTAP, interface.mac, library)
    assert passes_ours(ruleset, [UDP, SECOND]) == [True, False]


def test_deliberate_difference_10_connections_are_counted_once(bench: Bench) -> None:
    """
    Of two connections of a guest, one to a neighbour and one to the host, each is the first to the chain of libvirt's
    that sees it, and passes; a second one to the neighbour doesn't. Here the rule has one count for both.
    """
    bench.host.ip(
        "address add 10.0.0.254/24 dev br0",
        f"neighbour add 10.0.0.1 lladdr {MAC} dev br0 nud permanent",
    )
    bridge = int(bench.host.run("cat", "/sys/class/net/br0/address").stdout.replace(":", ""), 16)
    to_host = {**TCP, Field.ETHER_DST: bridge, Field.IP_DST: 0x0A0000FE, Field.SRC_PORT: 1001}
    guest, other = bench.guests[TAP], bench.guests["vnet1"]
    try:
        with bench.bind("one-connection", PARAMETERS):
            for each in bench.guests.values():
                each.receive()
            guest.send(build({**TCP, Field.SRC_PORT: 1000}))
            assert len(other.receive()) == 1
            guest.send(build(to_host))
            # the host has nobody on that port
            assert any(struct.pack("!HH", 80, 1001) == frame[34:38] for frame in guest.receive(timeout_s=5))
            guest.send(build({**TCP, Field.SRC_PORT: 1002}))
            assert build({**TCP, Field.SRC_PORT: 1002}) not in other.receive()
    finally:
        bench.host.ip("address flush dev br0")

    ruleset = ours("one-connection", PARAMETERS)
    (counted,) = (named for named in ruleset.sets if named.purpose is SetPurpose.CONNLIMIT)
    assert passes_with_count(ruleset, counted, {**TCP, Field.SRC_PORT: 1000}, 1)
    assert not passes_with_count(ruleset, counted, to_host, 2)


def passes_with_count(ruleset: Ruleset, counted: NamedSet, values: Values, count: int) -> bool:
    """Whether the frame passes while its source has so many connections, its own included."""
    return evaluate(ruleset, build(values), Way.FROM_GUEST, Context(State.NEW, counts={counted: count})).passes


def test_deliberate_difference_11_ipv6_is_learned(bench: Bench) -> None:
    """Without a value for $IPV6 libvirt's rules can't be made; here it is learned if the interface says so."""
    learning: Parameters = {"CTRL_IPV6_LEARNING": ("any",), "CTRL_IPV6_LEARNING_MAX": ("1",)}
    assert "IPV6" in refusal(bench, "own-ipv6", learning)
    addresses = [{**TCP6, Field.IP6_SRC: 0x20010DB8 << 96 | number} for number in (1, 2, 1)]
    assert passes_ours(ours("own-ipv6", learning), addresses) == [True, False, True]


def test_deliberate_difference_14_an_unknown_set(bench: Bench) -> None:
    """libvirt wants the set to be there before the guest starts; here it comes into being, empty."""
    assert "nobody" in refusal(bench, "unknown-set", PARAMETERS)
    assert passes_ours(ours("unknown-set", PARAMETERS), [UDP]) == [True]


def test_deliberate_difference_17_chains_of_one_priority(bench: Bench) -> None:
    """libvirt asks eight chains of one priority in another order than the document's, its own; here it is that one."""
    with bench.bind("equals", PARAMETERS):
        listed = bench.host.run("nft", "list", "chain", "bridge", "nat", f"libvirt-I-{TAP}", check=False).stdout
    chains = re.findall(rf"I-{TAP}-(arp-\w)", listed)
    assert sorted(chains) == sorted(part.chain for part in EQUALS)
    assert chains != [part.chain for part in EQUALS]

    layers = evaluate(ours("equals", PARAMETERS), build(ARP), Way.FROM_GUEST, Context(State.NEW)).layers
    steps = next(layer.steps for layer in layers if layer.stage is Stage.FROM_L2)
    order = dict.fromkeys(step.rule.filter for step in steps if step.rule.filter.startswith("equal-"))
    assert list(order) == [part.name for part in EQUALS]


EXEMPT = "table ip exempt {{ chain in {{ type filter hook prerouting priority raw; {}; }}\n}}"


def test_deliberate_difference_18_notrack(bench: Bench) -> None:
    """Without a state a packet meets none of libvirt's rules that accept; here the rule's fields decide."""
    ruleset = ours("ask-only", PARAMETERS)
    with bench.bind("ask-only", PARAMETERS):
        assert passes_libvirt(bench, UDP)
        bench.host.run("nft", "-f", "-", stdin=EXEMPT.format("ip protocol udp notrack"))
        try:
            assert not passes_libvirt(bench, UDP)
        finally:
            bench.host.run("nft", "delete", "table", "ip", "exempt")
    for values in (UDP, TCP):
        passes = evaluate(ruleset, build(values), Way.FROM_GUEST, Context(State.UNTRACKED)).passes
        assert passes is (values is UDP)


def define(bench: Bench, text: str) -> str:
    """What libvirt says against a filter, or ""."""
    bench.host.write("/run/filter.xml", text)
    return bench.libvirtd.virsh("nwfilter-define", "/run/filter.xml", check=False).stderr.strip()


def refusal(bench: Bench, name: str, parameters: Parameters) -> str:
    """What libvirt says against putting the filter on the tap; "" if it does."""
    try:
        with bench.bind(name, parameters):
            return ""
    except AssertionError as error:
        return str(error)


def test_every_difference_of_the_manual_has_a_test() -> None:
    """The tests that the manual names below a difference are the ones of this file that have its number."""
    sections = re.findall(r"(?ms)^(\d+)\. [^\n]*\n--.*?^:tests: (.*?)\n\n", MANUAL.read_text())
    prefix = "test_deliberate_difference_"
    tests = {difference.name for difference in DIFFERENCES}
    tests |= {name.removeprefix(prefix) for name in globals() if name.startswith(prefix)}
    named = {number: set(re.split(r",\s+", names)) for number, names in sections}
    assert named == {number: {name for name in tests if re.split("[-_]", name)[0] == number} for number in named}
    assert len(named) >= 17
    assert set().union(*named.values()) == tests
