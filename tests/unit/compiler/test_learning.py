"""What is learned, from whom, and what waits for it: the parameters, the rules, the names of the sets."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from nwfilter_hook.base.addresses import link_local, parse_mac
from nwfilter_hook.base.errors import BadValue, UnboundVariable
from nwfilter_hook.compiler.compile import compile_tap
from nwfilter_hook.filters.learning import FIXED, Learning, read_learning
from nwfilter_hook.filters.model import Prefix
from nwfilter_hook.filters.resolve import resolve
from nwfilter_hook.nftables.script import remove
from nwfilter_hook.nftables.sets import declaration, kind_of, names_of, parse_learned, set_name
from nwfilter_hook.ruleset.fields import Field, ValueType
from nwfilter_hook.ruleset.model import Attachment, Masked, NamedSet, Ruleset, SetPurpose, Stage, Verdict
from nwfilter_hook.storage.library import Library
from tests.unit.compiling import (
    MAC,
    TAP,
    Values,
    filter_xml,
    installed_by,
    lines_of,
    reader,
    reference_to,
    rule_xml,
    spell,
    spell_match,
    transaction,
)

STOCK = Library([str(Path(__file__).parents[3] / "filters")])
DHCP = {"CTRL_IP_LEARNING": "dhcp"}
IPV6 = {"CTRL_IPV6_LEARNING": "any"}
STRICT = filter_xml(rule_xml("<ip srcipaddr='$IP'/>", action="accept"), rule_xml(action="drop", priority=900))


def ruleset(
    *filters: str, parameters: Mapping[str, Values] | None = None, attachment: Attachment = Attachment.BRIDGE_PORT
) -> Ruleset:
    """The first of `filters` compiled as the hook does it; without any, clean-traffic-dual."""
    name = filters[0].split("name='")[1].split("'")[0] if filters else "clean-traffic-dual"
    reference = reference_to(name, parameters)
    rules = resolve(reference, MAC, reader(*filters) if filters else STOCK.read)
    return compile_tap(TAP, attachment, parse_mac(MAC), rules, read_learning(reference), ingress=False)


# --- parameters -------------------------------------------------------------------------------------------------------


def test_defaults() -> None:
    """One IPv4 address from what the guest sends first; no IPv6 address."""
    assert read_learning(reference_to("f")) == Learning("any", 1, (), False, 8)


def test_everything_given() -> None:
    """Each parameter, in any case; servers in their order, each once."""
    parameters = {
        "CTRL_IP_LEARNING": "DHCP",
        "CTRL_IP_LEARNING_MAX": "2",
        "CTRL_IPV6_LEARNING": "Any",
        "CTRL_IPV6_LEARNING_MAX": "16",
        "DHCPSERVER": ("10.0.0.1", "10.0.0.2", "10.0.0.1"),
    }
    assert read_learning(reference_to("f", parameters)) == Learning("dhcp", 2, (0x0A000001, 0x0A000002), True, 16)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("CTRL_IP_LEARNING", "dchp", "'dchp' is not one of any dhcp none; did you mean 'dhcp'\\?"),
        ("CTRL_IPV6_LEARNING", "dhcp", "'dhcp' is not one of any none"),
        ("CTRL_IPV6_LINK_LOCAL", "yes", "'yes' is not one of mac any"),
        ("CTRL_IP_LEARNING_MAX", "0", "'0' is not a number from 1 to 256"),
        ("CTRL_IP_LEARNING_MAX", "257", "'257' is not a number from 1 to 256"),
        ("CTRL_IPV6_LEARNING_MAX", "all", "'all' is not a number from 1 to 256"),
    ],
)
def test_a_wrong_value(name: str, value: str, message: str) -> None:
    """A value that means nothing is an error that names the parameter."""
    with pytest.raises(BadValue, match=f"^domain.xml:1: parameter {name}: {message}$"):
        read_learning(reference_to("f", {name: value}))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"CTRL_IP_FIXED": "web"}, "CTRL_IP_FIXED: 'web' is not an IPv4 address such as 192.0.2.1, without /length"),
        ({"CTRL_IP_FIXED": ("10.0.0.1", "2001:db8::1")}, "'2001:db8::1' is not .*; write CTRL_IPV6_FIXED for it"),
        ({**IPV6, "CTRL_IPV6_FIXED": "10.0.0.0/8"}, "'10.0.0.0/8' is not .*; write CTRL_IP_FIXED for it"),
        ({"CTRL_IP_FIXED": "10.0.0.1/24"}, "write 10.0.0.0/24 for all of it, or 10.0.0.1 for one"),
        ({"CTRL_IP_FIXED": "224.0.0.18"}, "CTRL_IP_FIXED: no host can have 224.0.0.18"),
        ({"CTRL_IP_FIXED": "0.0.0.0"}, "no host can have 0.0.0.0"),
        ({"CTRL_IP_FIXED": "255.255.255.255"}, "no host can have 255.255.255.255"),
        ({**IPV6, "CTRL_IPV6_FIXED": "ff02::12"}, "no host can have ff02::12"),
        ({**IPV6, "CTRL_IPV6_FIXED": "::"}, "no host can have ::"),
        ({"CTRL_IP_FIXED": tuple(f"10.0.0.{n}" for n in range(1, 66))}, "CTRL_IP_FIXED: 65 addresses, more than 64"),
        ({"CTRL_IP_LEARNING": "none", "CTRL_IP_FIXED": "10.0.0.1"}, "no IP is learned; give these addresses as IP"),
        ({"CTRL_IPV6_FIXED": "2001:db8::1"}, "CTRL_IPV6_FIXED: no IPV6 is learned; give these addresses as IPV6"),
    ],
)
def test_wrong_fixed_addresses(parameters: Mapping[str, Values], message: str) -> None:
    """No address, one of the other family, one that no host can have, too many, or beside nothing that is learned."""
    with pytest.raises(BadValue, match=f"^domain.xml:1: parameter .*{message}"):
        read_learning(reference_to("f", parameters))


def test_fixed_addresses() -> None:
    """Each once, in their order, networks among them; as many as there may be."""
    many = tuple(f"10.0.0.{n}" for n in range(1, 65))
    parameters = {**IPV6, "CTRL_IP_FIXED": ("10.0.0.9", "10.1.0.0/16", "10.0.0.9"), "CTRL_IPV6_FIXED": "2001:db8::1"}
    found = read_learning(reference_to("f", parameters))
    assert found.fixed == (0x0A000009, Prefix(0x0A010000, 0xFFFF0000))
    assert found.ipv6_fixed == (0x20010DB8 << 96 | 1,)
    assert len(read_learning(reference_to("f", {"CTRL_IP_FIXED": many})).fixed) == 64


@pytest.mark.parametrize(("variable", "value"), [("IP", "10.0.0.1"), ("IPV6", "2001:db8::1")])
def test_fixed_or_given(variable: str, value: str) -> None:
    """Fixed addresses are besides learned ones: beside given ones they are a mistake, which is said."""
    parameters = {"IP": "10.0.0.7", "IPV6": "2001:db8::7", FIXED[variable]: value}
    message = (
        f"parameter {FIXED[variable]}: {variable} is given, so none is learned; give these addresses as {variable}"
    )
    with pytest.raises(BadValue, match=message):
        ruleset(parameters=parameters)


@pytest.mark.parametrize(("value", "learns"), [(None, False), ("mac", False), ("any", True)])
def test_link_local_addresses_are_learned_only_if_asked_for(value: str | None, learns: bool) -> None:
    """Else neither use nor duplicate address detection teaches one."""
    parameters = {**IPV6, **({"CTRL_IPV6_LINK_LOCAL": value} if value else {})}
    rules = [
        spell(rule)
        for chain in ruleset(parameters=parameters).chains
        for rule in chain.rules
        if rule.verdict is Verdict.LEARN and "learned" in spell(rule) and "ip6" in spell(rule)
    ]
    assert len(rules) == 2
    assert [rule.count("&ffc0::!=fe80::") for rule in rules] == ([0, 0] if learns else [1, 1])


def test_servers_of_both_families() -> None:
    """DHCPSERVER may hold DHCPv6 servers too; nothing but those would let everybody teach, and is an error."""
    servers = ("2001:db8::1", "10.0.0.1")
    assert read_learning(reference_to("f", {**DHCP, "DHCPSERVER": servers})).servers == (0x0A000001,)
    with pytest.raises(BadValue, match="DHCPSERVER: '2001:db8::1' is not an IPv4 address"):
        read_learning(reference_to("f", {**DHCP, "DHCPSERVER": servers[:1]}))


@pytest.mark.parametrize(
    ("mac", "address"),
    [("52:54:00:00:00:01", "fe80::5054:ff:fe00:1"), ("00:11:22:33:44:55", "fe80::211:22ff:fe33:4455")],
)
def test_link_local(mac: str, address: str) -> None:
    """The modified EUI-64 of RFC 4291, appendix A."""
    assert ipaddress.IPv6Address(link_local(parse_mac(mac))) == ipaddress.IPv6Address(address)


@pytest.mark.parametrize(
    ("parameters", "missing"),
    [
        ({}, r"variable has no value: \$IPV6 at .*or CTRL_IPV6_LEARNING with the value any"),
        ({**IPV6, "CTRL_IP_LEARNING": "none"}, r"variable has no value: \$IP at "),
        ({"CTRL_IP_LEARNING": "none"}, r"variables have no value: \$IP at .*\$IPV6 at"),
    ],
)
def test_only_what_cannot_be_learned_is_missed(parameters: Mapping[str, Values], missing: str) -> None:
    """The error names the variables that must be given, and how learning would be asked for."""
    with pytest.raises(UnboundVariable, match=missing):
        ruleset(parameters=parameters)


# --- rules ------------------------------------------------------------------------------------------------------------


def test_only_the_guests_own_mac_teaches() -> None:
    """Every rule that learns from the guest compares its MAC first."""
    learning_rules = [
        rule
        for chain in ruleset(parameters=IPV6).chains
        for rule in chain.rules
        if rule.verdict is Verdict.LEARN and chain.stage is Stage.FROM_L2
    ]
    assert len(learning_rules) == 4
    for rule in learning_rules:
        assert rule.matches[0].field is Field.ETHER_SRC
        assert rule.matches[0].negated is False


def test_a_lease_is_learned_from_the_network_alone() -> None:
    """Under dhcp nothing that the guest sends teaches an IPv4 address."""
    chains = ruleset(STRICT, parameters=DHCP).chains
    learning_rules = [
        (chain.stage, rule.rechecks) for chain in chains for rule in chain.rules if rule.verdict is Verdict.LEARN
    ]
    assert set(learning_rules) == {(Stage.FROM_L2, True), (Stage.TO_L2, False)}


def test_a_mask_leaves_the_whole_address_stored() -> None:
    """Where rules use the address under a mask only, the whole address is stored too, and first: it counts."""
    masked = filter_xml(rule_xml("<ip srcipaddr='$IP' srcipmask='24'/>"))
    compiled = ruleset(masked, parameters={"CTRL_IP_LEARNING_MAX": "3"})
    (first, *_), *_ = (chain.rules for chain in compiled.chains)
    assert [named.mask for _, named in first.stores] == [None, 0xFFFFFF00]
    assert {named.size for named in compiled.sets} == {3}


def conditions(protocol: str, **options: str) -> list[str]:
    """What the rules of a filter ask of the source address, in from/TAP but for those that learn."""
    compiled = ruleset(
        filter_xml(rule_xml(protocol, **options)),
        parameters={"CTRL_IP_FIXED": ("10.0.0.9", "10.1.0.0/16")},
    )
    rules = [rule for chain in compiled.chains for rule in chain.rules if rule.verdict is not Verdict.LEARN]
    asked = [[spell_match(match) for match in rule.matches if match.field is Field.IP_SRC] for rule in rules]
    return [" ".join(words) for words in asked]


def test_fixed_addresses_in_rules() -> None:
    """A rule with $IP holds for the learned address or a fixed one; negated, for one that is none of them."""
    assert conditions("<ip srcipaddr='$IP'/>") == ["ip-src=@learned", "ip-src=10.0.0.9", "ip-src&255.255.0.0=10.1.0.0"]
    assert conditions("<ip match='no' srcipaddr='$IP'/>") == [
        "ip-src!=@learned ip-src!=10.0.0.9 ip-src&255.255.0.0!=10.1.0.0"
    ]


def test_fixed_networks_and_masks() -> None:
    """A mask on $IP is applied to fixed addresses, too; with a network among them it is an error."""
    masked = filter_xml(rule_xml("<ip srcipaddr='$IP' srcipmask='24'/>"))
    rules = [rule for chain in ruleset(masked, parameters={"CTRL_IP_FIXED": "10.0.0.9"}).chains for rule in chain.rules]
    tests = [
        match.test for rule in rules for match in rule.matches if match.field is Field.IP_SRC and not match.negated
    ]
    assert Masked(0xFFFFFF00, 0x0A000000) in tests
    with pytest.raises(BadValue, match=r"CTRL_IP_FIXED: no network can be srcipaddr .* srcipmask stands beside it"):
        ruleset(masked, parameters={"CTRL_IP_FIXED": "10.1.0.0/16"})


def test_one_lease_whatever_the_maximum() -> None:
    """Under dhcp the set is that of the newest lease."""
    compiled = ruleset(STRICT, parameters={**DHCP, "CTRL_IP_LEARNING_MAX": "7"})
    assert {(named.size, named.newest) for named in compiled.sets if named.purpose is SetPurpose.LEARNED} == {(1, True)}


def test_layer_3_waits_for_no_lease() -> None:
    """A layer 3 filter lets DHCP through until there is a lease; without layer 3 rules no such chain appears."""
    layer_3 = filter_xml(
        rule_xml("<tcp srcipaddr='$IP'/>", action="accept"), rule_xml("<all/>", action="drop", direction="inout")
    )
    roots = {
        chain.stage: chain.rules[0].verdict for chain in ruleset(layer_3, parameters=DHCP).chains if not chain.name
    }
    assert roots[Stage.FROM_L3] is Verdict.ACCEPT
    assert roots[Stage.TO_L3] is Verdict.ACCEPT
    assert {chain.stage for chain in ruleset(STRICT, parameters=DHCP).chains} == {Stage.FROM_L2, Stage.TO_L2}


def test_message_types_are_looked_for_where_an_option_begins() -> None:
    """Behind the first option only if its length is the one expected: an option's content is no message type."""
    (rules,) = (chain.rules for chain in ruleset(STRICT, parameters=DHCP).chains if chain.name == "dhcp-reply")
    ack = bytes.fromhex("350105")

    def found(options: bytes) -> bool:
        value = int.from_bytes(options.ljust(16, b"\0")[:16], "big")
        tests = [(match.test, rule.verdict) for rule in rules for match in rule.matches]
        hits = [verdict for test, verdict in tests if isinstance(test, Masked) and value & test.mask == test.value]
        return hits[:1] == [Verdict.JUMP]

    assert found(ack)
    assert found(bytes.fromhex("36040a000001") + ack)
    assert found(bytes.fromhex("360400000001") + bytes.fromhex("330400000e10") + ack)
    assert not found(bytes.fromhex("350102") + ack)
    assert not found(bytes.fromhex("0c06") + b"\0\0\0\0" + ack)  # inside a host name of six octets
    assert not found(bytes.fromhex("0c0435010535") + bytes.fromhex("350102"))
    assert not found(b"\0" * 16)


