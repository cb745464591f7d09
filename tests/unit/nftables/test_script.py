"""The nft transaction: names, order, what it makes, what it removes, and which line stems from which XML."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

from nwfilter_hook.backend import Installed, Object, subtract
from nwfilter_hook.base.errors import Source
from nwfilter_hook.nftables.names import chain_name
from nwfilter_hook.nftables.script import install, remove
from nwfilter_hook.nftables.sets import declaration, set_name
from nwfilter_hook.operations.compile import quarantine
from nwfilter_hook.ruleset.fields import ValueType
from nwfilter_hook.ruleset.model import Attachment, NamedSet, Ruleset, SetPurpose, Stage
from tests.unit.checking import complaints
from tests.unit.compiling import compiled, compiled_rule, filter_xml, installed_by, rule_xml, transaction

HERE = Source("f.xml", 7)
TRACKED = "ct state new,established,related"
TH = "@th,0,24 >= 0x0"  # there is a transport header: a later fragment has none


def lines(*rulesets: Ruleset, stale: Sequence[Installed] = (), counters: str = "none") -> list[str]:
    """The transaction that installs `rulesets`."""
    return transaction(*rulesets, stale=stale, counters=counters).text.splitlines()


def statements(ruleset: Ruleset, chain: str, *, counters: str = "none") -> list[str]:
    """What a chain's rules are in nft."""
    prefix = f"add rule {ruleset.attachment.family} nwfilter {chain} "
    return [line.removeprefix(prefix) for line in lines(ruleset, counters=counters) if line.startswith(prefix)]


def rule(protocol: str, *, chain: str = "from/vnet0", action: str = "drop", direction: str = "out") -> list[str]:
    """What one XML rule is in nft, without its comment."""
    ruleset = compiled_rule(protocol, action=action, direction=direction)
    return [statement.rpartition(" comment ")[0] for statement in statements(ruleset, chain)]


# --- one rule ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("protocol", "statement"),
    [
        ("", "drop"),
        ("<mac srcmacaddr='1:2:3:4:5:6'/>", "ether saddr 01:02:03:04:05:06 drop"),
        (
            "<mac match='no' dstmacaddr='1:2:3:4:5:6' dstmacmask='ff:ff:0:0:0:0'/>",
            "ether daddr & ff:ff:00:00:00:00 != 01:02:00:00:00:00 drop",
        ),
        ("<mac protocolid='0x88cc'/>", "ether type 0x88cc drop"),
        ("<mac match='no' protocolid='ipv6'/>", "ether type != ip6 drop"),
        ("<vlan vlanid='5' encap-protocol='arp'/>", "ether type vlan vlan id 5 vlan type 0x0806 drop"),
        ("<arp opcode='1'/>", "ether type arp arp operation 1 drop"),
        (
            "<arp arpsrcipaddr='10.1.2.3' arpsrcipmask='8'/>",
            "ether type arp arp ptype 0x0800 arp hlen 6 arp plen 4 arp saddr ip & 255.0.0.0 == 10.0.0.0 drop",
        ),
        ("<rarp opcode='3'/>", "ether type 0x8035 @nh,48,16 0x3 drop"),
        ("<rarp match='no' opcode='3'/>", "ether type 0x8035 @nh,48,16 != 0x3 drop"),
        ("<stp type='0'/>", "ether daddr 01:80:c2:00:00:00 @ll,112,48 0x424203000000 @ll,160,8 0x0 drop"),
        ("<ip srcipaddr='10.0.0.1' dscp='46'/>", "ether type ip ip saddr 10.0.0.1 ip dscp 46 drop"),
        (
            "<ip protocol='udp' dstportstart='67' dstportend='68'/>",
            f"ether type ip ip protocol 17 {TH} udp dport >= 67 udp dport <= 68 drop",
        ),
        ("<ip protocol='33' dstportstart='7'/>", f"ether type ip ip protocol 33 {TH} dccp dport 7 drop"),
        (
            "<ipv6 dstipaddr='ff00::' dstipmask='8'/>",
            "ether type ip6 ip6 daddr & ff00:: == ff00:: drop",
        ),
        ("<ipv6 protocol='tcp' srcportstart='7'/>", f"ether type ip6 meta l4proto 6 {TH} tcp sport 7 drop"),
        (
            "<ipv6 type='133' typeend='137'/>",
            f"ether type ip6 meta l4proto 58 {TH} icmpv6 type >= 133 icmpv6 type <= 137 drop",
        ),
    ],
)
def test_a_rule_of_layer_2(protocol: str, statement: str) -> None:
    """A rule's conditions are nft's own words where it has some, else offsets into the header."""
    assert rule(protocol) == [statement]


