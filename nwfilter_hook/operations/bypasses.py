"""
Ways past the hooks that filters stand on: what an administrator, or another program of root's, has put onto a tap.

In:  names of taps.
Out: a `Bypass` for each way that is open; nothing is closed, only named.

They stand here in the order in which the kernel asks (net/core/dev.c, __netif_receive_skb_core): XDP, packet sockets,
tcx, filters of traffic control, chains and flowtables on the device, VLAN devices on top of it: all that is before the
bridge; then what a bridge asks before our chains (broute). And there is who sends by the tap without the bridge.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..base.dataclass import dataclass
from ..network.links import Link
from ..network.surroundings import Surroundings, look_around, look_at_flowtables
from ..network.tables import BRIDGE, FAMILIES, Flowtable
from ..network.traffic_control import Action, Filter

_HARMLESS = (
    *("police", "gact", "gate", "simple", "sample", "connmark", "ctinfo", "skbedit"),
    *("skbmod", "pedit", "csum", "nat", "vlan", "mpls", "tunnel_key", "ife"),
)
"""Actions after which a frame goes on to the filter, or nowhere; one that they change is judged as it is then."""


@dataclass(frozen=True)
class Bypass:
    """
    One way past a tap's filter.

    Attributes:
        way: a name for programs: tc-redirect, tc-mirror, tc-bpf, tc-connection, tc-unknown, tcx, xdp, flowtable, vlan,
            nft-fwd, nft-dup, broute, packet-socket; reserved-destinations, where the kernel has no rules before the
            bridge; or unreadable, where it can't be told whether there is one.
        text: one sentence.
    """

    tap: str
    way: str
    text: str


def find_bypasses(*taps: str) -> tuple[Bypass, ...]:
    """The ways past the filters of these taps, tap by tap; a tap that isn't there has none."""
    if not taps:
        return ()
    seen = look_around(taps)
    return tuple(each for tap in taps for each in bypasses_of(tap, seen))


def connections_that_go_on(*taps: str) -> tuple[str, ...]:
    """One sentence for each flowtable that may go on with these taps' connections, though their rules have changed."""
    if not taps:
        return ()
    seen = look_at_flowtables(taps)
    notes = []
    for flowtable in seen.flowtables:
        carried = [tap for tap in taps if _carried(tap, flowtable, seen)]
        if carried:
            notes.append(
                f"flowtable {flowtable} may go on with connections that it has taken over from {', '.join(carried)}, "
                "whatever the rules say now; they end with their conntrack entries (conntrack -D)"
            )
    return tuple(notes)


def bypasses_of(tap: str, seen: Surroundings) -> tuple[Bypass, ...]:
    """The ways past one tap's filter. Pure."""
    link = seen.named(tap)
    found = [("unreadable", f"can't tell whether frames pass the filter by: {what}") for what in seen.unreadable]
    if link:
        found += [*_programs(link, seen), *_traffic_control(link, seen), *_tables(link, seen)]
    elif seen.links:
        return ()
    return tuple(Bypass(tap, way, text) for way, text in found)


_Ways = Iterator[tuple[str, str]]
"""`way` and `text` of a `Bypass`."""


def _programs(link: Link, seen: Surroundings) -> _Ways:
    for program in link.xdp:
        text = f"XDP program {program.id} ({program.mode}) gets the frames of {link.name} first and may send them on"
        yield "xdp", text
    if link.index in seen.packet_sockets:
        text = (
            f"a packet socket on {link.name} reads frames before the filter and may send past it: a sniffer, a switch"
        )
        yield "packet-socket", text
    for number in dict(seen.tcx).get(link.index, ()):
        text = f"BPF program {number} (tcx) gets the frames of {link.name} before the filter and may send them on"
        yield "tcx", text


def _traffic_control(link: Link, seen: Surroundings) -> _Ways:
    for each in seen.ingress:
        if each.device == link.index:
            what = f"{_filter(each)} at the ingress of {link.name}"
            if each.program:
                yield "tc-bpf", f"{what} is a BPF program that gets frames before the filter and may send them on"
            elif each.actions is None:
                yield "tc-unknown", f"{what} is of a kind that isn't known here and may send frames past the filter"
            for action in each.actions or ():
                yield from _action(link.name, what, action, seen)
    for each in seen.ingress + seen.others:
        device = seen.indexed(each.device)
        for action in each.actions or ():
            if action.sends and action.device == link.index and device and device.index != link.index:
                text = f"{_filter(each)} on {device.name} sends frames to {link.name} that no filter has seen"
                yield f"tc-{action.kind}", text


def _action(tap: str, what: str, action: Action, seen: Surroundings) -> _Ways:
    if action.kind in ("redirect", "mirror"):
        target = seen.indexed(action.device)
        name = target.name if target else f"device {action.device}"
        text = f"{what} {action.kind}s frames to {name} before the filter sees them"
        if target and target.kind == "ifb":
            text = (
                f"{what} sends frames through {name}; they come back behind chains on {tap} itself, before the bridge's"
            )
        yield f"tc-{action.kind}", text
    elif action.kind == "bpf":
        yield "tc-bpf", f"{what} runs a BPF program that may send frames past the filter"
    elif action.kind == "ct":
        yield "tc-connection", f"{what} says of which connection a frame is, before the filter looks at that"
    elif action.kind not in _HARMLESS:
        text = f"{what} has the action {action.kind!r}, which isn't known here and may send frames past the filter"
        yield "tc-unknown", text


def _tables(link: Link, seen: Surroundings) -> _Ways:
    for flowtable in seen.flowtables:
        carried = _carried(link.name, flowtable, seen)
        if carried:
            hardware = " (in hardware, too)" if flowtable.hardware else ""
            what = f"flowtable {flowtable}{hardware} carries {carried}: connections that it has taken over"
            known = "pass no filter"
            if carried != link.name:  # frames still pass the bridge's hooks, but to the guest with no conntrack entry
                known = "come to the guest without the state that rules look at"
            yield "flowtable", f"{what} {known}"
    on_link = {(chain.family, chain.table) for chain in seen.chains if chain.devices.include(link.name)}
    for (family, table), statements in seen.detours:
        for statement in sorted(statements - {"broute"}) if (family, table) in on_link else ():
            what = f"table {FAMILIES[family]} {table} has a chain on {link.name}"
            yield f"nft-{statement}", f"{what} and may send frames elsewhere ({statement}) before the filter sees them"
    if not link.master:
        return
    for each in seen.links:
        if each.lower == link.index and each.kind == "vlan":
            text = f"{each.name} takes the frames of its VLAN from {link.name}, and sends its own, without the bridge"
            yield "vlan", text
    for (family, table), statements in seen.detours:
        if family == BRIDGE and "broute" in statements:
            yield "broute", f"table bridge {table} takes frames out of the bridge before the filter sees them"
    if seen.brouting_rules:
        text = f"{seen.brouting_rules} rules in ebtables' table broute take frames out of the bridge before the filter"
        yield "broute", text


def _carried(tap: str, flowtable: Flowtable, seen: Surroundings) -> str:
    """The tap or its bridge, if the flowtable has it; else ""."""
    link = seen.named(tap)
    bridge = seen.indexed(link.master) if link else None
    devices = [each.name for each in (link, bridge) if each]
    return next((name for name in devices if flowtable.devices.include(name)), "")


def _filter(each: Filter) -> str:
    hardware = ", in hardware too" if each.hardware else ""
    return f"a tc filter ({each.kind} {each.preference}{hardware})"
