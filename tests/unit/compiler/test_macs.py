"""Several MACs behind one NIC: given, or learned and held."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from nwfilter_hook.base.addresses import parse_mac
from nwfilter_hook.base.errors import BadValue, UnboundVariable, UnsupportedMatch
from nwfilter_hook.compiler.compile import compile_tap
from nwfilter_hook.filters.learning import read_learning
from nwfilter_hook.filters.resolve import resolve
from nwfilter_hook.nftables.sets import declaration
from nwfilter_hook.ruleset.evaluate import NO_CONTEXT, Context, SetElement, State, Way, evaluate
from nwfilter_hook.ruleset.model import Attachment, NamedSet, Ruleset, Verdict
from tests.support import frames
from tests.support.frames import GUEST, OTHER, THIRD
from tests.unit.checking import complaints
from tests.unit.compiling import MAC, TAP, Values, filter_xml, reader, reference_to, rule_xml, script

LEARN = "CTRL_MAC_LEARNING_MAX"
STRICT = filter_xml(rule_xml("<mac match='no' srcmacaddr='$MAC'/>"))
MACS = ("52:54:00:00:01:01", "52:54:00:00:01:02", "52:54:00:00:01:03")


def ruleset(*filters: str, parameters: Mapping[str, Values]) -> Ruleset:
    """The first of `filters`, as a hook compiles it."""
    reference = reference_to("f", parameters)
    rules = resolve(reference, MAC, reader(*filters))
    return compile_tap(TAP, Attachment.BRIDGE_PORT, parse_mac(MAC), rules, read_learning(reference))


def sends(compiled: Ruleset, *sent: bytes) -> list[bool]:
    """Whether each frame gets out, one after the other."""
    found: list[bool] = []
    sets: dict[NamedSet, frozenset[SetElement]] = {}
    for frame in sent:
        evaluation = evaluate(compiled, frame, Way.FROM_GUEST, Context(State.UNTRACKED, sets=sets))
        sets = dict(evaluation.sets)
        found.append(evaluation.passes)
    return found


def test_several_given() -> None:
    """MAC may be repeated: the guest has these, and none is learned."""
    compiled = ruleset(
        filter_xml(rule_xml("<mac srcmacaddr='$MAC'/>", action="accept"), rule_xml(priority=900)),
        parameters={"MAC": (GUEST, OTHER)},
    )
    assert sends(compiled, frames.ipv4(), frames.ipv4(src=OTHER), frames.ipv4(src=THIRD)) == [True, True, False]
    assert compiled.sets == ()


def test_none_is_learned_unless_asked() -> None:
    """By default the guest has its own."""
    assert sends(ruleset(STRICT, parameters={}), frames.ipv4(), frames.ipv4(src=OTHER)) == [True, False]


def test_as_many_as_asked_for() -> None:
    """The first N others that it uses are held, its own doesn't count; a group, and nothing, are no MACs."""
    compiled = ruleset(STRICT, parameters={LEARN: "2"})
    sent = ["01:00:5e:00:00:01", "00:00:00:00:00:00", MACS[0], GUEST, MACS[1], MACS[2], MACS[0], GUEST, MACS[1]]
    assert sends(compiled, *(frames.arp(src=mac) for mac in sent)) == [
        *(False, False, True, True, True, False, True, True, True)
    ]


def test_given_and_learned() -> None:
    """Those that are given are the guest's from the beginning and don't count; the interface's own is then none."""
    compiled = ruleset(STRICT, parameters={"MAC": (OTHER, THIRD), LEARN: "1"})
    sent = (OTHER, THIRD, MACS[0], GUEST, OTHER)
    assert sends(compiled, *(frames.ipv4(src=mac) for mac in sent)) == [True, True, True, False, True]


@pytest.mark.parametrize(
    ("element", "frame"),
    [
        ("arp arpsrcmacaddr", lambda src, mac: frames.arp(src=src, sender=mac)),
        ("rarp arpsrcmacaddr", lambda src, mac: frames.rarp_announce(mac, src=src)),
        ("ip dhcpchaddr", lambda src, mac: frames.dhcp_discover(src=mac).replace(_octets(mac), _octets(src), 1)),
    ],
)
@pytest.mark.parametrize("negated", [False, True])
def test_in_messages(element: str, frame: Callable[[str, str], bytes], negated: bool) -> None:
    """A learned MAC in a message is the guest's; where nft has no name for it, if it is the frame's own source."""
    name, attribute = element.split()
    sign = "match='no' " if negated else ""
    entries = [rule_xml(f"<{name} {sign}{attribute}='$MAC'/>", action="drop" if negated else "accept")]
    entries += [] if negated else [rule_xml(f"<{name}/>", priority=900)]
    compiled = ruleset(filter_xml(*entries), parameters={LEARN: "1"})
    sent = [(GUEST, GUEST), (MACS[0], MACS[0]), (MACS[1], MACS[1]), (MACS[0], MACS[2]), (MACS[0], GUEST)]
    assert sends(compiled, *(frame(src, mac) for src, mac in sent)) == [True, True, False, False, True]


def _octets(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


@pytest.mark.parametrize("value", ["0", "257", "-1", "many", "all"])
def test_wrong_maxima(value: str) -> None:
    """A number from 1 to 256, or none."""
    with pytest.raises(BadValue, match=f"parameter {LEARN}: '{value}' is not a number from 1 to 256"):
        ruleset(STRICT, parameters={LEARN: value})


def test_what_cannot_be() -> None:
    """A MAC that is none, one chosen by number, one under a mask."""
    with pytest.raises(BadValue, match="parameter MAC: 'web' is not a MAC address"):
        ruleset(STRICT, parameters={LEARN: "1", "MAC": "web"})
    with pytest.raises(UnboundVariable, match=r"\$MAC\[0\]: \$MAC is learned"):
        ruleset(filter_xml(rule_xml("<mac srcmacaddr='$MAC[0]'/>")), parameters={LEARN: "1"})
    masked = filter_xml(rule_xml("<mac srcmacaddr='$MAC' srcmacmask='ff:ff:ff:00:00:00'/>"))
    with pytest.raises(UnsupportedMatch, match="a learned MAC can't stand under a mask; give parameter MAC"):
        ruleset(masked, parameters={LEARN: "1"})
    whole = masked.replace("00:00:00", "ff:ff:ff")
    assert sends(ruleset(whole, parameters={LEARN: "1"}), frames.ipv4()) == [False]


@pytest.mark.netns
def test_the_largest_is_taken_by_nft() -> None:
    """256 MACs, in every kind of rule."""
    nodes = (
        "mac srcmacaddr",
        "mac dstmacaddr",
        "arp arpdstmacaddr",
        "rarp arpsrcmacaddr",
        "ipv6 ndmacaddr",
        "ip dhcpchaddr",
    )
    entries = [rule_xml(f"<{node}='$MAC'/>", direction=way) for node in nodes for way in ("in", "out", "inout")]
    entries += [entry.replace("='$MAC'", "='$MAC' match='no'") for entry in entries]
    compiled = ruleset(filter_xml(*entries), parameters={LEARN: "256", "MAC": MACS})
    assert "size 256;" in declaration("macs/vnet0/max-256")
    assert complaints(script(compiled)) == []
    assert sum(rule.verdict is Verdict.LEARN for chain in compiled.chains for rule in chain.rules) == 1
    assert evaluate(compiled, frames.ipv4(), Way.TO_GUEST, NO_CONTEXT).layers
