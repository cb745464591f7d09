"""What the tests with frames need."""

from __future__ import annotations

import pytest

from tests.conformance.summary import STOCK_KERNEL, TALLIES, line


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The line that sums up what was compared."""
    reports = terminalreporter.getreports("passed")
    names = [report.nodeid.rpartition("::")[2].partition("[")[0] for report in reports]
    passed = [name for name in names if name in STOCK_KERNEL]
    if TALLIES or passed:
        terminalreporter.write_line(line(passed))
