"""
Figures, not tests: what the redefinition of one filter costs when many taps use it.

Every tap is a guest's under clean-traffic; redefined is no-mac-spoofing, which is in its tree, so every tap changes.
The command runs as a process, so its start is in the figure. Memory is the sum of the command and its nft at their
worst moment.
"""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.bench.guests import ROOT, address, mac
from tests.support.host import STOCK, Sandbox
from tests.support.netns import Wire


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


def redefinitions(counts: Iterable[int], rounds: int) -> Iterator[tuple[int, list[float], list[float]]]:
    """For each number of taps: that, and of each round seconds and megabytes."""
    with Wire(()) as wire:
        site = Sandbox(wire.directory, wire)
        paths = versions(site)
        installed = 0
        for count in sorted(counts):
            for number in range(installed, count):
                site.start(
                    f"guest-{number}", f"vnet{number}", "clean-traffic", [("IP", address(number))], mac=mac(number)
                )
            installed = count
            found = [define(site, next(paths), count) for _ in range(rounds + rounds % 2)]
            yield count, [seconds for seconds, _, _ in found], [megabytes for _, _, megabytes in found]