# --- names, scripts ---------------------------------------------------------------------------------------------------

SETS = {
    "learned/vnet0/vnet0": NamedSet(SetPurpose.LEARNED, "", ValueType.IPV4),
    "learned/vnet0/br0": NamedSet(SetPurpose.LEARNED, "", ValueType.IPV4, segment="br0"),
    "learned/vnet0/vnet0/max-4": NamedSet(SetPurpose.LEARNED, "", ValueType.IPV4, size=4),
    "learned/vnet0/br0/ffffff00": NamedSet(SetPurpose.LEARNED, "", ValueType.IPV4, mask=0xFFFFFF00, segment="br0"),
    "learned/vnet0/max-4/max-4/ffffff00": NamedSet(
        SetPurpose.LEARNED, "", ValueType.IPV4, mask=0xFFFFFF00, size=4, segment="max-4"
    ),
    "learned/vnet0/lease/lease": NamedSet(SetPurpose.LEARNED, "", ValueType.IPV4, newest=True, segment="lease"),
    "learned6/vnet0/br0": NamedSet(SetPurpose.LEARNED, "", ValueType.IPV6, size=8, segment="br0"),
    "learned6/vnet0/0x6240c3a4/max-1": NamedSet(SetPurpose.LEARNED, "", ValueType.IPV6, size=1, segment="b@ä"),
}


