"""
The host's bound on the connections of one guest: a number, or a share of what the kernel's table holds.

In:  what the configuration says (config.py, [nftables] connections).
Out: the number.
"""

from __future__ import annotations

# https://docs.kernel.org/networking/nf_conntrack-sysctl.html
_TABLE_SIZE = "/proc/sys/net/netfilter/nf_conntrack_max"
_USUAL_SIZE = 65536
"""Of a machine with 1 to 4 GiB; assumed if the kernel has not loaded connection tracking yet, or has no limit."""
_LEAST = 256


def bound_of(setting: str) -> int:
    """0 for "none"."""
    if setting == "none":
        return 0
    one, slash, parts = setting.partition("/")
    if not slash:
        return int(one)
    return max(_LEAST, _table_size() // int(parts))


def _table_size() -> int:
    try:
        with open(_TABLE_SIZE, encoding="utf-8") as file:
            return int(file.read()) or _USUAL_SIZE
    except (OSError, ValueError):
        return _USUAL_SIZE
