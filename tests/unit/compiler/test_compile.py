"""From bound rules to chains: which tree, which order, which way round, under which connection state."""

from __future__ import annotations

import pytest

from nwfilter_hook.base.errors import UnsupportedMatch
from nwfilter_hook.ruleset.model import Attachment
from tests.unit.compiling import Values, compiled, compiled_rule, filter_xml, rule_xml, spelled


def trees(protocol: str, action: str = "drop", direction: str = "out", **others: object) -> dict[str, list[str]]:
    """What one rule becomes, by tree; `others` are further attributes of <rule>."""
    return spelled(compiled(filter_xml(rule_xml(protocol, action=action, direction=direction, **others))))


def mark(number: int) -> str:
    """A protocol element to tell rules by: it is not inlined or merged with others."""
    return f"<mac protocolid='{0x9000 + number:#x}'/>"


def order(rules: list[str]) -> list[str]:
    """The marks of the rules in their order, or where they jump to."""
    return [
        rule.split()[-1] if " jump " in f" {rule}" else rule.split()[0].removeprefix("ether-type=") for rule in rules
    ]


# --- layer 2: direction -----------------------------------------------------------------------------------------------

WRITTEN = "ether-src=01:01:01:01:01:01 ether-type=0x800 ip-dst=10.0.0.2 ip-protocol=17 dst-port=53 accept"
TURNED = "ether-dst=01:01:01:01:01:01 ether-type=0x800 ip-src=10.0.0.2 ip-protocol=17 src-port=53 accept"


@pytest.mark.parametrize(
    ("direction", "expected"),
    [
        ("out", {"from": [WRITTEN]}),
        ("in", {"to": [WRITTEN]}),
        ("inout", {"from": [TURNED], "to": [WRITTEN]}),
    ],
)
def test_directions_at_layer_2(direction: str, expected: dict[str, list[str]]) -> None:
    """`out` is what the guest sends, `in` what it gets; `inout` is written for the latter and turned for the former."""
    protocol = "<ip protocol='udp' srcmacaddr='1:1:1:1:1:1' dstipaddr='10.0.0.2' dstportstart='53'/>"
    assert trees(protocol, "accept", direction) == expected


@pytest.mark.parametrize(("action", "verdict"), [("reject", "drop"), ("drop", "drop"), ("return", "accept")])
def test_nothing_is_rejected_at_layer_2(action: str, verdict: str) -> None:
    """`reject` at layer 2 drops without an answer."""
    assert trees("<arp/>", action) == {"from": [f"ether-type=0x806 {verdict}"]}


def test_a_bpdu_has_one_direction() -> None:
    """An stp rule with srcmacaddr can't be `inout`, since a BPDU's destination is fixed; else nothing is turned."""
    with pytest.raises(UnsupportedMatch, match=r"^f.xml:2: <stp srcmacaddr=…> can't be 'inout'"):
        trees("<stp srcmacaddr='1:1:1:1:1:1'/>", direction="inout")
    both = trees("<stp type='0'/>", direction="inout")
    assert both["from"] == both["to"]


def test_a_tree_without_rules_does_not_exist() -> None:
    """What no rule is about has no chain, in each tree on its own."""
    assert set(trees("<arp/>", direction="in")) == {"to"}
    assert spelled(compiled(filter_xml())) == {}


# --- chains and order -------------------------------------------------------------------------------------------------


def unruly(*entries: str, name: str, chain: str, priority: int | None = None) -> str:
    """A filter with a chain that stays a chain of its own: its last rule returns under a condition."""
    last = rule_xml("<arp opcode='1'/>", action="return", priority=1000)
    return filter_xml(*entries, last, name=name, chain=chain, priority=priority)


def including(*names: str, own: tuple[str, ...] = ()) -> str:
    """A filter that refers to `names` and has rules of its own."""
    return filter_xml(*(f"<filterref filter='{name}'/>" for name in names), *own, name="f")


