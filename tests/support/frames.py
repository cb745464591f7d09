"""
Frames as bytes, built by scapy: what a guest might put on its tap, rightly or not.

Every function has defaults of an honest guest, GUEST at IP, talking to OTHER at OTHER_IP; a test forges what
it is about. `vlan` wraps any frame in a tag.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, ICMPv6ND_NS, IPv6
from scapy.layers.l2 import ARP, Ether

GUEST = "52:54:00:00:00:01"
OTHER = "52:54:00:00:00:99"
THIRD = "52:54:00:00:00:77"
BROADCAST = "ff:ff:ff:ff:ff:ff"
BRIDGE_GROUP = "01:80:c2:00:00:00"
GUEST_IP = "10.0.0.1"
OTHER_IP = "10.0.0.99"
GUEST_IP6 = "2001:db8::1"
OTHER_IP6 = "2001:db8::99"
NO_MAC = "00:00:00:00:00:00"
PAYLOAD = b"nwfilter-hook"


def ether(payload: bytes = PAYLOAD, *, src: str = GUEST, dst: str = OTHER, ethertype: int = 0x9000) -> bytes:
    """A frame of any protocol; the default is a configuration test (loopback) frame."""
    return bytes(Ether(src=src, dst=dst, type=ethertype) / payload)


def vlan(frame: bytes, vlanid: int = 7, *, ethertype: int = 0x8100) -> bytes:
    """`frame` in a VLAN tag, 802.1Q or, with 0x88a8, 802.1ad."""
    return frame[:12] + ethertype.to_bytes(2, "big") + vlanid.to_bytes(2, "big") + frame[12:]


def incoming(build: Callable[..., bytes], **fields: Any) -> bytes:
    """What `build` builds, on its way from OTHER to GUEST; for functions with IP addresses."""
    ip6 = build in (ipv6, udp6, ping6)
    addresses = {"src_ip": OTHER_IP6, "dst_ip": GUEST_IP6} if ip6 else {"src_ip": OTHER_IP, "dst_ip": GUEST_IP}
    return build(**{"src": OTHER, "dst": GUEST, **addresses, **fields})


def incoming_arp(**fields: Any) -> bytes:
    """OTHER asks for GUEST_IP, or with opcode 2 tells about itself."""
    return arp(**{"src": OTHER, "sender": OTHER, "sender_ip": OTHER_IP, "target_ip": GUEST_IP, **fields})


def arp(
    *,
    src: str = GUEST,
    dst: str = BROADCAST,
    opcode: int = 1,
    sender: str = GUEST,
    sender_ip: str = GUEST_IP,
    target: str = NO_MAC,
    target_ip: str = OTHER_IP,
) -> bytes:
    """An ARP request, or with opcode 2 a reply."""
    message = ARP(op=opcode, hwsrc=sender, psrc=sender_ip, hwdst=target, pdst=target_ip)
    return bytes(Ether(src=src, dst=dst, type=0x0806) / message)


def arp_probe(**fields: Any) -> bytes:
    """Is GUEST_IP taken? (RFC 5227)"""
    return arp(**{"sender_ip": "0.0.0.0", "target_ip": GUEST_IP, **fields})


def rarp_announce(
    mac: str = GUEST, *, src: str | None = None, dst: str = BROADCAST, opcode: int = 3, ip: str = "0.0.0.0"
) -> bytes:
    """What QEMU sends when a migration has ended."""
    message = ARP(op=opcode, hwsrc=mac, hwdst=mac, psrc=ip, pdst=ip)
    return bytes(Ether(src=src or mac, dst=dst, type=0x8035) / message)


def _over_ipv4(
    payload: Any,
    *,
    src: str = GUEST,
    dst: str = OTHER,
    src_ip: str = GUEST_IP,
    dst_ip: str = OTHER_IP,
    **fields: Any,
) -> bytes:
    return bytes(Ether(src=src, dst=dst, type=0x0800) / IP(src=src_ip, dst=dst_ip, **fields) / payload)


def _over_ipv6(
    payload: Any,
    *,
    src: str = GUEST,
    dst: str = OTHER,
    src_ip: str = GUEST_IP6,
    dst_ip: str = OTHER_IP6,
    **fields: Any,
) -> bytes:
    return bytes(Ether(src=src, dst=dst, type=0x86DD) / IPv6(src=src_ip, dst=dst_ip, **fields) / payload)


def ipv4(*, protocol: int = 253, **fields: Any) -> bytes:
    """An IPv4 packet, by default of a protocol reserved for experiments; `fields` are ends and what IP() takes."""
    return _over_ipv4(PAYLOAD, proto=protocol, **fields)


def udp(*, sport: int = 40000, dport: int = 9, payload: bytes = PAYLOAD, **ends: str) -> bytes:
    """A UDP datagram over IPv4; `ends` are src, dst, src_ip, dst_ip, as in all that follow."""
    return _over_ipv4(UDP(sport=sport, dport=dport) / payload, **ends)


def tcp(
    *,
    sport: int = 40000,
    dport: int = 80,
    flags: str = "S",
    seq: int = 1000,
    ack: int = 0,
    payload: bytes = b"",
    **ends: str,
) -> bytes:
    """A TCP segment over IPv4, by default one that opens a connection."""
    return _over_ipv4(TCP(sport=sport, dport=dport, flags=flags, seq=seq, ack=ack) / payload, **ends)


def icmp(*, icmp_type: int = 8, code: int = 0, identifier: int = 1, **ends: str) -> bytes:
    """An ICMP message, by default an echo request."""
    return _over_ipv4(ICMP(type=icmp_type, code=code, id=identifier, seq=1) / PAYLOAD, **ends)


def dhcp_discover(*, src: str = GUEST, src_ip: str = "0.0.0.0", dst_ip: str = "255.255.255.255") -> bytes:
    """A client looks for a server."""
    message = BOOTP(op=1, chaddr=_octets(src), xid=1) / DHCP(options=[("message-type", "discover"), "end"])
    return _dhcp(message, src=src, dst=BROADCAST, src_ip=src_ip, dst_ip=dst_ip, sport=68, dport=67)


def dhcp_question(
    kind: str = "request",
    *,
    src: str = GUEST,
    src_ip: str = "0.0.0.0",
    dst_ip: str = "255.255.255.255",
    sport: int = 68,
    client: str = GUEST,
    own: str = "0.0.0.0",
    options: Sequence[Any] = (),
    **fields: Any,
) -> bytes:
    """
    What a client says to a server: `client` is chaddr, `own` ciaddr; `options` stand behind the type, `fields` are of
    BOOTP.
    """
    header = {"op": 1, "chaddr": _octets(client), "ciaddr": own, "xid": 1, "flags": 0x8000, **fields}
    message = BOOTP(**header) / DHCP(options=[("message-type", kind), *options, "end"])
    return _dhcp(message, src=src, dst=BROADCAST, src_ip=src_ip, dst_ip=dst_ip, sport=sport, dport=67)


def dhcp_offer(
    *,
    src: str = OTHER,
    dst: str = BROADCAST,
    src_ip: str = OTHER_IP,
    dst_ip: str = "255.255.255.255",
    client: str = GUEST,
    offered: str = GUEST_IP,
    kind: str = "offer",
) -> bytes:
    """A server, by default OTHER, answers a client; `kind` may be "ack"."""
    options = [("message-type", kind), ("server_id", src_ip), ("lease_time", 3600), "end"]
    message = BOOTP(op=2, chaddr=_octets(client), yiaddr=offered, xid=1) / DHCP(options=options)
    return _dhcp(message, src=src, dst=dst, src_ip=src_ip, dst_ip=dst_ip, sport=67, dport=68)


def _dhcp(message: Any, *, sport: int, dport: int, **ends: str) -> bytes:
    return _over_ipv4(UDP(sport=sport, dport=dport) / message, **ends)


def _octets(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def ipv6(*, next_header: int = 253, **ends: str) -> bytes:
    """An IPv6 packet, by default of a protocol reserved for experiments."""
    return _over_ipv6(PAYLOAD, nh=next_header, **ends)


def udp6(*, sport: int = 40000, dport: int = 9, payload: bytes = PAYLOAD, **ends: str) -> bytes:
    """A UDP datagram over IPv6."""
    return _over_ipv6(UDP(sport=sport, dport=dport) / payload, **ends)


def ping6(*, identifier: int = 1, **ends: str) -> bytes:
    """An ICMPv6 echo request."""
    return _over_ipv6(ICMPv6EchoRequest(id=identifier, seq=1, data=PAYLOAD), **ends)


def neighbour_solicitation(*, src: str = GUEST, src_ip: str = GUEST_IP6, target_ip: str = OTHER_IP6) -> bytes:
    """Who has `target_ip`? Asked of its solicited-node group."""
    group = "ff02::1:ff00:" + target_ip.rsplit(":", 1)[1]
    return _over_ipv6(ICMPv6ND_NS(tgt=target_ip), src=src, dst="33:33:ff:00:00:99", src_ip=src_ip, dst_ip=group)


def dhcpv6_solicit(*, src: str = GUEST, src_ip: str = "fe80::1", dst_ip: str = "ff02::1:2") -> bytes:
    """A DHCPv6 client's ports and addresses; the message itself is no matter here."""
    return udp6(src=src, dst="33:33:00:01:00:02", src_ip=src_ip, dst_ip=dst_ip, sport=546, dport=547)


