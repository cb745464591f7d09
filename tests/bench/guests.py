"""
A private host with our hook on it and guests that exist only as events: each has a tap in the bridge, but no QEMU.
"""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Sequence
from pathlib import Path

from tests.support.libvirtd import PrivateHost

ROOT = Path(__file__).resolve().parents[2]
PYTHON = "/usr/bin/python3"
NFT = "/usr/sbin/nft"
HOOK = "/etc/libvirt/hooks/qemu.d/50-nwfilter-hook"

Command = tuple[list[str], str]
"""A program with its arguments, and the path of its standard input."""


def mac(number: int) -> str:
    """The MAC of guest `number`."""
    return f"52:54:00:00:{number >> 8:02x}:{number & 255:02x}"


def address(number: int) -> str:
    """Its IPv4 address."""
    return f"10.{number >> 8}.{number & 255}.1"


def domain(number: int, *, reference: bool = True) -> str:
    """The XML of a guest with one interface on tap `vnetNUMBER`."""
    inner = f"<filterref filter='clean-traffic'><parameter name='IP' value='{address(number)}'/></filterref>"
    return (
        f"<domain type='qemu'><name>guest-{number}</name><uuid>{uuid.UUID(int=number + 1)}</uuid><devices>"
        f"<interface type='bridge'><mac address='{mac(number)}'/><source bridge='br0'/><target dev='vnet{number}'/>"
        f"{inner if reference else ''}</interface></devices></domain>"
    )


class Guests:
    """
    The host.

    Args:
        most: how many taps there are in the bridge.
    """

    def __init__(self, most: int) -> None:
        self.host = PrivateHost()
        self._started = 0
        self.host.write("/etc/nwfilter-hook/nwfilter-hook.conf", "")
        self.host.run("make", "--silent", "-C", str(ROOT), "hook")
        taps = (f"vnet{number}" for number in range(most))
        self.host.ip(
            "link add br0 type bridge",
            *(each for tap in taps for each in (f"tuntap add {tap} mode tap", f"link set {tap} master br0 up")),
        )
        pid = self.host.root.parent.name
        environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
        enter = ("nsenter", "--target", pid, "--mount", "--net", "--pid", "--", PYTHON)
        self._stopwatch = subprocess.Popen(
            [*enter, "-IS", str(Path(__file__).with_name("stopwatch.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )

    def close(self) -> None:
        """It is gone."""
        self._stopwatch.terminate()
        self._stopwatch.communicate()
        self.host.close()

    # --- commands -----------------------------------------------------------------------------------------------------

    def hook(self, number: int, operation: str, *, reference: bool = True) -> Command:
        """Our hook for an event of guest `number`."""
        path = f"/run/domain-{number}-{reference}.xml"
        if not self.host.path(path).exists():
            self.host.write(path, domain(number, reference=reference))
        return [HOOK, f"guest-{number}", operation, "begin", "-"], path

    def python(self) -> Command:
        """A Python that does nothing."""
        return [PYTHON, "-I", "-c", "pass"], "/dev/null"

    def nft(self, text: str, name: str) -> Command:
        """nft with a script."""
        self.host.write(f"/run/{name}.nft", text)
        return [NFT, "-f", f"/run/{name}.nft"], "/dev/null"

    def script(self, number: int, operation: str) -> str:
        """The transaction of such an event, as it would be now."""
        command = [str(ROOT / ".venv/bin/python"), "-m", "nwfilter_hook", "replay", f"guest-{number}", operation]
        return self.host.run(
            "env", "-C", str(ROOT), *command, "--xml", "-", "--dry-run", stdin=domain(number), timeout_s=120
        ).stdout

    # --- measured -----------------------------------------------------------------------------------------------------

    def run(self, commands: Sequence[Command]) -> tuple[list[tuple[float, float, float, int]], float]:
        """Start all at once; see stopwatch.py. None of them may fail."""
        stdin, stdout = self._stopwatch.stdin, self._stopwatch.stdout
        assert stdin
        assert stdout
        stdin.write(json.dumps(list(commands)) + "\n")
        stdin.flush()
        each, whole = json.loads(stdout.readline())
        for (argv, _), (*_, status) in zip(commands, each):
            assert status == 0, f"{argv} ended with {status}"
        return each, whole

    def ms(self, *commands: Command) -> float:
        """Milliseconds that the commands take, one after another."""
        return sum(self.run([command])[0][0][0] for command in commands)

    def megabytes(self, command: Command) -> float:
        """What it has in memory at its most."""
        return self.run([command])[0][0][2]

    def fill(self, taps: int) -> None:
        """See that so many guests run, and no others."""
        for number in range(self._started, taps):
            self.run([self.hook(number, "start")])
        for number in range(taps, self._started):
            self.run([self.hook(number, "stopped")])
        self._started = taps