def test_rules_of_a_chain_by_priority_then_in_document_order() -> None:
    """Rules of a chain come by rising priority; equal ones as they stand in the document."""
    rules = [
        rule_xml(mark(number), priority=priority) for number, priority in enumerate((500, -1000, 500, 0, 1000, -1))
    ]
    assert order(spelled(compiled(filter_xml(*rules)))["from"]) == [
        "0x9001",
        "0x9005",
        "0x9003",
        "0x9000",
        "0x9002",
        "0x9004",
    ]


def test_chains_of_equal_priority_come_as_they_appear() -> None:
    """In the order of the document, whatever the priorities of their rules."""
    filters = [filter_xml(*(f"<filterref filter='{name}'/>" for name in ("b", "a", "c")), name="top")]
    for name, chain, priority in (("a", "mac-a", -5), ("b", "mac-b", 700), ("c", "arp-c", 0)):
        rules = [rule_xml(mark(number), action="return", priority=priority) for number in (1, 2)]
        filters.append(filter_xml(*rules, name=name, chain=chain, priority=-100))
    assert order(spelled(compiled(*filters))["from"]) == ["mac-b", "mac-a", "arp-c"]


@pytest.mark.parametrize(
    ("last", "rules"),
    [
        (rule_xml(mark(2), action="accept"), ["ether-type=0x9001 return", "ether-type=0x9002 accept", "accept"]),
        (rule_xml(action="continue"), ["ether-type=0x9001 return", "continue", "accept"]),
        (rule_xml(action="return"), ["ether-type=0x9001 return", "return"]),
    ],
)
def test_the_end_of_a_chain_may_accept(last: str, rules: list[str]) -> None:
    """As ebtables has it, if the host's configuration says so; else a frame goes back to the root chain."""
    text = filter_xml(rule_xml(mark(1), action="return"), last, chain="mac-x")
    assert spelled(compiled(text, end_of_chain="accept"))["from/mac-x"] == rules
    assert spelled(compiled(text))["from/mac-x"] == [rule for rule in rules if rule != "accept"]


def test_the_end_of_a_chain_in_the_root_chain() -> None:
    """Where a chain's rules stand in the root chain, its end does too: for its frames, and no others."""
    text = filter_xml(rule_xml("<arp opcode='1'/>"), chain="arp")
    assert spelled(compiled(text, end_of_chain="accept"))["from"] == [
        "ether-type=0x806 arp-opcode=1 drop",
        "ether-type=0x806 accept",
    ]


def test_the_worked_example_of_equal_numbers_and_defaults() -> None:
    """Jumps and root rules share one scale, at equal value the jump first; a rule's priority orders its chain only."""
    text = spelled(
        compiled(
            filter_xml(
                rule_xml(mark(1), priority=-500),
                rule_xml(mark(2), priority=500),
                *(f"<filterref filter='{name}'/>" for name in ("f2", "f3", "f4")),
                name="f1",
            ),
            unruly(rule_xml(mark(3), priority=10), name="f2", chain="arp"),
            unruly(rule_xml(mark(4), priority=-1000), name="f3", chain="arp-late", priority=700),
            unruly(rule_xml(mark(5)), name="f4", chain="stp"),
        )
    )
    # libvirt has stp at 0; by its documentation, and here, it is at -810
    assert order(text["from"]) == ["stp", "arp", "0x9001", "0x9002", "arp-late"]
    assert order(text["from/arp"])[0] == "0x9003"
    assert order(text["from/arp-late"])[0] == "0x9004"


@pytest.mark.parametrize(
    ("chain", "jump"),
    [
        ("mac", "jump mac"),
        ("mac-x", "jump mac-x"),
        ("stp", "ether-dst=01:80:c2:00:00:00 jump stp"),
        ("vlan", "ether-type=0x8100 jump vlan"),
        ("arp-mac", "ether-type=0x806 jump arp-mac"),
        ("rarp", "ether-type=0x8035 jump rarp"),
        ("ipv4", "ether-type=0x800 jump ipv4"),
        ("ipv6-ip", "ether-type=0x86dd jump ipv6-ip"),
    ],
)
def test_what_goes_into_a_chain(chain: str, jump: str) -> None:
    """A chain gets the frames that its name begins with."""
    assert spelled(compiled(unruly(name="f", chain=chain)))["from"] == [jump]


