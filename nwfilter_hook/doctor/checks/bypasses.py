"""No way past a filter: XDP, tcx and tc programs, tc redirects, flowtables, VLAN devices, packet sockets, broute."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..findings import Finding, hint, wrong
from ..patient import Patient

_COMMANDS = (
    (r"a tc filter .* at the ingress of (\S+)", "tc filter del dev {0} ingress"),
    (r"a tc filter .* on (\S+) sends", "tc -statistics filter show dev {0}"),
    (r"XDP program .* gets the frames of (\S+)", "ip link set dev {0} xdp off"),
    (r"BPF program .*\(tcx\) gets the frames of (\S+)", "bpftool net detach tcx_ingress dev {0}"),
    (r"flowtable (\S+ \S+ \S+) ", "nft delete flowtable {0}"),
    (r"table (\S+ \S+) (?:has|takes) ", "nft delete table {0}"),
    (r"\d+ rules in ebtables' table broute", "ebtables-legacy -t broute -F"),
    (r"(\S+) takes the frames of its VLAN", "ip link delete {0}"),
    (r"a packet socket on ", "ss --packet --processes"),
    (r".*link set (\S+) type bridge no_linklocal_learn 1", "ip link set {0} type bridge no_linklocal_learn 1"),
)
"""By how the sentence begins: what ends it, or shows who made it, where that can't be told."""
_HARMLESS = ("packet-socket", "reserved-destinations")
"""A sniffer, usually; a kernel that has no place for rules there."""


def examine(patient: Patient) -> Iterator[Finding]:
    """Wrong: each way that `show` names; a packet socket is a hint, since a sniffer has one, too."""
    for view in patient.views:
        for bypass in view.bypasses:
            find = hint if bypass.way in _HARMLESS else wrong
            yield find(
                f"{view.guest}: {view.tap}: {bypass.text}",
                "what goes that way is judged by no filter; nwfilter-hook doesn't close it, since root made it",
                _command(bypass.text),
            )


def _command(text: str) -> str:
    for pattern, command in _COMMANDS:
        found = re.match(pattern, text)
        if found:
            return command.format(*found.groups())
    return ""
