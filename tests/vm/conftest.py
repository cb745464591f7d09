"""
`@pytest.mark.stock_kernel`: tests that need ct, reject and meta ibrname in the bridge family.

On a kernel that has them they run like any other test. On one that lacks them each is replaced, when collected, by an
`InVm` item of the same name and node id. The first of these to run boots one VM (`machine.py`) for all that were
selected, each then reports its own outcome. In the VM this same file writes the reports.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vm.capability import bridge_family_is_complete
from tests.vm.lan import Lan, lan
from tests.vm.machine import BOOT_S, PER_TEST_S, REPORTS_ENV, VmRun, run_in_vm

_VM_RUN = pytest.StashKey[VmRun]()


class FailedInVm(Exception):
    """`str()` is all there is to say; the traceback of this exception would say nothing."""


class InVm(pytest.Item):
    """A test that runs in the VM; here it only reports."""

    def runtest(self) -> None:
        """Fail if the test failed, was skipped or left no report."""
        run = _vm_run(self.session)
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


def _vm_run(session: pytest.Session) -> VmRun:
    if _VM_RUN not in session.stash:
        nodeids = [item.nodeid for item in session.items if isinstance(item, InVm)]
        with tempfile.TemporaryDirectory(prefix="nwfilter-hook-vm-") as directory:
            session.stash[_VM_RUN] = run_in_vm(nodeids, Path(directory))
    return session.stash[_VM_RUN]


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
