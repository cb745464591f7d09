"""From attributes to conditions on a packet: masks, ranges, signs, and what an element implies."""

from __future__ import annotations

import pytest

from nwfilter_hook.base.errors import FilterSyntaxError, UnsupportedMatch
from nwfilter_hook.compiler.matches import intersect, reverse, reversed_alternatives, rule_alternatives
from nwfilter_hook.ruleset.fields import Field
from nwfilter_hook.ruleset.model import Between, Equals, Match
from tests.unit.compiling import Values, bound, filter_xml, rule_xml, spell_match


def alternatives(protocol: str, **parameters: Values) -> list[str]:
    """The alternatives of a rule, each as its conditions."""
    (rule,) = bound(filter_xml(rule_xml(protocol)), parameters=parameters)
    return [" ".join(spell_match(match) for match in matches) for matches in rule_alternatives(rule)]


ALWAYS, NEVER = [""], list[str]()


# --- what an element implies ------------------------------------------------------------------------------------------


def test_no_element_matches_every_frame() -> None:
    """A rule without a protocol element has no condition."""
    assert alternatives("") == ALWAYS


@pytest.mark.parametrize("element", ["arp", "rarp"])
@pytest.mark.parametrize(
    ("attributes", "implied"),
    [
        ("opcode='1'", ""),
        ("hwtype='6' protocoltype='0x806'", ""),
        ("arpsrcmacaddr='1:2:3:4:5:6'", "arp-htype=1 arp-hlen=6 arp-plen=4"),
        ("arpdstipaddr='10.0.0.1'", "arp-ptype=0x800 arp-hlen=6 arp-plen=4"),
        ("gratuitous='1'", "arp-ptype=0x800 arp-hlen=6 arp-plen=4"),
        ("arpsrcmacaddr='1:2:3:4:5:6' arpsrcipaddr='1.1.1.1'", "arp-htype=1 arp-ptype=0x800 arp-hlen=6 arp-plen=4"),
        ("gratuitous='0'", ""),
    ],
)
def test_addresses_in_arp_imply_where_they_are(element: str, attributes: str, implied: str) -> None:
    """A condition on an address in ARP implies addresses of Ethernet and IPv4, since else there is no such field."""
    for sign in ("", "match='no'"):
        (found,) = alternatives(f"<{element} {sign} {attributes}/>")
        marks = ("arp-htype=1", "arp-ptype=0x800", "arp-hlen=6", "arp-plen=4")
        assert " ".join(word for word in found.split() if word in marks) == implied


# --- masks and ranges -------------------------------------------------------------------------------------------------


def test_a_mask_takes_the_hosts_bits_away() -> None:
    """An address under a mask is compared by the bits of the mask alone."""
    assert alternatives("<all srcipaddr='10.1.2.3' srcipmask='22'/>") == [
        "ether-type=0x800 ip-src&255.255.252.0=10.1.0.0"
    ]
    assert alternatives("<all srcipaddr='10.1.2.3' srcipmask='32'/>") == ["ether-type=0x800 ip-src=10.1.2.3"]


@pytest.mark.parametrize("address", ["srcipaddr='10.1.2.3' srcipmask='0'", "dstipaddr='10.1.2.3' dstipmask='0.0.0.0'"])
def test_an_empty_mask_is_any_address(address: str) -> None:
    """Under an empty mask every address is equal, and none is not."""
    assert alternatives(f"<ip {address}/>") == ["ether-type=0x800"]
    assert alternatives(f"<ip match='no' {address}/>") == NEVER


@pytest.mark.parametrize(
    "attributes",
    [
        "srcmacmask='ff:ff:ff:0:0:0'",
        "srcipmask='24'",
        "dstipmask='24'",
        "srcipto='10.0.0.9'",
        "srcportend='9'",
        "dstportend='9'",
        "ipsetflags='src'",
    ],
)
def test_what_completes_nothing_means_nothing(attributes: str) -> None:
    """A mask without address, an end without start, flags without a set have no effect."""
    element = "all" if "mac" in attributes else "tcp"
    assert alternatives(f"<{element} {attributes}/>") == alternatives(f"<{element}/>")