def test_the_default_order_of_chains() -> None:
    """Without priorities: stp, mac, vlan, ipv4, ipv6, arp, rarp, and then the rules of the root chain."""
    names = ("rarp", "arp", "ipv6", "ipv4", "vlan", "mac", "stp")
    filters = [unruly(name=name, chain=name) for name in names]
    found = spelled(compiled(including(*names, own=(rule_xml(mark(1)),)), *filters))
    assert order(found["from"]) == [*reversed(names), "0x9001"]


def test_chains_do_not_nest() -> None:
    """arp-x is entered from the root chain, not from arp."""
    found = spelled(compiled(including("a", "b"), unruly(name="a", chain="arp"), unruly(name="b", chain="arp-x")))
    assert order(found["from"]) == ["arp", "arp-x"]
    assert not any("jump" in rule for rule in found["from/arp"])


def test_two_filters_share_a_chain() -> None:
    """Two filters of one chain put their rules into it, by priority."""
    filters = [
        unruly(rule_xml(mark(1), priority=5), rule_xml(mark(3), priority=7), name="a", chain="mac"),
        unruly(rule_xml(mark(2), priority=6), name="b", chain="mac"),
    ]
    found = spelled(compiled(including("a", "b"), *filters))
    assert order(found["from"]) == ["mac"]
    assert order(found["from/mac"])[:3] == ["0x9001", "0x9002", "0x9003"]


def test_one_chain_with_two_priorities() -> None:
    """Of two filters that of the one whose rules sort last counts, and the administrator is told; root has none."""
    filters = [
        unruly(rule_xml(mark(1), priority=5), name="a", chain="mac", priority=900),
        filter_xml(rule_xml(mark(2), priority=1000), name="b", chain="mac", priority=-900),
    ]
    ruleset = compiled(including("a", "b", own=(rule_xml(mark(3), priority=0),)), *filters)
    assert order(spelled(ruleset)["from"]) == ["mac", "0x9003"]
    assert ruleset.notes == ("chain 'mac' has the priority 900 in filter 'a' and -900 in 'b'; the latter counts",)
    roots = filter_xml("<filterref filter='b'/>", rule_xml(), name="a"), filter_xml(rule_xml(), name="b", priority=3)
    assert compiled(*roots).notes == ()


@pytest.mark.parametrize("other", [rule_xml("<tcp/>"), rule_xml(mark(2), direction="in")])
def test_a_priority_that_places_nothing_is_no_matter(other: str) -> None:
    """Layer 3 rules are in no chain, and rules of the other direction in another tree's: both keep their places."""
    filters = [
        filter_xml(rule_xml(mark(1), direction="out"), name="a", chain="ipv4"),
        filter_xml(other, name="b", chain="ipv4", priority=700),
    ]
    assert compiled(including("a", "b"), *filters).notes == ()


def test_a_rule_that_comes_twice_is_made_once() -> None:
    """A filter that is included twice has its rules once: the second could never decide anything."""
    found = spelled(compiled(including("a", "a"), filter_xml(rule_xml(mark(1)), name="a")))
    assert order(found["from"]) == ["0x9001"]


def test_root_rules_before_every_chain() -> None:
    """A root rule of priority −900 comes before the mac chain, one of 500 after all chains."""
    own = (rule_xml(mark(1), priority=-900), rule_xml(mark(2)))
    found = spelled(compiled(including("a", own=own), unruly(name="a", chain="mac")))
    assert order(found["from"]) == ["0x9001", "mac", "0x9002"]


