"""
How many connections the kernel tracks, and how many it can, in this network namespace.

https://docs.kernel.org/networking/nf_conntrack-sysctl.html
"""

from __future__ import annotations

_DIRECTORY = "/proc/sys/net/netfilter"


def tracked() -> tuple[int, int] | None:
    """Both; None where connection tracking isn't loaded."""
    try:
        return _read("nf_conntrack_count"), _read("nf_conntrack_max")
    except (OSError, ValueError):
        return None


def _read(name: str) -> int:
    with open(f"{_DIRECTORY}/{name}", encoding="ascii") as file:
        return int(file.read())
