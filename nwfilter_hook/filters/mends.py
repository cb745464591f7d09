"""
What to write instead of a value that was refused, where that is plain.

In:  the text, and what it was given for: an attribute of a protocol element, or a type alone.
Out: the end of a message, "; write dstportstart='80'", or "". A value is only proposed if its type takes it.

Loaded when something is wrong, never before.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Callable

from ..base.text import did_you_mean, nearest
from ..ruleset.fields import Field
from .protocols import CHAIN_PRIORITIES, ELEMENTS, Attribute, Element
from .types import IP_ADDR, IPV6_ADDR, STATES, Type
from .values import STATES as STATE_NAMES

_ANYTHING = ("any", "all", "*", "")
# https://www.iana.org/assignments/service-names-port-numbers, ones that people write
_SERVICES = {
    **{"ftp-data": 20, "ftp": 21, "ssh": 22, "telnet": 23, "smtp": 25, "dns": 53, "domain": 53, "bootps": 67},
    **{"bootpc": 68, "tftp": 69, "http": 80, "www": 80, "kerberos": 88, "pop3": 110, "ntp": 123, "imap": 143},
    **{"snmp": 161, "bgp": 179, "ldap": 389, "https": 443, "submission": 587, "ldaps": 636, "imaps": 993, "pop3s": 995},
    **{"nfs": 2049, "mysql": 3306, "rdp": 3389, "postgresql": 5432, "vnc": 5900},
}
# https://www.iana.org/assignments/icmp-parameters, https://www.iana.org/assignments/icmpv6-parameters
_ICMP = {
    **{"echo-reply": 0, "destination-unreachable": 3, "redirect": 5, "echo-request": 8, "ping": 8},
    **{"router-advertisement": 9, "router-solicitation": 10, "time-exceeded": 11, "parameter-problem": 12},
    **{"timestamp-request": 13, "timestamp-reply": 14},
}
_ICMPV6 = {
    **{"destination-unreachable": 1, "packet-too-big": 2, "time-exceeded": 3, "parameter-problem": 4},
    **{"echo-request": 128, "ping": 128, "echo-reply": 129, "router-solicitation": 133, "router-advertisement": 134},
    **{"neighbour-solicitation": 135, "neighbor-solicitation": 135, "neighbour-advertisement": 136},
    **{"neighbor-advertisement": 136, "redirect": 137},
}
# https://www.iana.org/assignments/protocol-numbers, ones that have no name in nwfilter
_MORE_PROTOCOLS = {"ipv6-icmp": 58, "icmp6": 58, "gre": 47, "ospf": 89, "pim": 103, "vrrp": 112, "dccp": 33, "ipip": 4}
_ETHER_TYPES = {"ip": "ipv4", "ip4": "ipv4", "ip6": "ipv6", "802.1q": "vlan", "dot1q": "vlan"}
_SIDES = {"source": "src", "s": "src", "destination": "dst", "dest": "dst", "d": "dst"}
_TRUTH = {
    **dict.fromkeys(("true", "yes", "on", "y", "1"), True),
    **dict.fromkeys(("false", "no", "off", "n", "0"), False),
}

ACTIONS = {
    **dict.fromkeys(("allow", "permit", "pass"), "accept"),
    **dict.fromkeys(("deny", "block", "discard"), "drop"),
}
DIRECTIONS = {
    **dict.fromkeys(("both", "any", "all", "in-out", "in/out", "in,out", "out,in", "forward"), "inout"),
    **dict.fromkeys(("inbound", "incoming", "ingress", "input", "to"), "in"),
    **dict.fromkeys(("outbound", "outgoing", "egress", "output", "from"), "out"),
}
_TRANSPORTS = ("tcp", "udp", "sctp", "all", "esp", "ah")
ELEMENT_NAMES = {
    **{"ether": "mac", "ethernet": "mac", "ipv4": "ip", "ip4": "ip", "ip6": "ipv6", "any": "all"},
    **dict.fromkeys(("icmp6", "icmp-ipv6", "ipv6-icmp", "icmp-v6"), "icmpv6"),
    **{f"{name}{six}": f"{name}-ipv6" for name in _TRANSPORTS for six in ("6", "v6", "-ip6")},
}
_ATTRIBUTE_NAMES = {
    **dict.fromkeys(("dport", "dstport", "port"), "dstportstart"),
    **dict.fromkeys(("sport", "srcport"), "srcportstart"),
    **dict.fromkeys(("saddr", "srcip", "src"), "srcipaddr"),
    **dict.fromkeys(("daddr", "dstip", "dst"), "dstipaddr"),
    **dict.fromkeys(("mac", "srcmac"), "srcmacaddr"),
    **{"dstmac": "dstmacaddr", "states": "state", "ctstate": "state", "connlimit": "connlimit-above"},
    **{"protocol": "protocolid", "vlan": "vlanid"},
}
ROOTS = {
    **{"domain": "; this is a guest", "filterbinding": "; this is a binding, see binding-create"},
    **dict.fromkeys(("rule", "filterref"), "; put it into <filter name='…'>"),
}
"""What to say about a file whose root element is another one."""


# --- words of a fixed list -------------------------------------------------------------------------------------------


def word_meant(word: str, known: Iterable[str], synonyms: Mapping[str, str]) -> str:
    """ "; did you mean 'accept'?" for a word that isn't `known`, or ""."""
    words = list(known)
    plain = word.strip().lower()
    for meant in (plain, synonyms.get(plain, "")):
        if meant in words:
            return f"; did you mean {meant!r}?"
    return did_you_mean(word, words)


