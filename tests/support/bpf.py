"""
BPF programs without a compiler, put where an administrator could put one.

A program here is two instructions, "return this". It stays as long as what it hangs on, or the descriptor.
bpf(2); include/uapi/linux/bpf.h, if_link.h, pkt_cls.h
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct

from nwfilter_hook.network.netlink import attribute
from nwfilter_hook.network.programs import TCX_INGRESS

XDP, SCHED_CLS = 6, 3  # enum bpf_prog_type
XDP_PASS, TC_OK, TCX_NEXT = 2, 0, -1
GENERIC, NATIVE = 2, 4  # XDP_FLAGS_SKB_MODE, XDP_FLAGS_DRV_MODE

_CALL = {"x86_64": 321, "aarch64": 280}
_PROG_LOAD, _LINK_CREATE = 5, 28
_SETLINK, _NEWTFILTER = 19, 44
_REQUEST_AND_ACK, _CREATE = 0x5, 0x400
_CLSACT_INGRESS = 0xFFFFFFF2


def _bpf(command: int, attributes: bytes) -> int:
    library = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    result = int(library.syscall(_CALL[os.uname().machine], command, buffer, len(attributes)))
    if result < 0:
        raise OSError(ctypes.get_errno(), f"bpf({command}): {os.strerror(ctypes.get_errno())}")
    return result


def load(kind: int, answer: int) -> int:
    """A descriptor of a program that returns `answer`."""
    instructions = struct.pack("=BBhi", 0xB7, 0, 0, answer) + struct.pack("=BBhi", 0x95, 0, 0, 0)  # r0 = answer; exit
    code, license_ = ctypes.create_string_buffer(instructions), ctypes.create_string_buffer(b"GPL")
    addresses = ctypes.addressof(code), ctypes.addressof(license_)
    return _bpf(_PROG_LOAD, struct.pack("=IIQQIIQII16sII", kind, 2, *addresses, 0, 0, 0, 0, 0, b"", 0, 0))


def attach_xdp(device: int, mode: int) -> None:
    """Let a program that passes everything on see the frames of the device of this index first."""
    program = load(XDP, XDP_PASS)
    values = attribute(1, struct.pack("=i", program)) + attribute(3, struct.pack("=I", mode))
    _rtnetlink(_SETLINK, 0, struct.pack("=BxHiII", 0, 0, device, 0, 0) + attribute(43 | 0x8000, values))
    os.close(program)


def attach_tc(device: int) -> None:
    """The same as a filter on its clsact discipline, which must be there."""
    program = load(SCHED_CLS, TC_OK)
    values = attribute(6, struct.pack("=i", program)) + attribute(7, b"test\0") + attribute(8, struct.pack("=I", 1))
    head = struct.pack("=BxxxiIII", 0, device, 0, _CLSACT_INGRESS, socket.htons(3))
    _rtnetlink(_NEWTFILTER, _CREATE, head + attribute(1, b"bpf\0") + attribute(2, values))
    os.close(program)


def attach_tcx(device: int) -> int:
    """The same by tcx (kernel 6.6 and newer); a descriptor that holds it."""
    program = load(SCHED_CLS, TCX_NEXT)
    link = _bpf(_LINK_CREATE, struct.pack("=IIIIIIQ", program, device, TCX_INGRESS, 0, 0, 0, 0))
    os.close(program)
    return link


def _rtnetlink(kind: int, flags: int, payload: bytes) -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as route:
        route.send(struct.pack("=IHHII", 16 + len(payload), kind, _REQUEST_AND_ACK | flags, 1, 0) + payload)
        number = struct.unpack_from("=i", route.recv(65536), 16)[0]
        if number != 0:
            raise OSError(-number, os.strerror(-number))
