"""
A frame that meets a rule's conditions, as far as one frame can.

In:  the rule's conditions, and addresses for what they don't say.
Out: bytes; a condition that is negated gets a value beside the one that it names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from ..ruleset.fields import Field
from ..ruleset.model import Between, Equals, Masked, Match
from ..ruleset.numbers import EtherType, Protocol
from . import layout

_PORTS = (40000, 443)
_PAYLOAD = b"nwfilter-hook"


def values_of(matches: Iterable[Match]) -> dict[Field, int]:
    """A value for each field that a condition names."""
    found: dict[Field, int] = {}
    for match in matches:
        test = match.test
        if isinstance(test, (Equals, Masked)):
            lowest = test.mask & -test.mask if isinstance(test, Masked) else 1
            found[match.field] = test.value ^ lowest if match.negated else test.value
        elif isinstance(test, Between):
            outside = test.low - 1 if test.low else test.high + 1
            found[match.field] = outside if match.negated else test.low
    return found


def frame_of(values: Mapping[Field, int], defaults: Mapping[Field, int]) -> bytes:
    """The frame; `defaults` has ETHER_SRC, ETHER_DST, and IP_SRC, IP_DST, IP6_SRC, IP6_DST."""

    def get(field: Field, default: int = 0) -> int:
        return values.get(field, defaults.get(field, default))

    names = {field.name for field in values}
    ether_type = values.get(Field.ETHER_TYPE)
    if ether_type is None and any(name.startswith("STP_") for name in names):
        message = layout.stp(get(Field.ETHER_SRC))
        return layout.ethernet(get(Field.ETHER_SRC), layout.BRIDGE_GROUP, len(message), message)
    if ether_type is None:
        ether_type = _type_of(names)
    if ether_type in (EtherType.ARP, EtherType.RARP):
        macs = get(Field.ARP_SRC_MAC, get(Field.ETHER_SRC)), get(Field.ARP_DST_MAC)
        source, target = get(Field.ARP_SRC_IP, get(Field.IP_SRC)), get(Field.ARP_DST_IP, get(Field.IP_DST))
        body = layout.arp(get(Field.ARP_OPCODE, 1), macs[0], source, macs[1], target)
    elif ether_type == EtherType.IPV4:
        addresses = get(Field.IP_SRC), get(Field.IP_DST)
        protocol = values.get(Field.IP_PROTOCOL, _protocol_of(names))
        segment = _segment(protocol, addresses, 32, get)
        body = layout.ipv4(*addresses, protocol, segment, dscp=get(Field.IP_DSCP))
    elif ether_type == EtherType.IPV6:
        addresses = get(Field.IP6_SRC), get(Field.IP6_DST)
        protocol = values.get(Field.L4_PROTOCOL, Protocol.ICMPV6 if "ICMPV6_TYPE" in names else _protocol_of(names))
        segment = _segment(protocol, addresses, 128, get)
        body = layout.ipv6(*addresses, protocol, segment, dscp=get(Field.IP6_DSCP))
    else:
        body = _PAYLOAD
    tag = (EtherType.VLAN, get(Field.VLAN_ID, 1)) if ether_type == EtherType.VLAN else None
    inner = get(Field.VLAN_TYPE, 0x9000) if tag else ether_type
    return layout.ethernet(get(Field.ETHER_SRC), get(Field.ETHER_DST), inner, body, tag)


def _type_of(names: Iterable[str]) -> int:
    prefixes = {name.split("_")[0] for name in names}
    if "ARP" in prefixes:
        return EtherType.ARP
    if prefixes & {"IP6", "ND", "DHCP6", "ICMPV6", "L4"}:
        return EtherType.IPV6
    return EtherType.IPV4


def _protocol_of(names: Iterable[str]) -> int:
    if "ICMP_TYPE" in names:
        return Protocol.ICMP
    return Protocol.TCP if {"TCP_FLAGS", "TCP_OPTION"} & set(names) else Protocol.UDP


def _segment(protocol: int, addresses: tuple[int, int], bits: int, get: Callable[..., int]) -> bytes:
    ports = get(Field.SRC_PORT, _PORTS[0]), get(Field.DST_PORT, _PORTS[1])
    if protocol == Protocol.TCP:
        return layout.tcp(*addresses, bits, ports, get(Field.TCP_FLAGS, 2), (), b"")
    if protocol == Protocol.UDP:
        return layout.udp(*addresses, bits, ports, _PAYLOAD)
    if protocol == Protocol.ICMP:
        return layout.icmp(get(Field.ICMP_TYPE, 8), get(Field.ICMP_CODE), bytes(4) + _PAYLOAD)
    if protocol == Protocol.ICMPV6:
        return layout.icmpv6(*addresses, get(Field.ICMPV6_TYPE, 128), get(Field.ICMPV6_CODE), bytes(4) + _PAYLOAD)
    return layout.octets(ports[0], 16) + layout.octets(ports[1], 16) + bytes(16)
