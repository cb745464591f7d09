"""
Figures, not tests: how soon the service sees and puts right what nobody tells a hook.

    python tests/bench/watch.py [--taps 1,20,100] [--guests 100] [--plugs 10] [--frames 400] [--rounds 5]

Flush, with the guard on: from the end of `nft flush ruleset` until the guard is back, until every tap has its
elements again, and the line in the journal, which counts to the last comparison. Frames: what guard and shield cost the
last of so many taps, in pairs (packets.py). Resync: a process, libvirt faked by files of XML; first everything is made,
then nothing is to do. Plug: a real libvirtd and QEMU, from libvirt's event until the tap's rules are in force; it needs
what tests/libvirt needs. Goals are beside the figures.
"""

from __future__ import annotations

import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from nwfilter_hook.nftables.netlink import read_verdicts  # noqa: E402
from tests.bench.figures import compare, line  # noqa: E402
from tests.bench.guests import mac  # noqa: E402
from tests.bench.packets import FloodedWire  # noqa: E402
from tests.libvirt.conftest import CONFIGURATION, Guests, Host, configuration  # noqa: E402
from tests.libvirt.test_watch import BR0, Watch  # noqa: E402
from tests.support.domains import interface  # noqa: E402
from tests.support.guest import build_initramfs, filterref_xml, interface_xml, unpack_kernel  # noqa: E402
from tests.support.libvirtd import wait_for  # noqa: E402
from tests.support.netns import Wire  # noqa: E402
from tests.support.stock_kernel import stock_kernel  # noqa: E402
from tests.watch.conftest import Hypervisor, Service  # noqa: E402

FLUSH_GOALS_MS = {1: 50, 20: 50, 100: 250, 400: 1000}


def milliseconds(values: list[float]) -> str:
    """Median and worst."""
    return f"{statistics.median(values):7.0f} ms, worst {max(values):5.0f}"


def until(probe: Callable[[], bool]) -> float:
    """When it was so, by the monotonic clock."""
    end = time.monotonic() + 60
    while not probe():
        assert time.monotonic() < end
        time.sleep(0.0005)
    return time.monotonic()