# --- short chains in the root chain -----------------------------------------------------------------------------------


def test_a_short_chain_stands_in_the_root_chain() -> None:
    """A chain of a few rules without `return` is not entered: its rules stand in its place, for its frames only."""
    chain = filter_xml(rule_xml("<arp opcode='1'/>", action="accept"), rule_xml(), name="a", chain="arp")
    own = (rule_xml(mark(1), priority=-600), rule_xml(mark(2)))
    assert spelled(compiled(including("a", own=own), chain)) == {
        "from": [
            "ether-type=0x9001 drop",
            "ether-type=0x806 arp-opcode=1 accept",
            "ether-type=0x806 drop",
            "ether-type=0x9002 drop",
        ]
    }


def test_a_rule_that_cannot_match_in_its_chain() -> None:
    """A rule for frames that its chain never gets isn't made where the chain is inlined."""
    chain = filter_xml(rule_xml("<ip/>"), rule_xml("<arp/>"), name="f", chain="arp")
    assert spelled(compiled(chain)) == {"from": ["ether-type=0x806 drop"]}


def test_return_leads_back_to_the_root_chain() -> None:
    """Where a frame returns from a chain, and what it meets then, is the same whether the chain was inlined or not."""
    returning = filter_xml(rule_xml("<mac srcmacaddr='$MAC'/>", action="return"), rule_xml(), name="a", chain="mac")
    found = spelled(compiled(including("a", own=(rule_xml("<arp/>", action="accept"),)), returning))
    own = "ether-src=52:54:00:00:00:01"
    as_a_chain = {"from": ["jump mac", "ether-type=0x806 accept"], "from/mac": [f"{own} return", "drop"]}
    inlined = {"from": [f"{own.replace('=', '!=')} drop", "ether-type=0x806 accept"]}
    assert found in (as_a_chain, inlined)


def test_a_field_that_a_frame_may_lack_is_not_turned_round() -> None:
    """`return if the ARP sender is …, else drop` stays a chain: a frame without that field must be dropped too."""
    chain = filter_xml(rule_xml("<arp arpsrcipaddr='10.0.0.1'/>", action="return"), rule_xml(), name="f", chain="arp")
    found = spelled(compiled(chain))
    assert found["from"] == ["ether-type=0x806 jump arp"]
    assert found["from/arp"][1] == "drop"


# --- layer 3 ----------------------------------------------------------------------------------------------------------

OUT = "ether-type=0x800 ip-protocol=6 dst-port=22"
BACK = "ether-type=0x800 ip-protocol=6 src-port=22"
NEW = "ct-state=established,new ct-direction=original"
REPLY = "ct-state=established ct-direction=reply"
BRIDGED = "packet-type!=0"
SSH = "<tcp dstportstart='22'/>"


@pytest.mark.parametrize(
    ("action", "direction", "statematch", "sends", "gets"),
    [
        ("accept", "out", "true", f"{OUT} {NEW} accept", f"{BACK} {REPLY} accept"),
        ("accept", "in", "true", f"{BACK} {REPLY} accept", f"{OUT} {NEW} accept"),
        ("accept", "inout", "true", f"{BACK} accept", f"{OUT} accept"),
        ("accept", "inout", "false", f"{BACK} accept", f"{OUT} accept"),
        ("accept", "out", "false", f"{OUT} accept", f"{BACK} accept"),
        ("accept", "in", "false", f"{BACK} accept", f"{OUT} accept"),
        ("drop", "out", "true", f"{OUT} drop", f"{BACK} {BRIDGED} drop"),
        ("drop", "out", "false", f"{OUT} drop", f"{BACK} {BRIDGED} drop"),
        ("drop", "in", "true", f"{BACK} drop", f"{OUT} drop"),
        ("drop", "inout", "true", f"{BACK} drop", f"{OUT} drop"),
        ("reject", "out", "true", f"{OUT} reject", f"{BACK} {BRIDGED} drop"),
        ("reject", "in", "true", f"{BACK} reject", f"{OUT} drop"),
        ("reject", "inout", "false", f"{BACK} reject", f"{OUT} drop"),
        ("return", "out", "true", f"{OUT} accept", f"{BACK} accept"),
        ("return", "in", "true", f"{BACK} accept", f"{OUT} accept"),
        ("continue", "in", "true", f"{BACK} continue", f"{OUT} continue"),
    ],
)
def test_what_a_layer_3_rule_becomes(action: str, direction: str, statematch: str, sends: str, gets: str) -> None:
    """
    An accept makes a stateful pair; `inout`, statematch=false, and every other action are stateless, both ways. What a
    one-way drop or reject means for the other way is for bridged packets only.
    """
    assert trees(SSH, action, direction, statematch=statematch) == {"from-l3": [sends], "to-l3": [gets]}


