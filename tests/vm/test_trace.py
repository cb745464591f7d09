"""nwfilter-hook trace where the kernel follows connections: real sockets, and the session that the README shows."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
from pathlib import Path

import pytest

from tests.support.netns import REPOSITORY, command_line
from tests.vm.hooked import Hooked
from tests.vm.lan import Lan

pytestmark = pytest.mark.stock_kernel

SLOW_S = 60.0


class Traced:
    """A guest `a` under test-eth0, whose tap is traced."""

    def __init__(self, wire: Lan, directory: Path) -> None:
        self.wire, self.hooked = wire, Hooked(wire, directory)
        example = (REPOSITORY / "packaging/examples/test-eth0.xml").read_text()
        (directory / "filters/test-eth0.xml").write_text(example)
        self.hooked.start(wire.a, "test-eth0", [("IP", str(wire.a.ip))])

    def trace(self, *arguments: str) -> subprocess.Popen[str]:
        """It sees every frame from here on."""
        with self.hooked.inside():
            process = subprocess.Popen(
                [*command_line(REPOSITORY), "trace", self.wire.a.tap, *arguments],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=dict(os.environ),
                text=True,
            )
        assert process.stderr
        assert "tracing" in process.stderr.readline()
        return process

    def knock(self, port: int) -> None:
        """The neighbour asks for a connection, and doesn't wait for it."""
        with self.wire.b.inside(), socket.socket() as asks:
            asks.setblocking(False)
            asks.connect_ex((str(self.wire.a.ip), port))


@pytest.fixture
def traced(wire: Lan, tmp_path: Path) -> Traced:
    """See there."""
    return Traced(wire, tmp_path)


def test_a_connection(traced: Traced) -> None:
    """Each packet with the rule of layer 3 that decides, both ways, by its state; what is refused as well."""
    with traced.wire.a.inside():
        server = socket.create_server((str(traced.wire.a.ip), 80))
    with server, traced.trace("--tcp", "--json", "--count", "4") as process:
        with traced.wire.b.inside():
            socket.create_connection((str(traced.wire.a.ip), 80), timeout=SLOW_S).close()
        traced.knock(443)
        out, _ = process.communicate(timeout=SLOW_S)
    found = [json.loads(line) for line in out.splitlines()]
    rules = [[layer["rule"] for layer in each["layers"] if layer["layer"].startswith("layer 3")] for each in found]
    assert rules[:3] == [["test-eth0:7"]] * 3, found
    assert [each["direction"] for each in found[:3]] == ["to-guest", "from-guest", "to-guest"]
    assert {each["verdict"] for each in found[:3]} == {"pass"}


def test_the_readme(traced: Traced) -> None:
    """Somebody tries port 443 meanwhile; time and addresses are others."""
    readme = (REPOSITORY / "README.md").read_text()
    ((command, line),) = re.findall(r"(?m)^    # (nwfilter-hook trace vnet0 .*)\n    (.*)\n", readme)
    with traced.trace(*command.split()[3:]) as process:
        traced.knock(443)
        out, _ = process.communicate(timeout=SLOW_S)
    varies = r"\d+:\d+:\d+\.\d+|[\d.]{7,}:\d+"
    assert re.sub(varies, "…", out.strip()) == re.sub(varies, "…", line)