def test_a_code_without_a_type_means_nothing() -> None:
    """An ICMP code alone has no effect."""
    assert alternatives("<icmp code='3'/>") == alternatives("<icmp/>")


@pytest.mark.parametrize(("side", "other"), [("src", "dst"), ("dst", "src")])
def test_an_address_beats_a_range(side: str, other: str) -> None:
    """Of an address and a range of the same side the address counts; the other side's range stays."""
    found = alternatives(
        f"<all {side}ipaddr='10.0.0.1' {side}ipfrom='10.0.0.2' {side}ipto='10.0.0.3' {other}ipfrom='10.0.0.4'/>"
    )
    assert [sorted(each.split()) for each in found] == [
        ["ether-type=0x800", *sorted([f"ip-{side}=10.0.0.1", f"ip-{other}=10.0.0.4"])]
    ]


def test_a_range_backwards_never_matches() -> None:
    """A range of addresses or BPDU fields whose end comes before its start holds nothing; negated, everything."""
    backwards = "srcipfrom='10.0.0.9' srcipto='10.0.0.1'"
    assert alternatives(f"<all {backwards}/>") == NEVER
    assert alternatives(f"<all match='no' {backwards}/>") == ["ether-type=0x800"]
    assert alternatives("<stp type='0'/><stp age='9' age-hi='1'/>") == NEVER
    assert alternatives("<stp type='0'/><stp match='no' age='9' age-hi='1'/>") == [f"{BPDU} stp-type=0"]


def test_ports_backwards_are_an_error() -> None:
    """Reversed ports, which libvirt notices when a guest uses them, are an error with their line."""
    for element in ("<ip protocol='tcp'", "<tcp", "<udp-ipv6"):
        with pytest.raises(UnsupportedMatch, match=r"^f.xml:2: srcportstart=9 is above srcportend=1"):
            alternatives(f"{element} srcportstart='9' srcportend='1'/>")


# --- signs ------------------------------------------------------------------------------------------------------------


def test_each_attribute_has_its_own_sign() -> None:
    """match='no' negates each attribute, not their conjunction."""
    assert alternatives("<ip match='no' srcipaddr='10.0.0.1' dstipaddr='10.0.0.2'/>") == [
        "ether-type=0x800 ip-src!=10.0.0.1 ip-dst!=10.0.0.2"
    ]


def test_nodes_of_one_rule_keep_their_signs() -> None:
    """Several nodes are one rule; each attribute has the sign of its node."""
    assert alternatives("<arp opcode='Reply'/><arp match='no' dstmacaddr='1:2:3:4:5:6'/>") == [
        "ether-dst!=01:02:03:04:05:06 ether-type=0x806 arp-opcode=2"
    ]


@pytest.mark.parametrize("element", ["icmp", "icmpv6"])
def test_type_and_code_have_one_sign(element: str) -> None:
    """Negated, type and code are NOT (type AND code): another type, or this type with another code."""
    found = alternatives(f"<{element} match='no' type='3' code='4'/>")
    assert [each.split()[2:] for each in found] == [
        [f"{element}-type!=3"],
        [f"{element}-type=3", f"{element}-code!=4"],
    ]


@pytest.mark.parametrize("code", ["", "code='7'"])
def test_icmp_type_255_is_any_type(code: str) -> None:
    """The kernel's matcher takes icmp type 255 for any type and code; icmpv6's doesn't."""
    assert alternatives(f"<icmp type='255' {code}/>") == alternatives("<icmp/>")
    assert alternatives(f"<icmp match='no' type='255' {code}/>") == NEVER
    assert "icmpv6-type=255" in alternatives("<icmpv6 type='255'/>")[0]