@pytest.mark.parametrize("action", ["accept", "drop", "return"])
@pytest.mark.parametrize(
    ("direction", "expected"),
    [
        ("out", {"from-l3": f"{OUT} ct-state=new,related"}),
        ("in", {"to-l3": f"{OUT} ct-state=new,related"}),
        ("inout", {"from-l3": f"{BACK} ct-state=new,related", "to-l3": f"{OUT} ct-state=new,related"}),
    ],
)
def test_state_makes_a_rule_one_directional(action: str, direction: str, expected: dict[str, str]) -> None:
    """With `state` a rule holds in its own direction only, under those states, whatever its action."""
    protocol = SSH.replace("/>", " state='NEW,RELATED'/>")
    verdict = {"return": "accept"}.get(action, action)  # from the root
    assert trees(protocol, action, direction) == {tree: [f"{rule} {verdict}"] for tree, rule in expected.items()}


def test_state_none_is_stateless_and_one_directional() -> None:
    """state='NONE' asks for no state, in one direction."""
    assert trees("<tcp dstportstart='22' state='NONE'/>", "accept") == {"from-l3": [f"{OUT} accept"]}


def test_statematch_false_ignores_state() -> None:
    """With statematch='false' the states mean nothing, and the rule goes both ways."""
    protocol = "<tcp dstportstart='22' state='NEW'/>"
    assert trees(protocol, "accept", statematch="false") == {"from-l3": [f"{OUT} accept"], "to-l3": [f"{BACK} accept"]}


@pytest.mark.parametrize(
    ("protocol", "action", "direction", "others", "expected"),
    [
        ("<icmp type='8'/>", "accept", "out", {}, {"from-l3": "icmp-type=8 ct-state=established,new accept"}),
        ("<icmp type='8'/>", "accept", "in", {}, {"to-l3": "icmp-type=8 ct-state=established,new accept"}),
        ("<icmp type='8'/>", "drop", "out", {}, {"from-l3": "icmp-type=8 drop"}),
        ("<icmp type='8' state='NEW'/>", "accept", "out", {}, {"from-l3": "icmp-type=8 ct-state=new accept"}),
        ("<icmp type='8'/>", "accept", "out", {"statematch": "0"}, {"from-l3": "icmp-type=8 accept"}),
        ("<icmp type='8'/>", "reject", "in", {}, {"to-l3": "icmp-type=8 drop"}),
    ],
)
def test_a_typed_icmp_rule_has_one_direction(
    protocol: str, action: str, direction: str, others: dict[str, str], expected: dict[str, str]
) -> None:
    """With a type there is no way back; an accept is for packets that begin something or belong to it."""
    assert trees(protocol, action, direction, **others) == {
        tree: [f"ether-type=0x800 ip-protocol=1 {rule}"] for tree, rule in expected.items()
    }


def test_icmp_without_a_type_is_a_pair() -> None:
    """Without a type icmp is like any other protocol."""
    assert trees("<icmp/>", "accept") == {
        "from-l3": [f"ether-type=0x800 ip-protocol=1 {NEW} accept"],
        "to-l3": [f"ether-type=0x800 ip-protocol=1 {REPLY} accept"],
    }


