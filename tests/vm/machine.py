"""
Run tests on Debian's stock kernel: one boot of a small VM for all of them.

In:  node ids of tests of this repository.
Out: a `VmRun`, i.e. what became of each, and all that the console showed.

virtme-ng boots the kernel on this machine's own root file system (read-only, changes go to memory) under plain
emulation, and pytest runs in there from the same virtual environment. What is written in the VM is gone afterwards,
except in one shared directory: the node ids go in there as a file, and `REPORTS` comes out, a JSON line per phase of
each test, written by `conftest.py` of this directory while the tests run.

virtme-ng, "Run": https://github.com/arighi/virtme-ng
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.stock_kernel import StockKernel, stock_kernel

REPOSITORY = Path(__file__).resolve().parents[2]
REPORTS = "reports.jsonl"
# Tells the pytest in the VM where to write REPORTS; its presence says "this is the VM".
REPORTS_ENV = "NWFILTER_HOOK_VM_REPORTS"

# What udev or the kernel would load by itself on a real host, loaded here since there is no udev.
MODULES = (
    "nf_conntrack_bridge nft_reject_bridge nft_meta_bridge nft_ct nft_connlimit nft_limit nf_conntrack_netlink "
    "veth tun macvtap dummy 8021q sctp openvswitch"
)
CONSOLE_LINES = 60
PANIC = "Kernel panic - not syncing"
BOOT_S = 180  # about 15 s on an idle machine
PER_TEST_S = 30


@dataclass(frozen=True)
class Outcome:
    """
    What became of one test in the VM.

    Attributes:
        finished: False if the test never got to the end of its teardown (the VM died or was stopped).
        failed: True if any phase failed or was skipped: there is no reason to skip a test in here.
        xfailed: True if it failed as its xfail mark says.
        text: traceback, captured output or reason for skipping, "" if there is nothing to say.
    """

    finished: bool = False
    failed: bool = False
    xfailed: bool = False
    text: str = ""


@dataclass(frozen=True)
class VmRun:
    """One boot: the outcomes by node id (those that never began are missing) and the console's text."""

    outcomes: Mapping[str, Outcome]
    console: str

    def failure(self, nodeid: str) -> str | None:
        """Why this test counts as failed, with the end of the console if it left no full report; None if it doesn't."""
        outcome = self.outcomes.get(nodeid, Outcome())
        if not outcome.finished:
            return f"did not finish in the VM\n{outcome.text}\n--- console ---\n{_end(self.console)}"
        return outcome.text or "failed in the VM" if outcome.failed else None


def _end(console: str) -> str:
    """The last CONSOLE_LINES; more if the kernel's last words began before them: a stack dump has no fixed length."""
    lines = console.splitlines()
    panics = (number for number, line in enumerate(lines) if PANIC in line)
    return "\n".join(lines[min(next(panics, len(lines)), max(0, len(lines) - CONSOLE_LINES)) :])


def run_in_vm(
    nodeids: Sequence[str], directory: Path, timeout_s: float | None = None, stop: threading.Event | None = None
) -> VmRun:
    """
    Boot, run the tests with these node ids, power off.

    Args:
        directory: empty; shared with the VM.
        timeout_s: when to give up; by default so much that only a VM that hangs meets it.
        stop: power off at once when it is set.

    Raises:
        NoStockKernel: there is no kernel to boot.
    """
    (directory / "nodeids").write_text("".join(f"{nodeid}\n" for nodeid in nodeids))
    environment = f"PYTHONDONTWRITEBYTECODE=1 {REPORTS_ENV}={directory}/{REPORTS}"
    # hypothesis takes ten seconds to import there.
    options = "-q --color=no --durations=10 -p no:cacheprovider -p no:hypothesispytest"
    pytest_ = f"{shlex.quote(sys.executable)} -m pytest {options} @{directory}/nodeids"
    command = f"cd {shlex.quote(str(REPOSITORY))} && {environment} {pytest_}"
    console = boot(command, directory, timeout_s or BOOT_S + PER_TEST_S * len(nodeids), stop=stop)
    reports = directory / REPORTS
    return VmRun(read_outcomes(reports.read_text() if reports.exists() else ""), console)


def boot(
    command: str,
    directory: Path,
    timeout_s: float,
    kernel: StockKernel | None = None,
    stop: threading.Event | None = None,
) -> str:
    """
    Boot the kernel, load MODULES, run the shell `command` as root, power off; return what the console showed.

    `directory` is the one place where the VM can leave files; it holds `console.log`, too. After `timeout_s`, or when
    `stop` is set, the VM is stopped and the console says so.
    """
    kernel = kernel or stock_kernel()
    # The kernel's directory is named because the VM hides what is in /var/cache.
    vng = [
        "vng",
        *("--verbose", "--disable-kvm", "--user", "root", "--run", str(kernel.vmlinuz)),
        *("--append", "apparmor=1 security=apparmor"),  # as Debian boots it
        *("--rodir", str(kernel.modules.parents[2]), "--rodir", str(REPOSITORY), "--rwdir", str(directory)),
        *("--", f"dmesg -n 4; modprobe -a {MODULES}; {command}"),
    ]
    # vng starts virtme-run and that kmod's tools by their names.
    path = f"{sysconfig.get_path('scripts')}:{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    log = directory / "console.log"
    with log.open("wb") as console:
        process = subprocess.Popen(
            vng,
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PATH": path},
            start_new_session=True,
        )
        began = time.monotonic()
        try:
            while process.poll() is None:
                if time.monotonic() - began > timeout_s or (stop is not None and stop.is_set()):
                    console.write(f"\nthe VM was stopped: not done after {time.monotonic() - began:.0f} s\n".encode())
                    break
                time.sleep(0.1)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    return log.read_text(errors="replace")


def read_outcomes(reports: str) -> dict[str, Outcome]:
    """Put together what `REPORTS` says about each test; a last line that is cut short is ignored."""
    outcomes: dict[str, Outcome] = {}
    for line in reports.splitlines():
        try:
            phase = json.loads(line)
        except ValueError:
            continue
        before = outcomes.get(phase["nodeid"], Outcome())
        outcomes[phase["nodeid"]] = Outcome(
            finished=phase["when"] == "teardown",
            failed=before.failed or phase["outcome"] in ("failed", "skipped"),
            xfailed=before.xfailed or phase["outcome"] == "xfailed",
            text="\n".join(filter(None, (before.text, phase["text"]))),
        )
    return outcomes
