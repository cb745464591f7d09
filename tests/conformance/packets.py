"""
Frames from field values, rightly built or not.

In:  a number for each `Field` that matters, and a `Shape`: what is unusual about the frame.
Out: bytes. What no value is given for is that of an ordinary frame; checksums are right.

Byte layouts are written out here, as in RFC 791, 8200, 826, 9293 and IEEE 802.1D: no code of the package is used, since
it is what these frames examine.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace

from nwfilter_hook.ruleset.fields import Field

GUEST_MAC = 0x525400000001
OTHER_MAC = 0x525400000099
GUEST_IP = 0x0A000001
OTHER_IP = 0x0A000063
GUEST_IP6 = 0x20010DB8000000000000000000000001
OTHER_IP6 = 0x20010DB8000000000000000000000099
PAYLOAD = b"nwfilter-hook"
BRIDGE_GROUP = 0x0180C2000000

Values = Mapping[Field, int]

HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, NO_NEXT, DESTINATION = 0, 43, 44, 51, 59, 60


@dataclass(frozen=True)
class Shape:
    """
    What is unusual about a frame.

    Attributes:
        tags: EtherTypes of VLAN tags around it, outermost first; the outermost has the VLAN_ID of the values.
        ip_options: octets of IPv4 options, a multiple of 4.
        fragment_offset: in octets, a multiple of 8; more_fragments: the flag.
        version, header_words: in place of the right ones (IPv4's header length; IPv6 has none).
        total_difference: added to the right total (IPv4) or payload (IPv6) length.
        extensions: IPv6 extension headers, by their numbers; FRAGMENT takes the fragment offset from above.
        tcp_options: raw; padded to a multiple of 4.
        tcp_words: in place of the right data offset.
        length: the frame is cut or padded with zeros to so many octets.
    """

    tags: tuple[int, ...] = ()
    ip_options: int = 0
    fragment_offset: int = 0
    more_fragments: bool = False
    version: int | None = None
    header_words: int | None = None
    total_difference: int = 0
    extensions: tuple[int, ...] = ()
    tcp_options: bytes | None = None
    tcp_words: int | None = None
    length: int | None = None


PLAIN = Shape()


def build(values: Values, shape: Shape = PLAIN, payload: bytes = PAYLOAD) -> bytes:
    """The frame with these field values; ETHER_TYPE, else the most particular field, tells what it carries."""
    ether_type = values.get(Field.ETHER_TYPE)
    is_bpdu = ether_type is None and any(field.name.startswith("STP_") for field in values)
    source, destination = values.get(Field.ETHER_SRC, GUEST_MAC), values.get(Field.ETHER_DST, OTHER_MAC)
    if is_bpdu:
        body = _bpdu(values)
        ether_type, destination = len(body), values.get(Field.ETHER_DST, BRIDGE_GROUP)
    elif ether_type is None:
        ether_type = 0x9000
        body = payload
    elif ether_type == 0x8100:
        inner = values.get(Field.VLAN_TYPE, 0x0800)
        body = _tag(values.get(Field.VLAN_ID, 7), inner) + _network(inner, values, shape, payload)
    else:
        body = _network(ether_type, values, shape, payload)
    frame = destination.to_bytes(6, "big") + source.to_bytes(6, "big") + ether_type.to_bytes(2, "big") + body
    for tag_type in reversed(shape.tags):
        tag = values.get(Field.VLAN_ID, 7).to_bytes(2, "big")
        frame = frame[:12] + tag_type.to_bytes(2, "big") + tag + frame[12:]
    if shape.length is not None:
        frame = frame[: shape.length].ljust(shape.length, b"\0")
    return frame


def checksum(data: bytes) -> int:
    """RFC 1071."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _tag(vlan_id: int, inner: int) -> bytes:
    return vlan_id.to_bytes(2, "big") + inner.to_bytes(2, "big")


def _network(ether_type: int, values: Values, shape: Shape, payload: bytes) -> bytes:
    if ether_type in (0x0806, 0x8035):
        return _arp(values)
    if ether_type == 0x0800:
        return _ipv4(values, shape, payload)
    if ether_type == 0x86DD:
        return _ipv6(values, shape, payload)
    if ether_type < 0x600:  # IEEE 802.3: a length, and then SNAP
        return values.get(Field.SNAP, 0xAAAA03000000).to_bytes(6, "big") + b"\x08\x00" + payload
    return payload


def _arp(values: Values) -> bytes:
    def number(field: Field, default: int) -> bytes:
        return values.get(field, default).to_bytes(field.bits // 8, "big")

    return b"".join(
        (
            number(Field.ARP_HTYPE, 1),
            number(Field.ARP_PTYPE, 0x0800),
            number(Field.ARP_HLEN, 6),
            number(Field.ARP_PLEN, 4),
            number(Field.ARP_OPCODE, 1),
            number(Field.ARP_SRC_MAC, values.get(Field.ETHER_SRC, GUEST_MAC)),
            number(Field.ARP_SRC_IP, GUEST_IP),
            number(Field.ARP_DST_MAC, 0),
            number(Field.ARP_DST_IP, OTHER_IP),
        )
    )


def _bpdu(values: Values) -> bytes:
    fields = (
        (Field.STP_HEADER, 0x424203000000),
        (Field.STP_TYPE, 0),
        (Field.STP_FLAGS, 0),
        (Field.STP_ROOT_PRIORITY, 0x8000),
        (Field.STP_ROOT_ADDRESS, OTHER_MAC),
        (Field.STP_ROOT_COST, 4),
        (Field.STP_SENDER_PRIORITY, 0x8000),
        (Field.STP_SENDER_ADDRESS, GUEST_MAC),
        (Field.STP_PORT, 0x8001),
        (Field.STP_AGE, 0x0100),
        (Field.STP_MAX_AGE, 0x1400),
        (Field.STP_HELLO_TIME, 0x0200),
        (Field.STP_FORWARD_DELAY, 0x0F00),
    )
    return b"".join(values.get(field, default).to_bytes(field.bits // 8, "big") for field, default in fields)


def _ipv4(values: Values, shape: Shape, payload: bytes) -> bytes:
    if Field.IP_FRAGMENT in values and not shape.fragment_offset:
        fragment = values[Field.IP_FRAGMENT]
        shape = replace(shape, fragment_offset=8 * (fragment & 0x1FFF), more_fragments=bool(fragment & 0x2000))
    protocol = values.get(Field.IP_PROTOCOL, values.get(Field.L4_PROTOCOL, 17))
    source, destination = values.get(Field.IP_SRC, GUEST_IP), values.get(Field.IP_DST, OTHER_IP)
    addresses = source.to_bytes(4, "big") + destination.to_bytes(4, "big")
    later = shape.fragment_offset > 0
    body = payload if later else _transport(protocol, addresses, values, shape, payload)
    options = b"\1" * shape.ip_options
    words = 5 + shape.ip_options // 4
    total = max(0, min(0xFFFF, 4 * words + len(body) + shape.total_difference))
    first = (4 if shape.version is None else shape.version) << 4
    first |= words if shape.header_words is None else shape.header_words
    fragment = (0x2000 if shape.more_fragments else 0) | shape.fragment_offset // 8
    dscp = values.get(Field.IP_DSCP, 0) << 2
    fields = (first, dscp, total, 1, fragment, 64, protocol)
    header = struct.pack("!BBHHHBB", *fields) + b"\0\0" + addresses + options
    return header[:10] + checksum(header).to_bytes(2, "big") + header[12:] + body


def _ipv6(values: Values, shape: Shape, payload: bytes) -> bytes:
    if Field.IP6_FRAGMENT in values and FRAGMENT not in shape.extensions:
        extensions = (*shape.extensions, FRAGMENT)
        shape = replace(shape, extensions=extensions, fragment_offset=8 * values[Field.IP6_FRAGMENT])
    protocol = values.get(Field.L4_PROTOCOL, values.get(Field.IP6_NEXT_HEADER, 17))
    source, destination = values.get(Field.IP6_SRC, GUEST_IP6), values.get(Field.IP6_DST, OTHER_IP6)
    addresses = source.to_bytes(16, "big") + destination.to_bytes(16, "big")
    later = shape.fragment_offset > 0 and FRAGMENT in shape.extensions
    body = payload if later else _transport(protocol, addresses, values, shape, payload)
    following = protocol
    for extension in reversed(shape.extensions):
        body = _extension(extension, following, shape) + body
        following = extension
    first = (6 if shape.version is None else shape.version) << 28 | values.get(Field.IP6_DSCP, 0) << 22
    length = max(0, min(0xFFFF, values.get(Field.IP6_LENGTH, len(body)) + shape.total_difference))
    return struct.pack("!IHBB", first, length, following, 64) + addresses + body


def _extension(number: int, following: int, shape: Shape) -> bytes:
    if number == FRAGMENT:
        offset = shape.fragment_offset | int(shape.more_fragments)
        return struct.pack("!BBHI", following, 0, offset, 1)
    if number == AUTHENTICATION:
        return struct.pack("!BBHIII", following, 2, 0, 1, 1, 0)
    if number == ROUTING:
        return struct.pack("!BBBBI", following, 0, 0, 0, 0)
    if number == HOP_BY_HOP:
        return struct.pack("!BBBBHBB", following, 0, 5, 2, 0, 1, 0)  # router alert as of MLD, PadN
    return struct.pack("!BBBBI", following, 0, 1, 4, 0)  # PadN


def _transport(protocol: int, addresses: bytes, values: Values, shape: Shape, payload: bytes) -> bytes:
    ports = struct.pack("!HH", values.get(Field.SRC_PORT, 40000), values.get(Field.DST_PORT, 80))
    if protocol == 6:
        return _tcp(ports, addresses, values, shape, payload)
    if protocol in (17, 136):
        payload = _dhcp(values) or payload
        length = 8 + len(payload)
        covered = ports + length.to_bytes(2, "big") + b"\0\0" + payload
        pseudo = _pseudo(addresses, protocol, length)
        return covered[:6] + (checksum(pseudo + covered) or 0xFFFF).to_bytes(2, "big") + payload
    if protocol == 132:
        return _sctp(ports, values)
    if protocol == AUTHENTICATION:
        return struct.pack("!BBHIII", 17, 2, 0, 1, 1, 0) + _transport(17, addresses, values, shape, payload)
    if protocol == 33:
        return ports + struct.pack("!II", 1, 0) + payload
    if protocol in (1, 58):
        six = protocol == 58
        type_field, code_field = (Field.ICMPV6_TYPE, Field.ICMPV6_CODE) if six else (Field.ICMP_TYPE, Field.ICMP_CODE)
        type_ = values.get(type_field, 128 if six else 8)
        if six and Field.ND_TARGET in values:
            payload = values[Field.ND_TARGET].to_bytes(16, "big")
            payload += values.get(Field.ND_OPTION, 0x0101).to_bytes(2, "big")
            payload += values.get(Field.ND_MAC, GUEST_MAC).to_bytes(6, "big")
        message = struct.pack("!BBHHH", type_, values.get(code_field, 0), 0, 1, 1) + payload
        covered = _pseudo(addresses, protocol, len(message)) + message if six else message
        return message[:2] + checksum(covered).to_bytes(2, "big") + message[4:]
    return payload


def _dhcp(values: Values) -> bytes:
    """What is in a datagram of DHCP or DHCPv6; nothing if no value is of those."""
    if Field.DHCP6_TYPE in values:
        return bytes((values[Field.DHCP6_TYPE], 1, 2, 3))
    if not any(field.name.startswith("DHCP") for field in values):
        return b""
    fields = (
        values.get(Field.DHCP_OP, 1).to_bytes(1, "big"),
        values.get(Field.DHCP_HARDWARE, 0x0106).to_bytes(2, "big"),
        bytes(9),
        values.get(Field.DHCP_OWN, 0).to_bytes(4, "big"),
        values.get(Field.DHCP_ADDRESS, 0).to_bytes(4, "big"),
        bytes(4),
        values.get(Field.DHCP_RELAY, 0).to_bytes(4, "big"),
        values.get(Field.DHCP_CLIENT, GUEST_MAC).to_bytes(6, "big"),
        bytes(202),
        values.get(Field.DHCP_COOKIE, 0x63825363).to_bytes(4, "big"),
        values.get(Field.DHCP_OPTIONS, 0x350101FF << 96).to_bytes(16, "big"),
    )
    return b"".join(fields)


def _tcp(ports: bytes, addresses: bytes, values: Values, shape: Shape, payload: bytes) -> bytes:
    options = shape.tcp_options
    if options is None:
        kind = values.get(Field.TCP_OPTION)
        options = b"" if kind is None else bytes([kind]) if kind < 2 else bytes([kind, 4, 0, 0])
    options += b"\1" * (-len(options) % 4)
    words = 5 + len(options) // 4 if shape.tcp_words is None else shape.tcp_words
    flags = values.get(Field.TCP_FLAGS, 2)
    sequence = 1000 if flags & 2 else 1001  # as after a SYN from both sides
    acknowledged = 1001 if flags & 16 else 0
    segment = (
        ports
        + struct.pack("!IIBBHHH", sequence, acknowledged, words << 4 & 0xFF, flags, 8192, 0, 0)
        + options
        + payload
    )
    sum_ = checksum(_pseudo(addresses, 6, len(segment)) + segment)
    return segment[:16] + sum_.to_bytes(2, "big") + segment[18:]


def _sctp(ports: bytes, values: Values) -> bytes:
    """A chunk of the handshake: INIT, INIT ACK or COOKIE ECHO, where TCP has SYN, SYN with ACK, or neither."""
    flags = values.get(Field.TCP_FLAGS, 2)
    type_ = {2: 1, 0x12: 2}.get(flags & 0x12, 10)
    chunk = struct.pack("!BBHI", type_, 0, 8, 0)
    if type_ != 10:
        chunk = struct.pack("!BBHIIHHI", type_, 0, 20, 1, 8192, 1, 1, 1)
    segment = ports + struct.pack("!II", int(type_ != 1), 0) + chunk
    return segment[:8] + _crc32c(segment).to_bytes(4, "little") + segment[12:]


def _crc32c(data: bytes) -> int:
    """RFC 9260, appendix A."""
    value = 0xFFFFFFFF
    for octet in data:
        value ^= octet
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return ~value & 0xFFFFFFFF


def _pseudo(addresses: bytes, protocol: int, length: int) -> bytes:
    if len(addresses) == 8:
        return addresses + struct.pack("!BBH", 0, protocol, length)
    return addresses + struct.pack("!II", length, protocol)
