"""
The table of the nwfilter language, tests/data/language/attributes.csv: what is accepted, and with an example for every
attribute what it means.

    value           as in the XML, and as a parameter's value
    beside          attributes of the same node that it completes; so low that every value can end a range from there
    needs           attributes of another node of the rule, which keep their own sign
    condition       what it compiles to for a packet that travels as written; {s} stands for = or !=
    sign            "none" if match='no' has no effect on it, "refused" if it is an error
    matches         a frame that the rule is about, as FIELD=VALUE …, beside what the element alone says
    differs         one that differs in nothing but the attribute

An element's row for `match` has its own condition, frame, and what another element's frame has.

The table was written by hand and knows nothing of the package's own.
"""

from __future__ import annotations

import csv
import functools
import ipaddress
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import quoteattr

from nwfilter_hook.base.addresses import parse_mac
from nwfilter_hook.ruleset.fields import Field
from tests.conformance.packets import build

TABLE = Path(__file__).parents[1] / "data" / "language" / "attributes.csv"
EXAMPLE = ("value", "beside", "needs", "condition", "sign", "matches", "differs")
NEEDS_CONNECTIONS = ("state", "connlimit-above")
NO_FRAMES = (*NEEDS_CONNECTIONS, "ipset", "ipsetflags", "comment")
"""What no frame alone shows."""


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
    value: str
    beside: str
    needs: str
    condition: str
    sign: str
    matches: str
    differs: str

    @property
    def is_ipv6(self) -> bool:
        return self.protocol.endswith("ipv6") or self.protocol == "icmpv6"

    def __str__(self) -> str:
        return f"{self.protocol}-{self.attribute}"

    def xml(self, value: str | None = None, *, negated: bool = False) -> str:
        """The protocol element with the attribute, and what must stand beside it."""
        sign = "match='no' " if negated else ""
        needs = f"<{self.protocol} {self.needs}/>" if self.needs else ""
        text = quoteattr(self.value if value is None else value)
        return f"{needs}<{self.protocol} {sign}{self.beside} {self.attribute}={text}/>"

    def frames(self) -> tuple[bytes, bytes]:
        """The frame that matches and the one that differs."""
        element = _elements()[self.protocol]
        return frame(element, self.matches), frame(element, self.differs)


def frame(*texts: str) -> bytes:
    """The frame with these fields, each given as NAME=VALUE; of a field given twice the last value counts."""
    pairs = (each.split("=") for text in texts for each in text.split())
    return build({_FIELDS[name]: _number(value) for name, value in pairs})


_FIELDS = {field.label: field for field in Field}


def _number(text: str) -> int:
    if text.count(":") == 5 and "::" not in text:
        return parse_mac(text)
    return int(ipaddress.ip_address(text)) if ":" in text or "." in text else int(text, 0)


@functools.cache
def _elements() -> dict[str, str]:
    """What a frame of each element has."""
    return {row.protocol: row.matches for row in rows() if row.attribute == "match"}


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
                **{
                    name: line[name] for name in ("value", "beside", "needs", "condition", "sign", "matches", "differs")
                },
            )


def every_row(*, connections: bool) -> str:
    """
    The filter "every-row": every attribute, every sign and every action.

    Args:
        connections: with rules that look at connections, and some that reject.
    """
    actions = itertools.cycle(("drop", "accept", "return", "continue", *(("reject",) if connections else ())))
    directions = itertools.cycle(("inout", "out", "in"))
    rules = []
    for row in rows():
        if row.attribute == "match" or (row.attribute in NEEDS_CONNECTIONS and not connections):
            continue
        statematch = "" if connections else " statematch='false'"
        for negated in (False, True) if row.negatable else (False,):
            action, direction = next(actions), next(directions)
            if row.protocol == "stp":
                direction = "out"  # a BPDU with a source can't be inout
            rules.append(
                f"<rule action='{action}' direction='{direction}'{statematch}>{row.xml(negated=negated)}</rule>"
            )
    return f"<filter name='every-row'>{''.join(rules)}</filter>"


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
        found = [] if row.value or row.datatype == "STRING" else ["an example"]
        found += [] if (row.matches and row.differs) or row.attribute in NO_FRAMES else ["its frames"]
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
