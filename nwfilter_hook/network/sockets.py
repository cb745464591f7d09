"""
Two ways past a filter that older interfaces show: sockets that read a device's frames, and ebtables' table broute.

packet(7), /proc/net/packet; ebtables-legacy(8), net/bridge/netfilter/ebtable_broute.c
"""

from __future__ import annotations

import errno
import os
import struct

_GET_INFO = 128  # EBT_SO_GET_INFO
_REPLACE = struct.Struct("@32sIII6PIPP")  # struct ebt_replace: name, hooks, rules, size …


def devices_with_packet_sockets() -> frozenset[int]:
    """Indexes of the devices that somebody reads or writes by a packet socket of that device's own. Raises OSError."""
    try:
        with open("/proc/thread-self/net/packet", encoding="ascii") as file:
            lines = file.read().splitlines()[1:]
    except FileNotFoundError:
        return frozenset()
    return frozenset(int(line.split()[4]) for line in lines) - {0}


def brouting_rules() -> int:
    """
    How many rules ebtables' legacy table broute has here: they take frames out of the bridge before any chain of nft's.
    0 without the table; the question doesn't load its module.

    Raises:
        OSError: we may not ask.
    """
    try:
        with open("/proc/modules", encoding="ascii") as file:
            if not any(line.startswith("ebtable_broute ") for line in file):
                return 0
    except FileNotFoundError:
        pass  # a kernel without modules loads none
    import ctypes
    import socket

    table = ctypes.create_string_buffer(_REPLACE.pack(b"broute", *(0,) * 12), _REPLACE.size)
    size = ctypes.c_int(_REPLACE.size)
    library = ctypes.CDLL(None, use_errno=True)
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        if library.getsockopt(raw.fileno(), socket.SOL_IP, _GET_INFO, table, ctypes.byref(size)) != 0:
            number = ctypes.get_errno()
            if number in (errno.ENOENT, errno.ENOPROTOOPT):
                return 0
            raise OSError(number, os.strerror(number))
    return int(_REPLACE.unpack(table.raw)[2])