@pytest.mark.parametrize(
    ("attributes", "conditions"),
    [
        ("type='1'", ["icmpv6-type=1"]),
        ("type='1' typeend='4'", ["icmpv6-type=1..4"]),
        ("typeend='4'", ["icmpv6-type=0..4"]),
        ("code='3'", ["icmpv6-code=3"]),
        ("type='1' code='3' codeend='5'", ["icmpv6-type=1 icmpv6-code=3..5"]),
        ("type='0' typeend='255'", [""]),
        ("match='no' type='1'", ["icmpv6-type!=1"]),
        ("match='no' type='1' code='3'", ["icmpv6-type!=1", "icmpv6-type=1 icmpv6-code!=3"]),
        ("match='no' type='0' typeend='255' code='3'", ["icmpv6-code!=3"]),
        ("match='no' type='0' typeend='255'", []),
        ("match='no' code='3'", ["icmpv6-code=3"]),  # the sign is the type's, and there is none
    ],
)
def test_types_and_codes_of_ipv6(attributes: str, conditions: list[str]) -> None:
    """type, typeend, code, codeend of <ipv6> are one condition with the sign of type; they imply icmpv6."""
    head = "ether-type=0x86dd l4-protocol=58"
    assert alternatives(f"<ipv6 {attributes}/>") == [f"{head} {each}".strip() for each in conditions]
    assert alternatives(f"<ipv6 {attributes}/><ipv6 protocol='icmpv6'/>") == alternatives(f"<ipv6 {attributes}/>")


def test_a_range_of_types_backwards_is_an_error() -> None:
    """type above typeend is an error with its line."""
    with pytest.raises(UnsupportedMatch, match=r"^f.xml:2: type=9 is above typeend=1"):
        alternatives("<ipv6 type='9' typeend='1'/>")


def test_neighbour_discovery_with_another_protocol() -> None:
    """It could never match, and nft refuses it: an error with its line, before or after the variable is bound."""
    said = r"^f.xml:2: ndtarget on <ipv6> goes with protocol='icmpv6' only"
    for protocol, sign in (("udp", "yes"), ("icmpv6", "no")):
        with pytest.raises(FilterSyntaxError, match=said):
            alternatives(f"<ipv6 match='{sign}' protocol='{protocol}' ndtarget='::9'/>")
    with pytest.raises(UnsupportedMatch, match=said):
        alternatives("<ipv6 protocol='$P' ndtarget='::9'/>", P=("udp",))


def test_a_type_with_a_protocol_from_a_variable() -> None:
    """Once the variable is bound it must be icmpv6; what could never match is an error with its line."""
    protocol = "<ipv6 protocol='$P' type='135'/>"
    assert alternatives(protocol, P=("58",)) == ["ether-type=0x86dd l4-protocol=58 icmpv6-type=135"]
    assert alternatives(protocol, P=("icmpv6",)) == alternatives(protocol, P=("58",))
    with pytest.raises(UnsupportedMatch, match=r"^f.xml:2: type on <ipv6> goes with protocol='icmpv6' only"):
        alternatives(protocol, P=("6",))


@pytest.mark.parametrize(
    ("attributes", "types"),
    [
        ("ndtarget='fe80::9'", "135..136"),
        ("match='no' ndtarget='fe80::9'", "135..136"),
        ("ndmacaddr='1:1:1:1:1:1'", "135..136"),
        ("ndlength='24'", "135..136"),
        ("type='135' ndtarget='fe80::9'", "135"),
        ("type='137' ndtarget='fe80::9'", "137"),
    ],
)
def test_neighbour_discovery_is_asked_for(attributes: str, types: str) -> None:
    """Another message may hold the same octets in the same place; a rule that names a type gets that."""
    (matches,) = alternatives(f"<ipv6 {attributes}/>")
    assert [match for match in matches.split() if "type" in match] == ["ether-type=0x86dd", f"icmpv6-type={types}"]
    assert {"ip6-next-header=58", "l4-protocol=58"} <= set(matches.split())


# --- behind a tag, in SNAP, in fragments, in DHCP ---------------------------------------------------------------------


