"""
Read the fields of a frame as the kernel's nf_tables reads them in the bridge family.

In:  a frame as bytes, from the Ethernet destination on, without its checksum; a VLAN tag where it is on the wire.
Out: a `Frame`, which gives each `Field`'s value, or None where it can't be read. Then no condition on it holds.

What can't be read is decided here as the kernel decides it, not as an RFC would:
* a VLAN tag (0x8100 or 0x88a8) is taken off, so the network header is behind it, though ETHER_TYPE is the outer type;
* an IP header that contradicts itself still has readable addresses, but nothing behind it can be read
  (nft_set_pktinfo_ipv4_validate, nft_set_pktinfo_ipv6_validate in include/net/netfilter/);
* behind IPv6 extension headers the transport header is found up to the first AH (ipv6_find_hdr in
  net/ipv6/exthdrs_core.c);
* a fragment that isn't the first has a transport protocol, but no transport header, nor has a packet in which less
  than three octets of it are left;
* where a tag's type is a length (IEEE 802.3), the kernel shows the number that it has for such frames;
* bytes that pad a short packet to a frame can be read like all others.
"""

from __future__ import annotations

from ..base.dataclass import dataclass
from .fields import Field

_IPV4, _IPV6, _ARP, _RARP, _VLAN, _VLAN_AD = 0x0800, 0x86DD, 0x0806, 0x8035, 0x8100, 0x88A8
_ETH_P_802_3, _ETH_P_802_2, _LEAST_ETHER_TYPE = 1, 4, 0x600
_TCP, _UDP, _ICMP, _ICMPV6 = 6, 17, 1, 58
_HOP_BY_HOP, _ROUTING, _FRAGMENT, _AUTHENTICATION, _NO_NEXT, _DESTINATION = 0, 43, 44, 51, 59, 60
_EXTENSIONS = (_HOP_BY_HOP, _ROUTING, _FRAGMENT, _AUTHENTICATION, _NO_NEXT, _DESTINATION)
_ETHERNET_BYTES, _TAG_BYTES, _IPV4_BYTES, _IPV6_BYTES, _TCP_BYTES = 14, 4, 20, 40, 20
_LEAST_TRANSPORT_BYTES = 3

# bit offsets within each header
_LINK = {
    Field.ETHER_DST: 0,
    Field.ETHER_SRC: 48,
    Field.ETHER_TYPE: 96,
    # IEEE 802.1D 9.3.1, from the LLC header on
    Field.STP_HEADER: 112,
    Field.STP_TYPE: 160,
    Field.STP_FLAGS: 168,
    Field.STP_ROOT_PRIORITY: 176,
    Field.STP_ROOT_ADDRESS: 192,
    Field.STP_ROOT_COST: 240,
    Field.STP_SENDER_PRIORITY: 272,
    Field.STP_SENDER_ADDRESS: 288,
    Field.STP_PORT: 336,
    Field.STP_AGE: 352,
    Field.STP_MAX_AGE: 368,
    Field.STP_HELLO_TIME: 384,
    Field.STP_FORWARD_DELAY: 400,
}
_TAG = {Field.VLAN_ID: 116, Field.VLAN_TYPE: 128}
_NETWORK = {
    # RFC 826
    Field.ARP_HTYPE: 0,
    Field.ARP_PTYPE: 16,
    Field.ARP_HLEN: 32,
    Field.ARP_PLEN: 40,
    Field.ARP_OPCODE: 48,
    Field.ARP_SRC_MAC: 64,
    Field.ARP_SRC_IP: 112,
    Field.ARP_DST_MAC: 144,
    Field.ARP_DST_IP: 192,
    # RFC 791
    Field.IP_DSCP: 8,
    Field.IP_FRAGMENT: 48,
    Field.IP_PROTOCOL: 72,
    Field.IP_SRC: 96,
    Field.IP_DST: 128,
    # RFC 8200
    Field.IP6_DSCP: 4,
    Field.IP6_LENGTH: 32,
    Field.IP6_NEXT_HEADER: 48,
    Field.IP6_SRC: 64,
    Field.IP6_DST: 192,
}
_TRANSPORT = {
    Field.SRC_PORT: 0,
    Field.DST_PORT: 16,
    Field.TCP_FLAGS: 104,
    Field.ICMP_TYPE: 0,
    Field.ICMP_CODE: 8,
    Field.ICMPV6_TYPE: 0,
    Field.ICMPV6_CODE: 8,
    # RFC 4861, neighbour solicitation
    Field.ND_TARGET: 64,
    Field.ND_OPTION: 192,
    Field.ND_MAC: 208,
    # RFC 2131, behind UDP's header
    Field.DHCP_OP: 64,
    Field.DHCP_HARDWARE: 72,
    Field.DHCP_OWN: 160,
    Field.DHCP_ADDRESS: 192,
    Field.DHCP_RELAY: 256,
    Field.DHCP_CLIENT: 288,
    Field.DHCP_COOKIE: 1952,
    Field.DHCP_OPTIONS: 1984,
    # RFC 8415, 8
    Field.DHCP6_TYPE: 64,
}


