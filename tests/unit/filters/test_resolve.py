"""Filters followed and variables bound: scopes, lists, iterators, learning, and what is missing."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping

import pytest

from nwfilter_hook.base.errors import BadValue, FilterLoop, NwfilterHookError, UnboundVariable, UnknownFilter
from nwfilter_hook.filters.model import Learned
from tests.unit.compiling import MAC, Values, bound, compiled_rule, filter_xml, rule_xml


def reference(name: str, **parameters: str) -> str:
    """A <filterref>."""
    given = "".join(f"<parameter name='{key}' value='{value}'/>" for key, value in parameters.items())
    return f"<filterref filter='{name}'>{given}</filterref>"


def numbers(*filters: str, parameters: Mapping[str, Values] | None = None) -> list[tuple[object, ...]]:
    """The values of each rule's attributes, in the order of the attributes."""
    rules = bound(*filters, parameters=parameters)
    conditions = [rule.conditions.values() for rule in rules]
    return [
        tuple(part for each in given for part in (each.value, each.end) if part is not None) for given in conditions
    ]


def ports(protocol: str, **parameters: Values) -> list[tuple[object, ...]]:
    """The values that a rule's attributes get, for each rule it becomes."""
    return numbers(filter_xml(rule_xml(protocol)), parameters=parameters)


# --- the tree ---------------------------------------------------------------------------------------------------------


def test_rules_come_depth_first_in_document_order() -> None:
    """A reference stands for the rules of the filter it names, at its place; named again as before it adds none."""
    rules = bound(
        filter_xml(rule_xml(priority=1), reference("b"), rule_xml(priority=2), reference("b"), name="a"),
        filter_xml(reference("c"), rule_xml(priority=3), name="b", chain="arp"),
        filter_xml(rule_xml(priority=4), name="c", chain="ipv4-x", priority=-3),
    )
    assert [(rule.filter, rule.priority) for rule in rules] == [
        ("a", 1),
        ("c", 4),
        ("b", 3),
        ("a", 2),
    ]
    assert [(rule.chain, rule.chain_priority) for rule in rules[:3]] == [("root", 0), ("ipv4-x", -3), ("arp", -500)]
    assert str(rules[1].source) == "c.xml:2"


def test_a_missing_filter_is_named_with_its_reference() -> None:
    """A filter that no directory holds is named, with file and line of who wants it."""
    with pytest.raises(UnknownFilter, match=r"^f.xml:3: no filter 'gone'"):
        bound(filter_xml("", reference("gone")))


@pytest.mark.parametrize(
    ("filters", "cycle"),
    [
        ([("a", ["a"])], "a -> a"),
        ([("a", ["b"]), ("b", ["c"]), ("c", ["a"])], "a -> b -> c -> a"),
        ([("a", ["b"]), ("b", ["c"]), ("c", ["b"])], "b -> c -> b"),
    ],
)
def test_a_loop_is_printed(filters: list[tuple[str, list[str]]], cycle: str) -> None:
    """Filters that include each other are an error that shows the way round."""
    texts = [filter_xml(*(reference(other) for other in others), name=name) for name, others in filters]
    with pytest.raises(FilterLoop, match=f"filters include each other: {cycle}; leave one of the references out$"):
        bound(*texts)


def test_one_filter_by_two_ways_is_no_loop() -> None:
    """A filter may be reached by several ways; with other parameters its rules come again."""
    texts = [filter_xml(reference("b"), reference("c"), name="a")]
    texts += [filter_xml(reference("d"), name=name) for name in "bc"]
    assert len(bound(*texts, filter_xml(rule_xml(), name="d"))) == 1
    texts = [filter_xml(reference("d", PORT="1"), reference("d", PORT="2"), name="a")]
    port = rule_xml("<tcp dstportstart='$PORT'/>")
    assert len(bound(*texts, filter_xml(port, name="d"))) == 2


def test_a_filter_does_not_multiply() -> None:
    """Thirty filters, each including the next one twice, aren't a thousand million rules: equal rules count once."""
    texts = [filter_xml(reference(f"f{number + 1}") * 2, name=f"f{number}") for number in range(30)]
    assert len(bound(*texts, filter_xml(rule_xml(), name="f30"))) == 1


def test_a_long_way_down() -> None:
    """Two thousand filters, each referring to the next, are no trouble, or are refused with an error of ours."""
    texts = [filter_xml(reference(f"f{number + 1}"), name=f"f{number}") for number in range(2000)]
    with contextlib.suppress(NwfilterHookError):
        assert len(bound(*texts, filter_xml(rule_xml(), name="f2000"))) == 1


# --- scopes -----------------------------------------------------------------------------------------------------------

