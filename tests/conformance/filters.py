"""
Filters made at random from the language's own table, to be compared with the kernel.

In:  a seeded generator of random numbers, and whether the kernel can follow connections.
Out: a `Tree`: filters as XML, and the parameters of the reference to the first of them.

A filter is made of lines, a rule or a reference each, so that one that shows a difference can be made smaller line by
line. Values come from small pools: rules of one tree then mean the same frames often enough to come into each other's
way.
"""

from __future__ import annotations

import ipaddress
import random
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from nwfilter_hook.base.addresses import format_mac, parse_mac
from nwfilter_hook.base.errors import InputError, Source
from nwfilter_hook.compiler.compile import compile_tap
from nwfilter_hook.filters.model import Filter, FilterRef
from nwfilter_hook.filters.parse import parse_filter
from nwfilter_hook.filters.protocols import CHAIN_PRIORITIES, ELEMENTS, PORT_PROTOCOLS, Attribute
from nwfilter_hook.filters.resolve import resolve
from nwfilter_hook.filters.types import TYPES
from nwfilter_hook.ruleset.model import Attachment, Ruleset
from nwfilter_hook.storage.library import Library

STOCK = Library([str(Path(__file__).parents[2] / "filters")])
TAP = "vnet0"
MAC = "52:54:00:00:00:01"
ROOT = "tree"

MACS = (MAC, "52:54:00:00:00:99", "52:54:00:00:00:02", "ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01", "52:54:00:00:01:01")
IPS = ("10.0.0.1", "10.0.0.2", "10.0.0.99", "10.0.1.1", "10.128.0.1", "0.0.0.0", "255.255.255.255", "224.0.0.251")
IP6S = ("2001:db8::1", "2001:db8::2", "2001:db8::99", "2001:db8:0:1::1", "fe80::1", "ff02::1", "::")
PROTOCOLS = ("tcp", "udp", "sctp", "icmp", "icmpv6", "igmp", "udplite", "esp", "ah", "0", "33", "59", "44", "255")
EDGES = {
    "UINT8": (0, 1, 2, 8, 127, 128, 255),
    "UINT16": (0, 1, 22, 80, 255, 256, 40000, 0x8000, 65535),
    "UINT32": (0, 1, 4, 0x10000, 0xFFFFFFFF),
    "DSCP": (0, 1, 46, 63),
    "VLANID": (0, 1, 7, 4094),
    "CONNLIMIT": (0, 1, 2, 65535),
}
NAMES = {
    "ETHERTYPE": ("arp", "rarp", "ipv4", "ipv6", "vlan", "0x9000", "0x600", "0xffff"),
    "ENCAPTYPE": ("arp", "ipv4", "ipv6", "vlan", "0x3c", "0xffff"),
    "OPCODE": ("Request", "Reply", "Request_Reverse", "ARP_NAK", "0", "65535"),
    "PROTOCOL": PROTOCOLS,
    "PROTOCOLTYPE": ("0x800", "0x86dd", "0", "65535"),
    "MAC_ADDR": MACS,
    "IP_ADDR": IPS,
    "IPV6_ADDR": IP6S,
    "IPSETNAME": ("friends", "foes"),
    "IPSETFLAGS": ("src", "dst", "src,dst"),
    "STATES": ("NEW", "ESTABLISHED", "RELATED", "INVALID", "NEW,ESTABLISHED", "ESTABLISHED,RELATED", "NONE"),
    "TCPFLAGS": ("SYN/ALL", "SYN,ACK/SYN", "ALL/NONE", "SYN,ACK,FIN,RST/SYN", "RST/RST", "SYN/SYN,ACK", "ALL/ALL"),
    "BOOLEAN": ("true", "true", "false"),
    "TAGGED": ("yes", "any", "any", "no"),
    "STRING": ("a comment", "'quoted' \\ text"),
}
SUFFIXES = ("", "", "-a", "-b", ".c", ":d")


@dataclass(frozen=True)
class Part:
    """One filter of a tree; `lines` are the rules and references in it."""

    name: str
    chain: str
    priority: int | None
    lines: tuple[str, ...]

    def xml(self) -> str:
        """The filter file."""
        priority = "" if self.priority is None else f" priority='{self.priority}'"
        head = f"<filter name='{self.name}' chain='{self.chain}'{priority}>"
        return "\n".join((head, *self.lines, "</filter>"))