@pytest.mark.parametrize(
    ("protocol", "statement"),
    [
        ("<tcp flags='SYN,ACK/SYN'/>", f"ether type ip ip protocol 6 {TH} tcp flags & 0x12 == 0x2 drop"),
        ("<tcp option='5'/>", f"ether type ip ip protocol 6 {TH} tcp option 5 exists drop"),
        ("<tcp match='no' option='5'/>", f"ether type ip ip protocol 6 {TH} tcp option 5 missing drop"),
        ("<sctp srcportstart='7'/>", f"ether type ip ip protocol 132 {TH} sctp sport 7 drop"),
        ("<icmp type='3' code='4'/>", f"ether type ip ip protocol 1 {TH} icmp type 3 icmp code 4 drop"),
        (
            "<all srcipfrom='10.0.0.1' srcipto='10.0.0.9'/>",
            "ether type ip ip saddr >= 10.0.0.1 ip saddr <= 10.0.0.9 drop",
        ),
        ("<all-ipv6 match='no' dscp='1'/>", "ether type ip6 ip6 dscp != 1 drop"),
        ("<all state='NEW,INVALID'/>", "ether type ip ct state new,invalid drop"),
        ("<all ipset='x' ipsetflags='dst,src'/>", "ether type ip ip daddr . ip saddr @ipset/x/2 drop"),
        (
            "<tcp connlimit-above='3'/>",
            f"ether type ip ip protocol 6 {TRACKED} add @connlimit/vnet0/0 {{ ip saddr ct count over 3 }} drop",
        ),
        (
            "<tcp match='no' connlimit-above='3'/><tcp state='NEW'/>",
            "ether type ip ip protocol 6 ct state new add @connlimit/vnet0/0 { ip saddr ct count 3 } drop",
        ),
    ],
)
def test_a_rule_of_layer_3(protocol: str, statement: str) -> None:
    """Layer 3 rules begin with the frame's type, so that none matches inside a VLAN tag."""
    assert rule(protocol, chain="from-l3/vnet0")[0] == statement


def test_what_a_full_set_cannot_count() -> None:
    """The address isn't in the set though a rule before has put it there."""
    counted, uncounted = rule("<tcp connlimit-above='3'/>", chain="from-l3/vnet0")
    head = "ether type ip ip protocol 6 ct state new,established,related"
    assert counted == f"{head} add @connlimit/vnet0/0 {{ ip saddr ct count over 3 }} drop"
    assert uncounted == f"{head} ip saddr != @connlimit/vnet0/0 drop"


def test_a_stateful_pair() -> None:
    """An accept is a pair: what begins a connection one way, what belongs to it the other; and what has no state."""
    found = compiled_rule("<udp/>", action="accept")
    head = "ether type ip ip protocol 17"
    untracked = f'ct state untracked {head} accept comment "f:2"'
    there = f'{head} ct state new,established ct direction original accept comment "f:2"'
    back = f'{head} ct state established ct direction reply accept comment "f:2"'
    assert statements(found, "from-l3/vnet0") == [there, untracked]
    assert statements(found, "to-l3/vnet0") == [back, untracked]


def test_gratuitous_arp() -> None:
    """nft can't compare two fields: their octets are looked up in a set of equal pairs; to differ, one pair must."""
    pair = "@nh,{},8 . @nh,{},8"
    octets = [(112 + bit, 192 + bit) for bit in (0, 8, 16, 24)]
    head = "ether type arp arp ptype 0x0800 arp hlen 6 arp plen 4"
    same = " ".join(f"{pair.format(*each)} @equal-octets" for each in octets)
    assert rule("<arp gratuitous='1'/>") == [f"{head} {same} drop"]
    differ = [f"{head} {pair.format(*each)} != @equal-octets drop" for each in octets]
    assert rule("<arp match='no' gratuitous='1'/>") == differ