PORT = rule_xml("<tcp dstportstart='$PORT'/>")


def test_outer_parameters_win() -> None:
    """An inner parameter is a default: each enclosing reference overrides it, the interface's at last."""
    filters = [
        filter_xml(reference("b", PORT="1"), name="a"),
        filter_xml(reference("c", PORT="2"), name="b"),
        filter_xml(PORT, name="c"),
    ]
    assert numbers(*filters) == [(1,)]
    assert numbers(*filters, parameters={"PORT": "3"}) == [(3,)]
    assert numbers(*filters[1:]) == [(2,)]


def test_a_list_is_replaced_as_a_whole() -> None:
    """Of two lists the outer one holds, not both together."""
    inner = "<filterref filter='b'><parameter name='PORT' value='1'/><parameter name='PORT' value='2'/></filterref>"
    filters = [filter_xml(inner, name="a"), filter_xml(PORT, name="b")]
    assert numbers(*filters) == [(1,), (2,)]
    assert numbers(*filters, parameters={"PORT": "3"}) == [(3,)]


def test_an_inner_parameter_is_seen_in_its_subtree_only() -> None:
    """A parameter of a reference holds below it, not beside it."""
    filters = [filter_xml(reference("b", PORT="1"), PORT, name="a"), filter_xml(PORT, name="b")]
    assert numbers(*filters, parameters={"PORT": "2"}) == [(2,), (2,)]
    with pytest.raises(UnboundVariable, match=r"\$PORT at a.xml:3"):
        bound(*filters)


def test_mac_is_the_interfaces() -> None:
    """MAC is the interface's address, and beats an inner parameter; the user may give another."""
    filters = [filter_xml(reference("b", MAC="1:1:1:1:1:1"), name="a")]
    filters.append(filter_xml(rule_xml("<mac srcmacaddr='$MAC'/>"), name="b"))
    assert numbers(*filters) == [(int(MAC.replace(":", ""), 16),)]
    assert numbers(*filters, parameters={"MAC": "2:2:2:2:2:2"}) == [(0x020202020202,)]


def test_the_link_local_address() -> None:
    """LINK_LOCAL follows from MAC, from each if there are several, unless the reference gives it."""
    text = filter_xml(rule_xml("<ipv6 srcipaddr='$LINK_LOCAL'/>"))
    assert numbers(text) == [(0xFE80 << 112 | 0x505400FFFE000001,)]
    several = numbers(text, parameters={"MAC": ("2:2:2:2:2:2", "0:0:0:0:0:1")})
    assert several == [(0xFE80 << 112 | 0x000202FFFE020202,), (0xFE80 << 112 | 0x020000FFFE000001,)]
    assert numbers(text, parameters={"LINK_LOCAL": "fe80::9", "MAC": "2:2:2:2:2:2"}) == [(0xFE80 << 112 | 9,)]
    for value in ("2001:db8::1", "::", "10.0.0.1", "fe80::1/9", "fe80"):
        with pytest.raises(BadValue, match=f"parameter LINK_LOCAL: '{value}' is not a link-local address"):
            numbers(text, parameters={"LINK_LOCAL": ("fe80::9", value)})
    with pytest.raises(BadValue, match=r"^domain.xml:1: parameter MAC: 'x' is not a MAC address"):
        numbers(text, parameters={"MAC": "x"})


def test_names_are_case_sensitive() -> None:
    """$port is not $PORT."""
    with pytest.raises(UnboundVariable, match=r"\$PORT"):
        bound(filter_xml(PORT), parameters={"port": "1"})


# --- lists ------------------------------------------------------------------------------------------------------------

LISTS: dict[str, Values] = {"A": ("1", "2"), "B": ("8", "9")}


@pytest.mark.parametrize(
    ("protocol", "expected"),
    [
        # accesses of one iterator advance together
        ("<tcp srcportstart='$A' dstportstart='$B'/>", [(1, 8), (2, 9)]),
        ("<tcp srcportstart='$A[@5]' dstportstart='$B[@5]'/>", [(1, 8), (2, 9)]),
        # different iterators are independent; the first met varies fastest
        ("<tcp srcportstart='$A[@1]' dstportstart='$B[@2]'/>", [(1, 8), (2, 8), (1, 9), (2, 9)]),
        ("<tcp srcportstart='$A[@2]' dstportstart='$B[@1]'/>", [(1, 8), (2, 8), (1, 9), (2, 9)]),
        # iterator 0 comes first
        ("<tcp srcportstart='$A[@1]' dstportstart='$B'/>", [(1, 8), (1, 9), (2, 8), (2, 9)]),
        # the same variable twice
        ("<tcp srcportstart='$A' dstportstart='$A'/>", [(1, 1), (2, 2)]),
        ("<tcp srcportstart='$A[@1]' dstportstart='$A[@2]'/>", [(1, 1), (2, 1), (1, 2), (2, 2)]),
        # an index doesn't iterate
        ("<tcp srcportstart='$A[1]'/>", [(2,)]),
        ("<tcp srcportstart='$A[1]' dstportstart='$B'/>", [(2, 8), (2, 9)]),
        ("<tcp srcportstart='$A[0]' dstportstart='$B[1]'/>", [(1, 9)]),
    ],
)
def test_lists_and_iterators(protocol: str, expected: list[tuple[int, ...]]) -> None:
    """A rule becomes one rule for each combination that its iterators allow."""
    assert ports(protocol, **LISTS) == expected


