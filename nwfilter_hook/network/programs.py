"""
BPF programs that netlink doesn't show: those that tcx runs before the filters of traffic control (kernel 6.6).

bpf(2), BPF_PROG_QUERY; include/uapi/linux/bpf.h
"""

from __future__ import annotations

import errno
import os
import struct

TCX_INGRESS = 46  # enum bpf_attach_type

_QUERY = 16  # BPF_PROG_QUERY
_SYSTEM_CALL = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "loongarch64": 280, "ppc64le": 361, "s390x": 351}
_ATTRIBUTES = struct.Struct("=IIIIQIIQQQQ")  # device, hook, flags (2), numbers of the programs, how many …
_MOST = 64


def tcx_programs(device: int, hook: int = TCX_INGRESS) -> tuple[int, ...]:
    """
    Numbers of the programs on the device of this index, in the order in which they run; none where there is no tcx.

    Raises:
        OSError: we may not ask.
    """
    import ctypes

    call = _SYSTEM_CALL.get(os.uname().machine)
    if call is None:
        return ()
    numbers = (ctypes.c_uint32 * _MOST)()
    query = ctypes.create_string_buffer(
        _ATTRIBUTES.pack(device, hook, 0, 0, ctypes.addressof(numbers), _MOST, 0, 0, 0, 0, 0), _ATTRIBUTES.size
    )
    library = ctypes.CDLL(None, use_errno=True)
    if library.syscall(call, _QUERY, query, _ATTRIBUTES.size) != 0:
        number = ctypes.get_errno()
        if number in (errno.EINVAL, errno.ENOENT, errno.ENODEV, errno.ENOSYS, errno.EOPNOTSUPP):
            return ()
        if number != errno.ENOSPC:  # more than we have room for: those that fit are there
            raise OSError(number, os.strerror(number))
    found = min(_ATTRIBUTES.unpack(query.raw)[5], _MOST)
    return tuple(numbers[:found])
