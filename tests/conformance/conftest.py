"""What the tests with frames need."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.conformance.summary import TALLIES, line


@pytest.fixture(scope="session")
def able() -> None:
    """Skip, naming what is missing, where no wire can be laid."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    if not Path("/dev/net/tun").exists():
        pytest.skip("/dev/net/tun is missing: modprobe tun")
    for program in ("nft", "ip"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is missing: apt-get install nftables iproute2")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The line that sums up what was compared."""
    if TALLIES:
        terminalreporter.write_line(line())
