"""
`@pytest.mark.stock_kernel`: tests that need ct, reject and meta ibrname in the bridge family.

On a kernel that has them they run like any other test. On one that lacks them each is replaced, when collected, by an
`InVm` item of the same name and node id. One VM (`machine.py`) is booted for all that were selected; it runs beside the
other tests, and each item then reports its own outcome. In the VM this same file writes the reports.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.vm.capability import bridge_family_is_complete
from tests.vm.lan import Lan, lan
from tests.vm.machine import BOOT_S, PER_TEST_S, REPORTS_ENV, VmRun, run_in_vm

_BESIDE = pytest.StashKey["Beside"]()


class Beside:
    """A VM that runs tests in a thread."""

    def __init__(self, nodeids: list[str]) -> None:
        self._stop = threading.Event()
        self._executor = ThreadPoolExecutor(1)
        self._run = self._executor.submit(self._boot, nodeids)

    def _boot(self, nodeids: list[str]) -> VmRun:
        with tempfile.TemporaryDirectory(prefix="nwfilter-hook-vm-") as directory:
            return run_in_vm(nodeids, Path(directory), stop=self._stop)

    def result(self) -> VmRun:
        """Wait for its end; raise what `run_in_vm` raises."""
        return self._run.result()

    def stop(self) -> None:
        """It is no longer needed."""
        self._stop.set()
        self._executor.shutdown()


class FailedInVm(Exception):
    """`str()` is all there is to say; the traceback of this exception would say nothing."""


class InVm(pytest.Item):
    """A test that runs in the VM; here it only reports."""

    def runtest(self) -> None:
        """Fail if the test failed, was skipped or left no report."""
        run = self.session.stash[_BESIDE].result()
        failure = run.failure(self.nodeid)
        if failure is not None:
            raise FailedInVm(failure)
        if run.outcomes[self.nodeid].xfailed:
            pytest.xfail("in the VM")

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: object = None) -> str:
        """Show what the VM said and nothing of the code above."""
        return str(excinfo.value) if isinstance(excinfo.value, FailedInVm) else str(excinfo.getrepr(style="short"))

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Where the test is, for pytest's headlines."""
        return self.path, None, self.name


def pytest_collection_finish(session: pytest.Session) -> None:
    """Begin with the VM's tests."""
    nodeids = [item.nodeid for item in session.items if isinstance(item, InVm)]
    if nodeids and not session.config.option.collectonly:
        session.stash[_BESIDE] = Beside(nodeids)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """If the tests ended early, so does the VM."""
    if _BESIDE in session.stash:
        session.stash[_BESIDE].stop()


# First, so that `-m` and `-k` see the items that will run.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Replace what this kernel can't run."""
    wanted = [item for item in items if item.get_closest_marker("stock_kernel")]
    if not wanted or REPORTS_ENV in os.environ or bridge_family_is_complete():
        return
    for position, item in enumerate(items):
        if item in wanted:
            assert item.parent is not None
            substitute = InVm.from_parent(item.parent, name=item.name)
            # an expected failure is the VM's to expect
            substitute.own_markers = [mark for mark in item.own_markers if mark.name != "xfail"]
            substitute.add_marker(pytest.mark.vm)
            # pytest-timeout: the first of them waits for all.
            substitute.add_marker(pytest.mark.timeout(2 * (BOOT_S + PER_TEST_S * len(wanted))))
            items[position] = substitute
    # last: by then the VM is through, and nobody waits for it
    items.sort(key=lambda item: isinstance(item, InVm))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """In the VM, append a line for `machine.read_outcomes`."""
    if REPORTS_ENV not in os.environ:
        return
    text = "\n".join([report.longreprtext, *(f"--- {title} ---\n{body}" for title, body in report.sections)])
    outcome = "xfailed" if report.skipped and hasattr(report, "wasxfail") else report.outcome
    line = {"nodeid": report.nodeid, "when": report.when, "outcome": outcome, "text": text.strip("\n")}
    with Path(os.environ[REPORTS_ENV]).open("a") as reports:
        reports.write(json.dumps(line) + "\n")


@pytest.fixture(scope="session")
def _lan() -> Iterator[Lan]:
    with lan() as made:
        yield made


@pytest.fixture
def wire(_lan: Lan) -> Lan:
    """The LAN, with no rule and no tracked connection."""
    _lan.reset()
    return _lan