TRACKED = "ct-state=established,new,related"


@pytest.mark.parametrize(
    ("direction", "expected"),
    [
        ("out", {"from-l3": f"{OUT} {TRACKED} count(ip-src)>3"}),
        ("in", {"to-l3": f"{OUT} {TRACKED} count(ip-src)>3"}),
        ("inout", {"to-l3": f"{OUT} {TRACKED} count(ip-src)>3"}),
    ],
)
@pytest.mark.parametrize("action", ["accept", "drop"])
def test_connections_are_counted_as_written(direction: str, expected: dict[str, str], action: str) -> None:
    """A limit holds where the packet travels as the rule is written, in any state, and makes no way back."""
    protocol = "<tcp dstportstart='22' connlimit-above='3'/>"
    verdict = {"return": "accept"}.get(action, action)  # from the root
    assert trees(protocol, action, direction) == {tree: [f"{rule} {verdict}"] for tree, rule in expected.items()}


def test_a_limit_with_states() -> None:
    """A drop keeps its states beside a limit, and counts what passes them; an accept loses them."""
    protocol = "<tcp connlimit-above='3' state='NEW'/>"
    assert trees(protocol, "drop") == {"from-l3": ["ether-type=0x800 ip-protocol=6 ct-state=new count(ip-src)>3 drop"]}
    accept = f"ether-type=0x800 ip-protocol=6 {TRACKED} count(ip-src)>3 accept"
    assert trees(protocol, "accept") == {"from-l3": [accept]}


@pytest.mark.parametrize(
    ("protocol", "expected"),
    [
        ("<all connlimit-above='1'/>", [f"{TRACKED} count(ip-src)>1"]),
        ("<all connlimit-above='0'/>", [f"{TRACKED} count(ip-src)>0", "ct-state=invalid,untracked"]),
        ("<all match='no' connlimit-above='1'/>", [f"{TRACKED} count(ip-src)<=1", "ct-state=invalid,untracked"]),
        ("<all match='no' connlimit-above='0'/>", [f"{TRACKED} count(ip-src)<=0"]),
        ("<all connlimit-above='0' state='NEW,INVALID'/>", ["ct-state=new count(ip-src)>0", "ct-state=invalid"]),
        ("<all connlimit-above='1' state='INVALID'/>", []),
    ],
)
def test_what_belongs_to_no_connection_counts_as_one(protocol: str, expected: list[str]) -> None:
    """The kernel can't count it, and would drop it: it never comes to the count."""
    found = trees(protocol).get("from-l3", [])
    assert found == [f"ether-type=0x800 {conditions} drop" for conditions in expected]


def test_every_limit_counts_for_itself() -> None:
    """Each rule with a limit has a counter of its own."""
    rules = [rule_xml("<tcp connlimit-above='3'/>") for _ in range(3)]
    assert len({named.name for named in compiled(filter_xml(*rules)).sets}) == 3