def test_behind_a_tag() -> None:
    """`yes` asks for a tag, `any` for none or one, `no` for none as without the attribute."""
    plain = "ether-type=0x800 ip-src=10.0.0.1"
    behind = "ether-type=0x8100 vlan-type=0x800 ip-src=10.0.0.1"
    for value, expected in (("yes", [behind]), ("any", [plain, behind]), ("no", [plain])):
        assert alternatives(f"<ip tagged='{value}' srcipaddr='10.0.0.1'/>") == expected
    assert alternatives("<ip tagged='$T'/>", T="any") == alternatives("<ip tagged='any'/>")
    assert alternatives("<ipv6 tagged='yes'/><ipv6 match='no' protocol='icmpv6'/>") == [
        "ether-type=0x8100 vlan-type=0x86dd l4-protocol!=58"
    ]


def test_snap() -> None:
    """A length in place of the type, and one of the two organisations whose SNAP carries types; behind a tag too."""
    snaps = [f"snap={0xAAAA03000000}", f"snap={0xAAAA030000F8}"]
    assert alternatives("<mac snap='yes'/>") == [f"ether-type=0x0..0x5ff {snap}" for snap in snaps]
    assert alternatives("<vlan snap='yes' vlanid='7'/>") == [
        f"ether-type=0x8100 vlan-id=7 vlan-type=0x0..0x5ff {snap}" for snap in snaps
    ]
    assert alternatives("<mac snap='no'/>") == [""]


def test_later_fragments() -> None:
    """A fragment that isn't the first has an offset, in IPv6 in its fragment header."""
    assert alternatives("<ip laterfragment='yes'/>") == ["ether-type=0x800 ip-fragment&8191!=0"]
    assert alternatives("<ipv6 laterfragment='yes'/>") == ["ether-type=0x86dd ip6-fragment!=0"]
    assert alternatives("<ip laterfragment='no'/>") == ["ether-type=0x800"]


@pytest.mark.parametrize(
    ("attributes", "conditions"),
    [
        ("dhcpop='1'", "dhcp-op=1"),
        ("match='no' dhcpop='1'", "dhcp-op!=1"),
        ("dhcpchaddr='1:1:1:1:1:1'", "dhcp-hardware=262 dhcp-client=01:01:01:01:01:01"),
        ("match='no' dhcpchaddr='1:1:1:1:1:1'", "dhcp-hardware=262 dhcp-client!=01:01:01:01:01:01"),
        ("dhcpciaddr='$IP' dhcpgiaddr='0.0.0.0'", "dhcp-own=@learned dhcp-relay=0.0.0.0"),
    ],
)
def test_dhcp_is_asked_for(attributes: str, conditions: str) -> None:
    """In a whole datagram; a MAC only where the client is on Ethernet (hardware type 1, 6 octets)."""
    (found,) = alternatives(f"<ip {attributes}/>")
    assert found == f"ether-type=0x800 ip-protocol=17 ip-fragment&16383=0 {conditions}"


def test_dhcpv6_is_asked_for() -> None:
    """In a datagram that follows the IPv6 header at once."""
    head = "ether-type=0x86dd l4-protocol=17 ip6-next-header=17"
    assert alternatives("<ipv6 dhcptype='8'/>") == [f"{head} dhcp6-type=8"]
    assert alternatives("<ipv6 match='no' dhcptype='3' dhcptypeend='6'/>") == [f"{head} dhcp6-type!=3..6"]