def test_equal_combinations_of_one_iterator_come_once() -> None:
    """Duplicate tuples inside an iterator are skipped; between iterators they are not the same."""
    repeated: dict[str, Values] = {"A": ("1", "2", "3", "3"), "B": ("8", "9", "8", "8")}
    both = "<tcp srcportstart='$A' dstportstart='$B'/>"
    assert ports(both, **repeated) == [(1, 8), (2, 9), (3, 8)]
    assert ports("<tcp srcportstart='$B'/>", **repeated) == [(8,), (9,)]


def test_lists_of_one_iterator_have_one_length() -> None:
    """Lists that advance together and differ in length are an error that names both, and the way out."""
    with pytest.raises(UnboundVariable, match=r"^f.xml:2: .*\$A has 2, \$B has 1; use \$NAME\[@1\]"):
        ports("<tcp srcportstart='$A' dstportstart='$B'/>", A=("1", "2"), B="8")


def test_an_index_beyond_the_end() -> None:
    """An index outside its list is an error that names the list's length."""
    with pytest.raises(UnboundVariable, match=r"^f.xml:2: \$A\[2\] is beyond the end of the list, which has 2 values"):
        ports("<tcp srcportstart='$A[2]'/>", **LISTS)


def test_a_product_is_bounded() -> None:
    """A rule that would become millions is refused before it is made."""
    many = tuple(str(number) for number in range(200))
    with pytest.raises(UnboundVariable, match="make 8000000 rules of one, more than 4096"):
        bound(
            filter_xml(rule_xml("<tcp srcportstart='$A[@1]' dstportstart='$A[@2]' option='$B[@3]'/>")),
            parameters={"A": many, "B": many},
        )


def test_a_long_list_is_bound_in_time() -> None:
    """Four thousand addresses are four thousand rules, in a second or so."""
    began = time.process_time()
    addresses = tuple(f"10.0.{number // 256}.{number % 256}" for number in range(4000))
    assert len(bound(filter_xml(rule_xml("<ip srcipaddr='$IP'/>")), parameters={"IP": addresses})) == 4000
    assert time.process_time() - began < 5


# --- types ------------------------------------------------------------------------------------------------------------


def test_a_value_is_typed_by_where_it_is_used() -> None:
    """One parameter may be used where it fits, and is an error where it doesn't: both places are named."""
    filters = filter_xml(rule_xml("<ip srcipaddr='$IP'/>"), rule_xml("<tcp srcportstart='$IP'/>"))
    with pytest.raises(BadValue) as caught:
        bound(filters, parameters={"IP": "192.0.2.7"})
    assert str(caught.value) == (
        "domain.xml:1: parameter IP: '192.0.2.7' can't be srcportstart on <tcp> at f.xml:3: "
        "it is not a number from 0 to 65535"
    )


# --- what is missing --------------------------------------------------------------------------------------------------


def test_everything_missing_is_named_at_once() -> None:
    """One error names every variable without a value, where each is used, and how to give it."""
    filters = filter_xml(PORT, rule_xml("<ip srcipaddr='$NET'/>"), rule_xml("<tcp srcportstart='$PORT'/>"))
    with pytest.raises(UnboundVariable) as caught:
        bound(filters)
    assert str(caught.value) == (
        "domain.xml:1: filter 'f': variables have no value: $NET at f.xml:3, $PORT at f.xml:2; "
        "add <parameter name='NET' value='…'/>"
    )


def test_unused_parameters_are_fine() -> None:
    """A parameter that nobody uses is no error."""
    assert numbers(filter_xml(rule_xml()), parameters={"X": "1"}) == [()]


