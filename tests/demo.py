"""
The main job, for eyes: `make demo`.

In a network namespace of its own, with bridges and taps, the real hooks/qemu gets the events that libvirt
once sent for a guest with five interfaces. Frames honest and forged go through the bridge, and a table shows
for each what should happen to it, what the kernel did, and which line of which filter decided that, as told
by the counters of the rules. Then the guest stops.

Exit status 0 if every verdict is as expected and nothing is left at the end, else 1. Needs root, no libvirt.

`--picture FILE` draws the table of verdicts as SVG besides, for the README: `make picture`.
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.support import frames
from tests.support.domains import recorded
from tests.support.frames import incoming, incoming_arp
from tests.support.netns import Wire

DEMO_FILTERS = Path(__file__).parent / "data" / "demo-filters"
GUEST = "web-01"
START, STOPPED, RELEASE = 5, 7, 9  # numbers in tests/data/hook-events

# The interfaces of the recorded guest, but for the direct one, which names no filter.
WEB, LEARNS, MAC_ONLY, PLAIN = "vnet0", "vnet1", "tap-eth0", "web-01-plain"
MAC_2, MAC_3 = "52:54:00:00:00:02", "52:54:00:00:00:03"
# The rest of the network, a tap on each bridge: it receives what gets through, and sends to the guest.
NEIGHBOUR, NEIGHBOUR_7 = "neighbour", "neighbour-7"
STRANGER = frames.THIRD
COMPILE = "compile --filter clean-traffic --tap vnet0 --mac 52:54:00:00:00:01 -p IP=192.0.2.7"
NEXT = (
    (
        f".venv/bin/python -m nwfilter_hook {COMPILE}",
        "what a filter becomes: every rule, with the filter and line that it is from",
    ),
    (
        ".venv/bin/python -m nwfilter_hook validate filters/clean-traffic.xml",
        "what is wrong with a filter; try one of yours",
    ),
    ("make install", "put it onto this host; guests that run go on as they are, see packaging/man/nwfilter-hook.8.rst"),
)
"""What a person may want to do after it, and what for."""


@dataclass(frozen=True)
class Trial:
    """A frame, and whether it should arrive."""

    says: str
    frame: bytes
    passes: bool


@dataclass(frozen=True)
class Group:
    """Trials on the way from one tap to another, in the order in which they are sent."""

    title: str
    sender: str
    to: str
    trials: tuple[Trial, ...]


GROUPS = (
    Group(
        "vnet0 sends: web-guest, 10.0.0.1 and 10.0.0.2",
        WEB,
        NEIGHBOUR,
        (
            Trial("ARP: who has 10.0.0.99?", frames.arp(), True),
            Trial("IPv4 from 10.0.0.1", frames.udp(), True),
            Trial("IPv4 from 10.0.0.2", frames.tcp(src_ip="10.0.0.2"), True),
            Trial("DHCP request of a client", frames.dhcp_discover(), True),
            Trial("RARP announcement after migration", frames.rarp_announce(), True),
            Trial("IPv4 under another MAC", frames.udp(src=STRANGER), False),
            Trial("ARP under another MAC", frames.arp(src=STRANGER), False),
            Trial("ARP naming another sender MAC", frames.arp(sender=STRANGER), False),
            Trial("ARP: 10.0.0.254 is at my MAC", frames.arp(opcode=2, sender_ip="10.0.0.254"), False),
            Trial("IPv4 from 10.0.0.3", frames.udp(src_ip="10.0.0.3"), False),
            Trial("DHCP server's answer", frames.dhcp_offer(src=frames.GUEST, src_ip=frames.GUEST_IP), False),
            Trial("IPv4 in a VLAN tag", frames.vlan(frames.udp()), False),
            Trial("ARP in a VLAN tag", frames.vlan(frames.arp()), False),
            Trial("IPv6", frames.ping6(), False),
            Trial("spanning tree", frames.stp_bpdu(), False),
        ),
    ),
    Group(
        "vnet0 receives",
        NEIGHBOUR,
        WEB,
        (
            Trial("ARP: who has 10.0.0.1?", incoming_arp(), True),
            Trial("IPv4", incoming(frames.udp), True),
            Trial("IPv4 in a VLAN tag", frames.vlan(incoming(frames.udp)), False),
            Trial("IPv6", incoming(frames.ping6), False),
        ),
    ),
    Group(
        "vnet1 sends: clean-traffic, address learned",
        LEARNS,
        NEIGHBOUR_7,
        (
            Trial("ARP under another MAC: no lesson", frames.arp(src=STRANGER, sender_ip="10.7.0.9"), False),
            Trial("ARP from 10.7.0.5: learned", frames.arp(src=MAC_2, sender=MAC_2, sender_ip="10.7.0.5"), True),
            Trial("IPv4 from 10.7.0.5", frames.udp(src=MAC_2, src_ip="10.7.0.5"), True),
            Trial("IPv4 from 10.7.0.6", frames.udp(src=MAC_2, src_ip="10.7.0.6"), False),
        ),
    ),
    Group(
        "tap-eth0 sends: no-mac-spoofing",
        MAC_ONLY,
        NEIGHBOUR,
        (
            Trial("IPv6 under its own MAC", frames.ping6(src=MAC_3), True),
            Trial("IPv6 under another MAC", frames.ping6(src=STRANGER), False),
            Trial("the same in a VLAN tag", frames.vlan(frames.ping6(src=STRANGER)), False),
        ),
    ),
    Group(
        "web-01-plain sends: no filter",
        PLAIN,
        NEIGHBOUR,
        (Trial("IPv6 in a VLAN tag, another MAC", frames.vlan(frames.ping6(src=STRANGER)), True),),
    ),
)

VERDICT = {True: "[green]passes[/]", False: "[red]dropped[/]"}


def run_trials(wire: Wire, console: Console) -> int:
    """Send every frame and print the table; the number of verdicts that are off."""
    wrong = 0
    table = Table("frame", "expected", "kernel's verdict", "decided by", header_style="bold")
    for group in GROUPS:
        table.add_section()
        table.add_row(f"[bold cyan]{group.title}[/]")
        for trial in group.trials:
            fate = wire.fate(trial.frame, group.sender, group.to)
            # A drop that no rule of ours accounts for is not our doing.
            right = fate.passed == trial.passes and (fate.passed or bool(fate.decided_by))
            wrong += not right
            table.add_row(
                f"  {trial.says}",
                VERDICT[trial.passes],
                VERDICT[fate.passed] + ("" if right else " [bold reverse red] WRONG [/]"),
                escape(", ".join(fate.decided_by)) or "[dim]no rule, so it passes[/]",
            )
    console.print(table)
    return wrong


def send_again(wire: Wire) -> int:
    """How many of the frames that were dropped don't pass now, with the rules gone."""
    return sum(
        not wire.passes(trial.frame, group.sender, group.to)
        for group in GROUPS
        for trial in group.trials
        if not trial.passes
    )