@pytest.mark.parametrize(
    ("protocol", "said"),
    [
        ("<ip protocol='tcp' dhcpop='1'/>", "dhcpop on <ip> goes with protocol='udp' only"),
        ("<ip dhcpop='1'/><ip match='no' protocol='udp'/>", "dhcpop on <ip> goes with protocol='udp' only"),
        ("<ipv6 protocol='icmpv6' dhcptype='1'/>", "dhcptype on <ipv6> goes with protocol='udp' only"),
        (
            "<ipv6 type='135' dhcptype='1'/>",
            "type and dhcptype on <ipv6> are of different protocols",
        ),
        ("<ipv6 match='no' tagged='yes'/>", "tagged on <ipv6> can't be negated: put it into a node without"),
        ("<mac match='no' snap='yes'/>", "snap on <mac> can't be negated"),
        ("<ip match='no' laterfragment='yes'/>", "laterfragment on <ip> can't be negated"),
        ("<ip tagged='maybe'/>", "tagged='maybe' on <ip> is not yes, any or no"),
        ("<tcp tagged='yes'/>", "unknown attribute 'tagged' on <tcp>"),
        ("<ipv6 dhcpchaddr='1:1:1:1:1:1'/>", "unknown attribute 'dhcpchaddr' on <ipv6>"),
    ],
)
def test_what_never_matches_or_says_nothing_is_an_error(protocol: str, said: str) -> None:
    """With its line."""
    with pytest.raises(FilterSyntaxError, match=rf"^f.xml:2: {said}"):
        alternatives(protocol)


def test_dhcp_with_a_protocol_from_a_variable() -> None:
    """Once the variable is bound it must be udp."""
    assert alternatives("<ip protocol='$P' dhcpop='1'/>", P=("17",)) == alternatives("<ip dhcpop='1'/>")
    with pytest.raises(UnsupportedMatch, match=r"^f.xml:2: dhcpop on <ip> goes with protocol='udp' only"):
        alternatives("<ip protocol='$P' dhcpop='1'/>", P=("6",))


@pytest.mark.parametrize("flags", ["SYN/ACK", "NONE/SYN"])
def test_flags_outside_their_mask_never_match(flags: str) -> None:
    """A flag that its mask takes away can't be set; negated, that holds always."""
    assert alternatives(f"<tcp flags='{flags}'/>") == NEVER
    assert alternatives(f"<tcp match='no' flags='{flags}'/>") == alternatives("<tcp/>")


@pytest.mark.parametrize("text", ["false", "0", "no"])
def test_gratuitous_false_is_no_condition(text: str) -> None:
    """gratuitous='false' asks for nothing; it doesn't ask for the opposite."""
    assert alternatives(f"<arp gratuitous='{text}'/>") == alternatives("<arp/>")
    assert alternatives(f"<arp match='no' gratuitous='{text}'/>") == alternatives("<arp/>")


# --- stp --------------------------------------------------------------------------------------------------------------

BPDU = "ether-dst=01:80:c2:00:00:00 stp-header=0x424203000000"


def test_a_type_of_bpdu() -> None:
    """A type holds for every BPDU."""
    assert alternatives("<stp type='0x80'/>") == [f"{BPDU} stp-type=128"]
    assert alternatives("<stp match='no' type='0x80'/>") == [f"{BPDU} stp-type!=128"]


@pytest.mark.parametrize(("sign", "equals"), [("", "="), ("match='no'", "!=")])
def test_fields_of_a_bpdu_bind_configuration_bpdus(sign: str, equals: str) -> None:
    """Other fields are asked of configuration BPDUs; a BPDU that has none of them passes, as in ebt_stp."""
    assert alternatives(f"<stp {sign} root-cost='1' root-cost-hi='9' age='3'/>") == [
        f"{BPDU} stp-type!=0",
        f"{BPDU} stp-type=0 stp-root-cost{equals}1..9 stp-age{equals}3",
    ]


def test_a_type_beside_fields() -> None:
    """With a type that isn't configuration's the fields bind nothing; with configuration's they bind every BPDU."""
    assert alternatives("<stp type='128' flags='1'/>")[0] == f"{BPDU} stp-type=128 stp-type!=0"
    assert alternatives("<stp type='0' flags='1'/>") == [f"{BPDU} stp-type=0 stp-flags=1"]


def test_a_mac_makes_no_bpdu() -> None:
    """srcmacaddr on <stp> is a condition on the frame; it doesn't ask for a BPDU."""
    assert alternatives("<stp srcmacaddr='1:2:3:4:5:6'/>") == [
        "ether-src=01:02:03:04:05:06 ether-dst=01:80:c2:00:00:00"
    ]