@dataclass(frozen=True)
class Tree:
    """
    Filters, the first of which is the one that the interface refers to.

    Attributes:
        attachment: how the tap is attached.
        texts: more filters that the parts may refer to, as XML by name.
        covered: the rows of the language's table that are in it, (element, attribute).
        end_of_chain: as in the configuration.
    """

    parts: tuple[Part, ...]
    parameters: tuple[tuple[str, tuple[str, ...]], ...]
    covered: frozenset[tuple[str, str]] = frozenset()
    texts: Mapping[str, str] = field(default_factory=dict)
    attachment: Attachment = Attachment.BRIDGE_PORT
    end_of_chain: str = "return"

    def compile(self, tap: str = TAP, mac: str = MAC, *, ingress: bool = True) -> Ruleset:
        """
        As the hook does it; filters that the tree doesn't hold are stock filters.

        Args:
            ingress: False to leave out what libvirt doesn't have at all (difference 19).

        Raises:
            InputError: one of the rules can't be.
        """
        texts = {**self.texts, **{part.name: part.xml() for part in self.parts}}
        by_name = {name: parse_filter(text.encode(), name) for name, text in texts.items()}

        def read(name: str, wanted_by: Source) -> Filter:
            return by_name[name] if name in by_name else STOCK.read(name, wanted_by)

        reference = FilterRef(self.parts[0].name, dict(self.parameters), Source("domain.xml", 1))
        rules = resolve(reference, mac, read)
        return compile_tap(tap, self.attachment, parse_mac(mac), rules, end_of_chain=self.end_of_chain, ingress=ingress)

    def smaller(self) -> Iterator[Tree]:
        """This tree without one line, in every way."""
        for index, part in enumerate(self.parts):
            for line in range(len(part.lines)):
                rest = replace(part, lines=part.lines[:line] + part.lines[line + 1 :])
                yield replace(self, parts=(*self.parts[:index], rest, *self.parts[index + 1 :]))

    def text(self) -> str:
        """All that is needed to see it again."""
        filters = (part.xml() for part in self.parts if part.lines)
        return "\n".join([*filters, f"parameters: {dict(self.parameters)}", f"end of chain: {self.end_of_chain}"])


def random_tree(
    rng: random.Random,
    *,
    stateful: bool = False,
    attachment: Attachment = Attachment.BRIDGE_PORT,
    wanted: Iterable[tuple[str, str]] = (),
) -> Tree:
    """
    A tree of one to four filters.

    Args:
        attachment: a device that is no bridge port is given layer 2 rules only.
        stateful: with rules that need connection tracking or `reject`; but none that count connections (counting.py),
            since how many the kernel has counted can't be told from frames.
        wanted: rows of the language's table that are in it, whatever chance says.
    """
    maker = Maker(rng, stateful, layers=(2, 3) if attachment is Attachment.BRIDGE_PORT else (2,))
    parts = []
    for number in range(rng.choice((0, 1, 1, 2, 3))):
        prefix = rng.choice(tuple(CHAIN_PRIORITIES))
        chain = rng.choice(("root", prefix + rng.choice(SUFFIXES), prefix + rng.choice(SUFFIXES)))
        priority = rng.choice((None, None, -750, -500, 0, 500, 700)) if chain != "root" else None
        lines = tuple(maker.rule(prefix if chain != "root" else None) for _ in range(rng.randint(1, 7)))
        parts.append(Part(f"f{number}", chain, priority, lines))
    own = [maker.rule(None) for _ in range(rng.randint(1, 6))]
    own += [maker.rule(None, row) for row in wanted]
    own += [f"<filterref filter='{part.name}'/>" for part in parts]
    rng.shuffle(own)
    parameters = tuple(maker.parameters.items())
    whole = (Part(ROOT, "root", None, tuple(own)), *parts)
    end = rng.choice(("return", "return", "accept"))
    return Tree(whole, parameters, frozenset(maker.covered), attachment=attachment, end_of_chain=end)


_IN_CHAIN = {
    "mac": ("mac", "ip", "arp", "ipv6", "vlan"),
    "stp": ("stp", "mac"),
    "vlan": ("vlan", "mac"),
    "ipv4": ("ip", "ip", "mac"),
    "ipv6": ("ipv6", "ipv6", "mac"),
    "arp": ("arp", "arp", "mac"),
    "rarp": ("rarp", "rarp", "mac"),
}