def dhcpv6_question(kind: int, *, src_ip: str = "fe80::1", sport: int = 546) -> bytes:
    """What a DHCPv6 client sends, of this message type (RFC 8415, 7.3)."""
    payload = bytes((kind, 1, 2, 3)) + bytes.fromhex("0001000a00030001525400000001")
    return udp6(dst="33:33:00:01:00:02", src_ip=src_ip, dst_ip="ff02::1:2", sport=sport, dport=547, payload=payload)


def dhcpv6_reply(*, src: str = OTHER, dst: str = GUEST, src_ip: str = "fe80::99", dst_ip: str = "fe80::1") -> bytes:
    """A DHCPv6 server's ports and addresses; the message itself is no matter here."""
    return udp6(src=src, dst=dst, src_ip=src_ip, dst_ip=dst_ip, sport=547, dport=546)


def stp_bpdu(*, src: str = GUEST) -> bytes:
    """A configuration BPDU of spanning tree: an LLC frame to the group of all bridges."""
    bpdu = bytes.fromhex("0000000000") + b"\x80\x00" + _octets(src) + bytes(4) + b"\x80\x00" + _octets(src)
    bpdu += bytes.fromhex("80010000140002000f00")
    body = bytes.fromhex("424203") + bpdu
    return _octets(BRIDGE_GROUP) + _octets(src) + len(body).to_bytes(2, "big") + body


def snap(frame: bytes) -> bytes:
    """`frame` in the encapsulation of IEEE 802.2 SNAP, which some hosts take for Ethernet."""
    body = bytes.fromhex("aaaa03000000") + frame[12:]
    return frame[:12] + len(body).to_bytes(2, "big") + body


def garbage(length: int = 60, *, src: str = GUEST, dst: str = OTHER) -> bytes:
    """Bytes that mean nothing under a known header: an IPv4 ethertype without an IPv4 header behind it."""
    return bytes(Ether(src=src, dst=dst, type=0x0800)) + b"\xff" * (length - 14)
