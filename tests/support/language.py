"""
The table of the nwfilter language, tests/data/language/attributes.csv, with an example for every row.

The table says what is accepted; the examples, written by hand, say what an attribute means: the condition it makes.
Both know nothing of the package's own table.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import quoteattr

TABLE = Path(__file__).parents[2] / "data" / "language" / "attributes.csv"


@dataclass(frozen=True)
class Row:
    """One line of the table: an attribute of a protocol element."""

    protocol: str
    layer: str
    attribute: str
    datatype: str
    low: str
    high: str
    allows_variable: bool
    negatable: bool
    documented_only: bool

    @property
    def is_ipv6(self) -> bool:
        return self.protocol.endswith("ipv6") or self.protocol == "icmpv6"

    def __str__(self) -> str:
        return f"{self.protocol}-{self.attribute}"


@dataclass(frozen=True)
class Example:
    """
    One attribute at work.

    Attributes:
        value: as in the XML, and as a parameter's value.
        condition: what it compiles to for a packet that travels as written; {s} stands for = or !=. "" for none.
        base: attributes it completes, in the same node; so low that every value can end a range from there.
        needs: attributes of another node of the rule, which keep their own sign.
        signed: False if match='no' has no effect on it.
        refused: match='no' beside it is an error.
    """

    value: str
    condition: str
    base: str = ""
    needs: str = ""
    signed: bool = True
    refused: bool = False


def rows() -> list[Row]:
    """Every attribute of every protocol element."""
    return [row for row in _read() if row.layer != "n/a"]


def structure_rows() -> list[Row]:
    """The attributes of <filter>, <rule>, <filterref>, <parameter>."""
    return [row for row in _read() if row.layer == "n/a"]


def _read() -> Iterator[Row]:
    with TABLE.open(newline="") as file:
        for line in csv.DictReader(file):
            yield Row(
                protocol=line["protocol"],
                layer=line["layer"],
                attribute=line["attribute"],
                datatype=line["datatype"].split(" ")[0] if " or name" not in line["datatype"] else line["datatype"],
                low=line["min"],
                high=line["max"],
                # libvirt takes one for ipsetflags but doesn't exchange it in the other direction
                allows_variable=line["allows_variable"] == "yes" and line["datatype"] != "IPSETFLAGS",
                negatable=line["negatable"] == "yes",
                documented_only=line["notes"].startswith("DOC-ONLY"),
            )


def node(protocol: str, attribute: str, value: str, example: Example, *, negated: bool = False) -> str:
    """The protocol element with `attribute`, and what must stand beside it."""
    sign = "match='no' " if negated else ""
    needs = f"<{protocol} {example.needs}/>" if example.needs else ""
    return f"{needs}<{protocol} {sign}{example.base} {attribute}={quoteattr(value)}/>"


def example(row: Row) -> Example:
    """The example for `row`; StopIteration if there is none."""
    return next(EXAMPLES[key] for key in _keys(row) if key in EXAMPLES)


def _keys(row: Row) -> tuple[str, str, str]:
    """Where its example may be, the most particular first."""
    own = "arp" if row.protocol == "rarp" and row.attribute != "tagged" else row.protocol
    family = "ipv6" if row.is_ipv6 else "ipv4"
    return f"{own} {row.attribute}", f"{family}: {row.attribute}", row.attribute


_MAC = "52:54:00:aa:bb:cc"

EXAMPLES = {
    # layer 2
    "srcmacaddr": Example(_MAC, f"ether-src{{s}}{_MAC}"),
    "srcmacmask": Example(
        "ff:ff:ff:00:00:00", "ether-src&ff:ff:ff:00:00:00{s}52:54:00:00:00:00", f"srcmacaddr='{_MAC}'"
    ),
    "dstmacaddr": Example(_MAC, f"ether-dst{{s}}{_MAC}"),
    "dstmacmask": Example(
        "ff:ff:ff:00:00:00", "ether-dst&ff:ff:ff:00:00:00{s}52:54:00:00:00:00", f"dstmacaddr='{_MAC}'"
    ),
    "protocolid": Example("0x88cc", "ether-type{s}0x88cc"),
    "vlanid": Example("42", "vlan-id{s}42"),
    "encap-protocol": Example("0x0806", "vlan-type{s}0x806"),
    "comment": Example('why; it\'s here: "$x"', ""),
    "arp hwtype": Example("6", "arp-htype{s}6"),
    "arp protocoltype": Example("0x0806", "arp-ptype{s}0x806"),
    "arp opcode": Example("Reply", "arp-opcode{s}2"),
    "arp arpsrcmacaddr": Example(_MAC, f"arp-src-mac{{s}}{_MAC}"),
    "arp arpdstmacaddr": Example(_MAC, f"arp-dst-mac{{s}}{_MAC}"),
    "arp arpsrcipaddr": Example("192.0.2.7", "arp-src-ip{s}192.0.2.7"),
    "arp arpsrcipmask": Example("24", "arp-src-ip&255.255.255.0{s}192.0.2.0", "arpsrcipaddr='192.0.2.7'"),
    "arp arpdstipaddr": Example("192.0.2.7", "arp-dst-ip{s}192.0.2.7"),
    "arp arpdstipmask": Example("24", "arp-dst-ip&255.255.255.0{s}192.0.2.0", "arpdstipaddr='192.0.2.7'"),
    "arp gratuitous": Example("true", "arp-src-ip{s}arp-dst-ip"),
    # ours: 802.3 instead of an EtherType, behind a VLAN tag, fragments, neighbour discovery, DHCP
    "snap": Example("yes", f"snap={0xAAAA03000000}", refused=True),
    "arp tagged": Example("yes", "vlan-type=0x806", refused=True),
    "rarp tagged": Example("yes", "vlan-type=0x8035", refused=True),
    "ipv4: tagged": Example("yes", "vlan-type=0x800", refused=True),
    "ipv6: tagged": Example("yes", "vlan-type=0x86dd", refused=True),
    "ipv4: laterfragment": Example("yes", "ip-fragment&8191!=0", refused=True),
    "ipv6: laterfragment": Example("yes", "ip6-fragment!=0", refused=True),
    "ndlength": Example("24", "ip6-length{s}24"),
    "ndtarget": Example("fe80::7", "nd-target{s}fe80::7"),
    "ndmacaddr": Example(_MAC, f"nd-mac{{s}}{_MAC}"),
    "dhcpop": Example("1", "dhcp-op{s}1"),
    "dhcpciaddr": Example("192.0.2.7", "dhcp-own{s}192.0.2.7"),
    "dhcpgiaddr": Example("192.0.2.7", "dhcp-relay{s}192.0.2.7"),
    "dhcpchaddr": Example(_MAC, f"dhcp-client{{s}}{_MAC}"),
    "dhcptype": Example("8", "dhcp6-type{s}8"),
    "dhcptypeend": Example("8", "dhcp6-type{s}0..8", "dhcptype='0'"),
    "stp type": Example("128", "stp-type{s}128"),
    "stp flags": Example("1", "stp-flags{s}1"),
    "root-priority": Example("4096", "stp-root-priority{s}4096"),
    "root-priority-hi": Example("4096", "stp-root-priority{s}0..4096", "root-priority='0'"),
    "root-address": Example(_MAC, f"stp-root-address{{s}}{0x525400AABBCC}"),
    "root-address-mask": Example(
        "ff:ff:ff:00:00:00",
        f"stp-root-address&{0xFFFFFF000000}{{s}}{0x525400000000}",
        f"root-address='{_MAC}'",
    ),
    "root-cost": Example("200000", "stp-root-cost{s}200000"),
    "root-cost-hi": Example("200000", "stp-root-cost{s}0..200000", "root-cost='0'"),
    "sender-priority": Example("4096", "stp-sender-priority{s}4096"),
    "sender-priority-hi": Example("4096", "stp-sender-priority{s}0..4096", "sender-priority='0'"),
    "sender-address": Example(_MAC, f"stp-sender-address{{s}}{0x525400AABBCC}"),
    "sender-address-mask": Example(
        "ff:ff:ff:00:00:00",
        f"stp-sender-address&{0xFFFFFF000000}{{s}}{0x525400000000}",
        f"sender-address='{_MAC}'",
    ),
    "port": Example("32769", "stp-port{s}32769"),
    "port-hi": Example("32769", "stp-port{s}0..32769", "port='0'"),
    "port_hi": Example("32769", "stp-port{s}0..32769", "port='0'"),
    "age": Example("256", "stp-age{s}256"),
    "age-hi": Example("256", "stp-age{s}0..256", "age='0'"),
    "msg-age": Example("256", "stp-age{s}256"),
    "msg-age-hi": Example("256", "stp-age{s}0..256", "msg-age='0'"),
    "max-age": Example("5120", "stp-max-age{s}5120"),
    "max-age-hi": Example("5120", "stp-max-age{s}0..5120", "max-age='0'"),
    "hello-time": Example("512", "stp-hello-time{s}512"),
    "hello-time-hi": Example("512", "stp-hello-time{s}0..512", "hello-time='0'"),
    "forward-delay": Example("3840", "stp-forward-delay{s}3840"),
    "forward-delay-hi": Example("3840", "stp-forward-delay{s}0..3840", "forward-delay='0'"),
    "ip protocol": Example("udp", "ip-protocol{s}17"),
    "ipv6 protocol": Example("udp", "l4-protocol{s}17"),
    "ip srcportstart": Example("1024", "src-port{s}1024", needs="protocol='udp'"),
    "ip srcportend": Example("2048", "src-port{s}0..2048", "srcportstart='0'", "protocol='udp'"),
    "ip dstportstart": Example("1024", "dst-port{s}1024", needs="protocol='udp'"),
    "ip dstportend": Example("2048", "dst-port{s}0..2048", "dstportstart='0'", "protocol='udp'"),
    "ipv6 srcportstart": Example("1024", "src-port{s}1024", needs="protocol='33'"),
    "ipv6 srcportend": Example("2048", "src-port{s}0..2048", "srcportstart='0'", "protocol='132'"),
    "ipv6 dstportstart": Example("1024", "dst-port{s}1024", needs="protocol='tcp'"),
    "ipv6 dstportend": Example("2048", "dst-port{s}0..2048", "dstportstart='0'", "protocol='sctp'"),
    "ipv6 type": Example("135", "icmpv6-type{s}135"),
    "ipv6 typeend": Example("136", "icmpv6-type{s}0..136", "type='0'"),
    "ipv6 code": Example("3", "icmpv6-code{s}3", "type='1'"),
    "ipv6 codeend": Example("4", "icmpv6-code{s}0..4", "type='1' code='0'"),
    # both layers
    "ipv4: srcipaddr": Example("192.0.2.7", "ip-src{s}192.0.2.7"),
    "ipv4: srcipmask": Example("24", "ip-src&255.255.255.0{s}192.0.2.0", "srcipaddr='192.0.2.7'"),
    "ipv4: dstipaddr": Example("192.0.2.7", "ip-dst{s}192.0.2.7"),
    "ipv4: dstipmask": Example("24", "ip-dst&255.255.255.0{s}192.0.2.0", "dstipaddr='192.0.2.7'"),
    "ipv6: srcipaddr": Example("2001:db8::7", "ip6-src{s}2001:db8::7"),
    "ipv6: srcipmask": Example("32", "ip6-src&ffff:ffff::{s}2001:db8::", "srcipaddr='2001:db8::7'"),
    "ipv6: dstipaddr": Example("2001:db8::7", "ip6-dst{s}2001:db8::7"),
    "ipv6: dstipmask": Example("32", "ip6-dst&ffff:ffff::{s}2001:db8::", "dstipaddr='2001:db8::7'"),
    "ipv4: dscp": Example("46", "ip-dscp{s}46"),
    "ipv6: dscp": Example("46", "ip6-dscp{s}46"),
    # layer 3
    "ipv4: srcipfrom": Example("192.0.2.7", "ip-src{s}192.0.2.7"),
    "ipv4: srcipto": Example("192.0.2.7", "ip-src{s}0.0.0.0..192.0.2.7", "srcipfrom='0.0.0.0'"),
    "ipv4: dstipfrom": Example("192.0.2.7", "ip-dst{s}192.0.2.7"),
    "ipv4: dstipto": Example("192.0.2.7", "ip-dst{s}0.0.0.0..192.0.2.7", "dstipfrom='0.0.0.0'"),
    "ipv6: srcipfrom": Example("2001:db8::7", "ip6-src{s}2001:db8::7"),
    "ipv6: srcipto": Example("2001:db8::7", "ip6-src{s}::..2001:db8::7", "srcipfrom='::'"),
    "ipv6: dstipfrom": Example("2001:db8::7", "ip6-dst{s}2001:db8::7"),
    "ipv6: dstipto": Example("2001:db8::7", "ip6-dst{s}::..2001:db8::7", "dstipfrom='::'"),
    "srcportstart": Example("1024", "src-port{s}1024"),
    "srcportend": Example("2048", "src-port{s}0..2048", "srcportstart='0'"),
    "dstportstart": Example("1024", "dst-port{s}1024"),
    "dstportend": Example("2048", "dst-port{s}0..2048", "dstportstart='0'"),
    "option": Example("8", "tcp-option{s}8"),
    "flags": Example("SYN,ACK/SYN", "tcp-flags&0x12{s}0x2"),
    "icmp type": Example("8", "icmp-type{s}8"),
    "icmp typeend": Example("8", "icmp-type{s}0..8", "type='0'"),
    "icmp code": Example("1", "icmp-code{s}1", "type='3'"),
    "icmp codeend": Example("1", "icmp-code{s}0..1", "type='3' code='0'"),
    "icmpv6 type": Example("128", "icmpv6-type{s}128"),
    "icmpv6 typeend": Example("8", "icmpv6-type{s}0..8", "type='0'"),
    "icmpv6 code": Example("1", "icmpv6-code{s}1", "type='1'"),
    "icmpv6 codeend": Example("1", "icmpv6-code{s}0..1", "type='1' code='0'"),
    # "more than" and "not more than" instead of a sign
    "ipv4: connlimit-above": Example("5", "count(ip-src){s}5"),
    "ipv6: connlimit-above": Example("5", "count(ip6-src){s}5"),
    "state": Example("NEW,RELATED", "ct-state=new,related", signed=False),
    "ipv4: ipset": Example("blocked", "ip-src=@ipset:blocked", signed=False),
    "ipv4: ipsetflags": Example("dst", "ip-dst=@ipset:blocked", "ipset='blocked'", signed=False),
    "ipv6: ipset": Example("blocked", "ip6-src=@ipset:blocked", signed=False),
    "ipv6: ipsetflags": Example("dst", "ip6-dst=@ipset:blocked", "ipset='blocked'", signed=False),
}


_NAMES = {
    "protocolid": ("arp", "rarp", "ipv4", "ipv6", "vlan", "IPv4"),
    "encap-protocol": ("arp", "rarp", "ipv4", "ipv6", "vlan", "ARP"),
    "opcode": (
        *("Request", "Reply", "Request_Reverse", "Reply_Reverse", "DRARP_Request", "DRARP_Reply", "DRARP_Error"),
        *("InARP_Request", "ARP_NAK", "request"),
    ),
    "protocol": ("tcp", "udp", "udplite", "esp", "ah", "icmp", "igmp", "sctp", "icmpv6", "TCP"),
}
_ACCEPTED = {
    "MAC_ADDR": ("00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "1:2:3:4:5:6", "FE:DC:BA:98:76:54"),
    "MAC_MASK": ("00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "ff:ff:ff:fc:00:00", "80:0:0:0:0:0"),
    "IP_ADDR": ("0.0.0.0", "255.255.255.255"),
    "IP_MASK": ("0", "1", "32", "0.0.0.0", "255.255.248.0", "255.255.255.255"),
    "IPV6_ADDR": ("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "::ffff:192.0.2.7", "FE80::1"),
    "IPV6_MASK": ("0", "1", "128", "::", "ffff:ffff:fc00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    "BOOLEAN": ("true", "1", "yes", "false", "0", "no"),
    "TAGGED": ("yes", "any", "no"),
    "STATELIST": ("NEW", "established,Related", "NEW ESTABLISHED  INVALID", "NEW, RELATED", "NONE", "NEW,NONE", ""),
    "TCPFLAGS": (
        "SYN/SYN",
        "ALL/NONE",
        "SYN,ACK,fin/ack",
        "ALL/ALL",
        "NONE/NONE",
        "SYN/ACK",
        "URG,PSH,RST/URG",
        "PSH/",
    ),
    "IPSETNAME": ("x", "Name_with.all:of+the-rest here", "n" * 31),
    "IPSETFLAGS": ("src", "dst", "SRC,dst", "src,dst,src,dst", "src,dst,src,dst,src,dst"),
    "STRING": ("", "c" * 256, "c" * 300, "§" * 300, "$x"),
}
_REJECTED = {
    "MAC_ADDR": ("", "52-54-00-aa-bb-cc", "52:54:00:aa:bb", "52:54:00:aa:bb:cc:dd", "52:54:00:aa:bb:100", "no"),
    "MAC_MASK": ("", "ff:00:ff:00:00:00", "7f:ff:ff:ff:ff:ff", "24", "ff:ff:ff"),
    "IP_ADDR": ("", "256.0.0.1", "10.1", "0x0a000001", "10.0.0.0/8", "::1", "host.example", "10.0.0.1 "),
    "IP_MASK": ("", "33", "-1", "255.0.255.0", "0.0.0.255", "255.255", "/24", "ffff::"),
    "IPV6_ADDR": ("", "2001:db8::/32", "fe80::1%eth0", "192.0.2.7", ":::", "12345::", "1:2:3:4:5:6:7:8:9"),
    "IPV6_MASK": ("", "129", "-1", "ffff::ffff", "::ffff", "255.255.0.0", "/64"),
    "BOOLEAN": ("", "maybe", "True", "2"),
    "TAGGED": ("", "true", "1", "YES", "both"),
    "STATELIST": ("NEU", "NEW;RELATED", "NEW|RELATED", "UNTRACKED"),
    "TCPFLAGS": ("", "SYN", "/SYN", "/", "SYN/ACK/FIN", "SYN ACK/SYN", "ECE/ECE"),
    "IPSETNAME": ("", "n" * 32, "a/b", 'a"b', "a;b", "a\nb", "ä"),
    "IPSETFLAGS": ("", "source", "src dst", "src,,dst", "src,", "src,dst,src,dst,src,dst,src"),
    "STRING": (),
}
# 4095 is reserved in IEEE 802.1Q and no backend takes it; the table has the bound of libvirt's parser
_HIGH = {"vlanid": 4094}


def accepted(row: Row) -> tuple[str, ...]:
    """Values at and inside the bounds of `row`, in every form."""
    if row.datatype == "IPSETFLAGS" and row.is_ipv6:  # nft's keys have 64 bytes: four IPv6 addresses
        return tuple(value for value in _ACCEPTED[row.datatype] if value.count(",") < 4)
    if row.datatype in _ACCEPTED:
        return _ACCEPTED[row.datatype]
    low, high = int(row.low, 0), _HIGH.get(row.attribute, int(row.high, 0))
    if row.attribute == "connlimit-above":  # decimal only
        return str(low), str(high)
    return str(low), hex(low), str(high), hex(high), f"{high:x}", f"0X{high:X}", *_NAMES.get(row.attribute, ())


def rejected(row: Row) -> tuple[str, ...]:
    """Values just outside the bounds of `row`, and others of the wrong form."""
    if row.datatype in _REJECTED:
        return _REJECTED[row.datatype]
    low, high = int(row.low, 0), _HIGH.get(row.attribute, int(row.high, 0))
    below = (str(low - 1), hex(low - 1)) if low else ("-1",)
    return ("", *below, str(high + 1), hex(high + 1), "0x", "1.5", "5,6", "1-2", "nosuchname", "٣")


def gaps(row: Row) -> list[str]:
    """What the examples lack for `row`: an example, a bound, a value just outside, one of the wrong form."""
    good: Sequence[str] = ()
    bad: Sequence[str] = ()
    if row.layer == "n/a":
        good, bad, _ = STRUCTURE.get((row.protocol, row.attribute), ([], [], ""))
        found = []
    elif row.attribute == "match":
        return []  # yes or no, on every element: test_match_is_yes_or_no
    else:
        found = [] if any(key in EXAMPLES for key in _keys(row)) else ["an example"]
        if row.datatype in _ACCEPTED or _NUMBER.fullmatch(row.low):
            good, bad = accepted(row), rejected(row)
    found += [] if good else ["an accepted value"]
    # every text is a comment
    found += [] if bad or row.attribute == "comment" else ["a rejected value"]
    bounds = [int(bound, 0) for bound in (row.low, row.high) if _NUMBER.fullmatch(bound)]
    if len(bounds) == 2 and row.datatype not in _COUNTED:
        low, high = bounds[0], _HIGH.get(row.attribute, bounds[1])
        found += [f"its bound {bound}" for bound in (low, high) if str(bound) not in good]
        found += [f"{bound}, just outside" for bound in (low - 1, high + 1) if str(bound) not in bad]
    return found


_NUMBER = re.compile(r"-?(0x)?[0-9a-f]+")
_COUNTED = ("IPSETFLAGS",)
"""Their bounds are those of a length."""


_RULE = "<rule action='drop' direction='inout'/>"

STRUCTURE = {
    ("filter", "name"): (
        ["clean-traffic", "a", "0day", "x.y:z+1@h", "n" * 100],
        ["", "-x", "a b", "a/b", "..", 'a"b', "a;b", "n" * 101, "ä"],
        f"<filter name='{{}}'>{_RULE}</filter>",
    ),
    ("filter", "chain"): (
        ["root", "mac", "arpfoo", "arp-a.b:c_d", "ipv6-1234567", "stp", "vlan-10", "rarp"],
        ["rootX", "foo", "ip", "ipv6-12345678", "arp x", "ARP", "arp/x", "-arp"],
        f"<filter name='f' chain='{{}}'>{_RULE}</filter>",
    ),
    ("filter", "priority"): (
        ["-1000", "1000", "0", "+5", " 7"],
        ["-1001", "1001", "x", "0x10", "1.5", "5 ", "9" * 10_000],
        f"<filter name='f' chain='arp' priority='{{}}'>{_RULE}</filter>",
    ),
    ("filter", "uuid (child element)"): (
        ["5c6d49af-b071-6127-b4ec-6f8ed4b55335", "5c6d49afb0716127b4ec6f8ed4b55335", ""],
        ["5c6d49af", "5c6d49af-b071-6127-b4ec-6f8ed4b5533g", "5c6d49af-b071-6127-b4ec-6f8ed4b55335-00"],
        f"<filter name='f'><uuid>{{}}</uuid>{_RULE}</filter>",
    ),
    ("rule", "action"): (
        ["drop", "accept", "reject", "return", "continue"],
        ["", "DROP", "deny", "jump"],
        "<filter name='f'><rule action='{}' direction='in'/></filter>",
    ),
    ("rule", "direction"): (
        ["in", "out", "inout"],
        ["", "IN", "both"],
        "<filter name='f'><rule action='drop' direction='{}'/></filter>",
    ),
    ("rule", "priority"): (
        ["-1000", "1000", "0", "+5"],
        ["-1001", "1001", "", "x", "0x10", "9" * 10_000],
        "<filter name='f'><rule action='drop' direction='in' priority='{}'/></filter>",
    ),
    ("rule", "statematch"): (
        ["0", "false", "False", "1", "true", "TRUE"],
        ["", "no", "off", "2"],
        "<filter name='f'><rule action='drop' direction='in' statematch='{}'/></filter>",
    ),
    ("filterref", "filter"): (
        ["clean-traffic"],
        ["", "../x", "a b"],
        "<filter name='f'><filterref filter='{}'/></filter>",
    ),
    ("parameter", "name"): (
        ["IP", "a_1", "0"],
        ["", "A-B", "A B", "$A", "ä"],
        "<filter name='f'><filterref filter='x'><parameter name='{}' value='1'/></filterref></filter>",
    ),
    ("parameter", "value"): (
        ["10.1.2.3", "a_b", "52:54:00:00:00:01", "::1"],
        ["", "10.0.0.0/8", "a,b", "a-b", "50%", "*", "a b", "a&#10;b", "$X", "ä"],
        "<filter name='f'><filterref filter='x'><parameter name='A' value='{}'/></filterref></filter>",
    ),
}
"""Of <filter>, <rule>, <filterref>, <parameter>: values that are accepted, others that aren't, a filter for either."""
