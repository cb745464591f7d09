"""
What the kernel tells of a frame that it traces, message by message.

In:  a netlink message of the group NFNLGRP_NFTRACE.
Out: a `Told`; the beginnings of the frame's headers are in the first message of each base chain.

enum nft_trace_attributes in linux/netfilter/nf_tables.h; net/netfilter/nf_tables_trace.c, which says how much of each
header there is.
"""

from __future__ import annotations

from ..base.dataclass import dataclass
from ..network.netlink import Message, attributes, number, text
from ..ruleset.frame import ETHERNET_BYTES
from ..ruleset.numbers import EtherType

GROUP = 9
_TRACE = 10 << 8 | 17  # NFNL_SUBSYS_NFTABLES, NFT_MSG_TRACE
_GENERIC = 4  # struct nfgenmsg
_TABLE, _CHAIN, _HANDLE, _TYPE, _VERDICT, _ID, _LINK, _NETWORK, _TRANSPORT, _IIF = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10
_POLICY_VERDICT = 16
POLICY = 1
"""`Told.kind` of a base chain's end."""
DROP, ACCEPT, _CONTINUE, RETURN = 0, 1, -1, -5
"""Verdicts: linux/netfilter.h, nf_tables.h."""
_LEAST_TYPE = b"\x06\x00"
_TAGS = (EtherType.VLAN, EtherType.VLAN_AD)


@dataclass(frozen=True)
class Headers:
    """The beginnings of a frame's headers; of a device's egress the kernel doesn't tell the Ethernet header."""

    link: bytes
    network: bytes
    transport: bytes

    def are_of(self, data: bytes) -> bool:
        """Whether `data` is a frame that has them."""
        # a tag that is all zeros the trace takes for none
        bare = _is_tagged(data) and data[14:16] == b"\0\0" and self._are_of(data[:12] + data[16:])
        return bare or self._are_of(data)

    def _are_of(self, data: bytes) -> bool:
        begin = len(self.link) or ETHERNET_BYTES + 4 * _is_tagged(data)
        # of a length behind a tag the kernel makes a number of its own
        link = self.link[:16] if _is_tagged(data) and data[16:18] < _LEAST_TYPE else self.link
        return data.startswith(link) and data[begin:].startswith(self.network) and self.transport in data[begin:]

    def frame(self) -> bytes:
        """What is known of the frame, as long as it says that it is; zeros where nothing is."""
        link = self.link or bytes(ETHERNET_BYTES - 2) + _type_by_version(self.network)
        network, length = self.network, len(self.network) + len(self.transport)
        if link[-2:] == b"\x08\x00" and len(network) >= 20:
            begin = max((network[0] & 15) * 4, len(network))
            length = int.from_bytes(network[2:4], "big")
        elif link[-2:] == b"\x86\xdd" and len(network) >= 40:
            begin, length = 40, 40 + int.from_bytes(network[4:6], "big")
        else:
            begin = len(network)
        return link + (network.ljust(begin, b"\0") + self.transport).ljust(length, b"\0")


@dataclass(frozen=True)
class Told:
    """
    One message.

    Attributes:
        family: number of the table's (NFPROTO_BRIDGE …).
        frame: the kernel's number of the frame; it uses numbers again, and a copy of the frame has another.
        kind: POLICY, or another.
        verdict: code of a rule's verdict, or of the chain's policy.
        handle: the kernel's number of the rule; None if it isn't about one.
        device: index of the device it came in by; 0 if it isn't told.
        headers: in the first message of a base chain.
    """

    family: int
    table: str
    chain: str
    frame: int
    kind: int
    verdict: int
    handle: int | None
    device: int
    headers: Headers | None


def parse_told(message: Message) -> Told | None:
    """None if it is another kind of message."""
    if message.type != _TRACE or len(message.payload) < _GENERIC:
        return None
    found = attributes(message.payload, _GENERIC)
    verdict = attributes(found.get(_VERDICT, b"")).get(1, b"")
    if _POLICY_VERDICT in found:
        verdict = found[_POLICY_VERDICT]
    parts = [found.get(key, b"") for key in (_LINK, _NETWORK, _TRANSPORT)]
    return Told(
        family=message.payload[0],
        table=text(found.get(_TABLE, b"")),
        chain=text(found.get(_CHAIN, b"")),
        frame=number(found.get(_ID, b""), network_order=True),
        kind=number(found.get(_TYPE, b""), network_order=True),
        verdict=int.from_bytes(verdict, "big", signed=True) if verdict else _CONTINUE,
        handle=number(found[_HANDLE], network_order=True) if _HANDLE in found else None,
        device=number(found.get(_IIF, b""), network_order=True),
        headers=Headers(*parts) if any(parts) else None,
    )


def _is_tagged(data: bytes) -> bool:
    return int.from_bytes(data[12:14], "big") in _TAGS


def _type_by_version(network: bytes) -> bytes:
    return {4: b"\x08\x00", 6: b"\x86\xdd"}.get(network[0] >> 4 if network else 0, b"\0\0")
