"""
The deliberate differences from libvirt, by their number in nwfilter-differences(7), as far as a ruleset shows them.

Each test states what libvirt does beside what happens here.
"""

from __future__ import annotations

import re

import pytest

from nwfilter_hook.base.errors import FilterSyntaxError, UnsupportedMatch
from nwfilter_hook.filters.parse import parse_filter
from nwfilter_hook.nftables.names import BASE_CHAINS
from nwfilter_hook.ruleset.model import Attachment, SetPurpose, Stage
from tests.unit.checking import complaints
from tests.unit.compiling import MAC, compiled, compiled_rule, filter_xml, rule_xml, script, spelled, transaction


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("<rule action='drop' direction='out'><ip srpipaddr='10.0.0.1'/></rule>", "did you mean 'srcipaddr'"),
        ("<rule action='drop' direction='out'><igpm/></rule>", "did you mean 'igmp'"),
        ("<rules action='drop' direction='out'/>", "did you mean 'rule'"),
        ("<rule action='drop' direction='out' priorty='5'/>", "did you mean 'priority'"),
        ("<rule action='drop' direction='out' priority='1001'/>", "1001' is not a number from -1000 to 1000"),
        ("<rule action='drop' direction='out' statematch='no'/>", "statematch 'no'"),
        ("<rule action='drop' direction='out'><ip match='No' dscp='1'/></rule>", "match='No'"),
        ("<rule action='drop' direction='out'><arp gratuitous='maybe'/></rule>", "gratuitous='maybe'"),
        ("<rule action='drop' direction='out'><ip/><tcp/></rule>", "beside <ip>"),
        ("<filterref filter='x'><parameter name='IP' value='10.0.0.0/8'/></filterref>", "10.0.0.0/8"),
        ("<filterref filter='x'><parameter name='A-B' value='1'/></filterref>", "A-B"),
    ],
)
def test_difference_1_what_libvirt_ignores_is_an_error(entry: str, message: str) -> None:
    """A typo or a value out of range, which libvirt ignores, is an error with file, line and a suggestion."""
    with pytest.raises(FilterSyntaxError, match=re.escape(message)) as caught:
        parse_filter(filter_xml("", entry).encode(), "f.xml")
    assert str(caught.value).startswith("f.xml:3: ")


@pytest.mark.parametrize("element", ["tcp", "udp", "sctp", "tcp-ipv6", "udp-ipv6", "sctp-ipv6"])
def test_difference_2_a_destination_port_has_its_own_sign(element: str) -> None:
    """match='no' negates dstportstart; in libvirt it has the sign of srcportstart."""
    (alone,) = spelled(compiled_rule(f"<{element} match='no' dstportstart='22' dstportend='23'/>"))["from-l3"]
    assert " dst-port!=22..23 " in alone
    mixed = f"<{element} match='no' srcportstart='1'/><{element} dstportstart='2'/>"
    (both,) = spelled(compiled_rule(mixed))["from-l3"]
    assert " src-port!=1 dst-port=2 " in both


def test_difference_2_an_ipv6_range_ends_with_an_ipv6_address() -> None:
    """dstipto of an IPv6 element is an IPv6 address; libvirt wants an IPv4 one there."""
    protocol = "<all-ipv6 dstipfrom='2001:db8::1' dstipto='2001:db8::9'/>"
    assert spelled(compiled_rule(protocol))["from-l3"] == ["ether-type=0x86dd ip6-dst=2001:db8::1..2001:db8::9 drop"]


@pytest.mark.parametrize("element", ["tcp", "udp", "icmp", "esp", "all", "tcp-ipv6", "icmpv6", "all-ipv6"])
def test_difference_2_ipset_works_with_ipsetflags(element: str) -> None:
    """A set is looked up with its flags on every element, where libvirt drops the match but on `all`."""
    ip = "ip6" if "ipv6" in element or element == "icmpv6" else "ip"
    both = spelled(compiled_rule(f"<{element} ipset='bad' ipsetflags='dst,src'/>"))
    assert f" {ip}-dst+{ip}-src=@ipset:bad " in both["from-l3"][0]
    assert f" {ip}-src+{ip}-dst=@ipset:bad " in both["to-l3"][0]
    alone = spelled(compiled_rule(f"<{element} ipset='bad'/>"))
    assert f" {ip}-src=@ipset:bad " in alone["from-l3"][0]


def test_difference_2_flags_of_tcp_over_ipv6() -> None:
    """flags on tcp-ipv6 is a condition; libvirt's code doesn't read it."""
    assert spelled(compiled_rule("<tcp-ipv6 flags='SYN,ACK/SYN'/>"))["from-l3"] == [
        "ether-type=0x86dd l4-protocol=6 tcp-flags&0x12=0x2 drop"
    ]