def attribute_meant(name: str, known: Iterable[str]) -> str | None:
    """The attribute that an unknown one was probably meant to be."""
    names = list(known)
    plain = name.lower().replace("_", "-")
    synonym = _ATTRIBUTE_NAMES.get(plain.replace("-", ""), "")
    candidates = (plain, plain.replace("-", ""), synonym, f"arp{synonym}")
    return next((each for each in candidates if each in names), None) or nearest(name, names)


def yes_or_no(text: str, words: tuple[str, str]) -> str:
    """ "; write 'yes'" for a text that means one of `words`, the first of which is true."""
    meant = _TRUTH.get(text.strip().lower())
    return "" if meant is None else f"; write {words[0] if meant else words[1]!r}"


def chain_meant(name: str, longest: int) -> str:
    """What a chain that has no known beginning, or too long a name, could be called."""
    plain = re.sub(r"[^a-z0-9_.:-]", "-", name.strip().lower())
    if not plain.startswith(tuple(CHAIN_PRIORITIES)):
        prefix = next((each for each in ("ip6", "ip", "ether") if plain.startswith(each)), None)
        if prefix is None:
            return did_you_mean(name, ("root", *CHAIN_PRIORITIES))
        plain = {"ip6": "ipv6", "ip": "ipv4", "ether": "mac"}[prefix] + plain[len(prefix) :]
    return f"; did you mean {plain[:longest]!r}?"


def variable_meant(text: str) -> str:
    """ "; write $NAME" for a variable in the notation of another language."""
    found = re.fullmatch(r"\$[{(]?([A-Za-z0-9_]+)[})]?", text.strip())
    return f"; write ${found[1]}" if found else ""


# --- values ----------------------------------------------------------------------------------------------------------


def value_meant(type_: Type, text: str) -> str | None:
    """How the value is written that `text` was meant to be, as its type takes it; None if that isn't plain."""
    plain = text.strip()
    candidates = _CANDIDATES.get(type_.name, lambda text: ())
    return next((each for each in (plain, plain.lower(), *candidates(plain)) if _fits(type_, each)), None)


def mend(text: str, attribute: Attribute, element: Element) -> str:
    """The end of the message that refuses `text` for an attribute."""
    name = attribute.name
    for type_, candidate in _by_meaning(text, attribute, element):
        if _fits(type_, candidate):
            return f"; write {name}='{candidate}'"
    right = value_meant(attribute.type, text)
    if right is not None:
        return f"; write {name}='{right}'"
    if text.strip().lower() in _ANYTHING:
        return f"; without {name} any will do"
    return _in_parts(text, attribute, element) or _other_version(text, attribute, element) or _guess(text, attribute)


def _by_meaning(text: str, attribute: Attribute, element: Element) -> Iterator[tuple[Type, str]]:
    """(type, value) for a name that stands for a number."""
    plain = text.strip().lower().replace("_", "-")
    if attribute.field in (Field.SRC_PORT, Field.DST_PORT) or attribute.part_of in ("srcportstart", "dstportstart"):
        yield attribute.type, str(_SERVICES.get(plain, ""))
    if attribute.name == "type" and element.name != "stp":
        yield attribute.type, str((_ICMPV6 if element.is_ipv6 else _ICMP).get(plain, ""))


def _in_parts(text: str, attribute: Attribute, element: Element) -> str:
    """An address with its mask, both ends of a range, or several values in one text."""
    name, type_ = attribute.name, attribute.type
    address, slash, mask = (part.strip() for part in text.partition("/"))
    if slash and attribute.mask and _fits(type_, address):
        mask_type = element.attributes[attribute.mask].type
        mask = mask if _fits(mask_type, mask) else value_meant(mask_type, mask) or ""
        return f"; write {name}='{address}' {attribute.mask}='{mask}'" if mask else ""
    for separator in ("-", ":", ".."):
        low, found, high = (part.strip() for part in text.partition(separator))
        if found and _fits(type_, low) and _fits(type_, high):
            first, last = _range_of(attribute, element)
            return f"; write {first}='{low}' {last}='{high}'" if last else ""
    values = [part for part in re.split(r"[,; \t]+", text.strip()) if part]
    if len(values) > 1 and all(_fits(type_, value) for value in values):
        return "; write a rule for each, or a variable whose parameter is repeated"
    return ""


