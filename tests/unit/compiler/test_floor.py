"""A floor and a filter on one tap: both count, the floor first. (Random ones are in test_fuzz.)"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path

import pytest

from nwfilter_hook.base.addresses import parse_mac
from nwfilter_hook.compiler.compile import compile_tap
from nwfilter_hook.filters.bound import BoundRule
from nwfilter_hook.filters.learning import Learning, read_learning
from nwfilter_hook.filters.resolve import resolve
from nwfilter_hook.ruleset.evaluate import Context, SetElement, State, Way, evaluate
from nwfilter_hook.ruleset.fields import Field
from nwfilter_hook.ruleset.model import Attachment, NamedSet, Ruleset, SetPurpose, Stage, Verdict
from nwfilter_hook.storage.library import Library
from tests.conformance.packets import build
from tests.support import frames
from tests.unit.checking import complaints
from tests.unit.compiling import MAC, TAP, Values, filter_xml, reader, reference_to, rule_xml, script, spelled

STOCK = Library([str(Path(__file__).parents[3] / "filters")])
ALL = filter_xml(rule_xml(action="accept", direction="inout", priority=-1000), name="all")


def stacked(
    floor: str | tuple[str, ...],
    own: str | tuple[str, ...],
    *,
    floor_parameters: Mapping[str, Values] | None = None,
    parameters: Mapping[str, Values] | None = None,
) -> Ruleset:
    """Two filters, each XML (a tuple: the first refers to the rest) or a stock filter's name, as a hook has them."""

    def bound(
        texts: str | tuple[str, ...], given: Mapping[str, Values] | None
    ) -> tuple[tuple[BoundRule, ...], Learning]:
        names = (texts,) if isinstance(texts, str) else texts
        is_stock = not names[0].startswith("<")
        reference = reference_to(names[0] if is_stock else names[0].split("name='")[1].split("'")[0], given)
        return resolve(reference, MAC, STOCK.read if is_stock else reader(*names)), read_learning(reference)

    (below, below_learning), (above, learning) = bound(floor, floor_parameters), bound(own, parameters)
    return compile_tap(
        TAP,
        Attachment.BRIDGE_PORT,
        parse_mac(MAC),
        above,
        learning,
        floor=below,
        floor_learning=below_learning,
        ingress=False,
    )


def sends(ruleset: Ruleset, *sent: bytes) -> list[bool]:
    """Whether each frame gets out, one after the other."""
    found: list[bool] = []
    sets: dict[NamedSet, frozenset[SetElement]] = {}
    for frame in sent:
        evaluation = evaluate(ruleset, frame, Way.FROM_GUEST, Context(State.UNTRACKED, sets=sets))
        sets = dict(evaluation.sets)
        found.append(evaluation.passes)
    return found


@pytest.mark.parametrize("own", [ALL, filter_xml(rule_xml(action="return", priority=-1000), rule_xml(), name="own")])
def test_no_priority_comes_before_the_floor(own: str) -> None:
    """A filter that accepts everything, or ends, at the very beginning, comes after whatever the floor drops."""
    ruleset = stacked("no-mac-spoofing", own)
    assert sends(ruleset, frames.ipv4(), frames.ipv4(src=frames.OTHER), frames.arp(src=frames.OTHER)) == [
        True,
        False,
        False,
    ]


