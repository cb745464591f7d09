"""
Figures, not tests: what the redefinition of one filter costs when many taps use it.

    python tests/bench/redefine.py [--taps 10,100,400,1000] [--rounds 3]

Every tap is a guest's under clean-traffic; redefined is no-mac-spoofing, which is in its tree, so every tap changes.
The command runs as a process, so its start is in the figure; `nothing changes` beside it tells how much that is.
`cpu` is what the command and its nft computed: a busy machine makes the seconds longer, not that. Memory is the sum
of the command and its nft at their worst moment. Budgets: 3 s and 200 MB at 400 taps.
"""

from __future__ import annotations

import contextlib
import os
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.bench.run import mac  # noqa: E402
from tests.support.host import STOCK, Sandbox  # noqa: E402
from tests.support.netns import Wire  # noqa: E402

BUDGET_S = 3
BUDGET_MB = 200


class Memory(threading.Thread):
    """Watches how much memory a process and its children have together; `peak_mb` is the most there was."""

    def __init__(self, process: int) -> None:
        super().__init__(daemon=True)
        self.peak_mb = 0.0
        self._process = process

    def run(self) -> None:
        while True:
            found = 0
            with contextlib.suppress(OSError):
                children = Path(f"/proc/{self._process}/task/{self._process}/children").read_text().split()
                found = sum(_resident_kb(each) for each in (str(self._process), *children))
            if not found:
                return
            self.peak_mb = max(self.peak_mb, found / 1024)
            time.sleep(0.002)


def _resident_kb(process: str) -> int:
    with contextlib.suppress(OSError, ValueError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
    return 0


def versions(site: Sandbox) -> Iterator[Path]:
    """The filter as it is, and otherwise, for ever."""
    text = (STOCK / "no-mac-spoofing.xml").read_text()
    changed = text.replace(
        "</filter>", "  <rule action='drop' direction='out'><mac protocolid='0x88cc'/></rule>\n</filter>"
    )
    paths = [site.directory / "changed.xml", site.directory / "as-it-was.xml"]
    for path, content in zip(paths, (changed, text)):
        path.write_text(content)
    while True:
        yield from paths


def define(site: Sandbox, path: Path, taps: int) -> tuple[float, float, float]:
    """Seconds, CPU seconds and megabytes of one `nwfilter-hook define`, which must change so many taps."""
    environment = {**os.environ, "NWFILTER_HOOK_CONF": str(site.conf)}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with site.inside():
        start = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "nwfilter_hook", "define", str(path)],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=ROOT,
        )
    memory = Memory(process.pid)
    memory.start()
    out, _ = process.communicate()
    seconds = time.perf_counter() - start
    memory.join()
    assert process.returncode == 0
    assert out.splitlines()[-1].endswith(f"; {taps} tap{'' if taps == 1 else 's'} changed"), out[-200:]
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, memory.peak_mb


@click.command()
@click.option("--taps", default="10,100,400,1000", show_default=True, help="Numbers of taps that use the filter.")
@click.option("--rounds", default=3, show_default=True, help="Redefinitions of which the median is taken.")
def main(taps: str, rounds: int) -> None:
    """Print seconds and memory of a redefinition, and how they grow."""
    if os.geteuid() != 0:
        raise click.ClickException("run this as root: it makes namespaces")
    click.echo(f"{'taps':>5} {'seconds':>8} {'cpu':>6} {'cpu ms/tap':>10} {'MB':>6} {'nothing changes':>16}   budget")
    with Wire(()) as wire:
        site = Sandbox(wire.directory, wire)
        paths = versions(site)
        installed = 0
        for count in sorted(int(text) for text in taps.split(",")):
            for number in range(installed, count):
                parameters = [("IP", f"10.{number >> 8}.{number & 255}.1")]
                site.start(f"guest-{number}", f"vnet{number}", "clean-traffic", parameters, mac=mac(number))
            installed = count
            found = [define(site, next(paths), count) for _ in range(rounds + rounds % 2)]
            seconds, cpu, _ = (statistics.median(column) for column in zip(*found))
            megabytes = max(each for _, _, each in found)
            same = statistics.median(define(site, site.directory / "as-it-was.xml", 0)[0] for _ in range(3))
            line = f"{count:>5} {seconds:>8.2f} {cpu:>6.2f} {cpu * 1000 / count:>10.1f} {megabytes:>6.0f} {same:>16.2f}"
            if count == 400:
                line += f"   {BUDGET_S} s: {seconds / BUDGET_S:.2f}, {BUDGET_MB} MB: {megabytes / BUDGET_MB:.2f}"
            click.echo(line)


if __name__ == "__main__":
    main()