def run_hook(wire: Wire, console: Console, operation: str, xml: str, suboperation: str = "begin") -> bool:
    """Call hooks/qemu as libvirt does, and say so; did it succeed, without a word on stdout?"""
    console.print(f"[bold]$ hooks/qemu {GUEST} {operation} {suboperation} - <domain.xml[/]")
    finished = wire.hook(GUEST, operation, xml, suboperation=suboperation)
    if finished.stderr:
        console.print(finished.stderr.rstrip(), style="yellow", markup=False)
    if finished.returncode == 0 and not finished.stdout:
        return True
    console.print(f"[bold red]exit status {finished.returncode}, stdout {finished.stdout!r}[/]")
    return False


def left_behind(wire: Wire) -> list[str]:
    """What the guest should have taken with it: chains, map elements and sets of its taps, its record."""
    ruleset = wire.nft("list", "ruleset")
    taps = [f"nft still knows {tap}" for tap in (WEB, LEARNS, MAC_ONLY, PLAIN, "macvtap0") if tap in ruleset]
    records = [f"{path} is still there" for path in wire.state_dir.glob("domains/*")]
    return taps + records


def draw(console: Console, picture: Path) -> None:
    """What was printed last, as SVG; with fonts of the reader's, none from elsewhere."""
    text = re.sub(r"@font-face \{.*?\}", "", console.export_svg(title="make demo"), flags=re.DOTALL)
    picture.write_text("".join(f"{line.rstrip()}\n" for line in text.splitlines() if line.strip()))


