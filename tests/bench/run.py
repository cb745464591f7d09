"""
Figures, not tests: how long things take here, as ratios of two things measured in turn in one run.

    python tests/bench/run.py [--taps 1,100,400] [--libvirt-taps N] [--packets]

Everything happens in private namespaces. `--libvirt-taps N` also gives N taps libvirt's own filter (that takes it more
than a second each) and then times `nwfilter-binding-create` beside our hook. Nothing fails here.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.bench.packets import FloodedWire  # noqa: E402
from tests.support.libvirtd import Libvirtd, PrivateHost  # noqa: E402

PYTHON = "/usr/bin/python3"
HOOK = "/etc/libvirt/hooks/qemu.d/50-nwfilter-hook"
ROUNDS = 15


def domain(number: int, *, reference: bool = True) -> str:
    """The XML of a guest with one interface on tap `vnetNUMBER`."""
    address = f"10.{number >> 8}.{number & 255}.1"
    inner = f"<filterref filter='clean-traffic'><parameter name='IP' value='{address}'/></filterref>"
    return (
        f"<domain type='qemu'><name>guest-{number}</name><uuid>{uuid.UUID(int=number + 1)}</uuid><devices>"
        f"<interface type='bridge'><mac address='{mac(number)}'/><source bridge='br0'/><target dev='vnet{number}'/>"
        f"{inner if reference else ''}</interface></devices></domain>"
    )


def mac(number: int) -> str:
    """The MAC of guest `number`."""
    return f"52:54:00:00:{number >> 8:02x}:{number & 255:02x}"


def timed(action: Callable[[], object]) -> float:
    """Milliseconds of one call."""
    start = time.perf_counter()
    action()
    return (time.perf_counter() - start) * 1000


def in_turn(actions: dict[str, Callable[[], object]], rounds: int = ROUNDS) -> dict[str, float]:
    """The median of each action's milliseconds; the actions take turns, so that a noisy machine is noisy for all."""
    found: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(rounds):
        for name, action in actions.items():
            found[name].append(timed(action))
    return {name: statistics.median(values) for name, values in found.items()}


