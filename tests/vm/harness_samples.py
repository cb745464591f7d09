"""What test_machine.py has run in a VM; pytest finds it only when named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def test_passes_on_another_kernel() -> None:
    """The release is Debian's, and modprobe works."""
    assert os.uname().release.endswith("-amd64")
    assert Path("/sys/module/nf_conntrack_bridge").is_dir()


def test_fails() -> None:
    """With output."""
    print("something printed")
    assert os.uname().sysname == "Plan 9"


def test_is_skipped() -> None:
    """Which counts as failed."""
    pytest.skip("no reason")


@pytest.mark.xfail(strict=True)
def test_fails_as_expected() -> None:
    """Which doesn't."""
    raise AssertionError


def test_kills_the_kernel() -> None:
    """By a panic."""
    Path("/proc/sys/kernel/sysrq").write_text("1")
    Path("/proc/sysrq-trigger").write_text("c")


def test_never_begins() -> None:
    """Since the kernel is dead."""
