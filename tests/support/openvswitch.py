"""
Open vSwitch in the network namespace of a wire, apart from any that the machine has.

In:  a `Wire`, and whether the switch works in the kernel or in its own process.
Out: a `Switch`: a bridge whose ports are added as libvirt adds them, with ovs-vsctl.

Database, sockets and logs are in the wire's directory, which OVS_RUNDIR and its like name; ovsdb-server(1) and
ovs-vswitchd(8) run as children of the test. The bridge's one flow is "flood", as the wire's own bridge does: verdicts
don't depend on what it has learned.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen

from tests.support.netns import Wire

BRIDGE = "ovs0"
SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"
TIMEOUT_S = 20
# The first frame of its kind goes through the process of the switch and comes back: some 50 ms under emulation.
LOST_AFTER_S = 0.5


@dataclass(frozen=True)
class Switch:
    """A running switch with the bridge BRIDGE."""

    wire: Wire
    environment: dict[str, str]

    def run(self, *command: str) -> str:
        """What one of the programs of Open vSwitch prints."""
        return self.wire.run(*command, environment=self.environment).stdout

    def vsctl(self, *arguments: str) -> str:
        """Change the configuration, and wait until it is in force."""
        database = f"--db=unix:{self.wire.directory}/db.sock"
        return self.run("ovs-vsctl", database, f"--timeout={TIMEOUT_S}", *arguments)

    def add_ports(self, *taps: str) -> None:
        """Make taps of the wire ports of the bridge."""
        for tap in taps:
            self.vsctl("--", "--may-exist", "add-port", BRIDGE, tap)

    def passes(self, frame: bytes, sender: str, to: str) -> bool:
        """Does `frame`, sent by the guest of `sender`, reach the guest of `to`, sooner or later?"""
        return self._passes(frame, sender, to, TIMEOUT_S)

    def drops(self, frame: bytes, sender: str, to: str) -> bool:
        """Doesn't it, in a time that it should take?"""
        return not self._passes(frame, sender, to, LOST_AFTER_S)

    def _passes(self, frame: bytes, sender: str, to: str, timeout_s: float) -> bool:
        self.wire.guests[to].receive()
        self.wire.guests[sender].send(frame)
        deadline = time.monotonic() + timeout_s
        while (left := deadline - time.monotonic()) > 0:
            if frame in self.wire.guests[to].receive(left):
                return True
        return False


@contextmanager
def open_vswitch(wire: Wire, datapath: str = "system") -> Iterator[Switch]:
    """
    Start it, and stop it in the end.

    Args:
        datapath: "system" is that of the kernel, "netdev" that of the process, which reads the ports itself.
    """
    directory = wire.directory
    places = ("OVS_RUNDIR", "OVS_DBDIR", "OVS_LOGDIR", "OVS_SYSCONFDIR")
    switch = Switch(wire, {**os.environ, **dict.fromkeys(places, str(directory))})
    database, remote = directory / "conf.db", f"unix:{directory}/db.sock"
    switch.run("ovsdb-tool", "create", str(database), SCHEMA)
    with ExitStack() as stack:
        server = ("ovsdb-server", str(database), f"--remote=p{remote}", f"--unixctl={directory}/ovsdb.ctl")
        stack.enter_context(_running(switch, *server))
        _wait_for(directory / "db.sock")
        switch.vsctl("--no-wait", "init")
        stack.enter_context(_running(switch, "ovs-vswitchd", remote, f"--unixctl={directory}/vswitchd.ctl"))
        switch.vsctl("add-br", BRIDGE, "--", "set", "bridge", BRIDGE, f"datapath_type={datapath}")
        switch.run("ovs-ofctl", "add-flow", f"unix:{directory}/{BRIDGE}.mgmt", "actions=FLOOD")
        yield switch
        switch.vsctl("del-br", BRIDGE)


@contextmanager
def _running(switch: Switch, *command: str) -> Iterator[None]:
    log = switch.wire.directory / f"{command[0]}.log"
    with switch.wire.inside(), log.open("w") as output:
        process = Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=switch.environment)
    with process:
        try:
            yield
        finally:
            process.terminate()


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not path.exists():
        assert time.monotonic() < deadline, f"no {path}"
        time.sleep(0.02)
