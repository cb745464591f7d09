"""The kernel's table of connections has room."""

from __future__ import annotations

from collections.abc import Iterator

from ..findings import Finding, hint, wrong
from ..patient import Patient

_PLACE = "/proc/sys/net/netfilter"
_NEAR, _FULL = 0.75, 0.95


def examine(patient: Patient) -> Iterator[Finding]:
    """Wrong from 95 % on, a hint from 75 % on."""
    try:
        count, most = (_number(f"{_PLACE}/{name}") for name in ("nf_conntrack_count", "nf_conntrack_max"))
    except FileNotFoundError:
        return  # this kernel tracks nothing
    if most and count >= most * _NEAR:
        find = wrong if count >= most * _FULL else hint
        yield find(
            f"the kernel tracks {count} connections and has room for {most}",
            "in a full table no new connection of any guest begins; see also [nftables] connections, a guest's share",
            f"sysctl -w net.netfilter.nf_conntrack_max={most * 4}",
        )


def _number(path: str) -> int:
    with open(path, encoding="ascii") as file:
        return int(file.read())
