"""
Work that is killed with SIGKILL before its N-th step.

A step is anything that can be seen from outside: a file of the directory that is opened for writing, renamed, removed
or made, and an nft that gets a script. Python's own audit events tell (sys.addaudithook), before it happens, so the
code under test needs no seam and no step can be forgotten.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

MOST_STEPS = 60
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
FILES = (
    *("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.chown", "os.link", "os.truncate"),
    "shutil.move",
)
SCRIPT = "-f"
"""nft's argument for a script; a process without it only asks."""


def is_step(event: str, arguments: tuple[Any, ...], directory: str) -> bool:
    """Whether the event changes something that outlives the process."""
    if event == "subprocess.Popen":
        return SCRIPT in arguments[1]
    if event == "open":
        path, _, flags = arguments
        return isinstance(path, str) and path.startswith(directory) and bool(flags & WRITING)
    if event not in FILES or not str(arguments[0]).startswith(directory):
        return False
    return os.path.lexists(arguments[0]) is (event != "os.mkdir")  # else it comes to nothing


def killed_at(step: int, directory: Path, work: Callable[[], object]) -> bool:
    """Do `work` in a process of its own, which dies before that step; False if it has fewer, and ended well."""
    process = os.fork()
    if process == 0:
        steps = 0

        def audit(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal steps
            if is_step(event, arguments, str(directory)):
                steps += 1
                if steps == step:
                    os.kill(os.getpid(), signal.SIGKILL)

        status = 1
        try:
            sys.addaudithook(audit)
            work()
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(process, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


def every_death(directory: Path, prepare: Callable[[], object], work: Callable[[], object]) -> Iterator[int]:
    """Each time around, `work` has died one step later, after `prepare`; yields the step."""
    for step in itertools.count(1):
        assert step < MOST_STEPS, "it never gets to its end"
        prepare()
        if not killed_at(step, directory, work):
            assert step > 3, "it has no steps?"
            return
        yield step
