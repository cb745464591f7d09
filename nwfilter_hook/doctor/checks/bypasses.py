"""No way past a filter: XDP, tcx and tc programs, tc redirects, flowtables, VLAN devices, packet sockets, broute."""

from __future__ import annotations

from collections.abc import Iterator

from ..findings import Finding, hint, wrong
from ..patient import Patient

_COMMANDS = {
    "tc": "tc filter show dev {tap} ingress",
    "tcx": "bpftool net show dev {tap}",
    "xdp": "ip link set dev {tap} xdp off",
    "flowtable": "nft list flowtables",
    "vlan": "ip -details link show type vlan",
    "nft": "nft list ruleset netdev",
    "broute": "ebtables -t broute -L; nft list ruleset bridge",
    "packet-socket": "ss --packet --processes",
    "reserved-destinations": "ip link set {bridge} type bridge no_linklocal_learn 1",
    "unreadable": "",
}
_HARMLESS = ("packet-socket", "reserved-destinations")
"""A sniffer, usually; a kernel that has no place for rules there."""


def examine(patient: Patient) -> Iterator[Finding]:
    """Wrong: each way that `show` names; a packet socket is a hint, since a sniffer has one, too."""
    bridges = {each.tap: each.bridge or "BRIDGE" for record in patient.records for each in record.bindings}
    for view in patient.views:
        for bypass in view.bypasses:
            way = bypass.way
            command = _COMMANDS.get(way) or _COMMANDS.get(way.partition("-")[0], "")
            find = hint if way in _HARMLESS else wrong
            yield find(
                f"{view.guest}: {view.tap}: {bypass.text}",
                "what goes that way is judged by no filter; nwfilter-hook doesn't close it, since root made it",
                command.format(tap=view.tap, bridge=bridges[view.tap]),
            )