@pytest.mark.parametrize("name", SETS)
def test_a_name_tells_what_is_in_the_set(name: str) -> None:
    """A record holds names only, and everything else is read from them."""
    named = SETS[name]
    assert set_name("vnet0", named) == name
    learned = parse_learned(name)
    assert learned is not None
    assert (learned.size, learned.newest, learned.mask) == (named.size, named.newest, named.mask)
    assert (learned.tap, learned.segment, learned.kind) == ("vnet0", name.split("/")[2], named.kind)


def test_other_names() -> None:
    """Sets that hold no learned addresses are told apart."""
    others = ("connlimit/vnet0/0", "ipset/learned", "leased/vnet0", "unread/vnet0", "equal-octets", "taken/br0")
    for name in (*others, "learned/vnet0"):  # the last is of a version that knew no segments
        assert parse_learned(name) is None
    assert kind_of("leased/vnet0") == "set"
    assert kind_of("leased/vnet0/address") == "map"
    assert kind_of("leased/address") == "set"  # of a tap with that name


def test_the_size_is_the_maximum() -> None:
    """As many addresses as may be learned, and for IPv6 the guest's own one beside them."""
    assert "size 1;" in declaration("learned/vnet0/br0")
    assert "size 4;" in declaration("learned/vnet0/br0/max-4")
    assert "size 9;" in declaration("learned6/vnet0/br0")


