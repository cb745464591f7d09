"""
Run the hook and kill it with SIGKILL at its N-th step: `python -IS killer.py STEP STATE_DIR HOOK GUEST OPERATION …`.

A step is anything that can be seen from outside: a file of the state directory that is opened for writing, renamed,
removed or made, and an nft that gets a script. Python's own audit events tell (sys.addaudithook), before it happens,
so the code under test needs no seam and no step can be forgotten. Ends as the hook ends if it has fewer steps.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
from typing import Any

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
FILES = (
    "os.rename",
    "os.remove",
    "os.mkdir",
    "os.rmdir",
    "os.chmod",
    "os.chown",
    "os.link",
    "os.truncate",
    "shutil.move",
)
SCRIPT = "-f"
"""nft's argument for a script; a process without it only asks."""


def is_step(event: str, arguments: tuple[Any, ...], state_dir: str) -> bool:
    """Whether the event changes something that outlives the process."""
    if event == "subprocess.Popen":
        return SCRIPT in arguments[1]
    if event == "open":
        path, _, flags = arguments
        return isinstance(path, str) and path.startswith(state_dir) and bool(flags & WRITING)
    if event not in FILES or not str(arguments[0]).startswith(state_dir):
        return False
    return os.path.lexists(arguments[0]) is (event != "os.mkdir")  # else it comes to nothing


def main() -> None:
    """See the module."""
    step, state_dir = int(sys.argv[1]), sys.argv[2]
    steps = 0

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal steps
        if is_step(event, arguments, state_dir):
            steps += 1
            if steps == step:
                os.write(2, f"nwfilter-hook: killed before {event} {arguments!a}\n".encode())
                os.kill(os.getpid(), signal.SIGKILL)

    sys.argv = sys.argv[3:]
    sys.addaudithook(audit)
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