@pytest.mark.netns
def test_difference_2_dscp_at_layer_2_is_a_code_point() -> None:
    """dscp='46' on <ip> is expedited forwarding; libvirt compares the whole TOS octet with 46."""
    ruleset = compiled_rule("<ip dscp='46'/>")
    assert spelled(ruleset)["from"] == ["ether-type=0x800 ip-dscp=46 drop"]
    assert complaints(script(ruleset)) == []


def test_difference_2_names_of_what_a_vlan_carries() -> None:
    """encap-protocol='arp' is 0x806; libvirt prints it in decimal for a program that reads hexadecimal."""
    assert spelled(compiled_rule("<vlan encap-protocol='arp'/>"))["from"] == ["ether-type=0x8100 vlan-type=0x806 drop"]


def test_difference_2_an_arp_destination_mask_is_its_own() -> None:
    """A destination address without a mask is compared whole; libvirt takes the mask of the source."""
    protocol = "<arp arpsrcipaddr='10.1.2.3' arpsrcipmask='8' arpdstipaddr='10.1.2.3'/>"
    (rule,) = spelled(compiled_rule(protocol))["from"]
    assert " arp-src-ip&255.0.0.0=10.0.0.0 arp-dst-ip=10.1.2.3 " in rule


def test_difference_3_stp_chains_come_first() -> None:
    """A chain stp… without a priority has −810 and so comes before mac; in libvirt it has 0."""
    assert parse_filter(b"<filter name='f' chain='stp-x'/>", "f").priority == -810
    filters = [
        filter_xml("<filterref filter='m'/>", "<filterref filter='s'/>", name="f"),
        filter_xml(rule_xml(action="return"), name="m", chain="mac"),
        filter_xml(rule_xml(action="return"), name="s", chain="stp"),
    ]
    assert spelled(compiled(*filters))["from"] == ["ether-dst=01:80:c2:00:00:00 jump stp", "jump mac"]


@pytest.mark.parametrize(
    ("documented", "read"),
    [("port='1' port_hi='2'", "port='1' port-hi='2'"), ("msg-age='1' msg-age-hi='2'", "age='1' age-hi='2'")],
)
def test_difference_3_both_spellings_of_stp_attributes(documented: str, read: str) -> None:
    """port_hi, msg-age, msg-age-hi, as documents spell them, are port-hi, age, age-hi, as libvirt's code does."""
    assert compiled_rule(f"<stp {documented}/>") == compiled_rule(f"<stp {read}/>")


@pytest.mark.parametrize("element", ["icmp", "icmpv6"])
@pytest.mark.parametrize("action", ["accept", "drop"])
def test_difference_4_a_type_in_both_directions(element: str, action: str) -> None:
    """A typed icmp rule with 'inout' is made in both directions; libvirt makes none at all."""
    trees = spelled(compiled_rule(f"<{element} type='8' code='0'/>", action=action, direction="inout"))
    assert set(trees) == {"from-l3", "to-l3"}
    for rules in trees.values():
        (rule,) = rules
        assert f"{element}-type=8 {element}-code=0" in rule
        assert rule.endswith(action)


def test_difference_5_igmp_over_ipv6() -> None:
    """igmp-ipv6 is protocol 2 over IPv6; libvirt takes it for a rule that matches every frame."""
    assert spelled(compiled_rule("<igmp-ipv6 srcipaddr='fe80::1'/>"))["from-l3"] == [
        "ether-type=0x86dd ip6-src=fe80::1 l4-protocol=2 drop"
    ]


@pytest.mark.parametrize("element", ["icmp", "igmp", "esp", "ah", "udplite", "all"])
def test_difference_5_macs_of_the_2010_document(element: str) -> None:
    """Mask and destination MAC are compared where the packet travels as written; libvirt ignores them."""
    macs = "srcmacaddr='52:54:0:0:0:1' srcmacmask='ff:ff:ff:0:0:0' dstmacaddr='2:0:0:0:0:9' dstmacmask='ff:0:0:0:0:0'"
    written = "ether-src&ff:ff:ff:00:00:00=52:54:00:00:00:00 ether-dst&ff:00:00:00:00:00=02:00:00:00:00:00 "
    trees = spelled(compiled_rule(f"<{element} {macs} srcipaddr='192.0.2.7'/>", direction="out"))
    assert trees["from-l3"][0].startswith(written)
    assert " ip-src=192.0.2.7 " in trees["from-l3"][0]
    assert "ether-src" not in trees["to-l3"][0]
    assert "ether-dst" not in trees["to-l3"][0]
    assert " ip-dst=192.0.2.7 " in trees["to-l3"][0]