def test_ip_is_learned_when_nobody_gives_it() -> None:
    """$IP, and nothing else, may be missing: it stands for the address that the kernel learns."""
    for access in ("$IP", "$IP[@0]"):
        assert ports(f"<ip srcipaddr='{access}'/>") == [(Learned(),)]
    assert numbers(filter_xml(rule_xml("<ip srcipaddr='$IP'/>")), parameters={"IP": "192.0.2.7"}) == [(0xC0000207,)]


def test_a_learned_ip_beats_an_inner_one() -> None:
    """What is learned counts as given at the interface, so it replaces what an inner reference gives."""
    inner = filter_xml(rule_xml("<ip srcipaddr='$IP'/>"), name="b")
    given, missing = reference("b", IP="192.0.2.7"), reference("b")
    assert numbers(filter_xml(given, name="a"), inner) == [(0xC0000207,)]
    assert numbers(filter_xml(given, missing, name="a"), inner) == [(Learned(),), (Learned(),)]
    indexed = filter_xml(rule_xml("<ip srcipaddr='$IP[0]'/>"), name="c")
    with pytest.raises(UnboundVariable, match=r"^c.xml:2: \$IP\[0\]: \$IP is learned, and has no elements"):
        numbers(filter_xml(reference("c", IP="192.0.2.7"), missing, name="a"), inner, indexed)


@pytest.mark.parametrize(
    "protocol", ["<ip srcipaddr='$IP[@1]'/>", "<ip srcipaddr='$IP[0]'/>", "<ip srcipaddr='$IPV6'/>"]
)
def test_what_is_not_learned(protocol: str) -> None:
    """Another iterator, an index, IPV6: these must be given."""
    with pytest.raises(UnboundVariable, match=r"variable has no value"):
        ports(protocol)


def test_ip_beside_something_else_that_is_missing() -> None:
    """If anything else is missing too, nothing is learned and all is named."""
    with pytest.raises(UnboundVariable, match=r"variables have no value: \$IP at f.xml:2, \$X at f.xml:2"):
        ports("<ip srcipaddr='$IP' dscp='$X'/>")


@pytest.mark.parametrize("mode", ["none", "NONE"])
def test_learning_can_be_switched_off(mode: str) -> None:
    """With CTRL_IP_LEARNING none, IP must be given."""
    with pytest.raises(UnboundVariable, match=r"\$IP at f.xml:2"):
        ports("<ip srcipaddr='$IP'/>", CTRL_IP_LEARNING=mode)


@pytest.mark.parametrize("mode", ["any", "ANY", ("any", "none")])
def test_learning_as_asked_for(mode: Values) -> None:
    """CTRL_IP_LEARNING any, in any case, is the default; of a list the first counts."""
    assert ports("<ip srcipaddr='$IP'/>", CTRL_IP_LEARNING=mode) == [(Learned(),)]


def test_a_wrong_mode_of_learning() -> None:
    """Another mode is an error when there is something to learn, and nobody's business otherwise."""
    with pytest.raises(BadValue, match=r"^domain.xml:1: parameter CTRL_IP_LEARNING: 'dchp' is not one of"):
        ports("<ip srcipaddr='$IP'/>", CTRL_IP_LEARNING="dchp")
    assert ports("<ip srcipaddr='$IP'/>", CTRL_IP_LEARNING="dchp", IP="192.0.2.7") == [(0xC0000207,)]


def test_the_mode_is_the_interfaces() -> None:
    """CTRL_IP_LEARNING in an inner reference means nothing."""
    filters = [filter_xml(reference("b", CTRL_IP_LEARNING="none"), name="a")]
    filters.append(filter_xml(rule_xml("<ip srcipaddr='$IP'/>"), name="b"))
    assert numbers(*filters) == [(Learned(),)]


@pytest.mark.parametrize(
    "protocol",
    [
        "<ip srcmacaddr='$IP'/>",
        "<ip protocol='$IP'/>",
        "<ip dscp='$IP'/>",
        "<ipv6 srcipaddr='$IP'/>",
        "<ipv6 type='$IP'/>",
        "<stp type='$IP'/>",
        "<vlan vlanid='$IP'/>",
        "<tcp srcportstart='$IP'/>",
        "<tcp option='$IP'/>",
        "<tcp connlimit-above='$IP'/>",
        "<tcp ipset='$IP'/>",
        "<tcp ipset='x' ipsetflags='$IP'/>",
        "<icmp type='$IP'/>",
        "<icmp type='3' code='$IP'/>",
        "<all-ipv6 srcipaddr='$IP'/>",
    ],
)
def test_a_learned_address_is_an_ipv4_address(protocol: str) -> None:
    """$IP to be learned, where no IPv4 address can stand, is an error that names the place."""
    with pytest.raises(NwfilterHookError, match=r"f.xml:2"):
        compiled_rule(protocol)
