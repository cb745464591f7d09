"""Whether a daemon of libvirt has seen the hook, libvirtd or, where daemons are modular, virtqemud."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nwfilter_hook.operations import hooked

Start = Callable[[str], int]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a program of that name; its process."""
    running = []
    sleep = shutil.which("sleep")
    assert sleep

    def started(name: str) -> int:
        shutil.copy(sleep, tmp_path / name)
        running.append(subprocess.Popen([tmp_path / name, "60"]))
        return running[-1].pid

    yield started
    for process in running:
        process.kill()
        process.wait()


def test_when_a_daemon_was_started(start: Start) -> None:
    """Of both kinds; a program with another name is none, though it begins alike."""
    processes = {name: start(name) for name in ("libvirtd", "virtqemud", "virtqemud2")}
    found = hooked.daemon_starts()
    assert "virtqemud2" not in str(found)
    for name in ("libvirtd", "virtqemud"):
        assert time.time() - 20 < found[f"{name} ({processes[name]})"] <= time.time()


def test_a_hook_that_is_newer(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """libvirt looks for hooks when it starts: one that comes later isn't known, whichever daemon it is."""
    hook = tmp_path / "50-nwfilter-hook"
    monkeypatch.setattr(hooked, "HOOKS", (str(hook),))
    own = {f"virtqemud ({start('virtqemud')})"}
    everybody = hooked.daemon_starts
    monkeypatch.setattr(hooked, "daemon_starts", lambda: {key: at for key, at in everybody().items() if key in own})
    assert not hooked.hook_known()
    time.sleep(2.1)  # the kernel tells of starts in whole seconds
    hook.touch(mode=0o755)
    assert hooked.hook_installed()
    assert not hooked.hook_known()
    own.clear()
    own.add(f"libvirtd ({start('libvirtd')})")
    assert hooked.hook_known()
