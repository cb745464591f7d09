"""What all tests share. In CI a test that is skipped has failed: what it needs is what the test command installs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator
from pathlib import Path

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip into a failure where CI is set; an expected failure stays one."""
    report = yield
    if os.environ.get("CI") and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {report.longrepr}"
    return report


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