@pytest.mark.parametrize(
    ("counters", "counted"),
    [
        ("none", set()),
        ("drops", {"drop", "reject"}),
        ("all", {"drop", "reject", "accept", "return", "continue", "jump"}),
    ],
)
def test_counters(counters: str, counted: set[str]) -> None:
    """The configuration says which rules count: none, those that let nothing through, all."""
    actions = ("drop", "reject", "accept", "return", "continue")
    rules = [rule_xml("<all/>", action=action, statematch="0") for action in actions]
    rules.append("<filterref filter='c'/>")
    chain = filter_xml(rule_xml("<arp opcode='1'/>", action="return"), name="c", chain="arp")
    ruleset = compiled(filter_xml(*rules), chain)
    found = {
        words[-3].replace("from/vnet0/arp", "jump")
        for name in ("from-l3/vnet0", "from/vnet0", "from/vnet0/arp")
        for words in (statement.split() for statement in statements(ruleset, name, counters=counters))
        if "counter" in words
    }
    assert found == counted


def test_a_rule_says_where_it_comes_from() -> None:
    """Each rule carries filter and line as a comment, short enough for the kernel whatever the names."""
    name = "n" * 100
    ruleset = compiled(filter_xml(*[""] * 9_000, rule_xml(), name=name))
    (found,) = statements(ruleset, "from/vnet0")
    assert found == f'drop comment "{name}:9002"'
    assert len(found.split('"')[1]) <= 128


def test_a_line_of_the_script_knows_its_xml() -> None:
    """For each rule of the script its filter and line are known, and for nothing else."""
    made = transaction(compiled(filter_xml("", rule_xml("<arp/>"))))
    (known,) = (each for each in made.operations if each.origin)
    assert known.text.startswith("add rule bridge nwfilter from/vnet0 ether type arp")
    assert known.origin == ("f", Source("f.xml", 3))


# --- the transaction --------------------------------------------------------------------------------------------------


def test_a_transaction_from_nothing() -> None:
    """Table, maps, base chains, then the tap's chains, their rules, at last the map elements that put them in force."""
    found = lines(compiled_rule("<arp/>", direction="inout"))
    kinds = [re.sub(r" bridge nwfilter.*", "", line) for line in found]
    assert kinds[0] == "add table"
    last = {kind: max(index for index, each in enumerate(kinds) if each == kind) for kind in set(kinds)}
    assert last["add map"] < last["add chain"] < last["add rule"] < last["add element"] == len(kinds) - 1
    assert found[-2:] == [
        'add element bridge nwfilter from-guest-l2 { "vnet0" : jump from/vnet0 }',
        'add element bridge nwfilter to-guest-l2 { "vnet0" : jump to/vnet0 }',
    ]


@pytest.mark.parametrize(
    ("name", "hook", "selector", "map_"),
    [
        ("l2-prerouting", "prerouting priority -300", "iifname", "from-guest-l2"),
        ("l3-prerouting", "prerouting priority -150", "iifname", "from-guest-l3"),
        ("l3-postrouting", "postrouting priority 0", "oifname", "to-guest-l3"),
        ("l2-postrouting", "postrouting priority 300", "oifname", "to-guest-l2"),
    ],
)
def test_the_base_chains(name: str, hook: str, selector: str, map_: str) -> None:
    """Four base chains look the interface's name up in a map: one look per packet, however many taps there are."""
    found = lines(compiled(filter_xml(rule_xml("<arp/>", direction="inout"), rule_xml("<all/>"))))
    start = found.index(f"add chain bridge nwfilter {name} {{ type filter hook {hook}; policy accept; }}")
    assert found[start + 1 : start + 3] == [
        f"flush chain bridge nwfilter {name}",
        f"add rule bridge nwfilter {name} {selector} vmap @{map_}",
    ]
    assert f"add map bridge nwfilter {map_} {{ type ifname : verdict; }}" in found


def test_what_is_filled_is_emptied_before() -> None:
    """Every chain is added and flushed before its rules: to run a script twice changes nothing."""
    found = lines(compiled(filter_xml(rule_xml(), rule_xml("<tcp/>"))))
    chains = {line.split()[4] for line in found if line.startswith("add rule ")}
    assert len(chains) >= 5
    for chain in chains:
        start = next(index for index, line in enumerate(found) if line.startswith(f"add chain bridge nwfilter {chain}"))
        assert found[start + 1] == f"flush chain bridge nwfilter {chain}"