def test_what_the_floor_accepts_goes_on() -> None:
    """An accept of the floor, in its root or in a chain of its own, is no accept of the guest's filter."""
    chain = filter_xml(
        rule_xml("<arp opcode='Request'/>", action="accept"),
        rule_xml("<arp opcode='Reply'/>", action="return"),
        *(rule_xml(f"<arp opcode='{code}'/>") for code in range(3, 7)),
        name="c",
        chain="arp",
    )
    floor = filter_xml(
        "<filterref filter='c'/>",
        rule_xml("<ip protocol='udp'/>", action="accept"),
        rule_xml("<ip protocol='tcp'/>", action="return"),
        rule_xml("<ipv6/>"),
        name="f",
    )
    own = filter_xml(
        rule_xml("<ip protocol='udp' dstportstart='9'/>"),
        rule_xml("<ip protocol='tcp' dstportstart='80'/>"),
        rule_xml("<arp opcode='Request' arpdstipaddr='10.0.0.5'/>"),
        rule_xml("<mac protocolid='ipv4'/>", action="return"),
        rule_xml("<arp opcode='Reply'/>"),
        name="own",
    )
    ruleset = stacked((floor, chain), own)
    expected = {
        "udp": (frames.udp(), False),
        "other-udp": (frames.udp(dport=10), True),
        "tcp": (frames.tcp(), False),
        "other-tcp": (frames.tcp(dport=81), True),
        "request": (frames.arp(target_ip="10.0.0.5"), False),
        "other-request": (frames.arp(), True),
        "reply": (frames.arp(opcode=2), False),
        "ipv6": (frames.ipv6(), False),
        "unnamed-by-either": (frames.ether(), True),
    }
    assert {name: sends(ruleset, frame) == [True] for name, (frame, _) in expected.items()} == {
        name: passes for name, (_, passes) in expected.items()
    }


def test_a_return_of_the_filter_is_no_way_back_into_the_floor() -> None:
    """Its root chain's return accepts, even where the floor jumped to it from a chain of its own."""
    chain = filter_xml(
        rule_xml("<arp opcode='Request'/>", action="accept"),
        rule_xml("<arp opcode='Reply'/>", action="return"),
        *(rule_xml(f"<arp opcode='{code}'/>") for code in range(3, 7)),
        name="c",
        chain="arp",
    )
    floor = filter_xml("<filterref filter='c'/>", rule_xml("<arp/>"), name="f")
    own = filter_xml(rule_xml("<arp/>", action="return"), rule_xml(), name="own")
    ruleset = stacked((floor, chain), own)
    assert sends(ruleset, frames.arp(), frames.arp(opcode=2), frames.ipv4()) == [True, False, False]


def test_a_floor_that_only_drops_costs_no_chain() -> None:
    """Its rules stand before the filter's own in the tap's root chain."""
    drop = filter_xml(rule_xml("<vlan/>"), name="f")
    assert spelled(stacked(drop, ALL)) == {
        "from": ["ether-type=0x8100 drop", "accept"],
        "to": ["accept"],
    }


@pytest.mark.netns
def test_equal_names_are_kept_apart() -> None:
    """Chains and counters of both have names of their own; nft takes them."""
    limit = rule_xml("<tcp connlimit-above='{}'/>", direction="in")
    floor, own = (filter_xml(limit.format(n), name=name) for n, name in ((5, "f"), (3, "own")))
    ruleset = stacked(floor, own)
    assert [named.name for named in ruleset.sets if named.purpose is SetPurpose.CONNLIMIT] == ["0", "own-0"]
    both = stacked("clean-traffic", "clean-traffic", floor_parameters={"IP": "10.0.0.1"}, parameters={"IP": "10.0.0.1"})
    names = [(chain.stage, chain.name) for chain in both.chains]
    assert len(set(names)) == len(names)
    assert {"own", "floor-ipv4-ip", "ipv4-ip"} <= {name for _, name in names}
    assert complaints(script(ruleset) + script(both)) == []


@pytest.mark.parametrize(("floor_ip", "own_ip"), [("10.0.0.1", "10.0.0.1"), ("10.0.0.1", "10.0.0.2")])
def test_parameters_are_each_ones_own(floor_ip: str, own_ip: str) -> None:
    """What the guest's reference says binds nothing in the floor, MAC included."""
    parameters = {"IP": own_ip, "MAC": frames.OTHER}
    ruleset = stacked("clean-traffic", "no-ip-spoofing", floor_parameters={"IP": floor_ip}, parameters=parameters)
    good = floor_ip == own_ip
    found = sends(ruleset, frames.ipv4(), frames.ipv4(src_ip="10.0.0.2"), frames.ipv4(src=frames.OTHER, src_ip=own_ip))
    assert found == [good, False, False]


