"""What the tests with frames need."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.conformance.summary import STOCK_KERNEL, TALLIES, line


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
    reports = terminalreporter.getreports("passed")
    names = [report.nodeid.rpartition("::")[2].partition("[")[0] for report in reports]
    passed = [name for name in names if name in STOCK_KERNEL]
    if TALLIES or passed:
        terminalreporter.write_line(line(passed))