@pytest.mark.parametrize("parameters", [{}, DHCP, {**DHCP, "CTRL_IP_LEARNING_MAX": "2"}])
def test_what_is_learned_is_a_number_everywhere(parameters: Mapping[str, Values]) -> None:
    """nft since 1.0.9 takes no number for an address: the sets hold numbers, and all that goes in or is compared is."""
    lookups = filter_xml(
        rule_xml("<ip srcipaddr='$IP'/>"),
        rule_xml("<ip dstipaddr='$IP' dstipmask='24'/>", direction="in"),
        rule_xml("<arp match='no' arpsrcipaddr='$IP'/>"),
        rule_xml("<rarp arpdstipaddr='$IP'/>"),
        rule_xml("<tcp srcipaddr='$IP'/>"),
        rule_xml("<ipv6 srcipaddr='$IPV6'/>"),
        rule_xml("<ipv6 match='no' dstipaddr='$IPV6' dstipmask='64'/>"),
        rule_xml("<ipv6 ndtarget='$IPV6'/>"),
    )
    compiled = ruleset(lookups, parameters={**IPV6, **parameters})
    names = [name for name in names_of(compiled) if name.startswith(("learned", "unread"))]
    assert names
    for name in names:
        assert declaration(name).startswith(("{ typeof @nh,64,32;", "{ typeof @nh,64,128;"))
    raw = r"@(?:ll|th),\d+,(?:32|128)(?: & 0x[0-9a-f]+)?"
    for line in lines_of(compiled):
        uses = line.count(" @learned") + line.count(" @unread")
        key = rf"{raw}(?: timeout \d+s)?"
        numbers = re.findall(rf"{raw} (?:!= )?@learned|(?:add|update|delete) @(?:learned|unread)\S* {{ {key} }}", line)
        assert len(numbers) == uses, line