def demonstrate(wire: Wire, console: Console, picture: Path | None = None) -> bool:
    """All of it; is everything as it should be?"""
    console.rule("1. The guest starts")
    console.print(
        f"libvirt has created the taps of {GUEST} and is about to run QEMU. It calls the hook with the XML of"
        " the guest, recorded on a real host. It has five interfaces: vnet0 and vnet1 refer to the filter"
        " clean-traffic, tap-eth0 to no-mac-spoofing, web-01-plain and macvtap0 to none. For vnet0,"
        " clean-traffic is replaced here by web-guest (tests/data/demo-filters), which adds a rule to it.\n"
    )
    xml = recorded(START).replace("filter='clean-traffic'", "filter='web-guest'", 1)
    if not run_hook(wire, console, "start", xml):
        return False

    console.rule("2. What is in the kernel now")
    console.print(wire.nft("--stateless", "list", "ruleset"), markup=False, highlight=False, soft_wrap=True)

    if console.record:
        console.export_text()  # the picture begins here
    console.rule("3. What the guest can send and receive")
    wrong = run_trials(wire, console)
    console.print(f"[bold red]{wrong} verdicts are off.[/]" if wrong else "Every verdict is as expected.")
    if picture:
        draw(console, picture)

    console.rule("4. The guest stops")
    console.print("libvirt calls the hook twice. The XML doesn't name generated taps any more; the record does.\n")
    stopped = run_hook(wire, console, "stopped", recorded(STOPPED), "end")
    released = run_hook(wire, console, "release", recorded(RELEASE), "end")
    left = left_behind(wire)
    for line in left:
        console.print(f"[bold red]{line}[/]", markup=True)
    if not left:
        console.print("Nothing of it is left: no chain, no map element, no set, no record. What nft lists now:\n")
    console.print(wire.nft("list", "ruleset") or "(nothing)", markup=False, highlight=False, soft_wrap=True)
    held = send_again(wire)
    if held:
        console.print(f"[bold red]{held} of the dropped frames are dropped still.[/]")
    else:
        console.print("Each frame that was dropped passes now: it was the filter that held it.")
    return stopped and released and not (wrong or left or held)


def main() -> int:
    """Run the demonstration on the terminal; the exit status."""
    if os.geteuid() != 0:
        print("the demo needs root, to make a network namespace of its own", file=sys.stderr)
        return 1
    picture = Path(sys.argv[2]) if sys.argv[1:2] == ["--picture"] and len(sys.argv) == 3 else None
    width = None if sys.stdout.isatty() and not picture else 110
    console = Console(width=width, record=picture is not None)
    with Wire((WEB, MAC_ONLY, PLAIN, NEIGHBOUR)) as wire:
        wire.add_bridge("virbr7")
        wire.plug(LEARNS, NEIGHBOUR_7, bridge="virbr7")
        wire.configure(filter_dirs=[DEMO_FILTERS], counters="all")
        good = demonstrate(wire, console, picture)
    console.rule("[bold green]All is well[/]" if good else "[bold red]Something is off[/]")
    if good:
        console.print("\nThree commands to go on with:\n")
        for command, why in NEXT:
            console.print(f"  # {why}", style="dim", markup=False, highlight=False)
            console.print(f"  {command}\n", markup=False, highlight=False, soft_wrap=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