class Bench:
    """A private host with our hook, and guests on it that exist only as events."""

    def __init__(self) -> None:
        self.host = PrivateHost()
        self.installed = 0
        self.host.write("/etc/nwfilter-hook/nwfilter-hook.conf", "")
        self.host.run("make", "--silent", "-C", str(ROOT), "hook")
        self.prefix = ["nsenter", "--target", self.host.root.parent.name, "--mount", "--net", "--pid", "--"]

    def command(self, *command: str, stdin: str = "") -> Callable[[], object]:
        """A call that runs `command` on the private host; what entering it costs is in every figure."""

        def call() -> object:
            done = subprocess.run([*self.prefix, *command], input=stdin, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{command}: {done.stderr}"
            return done

        return call

    def hook(self, number: int, operation: str, **more: bool) -> Callable[[], object]:
        """A call of our hook as a process."""
        return self.command(HOOK, f"guest-{number}", operation, "begin", "-", stdin=domain(number, **more))

    def fill(self, taps: int) -> None:
        """See that `taps` taps are under filter."""
        for number in range(self.installed, taps):
            self.hook(number, "start")()
        self.installed = max(self.installed, taps)

    def script(self, number: int) -> str:
        """The transaction of a start."""
        command = [str(ROOT / ".venv/bin/python"), "-m", "nwfilter_hook", "replay", f"guest-{number}", "start"]
        done = subprocess.run(
            [*command, "--xml", "-", "--dry-run"],
            input=domain(number),
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
        )
        return done.stdout


def report(line: str, ratio: float, budget: str) -> None:
    """One line of the result."""
    click.echo(f"{line:<86} {ratio:6.2f}   {budget}")


def bench_hook(bench: Bench, taps: int) -> None:
    """A hook that has nothing to do, and a start, with `taps` taps under filter."""
    bench.fill(taps)
    script = bench.script(taps)
    found = in_turn(
        {
            "python": bench.command(PYTHON, "-I", "-c", "pass"),
            "nft": bench.command("nft", "-f", "-", stdin=script),
            "true": bench.command("true"),
            "started": bench.hook(taps, "started"),
            "no filterref": bench.hook(taps, "start", reference=False),
            "start": bench.hook(taps, "start"),
            "stopped": bench.hook(taps, "stopped"),
        }
    )
    entering = found.pop("true")
    ms = {name: value - entering for name, value in found.items()}
    click.echo(f"\n{taps} taps; milliseconds: " + ", ".join(f"{name} {value:.1f}" for name, value in ms.items()))
    report("hook with nothing to do (started) : python3 -I -c pass", ms["started"] / ms["python"], "budget 1.5")
    report(
        "hook with nothing to do (no filterref) : python3 -I -c pass", ms["no filterref"] / ms["python"], "budget 1.5"
    )
    report(
        "start of one tap : python3 -I -c pass + nft -f of the script",
        ms["start"] / (ms["python"] + ms["nft"]),
        "goal 2",
    )


def bench_memory(bench: Bench) -> None:
    """Peak memory of a start."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    done = bench.command(
        PYTHON,
        "-c",
        "import resource, subprocess, sys\n"
        "subprocess.run(sys.argv[1:], stdin=sys.stdin, check=True)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)",
        HOOK,
        "guest-9999",
        "start",
        "begin",
        "-",
        stdin=domain(9999),
    )()
    assert isinstance(done, subprocess.CompletedProcess)
    report(
        f"peak memory of a start, MB (all of it; this process had {before // 1024})",
        int(done.stdout) / 1024,
        "budget 60",
    )


def bench_libvirt(bench: Bench, taps: int, rounds: int = 5) -> None:
    """libvirt's own driver beside ours, `taps` taps under each one's filter."""
    host = bench.host
    libvirtd = Libvirtd(host)
    stock = Path("/etc/libvirt/nwfilter")
    if not stock.is_dir():
        raise click.ClickException("libvirt's own filters (package libvirt-daemon-config-nwfilter) are not here")
    for path in stock.glob("*.xml"):
        host.write(f"/etc/libvirt/nwfilter/{path.name}", path.read_text())
    libvirtd.start()
    host.ip(
        "link add br0 type bridge",
        *(
            line
            for n in range(taps + 1)
            for line in (f"tuntap add vnet{n} mode tap", f"link set vnet{n} master br0 up")
        ),
    )

    def bind(number: int) -> None:
        host.write(
            "/run/binding.xml",
            f"<filterbinding><owner><name>guest-{number}</name><uuid>{uuid.UUID(int=number + 1)}</uuid></owner>"
            f"<portdev name='vnet{number}'/><mac address='{mac(number)}'/><filterref filter='clean-traffic'>"
            f"<parameter name='IP' value='10.{number >> 8}.{number & 255}.1'/></filterref></filterbinding>",
        )
        libvirtd.virsh("nwfilter-binding-create", "/run/binding.xml")

    start = time.monotonic()
    for number in range(taps):
        bind(number)
    click.echo(f"\nlibvirt: {taps} bindings made in {time.monotonic() - start:.0f} s")
    bench.fill(taps)
    theirs, ours = [], []
    for _ in range(rounds):
        theirs.append(timed(lambda: bind(taps)))
        libvirtd.virsh("nwfilter-binding-delete", f"vnet{taps}")
        ours.append(timed(bench.hook(taps, "start")))
        bench.hook(taps, "stopped")()
    them, us = statistics.median(theirs), statistics.median(ours)
    click.echo(f"{taps} taps; milliseconds: libvirt {them:.0f}, ours {us:.0f}")
    report("virsh nwfilter-binding-create : our hook's start, clean-traffic, one tap", them / us, "at least 15")


def bench_packets(taps: int, frames: int = 50_000, rounds: int = 25) -> None:
    """Small UDP packets from the last of `taps` taps through the bridge, with our table and without."""
    with FloodedWire(taps) as wire:
        with_table, without = [], []
        for _ in range(rounds):
            wire.install()
            with_table.append(wire.blast(frames))
            wire.flush()
            without.append(wire.blast(frames))
    ours, bare = statistics.median(with_table), statistics.median(without)
    click.echo(f"\n{taps} taps; kpps: filtered {ours / 1000:.0f}, no table {bare / 1000:.0f}")
    report("packets through the last tap : the same bridge without a table", ours / bare, "at least 0.8")


@click.command()
@click.option("--taps", default="1,100,400", show_default=True, help="Numbers of taps under filter.")
@click.option("--libvirt-taps", type=int, help="Compare with libvirt's own driver at so many taps (slow to set up).")
@click.option("--packets", is_flag=True, help="Measure packets through 1000 taps.")
def main(taps: str, libvirt_taps: int | None, packets: bool) -> None:
    """Print the ratios of the design's speed budgets."""
    if os.geteuid() != 0:
        raise click.ClickException("run this as root: it makes namespaces")
    click.echo(f"{'what':<86} {'ratio':>6}")
    bench = Bench()
    try:
        for number in (int(text) for text in taps.split(",")):
            bench_hook(bench, number)
        bench_memory(bench)
        if libvirt_taps is not None:
            bench_libvirt(bench, libvirt_taps)
    finally:
        bench.host.close()
    if packets:
        bench_packets(1000)


if __name__ == "__main__":
    main()