def test_several_taps_in_one_transaction() -> None:
    """A guest's taps go into one script with one table and one set of base chains."""
    taps = [compiled(filter_xml(rule_xml("<arp/>")), tap=f"vnet{number}") for number in range(3)]
    found = lines(*taps)
    assert found.count("add table bridge nwfilter") == 1
    assert len([line for line in found if " type filter hook prerouting priority -300" in line]) == 1
    assert [line.split()[6] for line in found if line.startswith("add element")] == ['"vnet0"', '"vnet1"', '"vnet2"']


def test_no_taps_no_text() -> None:
    """Nothing to install and nothing stale is an empty script."""
    assert install([], fresh=True).text == ""
    assert remove([]).text == ""


# --- sets -------------------------------------------------------------------------------------------------------------


def test_sets() -> None:
    """Sets of a tap bear its name; learned ones hold one address; administrators' sets are everybody's."""
    rules = (
        rule_xml("<ip srcipaddr='$IP'/>"),
        rule_xml("<ip srcipaddr='$IP' srcipmask='24'/>"),
        rule_xml("<tcp-ipv6 connlimit-above='1'/>"),
        rule_xml("<all ipset='a b'/>"),
        rule_xml("<all-ipv6 ipset='c' ipsetflags='src,dst'/>"),
    )
    ruleset = compiled(filter_xml(*rules))
    made = [line.removeprefix("add set bridge nwfilter ") for line in lines(ruleset) if line.startswith("add set")]
    assert sorted(made) == [
        "claimed/vnet0 { typeof @nh,64,32; size 65535; flags dynamic,timeout; timeout 1s; }",
        "connlimit6/vnet0/0 { type ipv6_addr; size 65535; flags dynamic; }",
        "ipset/a/20b { type ipv4_addr; flags interval; }",
        "ipset6/c/2 { type ipv6_addr . ipv6_addr; flags interval; }",
        "learned/vnet0/vnet0 { typeof @nh,64,32; size 1; flags dynamic,timeout; }",
        "learned/vnet0/vnet0/ffffff00 { typeof @nh,64,32; size 1; flags dynamic,timeout; }",
        "reserved-by/vnet0 { typeof @nh,64,32 . @nh,64,32 . iifname; }",
        "reserved-nets/vnet0 { typeof @nh,64,32; flags interval; }",
        "reserved/vnet0 { typeof @nh,64,32; }",
        "seen/vnet0 { typeof @nh,64,32; size 65535; flags dynamic,timeout; timeout 60s; }",
        "taken/vnet0 { typeof @nh,64,32; size 65535; flags dynamic,timeout; }",
    ]
    flushed = {line.split()[-1] for line in lines(ruleset) if line.startswith("flush set")}
    purposes = ("seen", "taken", "claimed", "reserved", "reserved-nets", "reserved-by")
    of_segment = {f"{purpose}/vnet0" for purpose in purposes}
    learned = {"learned/vnet0/vnet0", "learned/vnet0/vnet0/ffffff00", *of_segment}
    assert flushed == {"connlimit6/vnet0/0", *learned}
    assert not any("ipset" in name for name in installed_by(ruleset).names("set"))


def test_different_sets_have_different_names() -> None:
    """Whatever their names hold, two sets never get one name in nft, nor do two chains."""
    names = ["a", "a b", "a+b", "a:b", "a.b", "a-b", "ab", "20", "a20b"]
    sets = [NamedSet(SetPurpose.IPSET, name, ValueType.IPV4, dimensions=size) for name in names for size in (1, 2, 6)]
    assert len({set_name("t", each) for each in sets}) == len(sets)
    chains = ["arp", "arp:x", "arp.x", "arp-x", "arp_x", "arp3ax"]
    assert len({chain_name("t", Stage.FROM_L2, name) for name in chains}) == len(chains)


# --- hostile names ----------------------------------------------------------------------------------------------------

TAPS = ["0net", "mac", "ip", "arp", "drop", "jump", "a.b", "tap-web", "tap-web-2", "-x", "x" * 15, "...", "_", "007"]