class Maker:
    """Makes rules, and keeps the parameters that they use."""

    def __init__(self, rng: random.Random, stateful: bool, layers: tuple[int, ...] = (2, 3)) -> None:
        self.rng = rng
        self.elements = (None, *(name for name, element in ELEMENTS.items() if element.layer in layers))
        self.stateful = stateful
        self.values_each = rng.choice((1, 1, 2))
        self.parameters: dict[str, tuple[str, ...]] = {}
        self.covered: set[tuple[str, str]] = set()
        if rng.random() < 0.7:
            self.parameters["IP"] = tuple(rng.sample(IPS[:3], self.values_each))

    def rule(self, prefix: str | None, row: tuple[str, str] | None = None) -> str:
        """A rule that compiles; if it is in a chain, mostly one that fits there; `row`: with this attribute."""
        while True:
            parameters, covered = dict(self.parameters), self.covered
            self.covered = set()
            text = self._rule(prefix, row)
            try:
                Tree((Part(ROOT, "root", None, (text,)),), tuple(self.parameters.items())).compile()
                if row is None or row in self.covered:
                    self.covered |= covered
                    return text
            except InputError:
                pass
            self.parameters, self.covered = parameters, covered

    def _rule(self, prefix: str | None, row: tuple[str, str] | None) -> str:
        rng = self.rng
        elements: tuple[str | None, ...] = self.elements
        if prefix is not None and rng.random() < 0.9:
            elements = _IN_CHAIN[prefix]
        name = rng.choice(elements) if row is None else row[0]
        layer = 2 if name is None else ELEMENTS[name].layer
        actions = ["accept", "accept", "drop", "drop", "return", "continue", "reject"]
        action = rng.choice(actions[: None if layer == 2 or self.stateful else -1])
        attributes = f"action='{action}' direction='{rng.choice(('in', 'out', 'inout'))}'"
        if rng.random() < 0.6:
            attributes += f" priority='{rng.choice((-1000, -750, -500, 0, 100, 499, 501, 1000))}'"
        if layer == 3 and (rng.random() < 0.3 or not self.stateful):
            attributes += " statematch='false'"
        return f"<rule {attributes}>{'' if name is None else self._protocol(name, row and row[1])}</rule>"

    def _protocol(self, name: str, wanted: str | None) -> str:
        rng = self.rng
        element = ELEMENTS[name]
        usable = [attribute for attribute in element.attributes.values() if attribute.name != "connlimit-above"]
        chosen = rng.sample(usable, min(len(usable), rng.choice((0, 1, 1, 1, 2, 2, 3))))
        if wanted is not None:
            own = element.attributes[wanted]
            chosen.append(element.attributes[own.part_of] if own.part_of else own)
        nodes: tuple[dict[str, str], dict[str, str]] = {}, {}
        for attribute in chosen:
            self._give(rng.choice(nodes), attribute, element.attributes)
        if name in ("ip", "ipv6") and any("port" in each for node in nodes for each in node):
            for node in nodes:
                node.pop("protocol", None)
            nodes[0]["protocol"] = str(rng.choice(PORT_PROTOCOLS))
            nodes = ({"protocol": nodes[0].pop("protocol"), **nodes[0]}, nodes[1])
        self.covered.update((name, each) for node in nodes for each in node)
        signs = [rng.choice(("", "", " match='no'")) for _ in nodes]
        if any("protocol" in node for node in nodes) and any("port" in each for node in nodes for each in node):
            signs[0] = ""
        texts = (
            f"<{name}{sign}{''.join(f' {key}={_quoted(value)}' for key, value in node.items())}/>"
            for node, sign in zip(nodes, signs)
            if node or node is nodes[0]
        )
        return "".join(texts)

    def _give(self, node: dict[str, str], attribute: Attribute, attributes: object) -> None:
        rng = self.rng
        node[attribute.name] = self._value(attribute.type.name)
        if attribute.mask and rng.random() < 0.6:
            node[attribute.mask] = self._mask(attribute.type.name)
        end = attribute.end
        if end and isinstance(attributes, dict) and end in attributes and rng.random() < 0.6:
            node[end] = self._value(attribute.type.name)
        if attribute.name == "ipset":
            node["ipsetflags"] = self._value("IPSETFLAGS")

    def _mask(self, address_type: str) -> str:
        rng = self.rng
        if address_type == "MAC_ADDR":
            bits = rng.choice((1, 8, 24, 40, 47, 48))
            return format_mac((1 << 48) - (1 << 48 - bits))
        width = 32 if address_type == "IP_ADDR" else 128
        bits = rng.choice((0, 1, width // 4, width // 4 + 1, width // 2, 3 * width // 4, width - 1, width))
        if width == 32 and rng.random() < 0.3:
            return str(ipaddress.IPv4Address((1 << 32) - (1 << 32 - bits)))
        return str(bits)

    def _value(self, type_name: str) -> str:
        rng = self.rng
        if type_name == "IP_ADDR" and rng.random() < 0.15:
            return "$IP"
        if type_name == "MAC_ADDR" and rng.random() < 0.15:
            return "$MAC"
        type_ = TYPES[type_name]
        if not type_.takes_variables or type_.hexadecimal_in_variables or rng.random() < 0.85:
            return self._literal(type_name)
        values = tuple(self._literal(type_name).replace(",", "") for _ in range(self.values_each))
        name = f"V{len(self.parameters)}"
        self.parameters[name] = values
        return f"${name}"

    def _literal(self, type_name: str) -> str:
        rng = self.rng
        if type_name in ("IP_MASK", "IPV6_MASK", "MAC_MASK"):
            return self._mask(type_name.replace("MASK", "ADDR"))
        if type_name in NAMES:
            return rng.choice(NAMES[type_name])
        edges = EDGES[type_name]
        number = rng.choice(edges)
        if rng.random() < 0.3:
            number = rng.randint(edges[0], edges[-1])
        return hex(number) if rng.random() < 0.2 and type_name != "CONNLIMIT" else str(number)


def with_priority(line: str, priority: int) -> str:
    """The rule at another priority."""
    without = re.sub(r"^(<rule [^>]*?) priority='[^']*'", r"\1", line)
    return without.replace("<rule", f"<rule priority='{priority}'", 1)


def _quoted(text: str) -> str:
    return '"' + text.replace("&", "&amp;").replace('"', "&quot;") + '"'