@pytest.mark.parametrize("parameters", [{}, {"CTRL_IP_LEARNING_MAX": "2"}, DHCP, {**DHCP, "CTRL_IP_LEARNING_MAX": "2"}])
def test_what_is_made_is_removed(parameters: Mapping[str, Values]) -> None:
    """Every set and map that a rule names is declared before, and deleted with the guest."""
    compiled = ruleset(parameters={**IPV6, **parameters})
    names = names_of(compiled)
    script = transaction(compiled).text
    used = {word[1:] for line in lines_of(compiled) for word in line.split() if word.startswith("@")}
    used = {name for name in used if not name.startswith(("ll,", "nh,", "th,"))}
    assert used <= set(names)
    removal = remove([installed_by(compiled)]).text
    for name in names:
        assert f"add {kind_of(name)} bridge nwfilter {name} {{" in script
        assert f"delete {kind_of(name)} bridge nwfilter {name}\n" in removal


def test_a_start_forgets_and_nothing_else_does() -> None:
    """Only a fresh transaction flushes what is learned; which addresses are to be looked at anew, any does."""
    compiled = ruleset(parameters={**IPV6, **DHCP})
    fresh = transaction(compiled).text
    kept = transaction(compiled, fresh=False).text
    for name in names_of(compiled):
        assert f"flush {kind_of(name)} bridge nwfilter {name}\n" in fresh
        looked_at_anew = name.startswith("seen")
        assert (f"flush {kind_of(name)} bridge nwfilter {name}\n" in kept) is looked_at_anew
    own = "add element bridge nwfilter learned6/vnet0/vnet0 { 0xfe80000000000000505400fffe000001 }"
    assert own in fresh.splitlines()
    assert own in kept.splitlines()


@pytest.mark.parametrize(
    ("attachment", "sent", "received"),
    [
        (Attachment.BRIDGE_PORT, "iifname", "oifname"),
        (Attachment.DEVICE, "iifname", "oifname"),
        (Attachment.MACVTAP, "oifname", "iifname"),
    ],
)
def test_the_tap_is_asked_for_by_the_name_that_its_hook_knows(attachment: Attachment, sent: str, received: str) -> None:
    """What a macvtap's guest sends goes out by the device."""
    lines = lines_of(ruleset(STRICT, parameters=DHCP, attachment=attachment))
    assert any(line.startswith("from/vnet0: ") and f"{sent} != @leased/vnet0 drop" in line for line in lines)
    assert any(line.startswith("to/vnet0: ") and f"{received} != @leased/vnet0 drop" in line for line in lines)
    assert not any(line.startswith("from/vnet0: ") and received in line for line in lines)