def _network_types(field: Field) -> tuple[int, ...]:
    if field.name.startswith("ARP_"):
        return (_ARP, _RARP)
    return (_IPV6,) if field.name.startswith("IP6_") else (_IPV4,)


_NETWORK_TYPES = {field: _network_types(field) for field in _NETWORK}
_TRANSPORT_PROTOCOLS = {
    Field.TCP_FLAGS: _TCP,
    Field.ICMP_TYPE: _ICMP,
    Field.ICMP_CODE: _ICMP,
    **{field: _ICMPV6 for field in _TRANSPORT if field.name.startswith(("ICMPV6_", "ND_"))},
    **{field: _UDP for field in _TRANSPORT if field.name.startswith("DHCP")},
}


@dataclass(frozen=True)
class Transport:
    """
    What is behind the network header.

    Attributes:
        protocol: behind IPv6 extension headers.
        offset: of its header in the frame, or None if the header isn't there.
    """

    protocol: int
    offset: int | None


@dataclass(frozen=True)
class Frame:
    """
    A frame and where its headers are.

    Attributes:
        link: `data` as conditions on the link layer see it.
        ether_type: the outer one.
        inner_type: the one behind a tag.
        network: where the network header begins, behind a tag.
        transport: None where there is no IP packet, or one whose header can't be believed.
    """

    data: bytes
    link: bytes
    ether_type: int
    inner_type: int
    network: int
    transport: Transport | None

    def value(self, field: Field) -> int | None:
        """
        The field as a number, or None if it can't be read.

        TCP_OPTION has no number, see `tcp_options`; CT_STATE, CT_DIRECTION, PACKET_TYPE and TAP are not in a frame.
        """
        if field in _LINK:
            return _bits(self.link, _LINK[field], field.bits)
        if field in _TAG:
            return _bits(self.link, _TAG[field], field.bits) if self.ether_type == _VLAN else None
        if field in _NETWORK:
            if self.inner_type not in _NETWORK_TYPES[field]:
                return None
            return _bits(self.data, 8 * self.network + _NETWORK[field], field.bits)
        if field is Field.SNAP:
            return _bits(self.data, 8 * self.network, field.bits)
        if field is Field.IP6_FRAGMENT:
            return self.ipv6_fragment()
        if self.transport is None:
            return None
        if field is Field.L4_PROTOCOL:
            return self.transport.protocol
        if field not in _TRANSPORT or self.transport.offset is None:
            return None
        if _TRANSPORT_PROTOCOLS.get(field, self.transport.protocol) != self.transport.protocol:
            return None
        return _bits(self.data, 8 * self.transport.offset + _TRANSPORT[field], field.bits)

    def ipv6_fragment(self) -> int | None:
        """The offset in the fragment header, in units of 8 octets; None if there is none (ipv6_find_hdr)."""
        if self.inner_type != _IPV6 or len(self.data) < self.network + _IPV6_BYTES:
            return None
        at = self.network + _IPV6_BYTES
        header = self.data[self.network + 6]
        while header in _EXTENSIONS and header != _NO_NEXT and at + 2 <= len(self.data):
            if header == _FRAGMENT:
                return _bits(self.data, 8 * at + 16, 13)
            length = self.data[at + 1]
            header, at = self.data[at], at + (4 * (length + 2) if header == _AUTHENTICATION else 8 * (length + 1))
        return None

    def tcp_options(self) -> frozenset[int] | None:
        """
        The kinds of the TCP header's options; none in a header that is cut or wrong. None: there is no TCP header.

        nft_exthdr_tcp_eval in net/netfilter/nft_exthdr.c: an option of one octet in the last place isn't seen, one
        that reaches beyond the header isn't there.
        """
        transport = self.transport
        if transport is None or transport.protocol != _TCP or transport.offset is None:
            return None
        words = _bits(self.data, 8 * transport.offset + 96, 4)
        if words is None or words < _TCP_BYTES // 4:
            return frozenset()
        header = self.data[transport.offset : transport.offset + 4 * words]
        if len(header) < 4 * words:
            return frozenset()
        kinds: dict[int, bool] = {}
        at = _TCP_BYTES
        while at < len(header) - 1:
            length = 1 if header[at] <= 1 else max(header[at + 1], 1)
            # the first of a kind decides
            kinds.setdefault(header[at], at + length <= len(header))
            at += length
        return frozenset(kind for kind, whole in kinds.items() if whole)