@pytest.mark.parametrize(
    ("protocol", "direction", "sends", "gets"),
    [
        # as written in the guest's direction, without the MAC in the other
        ("<all srcmacaddr='1:1:1:1:1:1' srcipaddr='10.0.0.1'/>", "out", "M E ip-src=10.0.0.1", "E ip-dst=10.0.0.1 B"),
        ("<all srcmacaddr='1:1:1:1:1:1' srcipaddr='10.0.0.1'/>", "in", "E ip-dst=10.0.0.1", "M E ip-src=10.0.0.1"),
        ("<all srcmacaddr='1:1:1:1:1:1' srcipaddr='10.0.0.1'/>", "inout", "E ip-dst=10.0.0.1", "M E ip-src=10.0.0.1"),
        # the MAC alone: no rule where it can't be compared
        ("<all srcmacaddr='1:1:1:1:1:1'/>", "out", "M E", None),
        ("<all srcmacaddr='1:1:1:1:1:1'/>", "in", None, "M E"),
        ("<all srcmacaddr='1:1:1:1:1:1'/>", "inout", None, "M E"),
        ("<tcp srcmacaddr='1:1:1:1:1:1'/>", "out", "M E ip-protocol=6", None),
        # an address is a condition even if every packet has it; tests/conformance asks libvirt
        ("<all srcmacaddr='1:1:1:1:1:1' srcipaddr='10.0.0.1' srcipmask='0'/>", "out", "M E", "E B"),
        # comment and set don't count as conditions
        ("<all srcmacaddr='1:1:1:1:1:1' comment='x' ipset='y'/>", "out", "M E ip-src=@ipset:y", None),
    ],
)
def test_macs_at_layer_3(protocol: str, direction: str, sends: str | None, gets: str | None) -> None:
    """A MAC is compared where the packet travels as written; elsewhere it is left out, and alone makes no rule."""

    def expected(text: str) -> list[str]:
        text = text.replace("B", BRIDGED)
        return [text.replace("M", "ether-src=01:01:01:01:01:01").replace("E", "ether-type=0x800") + " drop"]

    found = trees(protocol, "drop", direction)
    assert found == {tree: expected(text) for tree, text in (("from-l3", sends), ("to-l3", gets)) if text}


def test_the_order_of_layer_3() -> None:
    """Rules of root filters come first, then those of all others, each by priority; chains don't place them."""
    filters = [
        including("a", own=(rule_xml("<udp/>", priority=1000), rule_xml("<tcp/>", priority=-5))),
        filter_xml(rule_xml("<esp/>", priority=-1000), rule_xml("<ah/>", priority=-999), name="a", chain="ipv4"),
    ]
    found = spelled(compiled(*filters))
    assert [rule.split()[1] for rule in found["from-l3"]] == [f"ip-protocol={number}" for number in (6, 17, 50, 51)]
    assert set(found) == {"from-l3", "to-l3"}


def test_the_example_of_the_original_document() -> None:
    """`test-eth0`: ssh and http may be reached, the guest may ping, nothing else of IPv4 passes; IPv6 is untouched."""
    rules = (
        rule_xml("<tcp dstportstart='22'/>", action="accept", direction="in"),
        rule_xml("<tcp dstportstart='80'/>", action="accept", direction="in"),
        rule_xml("<icmp/>", action="accept", direction="out"),
        rule_xml("<all/>", action="drop", direction="inout"),
    )
    tcp, icmp = "ether-type=0x800 ip-protocol=6", "ether-type=0x800 ip-protocol=1"
    assert spelled(compiled(filter_xml(*rules))) == {
        "from-l3": [
            f"{tcp} src-port=22 {REPLY} accept",
            f"{tcp} src-port=80 {REPLY} accept",
            f"{icmp} {NEW} accept",
            "ether-type=0x800 drop",
        ],
        "to-l3": [
            f"{tcp} dst-port=22 {NEW} accept",
            f"{tcp} dst-port=80 {NEW} accept",
            f"{icmp} {REPLY} accept",
            "ether-type=0x800 drop",
        ],
    }


def test_a_list_makes_rules_side_by_side() -> None:
    """A list variable becomes rules in the list's order, where its rule stands."""
    addresses: Values = ("10.0.0.1", "10.0.0.2")
    rules = (rule_xml("<ip srcipaddr='$IP'/>"), rule_xml(mark(1)))
    found = spelled(compiled(filter_xml(*rules), parameters={"IP": addresses}))["from"]
    assert found == [
        "ether-type=0x800 ip-src=10.0.0.1 drop",
        "ether-type=0x800 ip-src=10.0.0.2 drop",
        "ether-type=0x9001 drop",
    ]