def test_difference_6_layer_3_sees_every_frame_at_the_port() -> None:
    """Layer 3 looks at all that goes through the port; libvirt misses host to guest, and routed traffic."""
    assert set(spelled(compiled_rule("<all/>", direction="inout"))) == {"from-l3", "to-l3"}
    hooks = {base.stage: (base.hook, base.selector) for base in BASE_CHAINS}
    assert hooks[Stage.FROM_L3] == ("prerouting", "iifname")
    assert hooks[Stage.TO_L3] == ("postrouting", "oifname")
    text = script(compiled_rule("<all/>", direction="inout"))
    assert 'nwfilter from-guest-l3 { "vnet0" : jump from-l3/vnet0 }' in text
    assert 'nwfilter to-guest-l3 { "vnet0" : jump to-l3/vnet0 }' in text
    assert "ibrname" not in text


def test_difference_7_continue_at_layer_3() -> None:
    """`continue` at layer 3 goes on with the next rule; with libvirt the guest can't start."""
    rules = filter_xml(rule_xml("<all/>", action="continue"), rule_xml("<tcp/>"))
    assert spelled(compiled(rules))["from-l3"] == ["ether-type=0x800 continue", "ether-type=0x800 ip-protocol=6 drop"]
    assert 'ether type ip continue comment "f:2"' in script(compiled(rules))


def test_difference_8_the_address_is_learned_in_the_kernel() -> None:
    """Without IP, the first IPv4 or ARP frame under the guest's MAC teaches the set that the rules look up."""
    ruleset = compiled(filter_xml(rule_xml("<ip srcipaddr='$IP'/>", action="accept"), rule_xml()))
    own = f"ether-src={MAC}"
    not_odd = (
        "{0}!=0.0.0.0 {0}&255.0.0.0!=127.0.0.0 {0}&255.255.0.0!=169.254.0.0 {0}&224.0.0.0!=224.0.0.0 learn {0}->learned"
    )
    assert spelled(ruleset) == {
        "from": [
            f"{own} ether-type=0x800 {not_odd.format('ip-src')}",
            f"{own} ether-type=0x806 arp-htype=1 arp-ptype=0x800 arp-hlen=6 arp-plen=4 arp-src-mac={MAC} "
            + not_odd.format("arp-src-ip"),
            "ether-type=0x800 ip-src=@learned accept",
            "drop",
        ]
    }
    assert "set bridge nwfilter learned/vnet0/vnet0 { typeof @nh,64,32; size 1; flags dynamic" in script(ruleset)


def test_difference_8_learning_starts_anew_with_the_guest() -> None:
    """A guest that starts is learned anew; one whose rules are only repaired keeps its address."""
    ruleset = compiled_rule("<ip srcipaddr='$IP'/>")
    forget = "flush set bridge nwfilter learned/vnet0/vnet0"
    assert forget in transaction(ruleset).text
    assert forget not in transaction(ruleset, fresh=False).text


def test_difference_9_macvtap_is_filtered() -> None:
    """A macvtap's frames are filtered on the device, what the guest sends at its egress; libvirt ignores the filter."""
    text = script(compiled_rule("<arp/>", direction="inout", attachment=Attachment.MACVTAP))
    hook = '{{ type filter hook {} device "vnet0" priority -300; policy accept; }}'
    assert f"add chain netdev nwfilter from/vnet0 {hook.format('egress')}" in text
    assert f"add chain netdev nwfilter to/vnet0 {hook.format('ingress')}" in text
    assert " bridge " not in text


@pytest.mark.parametrize("attachment", [Attachment.MACVTAP, Attachment.DEVICE])
def test_difference_9_layer_3_needs_a_bridge_port(attachment: Attachment) -> None:
    """A rule of layer 3 for what is no bridge port is refused, with its line."""
    with pytest.raises(UnsupportedMatch, match=r"^f.xml:2: <tcp> can't be enforced on vnet0"):
        compiled_rule("<tcp/>", attachment=attachment)


@pytest.mark.netns
def test_difference_10_connections_are_counted_per_source_address() -> None:
    """connlimit-above counts in a set keyed by source address, one set for each rule."""
    rules = [rule_xml(f"<{element} connlimit-above='2'/>", direction="in") for element in ("tcp", "udp", "tcp-ipv6")]
    ruleset = compiled(filter_xml(*rules))
    assert [rule.split()[-2] for rule in spelled(ruleset)["to-l3"]] == ["count(ip-src)>2"] * 2 + ["count(ip6-src)>2"]
    assert len([named for named in ruleset.sets if named.purpose is SetPurpose.CONNLIMIT]) == 3
    text = script(ruleset)
    counted = "ct state new,established,related add @connlimit/vnet0/0 { ip saddr ct count over 2 } drop"
    assert f"ip protocol 6 {counted}" in text
    assert "set bridge nwfilter connlimit6/vnet0/2 { type ipv6_addr; size 65535; flags dynamic; }" in text
    assert complaints(text) == []
