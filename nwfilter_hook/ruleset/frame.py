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
from .fields import Base, Field, Header
from .numbers import EtherType, Protocol

_ETH_P_802_3, _ETH_P_802_2, _LEAST_ETHER_TYPE = 1, 4, 0x600
_EXTENSIONS = (
    *(Protocol.HOP_BY_HOP, Protocol.ROUTING, Protocol.FRAGMENT),
    *(Protocol.AH, Protocol.NO_NEXT, Protocol.DESTINATION),
)
ETHERNET_BYTES, _TAG_BYTES, _IPV4_BYTES, _IPV6_BYTES, _TCP_BYTES = 14, 4, 20, 40, 20
_LEAST_TRANSPORT_BYTES = 3


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
        header, transport = field.header, self.transport
        if header.base is Base.LINK:
            readable = header is not Header.TAG or self.ether_type == EtherType.VLAN
            return _bits(self.link, field.offset, field.bits) if readable else None
        if header.base is Base.NETWORK:
            readable = not header.numbers or self.inner_type in header.numbers
            return _bits(self.data, 8 * self.network + field.offset, field.bits) if readable else None
        if field is Field.IP6_FRAGMENT:
            return self.ipv6_fragment()
        if transport is None:
            return None
        if field is Field.L4_PROTOCOL:
            return transport.protocol
        if header.base is None or transport.offset is None:
            return None
        if header.numbers and transport.protocol not in header.numbers:
            return None
        return _bits(self.data, 8 * transport.offset + field.offset, field.bits)

    def ipv6_fragment(self) -> int | None:
        """The offset in the fragment header, in units of 8 octets; None if there is none (ipv6_find_hdr)."""
        if self.inner_type != EtherType.IPV6 or len(self.data) < self.network + _IPV6_BYTES:
            return None
        at = self.network + _IPV6_BYTES
        header = self.data[self.network + 6]
        while header in _EXTENSIONS and header != Protocol.NO_NEXT and at + 2 <= len(self.data):
            if header == Protocol.FRAGMENT:
                return _bits(self.data, 8 * at + 16, 13)
            length = self.data[at + 1]
            header, at = self.data[at], at + (4 * (length + 2) if header == Protocol.AH else 8 * (length + 1))
        return None

    def tcp_options(self) -> frozenset[int] | None:
        """
        The kinds of the TCP header's options; none in a header that is cut or wrong. None: there is no TCP header.

        nft_exthdr_tcp_eval in net/netfilter/nft_exthdr.c: an option of one octet in the last place isn't seen, one
        that reaches beyond the header isn't there.
        """
        transport = self.transport
        if transport is None or transport.protocol != Protocol.TCP or transport.offset is None:
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
    if len(data) < ETHERNET_BYTES:
        raise ValueError(f"{len(data)} bytes are no Ethernet frame")
    ether_type = inner = int.from_bytes(data[12:14], "big")
    network = ETHERNET_BYTES
    link = data
    if ether_type in (EtherType.VLAN, EtherType.VLAN_AD):
        network += _TAG_BYTES
        inner = int.from_bytes(data[16:18], "big")
        if inner < _LEAST_ETHER_TYPE and not in_tag:
            link = data[:16] + _type_of_802_3(data).to_bytes(2, "big") + data[18:]
    transport = None
    if in_tag and network != ETHERNET_BYTES:
        pass
    elif inner == EtherType.IPV4:
        transport = _behind_ipv4(data, network)
    elif inner == EtherType.IPV6:
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
    while protocol in _EXTENSIONS and protocol not in (Protocol.NO_NEXT, Protocol.AH):
        # the kernel reads two octets of a header, four of one that it looks into
        looked_into = protocol in (Protocol.ROUTING, Protocol.FRAGMENT)
        if at + (4 if looked_into else 2) > len(data):
            return None
        following, length = data[at], data[at + 1]
        if protocol == Protocol.FRAGMENT:
            if int.from_bytes(data[at + 2 : at + 4], "big") & 0xFFF8:
                inside = following in _EXTENSIONS and following != Protocol.NO_NEXT
                return None if inside else Transport(following, None)
            length = 0
        protocol = following
        at += 8 * (length + 1)
    if protocol == Protocol.AH and at + 2 > len(data):
        return None
    return _transport(data, protocol, at)


def _transport(data: bytes, protocol: int, at: int | None) -> Transport:
    return Transport(protocol, None if at is None or len(data) < at + _LEAST_TRANSPORT_BYTES else at)