@pytest.mark.netns
def test_nft_takes_every_tap_name() -> None:
    """Names that are keywords or numbers, or begin with a dash or a digit, are only names to nft."""
    text = filter_xml(
        rule_xml("<ip srcipaddr='$IP'/>", action="return"),
        rule_xml("<tcp/>", direction="inout"),
        "<filterref filter='c'/>",
    )
    chain = filter_xml(rule_xml("<arp opcode='1'/>", action="return"), name="c", chain="arp-a.b:c_d")
    assert complaints("\n".join(lines(*(compiled(text, chain, tap=tap) for tap in TAPS))) + "\n") == []


@pytest.mark.netns
@pytest.mark.parametrize("name", ["drop", "0day", "x.y:z+1@h", "n" * 100])
def test_nft_takes_every_filter_name(name: str) -> None:
    """What a filter may be called can stand in an nft comment."""
    assert complaints("\n".join(lines(compiled(filter_xml(rule_xml(), name=name)))) + "\n") == []


def test_no_two_taps_share_a_chain() -> None:
    """tap-web's chains are not those of tap-web-2, nor of a tap that is called like one of its chains."""
    text = filter_xml(
        rule_xml("<tcp/>", direction="inout"), rule_xml("<arp opcode='1'/>", action="return"), chain="arp"
    )
    found = [installed_by(compiled(text, tap=tap)) for tap in ("tap-web", "tap-web-2", "tap-web.arp", "tap")]
    chains = [name for each in found for name in each.names("chain")]
    assert len(set(chains)) == len(chains)


# --- removal ----------------------------------------------------------------------------------------------------------

OLD = Installed(
    "vnet0",
    (
        Object("set", "bridge", "learned/vnet0/br0", declaration("learned/vnet0/br0")),
        *(Object("chain", "bridge", name) for name in ("from/vnet0", "from/vnet0/arp", "to-l3/vnet0")),
        Object("element", "bridge", "from-guest-l2", '"vnet0"', ("jump from/vnet0",)),
        Object("element", "bridge", "to-guest-l3", '"vnet0"', ("jump to-l3/vnet0",)),
    ),
)


def test_removal_takes_everything_away() -> None:
    """Map elements go first, then chains, then sets; each is added before, so that what isn't there is no error."""
    found = remove([OLD]).text.splitlines()
    assert [line for line in found if line.startswith("delete")] == [
        'delete element bridge nwfilter from-guest-l2 { "vnet0" }',
        'delete element bridge nwfilter to-guest-l3 { "vnet0" }',
        "delete chain bridge nwfilter from/vnet0",
        "delete chain bridge nwfilter from/vnet0/arp",
        "delete chain bridge nwfilter to-l3/vnet0",
        "delete set bridge nwfilter learned/vnet0/br0",
    ]
    for index, line in enumerate(found):
        if line.startswith("delete"):
            what = " ".join(line.split()[1:5])
            assert any(other.startswith(f"add {what}") for other in found[:index])


@pytest.mark.netns
def test_removal_of_what_is_not_there() -> None:
    """nft takes a removal where nothing of it is there."""
    chains = [Object("chain", "netdev", name) for name in ("from/vnet1", "from/vnet1/arp", "to/vnet1")]
    learned = Object("set", "netdev", "learned/vnet1", declaration("learned/vnet1"))
    netdev = Installed("vnet1", (*chains, learned))
    assert complaints(remove([OLD, netdev, OLD]).text) == []


def test_what_is_stale_goes_in_the_same_transaction() -> None:
    """What an earlier transaction left and this one doesn't refill is removed by it; what it refills is not."""
    ruleset = compiled_rule("<arp/>")
    found = lines(ruleset, stale=[OLD])
    deleted = [line.split()[-1] for line in found if line.startswith("delete chain")]
    assert deleted == ["from/vnet0/arp", "to-l3/vnet0"]
    assert 'delete element bridge nwfilter to-guest-l3 { "vnet0" }' in found
    assert not any("delete element bridge nwfilter from-guest-l2" in line for line in found)
    (rest,) = subtract([OLD], [installed_by(ruleset)])
    assert rest.names("set", "chain") == ("learned/vnet0/br0", "from/vnet0/arp", "to-l3/vnet0")
    assert subtract([OLD, OLD], []) == (OLD,)