# --- sets, learned addresses ------------------------------------------------------------------------------------------


def test_a_learned_address_under_a_mask() -> None:
    """A learned address is looked up in a set; under a mask the set holds the masked address."""
    assert alternatives("<ip srcipaddr='$IP'/>") == ["ether-type=0x800 ip-src=@learned"]
    assert alternatives("<ip match='no' srcipaddr='$IP' srcipmask='24'/>") == [
        "ether-type=0x800 ip-src&255.255.255.0!=@learned"
    ]
    assert alternatives("<ip srcipaddr='$IP' srcipmask='32'/>") == ["ether-type=0x800 ip-src=@learned"]
    assert alternatives("<ip srcipaddr='$IP' srcipmask='0'/>") == ["ether-type=0x800"]


def test_a_learned_address_makes_no_range() -> None:
    """A range can't begin or end with an address that isn't known yet: an error with its line."""
    for attributes in ("srcipfrom='$IP' srcipto='10.0.0.9'", "srcipfrom='10.0.0.1' srcipto='$IP'"):
        with pytest.raises(UnsupportedMatch, match=r"^f.xml:2: srcipfrom: a range or a mask can't be learned"):
            alternatives(f"<all {attributes}/>")


@pytest.mark.parametrize("flags", ["src,dst,src,dst,src", "src,src,src,src,src,src"])
def test_nft_has_no_room_for_five_ipv6_addresses(flags: str) -> None:
    """A set of more IPv6 addresses than nft's keys hold is an error with its line, not a crash of nft."""
    assert alternatives(f"<all ipset='x' ipsetflags='{flags}'/>")
    with pytest.raises(UnsupportedMatch, match=r"^f.xml:2: "):
        alternatives(f"<all-ipv6 ipset='x' ipsetflags='{flags}'/>")


# --- turning conditions round -----------------------------------------------------------------------------------------


def test_exchange_turns_sources_into_destinations() -> None:
    """For a packet the other way every source is compared with a destination; twice turned is as it was."""
    (rule,) = bound(
        filter_xml(
            rule_xml(
                "<ip protocol='udp' srcmacaddr='1:1:1:1:1:1' dstipaddr='10.0.0.2' srcportstart='1' dstportstart='2'/>"
                "<ip dscp='3'/>"
            )
        )
    )
    (matches,) = rule_alternatives(rule)
    assert [spell_match(match) for match in reverse(matches)] == [
        "ether-dst=01:01:01:01:01:01",
        "ether-type=0x800",
        "ip-src=10.0.0.2",
        "ip-protocol=17",
        "ip-dscp=3",
        "dst-port=1",
        "src-port=2",
    ]
    assert reverse(reverse(matches)) == matches


@pytest.mark.parametrize(
    ("protocol", "turned"),
    [
        ("<arp arpsrcipaddr='10.0.0.1' arpsrcipmask='8'/>", "arp-dst-ip&255.0.0.0=10.0.0.0"),
        ("<arp arpdstmacaddr='1:1:1:1:1:1'/>", "arp-src-mac=01:01:01:01:01:01"),
        ("<arp gratuitous='yes'/>", "arp-dst-ip=arp-src-ip"),
        ("<arp opcode='2'/>", "arp-opcode=2"),
        ("<all ipset='x' ipsetflags='src,dst,dst'/>", "ip-dst+ip-src+ip-src=@ipset:x"),
        ("<all-ipv6 srcipfrom='::1' srcipto='::9'/>", "ip6-dst=::1..::9"),
        ("<vlan vlanid='5'/>", "vlan-id=5"),
        ("<icmp type='8'/>", "icmp-type=8"),
        ("<tcp flags='SYN/SYN'/>", "tcp-flags&0x2=0x2"),
    ],
)
def test_what_is_turned_and_what_is_not(protocol: str, turned: str) -> None:
    """Addresses, ports and set dimensions are turned; types, tags, opcodes and flags stay."""
    (rule,) = bound(filter_xml(rule_xml(protocol)))
    (matches,) = rule_alternatives(rule)
    assert turned in [spell_match(match) for match in reverse(matches)]


