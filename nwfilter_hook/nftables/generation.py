"""
Which ruleset the kernel shows here, and the number of its last change: one question each, and next to no imports.

A hook that has nothing to do asks this.

Formats: linux/netlink.h, linux/netfilter/nfnetlink.h, nf_tables.h (NFT_MSG_GETGEN), asm-generic/socket.h
"""

from __future__ import annotations

import sys

from ..network.door import Door

_NETFILTER = 12  # NETLINK_NETFILTER
_GET_GENERATION, _NEW_GENERATION = 10 << 8 | 16, 10 << 8 | 15  # NFNL_SUBSYS_NFTABLES
_HEADER, _FAMILY, _ATTRIBUTE = 16, 4, 4
_REQUEST = 1
_SOL_SOCKET, _COOKIE = 1, 71  # SO_NETNS_COOKIE
_TIMEOUT_S = 20.0
_BOOT_ID = "/proc/sys/kernel/random/boot_id"


def ask_generation() -> int:
    """The number of the last transaction that anybody made, in this network namespace. Raises OSError."""
    length = _HEADER + _FAMILY
    parts = ((length, 4), (_GET_GENERATION, 2), (_REQUEST, 2), (1, 4), (0, 4), (0, 4))
    question = b"".join(value.to_bytes(size, sys.byteorder) for value, size in parts)
    with Door(_NETFILTER) as door:
        door.settimeout(_TIMEOUT_S)
        door.send(question)
        answer = door.recv(1 << 16)
    first = _HEADER + _FAMILY
    kind = int.from_bytes(answer[4:6], sys.byteorder)
    attribute = int.from_bytes(answer[first + 2 : first + 4], sys.byteorder)  # NFTA_GEN_ID comes first
    if kind != _NEW_GENERATION or attribute != 1:
        raise OSError(71, f"it answers {kind} when it is asked for the generation of its ruleset")
    return int.from_bytes(answer[first + _ATTRIBUTE : first + _ATTRIBUTE + 4], "big")


def namespace() -> str:
    """
    What no other boot and no other network namespace has; "" if that can't be told (before Linux 5.14).

    The number of a namespace's inode is given to another one when it is gone; the kernel's cookie isn't.
    """
    try:
        with open(_BOOT_ID, encoding="ascii") as file:
            boot = file.read(64).strip()
        with Door(_NETFILTER) as door:
            cookie = door.getsockopt(_SOL_SOCKET, _COOKIE, 8)
    except OSError:
        return ""
    return f"{boot}/{int.from_bytes(cookie, sys.byteorder)}" if boot and len(cookie) == 8 else ""
