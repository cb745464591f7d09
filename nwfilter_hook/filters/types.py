"""
The data types of attributes, as libvirt's schema names them.

A type knows how a value is read and written, and what a variable may put there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..base.addresses import format_mac, parse_ipv4, parse_ipv6, parse_mac
from ..base.dataclass import dataclass
from .model import Learned, Value
from .values import (
    ARP_OPCODES,
    DECIMAL,
    ETHERTYPES,
    HEXADECIMAL,
    PROTOCOLS,
    Number,
    Parser,
    format_boolean,
    format_ipv4,
    format_ipv6,
    format_length,
    format_set_flags,
    format_states,
    format_tcp_flags,
    ip_mask,
    parse_boolean,
    parse_comment,
    parse_connlimit,
    parse_mac_mask,
    parse_prefix,
    parse_set_flags,
    parse_set_name,
    parse_states,
    parse_tagged,
    parse_tcp_flags,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


@dataclass(frozen=True)
class Type:
    """
    One type.

    Attributes:
        parse: a value's text, ValueError with what would be accepted.
        write: the value in normal form.
        names: numbers that libvirt writes as words, and how.
        words: the words that stand for numbers, in lower case.
        takes_variables: if not, libvirt accepts a variable and then ignores it, fails or gets it wrong.
        hexadecimal_in_variables: libvirt hands the variable to a program that reads hexadecimal whatever it looks like.
        learned_as: the variable that can be learned where it has this type.
        version: of IP, if a variable may hold a network.
    """

    name: str
    parse: Parser
    write: Callable[[Any], str] = str
    names: Mapping[int, str] = {}
    words: Mapping[str, int] = {}
    takes_variables: bool = True
    hexadecimal_in_variables: bool = False
    learned_as: str | None = None
    version: int | None = None

    def format(self, value: Value, *, hexadecimal: bool = False) -> str:
        """The value as libvirt writes it; `hexadecimal` for a number that was written so."""
        if isinstance(value, int) and value in self.names:
            return self.names[value]
        return f"{value:#x}" if hexadecimal else self.write(value)

    def is_hexadecimal(self, text: str, value: Value) -> bool:
        """Whether a number is spelled so, and isn't one that is written by its name."""
        spelled = HEXADECIMAL.fullmatch(text) is not None and DECIMAL.fullmatch(text) is None
        return isinstance(value, int) and spelled and value not in self.names

    def parse_bound(self, text: str) -> Value:
        """
        The value that a variable has.

        Raises:
            ValueError: as `parse`; or plain digits where libvirt would read them as hexadecimal.
        """
        if self.version and "/" in text:
            return parse_prefix(text, self.version)
        if self.hexadecimal_in_variables and text.isascii() and text.isdigit() and len(text) > 1:
            raise ValueError(f"a number with 0x in front here (libvirt reads a variable's {text} as 0x{text})")
        return self.parse(text)

    def can_be(self, learned: Learned) -> bool:
        """Whether what is learned can stand here."""
        return self.learned_as == learned.variable


_ETHER_NAMES = {number: name for name, number in ETHERTYPES.items()}
_PROTOCOL_NAMES = {number: name for name, number in PROTOCOLS.items()}
_OPCODE_NAMES = {
    1: "Request",
    2: "Reply",
    3: "Request_Reverse",
    4: "Reply_Reverse",
    5: "DRARP_Request",
    6: "DRARP_Reply",
    7: "DRARP_Error",
    8: "InARP_Request",
    9: "ARP_NAK",
}

UINT8 = Type("UINT8", Number(0, 0xFF))
UINT16 = Type("UINT16", Number(0, 0xFFFF))
UINT32 = Type("UINT32", Number(0, 0xFFFFFFFF))
DSCP = Type("DSCP", Number(0, 63))
VLANID = Type("VLANID", Number(0, 4094))
ETHERTYPE = Type(
    "ETHERTYPE",
    Number(0x600, 0xFFFF, ETHERTYPES),
    names=_ETHER_NAMES,
    words=ETHERTYPES,
    hexadecimal_in_variables=True,
)
ENCAPTYPE = Type(
    "ENCAPTYPE", Number(0x3C, 0xFFFF, ETHERTYPES), names=_ETHER_NAMES, words=ETHERTYPES, hexadecimal_in_variables=True
)
PROTOCOLTYPE = Type("PROTOCOLTYPE", Number(0, 0xFFFF), hexadecimal_in_variables=True)
OPCODE = Type("OPCODE", Number(0, 0xFFFF, ARP_OPCODES), names=_OPCODE_NAMES, words=ARP_OPCODES)
PROTOCOL = Type("PROTOCOL", Number(0, 0xFF, PROTOCOLS), names=_PROTOCOL_NAMES, words=PROTOCOLS)
CONNLIMIT = Type("CONNLIMIT", parse_connlimit)
MAC_ADDR = Type("MAC_ADDR", parse_mac, format_mac, learned_as="MAC")
MAC_MASK = Type("MAC_MASK", parse_mac_mask, format_mac)
IP_ADDR = Type("IP_ADDR", parse_ipv4, format_ipv4, learned_as="IP", version=4)
IP_MASK = Type("IP_MASK", ip_mask(32, parse_ipv4, "255.255.255.0"), format_length)
IPV6_ADDR = Type("IPV6_ADDR", parse_ipv6, format_ipv6, learned_as="IPV6", version=6)
IPV6_MASK = Type("IPV6_MASK", ip_mask(128, parse_ipv6, "ffff:ffff::"), format_length)
STATES = Type("STATES", parse_states, format_states, takes_variables=False)
TCPFLAGS = Type("TCPFLAGS", parse_tcp_flags, format_tcp_flags, takes_variables=False)
IPSETNAME = Type("IPSETNAME", parse_set_name)
IPSETFLAGS = Type("IPSETFLAGS", parse_set_flags, format_set_flags, takes_variables=False)
BOOLEAN = Type("BOOLEAN", parse_boolean, format_boolean, takes_variables=False)
TAGGED = Type("TAGGED", parse_tagged)
STRING = Type("STRING", parse_comment, takes_variables=False)

TYPES: dict[str, Type] = {
    each.name: each
    for each in (
        *(UINT8, UINT16, UINT32, DSCP, VLANID),
        *(ETHERTYPE, ENCAPTYPE, PROTOCOLTYPE, OPCODE, PROTOCOL),
        *(CONNLIMIT, MAC_ADDR, MAC_MASK, IP_ADDR, IP_MASK),
        *(IPV6_ADDR, IPV6_MASK, STATES, TCPFLAGS, IPSETNAME),
        *(IPSETFLAGS, BOOLEAN, TAGGED, STRING),
    )
}
"""Type by name."""