def test_what_is_recorded_is_put_back() -> None:
    """The same chains, rules, elements and sets as when it was made, but nothing that was learned is forgotten."""
    rules = (rule_xml("<ip srcipaddr='$IP'/>"), rule_xml("<tcp connlimit-above='1'/>"), rule_xml("<all ipset='a'/>"))
    ruleset = compiled(filter_xml(*rules))
    returning = install([], [installed_by(ruleset)], fresh=True).text.splitlines()
    forget = ("flush set", "flush map")
    assert [line for line in returning if line.startswith(forget)] == ["flush set bridge nwfilter seen/vnet0"]
    assert [each for each in returning if not each.startswith(forget)] == [
        each for each in lines(ruleset) if not each.startswith(forget)
    ]


@pytest.mark.netns
def test_from_one_filter_to_another() -> None:
    """Each ruleset can replace each other: nft takes the new one with all of the old one stale."""
    texts = [
        filter_xml(rule_xml("<ip srcipaddr='$IP'/>", direction="inout")),
        filter_xml(rule_xml("<arp gratuitous='1'/>"), rule_xml("<arp opcode='1'/>", action="return"), chain="arp"),
        filter_xml(rule_xml("<all/>")),
        filter_xml(rule_xml("<all connlimit-above='2' ipset='x'/>")),
        filter_xml(),
    ]
    rulesets = [compiled(text) for text in texts]
    for old in rulesets:
        for new in rulesets:
            assert complaints("\n".join([*lines(old), *lines(new, stale=[installed_by(old)]), ""])) == []


# --- devices ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attachment", "sends", "gets"),
    [(Attachment.DEVICE, "ingress", "egress"), (Attachment.MACVTAP, "egress", "ingress")],
)
def test_devices_off_the_bridge(attachment: Attachment, sends: str, gets: str) -> None:
    """On a device the chains hang on it themselves: what a guest sends comes in by a tap, goes out by a macvtap."""
    text = filter_xml(rule_xml("<arp opcode='1'/>", action="return", direction="inout"), chain="arp")
    found = lines(compiled(text, attachment=attachment))
    hook = 'add chain netdev nwfilter {}/vnet0 {{ type filter hook {} device "vnet0" priority -300; policy accept; }}'
    assert hook.format("from", sends) in found
    assert hook.format("to", gets) in found
    assert "add chain netdev nwfilter from/vnet0/arp" in found
    assert 'add rule netdev nwfilter from/vnet0 ether type arp jump from/vnet0/arp comment "f:2"' in found
    assert not any("bridge" in line or "add map" in line or "add element" in line for line in found)


@pytest.mark.netns
@pytest.mark.parametrize("attachment", [Attachment.DEVICE, Attachment.MACVTAP])
def test_nft_takes_chains_of_devices(attachment: Attachment) -> None:
    """Every element of layer 2, a learned address and gratuitous ARP are taken on a device too."""
    elements = (
        "mac",
        "vlan vlanid='5'",
        "stp age='1'",
        "arp gratuitous='1'",
        "rarp opcode='3'",
        "ip dscp='1'",
        "ipv6 type='1'",
    )
    rules = [rule_xml(f"<{element}/>", direction="inout") for element in elements]
    rules.append(rule_xml("<ip srcipaddr='$IP'/>", direction="inout"))
    ruleset = compiled(filter_xml(*rules), attachment=attachment)
    assert complaints("\n".join(lines(ruleset)) + "\n", devices=["vnet0"]) == []


# --- quarantine -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attachment", Attachment)
def test_quarantine(attachment: Attachment) -> None:
    """A tap in quarantine has one rule for each way, without conditions, and needs no feature of the kernel."""
    ruleset = quarantine("vnet0", attachment, HERE)
    assert [statements(ruleset, chain) for chain in ("from/vnet0", "to/vnet0")] == [['drop comment "quarantine:7"']] * 2
    assert ruleset.sets == ()


@pytest.mark.netns
def test_a_learned_address_in_rarp() -> None:
    """A learned address can be compared in RARP frames too, whose fields nft knows by offset only."""
    rules = [
        rule_xml(f"<rarp {sign} {side}='$IP'/>")
        for sign in ("", "match='no'")
        for side in ("arpsrcipaddr", "arpdstipaddr")
    ]
    assert complaints("\n".join(lines(compiled(filter_xml(*rules)))) + "\n") == []