def decode_frame(data: bytes, *, in_tag: bool = False) -> Frame:
    """
    Find the headers of `data`, whatever it holds.

    Args:
        in_tag: the kernel hasn't taken off a VLAN tag, nor put its own type in place of a length behind it: so it is
            with what a macvtap's guest sends. Of a packet in there it finds the network header only.

    Raises:
        ValueError: it is shorter than an Ethernet header, which no device accepts.
    """
    if len(data) < _ETHERNET_BYTES:
        raise ValueError(f"{len(data)} bytes are no Ethernet frame")
    ether_type = inner = int.from_bytes(data[12:14], "big")
    network = _ETHERNET_BYTES
    link = data
    if ether_type in (_VLAN, _VLAN_AD):
        network += _TAG_BYTES
        inner = int.from_bytes(data[16:18], "big")
        if inner < _LEAST_ETHER_TYPE and not in_tag:
            link = data[:16] + _type_of_802_3(data).to_bytes(2, "big") + data[18:]
    transport = None
    if in_tag and network != _ETHERNET_BYTES:
        pass
    elif inner == _IPV4:
        transport = _behind_ipv4(data, network)
    elif inner == _IPV6:
        transport = _behind_ipv6(data, network)
    return Frame(data, link, ether_type, inner, network, transport)


def _type_of_802_3(data: bytes) -> int:
    """What skb_vlan_untag (vlan_set_encap_proto in linux/if_vlan.h) makes of a length behind a tag."""
    return _ETH_P_802_3 if data[18:20] == b"\xff\xff" else _ETH_P_802_2


def _bits(data: bytes, offset: int, width: int) -> int | None:
    """`width` bits at the bit `offset`, or None if the frame ends before."""
    end = offset + width
    last = (end + 7) // 8
    if last > len(data):
        return None
    return int.from_bytes(data[offset // 8 : last], "big") >> (8 * last - end) & (1 << width) - 1


def _behind_ipv4(data: bytes, network: int) -> Transport | None:
    if len(data) < network + _IPV4_BYTES:
        return None
    version, header_bytes = data[network] >> 4, (data[network] & 15) * 4
    total = int.from_bytes(data[network + 2 : network + 4], "big")
    if version != 4 or header_bytes < _IPV4_BYTES or not header_bytes <= total <= len(data) - network:
        return None
    fragment_offset = int.from_bytes(data[network + 6 : network + 8], "big") & 0x1FFF
    return _transport(data, data[network + 9], None if fragment_offset else network + header_bytes)


def _behind_ipv6(data: bytes, network: int) -> Transport | None:
    if len(data) < network + _IPV6_BYTES or data[network] >> 4 != 6:
        return None
    payload = int.from_bytes(data[network + 4 : network + 6], "big")
    at = network + _IPV6_BYTES
    if at + payload > len(data):
        return None
    protocol = data[network + 6]
    while protocol in _EXTENSIONS and protocol not in (_NO_NEXT, _AUTHENTICATION):
        # the kernel reads two octets of a header, four of one that it looks into
        looked_into = protocol in (_ROUTING, _FRAGMENT)
        if at + (4 if looked_into else 2) > len(data):
            return None
        following, length = data[at], data[at + 1]
        if protocol == _FRAGMENT:
            if int.from_bytes(data[at + 2 : at + 4], "big") & 0xFFF8:
                inside = following in _EXTENSIONS and following != _NO_NEXT
                return None if inside else Transport(following, None)
            length = 0
        protocol = following
        at += 8 * (length + 1)
    if protocol == _AUTHENTICATION and at + 2 > len(data):
        return None
    return _transport(data, protocol, at)


def _transport(data: bytes, protocol: int, at: int | None) -> Transport:
    return Transport(protocol, None if at is None or len(data) < at + _LEAST_TRANSPORT_BYTES else at)