def test_a_negated_list_drops_everything() -> None:
    """`drop if not one of a list` is one drop per value, as in libvirt: nothing passes. People's filters know it."""
    found = spelled(
        compiled(filter_xml(rule_xml("<ip match='no' srcipaddr='$IP'/>")), parameters={"IP": ("1.1.1.1", "2.2.2.2")})
    )
    assert found["from"] == ["ether-type=0x800 ip-src!=1.1.1.1 drop", "ether-type=0x800 ip-src!=2.2.2.2 drop"]


def test_a_long_list_makes_a_rule_for_each_value() -> None:
    """Four thousand addresses, both ways."""

    addresses = tuple(f"10.0.{number // 256}.{number % 256}" for number in range(4000))
    ruleset = compiled_rule("<ip srcipaddr='$IP'/>", action="return", direction="inout", parameters={"IP": addresses})
    assert [len(chain.rules) for chain in ruleset.chains] == [4000, 4000]


# --- learning ---------------------------------------------------------------------------------------------------------


def test_learning_comes_before_everything_else() -> None:
    """The rules that learn are the first of what the guest sends, before any that could let a forged frame through."""
    filters = [
        including("a", own=(rule_xml(priority=-1000, action="accept"),)),
        unruly(rule_xml("<arp arpsrcipaddr='$IP'/>", action="return"), name="a", chain="arp-ip"),
    ]
    found = spelled(compiled(*filters))["from"]
    assert ["learn" in rule for rule in found] == [True, True, False, False]
    assert all(rule.startswith("ether-src=52:54:00:00:00:01 ") for rule in found[:2])


@pytest.mark.parametrize("protocol", ["<ip dstipaddr='$IP'/>", "<tcp dstipaddr='$IP'/>"])
def test_learning_for_what_the_guest_gets(protocol: str) -> None:
    """A filter that looks at received frames only still learns from what the guest sends."""
    found = trees(protocol, "accept", "in", statematch="0")
    assert [rule.split()[-2:] for rule in found["from"]] == [
        ["learn", "ip-src->learned"],
        ["learn", "arp-src-ip->learned"],
    ]


def test_learning_under_several_masks() -> None:
    """One frame teaches every set that the rules look up: the address itself, and the address under each mask."""
    rules = (rule_xml("<ip srcipaddr='$IP'/>"), rule_xml("<ip srcipaddr='$IP' srcipmask='24'/>"))
    ruleset = compiled(filter_xml(*rules))
    assert [named.mask for named in ruleset.sets] == [None, 0xFFFFFF00]
    assert len(ruleset.chains[0].rules[0].stores) == 2


def test_a_guest_that_gave_its_address_is_not_learned() -> None:
    """With IP given there is nothing to learn and no set."""
    ruleset = compiled_rule("<ip srcipaddr='$IP'/>", parameters={"IP": "10.0.0.1"})
    assert ruleset.sets == ()
    assert spelled(ruleset) == {"from": ["ether-type=0x800 ip-src=10.0.0.1 drop"]}


# --- attachments ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attachment", "what"), [(Attachment.MACVTAP, "a macvtap device"), (Attachment.DEVICE, "not a bridge port")]
)
def test_layer_3_off_the_bridge(attachment: Attachment, what: str) -> None:
    """Layer 3 is refused where there is no bridge port, with line, tap, reason and what would do."""
    with pytest.raises(UnsupportedMatch) as caught:
        compiled_rule("<tcp/>", attachment=attachment)
    assert str(caught.value) == (
        f"f.xml:2: <tcp> can't be enforced on vnet0, which is {what}; only mac, vlan, stp, arp, rarp, ip, ipv6 can: "
        "<ip protocol='tcp'> asks for the same packets, without connection state"
    )
    assert spelled(compiled_rule("<ip/>", attachment=attachment)) == {"from": ["ether-type=0x800 drop"]}


def test_equal_inputs_give_equal_rulesets() -> None:
    """What is compiled twice is equal, value for value."""
    texts = (including("a", own=(rule_xml("<tcp/>"),)), unruly(name="a", chain="mac"))
    assert compiled(*texts) == compiled(*texts)