def test_the_floor_learns_for_both() -> None:
    """One set of learned addresses; the floor's parameters say how, not the guest's."""
    ruleset = stacked("clean-traffic", "clean-traffic", parameters={"CTRL_IP_LEARNING_MAX": "5"})
    assert [named.size for named in ruleset.sets if named.purpose is SetPurpose.LEARNED] == [1]
    assert sends(ruleset, frames.ipv4(), frames.arp(), frames.ipv4(src_ip="10.0.0.2")) == [True, True, False]


def test_under_dhcp_nothing_comes_before_the_floor() -> None:
    """Where only the guest's filter learns leases, what it lets pass without one is for the floor to judge first."""
    dhcp = {"CTRL_IP_LEARNING": "dhcp", "DHCPSERVER": frames.OTHER_IP}
    no_dhcp = filter_xml(rule_xml("<ip protocol='udp' dstportstart='67'/>"), name="f")
    discover = frames.dhcp_discover()
    assert sends(stacked(no_dhcp, "clean-traffic", parameters=dhcp), discover) == [False]
    assert sends(stacked("no-mac-spoofing", "clean-traffic", parameters=dhcp), discover, frames.ipv4()) == [True, False]
    assert sends(stacked("clean-traffic", "clean-traffic", floor_parameters=dhcp), discover, frames.ipv4()) == [
        True,
        False,
    ]
    blind = filter_xml(rule_xml(direction="inout"), name="own")
    # the floor learns: the lease must be had whatever the filter says, as without a floor
    assert sends(stacked("clean-traffic", blind, floor_parameters=dhcp), discover) == [True]


def test_at_layer_3() -> None:
    """Both count there, too; an answer to what either rejects arrives, and so do later fragments."""
    floor = filter_xml(
        rule_xml("<tcp dstportstart='25'/>", action="reject"),
        rule_xml("<udp dstportstart='53'/>", action="accept"),
        rule_xml("<all/>", action="drop", direction="in"),
        name="f",
    )
    own = filter_xml(rule_xml("<udp dstipaddr='10.0.0.99'/>"), rule_xml("<tcp/>", action="accept"), name="own")
    ruleset = stacked(floor, own)
    udp = {Field.ETHER_TYPE: 0x0800, Field.IP_PROTOCOL: 17, Field.DST_PORT: 53}

    def verdict(values: Mapping[Field, int], way: Way = Way.FROM_GUEST, **context: object) -> Verdict:
        return evaluate(ruleset, build(values), way, Context(**context)).verdict  # type: ignore[arg-type]

    tcp = {Field.ETHER_TYPE: 0x0800, Field.IP_PROTOCOL: 6}
    assert verdict({**tcp, Field.DST_PORT: 25}) is Verdict.REJECT
    assert verdict(udp) is Verdict.DROP
    assert verdict({**udp, Field.IP_DST: int(ipaddress.IPv4Address("10.0.0.5"))}) is Verdict.ACCEPT
    answer = {Field.ETHER_TYPE: 0x0800, Field.IP_PROTOCOL: 1, Field.ICMP_TYPE: 3, Field.ICMP_CODE: 3}
    assert verdict(answer, Way.TO_GUEST, state=State.INVALID, from_host=True) is Verdict.ACCEPT
    assert verdict(answer, Way.TO_GUEST, state=State.INVALID) is Verdict.DROP


def test_one_without_rules_changes_nothing() -> None:
    """A floor or a filter that is empty, or says nothing of a tree, leaves the other's as they are."""
    empty = filter_xml(name="none")
    alone = stacked("clean-traffic", empty, floor_parameters={"IP": "10.0.0.1"})
    assert spelled(alone) == spelled(stacked(empty, "clean-traffic", parameters={"IP": "10.0.0.1"}))
    assert {chain.stage for chain in stacked("no-mac-spoofing", "allow-incoming-ipv4").chains} == {
        Stage.FROM_L2,
        Stage.TO_L2,
    }