def cpu_s(pid: int) -> float:
    """Seconds that a process has computed."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mb(pid: int) -> float:
    """What a process has in memory."""
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) / 1024


@contextmanager
def hypervisor(taps: int) -> Iterator[Hypervisor]:
    """So many guests with one tap each, whose rules are in force; the time that took is printed."""
    names = [f"vnet{number}" for number in range(taps)]
    with Wire(names) as wire:
        made = Hypervisor(wire)
        for number, tap in enumerate(names):
            address = [("IP", f"10.{number >> 8}.{number & 255}.1")]
            made.runs(f"guest-{number}", [interface(tap, "clean-traffic", address, mac=mac(number))])
        began = time.monotonic()
        made.resync()
        made.first_s = time.monotonic() - began
        yield made


def flush(taps: int, rounds: int) -> None:
    """The ruleset is flushed, and comes back."""
    with hypervisor(taps) as made, Service(made) as service:
        assert made.command("guard", "on", "--yes").returncode == 0
        guarded, seen, said = [], [], []
        for number in range(rounds):
            time.sleep(1)  # for what is left to do after the last one
            made.wire.apply("flush ruleset")
            began = time.monotonic()
            with made.wire.inside():
                guarded.append(1000 * (until(lambda: "" in read_verdicts("to-guest-l2")) - began))
                seen.append(1000 * (until(lambda: len(read_verdicts("to-guest-l2")) == taps + 1) - began))
            wait_for("told", partial(_told, service, number), 30)
            said.append(float(service.told()["drifted"]["ms"]))
        click.echo(f"flush, {taps:3} taps: guard back after {milliseconds(guarded)}   (goal 10)")
        goal = f"   (goal {FLUSH_GOALS_MS[taps]})" if taps in FLUSH_GOALS_MS else ""
        click.echo(f"flush, {taps:3} taps: all back after {milliseconds(seen)}{goal}; compared {milliseconds(said)}")
        pid = service.process.pid
        time.sleep(1)
        before = cpu_s(pid)
        time.sleep(10)
        used = (cpu_s(pid) - before) * 10
        click.echo(
            f"idle,  {taps:3} taps: {resident_mb(pid):.0f} MB (goal 30), {used:.1f} % of a core over 10 s (goal 0.2)"
        )


def _told(service: Service, times: int) -> bool:
    return service.said().count("as recorded again") > times


def resync(guests: int) -> None:
    """All guests are looked at."""
    with hypervisor(guests) as made:
        times = []
        for _ in range(3):
            began = time.monotonic()
            made.resync()
            times.append(1000 * (time.monotonic() - began))
        click.echo(
            f"resync, {guests} guests: {milliseconds(times)} with everything in place (goal 3000 for 300); the first, "
            f"which made everything, {made.first_s:.1f} s"
        )
        with Service(made, "qemu:///system") as service:
            wait_for("resynced", lambda: service.told()["resynced"], 60)
            pid = service.process.pid
            click.echo(f"resync, {guests} guests, by the service: {service.told()['resynced']['ms']} ms")
            click.echo(f"idle,   {guests} guests: {resident_mb(pid):.0f} MB")


def frames(taps: int, rounds: int) -> None:
    """What guard and shield cost a frame of the last of so many taps."""
    with FloodedWire(taps) as wire:

        def blasted(prepare: Callable[[], None]) -> float:
            prepare()
            try:
                return wire.blast(50_000) / 1000
            finally:
                wire.flush()

        for name, shield, goal in (("guard", False, 0.98), ("guard and shield", True, 0.9)):
            with_it = partial(blasted, partial(wire.install_guarded, shield=shield))
            plain = partial(blasted, wire.install)
            found = compare(
                f"{name}, {taps} taps", "without", with_it, plain, goal=goal, rounds=rounds, unit="kpps", more=True
            )
            click.echo(line(found))


def plug(plugs: int) -> None:
    """A device is attached to a running guest."""
    host = Host()
    with tempfile.TemporaryDirectory() as directory:
        kernel = stock_kernel()
        image = unpack_kernel(kernel.vmlinuz, Path(directory)), build_initramfs(kernel, Path(directory))
        watch = Watch(host)
        try:
            host.add_network()
            host.install_hook()
            host.libvirtd.start()
            host.write(CONFIGURATION, configuration() + "[watch]\npoll_s = 3600\n")
            guest = Guests(host, *image).boot("plugged", interface_xml(mac(0), BR0))
            watch.start()
            times = [_plug(host, guest.name, number) for number in range(1, plugs + 1)]
            click.echo(f"plug: rules {milliseconds(times)} after libvirt's event (goal 50, p95, idle host)")
        finally:
            watch.stop()
            host.close()


def _plug(host: Host, name: str, number: int) -> float:
    reference = filterref_xml("clean-traffic", ("IP", f"10.0.1.{number}"))
    host.write("/run/plug.xml", interface_xml(mac(number), BR0, reference=reference, tap=f"plug{number}"))
    log = host.path("/run/events.log")
    log.write_text("")
    with log.open("ab") as output:
        command = [
            "virsh",
            "-c",
            "qemu:///system",
            "event",
            "--event",
            "device-added",
            "--timestamp",
            "--timeout",
            "20",
        ]
        events = host.start_process(command, output)
    time.sleep(0.5)
    with open(os.devnull, "wb") as nowhere:
        virsh = ["virsh", "-c", "qemu:///system", "attach-device", name, "/run/plug.xml", "--live"]
        plugging = host.start_process(virsh, nowhere)
    with host.inside_network():
        until(lambda: f"plug{number}" in read_verdicts("to-guest-l2"))
    there = time.time()
    assert plugging.wait() == 0
    assert events.wait() == 0
    told = datetime.strptime(log.read_text()[:23], "%Y-%m-%d %H:%M:%S.%f").replace(tzinfo=timezone.utc)
    host.libvirtd.virsh("detach-device", name, "/run/plug.xml", "--live")
    return 1000 * (there - told.timestamp())


@click.command()
@click.option("--taps", default="1,20,100")
@click.option("--guests", default=100)
@click.option("--plugs", default=10)
@click.option("--frames", "flooded", default=400)
@click.option("--rounds", default=5)
def main(taps: str, guests: int, plugs: int, flooded: int, rounds: int) -> None:
    """See the module."""
    for number in map(int, filter(None, taps.split(","))):
        flush(number, rounds)
    if flooded:
        frames(flooded, 3 * rounds)
    if guests:
        resync(guests)
    if plugs:
        plug(plugs)


if __name__ == "__main__":
    main()