def _range_of(attribute: Attribute, element: Element) -> tuple[str, str]:
    """The attributes that begin and end a range of these values; ("", "") if there are none."""
    if attribute.end:
        return attribute.name, attribute.end
    side = attribute.name[:3]
    first, last = f"{side}ipfrom", f"{side}ipto"
    return (first, last) if attribute.name == f"{side}ipaddr" and first in element.attributes else ("", "")


def _other_version(text: str, attribute: Attribute, element: Element) -> str:
    """An address of the other IP version."""
    other = {"IP_ADDR": IPV6_ADDR, "IPV6_ADDR": IP_ADDR}.get(attribute.type.name)
    if other is None or not _fits(other, text.strip().partition("/")[0]):
        return ""
    names = {"ip": "ipv6", "icmp": "icmpv6"}
    names.update({name.removesuffix("-ipv6"): name for name in ELEMENTS if name.endswith("-ipv6")})
    names.update({six: four for four, six in names.items()})
    return f"; it goes with <{names[element.name]}>" if element.name in names else ""


def _guess(text: str, attribute: Attribute) -> str:
    """A name that is spelled nearly like this."""
    words = _words(text)
    if attribute.type is STATES:
        near = ",".join(nearest(word, STATE_NAMES) or word for word in words).upper()
        return f"; did you mean {near!r}?" if _fits(STATES, near) else ""
    return did_you_mean(text.strip(), attribute.type.words)


def _fits(type_: Type, text: str) -> bool:
    try:
        type_.parse(text)
    except ValueError:
        return False
    return True


# --- candidates, by type; the first that fits is proposed ------------------------------------------------------------


def _named(more: Mapping[str, object]) -> Callable[[str], Iterator[str]]:
    def candidates(text: str) -> Iterator[str]:
        plain = text.lower()
        yield str(more.get(plain, ""))
        # numbers of four digits that are hexadecimal by custom: 0800
        yield f"0x{plain}"

    return candidates


def _mac(text: str) -> Iterator[str]:
    digits = re.sub(r"[^0-9a-fA-F]", "", text)
    if re.fullmatch(r"[0-9a-fA-F.:-]+", text) and len(digits) == 12:
        yield ":".join(digits[index : index + 2] for index in range(0, 12, 2)).lower()


def _mac_mask(text: str) -> Iterator[str]:
    yield from _mac(text)
    bits = text.lstrip("/")
    if bits.isascii() and bits.isdigit() and len(bits) <= 2 and int(bits) <= 48:
        ones = (1 << 48) - (1 << 48 - int(bits))
        yield ":".join(f"{ones >> shift & 0xFF:02x}" for shift in range(40, -1, -8))


def _mask(text: str) -> Iterator[str]:
    yield text.lstrip("/")
    octets = text.split(".")
    if len(octets) == 4 and all(octet.isascii() and octet.isdigit() and int(octet) < 256 for octet in octets):
        yield ".".join(str(255 - int(octet)) for octet in octets)  # as routers write it: 0.0.0.255


def _ipv6(text: str) -> Iterator[str]:
    yield re.sub(r"[\[\]]|%.*", "", text)


def _words(text: str) -> list[str]:
    return [word for word in re.split(r"[^A-Za-z]+", text.lower()) if word]


def _states(text: str) -> Iterator[str]:
    yield ",".join(_words(text)).upper()


def _set_flags(text: str) -> Iterator[str]:
    yield ",".join(_SIDES.get(word, word) for word in _words(text))


def _tcp_flags(text: str) -> Iterator[str]:
    mask, slash, flags = text.partition("/")
    names, wanted = (",".join(_words(side)).upper() for side in (mask, flags))
    if slash:
        yield f"{names or wanted}/{wanted}"
    elif not {"ALL", "NONE"}.intersection(names.split(",")):
        yield f"{names}/{names}"  # all of these are set


def _connlimit(text: str) -> Iterator[str]:
    if re.fullmatch(r"0[xX][0-9a-fA-F]{1,4}", text):
        yield str(int(text, 16))


def _boolean(text: str) -> Iterator[str]:
    meant = _TRUTH.get(text.lower())
    yield "" if meant is None else "true" if meant else "false"


def _set_name(text: str) -> Iterator[str]:
    yield re.sub(r"[^A-Za-z0-9_.:+ -]", "-", text)


_CANDIDATES = {
    "ETHERTYPE": _named(_ETHER_TYPES),
    "ENCAPTYPE": _named(_ETHER_TYPES),
    "PROTOCOL": _named(_MORE_PROTOCOLS),
    "CONNLIMIT": _connlimit,
    "MAC_ADDR": _mac,
    "MAC_MASK": _mac_mask,
    "IP_MASK": _mask,
    "IPV6_MASK": _mask,
    "IPV6_ADDR": _ipv6,
    "STATES": _states,
    "TCPFLAGS": _tcp_flags,
    "IPSETNAME": _set_name,
    "IPSETFLAGS": _set_flags,
    "BOOLEAN": _boolean,
}
