"""The VM itself: what runs in there is reported truly, whatever becomes of it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.vm.machine import CONSOLE_LINES, PANIC, Outcome, VmRun, boot, read_outcomes, run_in_vm

SAMPLES = "tests/vm/harness_samples.py"


@pytest.mark.vm
@pytest.mark.timeout(600)
def test_outcomes_come_out_of_the_vm(tmp_path: Path) -> None:
    """Pass, failure with its output, skip, expected failure, a kernel that dies in a test, and what comes after."""
    names = ("passes_on_another_kernel", "fails", "is_skipped", "fails_as_expected", "kills_the_kernel", "never_begins")
    run = run_in_vm([f"{SAMPLES}::test_{name}" for name in names], tmp_path)
    failures = {name: run.failure(f"{SAMPLES}::test_{name}") for name in names}
    assert failures["passes_on_another_kernel"] is None, run.console[-3000:]
    assert failures["fails_as_expected"] is None
    assert "Plan 9" in (failures["fails"] or "")
    assert "something printed" in (failures["fails"] or "")
    assert "no reason" in (failures["is_skipped"] or "")
    for unfinished in ("kills_the_kernel", "never_begins"):
        assert "sysrq triggered crash" in (failures[unfinished] or "")


@pytest.mark.vm
def test_a_vm_that_hangs_is_stopped(tmp_path: Path) -> None:
    """With everything that was started for it, and a console that says so."""
    started = time.monotonic()
    console = boot("sleep 1000", tmp_path, timeout_s=3)
    assert time.monotonic() - started < 30
    assert "the VM was stopped: not done after 3 s" in console


def _line(nodeid: str, when: str, outcome: str, text: str = "") -> str:
    return json.dumps({"nodeid": nodeid, "when": when, "outcome": outcome, "text": text}) + "\n"


def test_phases_are_put_together() -> None:
    """A failure in any of them counts, and its text is kept; a line cut short is no report."""
    passed = "".join(_line("a", when, "passed") for when in ("setup", "call", "teardown"))
    failed = _line("b", "setup", "passed") + _line("b", "call", "failed", "no") + _line("b", "teardown", "passed")
    outcomes = read_outcomes(passed + failed + _line("c", "setup", "passed") + _line("c", "teardown", "passed")[:-9])
    assert outcomes == {"a": Outcome(finished=True), "b": Outcome(True, True, text="no"), "c": Outcome()}


def test_without_a_report_the_console_is_shown() -> None:
    """Its end."""
    lines = [f"line {number}." for number in range(1000)]
    failure = VmRun({}, "\n".join(lines)).failure("a") or ""
    assert failure.endswith("\n".join(lines[-CONSOLE_LINES:]))
    assert lines[-CONSOLE_LINES - 1] not in failure


def test_a_panic_is_shown_from_its_first_line_on() -> None:
    """However long the stack that it prints, and no line before it."""
    lines = [f"line {number}." for number in range(1000)]
    lines[500] = f"[   28.1] {PANIC}: sysrq triggered crash"
    assert (VmRun({}, "\n".join(lines)).failure("a") or "").endswith("---\n" + "\n".join(lines[500:]))