MAC = "srcmacaddr='1:1:1:1:1:1'"


@pytest.mark.parametrize(
    ("protocol", "turned"),
    [
        # the MAC alone, with what is no condition of its own
        (f"<tcp {MAC}/>", []),
        (f"<tcp-ipv6 {MAC}/>", []),
        (f"<tcp {MAC} ipset='x' ipsetflags='src' comment='y' state='NEW'/>", []),
        (f"<tcp {MAC} connlimit-above='3'/>", []),
        (f"<tcp {MAC} srcipmask='8' srcipto='10.0.0.9'/>", []),  # parts of what isn't there
        (f"<icmp {MAC} code='1'/>", []),
        ("<icmp srcmacaddr='1:1:1:1:1:1' srcmacmask='0:0:0:0:0:0'/>", []),
        ("<icmp match='no' srcmacaddr='1:1:1:1:1:1' dstmacaddr='1:1:1:1:1:1'/>", []),
        # what is said counts, even if it is true of every packet
        (f"<tcp {MAC} dstportstart='22'/>", ["ether-type=0x800 ip-protocol=6 src-port=22"]),
        (f"<tcp {MAC} srcipaddr='0.0.0.0' srcipmask='0'/>", ["ether-type=0x800 ip-protocol=6"]),
        (f"<tcp-ipv6 {MAC} dstipaddr='::' dstipmask='0'/>", ["ether-type=0x86dd l4-protocol=6"]),
        (f"<all {MAC} dstipaddr='10.0.0.99' dstipmask='0'/>", ["ether-type=0x800"]),
        (f"<all {MAC}/><all match='no' srcipfrom='10.0.0.9' srcipto='10.0.0.1'/>", ["ether-type=0x800"]),
        (f"<tcp {MAC}/><tcp match='no' flags='SYN/ACK'/>", ["ether-type=0x800 ip-protocol=6"]),
        (f"<icmp {MAC} type='255'/>", ["ether-type=0x800 ip-protocol=1"]),
        # a MAC that no frame can have keeps no rule from the other direction
        (
            "<icmp match='no' srcmacaddr='1:1:1:1:1:1' srcmacmask='0:0:0:0:0:0' dstipaddr='10.0.0.1'/>",
            ["ether-type=0x800 ip-src!=10.0.0.1 ip-protocol=1"],
        ),
        # without a MAC there is always a rule
        ("<tcp/>", ["ether-type=0x800 ip-protocol=6"]),
        ("<tcp ipset='x'/>", ["ether-type=0x800 ip-dst=@ipset:x ip-protocol=6"]),
    ],
)
def test_what_is_left_of_a_rule_the_other_way(protocol: str, turned: list[str]) -> None:
    """The MAC goes; if the rule says nothing else, there is none."""
    (rule,) = bound(filter_xml(rule_xml(protocol)))
    assert [" ".join(map(spell_match, matches)) for matches in reversed_alternatives(rule)] == turned


def test_narrowing() -> None:
    """Conditions are joined once each; two values for one field, or a condition and its opposite, pass no frame."""
    ip, arp = Match(Field.ETHER_TYPE, Equals(0x800)), Match(Field.ETHER_TYPE, Equals(0x806))
    mac = Match(Field.ETHER_SRC, Equals(1))
    assert intersect((ip,), (mac, ip)) == (mac, ip)
    assert intersect((ip,), (arp,)) is None
    assert intersect((ip,), (Match(Field.ETHER_TYPE, Equals(0x800), negated=True),)) is None
    ports = Match(Field.SRC_PORT, Between(1, 2))
    assert intersect((ports,), (Match(Field.SRC_PORT, Between(3, 4)),)) is not None  # not looked into
